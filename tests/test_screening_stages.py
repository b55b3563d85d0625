import numpy as np
import pytest
from PIL import Image
from test_anatomy_risk import model as risk_model
from test_images_decode import SMOOTH, saved

from fundus.images.roi import Roi
from fundus.models.bundle import Thresholds
from fundus.screening import inventory, stages


def maps(*cup_heights, side=256, disc_height=160):
    """One pair of maps for each cup height (rows), centred ellipses, disc then cup."""
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
        "width": np.array([2000] * count),
        "height": np.array([1500] * count),
        "disc_confidence": np.full(count, 0.9),
        "roi_x": np.array([r.x for r in rois]),
        "roi_y": np.array([r.y for r in rois]),
        "roi_size": np.array([r.size for r in rois]),
        "maps": stages._tensors(maps_of_rows),
    }


@pytest.mark.parametrize("roi", [Roi(311.7, -20.4, 612.3), Roi(10, 10, 256), Roi(5, 7, 90.5)])
def test_drawn_ellipses_give_their_ratio_whatever_the_size_of_the_roi(roi):
    batch = batch_of([maps(80, 80, 80)], [roi], ["ok"])
    (one,) = stages.measure(
        batch, thresholds=Thresholds(), risk=None, run_id="r", bundle="b"
    ).to_pylist()
    assert abs(one["vcdr"] - 0.5) < 0.01 and abs(one["hcdr"] - 0.5) < 0.015
    assert abs(one["area_cdr"] - 0.25) < 0.01 and abs(one["rim_superior"] - 0.25) < 0.02
    assert one["vcdr_sd"] == 0.0 and one["error"] is None and one["flags"] == []
    assert (one["roi_x"], one["roi_y"], one["roi_size"]) == (roi.x, roi.y, roi.size)


def test_the_spread_is_over_the_maps_that_have_a_ratio():
    batch = batch_of([maps(40, 80, 120, 0)], [Roi(0, 0, 256)], ["ok"])
    (one,) = stages.measure(
        batch, thresholds=Thresholds(), risk=None, run_id="r", bundle="b"
    ).to_pylist()
    assert one["vcdr_sd"] == pytest.approx(np.std([0.25, 0.5, 0.75]), abs=0.005)
    batch = batch_of([maps(80)], [Roi(0, 0, 256)], ["ok"])
    (one,) = stages.measure(
        batch, thresholds=Thresholds(), risk=None, run_id="r", bundle="b"
    ).to_pylist()
    assert one["vcdr_sd"] is None and one["vcdr"] is not None


def test_a_disc_without_a_cup_has_a_mask_and_no_ratio():
    batch = batch_of([maps(0, 0)], [Roi(0, 0, 256)], ["ok"])
    (one,) = stages.measure(
        batch, thresholds=Thresholds(), risk=None, run_id="r", bundle="b"
    ).to_pylist()
    assert one["status"] == "ok" and one["mask_png"] and one["vcdr"] is None
    assert one["flags"] == ["no_cup"]


def test_risk_is_that_of_the_eye_alone_and_null_without_a_vcdr():
    """Whatever else the batch holds; and null where the bundle is not calibrated."""
    wide, narrow, none = maps(120, 124), maps(40, 44), maps(0, 0)
    rois = [Roi(0, 0, 256)] * 3
    about = {"thresholds": Thresholds(), "run_id": "r", "bundle": "b"}
    batch = batch_of([wide, narrow, none], rois, ["ok"] * 3)
    rows = stages.measure(batch, risk=risk_model(), **about).to_pylist()
    assert [one["referable"] for one in rows] == [True, False, None] and rows[2]["risk"] is None
    assert rows[0]["risk"] == risk_model().risk(rows[0]["vcdr"], rows[0]["vcdr_sd"]) > 0.5
    alone = batch_of([wide], rois[:1], ["ok"])
    assert stages.measure(alone, risk=risk_model(), **about).to_pylist()[0] == rows[0]
    plain = stages.measure(alone, risk=None, **about).to_pylist()[0]
    assert plain == rows[0] | {"risk": None, "referable": None}


def test_a_failed_row_passes_untouched_between_sound_ones():
    nothing = np.zeros((1, 1, 1, 1), np.float32)
    rois = [Roi(0, 0, 256)] * 3
    batch = batch_of([maps(80), nothing, maps(80)], rois, ["ok", "decode_failed", "ok"])
    rows = stages.measure(
        batch, thresholds=Thresholds(), risk=None, run_id="r", bundle="b"
    ).to_pylist()
    assert [one["status"] for one in rows] == ["ok", "decode_failed", "ok"]
    assert rows[1]["error"] == "a reason" and rows[1]["vcdr"] is None and rows[0]["vcdr"] == 0.5


def test_a_bug_is_not_taken_for_a_bad_picture(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(SMOOTH), "PNG"))
    (entry,) = inventory.walk(str(tmp_path))
    batch = {
        name: np.array([getattr(entry, name)], object)
        for name in ("uri", "etag", "status", "error")
    }
    assert stages.fetch_and_decode(batch)["status"][0] == "ok"
    assert batch["status"][0] == ""  # the batch that came in is not written to

    def faulty(data):
        raise ValueError("a bug")

    monkeypatch.setattr(stages, "decode", faulty)
    with pytest.raises(ValueError, match="a bug"):
        stages.fetch_and_decode(batch)
