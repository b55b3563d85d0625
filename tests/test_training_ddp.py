"""Two data-parallel workers take the same step as one process on the same batch."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray.train
import torch
from ray import cloudpickle
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor, nn

from fundus.datasets.batches import Crops, disc_crops, frames
from fundus.datasets.public import open_set
from fundus.models.networks import DeepLabConfig, Discriminator, UNetConfig, build
from fundus.models.thresholds import Thresholds
from fundus.training import loop
from fundus.training.adaptation import AdaptationLearner
from fundus.training.recipes import AdaptationRecipe, Recipe
from fundus.training.source import SourceLearner, unwrapped

# Workers cannot import this file, so it is pickled by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SIDE, BATCH = 64, 4
SOURCE = "synthetic:?camera=clinic&count=4&seed=1"
TARGET = "synthetic:?camera=hospital&count=4&seed=2"
Wrap = Callable[[nn.Module], nn.Module]
Gradients = dict[str, Tensor]


def frozen(network: nn.Module) -> nn.Module:
    """Keep the network in evaluation mode, whatever mode a step asks for."""
    network.eval()
    network.train = lambda mode=True: network  # type: ignore[method-assign, assignment]
    return network


def part(crops: Crops, rank: int, world: int) -> tuple[Tensor, Tensor]:
    """This rank's share of the one batch."""
    return crops.images[rank::world], crops.masks[rank::world]


def gradients(network: nn.Module) -> Gradients:
    return {
        n: p.grad.clone() for n, p in unwrapped(network).named_parameters() if p.grad is not None
    }


def supervised(config: UNetConfig | DeepLabConfig, wrap: Wrap, rank: int, world: int) -> Gradients:
    """The gradients of one source step."""
    loop.seed_generators(0)
    network = wrap(build(config))
    labelled = open_set(SOURCE)
    if isinstance(config, UNetConfig):
        crops = frames(labelled, SIDE)
    else:
        crops = disc_crops(labelled, SIDE, roi_scale=1.7)
    recipe = Recipe("test", config, side=SIDE, epochs=1, batch=BATCH, precision="float32")
    learner = SourceLearner(network, recipe, crops, crops, rank=rank, world=world)
    learner.step((part(crops, rank, world), crops.sets[rank::world]))
    return gradients(network)


def detector(wrap: Wrap, rank: int, world: int) -> Gradients:
    return supervised(UNetConfig(width=8), lambda n: wrap(frozen(n)), rank, world)


def segmenter(wrap: Wrap, rank: int, world: int) -> Gradients:
    return supervised(DeepLabConfig(aspp_channels=8), lambda n: wrap(frozen(n)), rank, world)


def segmenter_with_statistics(wrap: Wrap, rank: int, world: int) -> Gradients:
    """Batch norm takes its statistics from the batches of all workers, if all goes well."""
    return supervised(DeepLabConfig(aspp_channels=8, dropout=0), wrap, rank, world)


def adversarial(wrap: Wrap, rank: int, world: int) -> Gradients:
    """The gradients of one step of both networks."""
    loop.seed_generators(0)
    pair = [
        wrap(frozen(n)) for n in (build(DeepLabConfig(aspp_channels=8)), Discriminator(patch=True))
    ]
    source, target = (disc_crops(open_set(spec), SIDE, roi_scale=1.7) for spec in (SOURCE, TARGET))
    recipe = AdaptationRecipe("test", batch=BATCH, adversarial_weight=1.0, precision="float32")
    learner = AdaptationLearner(
        *pair, recipe, source, source, target, thresholds=Thresholds(), rank=rank, world=world
    )
    learner.step((part(source, rank, world), part(target, rank, world)))
    return {
        f"{name} {parameter}": gradient
        for name, network in zip(("segmenter", "discriminator"), pair, strict=True)
        for parameter, gradient in gradients(network).items()
    }


def worker(config: dict) -> None:
    """Take this worker's share of each step, and save the gradients, which all workers share."""
    assert torch.distributed.get_backend() == config["backend"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    for step in config["steps"]:
        found = STEPS[step](loop.synchronised, rank, world)
        file = Path(config["folder"]) / f"{step}-{rank}.pt"
        torch.save({n: g.cpu() for n, g in found.items()}, file)


STEPS = {f.__name__: f for f in (detector, segmenter, adversarial, segmenter_with_statistics)}


def compare(*steps: str, folder: Path, gpu: bool, tolerance: float) -> None:
    """Compare the gradients of two workers of Ray Train with those of this process."""
    TorchTrainer(
        worker,
        train_loop_config={
            "steps": steps,
            "folder": str(folder),
            "backend": "nccl" if gpu else "gloo",
        },
        scaling_config=ScalingConfig(
            num_workers=2,
            use_gpu=gpu,
            resources_per_worker={"CPU": 1} | ({"GPU": 1} if gpu else {}),
        ),
        run_config=RunConfig(name="ddp", storage_path=str(folder)),
    ).fit()
    for step in steps:
        alone = STEPS[step](lambda network: network.to("cuda" if gpu else "cpu"), 0, 1)
        assert max(gradient.abs().max() for gradient in alone.values()) > 1e-3
        for rank in (0, 1):
            found = torch.load(folder / f"{step}-{rank}.pt", weights_only=True)
            assert found.keys() == alone.keys()
            for name, gradient in alone.items():
                torch.testing.assert_close(found[name], gradient.cpu(), atol=tolerance, rtol=0)


@pytest.mark.slow
def test_two_workers_have_the_gradients_of_one_process(ray_local: None, tmp_path: Path) -> None:
    compare("detector", "segmenter", "adversarial", folder=tmp_path, gpu=False, tolerance=1e-5)


@pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="wants two GPUs: SyncBatchNorm has no CPU kernel"
)
def test_two_gpus_have_the_batch_norm_of_one(ray_local: None, tmp_path: Path) -> None:
    """Not run on GPUs yet."""
    compare("segmenter_with_statistics", folder=tmp_path, gpu=True, tolerance=1e-4)
