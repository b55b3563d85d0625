"""jobs/train.py: several seeds as one segmenter, and training that starts from another bundle."""

import csv
import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_jobs_adapt import job, summary_of
from training_here import train_here

from fundus.datasets.batches import Crops
from fundus.models import bundle as bundles
from fundus.models import networks
from fundus.models.bundle import (
    ADAPTED,
    DETECTOR,
    SOURCE_ONLY,
    STUDENT,
    Bundle,
    Network,
    Preprocessing,
)
from fundus.models.networks import DeepLabConfig, EnsembleConfig
from fundus.models.predictor import Predictor, ready
from fundus.models.turns import PROFILES
from fundus.training import student as student_module
from fundus.training.runs import first_weights, members_of

SOURCE = "synthetic:?camera=clinic&count=8&seed=1"


def words(tmp_path: Path, bundle: str, *more: str, members: int = 2) -> list[str]:
    args = ["segmenter", "--recipe", "laptop", "--source", SOURCE]
    args += ["--bundle", str(tmp_path / bundle), "--storage", str(tmp_path / "runs"), *more]
    changes = (f"members={members}", "epochs=1", "side=32", "batch=4", "network.aspp_channels=8")
    return [*args, *(word for change in changes for word in ("--change", change))]


@pytest.mark.slow
def test_members_of_an_ensemble_each_start_from_their_own_weights(
    ray_local: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_here(monkeypatch)
    pair = EnsembleConfig(DeepLabConfig(aspp_channels=8), 2)
    first = Network(pair, networks.build(pair).state_dict())
    bundles.save(Bundle({SOURCE_ONLY: first}), tmp_path / "first")
    first = bundles.load(tmp_path / "first").networks[SOURCE_ONLY]
    frozen = ["--start", str(tmp_path / "first"), "--change", "learning_rate=1e-30"]
    assert job("train").main(words(tmp_path, "second", *frozen)) == 0
    summary = summary_of(capsys.readouterr().out)
    assert (summary["exit_code"], summary["epochs"]) == (0, 1)
    second = bundles.load(tmp_path / "second")
    assert summary["bundle"] == second.digest
    trained = second.networks[SOURCE_ONLY]
    assert (trained.config, trained.recipe["start"]) == (pair, first.digest)
    heads = [first.weights[f"members.{i}.decoder.6.weight"] for i in (0, 1)]
    assert not torch.allclose(*heads)
    for i, head in enumerate(heads):
        assert torch.equal(trained.weights[f"members.{i}.decoder.6.weight"], head)


def test_each_member_starts_from_its_own_seed(tmp_path: Path) -> None:
    args = importlib.import_module("jobs.train").parse(words(tmp_path, "b", "--from-scratch"))
    starts = [first_weights(one, args) for one in members_of(args.book.segmenter)]
    assert not torch.allclose(*(weights["decoder.6.weight"] for weights in starts))


def test_a_student_learns_the_answers_of_the_segmenter_and_screens_alone(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_here(monkeypatch)
    pair = EnsembleConfig(DeepLabConfig(aspp_channels=8), 2)
    whole = Network(pair, networks.build(pair).state_dict())
    sizes = Preprocessing(roi_side=32)
    bundles.save(Bundle({SOURCE_ONLY: whole}, preprocessing=sizes), tmp_path / "b")
    words = ["student", "--source", SOURCE, "--unlabelled", "synthetic:?camera=handheld&count=4"]
    words += ["--bundle", str(tmp_path / "b"), "--storage", str(tmp_path / "runs")]
    changes = ("epochs=8", "batch=4", "augmentation=moderate")
    words += [word for change in changes for word in ("--change", change)]
    assert job("train").main(words) == 0
    bundle = bundles.load(tmp_path / "b")
    student = bundle.networks[STUDENT]
    assert student.config == pair.member and [d["count"] for d in student.data] == [8, 4]
    assert student.recipe["imitates"] == {SOURCE_ONLY: whole.digest}
    assert bundle.hidden_spread("exact") == bundle.without(STUDENT).hidden_spread("fast") == 0
    rows = list(csv.DictReader((tmp_path / "b" / "student.curves.csv").open()))
    assert float(rows[-1]["loss_student"]) < float(rows[0]["loss_student"])
    crops = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    exact, fast = (Predictor(ready(bundle, gpu=False, profile=p)) for p in PROFILES)
    assert exact.segmenters == (SOURCE_ONLY,) and fast.segmenters == (STUDENT,)
    assert exact.segment(crops).shape[1] == 16 and fast.segment(crops).shape[1] == 2


def test_the_spread_that_a_student_hides_is_that_of_its_teachers_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ellipses(*cups: int) -> np.ndarray:
        far = np.hypot(*(np.mgrid[:128, :128] + 0.5 - 64))
        return np.stack([[far <= 50, far <= cup] for cup in cups]).astype(np.float32)

    def segment(crops: np.ndarray) -> np.ndarray:
        return np.stack([ellipses(20, 30)] * len(crops))

    teacher = SimpleNamespace(segment=segment)
    monkeypatch.setattr(student_module, "teacher_of", lambda bundle: teacher)
    images = torch.zeros(8, 3, 128, 128, dtype=torch.uint8)
    pictures = Crops(tuple("abcdefgh"), images, images[:, 0], np.full(8, np.nan))
    assert student_module._spread(Bundle({}), pictures) == pytest.approx(0.1)  # of .4 and .6
    network = Network(DeepLabConfig(aspp_channels=8), {}, scores={"vcdr_spread": 0.1})
    assert Bundle({STUDENT: network}).hidden_spread("fast") == 0.1
    assert Bundle({STUDENT: replace(network, scores={})}).hidden_spread("fast") is None


def test_a_student_goes_when_the_segmenter_that_it_imitates_changes() -> None:
    one = Network(DeepLabConfig(aspp_channels=8), {})
    bundle = Bundle({DETECTOR: one, SOURCE_ONLY: one, ADAPTED: one, STUDENT: one})
    assert STUDENT not in bundle.with_network(SOURCE_ONLY, one).networks
    assert STUDENT not in bundle.with_network(ADAPTED, one).networks
    assert STUDENT not in bundle.without(ADAPTED).networks
    assert STUDENT in bundle.with_network(DETECTOR, one).networks
    assert STUDENT in bundle.without(DETECTOR).networks


def test_a_start_from_another_architecture_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_local: None
) -> None:
    start = str(bundles.default_folder())
    assert job("train").main(words(tmp_path, "b", "--start", start)) == 2
    assert "no segmenter of the recipe's architecture" in capsys.readouterr().err
