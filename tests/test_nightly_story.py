"""Two nights of a hospital: adapt, pass the gate, screen; then only what is new or changed."""

import importlib
from pathlib import Path

from fundus.datasets.synthetic import write_archive
from fundus.ledger import table
from fundus.models import bundle as bundles
from fundus.models.bundle import ADAPTED
from fundus.synthetic.camera import hospital


def main(job: str, *words: object) -> int:
    return importlib.import_module(f"jobs.{job}").main([str(word) for word in words])


def newest(results: Path) -> list[dict]:
    """The current row of every picture."""
    return table.read(str(results), ["uri", "etag", "run_id", "bundle", "status"]).to_pylist()


def test_the_second_night_screens_what_is_new_or_changed(ray_local: None, tmp_path: Path) -> None:
    archive, results, adapted = tmp_path / "archive", tmp_path / "results", tmp_path / "adapted"
    pictures = write_archive(archive, (hospital(),), count=8, seed=1)

    adapting = ("--bundle", bundles.default_folder(), "--to", adapted)
    adapting += ("--storage", tmp_path / "runs", "--target", f"folder:{archive}")
    adapting += ("--source", "synthetic:?camera=clinic&count=16&seed=1")
    for change in ("epochs=1", "batch=4", "learning_rate=1e-30", "target_batch_norm=0"):
        adapting += ("--change", change)
    assert main("adapt", *adapting) == 0, "the gate refused"
    published = bundles.load(adapted)
    assert ADAPTED in published.networks

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
