"""A run's name: the same for the same training, so that it resumes, and for no other."""

from pathlib import Path

from fundus.models.bundle import SOURCE_ONLY
from fundus.training.recipes import quick
from fundus.training.runs import TrainConfig, training_name


def name(encoder: Path) -> str:
    config = TrainConfig(SOURCE_ONLY, ("s",), "b", quick(), encoder=encoder)
    return training_name(config, {"epochs": 1}, ())


def test_the_content_of_the_encoder_counts_and_not_its_path(tmp_path: Path) -> None:
    first, moved = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    first.write_bytes(b"weights")
    moved.write_bytes(b"weights")
    before = name(first)
    assert name(moved) == before
    first.write_bytes(b"other weights")
    assert name(first) != before
