"""One archive of everything that goes wrong, screened through the real chain on a local Ray."""

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_images_decode import SMOOTH, saved, saved_by_opencv, vast_png

from fundus.anatomy.labels import CUP
from fundus.models import networks
from fundus.models.bundle import (
    ADAPTED,
    DETECTOR,
    SOURCE_ONLY,
    Bundle,
    Network,
    Preprocessing,
    Thresholds,
)
from fundus.screening import pipeline, report, row, stages

# status and a word of the reason, for each file of `broken_archive`
EXPECTED = {
    "cmyk.jpg": ("ok", None),
    "deep.png": ("ok", None),
    "good.jpg": ("ok", None),
    "inside.jpg": ("ok", None),
    "black.png": ("no_disc", "no disc"),
    "empty.jpg": ("decode_failed", "empty"),
    "truncated.jpg": ("decode_failed", "truncated"),
    "text.jpg": ("unsupported", "text"),
    ".hidden": ("unsupported", "text"),
    "x.png": ("unsupported", "directory"),
    "out.jpg": ("unsupported", "link"),
    "vast.png": ("too_large", "too many pixels"),
}


def tiny_bundle(**thresholds):
    """Random networks that find a disc in every frame that is not black."""

    def network(config):
        return Network(config=config, weights=networks.build(config).state_dict())

    torch.manual_seed(0)
    return Bundle(
        networks={
            DETECTOR: network(networks.UNetConfig(width=4)),
            SOURCE_ONLY: network(networks.DeepLabConfig(aspp_channels=16)),
            ADAPTED: network(networks.DeepLabConfig(aspp_channels=16)),
        },
        preprocessing=Preprocessing(detector_side=64, roi_side=64),
        thresholds=Thresholds(**{"disc_found": 0.0, "disc": 0.0, "cup": 0.0} | thresholds),
    )


@pytest.fixture(scope="module")
def broken_archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    picture = Image.fromarray(SMOOTH)
    (folder / "x.png").mkdir()
    (folder / "good.jpg").write_bytes(saved(picture, "JPEG"))
    (folder / "x.png" / "inside.jpg").write_bytes(saved(picture, "JPEG"))
    (folder / "cmyk.jpg").write_bytes(saved(picture.convert("CMYK"), "JPEG"))
    (folder / "deep.png").write_bytes(saved_by_opencv(".png", SMOOTH.astype(np.uint16) * 257))
    (folder / "black.png").write_bytes(saved(Image.new("RGB", (50, 40)), "PNG"))
    (folder / "empty.jpg").touch()
    (folder / "truncated.jpg").write_bytes(saved(picture, "JPEG")[:-60])
    (folder / "text.jpg").write_text("not a picture")
    (folder / ".hidden").write_text("not a picture either")
    (folder / "out.jpg").symlink_to("/etc/hostname")
    (folder / "vast.png").write_bytes(vast_png(20_000))
    return folder


@pytest.fixture(scope="module")
def screened(ray_local, broken_archive):
    """Results lie inside the archive here, and are no objects of it."""
    config = pipeline.Screening(
        archive=str(broken_archive), results=str(broken_archive / "results")
    )
    bundle = tiny_bundle()
    summary = pipeline.screen(config, bundle)
    return summary, bundle, pq.read_table(summary.rows)


def by_name(table):
    return {one["uri"].rsplit("/", 1)[1]: one for one in table.to_pylist()}


def test_every_object_has_one_row_with_its_status_and_reason(screened):
    _, _, table = screened
    rows = by_name(table)
    assert table.num_rows == len(EXPECTED)
    assert {name: one["status"] for name, one in rows.items()} == {
        name: status for name, (status, _) in EXPECTED.items()
    }
    for name, (_, word) in EXPECTED.items():
        error = rows[name]["error"]
        assert error is None if word is None else word in error, name


