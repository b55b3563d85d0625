"""Supervised training on the labelled source: one step, shared with adaptation, and its learner."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms import v2

from fundus.anatomy import scores
from fundus.augmentation import augment
from fundus.augmentation.cup_warp import CupWarp
from fundus.augmentation.negatives import WithoutDisc
from fundus.datasets import batches
from fundus.datasets.batches import Crops
from fundus.models import losses
from fundus.models.networks import to_input
from fundus.models.turns import turns
from fundus.training.loading import loaded
from fundus.training.recipes import AdaptationRecipe, Recipe

Batch = tuple[Tensor, Tensor]
"""(N, 3, S, S) uint8 pictures and (N, S, S) uint8 labels, augmented."""


CONVENTIONS_RATE = 20.0
"""Learning rate of the offsets per data set, relative to that of the network."""


def source_step(
    segmenter: nn.Module,
    batch: Batch,
    precision: str,
    cross_entropy: float = 0.0,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The forward pass on labelled source pictures, and its loss.

    The detector has one map, the disc. Its loss is Dice plus cross-entropy, so that it also learns
    from frames without a disc. The segmenter has two maps, disc and cup. Its loss is equation 1 of
    the paper plus `cross_entropy` times the mean cross-entropy. Where no cup was outlined, only the
    disc counts.

    Args:
        segmenter: segmenter or detector.
        batch: pictures and labels.
        precision: of the forward pass on a GPU.
        cross_entropy: its weight in the segmenter's loss.
        offsets: (N, 2) added to the logits; None for none.

    Returns:
        The scalar `loss_seg_src`, not yet differentiated, and the logits.
    """
    pictures, labels = batch
    logits = forward(segmenter, pictures, precision)
    if offsets is not None:
        logits = logits + offsets[:, :, None, None]
    maps = batches.to_maps(labels).to(logits.device)
    if logits.shape[1] == 1:
        disc = maps[:, :1]
        dice = losses.dice_loss(logits.sigmoid(), disc)[0]
        return dice + F.binary_cross_entropy_with_logits(logits, disc), logits
    # Where the cup is unknown, the prediction is its own label: the gradient of each loss is 0.
    unknown = batches.cup_unknown(labels).to(logits.device)
    maps[unknown, 1] = logits[unknown, 1].detach().sigmoid()
    loss = losses.segmentation_loss(logits, maps)
    if cross_entropy:
        loss = loss + cross_entropy * F.binary_cross_entropy_with_logits(logits, maps)
    return loss, logits


def forward(network: nn.Module, pictures: Tensor, precision: str) -> Tensor:
    """(N, 3, S, S) uint8 on any device -> float32 logits, computed in `precision` on a GPU."""
    device = next(network.parameters()).device
    # Never on a CPU: there the bfloat16 gradients of dilated depthwise convolutions were 1e30 or
    # infinite at 256 pixels (PyTorch 2.14; float32 on the same batch: 0.1).
    lowered = precision == "bfloat16" and device.type == "cuda"
    with torch.autocast(device.type, torch.bfloat16, enabled=lowered):
        return network(to_input(pictures.to(device, non_blocking=True))).float()


