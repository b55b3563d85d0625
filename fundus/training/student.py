"""Distillation: one network learns to answer in one pass as a whole segmenter does in many.

The teacher is every network of a bundle's segmenter, together in all eight turns. It sees the same
augmented pictures as the student (Beyer et al., Knowledge distillation: a good teacher is patient
and consistent, CVPR 2022), so no label is needed.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fundus.anatomy import biomarkers
from fundus.anatomy.labels import compose
from fundus.archive.mirror import written
from fundus.datasets import batches
from fundus.datasets.batches import Crops
from fundus.datasets.public import anchored
from fundus.errors import ConfigurationError
from fundus.field import roi
from fundus.models import architectures, losses, networks
from fundus.models import bundle as bundles
from fundus.models.bundle import ADAPTED, SOURCE_ONLY, SPREAD, STUDENT, Bundle, BundleError, Network
from fundus.models.measuring import measure_maps
from fundus.models.predictor import Predictor, ready
from fundus.models.turns import TTA, Profile
from fundus.runtime.workers import Workers, on_a_worker
from fundus.storage.places import open_place
from fundus.training import curves, loop
from fundus.training.labelled import described_sets, labelled_set
from fundus.training.loop import Row
from fundus.training.recipes import Recipe
from fundus.training.runs import averaged_weights, run_name, scores_of
from fundus.training.source import Batch, SourceLearner, forward
from fundus.training.targets import read_target

TOGETHER = 8
"""Pictures whose maps of all passes are in memory at once."""


class StudentLearner(SourceLearner):
    """The learner of a distillation; its validation scores are the agreement with the teacher.

    Args:
        network: the student, with two maps.
        recipe: hyperparameters of a segmenter.
        train: pictures to learn from, as `taught` returns them.
        validation: pictures to validate on, likewise.
        teacher: its segmenters are the teacher.
        rank, world: this worker's number, and the number of workers.
    """

    loss_name = "loss_student"

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        train: Crops,
        validation: Crops,
        teacher: Predictor,
        **workers: Any,
    ) -> None:
        super().__init__(network, recipe, train, validation, **workers)
        self.teacher = teacher

    def loss(self, batch: Batch, sets: tuple[str, ...]) -> Tensor:
        """The scalar loss against the teacher's maps: Dice of equation 1, and cross-entropy."""
        pictures, _ = batch
        logits = forward(self.network, pictures, self.recipe.precision)
        maps = answers(self.teacher, pictures).to(logits.device)
        entropy = F.binary_cross_entropy_with_logits(logits, maps)
        return losses.segmentation_loss(logits, maps) + entropy


def answers(teacher: Predictor, pictures: Tensor) -> Tensor:
    """(N, 3, S, S) uint8 -> (N, 2, S, S) float32, the mean over all passes of the teacher."""
    upright = pictures.permute(0, 2, 3, 1).numpy()
    parts = [
        teacher.segment(upright[i : i + TOGETHER]).mean(axis=1)
        for i in range(0, len(upright), TOGETHER)
    ]
    return torch.from_numpy(np.concatenate(parts))


def taught(crops: Crops, teacher: Predictor) -> Crops:
    """The same pictures with the teacher's masks, at 0.5, and their vCDR, instead of labels."""
    maps = answers(teacher, crops.images).numpy() >= 0.5
    masks = np.stack([compose(disc, cup) for disc, cup in maps])
    ratios = [biomarkers.vcdr(mask) for mask in masks]
    vcdr = np.array([np.nan if ratio is None else ratio for ratio in ratios])
    return replace(crops, masks=torch.from_numpy(masks), vcdr=vcdr)


@dataclass(frozen=True)
class StudentConfig:
    """A distillation of a bundle's segmenter."""

    bundle: Path | str
    """Folder or s3:// URI of the bundle that holds the segmenter, and gets the student."""
    sources: tuple[str, ...]
    """Labelled sets, whose labels only place the ROI."""
    unlabelled: tuple[str, ...]
    """Sets of disc crops, whose labels, if any, are not read."""
    recipe: Recipe
    """Of the segmenter; network and side are those of the bundle, and the student is alone."""
    storage: Path | str = "runs"
    """Location of checkpoints: a folder that all workers mount, or an s3:// URI."""
    workers: Workers = field(default_factory=Workers)

    role = STUDENT

    def __post_init__(self) -> None:
        if not self.sources + self.unlabelled:
            raise ConfigurationError("a student needs pictures: give --source or --unlabelled")


