"""jobs/train.py: several seeds as one segmenter, and a training that goes on from another's."""

from pathlib import Path

import pytest
import torch
from test_jobs_adapt import job, summary_of

from fundus.models import bundle as bundles
from fundus.models.bundle import SOURCE_ONLY
from fundus.models.networks import DeepLabConfig, EnsembleConfig

SOURCE = "synthetic:?camera=clinic&count=8&seed=1"


def words(tmp_path: Path, bundle: str, *more: str, members: int = 2) -> list[str]:
    given = ["segmenter", "--recipe", "laptop", "--source", SOURCE]
    given += ["--bundle", str(tmp_path / bundle), "--storage", str(tmp_path / "runs"), *more]
    changes = (f"members={members}", "epochs=1", "side=32", "batch=4", "network.aspp_channels=8")
    return [*given, *(word for change in changes for word in ("--change", change))]


def test_members_are_trained_apart_and_go_on_together(
    ray_local: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = job("train").main
    assert train(words(tmp_path, "first", "--from-scratch")) == 0
    summary = summary_of(capsys.readouterr().out)
    assert (summary["exit_code"], summary["epochs"]) == (0, 1)
    assert summary["bundle"] == bundles.load(tmp_path / "first").digest
    first = bundles.load(tmp_path / "first").networks[SOURCE_ONLY]
    assert first.config == EnsembleConfig(DeepLabConfig(aspp_channels=8), 2)
    heads = [first.weights[f"members.{i}.decoder.4.weight"] for i in (0, 1)]
    assert not torch.allclose(*heads), "both members came from one seed"

    still = ["--start", str(tmp_path / "first"), "--change", "learning_rate=1e-30"]
    assert train(words(tmp_path, "second", *still)) == 0
    second = bundles.load(tmp_path / "second").networks[SOURCE_ONLY]
    assert second.recipe["start"] == first.digest
    for i, head in enumerate(heads):
        assert torch.equal(second.weights[f"members.{i}.decoder.4.weight"], head)


def test_a_start_of_another_kind_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_local: None
) -> None:
    start = str(bundles.default_folder())
    assert job("train").main(words(tmp_path, "b", "--start", start)) == 2
    assert "no segmenter of the recipe's kind and members" in capsys.readouterr().err
