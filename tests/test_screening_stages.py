from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from test_anatomy_risk import model as risk_model
from test_images_decode import SMOOTH, saved

from fundus.archive.listing import walk
from fundus.field.roi import Roi
from fundus.ledger.runs import Run
from fundus.models.thresholds import Thresholds
from fundus.screening import columns, light, reading

RUN = Run("r", "b", "frames")


def maps(*cup_heights, side=256, disc_height=160):
    """One pair of maps per cup height in rows: centred ellipses, disc then cup."""
    rows, columns = np.mgrid[:side, :side] + 0.5 - side / 2
    return np.stack(
        [
            np.stack([(columns / 0.8) ** 2 + rows**2 <= (h / 2) ** 2 for h in (disc_height, cup)])
            for cup in cup_heights
        ]
    ).astype(np.float32)


def batch_of(maps_of_rows, rois, statuses):
    count = len(statuses)
    return {
        "uri": np.array([f"file:///{i}" for i in range(count)], object),
        "etag": np.array(["1"] * count, object),
        "status": np.array(statuses, object),
        "error": np.array(["" if s == "ok" else "a reason" for s in statuses], object),
        "frame": np.array([1] * count),
        "frames": np.array([1] * count),
        "width": np.array([2000] * count),
        "height": np.array([1500] * count),
        "subject": np.array([""] * count, object),
        "laterality": np.array([""] * count, object),
        "laterality_source": np.array([""] * count, object),
        "manufacturer": np.array(["Maker"] + [""] * (count - 1), object),
        "model": np.array([""] * count, object),
        "spacing_mm": np.full(count, np.nan),
        "quality": np.full(count, 0.8),
        "sharpness": np.full(count, 0.02),
        "field_red": np.full(count, 150.0),
        "field_green": np.full(count, 80.0),
        "field_blue": np.full(count, np.nan),
        "shrink": np.ones(count, int),
        "poor": np.zeros(count, bool),
        "flags": np.array([""] * count, object),
        "disc_confidence": np.full(count, 0.9),
        "roi_x": np.array([r.x for r in rois]),
        "roi_y": np.array([r.y for r in rois]),
        "roi_size": np.array([r.size for r in rois]),
        "maps": columns.tensors(maps_of_rows),
    }


def measured(batch, risk=None):
    return light.Measure(Thresholds(), risk, RUN)(batch).to_pylist()


@pytest.mark.parametrize("roi", [Roi(311.7, -20.4, 612.3), Roi(10, 10, 256), Roi(5, 7, 90.5)])
def test_drawn_ellipses_give_their_ratio_whatever_the_size_of_the_roi(roi):
    batch = batch_of([maps(80, 80, 80)], [roi], ["ok"])
    (one,) = measured(batch)
    assert abs(one["vcdr"] - 0.5) < 0.01 and abs(one["hcdr"] - 0.5) < 0.015
    assert abs(one["area_cdr"] - 0.25) < 0.01 and abs(one["rim_superior"] - 0.25) < 0.02
    assert one["vcdr_sd"] == 0.0 and one["error"] is None and one["flags"] == []
    assert (one["manufacturer"], one["model"]) == ("Maker", None)
    assert (one["sharpness"], one["field_red"], one["field_blue"]) == (0.02, 150.0, None)
    assert (one["roi_x"], one["roi_y"], one["roi_size"]) == (roi.x, roi.y, roi.size)


def test_the_spread_is_over_the_maps_that_have_a_ratio():
    batch = batch_of([maps(40, 80, 120, 0)], [Roi(0, 0, 256)], ["ok"])
    (one,) = measured(batch)
    assert one["vcdr_sd"] == pytest.approx(np.std([0.25, 0.5, 0.75]), abs=0.005)
    batch = batch_of([maps(80)], [Roi(0, 0, 256)], ["ok"])
    (one,) = measured(batch)
    assert one["vcdr_sd"] is None and one["vcdr"] is not None


