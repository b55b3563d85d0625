"""Whole trainings, from data to bundle: what `jobs/train.py` and `jobs/adapt.py` call."""

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
from fundus.storage.mirror import written
from fundus.storage.places import open_place, place_at
from fundus.training import certainty, curves, gate, loop
from fundus.training.adaptation import AdaptationLearner
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
    """Folder or s3:// URI that the network is put into; made if it is not there."""
    book: RecipeBook
    """Recipes and preprocessing."""
    encoder: Path | None = None
    """ImageNet weights of the encoder, a local safetensors file; None: from the library."""
    from_scratch: bool = False
    """Start without ImageNet weights."""
    start: Path | str | None = None
    """Go on from the segmenter of this bundle, which has as many members, instead of ImageNet."""
    storage: Path | str = "runs"
    """Where checkpoints are kept: a folder that all workers mount, or an s3:// URI."""
    workers: Workers = field(default_factory=Workers)

    def __post_init__(self) -> None:
        if self.role not in (DETECTOR, SOURCE_ONLY):
            raise ConfigurationError(f"train {DETECTOR} or {SOURCE_ONLY}, not {self.role!r}")
        if self.encoder and not self.encoder.is_file():
            raise ConfigurationError(f"--encoder {self.encoder}: no such file")
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
    """Folder or s3:// URI of the adapted bundle; may be the same."""
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
    """What an adaptation came to."""

    run: str
    """Its name: the folder below the storage."""
    bundle: Bundle
    """The bundle in force: the adapted one if it was published, else the one it started from."""
    history: list[Row]
    checks: tuple[gate.Check, ...]
    target: Target
    """The pictures that were adapted to, and how many were left out."""
    published: bool


def train(config: TrainConfig) -> tuple[str, Bundle, list[Row]]:
    """Train one network and put it into the bundle.

    The run's name (the first member's, where a network has several), the bundle and every epoch's
    figures.
    """
    config = replace(config, sources=tuple(map(anchored, config.sources)))
    place = open_place(str(config.bundle))  # refused now rather than after the training
    data = on_a_worker(config.workers, described_sets, config.sources)
    known = _start(config)
    recipe = config.book.detector if config.role == DETECTOR else config.book.segmenter
    preprocessing = config.book.preprocessing
    described = recipe.described() | {"roi_scale": preprocessing.roi_scale}
    firsts = _started(config.start, recipe) if config.start else []
    if config.start:
        described |= {"start": bundles.load(config.start).networks[SOURCE_ONLY].digest}

    def read() -> tuple[Crops, Crops]:
        """To learn from, and to validate on; where it is called, the sets are opened."""
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
        trained = trained.without(ADAPTED)  # adapted from weights that are no longer there
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
    """One training of one network: its name, the weights that it keeps, every epoch's figures."""
    scale = config.book.preprocessing.roi_scale

    def make_learner() -> SourceLearner:
        context = ray.train.get_context()
        network = networks.build(recipe.network)
        network.load_state_dict(first_weights)
        # A quarter faster on a CPU, measured: 0.77 s per step of 16 crops for 0.99 s.
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
    return name, kept(state), history


def members_of(recipe: Recipe) -> list[Recipe]:
    """The recipe once for each member, seeds counted up from its own."""
    return [replace(recipe, seed=recipe.seed + i, members=1) for i in range(recipe.members)]


def _config_of(recipe: Recipe) -> NetworkConfig:
    if recipe.members > 1 and isinstance(recipe.network, DeepLabConfig):
        return EnsembleConfig(recipe.network, recipe.members)
    return recipe.network


