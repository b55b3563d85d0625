"""Recipes: the choices of a training, checked when they are made. A variant is a function.

`paper` has the paper's values, for a machine with GPUs; `quick` and `laptop` are for CPUs.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from fundus.augmentation.augment import NAMED as AUGMENTATIONS
from fundus.errors import ConfigurationError
from fundus.models.bundle import ADAPTED, DETECTOR, SOURCE_ONLY, STUDENT, Preprocessing
from fundus.models.networks import DeepLabConfig, NetworkConfig, UNetConfig
from fundus.models.thresholds import Thresholds

SCHEDULES = ("step", "one-cycle", "constant")
METHODS = ("output-adversarial", "self-training")
SAMPLINGS = ("as-is", "balanced", "as-target")


@dataclass(frozen=True)
class Recipe:
    """A supervised training: detector or segmenter on a labelled source."""

    name: str
    """Name of the recipe, stored with the figures."""
    network: NetworkConfig
    """The network's architecture."""
    side: int
    """Side of the network's input, pixels."""
    epochs: int
    """Passes over the source."""
    batch: int
    """Pictures per step, over all workers."""
    learning_rate: float = 1e-3
    """Adam's learning rate: the first with `step`, the highest with `one-cycle`."""
    schedule: Literal["step", "one-cycle", "constant"] = "one-cycle"
    """`step` is the paper's x 0.8 every 20 epochs."""
    augmentation: str = "paper"
    """One of fundus.augmentation.augment.NAMED."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the forward pass on a GPU. Weights, losses, optimisers and CPUs always use float32."""
    balance_vcdr: bool = False
    """Draw source pictures evenly over vCDR."""
    balance_sets: bool = False
    """Draw each data set in proportion to the square root of its count."""
    conventions: bool = False
    """Learn an offset per data set beside the network, so that the network learns the consensus."""
    draws: int = 0
    """Pictures per epoch; 0 for as many as the source has."""
    cup_warp: float = 0.0
    """Probability of the anatomical warp, which widens or narrows a cup inside its disc."""
    without_disc: float = 0.0
    """Share of pictures whose disc is removed, as negatives for the detector."""
    cross_entropy: float = 0.0
    """Weight of cross-entropy beside equation 1; the paper has none."""
    average: float = 0.0
    """Decay of the running average of the weights, which is published; 0 for the last weights."""
    seed: int = 0
    """Determines initial weights, order and augmentation."""
    members: int = 1
    """Segmenters in an ensemble, trained from consecutive seeds on the same source."""

    def __post_init__(self) -> None:
        _check_positive(self, "side", "epochs", "batch", "learning_rate", "members")
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        _check_share(self, "cup_warp", "without_disc", "average")
        if self.members > 1 and not isinstance(self.network, DeepLabConfig):
            raise ConfigurationError(
                "only a segmenter with DeepLab can have several members: give members=1"
            )
        if self.side % 16:
            raise ConfigurationError(
                f"side is {self.side}; the networks halve it four times: give a multiple of 16"
            )

    def described(self) -> dict[str, Any]:
        """The values in a form that JSON can store, for the bundle."""
        return asdict(self)