def test_the_spread_that_a_student_does_not_show_is_joined_to_its_own() -> None:
    seen = maps(80, 88)
    batch = batch_of([seen], [Roi(0, 0, 256)], ["ok"])
    (own,) = light.Measure(Thresholds(), None, RUN)(batch).to_pylist()
    (joined,) = light.Measure(Thresholds(), None, RUN, hidden=0.04)(batch).to_pylist()
    assert joined["vcdr"] == own["vcdr"]
    assert joined["vcdr_sd"] == pytest.approx(np.hypot(own["vcdr_sd"], 0.04))
    (unknown,) = light.Measure(Thresholds(), risk_model(), RUN, hidden=None)(batch).to_pylist()
    assert (unknown["vcdr_sd"], unknown["risk"]) == (None, None)


def test_a_disc_without_a_cup_has_a_mask_and_no_ratio():
    batch = batch_of([maps(0, 0)], [Roi(0, 0, 256)], ["ok"])
    (one,) = measured(batch)
    assert one["status"] == "ok" and one["mask_png"] and one["vcdr"] is None
    assert one["flags"] == ["no_cup"]


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_maps_that_are_not_finite_give_a_failed_row_with_a_reason(fault):
    broken = maps(80, 80)
    broken[1, 0, 5, 5] = fault
    batch = batch_of([broken, maps(80)], [Roi(0, 0, 256)] * 2, ["ok", "ok"])
    failed, sound = measured(batch)
    assert failed["status"] == "model_failed" and "segmenter" in failed["error"]
    assert failed["vcdr"] is failed["mask_png"] is None
    assert sound["status"] == "ok" and sound["vcdr"] == 0.5


def test_risk_depends_on_the_eye_alone_and_is_null_without_a_vcdr():
    """It does not depend on the rest of the batch, and is null if the bundle is not calibrated."""
    wide, narrow, none = maps(120, 124), maps(40, 44), maps(0, 0)
    rois = [Roi(0, 0, 256)] * 3
    batch = batch_of([wide, narrow, none], rois, ["ok"] * 3)
    rows = measured(batch, risk_model())
    assert [one["referable"] for one in rows] == [True, False, None] and rows[2]["risk"] is None
    assert rows[0]["risk"] == risk_model().risk(rows[0]["vcdr"], rows[0]["vcdr_sd"]) > 0.5
    alone = batch_of([wide], rois[:1], ["ok"])
    assert measured(alone, risk_model())[0] == rows[0]
    plain = measured(alone)[0]
    assert plain == rows[0] | {"risk": None, "referable": None}


def test_a_failed_row_passes_untouched_between_sound_ones():
    nothing = np.zeros((1, 1, 1, 1), np.float32)
    rois = [Roi(0, 0, 256)] * 3
    batch = batch_of([maps(80), nothing, maps(80)], rois, ["ok", "decode_failed", "ok"])
    rows = measured(batch)
    assert [one["status"] for one in rows] == ["ok", "decode_failed", "ok"]
    assert rows[1]["error"] == "a reason" and rows[1]["vcdr"] is None and rows[0]["vcdr"] == 0.5


def test_rims_of_the_sides_need_the_laterality_and_millimetres_the_pixel_spacing():
    batch = batch_of([maps(80), maps(80)], [Roi(0, 0, 512)] * 2, ["ok", "ok"])
    batch["laterality"][:] = ["OD", ""]
    batch["laterality_source"][:] = ["dicom", ""]
    batch["spacing_mm"][0] = 0.005
    batch["poor"][1] = True
    one, other = measured(batch)
    assert one["rim_nasal"] is not None and one["laterality_source"] == "dicom"
    assert other["rim_nasal"] is other["laterality"] is other["disc_height_mm"] is None
    assert one["disc_height_mm"] == pytest.approx(320 * 0.005, abs=0.01)
    assert one["flags"] == [] and other["flags"] == ["poor_quality"]


def test_a_bug_is_not_taken_for_a_broken_picture(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(SMOOTH), "PNG"))
    (entry,) = walk(str(tmp_path))
    batch = {
        name: np.array([value], object)
        for name, value in {
            "source": entry.uri,
            "uri": "a",
            "etag": entry.etag,
            "size": entry.size,
            "status": "",
            "error": "",
        }.items()
    }
    read = reading.Read("off", precropped=False, keep_header=False, subject_key=None)
    (passed_on,) = read(batch)
    assert passed_on["status"][0] == "ok"
    assert batch["status"][0] == ""  # the incoming batch is not changed

    def faulty(data, **_):
        raise ValueError("a bug")

    read.decode.contents = faulty
    with pytest.raises(ValueError, match="a bug"):
        list(read(batch))


