"""Adaptation to a camera without labels: output-space adversarial, or self-training.

A step has three named phases, each with a named loss.

output-adversarial (the paper):
1. source: the segmenter learns from labelled source pictures (`loss_seg_src`);
2. adversarial: the segmenter learns to make target maps that a frozen discriminator classifies as
   source maps (`loss_adv_trg`);
3. discriminator: the discriminator learns to tell source maps from target maps, both detached
   (`loss_dis`).

self-training (mean teacher):
1. source: the same;
2. pseudo: the segmenter learns the teacher's labels of target pictures (`loss_seg_trg`);
3. teacher: the teacher, a running average of the segmenter, is updated. It labels the target anew
   in each epoch.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fundus.anatomy import biomarkers
from fundus.augmentation import appearance, augment
from fundus.datasets import batches
from fundus.datasets.batches import Crops
from fundus.models import losses
from fundus.models.thresholds import Thresholds
from fundus.training.loading import loaded
from fundus.training.recipes import AdaptationRecipe
from fundus.training.source import (
    Batch,
    averaged,
    forward,
    make_schedule,
    predict_turned,
    source_step,
    source_transform,
    source_weights,
    unwrapped,
    validation_dice,
    weights_like,
)


class AdaptationLearner:
    """The learner of adaptation: the segmenter and, for output-adversarial, the discriminator.

    Args:
        segmenter: the source-only segmenter, from which adaptation starts.
        discriminator: not used in self-training.
        recipe: method and hyperparameters.
        train: labelled source crops to learn from.
        validation: labelled source crops to validate on.
        target: unlabelled crops of the new camera.
        thresholds: where probability maps become masks.
        rank, world: this worker's number, and the number of workers.
    """

    def __init__(
        self,
        segmenter: nn.Module,
        discriminator: nn.Module,
        recipe: AdaptationRecipe,
        train: Crops,
        validation: Crops,
        target: Crops,
        *,
        thresholds: Thresholds,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.segmenter, self.discriminator, self.recipe = segmenter, discriminator, recipe
        self.train, self.validation, self.target = train, validation, target
        self.thresholds = thresholds
        self.rank, self.world, self.seed = rank, world, recipe.seed
        if recipe.target_batch_norm:
            blend_batch_norm(unwrapped(segmenter), target.images, recipe.target_batch_norm)
        self.average = averaged(unwrapped(segmenter), recipe.average)
        self.average.update_parameters(unwrapped(segmenter))  # the teacher starts as the segmenter
        self.optimiser = torch.optim.Adam(segmenter.parameters(), lr=recipe.learning_rate)
        self.schedule = make_schedule(self.optimiser, recipe, self.steps_per_epoch)
        self.optimiser_dis = _discriminator_optimiser(discriminator, recipe)
        self.transform = source_transform(recipe.augmentation, recipe.cup_warp)
        if recipe.target_look:
            share = recipe.target_look / 2
            look = appearance.LikeTarget(target.images, reinhard=share, fourier=share)
            self.transform = augment.v2.Compose([look, self.transform])
        self.transform_trg = augment.NAMED[recipe.augmentation]()
        self.weights = self._source_weights()
        self.stateful: Mapping[str, Any] = {
            "network": unwrapped(segmenter),
            "average": self.average,
            "discriminator": unwrapped(discriminator),
            "optimiser": self.optimiser,
            "optimiser_dis": self.optimiser_dis,
            "schedule": self.schedule,
        }

    @property
    def steps_per_epoch(self) -> int:
        """Steps per rank and epoch."""
        drawn = self.recipe.draws or len(self.train)
        return batches.steps_per_epoch(drawn, self.recipe.batch, self.world)

    def batches(self, epoch: int) -> Iterable[tuple[Batch, Batch]]:
        """Augmented source and target batches of one epoch; the target repeats as needed.

        The labels of the target are the teacher's in self-training, and blank otherwise.
        """
        seen = self.target
        if self.recipe.method == "self-training":
            seen = pseudo_labelled(self.average.module, self.target, self.thresholds)
        ranked = {"rank": self.rank, "world": self.world}
        source = batches.batches(
            self.weights,
            self.recipe.batch,
            seed=self.seed,
            epoch=epoch,
            draws=self.recipe.draws,
            **ranked,
        )
        target = self._target_indices(len(seen), epoch)

        def augmented(pair: tuple[np.ndarray, np.ndarray]) -> tuple[Batch, Batch]:
            src, trg = self.train.take(pair[0]), seen.take(pair[1])
            return (
                augment.apply(self.transform, src.images, src.masks),
                augment.apply(self.transform_trg, trg.images, trg.masks),
            )

        pairs = list(zip(source, target, strict=False))  # the target has batches to spare
        return loaded(pairs, augmented, self.seed, epoch, self.rank)

    def step(self, batch: tuple[Batch, Batch]) -> dict[str, float]:
        """Run the three phases on one batch; return their named losses."""
        source, target = batch
        self._set_modes()
        self.optimiser.zero_grad(set_to_none=True)
        loss_seg_src, maps_src = self._source_phase(source)
        if self.recipe.method == "self-training":
            found = {"loss_seg_trg": self._pseudo_phase(target)}
            self._take_step()
        else:
            loss_adv_trg, maps_trg = self._adversarial_phase(target[0])
            self._take_step()
            loss_dis = self._discriminator_phase(maps_src, maps_trg)
            found = {"loss_adv_trg": loss_adv_trg, "loss_dis": loss_dis}
        named = {"loss_seg_src": loss_seg_src} | found
        return {name: loss.item() for name, loss in named.items()}

    def validate(self) -> dict[str, float]:
        """Dice on the source's held-back pictures."""
        return validation_dice(self.average.module, self.validation, self.recipe.batch)

    def _source_phase(self, source: Batch) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        loss, logits = source_step(self.segmenter, source, recipe.precision, recipe.cross_entropy)
        loss.backward()
        return loss.detach(), logits.detach().sigmoid()

    def _adversarial_phase(self, pictures_trg: Tensor) -> tuple[Tensor, Tensor]:
        # The discriminator without its data-parallel wrapper: its parameters are frozen, and the
        # wrapper would wait for their gradients for ever.
        judge = unwrapped(self.discriminator).requires_grad_(False)
        maps_trg = forward(self.segmenter, pictures_trg, self.recipe.precision).sigmoid()
        loss = losses.adversarial_loss(judge(maps_trg))
        (self.recipe.adversarial_weight * loss).backward()
        judge.requires_grad_(True)
        return loss.detach(), maps_trg.detach()

    def _discriminator_phase(self, maps_src: Tensor, maps_trg: Tensor) -> Tensor:
        answers_src, answers_trg = self.discriminator(torch.cat([maps_src, maps_trg])).chunk(2)
        loss = losses.discriminator_loss(answers_src, answers_trg)
        self.optimiser_dis.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser_dis.step()
        return loss.detach()

    def _pseudo_phase(self, target: Batch) -> Tensor:
        recipe = self.recipe
        loss, _ = source_step(self.segmenter, target, recipe.precision, recipe.cross_entropy)
        (recipe.pseudo_weight * loss).backward()
        return loss.detach()

    def _take_step(self) -> None:
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(unwrapped(self.segmenter))

    def _set_modes(self) -> None:
        self.segmenter.train()
        self.discriminator.train()
        if self.recipe.freeze_batch_norm:
            freeze_batch_norm(self.segmenter)

    def _source_weights(self) -> np.ndarray:
        """(N,) sampling weights of the source, by the recipe's `sampling`."""
        if self.recipe.sampling == "as-target":
            seen = pseudo_labelled(self.average.module, self.target, self.thresholds)
            return weights_like(self.train.vcdr, seen.vcdr)
        recipe = self.recipe
        return source_weights(self.train, recipe.sampling == "balanced", recipe.balance_sets)

    def _target_indices(self, count: int, epoch: int) -> Iterator[np.ndarray]:
        """Batches of target indices for one epoch, in as many passes as are needed."""
        for turn in range(self.steps_per_epoch):
            # Another seed than the source's, so that the two orders are independent.
            yield from batches.batches(
                np.ones(count),
                self.recipe.batch,
                seed=self.seed + 1_000_003 + turn,
                epoch=epoch,
                rank=self.rank,
                world=self.world,
            )


