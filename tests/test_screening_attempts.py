"""A picture that ends its process costs two processes, and no other picture loses its row."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_screening_pipeline import by_name, current_rows, pictures, tiny_bundle

from fundus.screening import attempts, models, pipeline, reading
from fundus.screening.attempts import MOST, Attempts, Watched
from fundus.screening.columns import Batch, indices
from fundus.screening.settings import Screening

Screen = Callable[[], dict[str, dict]]


@pytest.fixture
def screen(ray_local: None, tmp_path: Path) -> Screen:
    """Screens four pictures, `d.png` of another size, and returns their rows by name."""
    archive = pictures(tmp_path / "archive", "a.png", "b.png", "c.png")
    Image.new("RGB", (90, 70), (200, 90, 30)).save(archive / "d.png")
    config = Screening(str(archive), str(tmp_path / "out"), precropped=True, gradability="off")

    def screened() -> dict[str, dict]:
        pipeline.screen(config, tiny_bundle())
        return by_name(current_rows(config.results))

    return screened


def killer(folder: Path) -> Callable[[], None]:
    """A function that leaves a file and kills its own process."""

    def die() -> None:
        (folder / f"died-{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    return die


def check(rows: dict[str, dict], folder: Path) -> None:
    assert {name: one["status"] for name, one in rows.items()} == {
        "a.png": "ok",
        "b.png": "ok",
        "c.png": "ok",
        "d.png": "crashed",
    }
    assert rows["d.png"]["error"] == attempts.REASON and rows["d.png"]["vcdr"] is None
    assert len(list(folder.glob("died-*"))) == MOST


def test_a_picture_that_ends_its_reader_twice_is_a_crashed_row(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die, whole = killer(tmp_path), reading.Read

    class Read(whole):
        def _pictures(self, content):
            found = super()._pictures(content)
            if found[0]["width"] == 90:
                die()
            return found

    monkeypatch.setattr(reading, "Read", Read)
    check(screen(), tmp_path)


@pytest.mark.slow
def test_a_picture_that_ends_a_model_process_twice_is_a_crashed_row(
    screen: Screen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die, whole = killer(tmp_path), models.Segment

    class Segment(whole):
        def __call__(self, batch):
            if any(batch["width"][batch["status"] == "ok"] == 90):
                die()
            return super().__call__(batch)

    monkeypatch.setattr(models, "Segment", Segment)
    check(screen(), tmp_path)


class Died(BaseException):
    """Stands for the end of a process."""


def batch_of(*names: str) -> Batch:
    texts = {
        column: np.array([""] * len(names), object) for column in ("laterality", "flags", "error")
    }
    return texts | {
        "uri": np.array(names, object),
        "etag": np.array(["1"] * len(names), object),
        "frame": np.ones(len(names), int),
        "status": np.array(["ok"] * len(names), object),
    }


@pytest.mark.parametrize("poison", ["", "b", "ac", "abcd", "f", "bf"])
def test_whichever_pictures_end_a_process_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    known, alive = Attempts(), [{"NodeID": "here", "Alive": True}]
    actor = SimpleNamespace(
        begin=SimpleNamespace(remote=known.begin), end=SimpleNamespace(remote=known.end)
    )
    here = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr(
        attempts,
        "ray",
        SimpleNamespace(get=lambda x: x, nodes=lambda: alive, get_runtime_context=lambda: here),
    )

    class Stage:
        def __call__(self, batch: Batch) -> Batch:
            if any(batch["uri"][i] in poison for i in indices(batch)):
                raise Died
            return batch | {"done": batch["status"] == "ok"}

    deaths = 0
    while True:
        stage = Watched(actor, "Stage", Stage())  # a new process gets the same batches again
        try:
            done = [stage(batch_of(*batch)) for batch in ("abcd", "efgh")]
            break
        except Died:
            deaths += 1
    rows = {name: np.concatenate([one[name] for one in done]) for name in done[0]}
    assert rows["uri"].tolist() == list("abcdefgh")
    assert "".join(rows["uri"][rows["status"] == "crashed"]) == poison
    assert rows["done"].tolist() == [name not in poison for name in "abcdefgh"]
    noted = {f"Stage {name} 1 1" for name in "abcd" if name not in poison}
    assert not noted & set(known.open), "the end of the first batch was not noted with the second"
    # each batch once, then each of its pictures alone
    assert deaths == len(poison) + bool(set(poison) & set("abcd")) + bool(set(poison) & set("efgh"))


def test_a_process_on_a_lost_node_does_not_count_against_its_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [{"NodeID": "lost", "Alive": True}, {"NodeID": "here", "Alive": True}]
    monkeypatch.setattr(attempts.ray, "nodes", lambda: nodes)
    known = Attempts()
    assert known.begin(["a"], "lost", MOST) == known.begin(["b"], "here", MOST) == [0]
    nodes[0]["Alive"] = False
    assert known.begin(["a", "b"], "here", MOST) == [0, 1]
