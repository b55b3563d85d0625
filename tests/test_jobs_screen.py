import importlib.util
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_images_decode import SMOOTH, saved
from test_screening_pipeline import tiny_bundle

from fundus.models import bundle as bundles

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


def test_failed_pictures_are_rows_and_no_failure_of_the_job(ray_local, archive, tmp_path, capsys):
    arguments = ["--archive", str(archive), "--results", str(tmp_path / "results")]
    assert job("screen")([*arguments, "--bundle", str(tmp_path / "bundle")]) == 0
    out = capsys.readouterr().out
    assert "2 objects" in out and "it seems to be text" in out
    (run,) = (tmp_path / "results" / "runs").iterdir()
    assert str(run / "rows") in out and (run / "summary.json").is_file()
    assert pq.read_table(run / "rows").num_rows == pq.read_table(run / "inventory.parquet").num_rows


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--archive": "missing"}, "not a folder"),
        ({"--archive": "s3://bucket"}, "not read yet"),
        ({"--bundle": "missing"}, "no bundle.json"),
        ({"--limit": "0"}, "limit"),
    ],
)
def test_a_bad_configuration_is_one_sentence_and_exit_code_2(
    archive, tmp_path, capsys, changed, sentence
):
    given = {
        "--archive": str(archive),
        "--results": str(tmp_path / "results"),
        "--bundle": str(tmp_path / "bundle"),
    }
    arguments = [word for pair in (given | changed).items() for word in pair]
    assert job("screen")(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_the_demo_draws_screens_and_says_where(ray_local, archive, tmp_path, capsys):
    demo = ["--to", str(tmp_path / "demo"), "--count", "1", "--bundle", str(tmp_path / "bundle")]
    assert job("demo")(demo) == 0
    out = capsys.readouterr().out
    assert "2 frames drawn" in out and "2 objects" in out and "mean error of the ratio" in out
