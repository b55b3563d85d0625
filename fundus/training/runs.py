"""Complete trainings, from data sets to a bundle, for `jobs/train.py` and `jobs/adapt.py`."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from torch import Tensor, nn

from fundus.archive.mirror import written
from fundus.datasets import batches
from fundus.datasets.batches import Crops
from fundus.datasets.public import anchored
from fundus.errors import ConfigurationError
from fundus.models import bundle as bundles
from fundus.models import networks
from fundus.models.bundle import ADAPTED, DETECTOR, SOURCE_ONLY, Bundle, BundleError, Network
from fundus.models.confidence import Calibration
from fundus.models.networks import DeepLabConfig, Discriminator, EnsembleConfig, NetworkConfig
from fundus.runtime.workers import Workers, on_a_worker
from fundus.storage.places import open_place, place_at
from fundus.training import certainty, curves, gate, loop
from fundus.training.adaptation import AdaptationLearner
from fundus.training.changes import Changes, changes
from fundus.training.labelled import described_sets, labelled_set
from fundus.training.loop import Row
from fundus.training.recipes import AdaptationRecipe, Recipe, RecipeBook
from fundus.training.source import SourceLearner
from fundus.training.targets import Target, read_target


@dataclass(frozen=True)
class TrainConfig:
    """A supervised training of one network of a bundle."""

    role: str
    """`detector` or `source_only`."""
    sources: tuple[str, ...]
    """Labelled sets, as fundus.datasets.public.open_set reads them."""
    bundle: Path | str
    """Folder or s3:// URI of the bundle that gets the network; created if it does not exist."""
    book: RecipeBook
    """Recipes and preprocessing."""
    encoder: Path | None = None
    """ImageNet weights of the encoder, a local safetensors file; None to download them."""
    from_scratch: bool = False
    """Start without ImageNet weights."""
    start: Path | str | None = None
    """Start from the segmenter of this bundle, with the same number of members."""
    storage: Path | str = "runs"
    """Location of checkpoints: a folder that all workers mount, or an s3:// URI."""
    workers: Workers = field(default_factory=Workers)

    def __post_init__(self) -> None:
        if self.role not in (DETECTOR, SOURCE_ONLY):
            raise ConfigurationError(f"train {DETECTOR} or {SOURCE_ONLY}, not {self.role!r}")
        if self.encoder and not self.encoder.is_file():
            raise ConfigurationError(
                f"--encoder {self.encoder}: no such file; give the weights as a safetensors file"
            )
        if self.start and (self.role == DETECTOR or self.encoder or self.from_scratch):
            raise ConfigurationError(
                "--start is for the segmenter, without --encoder or --from-scratch"
            )


@dataclass(frozen=True)
class AdaptConfig:
    """An adaptation of a bundle's source-only segmenter to a target without labels."""

    bundle: Path | str
    """The bundle that holds the source-only segmenter, and the detector unless `precropped`."""
    sources: tuple[str, ...]
    """Labelled sets."""
    targets: tuple[str, ...]
    """Sets of the new camera; their labels, if any, are not read."""
    to: Path | str
    """Folder or s3:// URI of the adapted bundle; may be that of `bundle`."""
    recipe: AdaptationRecipe
    precropped: bool = False
    """The target's pictures are disc crops already."""
    storage: Path | str = "runs"
    workers: Workers = field(default_factory=Workers)

    def __post_init__(self) -> None:
        if self.recipe.batch < self.workers.most:
            raise ConfigurationError(
                f"a batch of {self.recipe.batch} cannot be shared by {self.workers.most} workers:"
                f" give fewer --workers, or --change batch={self.workers.most}"
            )


@dataclass(frozen=True)
class Adaptation:
    """The result of an adaptation."""

    run: str
    """Name of the run and of its folder below the storage."""
    bundle: Bundle
    """The adapted bundle if it was published, else the bundle from which adaptation started."""
    history: list[Row]
    checks: tuple[gate.Check, ...]
    target: Target
    """The pictures of the target, and how many were left out."""
    changes: Changes
    """The changes in the outlines of the target."""
    published: bool


