import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fundus.anatomy.labels import compose, cup_of, disc_of
from fundus.datasets.samples import LabelledSet, Sample
from fundus.errors import ConfigurationError
from fundus.evaluation import scoring, tables
from fundus.evaluation.scoring import evaluate
from fundus.evaluation.sheet import EXPERT, PREDICTED, Tile, draw_sheet
from fundus.field import roi
from fundus.models.bundle import ADAPTED, SOURCE_ONLY
from fundus.models.predictor import Detection
from fundus.models.thresholds import Thresholds

SIDE = 64


def box(height, width, top, bottom):
    """HW bool: a box of full rows top..bottom, half the side wide, so that Dice is by rows."""
    inside = np.zeros((height, width), bool)
    inside[top:bottom, width // 4 : 3 * width // 4] = True
    return inside


def eye(cup_rows, side=SIDE):
    """A disc of 40 rows, 10 to 50, and a cup of `cup_rows` rows, from row 12 down."""
    return compose(box(side, side, 10, 50), box(side, side, 12, 12 + cup_rows))


class FakePredictor:
    """Answers with `masks`, by role and by the picture's brightest value."""

    side = SIDE
    thresholds = Thresholds()

    def __init__(self, masks, regions=None):
        self.masks, self.regions = masks, regions or {}
        self.segmenters = tuple(masks)

    def place(self, image, *, precropped):
        if precropped:
            return Detection(np.nan, roi.whole(*image.shape[:2]))
        return Detection(0.9, self.regions.get(int(image.max())))

    def segment_roi(self, image, where, networks=None):
        shown = int(roi.crop(image, where, self.side).max())
        masks = [self.masks[role][shown] for role in networks]
        maps = [np.stack([disc_of(mask), cup_of(mask)]) for mask in masks for _ in range(8)]
        return np.array(maps, np.float32)


def labelled(folder: Path, truths, *, structures=("disc", "cup"), glaucoma=None, height=SIDE):
    """A set of pictures whose brightest value is 100, 101, ...: what `FakePredictor` knows."""
    samples = []
    for number, truth in enumerate(truths):
        image, mask = folder / f"{number}.png", folder / f"{number}_mask.png"
        picture = np.full((height, truth.shape[1], 3), 100 + number, np.uint8)
        Image.fromarray(picture).save(image)
        Image.fromarray(truth).save(mask)
        samples.append(
            Sample(
                id=f"eye{number}",
                set="drawn",
                image=image,
                masks=(mask,) if structures else (),
                structures=structures,
                glaucoma=glaucoma[number] if glaucoma else None,
            )
        )
    return LabelledSet("drawn", tuple(samples))


def rows_of(evaluated):
    return {row.model: row for row in evaluated.rows}


def test_the_tables_numbers_match_hand_calculation(tmp_path):
    truths = [eye(20), eye(20), eye(10)]
    source = {100: eye(10), 101: eye(20), 102: eye(10)}
    adapted = {100: eye(20), 101: eye(30), 102: eye(10)}
    data = labelled(tmp_path, truths, glaucoma=[True, True, False])
    supervised = FakePredictor({SOURCE_ONLY: dict(zip((100, 101, 102), truths, strict=True))})
    evaluated = evaluate(
        data,
        FakePredictor({SOURCE_ONLY: source, ADAPTED: adapted}),
        supervised,
        name="drawn",
        precropped=True,
    )
    assert list(rows_of(evaluated)) == ["target-supervised", "source-only", "adapted", "ensemble"]
    perfect = rows_of(evaluated)["target-supervised"]
    assert (perfect.disc_dice.value, perfect.cup_dice.value, perfect.vcdr_mae.value) == (1, 1, 0)
    assert (perfect.auc.value, perfect.auc.count) == (1, 3)
    plain = rows_of(evaluated)["source-only"]
    assert plain.cup_dice.value == pytest.approx((2 * 10 / 30 + 1 + 1) / 3)
    assert plain.vcdr_bias.value == pytest.approx((-10 / 40) / 3)
    assert plain.vcdr_mae.value == pytest.approx((10 / 40) / 3)
    assert plain.auc.value == pytest.approx((0.5 + 1) / 2)  # vcdr .25, .5 against .25: one tie
    moved = rows_of(evaluated)["adapted"]
    assert moved.cup_dice.value == pytest.approx((1 + 2 * 20 / 50 + 1) / 3)
    assert moved.vcdr_bias.value == pytest.approx((10 / 40) / 3)
    # half of the maps hold the cup, half do not: the mean is at the threshold, which is inside
    assert rows_of(evaluated)["ensemble"].cup_dice == moved.cup_dice
    assert plain.cup_dice.low <= plain.cup_dice.value <= plain.cup_dice.high


def test_an_eye_without_a_disc_scores_zero_and_is_counted(tmp_path):
    frame = np.zeros((120, 160), np.uint8)
    frame[30:94, 50:114] = eye(20)
    data = labelled(tmp_path, [frame, frame, frame], glaucoma=[True, False, True], height=120)
    regions = {100: roi.Roi(50, 30, SIDE), 102: roi.Roi(50, 30, SIDE)}
    nothing = np.zeros((SIDE, SIDE), np.uint8)
    predictor = FakePredictor({SOURCE_ONLY: {100: eye(20), 102: nothing}}, regions)
    evaluated = evaluate(data, predictor, name="drawn", precropped=False)
    [row] = evaluated.rows
    assert [found.disc_dice for found in evaluated.eyes] == [1, 0, 0]
    assert [found.cup_dice for found in evaluated.eyes] == [1, 0, 0]
    assert [found.vcdr for found in evaluated.eyes] == [0.5, None, None]
    assert (row.eyes, row.no_disc, row.no_vcdr) == (3, 2, 2)
    assert row.disc_dice.value == pytest.approx(1 / 3)
    assert (row.vcdr_mae.value, row.vcdr_mae.count) == (0, 1)
    assert (row.auc.value, row.auc.count) == (None, 1)


def test_unlabelled_measures_are_null(tmp_path):
    disc_alone = disc_of(eye(20)).astype(np.uint8)
    data = labelled(tmp_path, [disc_alone] * 2, structures=("disc",))
    predictor = FakePredictor({SOURCE_ONLY: {100: eye(20), 101: eye(20)}})
    evaluated = evaluate(data, predictor, name="drawn", precropped=True)
    [row] = evaluated.rows
    assert row.disc_dice.value == 1
    for measure in (row.cup_dice, row.vcdr_mae, row.vcdr_bias, row.auc):
        assert (measure.value, measure.low, measure.count) == (None, None, 0)
    assert "source-only" in evaluated.sheets
    with pytest.raises(ConfigurationError, match="no labels"):
        unlabelled = labelled(tmp_path, [disc_alone], structures=())
        evaluate(unlabelled, predictor, name="drawn", precropped=True)


def test_a_mask_of_another_size_is_refused_by_name(tmp_path):
    data = labelled(tmp_path, [eye(20)], height=SIDE - 1)
    predictor = FakePredictor({SOURCE_ONLY: {100: eye(20)}})
    with pytest.raises(ConfigurationError, match=r"0_mask\.png"):
        evaluate(data, predictor, name="drawn", precropped=True)


def test_the_worst_eyes_come_worst_first(tmp_path):
    truths = [eye(20)] * 4
    answers = {100: eye(20), 101: eye(5), 102: eye(15), 103: eye(10)}
    evaluated = evaluate(
        labelled(tmp_path, truths),
        FakePredictor({SOURCE_ONLY: answers}),
        name="drawn",
        precropped=True,
    )
    found = scoring.worst(evaluated.eyes, 3)
    assert [each.id for each in found] == ["eye1", "eye3", "eye2"]


def test_text_csv_and_json_agree(tmp_path):
    data = labelled(tmp_path, [eye(20), eye(10)])
    predictor = FakePredictor({SOURCE_ONLY: {100: eye(10), 101: eye(10)}})
    evaluated = evaluate(data, predictor, name="drawn", precropped=True)
    written = tables.write([evaluated], tmp_path / "out", {"bundle": "abc"})
    assert all(file.is_file() for file in written)
    [line] = csv.DictReader(io.StringIO((tmp_path / "out/table.csv").read_text()))
    everything = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert everything["about"] == {"bundle": "abc"}
    assert float(line["cup_dice"]) == everything["rows"][0]["cup_dice"]["value"]
    assert line["auc"] == "" and everything["rows"][0]["auc"]["value"] is None
    assert line["auc_count"] == "0"
    assert [each["id"] for each in everything["eyes"]] == ["eye0", "eye1"]
    assert "0.833 [0.667, 1.000] n=2" in (tmp_path / "out/table.txt").read_text()


def test_a_sheet_shows_both_outlines_on_every_tile():
    picture = np.zeros((90, 120, 3), np.uint8)
    tile = Tile(picture, eye(20), eye(30), ("one", "two"))
    sheet = draw_sheet([tile] * 3, "drawn", columns=2, side=96)
    legend = 60
    for colour in (EXPERT, PREDICTED):
        rows, columns = np.nonzero((sheet[legend:] == colour).all(axis=-1))
        assert rows.max() - rows.min() > 96
        assert columns.max() - columns.min() > 96
    with pytest.raises(ValueError, match="tile"):
        draw_sheet([], "none")