def test_a_measured_row_is_whole_and_a_failed_one_has_no_number(screened):
    _, bundle, table = screened
    height, width = SMOOTH.shape[:2]
    for name, one in by_name(table).items():
        measures = [one[c] for c in ("vcdr", "hcdr", "area_cdr", "rim_inferior", "vcdr_sd")]
        assert one["bundle"] == bundle.digest and one["laterality"] is None
        assert one["risk"] is one["referable"] is one["rim_nasal"] is one["rim_temporal"] is None
        if one["status"] == "ok":
            # every threshold is 0: all of the ROI is cup
            mask = cv2.imdecode(np.frombuffer(one["mask_png"], np.uint8), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (64, 64) and mask.dtype == np.uint8 and (mask == CUP).all()
            assert (one["width"], one["height"]) == (width, height)
            assert one["vcdr"] == 1.0 and one["vcdr_sd"] == 0.0 and one["rim_inferior"] == 0.0
            assert one["roi_size"] > 0 and 0 <= one["disc_confidence"] <= 1
        else:
            assert measures == [None] * 5 and one["mask_png"] is None, name
    assert by_name(table)["black.png"]["width"] == 50


def test_the_files_carry_a_description_of_every_column_and_of_the_run(screened):
    summary, bundle, table = screened
    assert table.schema.names == row.SCHEMA.names
    assert all(len(field.metadata[b"description"]) > 10 for field in table.schema)
    assert table.schema.metadata[b"fundus.run_id"].decode() == summary.run_id
    assert table.schema.metadata[b"fundus.bundle"].decode() == bundle.digest
    assert table.schema.metadata[b"fundus.format"].decode() == row.FORMAT_VERSION


def test_the_summary_counts_statuses_and_reasons(screened):
    summary, _, table = screened
    assert summary.objects == table.num_rows == sum(summary.statuses.values())
    assert summary.statuses["ok"] == summary.measured == 4
    assert summary.reasons["too_large: too many pixels"] == 1  # without the file's own size
    assert sum(summary.reasons.values()) == len(EXPECTED) - 4
    text = report.readable(summary)
    assert summary.rows in text and "empty file" in text and "12 objects" in text
    written = json.loads((Path(summary.rows).parent / "summary.json").read_text())
    assert written["statuses"] == summary.statuses


def test_crops_are_screened_without_detection(ray_local, tmp_path):
    archive = tmp_path / "crops"
    archive.mkdir()
    for number in range(3):
        (archive / f"{number}.png").write_bytes(saved(Image.fromarray(SMOOTH), "PNG"))
    bundle = tiny_bundle().without(DETECTOR)
    config = pipeline.Screening(str(archive), str(tmp_path / "out"), crops=True, limit=2)
    rows = pq.read_table(pipeline.screen(config, bundle).rows).to_pylist()
    assert [one["status"] for one in rows] == ["ok", "ok"]
    assert [(one["roi_x"], one["roi_y"], one["roi_size"]) for one in rows] == [(0, -10, 60)] * 2
    assert rows[0]["disc_confidence"] is None and rows[0]["vcdr"] == 1.0


def test_a_frame_without_a_disc_in_its_maps_is_no_disc(ray_local, tmp_path):
    archive = tmp_path / "crops"
    archive.mkdir()
    (archive / "a.png").write_bytes(saved(Image.fromarray(SMOOTH), "PNG"))
    config = pipeline.Screening(str(archive), str(tmp_path / "out"), crops=True)
    summary = pipeline.screen(config, tiny_bundle(disc=1.1, cup=1.1))
    assert summary.statuses == {"no_disc": 1} and summary.measured == 0


def test_an_empty_archive_gives_an_empty_table(ray_local, tmp_path):
    (tmp_path / "nothing").mkdir()
    config = pipeline.Screening(str(tmp_path / "nothing"), str(tmp_path / "out"))
    summary = pipeline.screen(config, tiny_bundle())
    assert summary.objects == 0
    assert pq.read_table(summary.rows).schema.names == row.SCHEMA.names
    assert "0 objects" in report.readable(summary)


def test_a_fault_of_our_own_ends_the_run_loudly(ray_local, tmp_path, monkeypatch):
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "a.png").write_bytes(saved(Image.fromarray(SMOOTH), "PNG"))

    def faulty(batch, **_):
        raise KeyError("a fault of our own")

    monkeypatch.setattr(stages, "crop", faulty)
    config = pipeline.Screening(str(archive), str(tmp_path / "out"))
    with pytest.raises(Exception, match="a fault of our own"):
        pipeline.screen(config, tiny_bundle())
    assert not list((tmp_path / "out").glob("runs/*/summary.json"))


def test_a_lost_or_doubled_row_is_noticed():
    def table(uris):
        columns = {"uri": uris, "etag": ["1"] * len(uris), "status": ["ok"] * len(uris)}
        return row.table(columns, "run", "bundle")

    listed = table(["a", "b"]).select(["uri", "etag"])
    pipeline._reconcile(listed, table(["b", "a"]))
    for wrong in (["a"], ["a", "b", "b"], ["a", "a"], ["a", "c"], ["a", "b", "c"]):
        with pytest.raises(RuntimeError, match="objects were listed"):
            pipeline._reconcile(listed, table(wrong))


def test_a_row_outside_the_schema_or_the_list_of_statuses_is_refused():
    with pytest.raises(ValueError, match="no status"):
        row.table({"uri": ["a"], "etag": ["1"], "status": ["fine"]}, "run", "bundle")
    with pytest.raises(ValueError, match="no column"):
        row.table({"uri": ["a"], "etag": ["1"], "status": ["ok"], "cdr": [1.0]}, "run", "bundle")


def test_bad_configurations_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        pipeline.Screening(str(tmp_path / "missing"), str(tmp_path))
    with pytest.raises(ValueError, match="among the archive"):
        pipeline.Screening(str(tmp_path), str(tmp_path))
    with pytest.raises(ValueError, match="limit"):
        pipeline.Screening(str(tmp_path), str(tmp_path / "out"), limit=0)
    config = pipeline.Screening(str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="no detector"):
        config.check(tiny_bundle().without(DETECTOR))
    with pytest.raises(ValueError, match="no segmenter"):
        config.check(tiny_bundle().without(SOURCE_ONLY).without(ADAPTED))