def train(config: TrainConfig) -> tuple[str, Bundle, list[Row]]:
    """Train one network and put it into the bundle. The same configuration resumes its run.

    Returns:
        The name of the run (the first member's run if the network has several members), the bundle,
        and the figures of every epoch.

    Raises:
        ConfigurationError: a set, the bundle, the weights or the storage cannot be used.
    """
    config = replace(config, sources=tuple(map(anchored, config.sources)))
    place = open_place(str(config.bundle))  # fails now rather than after the training
    data = on_a_worker(config.workers, described_sets, config.sources)
    known = _start(config)
    recipe = config.book.detector if config.role == DETECTOR else config.book.segmenter
    preprocessing = config.book.preprocessing
    described = recipe.described() | {"roi_scale": preprocessing.roi_scale}
    firsts = _started(config.start, recipe) if config.start else []
    if config.start:
        described |= {"start": bundles.load(config.start).networks[SOURCE_ONLY].digest}

    def read() -> tuple[Crops, Crops]:
        """The crops to learn from and to validate on. The sets are opened on the calling worker."""
        labelled = [labelled_set(spec) for spec in config.sources]
        crops = batches.join(
            [
                batches.frames(s, recipe.side)
                if config.role == DETECTOR
                else batches.disc_crops(s, recipe.side, roi_scale=preprocessing.roi_scale)
                for s in labelled
            ]
        )
        learn, validate = batches.split(crops.persons)
        return crops.take(learn), crops.take(validate)

    members = members_of(recipe)
    firsts = firsts or [first_weights(member, config) for member in members]
    found = [
        _train_member(member, config, read, first, (*data, described.get("start")))
        for member, first in zip(members, firsts, strict=True)
    ]
    name = found[0][0]
    weights, history = _joined([w for _, w, _ in found]), _mean_history([h for *_, h in found])
    network = Network(_config_of(recipe), weights, described, data, scores_of(history))
    if config.role == DETECTOR:
        calibration, shares = on_a_worker(config.workers, _calibrated, network, config, recipe)
        network = replace(network, scores=network.scores | rounded(shares))
        known = replace(known, thresholds=replace(known.thresholds, confidence=calibration))
    trained = known.with_network(config.role, network)
    if config.role == SOURCE_ONLY:
        trained = trained.without(ADAPTED)  # it was adapted from the replaced weights
    with written(place) as folder:
        bundles.save(trained, folder)
        curves.save(history, folder, config.role)
    return name, trained, history


def _train_member(
    recipe: Recipe,
    config: TrainConfig,
    read: Callable[[], tuple[Crops, Crops]],
    first_weights: dict[str, Tensor],
    decisive: tuple[Any, ...],
) -> tuple[str, dict[str, Tensor], list[Row]]:
    """Train one network; return the run's name, the weights and the figures of every epoch."""
    scale = config.book.preprocessing.roi_scale

    def make_learner() -> SourceLearner:
        context = ray.train.get_context()
        network = networks.build(recipe.network)
        network.load_state_dict(first_weights)
        # A quarter faster on a CPU: 0.77 s instead of 0.99 s per step of 16 crops.
        network = network.to(memory_format=torch.channels_last)
        return SourceLearner(
            loop.synchronised(network),
            recipe,
            *read(),
            rank=context.get_world_rank(),
            world=context.get_world_size(),
        )

    described = recipe.described() | {"roi_scale": scale}
    name = training_name(config, described, decisive)
    state, history = loop.fit(
        make_learner, recipe.epochs, name=name, storage=config.storage, workers=config.workers
    )
    return name, averaged_weights(state), history


def members_of(recipe: Recipe) -> list[Recipe]:
    """One recipe per member, with seeds that count up from the recipe's own."""
    return [replace(recipe, seed=recipe.seed + i, members=1) for i in range(recipe.members)]


def _config_of(recipe: Recipe) -> NetworkConfig:
    if recipe.members > 1 and isinstance(recipe.network, DeepLabConfig):
        return EnsembleConfig(recipe.network, recipe.members)
    return recipe.network


