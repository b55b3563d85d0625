"""What the paper's tables hold: target-supervised, source-only, adapted, ensemble on labelled sets.

All is scored in the original frame: a predicted mask is restored from its ROI, then compared.
An eye where no disc was found has Dice 0 against the experts' and no vCDR; such eyes are counted.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fundus.anatomy import biomarkers, scores
from fundus.anatomy.labels import cup_of, disc_of
from fundus.anatomy.scores import Summary
from fundus.datasets.samples import LabelledSet, Sample
from fundus.errors import ConfigurationError
from fundus.evaluation.sheet import Tile, draw_sheet
from fundus.images import roi
from fundus.images.roi import Roi
from fundus.models.bundle import ADAPTED, SOURCE_ONLY
from fundus.models.predictor import Predictor

log = logging.getLogger(__name__)

TARGET_SUPERVISED, ENSEMBLE = "target-supervised", "ensemble"
ROW_OF_ROLE = {SOURCE_ONLY: "source-only", ADAPTED: "adapted"}
WORST = 10


@dataclass(frozen=True)
class Eye:
    """One model's answer for one eye; None where undefined or unlabelled."""

    set: str
    model: str
    id: str
    disc_found: bool
    """Both the detector (where it was asked) and the segmenter found a disc."""
    disc_dice: float | None
    cup_dice: float | None
    vcdr: float | None
    """Predicted."""
    vcdr_true: float | None
    """The experts'."""
    glaucoma: bool | None


@dataclass(frozen=True)
class Row:
    """One model on one set: measures with their 95 % bootstrap intervals over eyes and counts."""

    set: str
    model: str
    eyes: int
    no_disc: int
    """Eyes where no disc was found: Dice 0."""
    no_vcdr: int
    """Eyes without a predicted vCDR (no disc or no cup): in neither MAE, bias nor AUC."""
    disc_dice: Summary
    cup_dice: Summary
    vcdr_mae: Summary
    vcdr_bias: Summary
    """Predicted minus true: negative where cups are drawn too small."""
    auc: Summary
    """Of the predicted vCDR against the glaucoma label."""


@dataclass(frozen=True)
class SetEvaluation:
    """All models on one set."""

    name: str
    rows: tuple[Row, ...]
    eyes: tuple[Eye, ...]
    sheets: dict[str, np.ndarray]
    """By model, the worst eyes' overlays: HWC uint8 RGB."""


@dataclass(frozen=True)
class _Seen:
    """Where a model looked and what it drew there."""

    sample: Sample
    region: Roi | None
    mask: np.ndarray | None


def evaluate(
    labelled: LabelledSet,
    predictor: Predictor,
    supervised: Predictor | None = None,
    *,
    name: str,
    precropped: bool,
) -> SetEvaluation:
    """Score a bundle's models on a labelled set, under the name that the tables shall show.

    supervised: a bundle trained on the target's labels, its `source_only` network being the row
    "target-supervised"; it sees the ROIs that the first bundle's detector found.
    precropped: each picture is a disc crop already, and the detector is left out.
    ConfigurationError where the set holds neither masks nor glaucoma labels, a file cannot be read,
    or the bundle lacks a network that is needed.
    """
    if all(not sample.structures and sample.glaucoma is None for sample in labelled.samples):
        raise ConfigurationError(f"{labelled.name}: no labels to score against")
    if not predictor.segmenters:
        raise ConfigurationError("the bundle has no segmenter to evaluate")
    eyes: list[Eye] = []
    seen: dict[tuple[str, str], _Seen] = {}
    for number, sample in enumerate(labelled.samples, start=1):
        image, truth = _read(sample)
        region = predictor.place(image, precropped=precropped).roi
        for model, mask in segment(image, region, predictor, supervised).items():
            eyes.append(_score(sample, truth, region, mask, image.shape[:2], name, model))
            seen[model, sample.id] = _Seen(sample, region, mask)
        if number % 10 == 0 or number == len(labelled.samples):
            log.info("%s: %d of %d eyes", name, number, len(labelled.samples))
    models = tuple(dict.fromkeys(eye.model for eye in eyes))
    of_model = {model: [eye for eye in eyes if eye.model == model] for model in models}
    return SetEvaluation(
        name=name,
        rows=tuple(summarise(of_model[model]) for model in models),
        eyes=tuple(eyes),
        sheets={
            model: draw_sheet(
                [_tile(eye, seen[model, eye.id]) for eye in found],
                f"{name}, {model}: the {len(found)} worst of {len(of_model[model])}",
            )
            for model in models
            if (found := worst(of_model[model]))
        },
    )