def test_a_batch_that_is_written_again_replaces_its_own_file(tmp_path):
    rows = light.Measure(Thresholds(), None, RUN)(
        batch_of([maps(80)] * 2, [Roi(0, 0, 256)] * 2, ["ok", "ok"])
    )
    write = light.Write(str(tmp_path), RUN)
    assert write(rows)["status"].to_pylist() == write(rows)["status"].to_pylist() == ["ok", "ok"]
    write(rows.slice(1))
    assert len(list((tmp_path / RUN.rows).glob("*.parquet"))) == 2


def test_the_flag_of_two_discs_follows_the_flags_of_decoding() -> None:
    from fundus.models.predictor import Detection
    from fundus.screening.models import Locate

    def place(image: np.ndarray, *, precropped: bool, field: None) -> Detection:
        return Detection(0.9, Roi(0, 0, 9), two=bool(image.max()))

    scale = SimpleNamespace(roi_scale=1.5)
    stage = Locate(SimpleNamespace(place=place, preprocessing=scale), precropped=False)
    texts = {"uri": "abc", "status": ["ok"] * 3, "error": [""] * 3, "laterality": ["OD"] * 3}
    batch = {name: np.array(list(column)) for name, column in texts.items()}
    batch["flags"] = np.array(["", "x", ""])
    batch["field"], batch["shrink"] = columns.tensors([None] * 3), np.ones(3, int)
    batch["image"] = np.array([1, 1, 0], np.uint8)[:, None, None, None]
    assert stage(batch)["flags"].tolist() == ["two_discs", "x two_discs", ""]


def test_a_working_frame_has_the_size_and_the_roi_of_its_original(tmp_path) -> None:
    from fundus.field import roi
    from fundus.models.predictor import Detection
    from fundus.screening.models import Locate

    pixels = np.random.default_rng(1).integers(0, 255, (401, 303, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(pixels), "PNG"))
    (entry,) = walk(str(tmp_path))
    names = {"source": entry.uri, "uri": "a", "etag": entry.etag, "size": entry.size}
    names |= {"status": "", "error": ""}
    listed = {name: np.array([value], object) for name, value in names.items()}
    read = reading.Read("off", precropped=True, keep_header=False, subject_key=None, least_side=75)
    (batch,) = read(listed)
    small = batch["image"][0]
    assert (batch["height"][0], batch["width"][0]) == (401, 303)
    assert small.shape == (101, 76, 3) and batch["shrink"][0] == 4

    found = Detection(0.9, Roi(10, 20, 30))
    predictor = SimpleNamespace(
        place=lambda image, **_: found, preprocessing=SimpleNamespace(roi_scale=1.5)
    )
    batch = Locate(predictor, precropped=True)(batch)
    assert [batch[name][0] for name in ("roi_x", "roi_y", "roi_size")] == [40, 80, 120]
    expected = roi.crop(small, Roi(10, 20, 30), 16, mirrored=True)
    np.testing.assert_array_equal(light.crop(batch, side=16)["crop"][0], expected)


def test_reading_tasks_are_cut_by_count_and_by_about_a_minute_of_work():
    """A spot instance has two minutes' notice; a task of large objects once took longer."""
    sizes = [600_000] * 40 + [30_000_000] * 20 + [900_000_000] + [600_000] * 3
    todo = pa.table({"uri": [str(i) for i in range(len(sizes))], "size": sizes})
    cut = reading.tasks(todo, 16)
    assert pa.concat_tables(cut).equals(todo)
    assert [one.num_rows for one in cut[:3]] == [16, 16, 8 + 6]
    for one in cut:
        seconds = sum(
            reading.OBJECT_S + reading.MEGABYTE_S * n / 1e6 for n in one["size"].to_pylist()
        )
        assert one.num_rows == 1 or (one.num_rows <= 16 and seconds <= reading.TASK_S)
    assert [one.num_rows for one in cut[-2:]] == [1, 3]
    assert reading.tasks(todo.slice(0, 0), 16)[0].num_rows == 0