def _joined(weights: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The members' weights as those of their ensemble; a single member's stay as they are."""
    if len(weights) == 1:
        return weights[0]
    return {f"members.{i}.{k}": v for i, each in enumerate(weights) for k, v in each.items()}


def _mean_history(histories: list[list[Row]]) -> list[Row]:
    """The figures of each epoch, averaged over the members."""
    return [
        {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        | {"epoch": rows[0]["epoch"]}
        for rows in zip(*histories, strict=True)
    ]


def adapt(config: AdaptConfig) -> Adaptation:
    """Adapt a bundle to the targets, and publish the adapted bundle if it passes the gate.

    The same configuration resumes its run.

    Raises:
        ConfigurationError: a set, the bundle or the storage cannot be used, or too few pictures of
            the target can.
    """
    sources, targets = (tuple(map(anchored, sets)) for sets in (config.sources, config.targets))
    config = replace(config, sources=sources, targets=targets)
    storage, to = (open_place(str(where)) for where in (config.storage, config.to))
    start = bundles.load(config.bundle)
    if SOURCE_ONLY not in start.networks:
        raise BundleError(f"{config.bundle} has no source-only segmenter: run jobs/train.py first")
    source_only = start.networks[SOURCE_ONLY]
    recipe = config.recipe
    described = recipe.described() | {
        "precropped": config.precropped,
        "source_only": source_only.digest,
    }
    data = on_a_worker(config.workers, described_sets, config.sources)
    target = on_a_worker(
        config.workers, read_target, config.targets, start, precropped=config.precropped
    )
    if len(target.crops) < gate.FEWEST:
        raise ConfigurationError(
            f"the target has {len(target.crops)} usable picture, and the gate needs"
            f" {gate.FEWEST} or more to see a spread of vCDR: give a set with more photographs of"
            " the camera as --target"
        )
    data += target.described
    pictures = ray.put(target.crops)  # once for all workers and the gate

    def make_learner() -> AdaptationLearner:
        context = ray.train.get_context()
        loop.seed_generators(recipe.seed)
        discriminator = Discriminator(patch=recipe.discriminator == "patch")
        return AdaptationLearner(
            loop.synchronised(source_only.build()),
            loop.synchronised(discriminator),
            recipe,
            *_source(config, start),
            ray.get(pictures),
            thresholds=start.thresholds,
            rank=context.get_world_rank(),
            world=context.get_world_size(),
        )

    name = run_name(ADAPTED, described, data)
    state, history = loop.fit(
        make_learner, recipe.epochs, name=name, storage=config.storage, workers=config.workers
    )
    network = Network(
        source_only.config, averaged_weights(state), described, data, scores_of(history)
    )
    # Ray passes the referenced crops to the task.
    checks, changed = on_a_worker(config.workers, _judged, config, start, network, pictures)  # type: ignore[arg-type]
    network = replace(network, scores=network.scores | {"gate": gate.report(checks)})
    adapted = start.with_network(ADAPTED, network)
    with written(storage.join(name)) as folder:
        curves.save(history, folder, ADAPTED)
    if not all(check.passed for check in checks):
        return Adaptation(name, start, history, checks, target, changed, published=False)
    with written(to) as folder:
        if to.uri != place_at(str(config.bundle)).uri:
            bundles.copy(config.bundle, folder)
        bundles.save(adapted, folder)
        curves.save(history, folder, ADAPTED)
    return Adaptation(name, adapted, history, checks, target, changed, published=True)


def save_summary(storage: Path | str, name: str, **summary: Any) -> str:
    """Write `summary.json` beside the checkpoints of a run, for other programs.

    Args:
        storage: as given to `train` or `adapt`.
        name: of the run.
        summary: values of the file; NaN becomes null.

    Returns:
        The path or URI of the file.
    """
    summary = json.loads(json.dumps({"run": name} | summary), parse_constant=lambda _: None)
    place = open_place(str(storage)).join(name)
    place.put("summary.json", json.dumps(summary, indent=2).encode() + b"\n")
    return f"{storage}/{name}/summary.json"


def _source(config: AdaptConfig, start: Bundle) -> tuple[Crops, Crops]:
    """Open the source; return the crops to learn from and to validate on."""
    labelled = [labelled_set(spec) for spec in config.sources]
    side, scale = start.preprocessing.roi_side, start.preprocessing.roi_scale
    source = batches.join([batches.disc_crops(s, side, roi_scale=scale) for s in labelled])
    learn, validate = batches.split(source.persons)
    return source.take(learn), source.take(validate)


def _judged(
    config: AdaptConfig, start: Bundle, adapted: Network, target: Crops
) -> tuple[tuple[gate.Check, ...], Changes]:
    _, validation = _source(config, start)
    source_only = start.networks[SOURCE_ONLY]
    judgement = gate.judge(
        _built(source_only), _built(adapted), validation, target, start.thresholds
    )
    return judgement.checks, changes(judgement, target)


def _built(network: Network) -> nn.Module:
    """Build the network, on the GPU if there is one."""
    return network.build().to("cuda" if torch.cuda.is_available() else "cpu")


def training_name(config: TrainConfig, described: dict[str, Any], decisive: tuple[Any, ...]) -> str:
    """The name of one network's run, by the content of an --encoder file, not by its path."""
    encoder = hashlib.sha256(config.encoder.read_bytes()).hexdigest() if config.encoder else None
    return run_name(config.role, described, decisive, encoder, config.from_scratch)


def run_name(role: str, *decisive: Any) -> str:
    """The name of a run. The same recipe, data and start give the same name, so that it resumes."""
    text = json.dumps(decisive, sort_keys=True, default=str)
    return f"{role}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def averaged_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that a training publishes: their running average."""
    average = state["average"]
    return {
        k.removeprefix("module."): v.contiguous() for k, v in average.items() if k != "n_averaged"
    }


def scores_of(history: list[Row]) -> dict[str, float]:
    """The figures of the last epoch, rounded, without the time."""
    return rounded({k: v for k, v in history[-1].items() if k != "seconds"})


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Figures rounded to four places, as a bundle stores them."""
    return {k: round(v, 4) for k, v in figures.items()}


def _calibrated(
    detector: Network, config: TrainConfig, recipe: Recipe
) -> tuple[Calibration, dict[str, float]]:
    """Calibrate the detector's confidence on its validation frames."""
    labelled = [labelled_set(spec) for spec in config.sources]
    frames = batches.join([batches.frames(each, recipe.side) for each in labelled])
    validation = frames.take(batches.split(frames.persons)[1])
    return certainty.calibrate(_built(detector), validation, recipe)


def _start(config: TrainConfig) -> Bundle:
    """The bundle in the folder, or an empty one, with the settings of this training."""
    wanted, levels = config.book.preprocessing, config.book.thresholds
    if not bundles.exists(config.bundle):
        return Bundle({}, preprocessing=wanted, thresholds=levels)
    known = bundles.load(config.bundle)
    if config.role == DETECTOR:
        preprocessing = replace(known.preprocessing, detector_side=wanted.detector_side)
        return replace(known, preprocessing=preprocessing)
    preprocessing = replace(wanted, detector_side=known.preprocessing.detector_side)
    found = known.thresholds
    levels = replace(levels, disc_found=found.disc_found, confidence=found.confidence)
    return replace(known, preprocessing=preprocessing, thresholds=levels)


def _started(folder: Path | str, recipe: Recipe) -> list[dict[str, Tensor]]:
    """The weights of each member of a bundle's source-only segmenter."""
    start = bundles.load(folder).networks.get(SOURCE_ONLY)
    if start is None or start.config != _config_of(recipe):
        raise BundleError(
            f"--start {folder}: it has no segmenter of the recipe's architecture and number of"
            " members; give another bundle or recipe"
        )
    return [member.state_dict() for member in networks.members(start.build())]


def first_weights(recipe: Recipe, config: TrainConfig) -> dict[str, Tensor]:
    """Initial weights: drawn from the recipe's seed, the encoder's from ImageNet.

    They are made on the driver, so that a missing network connection is reported once, at once.

    Raises:
        ConfigurationError: the ImageNet weights cannot be downloaded or read.
    """
    loop.seed_generators(recipe.seed)
    network = networks.build(recipe.network)
    if isinstance(network, networks.DeepLab) and not config.from_scratch:
        try:
            networks.start_from_imagenet(network, config.encoder)
        except OSError as error:
            raise ConfigurationError(
                f"the ImageNet weights could not be loaded ({error}): give a file with --encoder,"
                " or --from-scratch"
            ) from error
    return network.state_dict()
