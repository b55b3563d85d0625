"""The paper's tables: target-supervised, source-only, adapted and ensemble on labelled sets.

Masks are compared in original coordinates: a predicted mask is restored from its ROI first. An eye
without a detected disc has a Dice of 0 and no vCDR; such eyes are counted.
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
from fundus.field import roi
from fundus.field.roi import Roi
from fundus.models.bundle import ADAPTED, SOURCE_ONLY
from fundus.models.predictor import Predictor

log = logging.getLogger(__name__)

TARGET_SUPERVISED, ENSEMBLE = "target-supervised", "ensemble"
ROW_OF_ROLE = {SOURCE_ONLY: "source-only", ADAPTED: "adapted"}
WORST = 10


@dataclass(frozen=True)
class Eye:
    """The result of one model for one eye; None where undefined or unlabelled."""

    set: str
    model: str
    id: str
    disc_found: bool
    """Whether both the detector (unless precropped) and the segmenter found a disc."""
    disc_dice: float | None
    cup_dice: float | None
    vcdr: float | None
    """Predicted vCDR."""
    vcdr_true: float | None
    """vCDR of the experts' outlines."""
    glaucoma: bool | None


@dataclass(frozen=True)
class Row:
    """One model on one set: measures with their 95 % bootstrap intervals over eyes and counts."""

    set: str
    model: str
    eyes: int
    no_disc: int
    """Eyes without a detected disc, with a Dice of 0."""
    no_vcdr: int
    """Eyes without a predicted vCDR (no disc or no cup), left out of MAE, bias and AUC."""
    disc_dice: Summary
    cup_dice: Summary
    vcdr_mae: Summary
    vcdr_bias: Summary
    """Predicted minus true: negative if cups are too small."""
    auc: Summary
    """AUC of the predicted vCDR for the glaucoma label."""


@dataclass(frozen=True)
class SetEvaluation:
    """All models on one set."""

    name: str
    rows: tuple[Row, ...]
    eyes: tuple[Eye, ...]
    sheets: dict[str, np.ndarray]
    """Overlays of the worst eyes by model: HWC uint8 RGB."""


@dataclass(frozen=True)
class _Seen:
    """The ROI and the mask of one model for one sample."""

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
    """Score a bundle's models on a labelled set.

    Args:
        labelled: the set.
        predictor: the bundle.
        supervised: a bundle that was trained on the target's labels; its `source_only` network is
            the row "target-supervised". It gets the ROIs of the first bundle's detector.
        name: of the set in the tables.
        precropped: the pictures are disc crops already; there is no detection.

    Raises:
        ConfigurationError: the set has neither masks nor glaucoma labels, a file cannot be read, or
            the bundle lacks a required network.
    """
    if all(not sample.structures and sample.glaucoma is None for sample in labelled.samples):
        raise ConfigurationError(
            f"{labelled.name}: no labels to score against: give a set with masks or glaucoma labels"
        )
    if not predictor.segmenters:
        raise ConfigurationError(
            "the bundle has no segmenter to evaluate: train one with jobs/train.py segmenter"
        )
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
    """Segment one picture by each model.

    Args:
        image: HWC uint8 RGB.
        region: the ROI; None if no disc was found.
        predictor: the bundle.
        supervised: as in `evaluate`.

    Returns:
        The clean masks by model in the order of the tables, (side, side) uint8 {0, 1, 2} in ROI
        coordinates; None without a ROI. The ensemble is the mean over all maps of source-only and
        adapted, if the bundle has both.
    """
    to_score = [(ROW_OF_ROLE[role], predictor, role) for role in predictor.segmenters]
    if supervised:
        to_score.insert(0, (TARGET_SUPERVISED, supervised, SOURCE_ONLY))
    has_ensemble = len(predictor.segmenters) > 1
    if region is None:
        return dict.fromkeys([model for model, _, _ in to_score] + [ENSEMBLE] * has_ensemble)
    masks: dict[str, np.ndarray | None] = {}
    maps = []
    for model, chosen, role in to_score:
        answers = chosen.segment_roi(image, region, networks=(role,))
        masks[model] = _mask_of(answers, chosen)
        if chosen is predictor:
            maps.append(answers)
    if has_ensemble:
        masks[ENSEMBLE] = _mask_of(np.concatenate(maps), predictor)
    return masks


def summarise(eyes: Sequence[Eye]) -> Row:
    """The row of one model over the eyes (at least one) of one set."""
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
    """The eyes with the lowest cup Dice (or disc Dice, if no cup is labelled), worst first."""
    measure = "cup_dice" if any(eye.cup_dice is not None for eye in eyes) else "disc_dice"
    scored = [eye for eye in eyes if getattr(eye, measure) is not None]
    return sorted(scored, key=lambda eye: getattr(eye, measure))[:count]


def _read(sample: Sample) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture, HWC uint8 RGB, and the experts' mask, HW uint8 {0, 1, 2}, if there is one."""
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
    """Score a mask of the ROI `region`, both None without a disc, in a frame of `size`."""
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
    """The region to show if no disc was found: around the experts' disc, else the whole frame."""
    if truth is None or not disc_of(truth).any():
        return roi.whole(*size)
    rows, columns = np.nonzero(disc_of(truth))
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    return roi.around(columns.mean() + 0.5, rows.mean() + 0.5, 2.0 * extent)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
