import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dicom_files import dicom_file
from PIL import Image
from test_images_decode import SMOOTH, saved
from test_screening_pipeline import tiny_bundle

from fundus.ledger import pseudonyms, table
from fundus.ledger.claim import claimed
from fundus.models import bundle as bundles
from fundus.storage.places import open_place

JOBS = Path(__file__).parent.parent / "jobs"


def job(name):
    spec = importlib.util.spec_from_file_location(f"job_{name}", JOBS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(saved(Image.fromarray(SMOOTH), "JPEG"))
    (folder / "bad.jpg").write_text("text")
    bundles.save(tiny_bundle(), tmp_path / "bundle")
    return folder


def test_failed_pictures_are_rows_and_fail_the_job_only_above_the_limit(
    ray_local, archive, tmp_path, capsys
):
    arguments = ["--archive", str(archive), "--results", str(tmp_path / "results")]
    arguments += ["--bundle", str(tmp_path / "bundle"), "--gradability", "advise"]
    assert job("screen")(arguments) == 0
    out = capsys.readouterr().out
    assert "2 objects listed, 2 rows new" in out and "it seems to be text" in out
    assert "results/rows, version 1" in out
    (page,) = (tmp_path / "results").glob("reports/*/index.html")
    assert page.as_uri() in out and "it seems to be text" in page.read_text()
    assert job("screen")([*arguments, "--status"]) == 0
    assert "missing: 0 objects" in capsys.readouterr().out
    (archive / "worse.jpg").write_text("text too")
    assert job("screen")([*arguments, "--max-failure-rate", "0.5"]) == 3
    output = capsys.readouterr()
    assert "1 rows new" in output.out and "100.0% of the rows failed" in output.err
    summaries = (tmp_path / "results").glob("runs/*/summary.json")
    assert sorted(json.loads(one.read_text())["exit_code"] for one in summaries) == [0, 3]
    assert job("screen")([*arguments, "--status"]) == 0
    assert "2  unsupported" in capsys.readouterr().out


def test_results_that_another_run_holds_exit_with_5(archive, tmp_path, capsys):
    arguments = ["--archive", str(archive), "--results", str(tmp_path / "results")]
    with claimed(open_place(str(tmp_path / "results"))):
        assert job("screen")([*arguments, "--bundle", str(tmp_path / "bundle")]) == 5
    error = capsys.readouterr().err
    assert "is held by process" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--archive": "missing"}, "not a folder"),
        ({"--max-failure-rate": "2"}, "give a share"),
        ({"--bundle": "missing"}, "no bundle.json"),
        ({"--limit": "0"}, "limit"),
        ({"--dicom-seg": "results"}, "into the results"),
        ({"--dicom-seg": "archive/dicom"}, "screened the next time"),
    ],
)
def test_a_bad_configuration_exits_with_2_and_one_sentence(
    archive, tmp_path, capsys, monkeypatch, changed, sentence
):
    args = {
        "--archive": str(archive),
        "--results": str(tmp_path / "results"),
        "--bundle": str(tmp_path / "bundle"),
    }
    arguments = [word for pair in (args | changed).items() for word in pair]
    monkeypatch.chdir(tmp_path)
    assert job("screen")(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def forms_of(secret):
    """A pattern for a secret: as plain text, or as a list of its byte values."""
    numbers = rb"(\.0)?\W{1,20}".join(b"%d" % byte for byte in secret.encode()[:16])
    return re.compile(re.escape(secret.encode()) + b"|" + numbers)


def test_no_patient_data_and_no_secret_is_in_rows_logs_errors_or_file_names(archive, tmp_path):
    """Screen sound and broken DICOM with planted names, and search all files of the run."""
    planted = {
        "PatientName": "Planted^Person",
        "PatientID": "PLANTED-0815",
        "PatientBirthDate": "19481231",
        "OtherPatientNames": "Planted^Alias",
        "ReferringPhysicianName": "Planted^Doctor",
    }
    sound = dicom_file(SMOOTH, **planted)
    (archive / "1.dcm").write_bytes(sound)
    (archive / "2.dcm").write_bytes(sound[: len(sound) // 2])
    (archive / "3.dcm").write_bytes(
        dicom_file(SMOOTH, PhotometricInterpretation="PLANTED", **planted)
    )
    with pytest.warns(UserWarning, match="Planted"):  # pydicom's own warning
        foul = dicom_file(SMOOTH, SOPInstanceUID="Planted^Person", **planted)
    (archive / "4.dcm").write_bytes(foul)
    results, folder = tmp_path / "results", Path(tempfile.mkdtemp(dir="/tmp"))  # a short path
    command = [sys.executable, str(JOBS / "screen.py"), "--archive", str(archive)]
    command += ["--results", str(results), "--bundle", str(tmp_path / "bundle"), "--precropped"]
    command += ["--gradability", "off", "--dicom-seg", str(tmp_path / "dicom")]
    secrets = {
        pseudonyms.KEY: "a key of the site's own",
        "AWS_SECRET_ACCESS_KEY": "a secret that the cloud gave",
    }
    environment = os.environ | secrets | {"RAY_TMPDIR": str(folder), "PYTHONWARNINGS": "always"}
    # Ray then also logs the stages of a data set, with their arguments.
    environment["RAY_enable_export_api_write"] = "1"
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    rows = {one["uri"].rsplit("/", 1)[1]: one for one in table.read(str(results)).to_pylist()}
    assert rows["1.dcm"]["status"] == "ok" and len(rows["1.dcm"]["subject"]) == 64
    assert rows["2.dcm"]["status"] != "ok" != rows["3.dcm"]["status"]
    assert rows["4.dcm"]["status"] == "ok"
    objects = list((tmp_path / "dicom").iterdir())
    files = [file for top in (results, folder) for file in top.rglob("*") if file.is_file()]
    assert len(files) > 20 and len(objects) >= 2
    assert any("EXPORT_DATASET_METADATA" in file.name for file in files)
    left = {str(file): file.read_bytes() for file in files}
    left |= {"stdout": done.stdout, "stderr": done.stderr, "rows": repr(rows).encode()}
    for name, text in left.items():
        assert b"planted" not in text.lower() and b"19481231" not in text, name
    left |= {str(file): file.read_bytes() for file in objects}  # DICOM objects name the patient
    for secret in map(forms_of, secrets.values()):
        assert not [name for name, text in left.items() if secret.search(text)]
    assert not any("lanted" in name for name in left)
    shutil.rmtree(folder)


def test_the_demo_draws_screens_and_names_its_report(ray_local, archive, tmp_path, capsys):
    demo = ["--to", str(tmp_path / "demo"), "--count", "1", "--bundle", str(tmp_path / "bundle")]
    assert job("demo")(demo) == 0
    out = capsys.readouterr().out
    assert "2 frames drawn" in out and "2 objects listed" in out and "mean error of vCDR" in out
    page = Path(urlsplit(out.partition("report: ")[2].partition("\n")[0]).path)
    assert "Drawn eyes" in page.read_text() and "in a browser" in out