def segment(
    image: np.ndarray, region: Roi | None, predictor: Predictor, supervised: Predictor | None
) -> dict[str, np.ndarray | None]:
    """Each model's clean mask, (side, side) uint8 {0, 1, 2} in the ROI frame, in the tables' order.

    image: HWC uint8 RGB; region: the ROI, or None where no disc was found: then every mask is None.
    The ensemble is the mean over all maps of source-only and adapted, where the bundle has both.
    """
    asked = [(ROW_OF_ROLE[role], predictor, role) for role in predictor.segmenters]
    if supervised:
        asked.insert(0, (TARGET_SUPERVISED, supervised, SOURCE_ONLY))
    has_ensemble = len(predictor.segmenters) > 1
    if region is None:
        return dict.fromkeys([model for model, _, _ in asked] + [ENSEMBLE] * has_ensemble)
    masks: dict[str, np.ndarray | None] = {}
    maps = []
    for model, chosen, role in asked:
        crops = roi.crop(image, region, chosen.side, mirrored=True)[None]
        answers = chosen.segment(crops, networks=(role,))[0]
        masks[model] = _mask_of(answers, chosen)
        if chosen is predictor:
            maps.append(answers)
    if has_ensemble:
        masks[ENSEMBLE] = _mask_of(np.concatenate(maps), predictor)
    return masks


def summarise(eyes: Sequence[Eye]) -> Row:
    """One model's row over the eyes of one set (at least one)."""
    errors = [scores.vcdr_error(eye.vcdr, eye.vcdr_true) for eye in eyes]
    return Row(
        set=eyes[0].set,
        model=eyes[0].model,
        eyes=len(eyes),
        no_disc=sum(not eye.disc_found for eye in eyes),
        no_vcdr=sum(eye.vcdr is None for eye in eyes),
        disc_dice=scores.summarise_mean([eye.disc_dice for eye in eyes]),
        cup_dice=scores.summarise_mean([eye.cup_dice for eye in eyes]),
        vcdr_mae=scores.summarise_mean([None if e is None else abs(e) for e in errors]),
        vcdr_bias=scores.summarise_mean(errors),
        auc=scores.summarise_auc([eye.glaucoma for eye in eyes], [eye.vcdr for eye in eyes]),
    )


def worst(eyes: Sequence[Eye], count: int = WORST) -> list[Eye]:
    """The eyes of lowest cup Dice (of lowest disc Dice where no cup was labelled), worst first."""
    measure = "cup_dice" if any(eye.cup_dice is not None for eye in eyes) else "disc_dice"
    scored = [eye for eye in eyes if getattr(eye, measure) is not None]
    return sorted(scored, key=lambda eye: getattr(eye, measure))[:count]


def _read(sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture, HWC uint8 RGB, and the experts' mask, HW uint8 {0, 1, 2}, where it has one."""
    return sample.read_image(), sample.read_mask() if sample.structures else None


def _mask_of(maps: np.ndarray, predictor: Predictor) -> np.ndarray:
    return predictor.thresholds.draw(maps.mean(axis=0)).mask


def _score(
    sample: Sample,
    truth: np.ndarray | None,
    region: Roi | None,
    mask: np.ndarray | None,
    size: tuple[int, ...],
    name: str,
    model: str,
) -> Eye:
    """`mask` is that of the ROI `region`, both None without a disc; `size` is the frame's."""
    predicted = np.zeros(size, np.uint8)
    if mask is not None and region is not None:
        predicted = roi.restore(mask, region, *size)
    eye = Eye(
        set=name,
        model=model,
        id=sample.id,
        disc_found=bool(disc_of(predicted).any()),
        disc_dice=None,
        cup_dice=None,
        vcdr=biomarkers.vcdr(predicted),
        vcdr_true=None,
        glaucoma=sample.glaucoma,
    )
    if truth is None:
        return eye
    eye = replace(eye, disc_dice=scores.dice(disc_of(predicted), disc_of(truth)))
    if "cup" not in sample.structures:
        return eye
    return replace(
        eye,
        cup_dice=scores.dice(cup_of(predicted), cup_of(truth)),
        vcdr_true=biomarkers.vcdr(truth),
    )


def _tile(eye: Eye, seen: _Seen, side: int = 384) -> Tile:
    image, truth = _read(seen.sample)
    region = seen.region or _region_of(truth, image.shape[:2])
    return Tile(
        picture=roi.crop(image, region, side),
        truth=None if truth is None else roi.crop_mask(truth, region, side),
        predicted=seen.mask,
        caption=(
            eye.id if eye.disc_found else f"{eye.id}: no disc found",
            f"Dice disc {_number(eye.disc_dice)}, cup {_number(eye.cup_dice)}",
            f"vCDR experts {_number(eye.vcdr_true)}, predicted {_number(eye.vcdr)}",
        ),
    )


def _region_of(truth: np.ndarray | None, size: tuple[int, ...]) -> Roi:
    """Where to look when nothing was found: around the experts' disc, else the whole frame."""
    if truth is None or not disc_of(truth).any():
        return roi.whole(*size)
    rows, columns = np.nonzero(disc_of(truth))
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    return roi.around(columns.mean() + 0.5, rows.mean() + 0.5, 2.0 * extent)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