def _joined(weights: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The members' weights as those of their ensemble; a single one's as they are."""
    if len(weights) == 1:
        return weights[0]
    return {f"members.{i}.{k}": v for i, each in enumerate(weights) for k, v in each.items()}


def _mean_history(histories: list[list[Row]]) -> list[Row]:
    """Each epoch's figures, the mean over members."""
    return [
        {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        | {"epoch": rows[0]["epoch"]}
        for rows in zip(*histories, strict=True)
    ]


def adapt(config: AdaptConfig) -> Adaptation:
    """Adapt a bundle to the targets; publish the adapted bundle if it passes the gate."""
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
    network = Network(source_only.config, kept(state), described, data, scores_of(history))
    # Ray gives the task what the reference stands for.
    checks = on_a_worker(config.workers, _judged, config, start, network, pictures)  # type: ignore[arg-type]
    network = replace(network, scores=network.scores | {"gate": gate.report(checks)})
    adapted = start.with_network(ADAPTED, network)
    with written(storage.join(name)) as folder:
        curves.save(history, folder, ADAPTED)
    if not all(check.passed for check in checks):
        return Adaptation(name, start, history, checks, target, published=False)
    with written(to) as folder:
        if to.uri != place_at(str(config.bundle)).uri:
            bundles.copy(config.bundle, folder)
        bundles.save(adapted, folder)
        curves.save(history, folder, ADAPTED)
    return Adaptation(name, adapted, history, checks, target, published=True)


def save_summary(storage: Path | str, name: str, **told: Any) -> str:
    """Write how a run ended beside its checkpoints, for machines: `summary.json`; null for NaN.

    storage: as given to `train` or `adapt`; name: the run's. Returns the path or URI.
    """
    told = json.loads(json.dumps({"run": name} | told), parse_constant=lambda _: None)
    place = open_place(str(storage)).join(name)
    place.put("summary.json", json.dumps(told, indent=2).encode() + b"\n")
    return f"{storage}/{name}/summary.json"


def _source(config: AdaptConfig, start: Bundle) -> tuple[Crops, Crops]:
    """The source to learn from, and to validate on; the sets are opened here."""
    labelled = [labelled_set(spec) for spec in config.sources]
    side, scale = start.preprocessing.roi_side, start.preprocessing.roi_scale
    source = batches.join([batches.disc_crops(s, side, roi_scale=scale) for s in labelled])
    learn, validate = batches.split(source.persons)
    return source.take(learn), source.take(validate)


def _judged(
    config: AdaptConfig, start: Bundle, adapted: Network, target: Crops
) -> tuple[gate.Check, ...]:
    _, validation = _source(config, start)
    source_only = start.networks[SOURCE_ONLY]
    return gate.judge(_built(source_only), _built(adapted), validation, target, start.thresholds)


def _built(network: Network) -> nn.Module:
    """The network, on the GPU where there is one."""
    return network.build().to("cuda" if torch.cuda.is_available() else "cpu")


def training_name(config: TrainConfig, described: dict[str, Any], decisive: tuple[Any, ...]) -> str:
    """The name of one network's training; of an --encoder its content counts, not its path."""
    encoder = hashlib.sha256(config.encoder.read_bytes()).hexdigest() if config.encoder else None
    return run_name(config.role, described, decisive, encoder, config.from_scratch)


def run_name(role: str, *decisive: Any) -> str:
    """A training's name: the same for the same recipe, data and start, so that it resumes."""
    text = json.dumps(decisive, sort_keys=True, default=str)
    return f"{role}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def kept(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that a training keeps: the running average."""
    average = state["average"]
    return {
        k.removeprefix("module."): v.contiguous() for k, v in average.items() if k != "n_averaged"
    }


def scores_of(history: list[Row]) -> dict[str, float]:
    """The last epoch's figures, rounded, without the time."""
    return rounded({k: v for k, v in history[-1].items() if k != "seconds"})


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Figures to four places, as a bundle holds them."""
    return {k: round(v, 4) for k, v in figures.items()}


def _calibrated(
    detector: Network, config: TrainConfig, recipe: Recipe
) -> tuple[Calibration, dict[str, float]]:
    """The detector's confidence, on the frames that its training kept back to validate on."""
    labelled = [labelled_set(spec) for spec in config.sources]
    frames = batches.join([batches.frames(each, recipe.side) for each in labelled])
    validation = frames.take(batches.split(frames.persons)[1])
    return certainty.calibrate(_built(detector), validation, recipe)


def _start(config: TrainConfig) -> Bundle:
    """The bundle in the folder, or an empty one, with what this training sets in it."""
    wanted, levels = config.book.preprocessing, config.book.thresholds
    if not bundles.exists(config.bundle):
        return Bundle({}, preprocessing=wanted, thresholds=levels)
    known = bundles.load(config.bundle)
    if config.role == DETECTOR:
        kept = replace(known.preprocessing, detector_side=wanted.detector_side)
        return replace(known, preprocessing=kept)
    kept = replace(wanted, detector_side=known.preprocessing.detector_side)
    found = known.thresholds
    levels = replace(levels, disc_found=found.disc_found, confidence=found.confidence)
    return replace(known, preprocessing=kept, thresholds=levels)


def _started(folder: Path | str, recipe: Recipe) -> list[dict[str, Tensor]]:
    """The weights of each member of a bundle's source-only segmenter."""
    given = bundles.load(folder).networks.get(SOURCE_ONLY)
    if given is None or given.config != _config_of(recipe):
        raise BundleError(f"--start {folder}: no segmenter of the recipe's kind and members")
    return [member.state_dict() for member in networks.members(given.build())]


def first_weights(recipe: Recipe, config: TrainConfig) -> dict[str, Tensor]:
    """Where the training starts: drawn from the recipe's seed, the encoder from ImageNet.

    Here and not on the workers, so that a missing network connection is said once, and at once.
    """
    loop.seed_generators(recipe.seed)
    network = networks.build(recipe.network)
    if isinstance(network, networks.DeepLab) and not config.from_scratch:
        try:
            networks.start_from_imagenet(network, config.encoder)
        except OSError as error:
            raise ConfigurationError(
                f"the ImageNet weights could not be had ({error}); give a file with --encoder, or"
                " --from-scratch"
            ) from error
    return network.state_dict()
