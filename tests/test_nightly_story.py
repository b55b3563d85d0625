"""Two nights of a hospital: adapt, pass the gate, screen; then only new and changed pictures."""

import importlib
from pathlib import Path

import pytest
from test_jobs_adapt import summary_of
from training_here import train_here

from fundus.datasets.synthetic import write_archive
from fundus.ledger import table
from fundus.models import bundle as bundles
from fundus.models.bundle import ADAPTED
from fundus.storage.places import open_place
from fundus.synthetic.camera import hospital


def main(job: str, *words: object) -> int:
    return importlib.import_module(f"jobs.{job}").main([str(word) for word in words])


def newest(results: Path) -> list[dict]:
    """The current row of every picture."""
    return table.read(str(results), ["uri", "etag", "run_id", "bundle", "status"]).to_pylist()


@pytest.mark.s3
@pytest.mark.slow
def test_the_second_night_screens_only_new_and_changed_pictures(
    ray_local: None,
    tmp_path: Path,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_here(monkeypatch)
    archive, results = tmp_path / "archive", tmp_path / "results"
    adapted = f"s3://{bucket}/adapted"
    pictures = write_archive(archive, (hospital(),), count=4, seed=1)

    adapting = ("--bundle", bundles.default_folder(), "--to", adapted)
    adapting += ("--storage", tmp_path / "runs", "--target", f"folder:{archive}")
    adapting += ("--source", "synthetic:?camera=clinic&count=8&seed=1")
    # As nothing changes a weight, the adapted segmenter is as good as source-only.
    for change in ("epochs=1", "batch=4", "learning_rate=1e-30", "target_batch_norm=0"):
        adapting += ("--change", change)
    assert main("adapt", *adapting) == 0, "the gate refused"
    check_published(adapted, tmp_path / "runs", capsys.readouterr().out)
    published = bundles.load(adapted)

    screening = ("--archive", archive, "--results", results, "--bundle", adapted)
    assert main("screen", *screening) == 0
    first = newest(results)
    assert len(first) == len({row["uri"] for row in first}) == len(pictures)
    assert {row["bundle"] for row in first} == {published.digest}

    added = write_archive(archive / "day-2", (hospital(),), count=2, seed=2)
    changed, other = (archive / picture.path for picture in pictures[:2])
    changed.write_bytes(other.read_bytes())
    assert main("screen", *screening) == 0
    second = newest(results)
    assert len(second) == len({row["uri"] for row in second}) == len(pictures) + 2
    new = {row["uri"] for row in second if row["run_id"] != first[0]["run_id"]}
    wanted = [changed, *(archive / "day-2" / picture.path for picture in added)]
    assert new == {path.as_uri() for path in wanted}


def check_published(adapted: str, runs: Path, output: str) -> None:
    """The bundle, its curves and the files beside the first bundle are at the new location."""
    assert "published: bundle" in output
    summary, published = summary_of(output), bundles.load(adapted)
    assert (summary["exit_code"], summary["published"], summary["epochs"]) == (0, True, 1)
    assert summary["bundle"] == published.digest
    assert set(published.networks) == {"detector", "source_only", "adapted"}
    network = published.networks[ADAPTED]
    assert [d["role"] for d in network.data] == ["labelled source", "target, no labels"]
    assert all(check["passed"] for check in network.scores["gate"])
    curves = open_place(adapted).read("adapted.curves.csv")
    assert curves and curves[0].count(b"\n") == 2
    assert open_place(adapted).read("CARD.md"), "what lay beside the bundle comes along"
    beside_bundle = open_place(adapted).read("adapted.report.html")
    assert beside_bundle and b"data:image/jpeg" not in beside_bundle[0]
    report = (runs / summary["run"] / "report.html").read_text()
    assert "is published" in report and report.count("data:image/jpeg") == 4
