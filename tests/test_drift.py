"""Drift: another camera raises the alarm, the variety of one camera does not."""

import json

import numpy as np
import pyarrow as pa
import pytest

from fundus.drift import compare, nights, reference
from fundus.errors import ConfigurationError
from fundus.ledger import row
from fundus.ledger import table as ledger
from fundus.models import bundle as bundles
from fundus.storage.places import open_place

NIGHT, NETWORKS = "20270115T220000Z-000000", "c" * 64


def rows(
    count, seed, run_id=NIGHT, *, red=150.0, model=None, failed=0.1, measuring=NETWORKS, **other
):
    """Rows of one camera, with normally distributed measures and a share of decode_failed."""
    rng = np.random.default_rng(seed)
    ok = rng.random(count) >= failed
    columns = {
        "uri": [f"file:///{run_id}/{seed}/{i}" for i in range(count)],
        "etag": ["1"] * count,
        "status": np.where(ok, "ok", "decode_failed").tolist(),
        "model": [model] * count,
        "field_red": np.where(ok, rng.normal(red, 15, count), np.nan).tolist(),
        "sharpness": np.where(ok, rng.normal(0.02, 0.004, count), np.nan).tolist(),
        "vcdr": np.where(ok, rng.normal(other.pop("vcdr", 0.5), 0.1, count), np.nan).tolist(),
        **other,
    }
    made = row.table(columns, run_id, "b" * 64, "frames", measuring).select(list(nights.COLUMNS))
    at = made.schema.get_field_index("field_red")
    return made.set_column(at, "field_red", pa.array(columns["field_red"], from_pandas=True))


def two_weeks(**known):
    return pa.concat_tables(
        [rows(30, day, f"202701{day:02d}T220000Z-000000", **known) for day in range(1, 15)]
    )


def test_another_cameras_night_raises_an_alarm_with_the_day_and_the_command():
    drift = nights.look(
        pa.concat_tables([two_weeks(), rows(60, 99, red=120.0)]), NIGHT, bundle="runs/mine"
    )
    assert drift.alarm and "changed on 2027-01-15: adapt" in drift.sentence
    assert [one.feature for one in drift.differences if one.alarm] == ["field_red"]
    assert "14 earlier runs" in drift.sentence
    assert drift.command.startswith("python jobs/adapt.py --bundle runs/mine ")


def test_other_eyes_in_like_pictures_are_reported_without_advice_to_adapt():
    drift = nights.look(
        pa.concat_tables([two_weeks(), rows(60, 99, vcdr=0.8)]), NIGHT, bundle="runs/mine"
    )
    assert drift.alarm and "vCDR" in drift.sentence
    assert not drift.command and "adapt" not in drift.sentence


def test_unchanged_nights_alarm_no_more_often_than_stated():
    before = two_weeks()
    alarms = [
        nights.look(pa.concat_tables([before, rows(60, seed)]), NIGHT, bundle="b").alarm
        for seed in range(100, 200)
    ]
    assert np.mean(alarms) <= 3 * compare.ALPHA


def test_a_significant_but_small_change_raises_no_alarm():
    now, then = rows(4000, 1, red=152.5), rows(4000, 2, "20270114T220000Z-000000")
    drift = nights.look(pa.concat_tables([then, now]), NIGHT, bundle="b")
    (red,) = (one for one in drift.differences if one.feature == "field_red")
    assert red.p < compare.ALPHA and not drift.alarm


def test_failures_that_become_frequent_raise_an_alarm():
    drift = nights.look(pa.concat_tables([two_weeks(), rows(80, 9, failed=0.6)]), NIGHT, bundle="b")
    assert {one.feature for one in drift.differences if one.alarm} == {
        "share of decode_failed",
        "share of ok",
    }


def test_each_camera_is_compared_with_itself_and_a_new_one_with_the_others():
    before = pa.concat_tables([two_weeks(model="A"), two_weeks(model="B", red=100.0)])
    night = pa.concat_tables([rows(40, 50, model="A"), rows(40, 51, model="C", red=60.0)])
    drift = nights.look(pa.concat_tables([before, night]), NIGHT, bundle="b")
    assert {one.camera for one in drift.differences if one.alarm} == {"C"}
    assert "C, against other cameras of 14 earlier runs" in drift.sentence


def test_measures_of_other_networks_are_not_compared():
    before = two_weeks(measuring="a" * 64, vcdr=0.3)
    drift = nights.look(pa.concat_tables([before, rows(60, 9)]), NIGHT, bundle="b")
    assert "vcdr" not in {one.feature for one in drift.differences} and not drift.alarm
    assert nights.look(rows(60, 9), NIGHT, bundle="b").differences == ()


def test_the_eyes_of_a_person_count_once():
    twice = rows(60, 9, subject=[str(i // 2) for i in range(60)])
    drift = nights.look(pa.concat_tables([two_weeks(), twice]), NIGHT, bundle="b")
    assert drift.differences
    few = rows(60, 9, subject=[str(i // 4) for i in range(60)])
    assert not nights.look(pa.concat_tables([two_weeks(), few]), NIGHT, bundle="b").differences


def test_holms_method_matches_hand_calculation():
    found = [compare.Difference(str(p), 0, 0, 1, p) for p in (0.04, 0.01, 0.03)]
    assert [one.p for one in compare.corrected(found)] == pytest.approx([0.06, 0.03, 0.06])


def test_the_source_is_saved_beside_the_bundle_without_subjects(tmp_path, monkeypatch):
    source = rows(40, 3, subject=["s"] * 40)
    monkeypatch.setattr(ledger, "read", lambda place, columns=None: source)
    assert reference.load(str(tmp_path)) is None
    assert reference.save("results", str(tmp_path), NETWORKS) == 40
    loaded = reference.load(str(tmp_path))
    assert loaded["subject"].null_count == 40 and "uri" not in loaded.column_names
    drift = nights.look(rows(60, 9, red=90.0), NIGHT, bundle="b", source=loaded)
    assert drift.alarm and drift.sentence.startswith("The pictures are not the source's: adapt.")
    with pytest.raises(ConfigurationError, match="screen the pictures"):
        reference.save("results", str(tmp_path), "a" * 64)


def test_the_default_bundles_reference_was_measured_by_its_own_networks():
    folder = bundles.default_folder()
    measured = set(reference.load(str(folder))["measuring"].to_pylist())
    assert measured == {bundles.load(folder).measuring}


def test_an_adapted_bundle_is_not_compared_with_the_source_of_another():
    night, source = rows(60, 9, red=90.0, measuring="a" * 64), rows(40, 3)
    assert not nights.look(night, NIGHT, bundle="b", source=source).differences
    assert nights.source_vcdr(night, NIGHT, source) is None
    assert len(nights.source_vcdr(rows(60, 9), NIGHT, source)) == 40


def test_the_summary_and_the_page_carry_the_sentence(tmp_path):
    place = open_place(str(tmp_path))
    place.put(f"runs/{NIGHT}/summary.json", b'{"rows": 60}')
    drift = nights.look(pa.concat_tables([two_weeks(), rows(60, 9, red=90.0)]), NIGHT, bundle="b")
    nights.note(place, NIGHT, drift)
    summary = json.loads(place.read(f"runs/{NIGHT}/summary.json")[0])
    assert summary == {"rows": 60, "drift": drift.sentence, "drift_alarm": True}
    page = nights.for_page(drift)
    assert page["alarm"] and any(one["alarm"] and one["p"] == "< 0.0001" for one in page["rows"])
