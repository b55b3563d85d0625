"""Calibration: from a bundle's measures of labelled pictures to a risk and a referral threshold.

The measures are those of screening, end to end: the same detection, ROI, maps and arithmetic. Two
numbers are fitted, with a prior on one of them. All reported figures come from cross-validation.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize

from fundus.anatomy import scores
from fundus.anatomy.risk import RiskModel, log_odds, logistic, referral_threshold
from fundus.anatomy.scores import Summary
from fundus.datasets.samples import LabelledSet, person_of
from fundus.errors import ConfigurationError
from fundus.models.measuring import Measured, measure_maps
from fundus.models.predictor import Predictor

log = logging.getLogger(__name__)

FOLDS = 10
FEWEST = 10
"""Least number of eyes with glaucoma, and of eyes without: one of each per fold."""
PRIOR = 2.5
"""Standard deviation of the slope's normal prior, per standard deviation of vCDR (Gelman et al.,
Ann Appl Stat 2008;2:1360, as in rstanarm). It keeps the slope finite if few eyes separate."""
EDGES = (0.0, 0.05, 0.2, 0.5, 1.0)
"""Risks between which predicted and observed shares are compared."""


@dataclass(frozen=True)
class Eyes:
    """Labels and measures of N eyes, as columns of equal length."""

    glaucoma: np.ndarray
    """(N,) bool."""
    vcdr: np.ndarray
    """(N,) float, measured."""
    vcdr_sd: np.ndarray
    """(N,) float, spread of the vCDR over the maps."""
    persons: np.ndarray | None = None
    """(N,) the person of each eye (samples.person_of); None if each has a person of its own."""

    def take(self, chosen: np.ndarray) -> "Eyes":
        """Select eyes by indices, or by (N,) bool."""
        persons = None if self.persons is None else self.persons[chosen]
        return Eyes(self.glaucoma[chosen], self.vcdr[chosen], self.vcdr_sd[chosen], persons)


@dataclass(frozen=True)
class Coefficients:
    """The fitted part of a `RiskModel`, which describes the fields."""

    intercept: float
    slope: float
    vcdr_mean: float
    vcdr_deviation: float

    def risks(self, eyes: Eyes) -> np.ndarray:
        """The risks of N eyes, (N,) float in [0, 1]."""
        return logistic(log_odds(eyes.vcdr, eyes.vcdr_sd, *vars(self).values()))


@dataclass(frozen=True)
class Bin:
    """Eyes of similar risk."""

    low: float
    high: float
    risk: float | None
    """Mean risk of these eyes."""
    glaucoma: Summary
    """Share with glaucoma, with Wilson's interval."""


@dataclass(frozen=True)
class Report:
    """Figures of cross-validation: no eye is judged by a model or a threshold that saw the eye."""

    unmeasured: int
    """Labelled pictures without disc, cup or spread, which have no risk and are left out below."""
    auc: Summary
    auc_vcdr: Summary
    """AUC of the vCDR alone, for comparison."""
    brier: Summary
    sensitivity: Summary
    specificity: Summary
    bins: tuple[Bin, ...]


def calibrate(
    labelled: LabelledSet,
    predictor: Predictor,
    *,
    name: str,
    specificity: float,
    precropped: bool,
) -> tuple[RiskModel, Report]:
    """Measure the pictures with glaucoma labels, fit the risk, and cross-validate it.

    Args:
        labelled: the set.
        predictor: the bundle.
        name: of the set, for the model.
        specificity: share of the healthy eyes that must not be referred.
        precropped: the pictures are disc crops already.

    Returns:
        The model, whose scores include the report, and the report.

    Raises:
        ConfigurationError: there are too few labels or vCDRs, a file cannot be read, or the bundle
            lacks a network.
    """
    eyes, unmeasured = measure_set(labelled, predictor, precropped=precropped)
    positives = int(eyes.glaucoma.sum())
    negatives = len(eyes.glaucoma) - positives
    if min(positives, negatives) < FEWEST:
        raise ConfigurationError(
            f"{labelled.name}: {positives} eyes with glaucoma and {negatives} without were"
            f" measured; calibration needs {FEWEST} of each: give a larger set"
        )
    if np.ptp(eyes.vcdr) == 0:
        raise ConfigurationError(
            f"{labelled.name}: the bundle measures the same vCDR in every eye: give another set or"
            " bundle"
        )
    report = replace(cross_validate(eyes, specificity), unmeasured=unmeasured)
    fitted = fit(eyes)
    model = RiskModel(
        **vars(fitted),
        threshold=referral_threshold(fitted.risks(eyes.take(~eyes.glaucoma)), specificity),
        specificity=specificity,
        healthy=negatives,
        glaucoma=positives,
        set=name,
        digest=labelled.digest(),
        scores=json.loads(json.dumps(asdict(report))),
    )
    return model, report