@dataclass(frozen=True)
class AdaptationRecipe:
    """Adaptation of a trained segmenter to unlabelled pictures of another camera."""

    name: str
    """Name of the recipe, stored with the figures."""
    method: Literal["output-adversarial", "self-training"] = "output-adversarial"
    """`output-adversarial` is the paper's; `self-training` learns from a mean teacher's labels."""
    discriminator: Literal["global", "patch"] = "patch"
    """`global` is the paper's, `patch` pOSAL's."""
    epochs: int = 4
    """Passes over the source."""
    batch: int = 8
    """Pictures per step of each domain, over all workers."""
    learning_rate: float = 1e-4
    """Adam's learning rate for the segmenter."""
    schedule: Literal["step", "one-cycle", "constant"] = "constant"
    """As in `Recipe`."""
    adversarial_weight: float = 0.01
    """Weight of the adversarial loss beside the segmentation loss; 0 is the control."""
    discriminator_optimiser: Literal["sgd", "adam"] = "adam"
    """The paper's SGD leaves the discriminator almost untrained."""
    discriminator_rate: float = 1e-4
    """Learning rate of the discriminator."""
    pseudo_weight: float = 1.0
    """Weight of the loss on the teacher's labels beside that on the source's (self-training)."""
    freeze_batch_norm: bool = True
    """Keep batch-norm statistics as they are at the start. Learning them anew from small batches
    would be an adaptation in itself."""
    target_batch_norm: float = 0.0
    """Share by which batch-norm statistics move from source to target before the first step."""
    target_look: float = 0.0
    """Share of source pictures that get the colours or the light of a target picture."""
    cup_warp: float = 0.0
    """As in `Recipe`."""
    cross_entropy: float = 0.0
    """As in `Recipe`."""
    sampling: Literal["as-is", "balanced", "as-target"] = "as-is"
    """Draw source pictures as they are, evenly over vCDR, or like the vCDR of the target."""
    balance_sets: bool = False
    """As in `Recipe`."""
    draws: int = 0
    """As in `Recipe`."""
    average: float = 0.0
    """As in `Recipe`; the mean teacher of self-training is this average."""
    augmentation: str = "paper"
    """One of fundus.augmentation.augment.NAMED, for both domains."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """As in `Recipe`."""
    seed: int = 0
    """Determines the discriminator's initial weights, order and augmentation."""

    def __post_init__(self) -> None:
        _check_positive(self, "epochs", "batch", "learning_rate", "discriminator_rate")
        _check_choice("method", self.method, METHODS)
        _check_choice("discriminator", self.discriminator, ("global", "patch"))
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("sampling", self.sampling, SAMPLINGS)
        _check_choice("discriminator_optimiser", self.discriminator_optimiser, ("sgd", "adam"))
        _check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        _check_share(self, "target_batch_norm", "target_look", "cup_warp", "average")
        if min(self.adversarial_weight, self.pseudo_weight) < 0:
            raise ConfigurationError("adversarial_weight and pseudo_weight must be 0 or more")

    def described(self) -> dict[str, Any]:
        """The values in a form that JSON can store, for the bundle."""
        return asdict(self)


@dataclass(frozen=True)
class RecipeBook:
    """The recipes of all trainings under one name, and the preprocessing that they share."""

    detector: Recipe
    segmenter: Recipe
    adaptation: AdaptationRecipe
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    thresholds: Thresholds = field(default_factory=Thresholds)
    """Where the segmenter's maps become masks. The detector's confidence is calibrated later."""


def paper() -> RecipeBook:
    """The values of the paper (section 3) and, where it gives none, of the released code."""
    return RecipeBook(
        detector=Recipe("paper", UNetConfig(), side=640, epochs=300, batch=8, schedule="step"),
        segmenter=Recipe("paper", DeepLabConfig(), side=512, epochs=300, batch=8, schedule="step"),
        adaptation=AdaptationRecipe(
            "paper",
            discriminator="global",
            epochs=40,
            batch=1,
            learning_rate=1e-3,
            schedule="step",
            discriminator_optimiser="sgd",
            discriminator_rate=1e-6,
            adversarial_weight=1.0,
        ),
        preprocessing=Preprocessing(detector_side=640, roi_side=512),
    )


def quick() -> RecipeBook:
    """Small inputs and slim networks: five to ten minutes per training on one CPU core."""
    return RecipeBook(
        detector=Recipe(
            "quick",
            DeepLabConfig(outputs=1, aspp_channels=64),
            side=192,
            epochs=24,
            batch=16,
            augmentation="strong",
            without_disc=0.3,
        ),
        segmenter=Recipe(
            "quick",
            DeepLabConfig(aspp_channels=64),
            side=128,
            epochs=24,
            batch=16,
            augmentation="moderate",
            balance_vcdr=True,
            cup_warp=0.4,
            cross_entropy=0.5,
        ),
        adaptation=AdaptationRecipe(
            "quick",
            method="output-adversarial",
            epochs=2,
            batch=16,
            learning_rate=2e-4,
            augmentation="moderate",
            sampling="balanced",
            target_look=0.5,
            target_batch_norm=0.25,
            cup_warp=0.4,
            cross_entropy=0.5,
            average=0.95,
        ),
        preprocessing=Preprocessing(detector_side=192, roi_side=128, roi_scale=1.5),
        # At 0.5, discs are too large on cameras that were not learned from. Ovals improve both
        # structures on the source itself (docs/experiments.md, O3 and O4).
        thresholds=Thresholds(disc=0.65, ovals=True),
    )