def pseudo_labelled(
    teacher: nn.Module, target: Crops, thresholds: Thresholds, size: int = 16
) -> Crops:
    """Label the target by the teacher: the mean map over 8 turns, at the bundle's thresholds.

    Args:
        teacher: a segmenter.
        target: crops, whose own masks are ignored.
        thresholds: where probability maps become masks.
        size: crops per batch.

    Returns:
        The labelled crops, without those in which the teacher finds no disc or no cup. If that
        leaves none, all crops.
    """
    maps = np.concatenate(
        [teach(teacher, target.images[i : i + size]) for i in range(0, len(target), size)]
    )
    masks = np.stack([thresholds.draw(one).mask for one in maps])
    found = [biomarkers.vcdr(mask) for mask in masks]
    vcdr = np.array([np.nan if value is None else value for value in found])
    labelled = Crops(target.ids, target.images, torch.from_numpy(masks), vcdr)
    usable = np.flatnonzero(np.isfinite(vcdr))
    return labelled.take(usable) if len(usable) else labelled


def teach(network: nn.Module, pictures: Tensor) -> np.ndarray:
    """(N, 3, S, S) uint8 -> (N, 2, S, S) probabilities, the mean over the 8 turns."""
    return predict_turned(network, pictures).mean(axis=1)


def blend_batch_norm(network: nn.Module, pictures: Tensor, share: float, size: int = 16) -> None:
    """Move batch-norm statistics from those of the source towards those of pictures, in place.

    A variance of 0 is ignored, and the source's stays: a single picture yields it in layers that
    see one value per picture.

    Args:
        network: the segmenter, with the statistics of the source.
        pictures: (N, 3, S, S) uint8; all weigh the same.
        share: 0 keeps the statistics of the source, 1 takes those of the pictures. Half-way
            improved disc and cup in the trials of docs/experiments.md.
        size: pictures per forward pass, at most.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = {k: v.clone() for k, v in network.state_dict().items() if "running_" in k}
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
    if len(pictures) == 1:
        pictures = pictures.repeat(2, 1, 1, 1)  # train mode refuses a batch of one
    network.train()
    seen = 0
    with torch.no_grad():
        for some in torch.tensor_split(pictures, ceil(len(pictures) / size)):
            seen += len(some)
            for norm in norms:
                norm.momentum = len(some) / seen  # the running average over pictures
            forward(network, some, "float32")
    after = network.state_dict()
    blended = {k: torch.lerp(before[k], after[k], share) for k in before}
    for name in blended:
        if name.endswith("running_var"):
            blended[name] = torch.where(after[name] > 0, blended[name], before[name])
    network.load_state_dict(after | blended)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def freeze_batch_norm(network: nn.Module) -> None:
    """Put every batch norm into evaluation mode: its statistics stay, its weights still learn."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _discriminator_optimiser(
    discriminator: nn.Module, recipe: AdaptationRecipe
) -> torch.optim.Optimizer:
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    return kinds[recipe.discriminator_optimiser](
        discriminator.parameters(), lr=recipe.discriminator_rate
    )
