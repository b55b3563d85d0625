"""Output-space adversarial adaptation: the paper's method, in three named phases a step.

1. source: the segmenter learns from labelled source pictures, as before;
2. adversarial: it learns to make target maps that a frozen discriminator takes for source;
3. discriminator: that one learns to tell source maps from target maps, both detached.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fundus.datasets import augment, batches
from fundus.datasets.batches import Crops
from fundus.models import losses
from fundus.training.recipes import AdaptationRecipe
from fundus.training.source import (
    Batch,
    forward,
    make_schedule,
    sampling_weights,
    source_step,
    unwrapped,
    validation_dice,
)


class AdversarialLearner:
    """What the loop trains in adaptation: segmenter and discriminator, each with its optimiser."""

    def __init__(
        self,
        segmenter: nn.Module,
        discriminator: nn.Module,
        recipe: AdaptationRecipe,
        train: Crops,
        validation: Crops,
        target: Crops,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.segmenter, self.discriminator, self.recipe = segmenter, discriminator, recipe
        self.train, self.validation, self.target = train, validation, target
        self.rank, self.world, self.seed = rank, world, recipe.seed
        self.optimiser = torch.optim.Adam(segmenter.parameters(), lr=recipe.learning_rate)
        self.schedule = make_schedule(self.optimiser, recipe, self.steps_per_epoch)
        self.optimiser_dis = _discriminator_optimiser(discriminator, recipe)
        self.transform = augment.NAMED[recipe.augmentation]()
        self.stateful: Mapping[str, Any] = {
            "network": unwrapped(segmenter),
            "discriminator": unwrapped(discriminator),
            "optimiser": self.optimiser,
            "optimiser_dis": self.optimiser_dis,
            "schedule": self.schedule,
        }

    @property
    def steps_per_epoch(self) -> int:
        """Steps that each rank makes in an epoch: one pass over the source."""
        return batches.steps_per_epoch(len(self.train), self.share, self.world)

    @property
    def share(self) -> int:
        """Pictures of each domain a step on this rank."""
        return max(1, self.recipe.batch // self.world)

    def batches(self, epoch: int) -> Iterator[tuple[Batch, Tensor]]:
        """Augmented (source batch, target pictures) of one epoch; the target repeats as needed."""
        weights = sampling_weights(self.train.vcdr, self.recipe.balance_vcdr)
        ranked = {"rank": self.rank, "world": self.world}
        source = batches.batches(weights, self.share, seed=self.recipe.seed, epoch=epoch, **ranked)
        target = self._target_indices(epoch)
        for indices in source:
            chosen, seen = self.train.take(indices), self.target.take(next(target))
            pictures_trg, _ = augment.apply(self.transform, seen.images, seen.masks)
            yield augment.apply(self.transform, chosen.images, chosen.masks), pictures_trg

    def step(self, batch: tuple[Batch, Tensor]) -> dict[str, float]:
        """The three phases; returns `loss_seg_src`, `loss_adv_trg` and `loss_dis`."""
        source, pictures_trg = batch
        self._set_modes()
        self.optimiser.zero_grad(set_to_none=True)
        loss_seg_src, maps_src = self._source_phase(source)
        loss_adv_trg, maps_trg = self._adversarial_phase(pictures_trg)
        self.optimiser.step()
        self.schedule.step()
        loss_dis = self._discriminator_phase(maps_src, maps_trg)
        return {
            "loss_seg_src": loss_seg_src.item(),
            "loss_adv_trg": loss_adv_trg.item(),
            "loss_dis": loss_dis.item(),
        }

    def validate(self) -> dict[str, float]:
        """Dice on the source's held-back pictures."""
        return validation_dice(unwrapped(self.segmenter), self.validation, self.share)

    def _source_phase(self, source: Batch) -> tuple[Tensor, Tensor]:
        loss, logits = source_step(self.segmenter, source, self.recipe.precision)
        loss.backward()
        return loss.detach(), logits.detach().sigmoid()

    def _adversarial_phase(self, pictures_trg: Tensor) -> tuple[Tensor, Tensor]:
        # The bare discriminator: its parameters take no part, so a data-parallel wrapper would
        # wait for gradients that never come.
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

    def _set_modes(self) -> None:
        self.segmenter.train()
        self.discriminator.train()
        if self.recipe.freeze_batch_norm:
            freeze_batch_norm(self.segmenter)

    def _target_indices(self, epoch: int) -> Iterator[Any]:
        """Batches of target indices without end, ever new passes of this epoch."""
        weights = sampling_weights(self.target.vcdr, balance=False)
        for turn in range(self.steps_per_epoch):
            # A seed apart from the source's, so that the two orders do not run in step.
            yield from batches.batches(
                weights,
                self.share,
                seed=self.recipe.seed + 1_000_003 + turn,
                epoch=epoch,
                rank=self.rank,
                world=self.world,
            )


def freeze_batch_norm(network: nn.Module) -> None:
    """Put every batch norm in evaluation mode: its statistics stay, its weights still learn."""
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