def measure_set(
    labelled: LabelledSet, predictor: Predictor, *, precropped: bool
) -> tuple[Eyes, int]:
    """Measure the labelled eyes; return those with vCDR and spread, and the number of others."""
    samples = [sample for sample in labelled.samples if sample.glaucoma is not None]
    known, persons = [], []
    for number, sample in enumerate(samples, start=1):
        image = sample.read_image()
        eye = measure_picture(image, predictor, precropped=precropped)
        if eye and eye.biomarkers.vcdr is not None and eye.vcdr_sd is not None:
            known.append((sample.glaucoma, eye.biomarkers.vcdr, eye.vcdr_sd))
            persons.append(person_of(sample))
        if number % 50 == 0 or number == len(samples):
            log.info("%s: %d of %d eyes", labelled.name, number, len(samples))
    glaucoma, vcdr, vcdr_sd = np.array(known, float).reshape(-1, 3).T
    return Eyes(glaucoma.astype(bool), vcdr, vcdr_sd, np.array(persons)), len(samples) - len(known)


def measure_picture(
    image: np.ndarray, predictor: Predictor, *, precropped: bool
) -> Measured | None:
    """Measure one picture (HWC uint8 RGB) as screening does; None if no disc is detected."""
    where = predictor.place(image, precropped=precropped).roi
    if where is None:
        return None
    maps = predictor.segment_roi(image, where)
    return measure_maps(maps, where, predictor.thresholds)


def fit(eyes: Eyes) -> Coefficients:
    """Fit the coefficients of `RiskModel`'s formula, with `PRIOR` on the slope.

    The eyes must include both classes and different vCDRs.
    """
    mean, deviation = float(eyes.vcdr.mean()), float(eyes.vcdr.std())
    signs = np.where(eyes.glaucoma, -1, 1)

    def loss(coefficients: np.ndarray) -> float:
        intercept, standard_slope = coefficients
        odds = log_odds(
            eyes.vcdr, eyes.vcdr_sd, intercept, standard_slope / deviation, mean, deviation
        )
        return float(np.logaddexp(0, signs * odds).sum() + (standard_slope / PRIOR) ** 2 / 2)

    share = eyes.glaucoma.mean()
    start = [np.log(share / (1 - share)), 1.0]
    found = minimize(loss, start, method="L-BFGS-B", bounds=[(None, None), (0, None)])
    intercept, standard_slope = map(float, found.x)
    return Coefficients(intercept, standard_slope / deviation, mean, deviation)


def cross_validate(eyes: Eyes, specificity: float) -> Report:
    """Cross-validate in ten folds, with glaucoma spread evenly: fit nine, judge the tenth."""
    risks = np.zeros(len(eyes.glaucoma))
    referred = np.zeros(len(eyes.glaucoma), bool)
    for held in folds(eyes.glaucoma, eyes.persons):
        seen, unseen = eyes.take(~held), eyes.take(held)
        fitted = fit(seen)
        threshold = referral_threshold(fitted.risks(seen.take(~seen.glaucoma)), specificity)
        risks[held] = fitted.risks(unseen)
        referred[held] = risks[held] >= threshold
    labels = eyes.glaucoma.tolist()
    return Report(
        unmeasured=0,
        auc=scores.summarise_auc(labels, risks.tolist()),
        auc_vcdr=scores.summarise_auc(labels, eyes.vcdr.tolist()),
        brier=scores.summarise_brier(labels, risks.tolist()),
        sensitivity=scores.summarise_share(referred[eyes.glaucoma].tolist()),
        specificity=scores.summarise_share((~referred[~eyes.glaucoma]).tolist()),
        bins=tuple(_bins(risks, eyes.glaucoma)),
    )


def folds(
    glaucoma: np.ndarray, persons: np.ndarray | None = None, seed: int = 0
) -> Iterator[np.ndarray]:
    """(N,) bool masks of the eyes that are held back in each fold, each eye once.

    Both eyes of a person are in the same fold. Persons with and without glaucoma are distributed
    evenly.
    """
    whose = np.arange(len(glaucoma)) if persons is None else persons
    _, first, number = np.unique(whose, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[number]  # persons in the order of their first eye
    ill = np.zeros(len(first), bool)
    np.logical_or.at(ill, number, glaucoma)
    fold = np.zeros(len(first), int)
    generator = np.random.default_rng(seed)
    for members in (np.flatnonzero(ill), np.flatnonzero(~ill)):
        fold[generator.permutation(members)] = np.arange(len(members)) % FOLDS
    return (fold[number] == one for one in range(FOLDS))


def _bins(risks: np.ndarray, glaucoma: np.ndarray) -> Iterator[Bin]:
    bins = np.digitize(risks, EDGES[1:-1])
    for number, (low, high) in enumerate(pairwise(EDGES)):
        inside = bins == number
        mean = float(risks[inside].mean()) if inside.any() else None
        yield Bin(low, high, mean, scores.summarise_share(glaucoma[inside].tolist()))