def laptop() -> RecipeBook:
    """The recipe of the bundle in the package: an ensemble of three, for several labelled sets.

    Its values were chosen by the mean over four cameras, each left out in turn
    (docs/experiments.md, L0 to W48).
    """
    book = quick()
    return replace(
        book,
        segmenter=replace(
            book.segmenter,
            name="laptop",
            members=3,
            epochs=48,
            draws=512,
            cup_warp=0.8,
            balance_sets=True,
            average=0.98,
        ),
        adaptation=replace(book.adaptation, name="laptop", balance_sets=True),
        thresholds=replace(book.thresholds, disc=0.5),
    )


BOOKS = {"paper": paper, "quick": quick, "laptop": laptop}


def book_named(name: str) -> RecipeBook:
    """The recipe book of this name; ConfigurationError if there is none."""
    _check_choice("recipe", name, BOOKS)
    return BOOKS[name]()


def changed(book: RecipeBook, role: str, changes: Sequence[str]) -> RecipeBook:
    """Change the recipe of one role by `field=value` texts; the result is checked as usual.

    Args:
        book: the recipe book.
        role: `detector`, `source_only` or `adapted`; a `student` has the recipe of the segmenter.
        changes: the values are JSON or plain words: `epochs=30`, `balance_vcdr=true`,
            `augmentation=strong`, `network.aspp_channels=256`. A changed `side` changes the
            preprocessing too.

    Raises:
        ConfigurationError: an unknown field, or a value of the wrong type or range.
    """
    entry, side = {
        DETECTOR: ("detector", "detector_side"),
        SOURCE_ONLY: ("segmenter", "roi_side"),
        ADAPTED: ("adaptation", ""),
        STUDENT: ("segmenter", "roi_side"),
    }[role]
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigurationError(f"--change {change!r}: give field=value")
        recipe = _put(getattr(book, entry), name, _value(text))
        book = replace(book, **{entry: recipe})
        if name == "side":
            preprocessing = replace(book.preprocessing, **{side: recipe.side})
            book = replace(book, preprocessing=preprocessing)
    return book


def _put(recipe: Any, name: str, value: Any) -> Any:
    """Replace one field of a dataclass, or a field of a field, by a value of the same type."""
    head, _, rest = name.partition(".")
    if head not in {f.name for f in fields(recipe)}:
        known = ", ".join(f.name for f in fields(recipe))
        raise ConfigurationError(f"--change {name}: {type(recipe).__name__} has {known}")
    now = getattr(recipe, head)
    if rest:
        value = _put(now, rest, value)
    elif isinstance(now, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif isinstance(value, list):
        value = tuple(value)
    if now is not None and type(value) is not type(now):
        raise ConfigurationError(f"--change {name}: {value!r} is not of the same type as {now!r}")
    return replace(recipe, **{head: value})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _check_positive(recipe: Any, *names: str) -> None:
    for name in names:
        if getattr(recipe, name) <= 0:
            raise ConfigurationError(f"{name} is {getattr(recipe, name)}; give more than 0")


def _check_share(recipe: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(recipe, name) <= 1:
            raise ConfigurationError(f"{name} is {getattr(recipe, name)}; give 0 to 1")


def _check_choice(name: str, value: str, known: Any) -> None:
    if value not in known:
        raise ConfigurationError(f"{name} is {value!r}; give one of {', '.join(known)}")