def distil(config: StudentConfig) -> tuple[str, Bundle, list[Row]]:
    """Distil a bundle's segmenter into a student. The same configuration resumes its run.

    The student starts from the weights of the segmenter's first network.

    Returns:
        The name of the run, the bundle with the student, and the figures of every epoch.

    Raises:
        ConfigurationError: a set, the bundle or the storage cannot be used.
    """
    sources, unlabelled = (
        tuple(map(anchored, sets)) for sets in (config.sources, config.unlabelled)
    )
    config = replace(config, sources=sources, unlabelled=unlabelled)
    place = open_place(str(config.bundle))
    start = bundles.load(config.bundle)
    if SOURCE_ONLY not in start.networks:
        raise BundleError(f"{config.bundle} has no segmenter: run jobs/train.py segmenter first")
    recipe, first = first_of(start, config.recipe)
    data = on_a_worker(config.workers, described_sets, config.sources)
    crops, described_unlabelled = on_a_worker(config.workers, _pictures, config, start)
    data += described_unlabelled
    pictures = ray.put(crops)
    segmenters = (role for role in (SOURCE_ONLY, ADAPTED) if role in start.networks)
    imitated = {role: start.networks[role].digest for role in segmenters}
    described = recipe.described() | {"imitates": imitated}

    def make_learner() -> StudentLearner:
        context = ray.train.get_context()
        network = networks.build(recipe.network)
        network.load_state_dict(first)
        crops = ray.get(pictures)
        learn, validate = batches.split(crops.persons)
        return StudentLearner(
            loop.synchronised(network.to(memory_format=torch.channels_last)),
            recipe,
            crops.take(learn),
            crops.take(validate),
            teacher_of(start),
            rank=context.get_world_rank(),
            world=context.get_world_size(),
        )

    name = run_name(STUDENT, described, data)
    state, history = loop.fit(
        make_learner, recipe.epochs, name=name, storage=config.storage, workers=config.workers
    )
    spread = on_a_worker(config.workers, _spread, start, pictures)  # type: ignore[arg-type]
    scores = scores_of(history) | ({} if spread is None else {SPREAD: round(spread, 4)})
    student = Network(recipe.network, averaged_weights(state), described, data, scores)
    trained = start.with_network(STUDENT, student)
    with written(place) as folder:
        bundles.save(trained, folder)
        curves.save(history, folder, STUDENT)
    return name, trained, history


def teacher_of(bundle: Bundle) -> Predictor:
    """The whole segmenter of a bundle.

    Each network sees all eight turns, or two of them if there are enough networks to see all eight
    together. On new augmentations in each step, the second differs little from the first on
    average, and takes a quarter of the time.
    """
    whole = bundle.without(STUDENT)
    segmenters = [whole.networks[role] for role in (SOURCE_ONLY, ADAPTED) if role in whole.networks]
    enough = sum(architectures.count(one.config) for one in segmenters) >= TTA // 2
    profile: Profile = "fast" if enough else "exact"
    return Predictor(ready(whole, gpu=torch.cuda.is_available(), profile=profile))


def first_of(bundle: Bundle, recipe: Recipe) -> tuple[Recipe, dict[str, Tensor]]:
    """The recipe of a student of this bundle, and its first weights.

    The student has the architecture and the first weights of the segmenter's first network.
    """
    whole = bundle.networks[SOURCE_ONLY]
    config = getattr(whole.config, "member", whole.config)
    (first, *_) = networks.members(whole.build())
    side = bundle.preprocessing.roi_side
    return replace(recipe, network=config, side=side, members=1), first.state_dict()


def _pictures(config: StudentConfig, start: Bundle) -> tuple[Crops, tuple[dict[str, Any], ...]]:
    """All pictures, with the teacher's answers; and the unlabelled sets for the bundle."""
    side, scale = start.preprocessing.roi_side, start.preprocessing.roi_scale
    labelled = [labelled_set(spec) for spec in config.sources]
    parts = [batches.disc_crops(one, side, roi_scale=scale) for one in labelled]
    described: list[dict[str, Any]] = []
    for spec in config.unlabelled:
        found = read_target([spec], start, precropped=True)
        (about,) = found.described
        described.append(about | {"role": "no labels"})
        parts.append(replace(found.crops, sets=(about["name"],) * len(found.crops), persons=()))
    return taught(batches.join(parts), teacher_of(start)), tuple(described)


def _spread(start: Bundle, crops: Crops) -> float | None:
    """The median `vcdr_sd` of the teacher on the validation pictures; None if none is defined."""
    teacher = teacher_of(start)
    shown = crops.take(batches.split(crops.persons)[1]).images.permute(0, 2, 3, 1).numpy()
    whole = roi.whole(*shown.shape[1:3])
    found = [
        measure_maps(maps, whole, start.thresholds).vcdr_sd
        for i in range(0, len(shown), TOGETHER)
        for maps in teacher.segment(shown[i : i + TOGETHER])
    ]
    known = [one for one in found if one is not None]
    return float(np.median(known)) if known else None