class SourceLearner:
    """The learner of supervised training: a network, Adam, its schedule, and a labelled source.

    Args:
        network: detector or segmenter.
        recipe: hyperparameters.
        train: labelled crops or frames to learn from.
        validation: labelled crops or frames to validate on.
        rank, world: this worker's number, and the number of workers.
    """

    loss_name = "loss_seg_src"

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        train: Crops,
        validation: Crops,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.recipe, self.train, self.validation = recipe, train, validation
        self.rank, self.world, self.seed = rank, world, recipe.seed
        self.network = network
        self.conventions = Conventions(train) if recipe.conventions else None
        self.optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
        if self.conventions:
            faster = CONVENTIONS_RATE * recipe.learning_rate
            self.optimiser.add_param_group(
                {"params": list(self.conventions.parameters()), "lr": faster}
            )
        self.schedule = make_schedule(self.optimiser, recipe, self.steps_per_epoch)
        self.transform = source_transform(recipe.augmentation, recipe.cup_warp, recipe.without_disc)
        self.average = averaged(unwrapped(network), recipe.average)
        self.stateful: Mapping[str, Any] = {
            "network": unwrapped(network),
            "average": self.average,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
        }

    @property
    def steps_per_epoch(self) -> int:
        """Steps per rank and epoch."""
        drawn = self.recipe.draws or len(self.train)
        return batches.steps_per_epoch(drawn, self.recipe.batch, self.world)

    def batches(self, epoch: int) -> Iterable[tuple[Batch, tuple[str, ...]]]:
        """This rank's augmented batches of one epoch, and the data set of each picture."""
        weights = source_weights(self.train, self.recipe.balance_vcdr, self.recipe.balance_sets)
        drawn = batches.batches(
            weights,
            self.recipe.batch,
            seed=self.recipe.seed,
            epoch=epoch,
            rank=self.rank,
            world=self.world,
            draws=self.recipe.draws,
        )
        return loaded(list(drawn), self.augmented, self.seed, epoch, self.rank)

    def augmented(self, indices: np.ndarray) -> tuple[Batch, tuple[str, ...]]:
        """The pictures at these indices, augmented, and the data set of each."""
        chosen = self.train.take(indices)
        return augment.apply(self.transform, chosen.images, chosen.masks), chosen.sets

    def step(self, batch: tuple[Batch, tuple[str, ...]]) -> dict[str, float]:
        """Take one optimiser step; return its named loss."""
        self.network.train()
        loss = self.loss(*batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(unwrapped(self.network))
        return {self.loss_name: loss.item()}

    def loss(self, batch: Batch, sets: tuple[str, ...]) -> Tensor:
        """The scalar loss of augmented pictures with their labels, and their data sets."""
        recipe = self.recipe
        offsets = self.conventions(sets) if self.conventions else None
        loss, _ = source_step(self.network, batch, recipe.precision, recipe.cross_entropy, offsets)
        return loss

    def validate(self) -> dict[str, float]:
        """Dice on the source's held-back pictures, disc and (for two maps) cup."""
        return validation_dice(self.average.module, self.validation, self.recipe.batch)


class Conventions(nn.Module):
    """The conventions of each data set's experts: an offset per set on each logit, in training.

    The offsets of a structure have mean 0 over the sets that outline it. So the network without
    offsets, which alone is published, draws the consensus of the sets, also for unknown cameras.
    """

    def __init__(self, crops: Crops) -> None:
        super().__init__()
        names = np.array(crops.sets)
        self.index = {str(name): i for i, name in enumerate(np.unique(names))}
        cups = [bool(np.isfinite(crops.vcdr[names == name]).any()) for name in self.index]
        self.outlined = torch.tensor([[True, cup] for cup in cups])
        """(sets, 2) bool: whether each set outlines the disc and the cup."""
        self.offsets = nn.Parameter(torch.zeros(len(cups), 2))

    def centred(self) -> Tensor:
        """(sets, 2) offsets of mean 0; 0 for a structure that the set does not outline."""
        weight = self.outlined.float()
        mean = (self.offsets * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=1)
        return (self.offsets - mean) * weight

    def forward(self, sets: Sequence[str]) -> Tensor:
        """The data sets of N pictures -> (N, 2) to add to the logits; 0 for an unknown set."""
        known = torch.cat([self.centred(), torch.zeros(1, 2)])
        return known[[self.index.get(name, -1) for name in sets]]


def source_transform(augmentation: str, cup_warp: float, without_disc: float = 0.0) -> v2.Transform:
    """A named augmentation, after the anatomical warp and negatives if their shares are above 0."""
    before: list[v2.Transform] = [CupWarp(cup_warp)] if cup_warp else []
    if without_disc:
        before.append(WithoutDisc(without_disc))
    return v2.Compose([*before, augment.NAMED[augmentation]()])


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """The running average of a network's weights and statistics; decay 0 copies the latest."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def validation_dice(network: nn.Module, crops: Crops, size: int) -> dict[str, float]:
    """Mean Dice over labelled crops at threshold 0.5: `val_disc` and, for two maps, `val_cup`."""
    predicted = np.concatenate(
        [predict(network, crops.images[i : i + size]) for i in range(0, len(crops), size)]
    )
    truth = batches.to_maps(crops.masks).numpy() > 0.5
    labelled = np.ones(truth.shape[:2], bool)
    labelled[:, 1] = ~batches.cup_unknown(crops.masks).numpy()
    names = ("val_disc", "val_cup")[: predicted.shape[1]]
    return {
        name: scores.summarise_mean(
            [
                scores.dice(p[i] > 0.5, t[i])
                for p, t, known in zip(predicted, truth, labelled, strict=True)
                if known[i]
            ]
        ).value
        or 0.0
        for i, name in enumerate(names)
    }


@torch.inference_mode()
def predict(network: nn.Module, pictures: Tensor) -> np.ndarray:
    """(N, 3, S, S) uint8 -> (N, maps, S, S) float32 probabilities, in evaluation mode."""
    network.eval()
    return forward(network, pictures, "float32").sigmoid().cpu().numpy()


def predict_turned(network: nn.Module, pictures: Tensor) -> np.ndarray:
    """(N, 3, S, S) uint8 -> (N, 8, maps, S, S) probabilities of all turns, each turned back."""
    plain = pictures.numpy()
    maps = [
        undo(predict(network, torch.from_numpy(np.ascontiguousarray(do(plain)))))
        for do, undo in turns()
    ]
    return np.stack(maps, axis=1)


def sampling_weights(vcdr: np.ndarray, balance: bool, bins: int = 10) -> np.ndarray:
    """(N,) sampling weights. With `balance`, each occupied tenth of the vCDR range weighs the same.

    Pictures without a vCDR (NaN) get the average weight.
    """
    known = np.isfinite(vcdr)
    if not balance or not known.any():
        return np.ones(len(vcdr))
    tenth = np.clip((vcdr[known] * bins).astype(int), 0, bins - 1)
    weights = np.ones(len(vcdr))
    weights[known] = 1 / np.bincount(tenth, minlength=bins)[tenth]
    weights[known] /= weights[known].mean()
    return weights


def source_weights(crops: Crops, balance_vcdr: bool, balance_sets: bool) -> np.ndarray:
    """(N,) sampling weights of a source of several sets, balanced over vCDR within each set.

    Without `balance_sets`, all pictures count as one set. With it, a set weighs the square root of
    its count: a compromise between equal pictures and equal sets.
    """
    if not balance_sets:
        return sampling_weights(crops.vcdr, balance_vcdr)
    names = np.array(crops.sets)
    weights = np.ones(len(names))
    for name in sorted(set(crops.sets)):
        of_set = names == name
        inside = sampling_weights(crops.vcdr[of_set], balance_vcdr)
        weights[of_set] = inside / inside.sum() * np.sqrt(of_set.sum())
    return weights


def weights_like(vcdr: np.ndarray, wanted: np.ndarray, bins: int = 10) -> np.ndarray:
    """(N,) sampling weights by which the vCDR of the source gets the distribution of `wanted`.

    Each tenth of the vCDR range weighs its count in `wanted` plus 0.1, so that none vanishes.
    """
    edges = np.linspace(0, 1, bins + 1)
    share = np.histogram(wanted[np.isfinite(wanted)], edges)[0] + 0.1
    weights = sampling_weights(vcdr, balance=True)
    known = np.isfinite(vcdr)
    tenth = np.clip((vcdr[known] * bins).astype(int), 0, bins - 1)
    weights[known] *= share[tenth] / share.mean()
    return weights


def make_schedule(
    optimiser: torch.optim.Optimizer, recipe: Recipe | AdaptationRecipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The recipe's schedule, to be stepped once per optimiser step; `steps` is per epoch."""
    if recipe.schedule == "one-cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            [group["lr"] for group in optimiser.param_groups],
            total_steps=recipe.epochs * steps,
        )
    gamma = 0.8 if recipe.schedule == "step" else 1.0
    return torch.optim.lr_scheduler.StepLR(optimiser, step_size=20 * steps, gamma=gamma)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside PyTorch's data-parallel wrapper, or itself."""
    return getattr(network, "module", network)
