"""One archive with everything that can go wrong, screened by the real chain on a local Ray."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
import ray
import torch
from dicom_files import dicom_file
from PIL import Image
from ray.data._internal.metadata_exporter import sanitize_for_struct
from test_anatomy_risk import model as risk_model
from test_images_decode import SMOOTH, saved, saved_by_opencv, vast_png

import fundus
from fundus.anatomy.labels import CUP
from fundus.ledger import pseudonyms, row, table
from fundus.ledger.claim import ClaimHeld, claimed
from fundus.ledger.plan import Plan
from fundus.models import architectures, networks
from fundus.models import bundle as bundles
from fundus.models.bundle import (
    ADAPTED,
    DETECTOR,
    SOURCE_ONLY,
    STUDENT,
    Bundle,
    Network,
    Preprocessing,
    Thresholds,
)
from fundus.report import night, run
from fundus.screening import light, pipeline, progress, report, status
from fundus.screening.settings import Screening
from fundus.storage.places import open_place

# status and a word of the reason, for each file of `broken_archive`
EXPECTED = {
    "cmyk.jpg": ("ok", None),
    "deep.png": ("ok", None),
    "good.jpg": ("ok", None),
    "inside.jpg": ("ok", None),
    "black.png": ("ungradable", "nothing is exposed"),
    "empty.jpg": ("decode_failed", "empty"),
    "truncated.jpg": ("decode_failed", "truncated"),
    "text.jpg": ("unsupported", "text"),
    ".hidden": ("unsupported", "text"),
    "x.png": ("unsupported", "directory"),
    "out.jpg": ("unsupported", "link"),
    "vast.png": ("too_large", "too many pixels"),
    "thread.png": ("too_large", "too long a side"),
}


def tiny_bundle(**thresholds):
    """Random networks that find a disc in every frame that is not black."""

    def network(config):
        return Network(config=config, weights=networks.build(config).state_dict())

    torch.manual_seed(0)
    return Bundle(
        networks={
            DETECTOR: network(architectures.UNetConfig(width=4)),
            SOURCE_ONLY: network(architectures.DeepLabConfig(aspp_channels=16)),
            ADAPTED: network(architectures.DeepLabConfig(aspp_channels=16)),
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
    deep = SMOOTH[..., ::-1].astype(np.uint16) * 257
    (folder / "deep.png").write_bytes(saved_by_opencv(".png", deep))
    (folder / "black.png").write_bytes(saved(Image.new("RGB", (50, 40)), "PNG"))
    (folder / "empty.jpg").touch()
    (folder / "truncated.jpg").write_bytes(saved(picture, "JPEG")[:-60])
    (folder / "text.jpg").write_text("not a picture")
    (folder / ".hidden").write_text("not a picture either")
    (folder / "out.jpg").symlink_to("/etc/hostname")
    (folder / "vast.png").write_bytes(vast_png(20_000))
    (folder / "thread.png").write_bytes(saved(Image.new("RGB", (1, 60_000)), "PNG"))
    return folder


def current_rows(results):
    """The current rows of the table, by URI and frame."""
    found = table.find(open_place(str(results)))
    rows = table.scanned(found).to_table() if found else row.SCHEMA.empty_table()
    return rows.sort_by([("uri", "ascending"), ("frame", "ascending")])


def by_name(table):
    return {one["uri"].rsplit("/", 1)[1]: one for one in table.to_pylist()}


def pictures(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(saved(Image.fromarray(SMOOTH), "PNG"))
    return folder


@pytest.fixture(scope="module")
def screened(ray_local, broken_archive):
    """The results lie inside the archive, and must not be listed."""
    config = Screening(
        archive=str(broken_archive), results=str(broken_archive / "results"), gradability="advise"
    )
    bundle = tiny_bundle()
    summary = pipeline.screen(config, bundle)
    return summary, bundle, current_rows(config.results), config


def test_every_object_has_one_row_with_its_status_and_reason(screened):
    _, _, table, _ = screened
    rows = by_name(table)
    assert table.num_rows == len(EXPECTED)
    assert {name: one["status"] for name, one in rows.items()} == {
        name: status for name, (status, _) in EXPECTED.items()
    }
    for name, (_, word) in EXPECTED.items():
        error = rows[name]["error"]
        assert error is None if word is None else word in error, name


def test_a_measured_row_is_complete_and_a_failed_one_has_no_measures(screened):
    _, bundle, table, config = screened
    height, width = SMOOTH.shape[:2]
    for name, one in by_name(table).items():
        measures = [one[c] for c in ("vcdr", "hcdr", "area_cdr", "rim_inferior", "vcdr_sd")]
        assert one["bundle"] == bundle.digest and one["settings"] == config.settings
        assert one["risk"] is one["referable"] is one["subject"] is one["disc_height_mm"] is None
        assert (one["frame"], one["frames"]) == (1, 1)
        if one["status"] == "ok":
            # every threshold is 0: all of the ROI is cup
            mask = cv2.imdecode(np.frombuffer(one["mask_png"], np.uint8), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (64, 64) and mask.dtype == np.uint8 and (mask == CUP).all()
            assert (one["width"], one["height"]) == (width, height)
            assert one["vcdr"] == 1.0 and one["vcdr_sd"] == 0.0 and one["rim_inferior"] == 0.0
            assert one["roi_size"] > 0 and 0 <= one["disc_confidence"] <= 1
            assert 0 <= one["quality"] <= 1
            assert one["sharpness"] > 0 and 0 < one["field_red"] < 255
        else:
            assert measures == [None] * 5 and one["mask_png"] is None, name
    assert by_name(table)["black.png"]["width"] == 50


def test_a_notebook_reads_the_rows_of_screening_and_measures_the_same(screened, tmp_path):
    _, bundle, table, config = screened
    bundles.save(bundle, tmp_path)
    results = fundus.read_results(config.results)
    assert results.table.num_rows == table.num_rows and len(results.to_pandas()) == len(results)
    for number, one in enumerate(results):
        name = one["uri"].rsplit("/", 1)[1]
        if name in ("cmyk.jpg", "good.jpg", "black.png", "text.jpg"):
            path = Path(config.archive) / name
            eye = fundus.measure(path, bundle=tmp_path, gradability=config.gradability)
            assert (eye.status, eye.reason) == (one["status"], one["error"])
            for column in ("vcdr", "vcdr_sd", "rim_inferior", "quality", "disc_confidence"):
                assert getattr(eye, column) == pytest.approx(one[column], abs=1e-6), column
            mask = results.mask(number)
            assert mask is eye.mask is None or np.array_equal(mask, eye.mask)


def test_the_files_describe_every_column_and_the_run(screened):
    summary, bundle, _, config = screened
    folder = Path(config.results) / "rows" / summary.run_id
    for file in folder.glob("*.parquet"):
        rows = pq.read_table(file)
        assert rows.schema.names == row.SCHEMA.names
        assert all(len(field.metadata[b"description"]) > 10 for field in rows.schema)
        assert rows.schema.metadata[b"fundus.run_id"].decode() == summary.run_id
        assert rows.schema.metadata[b"fundus.bundle"].decode() == bundle.digest
        assert rows.schema.metadata[b"fundus.format"].decode() == row.FORMAT_VERSION
        assert rows["uri"].to_pylist() == sorted(rows["uri"].to_pylist())


def test_the_summary_counts_statuses_and_reasons(screened):
    summary, _, table, _ = screened
    assert summary.rows == summary.listed == table.num_rows == sum(summary.statuses.values())
    assert summary.statuses["ok"] == summary.measured == 4
    assert summary.reasons["too_large: too many pixels"] == 1  # without the file's own size
    assert sum(summary.reasons.values()) == len(EXPECTED) - 4
    assert summary.failure_rate == 8 / 13
    text = report.readable(summary)
    assert summary.results in text and "empty file" in text and "13 objects" in text
    place = open_place(summary.results)
    written = json.loads(place.read(f"runs/{summary.run_id}/summary.json")[0])
    assert written["statuses"] == summary.statuses
    listed = pa.BufferReader(place.read(f"runs/{summary.run_id}/inventory.parquet")[0])
    assert sorted(pq.read_table(listed)["uri"].to_pylist()) == table["uri"].to_pylist()


def test_the_same_command_again_screens_only_changed_objects(screened):
    """In between, the status reports the missing objects."""
    _, bundle, _, config = screened
    before = table.find(open_place(config.results)).version()
    assert pipeline.screen(config, bundle).rows == 0
    assert table.find(open_place(config.results)).version() == before
    (Path(config.archive) / "text.jpg").write_text("not a picture, but a longer one")
    found = status.look_up(config, config.results, bundle.measuring)
    assert found.missing == 1 and found.statuses["ok"] == 4 and found.holder is None
    assert "missing: 1 objects" in status.readable(found)
    assert pipeline.screen(config, bundle).rows == 1
    assert current_rows(config.results).num_rows == len(EXPECTED)
    assert pipeline.screen(replace(config, retry_failed=True), bundle).rows == 8


def test_calibration_needs_no_picture_and_late_options_are_named(screened, tmp_path, monkeypatch):
    """Calibration once screened everything again; --dicom-seg and a key were ignored."""
    _, bundle, _, config = screened
    pipeline.screen(config, bundle)
    before = current_rows(config.results)
    monkeypatch.setattr(pipeline, "_rows", None)  # no picture is read
    calibrated = replace(bundle, risk=risk_model())
    assert pipeline.screen(config, calibrated).rows == 0
    after = current_rows(config.results)
    assert after["vcdr"].equals(before["vcdr"]) and after["risk"].null_count < len(after)
    assert after["risk"].is_valid().equals(after["vcdr"].is_valid())
    lines = []
    assert pipeline.screen(config, calibrated, lines.append).rows == 0
    assert not [line for line in lines if "without" in line]
    monkeypatch.setenv(pseudonyms.KEY, "a key of the site's own")
    pipeline.screen(replace(config, dicom_out=str(tmp_path)), calibrated, lines.append)
    lacking = [line for line in lines if "without" in line]
    assert len(lacking) == 2 and all(f"{len(EXPECTED)} objects" in line for line in lacking)
    assert "--dicom-seg" in lacking[0] and pseudonyms.KEY in lacking[1]
    assert all("another location as --results" in line for line in lacking)


def test_a_killed_run_keeps_its_staged_rows(ray_local, tmp_path, monkeypatch):
    archive = pictures(tmp_path / "archive", "a.png", "b.png")
    config = Screening(str(archive), str(tmp_path / "out"), precropped=True, gradability="off")
    with monkeypatch.context() as dying:
        dying.setattr(Plan, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pipeline.screen(config, tiny_bundle())
    assert current_rows(config.results).num_rows == 0
    found = status.look_up(None, config.results)
    assert list(found.unfinished.values()) == [2]
    lines = []
    summary = pipeline.screen(config, tiny_bundle(), lines.append)
    assert summary.rows == 2 and "0 to screen, 2 are staged" in lines
    assert [summary.run_id] == list(found.unfinished)
    assert current_rows(config.results).num_rows == 2


def test_rows_that_one_pass_lost_are_screened_by_the_next(ray_local, tmp_path, monkeypatch):
    archive = pictures(tmp_path / "archive", "a.png", "b.png")
    config = Screening(str(archive), str(tmp_path / "out"), precropped=True, gradability="off")
    follow, passes = pipeline._follow, []

    def loses_the_first(rows, progress):
        follow(rows, progress)
        passes.append(progress.objects)
        if len(passes) == 1:
            for file in tmp_path.glob("out/rows/*/*.parquet"):
                file.unlink()

    monkeypatch.setattr(pipeline, "_follow", loses_the_first)
    assert pipeline.screen(config, tiny_bundle()).rows == 2
    assert passes == [2, 2] and current_rows(config.results).num_rows == 2


def test_the_second_of_two_runs_is_refused_and_writes_nothing(ray_local, tmp_path):
    archive = pictures(tmp_path / "archive", "a.png")
    config = Screening(str(archive), str(tmp_path / "out"), precropped=True, gradability="off")
    with claimed(open_place(config.results)), pytest.raises(ClaimHeld, match="is held by process"):
        pipeline.screen(config, tiny_bundle())
    assert open_place(config.results).list("runs/") == []


def test_fast_screens_with_the_student_and_the_spread_that_it_hides(ray_local, tmp_path):
    bundle = tiny_bundle()
    student = replace(bundle.networks[SOURCE_ONLY], scores={"vcdr_spread": 0.3})
    archive = pictures(tmp_path / "crops", "0.png")
    words = {"precropped": True, "gradability": "off", "profile": "fast"}
    config = Screening(str(archive), str(tmp_path / "out"), **words)
    pipeline.screen(config, bundle.with_network(STUDENT, student))
    (row,) = current_rows(config.results).to_pylist()
    assert (row["status"], row["vcdr"]) == ("ok", 1.0)  # every pixel is cup, in both passes
    assert row["vcdr_sd"] == pytest.approx(0.3)


def test_precropped_pictures_are_screened_without_detection(ray_local, tmp_path):
    archive = pictures(tmp_path / "crops", "0.png", "1.png", "2.png")
    bundle = tiny_bundle().without(DETECTOR)
    config = Screening(
        str(archive), str(tmp_path / "out"), precropped=True, limit=2, gradability="off"
    )
    pipeline.screen(config, bundle)
    assert progress._followed.round == {"measured": 2}, "the stage as Ray names it"
    rows = current_rows(config.results).to_pylist()
    assert [one["status"] for one in rows] == ["ok", "ok"]
    assert [(one["roi_x"], one["roi_y"], one["roi_size"]) for one in rows] == [(0, -10, 60)] * 2
    assert rows[0]["disc_confidence"] is None and rows[0]["vcdr"] == 1.0


def test_a_picture_without_a_disc_in_its_maps_has_the_status_no_disc(ray_local, tmp_path):
    archive = pictures(tmp_path / "crops", "a.png")
    config = Screening(str(archive), str(tmp_path / "out"), precropped=True, gradability="off")
    summary = pipeline.screen(config, tiny_bundle(disc=1.1, cup=1.1))
    assert summary.statuses == {"no_disc": 1} and summary.measured == 0


def test_a_night_without_new_files_gives_no_row_and_a_summary(ray_local, tmp_path):
    (tmp_path / "old.jpg").touch()
    config = Screening(str(tmp_path), str(tmp_path / "out"), glob="2027-*")
    summary = pipeline.screen(config, tiny_bundle())
    assert summary.rows == summary.listed == 0 and summary.version == 0
    assert "0 objects listed" in report.readable(summary)


def test_pseudonyms_replace_uris_and_the_map_is_written_to_the_chosen_file(
    ray_local, tmp_path, monkeypatch
):
    archive = pictures(tmp_path / "archive", "jane-doe.png")
    results, secrets = tmp_path / "out", tmp_path / "map.parquet"
    with pytest.raises(ValueError, match=pseudonyms.KEY):
        Screening(str(archive), str(results), pseudonymise_uris=True)
    monkeypatch.setenv(pseudonyms.KEY, "a key of the site's own")
    config = Screening(
        str(archive),
        str(results),
        precropped=True,
        gradability="off",
        pseudonymise_uris=True,
        uri_map=secrets,
    )
    pipeline.screen(config, tiny_bundle())
    (one,) = current_rows(results).to_pylist()
    assert one["status"] == "ok" and len(one["uri"]) == 64
    assert pq.read_table(secrets).to_pylist() == [
        {"uri": one["uri"], "source": (archive / "jane-doe.png").as_uri()}
    ]
    assert secrets.stat().st_mode & 0o077 == 0
    plain = replace(config, pseudonymise_uris=False, uri_map=None)
    for look in (pipeline.screen, lambda c, b: status.look_up(c, c.results, b.digest)):
        with pytest.raises(ValueError, match="carry pseudonyms, not plain URIs"):
            look(plain, tiny_bundle())
    written = [file for file in results.rglob("*") if file.is_file()]
    assert len(written) > 4 and not any(b"jane" in file.read_bytes() for file in written)
    assert pipeline.screen(config, tiny_bundle()).rows == 0


def test_a_results_location_keeps_to_one_way_of_naming_objects(tmp_path):
    """Otherwise every picture would have two rows, one of them under its own name."""
    one, other = b"a key of the site's own", b"another key of the site"
    for first, second, sentence in (
        (None, one, "carry plain URIs, not pseudonyms"),
        (one, None, "carry pseudonyms, not plain URIs"),
        (one, other, "carry pseudonyms, made with another key"),
    ):
        place = open_place(str(tmp_path / sentence))
        pseudonyms.check(place, second)
        pseudonyms.keep_to(place, first)
        pseudonyms.keep_to(place, first)
        for look in (pseudonyms.keep_to, pseudonyms.check):
            with pytest.raises(ValueError, match=sentence) as refused:
                look(place, second)
        (record, _) = place.read(pseudonyms.NAME)
        assert not any(secret in record + str(refused.value).encode() for secret in (one, other))


def test_a_secret_is_pickled_whole_and_hidden_in_exported_metadata():
    secret = pseudonyms.Secret(b"a key of the site's own")
    assert ray.cloudpickle.loads(ray.cloudpickle.dumps(secret)) == b"a key of the site's own"
    exported = sanitize_for_struct({"fn_constructor_kwargs": {"subject_key": secret}})
    assert exported == {"fn_constructor_kwargs": {"subject_key": "Secret"}}


@pytest.mark.s3
def test_archive_and_results_may_lie_on_s3(ray_local, s3, bucket, broken_archive):
    names = ("good.jpg", "cmyk.jpg", "empty.jpg", "text.jpg")
    for name in names:
        s3.client.put_object(
            Bucket=bucket, Key=f"day/{name}", Body=(broken_archive / name).read_bytes()
        )
    config = Screening(
        f"s3://{bucket}/day", f"s3://{bucket}/results", precropped=True, gradability="off"
    )
    summary = pipeline.screen(config, tiny_bundle())
    rows = by_name(current_rows(config.results))
    assert {name: one["status"] for name, one in rows.items()} == {
        name: EXPECTED[name][0] for name in names
    }
    assert summary.listed == 4 and pipeline.screen(config, tiny_bundle()).rows == 0
    place = open_place(config.results)
    written, _ = night.show(place, run.Config(), str(bundles.default_folder()))
    page, _ = place.read(f"reports/{summary.run_id}/index.html") or (b"", "")
    assert written.uri == f"{config.results}/reports/{summary.run_id}/index.html"
    assert written.pictures == 2 and page.count(b"data:image/jpeg") == 2, "read again from S3"


def test_a_bug_ends_the_run_loudly(ray_local, tmp_path, monkeypatch):
    archive = pictures(tmp_path / "archive", "a.png")

    def faulty(batch, **_):
        raise KeyError("a fault of our own")

    monkeypatch.setattr(light, "Measure", lambda *_, **__: faulty)
    config = Screening(str(archive), str(tmp_path / "out"), precropped=True, gradability="off")
    with pytest.raises(Exception, match="a fault of our own"):
        pipeline.screen(config, tiny_bundle())
    assert current_rows(config.results).num_rows == 0


def test_a_row_outside_the_schema_or_the_list_of_statuses_is_refused():
    about = ("run", "bundle", "frames", "measuring")
    with pytest.raises(ValueError, match="no status"):
        row.table({"uri": ["a"], "etag": ["1"], "status": ["fine"]}, *about)
    with pytest.raises(ValueError, match="no column"):
        row.table({"uri": ["a"], "etag": ["1"], "status": ["ok"], "cdr": [1.0]}, *about)


def test_bad_configurations_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="among the archive"):
        Screening(str(tmp_path), str(tmp_path))
    with pytest.raises(ValueError, match="limit"):
        Screening(str(tmp_path), str(tmp_path / "out"), limit=0)
    with pytest.raises(ValueError, match="gradability"):
        Screening(str(tmp_path), str(tmp_path / "out"), gradability="strict")
    out = tmp_path / "out"
    for place in (out, f"file://{out}/dicom", f"{tmp_path}/x/../out/dicom/"):
        with pytest.raises(ValueError, match="into the results"):
            Screening(str(tmp_path), str(out), dicom_out=str(place))
    for place in (tmp_path, tmp_path / "dicom"):
        with pytest.raises(ValueError, match="screened the next time"):
            Screening(f"{tmp_path}/", str(out), dicom_out=str(place))
    with pytest.raises(ValueError, match="screened the next time"):
        Screening("s3://clinic/2027", "s3://out/rows", dicom_out="s3://clinic/2027/seg/")
    Screening("s3://clinic/2027", "s3://out/rows", dicom_out="s3://clinic/2027-seg")
    Screening(f"@{tmp_path}/list.txt", str(out), dicom_out=str(tmp_path / "dicom"))
    config = Screening(str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="no detector"):
        config.check(tiny_bundle().without(DETECTOR))
    with pytest.raises(ValueError, match="no segmenter"):
        config.check(tiny_bundle().without(SOURCE_ONLY).without(ADAPTED))


def test_dicom_objects_are_written_beside_the_rows_and_never_overwritten(ray_local, tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir()
    frames = np.stack([SMOOTH, SMOOTH[::-1]])
    (archive / "two.dcm").write_bytes(dicom_file(frames, PatientName="Doe^Jane", number=7))
    (archive / "photo.png").write_bytes(saved(Image.fromarray(SMOOTH), "PNG"))
    bundle, results = tiny_bundle(), tmp_path / "out"
    config = Screening(
        str(archive),
        str(results),
        precropped=True,
        gradability="off",
        dicom_out=str(tmp_path / "dicom"),
    )
    pipeline.screen(config, bundle)
    rows = current_rows(results).to_pylist()
    assert [(one["frame"], one["frames"]) for one in rows] == [(1, 1), (1, 2), (2, 2)]
    objects = {file: file.read_bytes() for file in (tmp_path / "dicom").glob("*.dcm")}
    read = [pydicom.dcmread(file) for file in objects]
    assert sorted(one.Modality for one in read) == ["SEG", "SEG", "SR", "SR"]
    assert {str(one.PatientName) for one in read} == {"Doe^Jane"}
    assert not any(
        "header" in schema.names for schema in [row.SCHEMA, current_rows(results).schema]
    )
    pipeline.screen(replace(config, results=str(tmp_path / "again")), bundle)
    assert objects == {file: file.read_bytes() for file in (tmp_path / "dicom").glob("*.dcm")}
    # A corrected object keeps its UID, and another object may have the same one.
    (archive / "two.dcm").write_bytes(dicom_file(frames[::-1], number=7))
    (archive / "twin.dcm").write_bytes(dicom_file(frames, number=7))
    pipeline.screen(config, bundle)
    after = {file: file.read_bytes() for file in (tmp_path / "dicom").glob("*.dcm")}
    assert len(after) == 12 and objects.items() < after.items()
