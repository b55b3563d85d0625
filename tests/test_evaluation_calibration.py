"""Calibration finds a known law, does not overfit, and measures as screening does."""

import numpy as np
import pytest
from test_screening_stages import RUN, batch_of

from fundus.anatomy.risk import logistic
from fundus.datasets.synthetic import clinic, draw, hospital
from fundus.evaluation import calibration
from fundus.evaluation.calibration import Eyes, cross_validate, fit, folds
from fundus.field.fov import field_of_view
from fundus.field.roi import Roi
from fundus.models import bundle as bundles
from fundus.models.predictor import Predictor
from fundus.screening import columns, light, models


def drawn_eyes(count, slope, seed=0, spread=0.0):
    """Eyes of a known law: vCDR normal about .5, log-odds -2 + slope (vCDR - .5)."""
    rng = np.random.default_rng(seed)
    vcdr = rng.normal(0.5, 0.1, count)
    glaucoma = rng.random(count) < logistic(-2 + slope * (vcdr - 0.5))
    return Eyes(glaucoma, vcdr, np.full(count, spread))


def test_a_known_law_is_found():
    eyes = drawn_eyes(20_000, slope=20)
    fitted = fit(eyes)
    assert (fitted.intercept, fitted.slope) == pytest.approx((-2, 20), rel=0.06)
    assert fitted.risks(eyes).mean() == pytest.approx(eyes.glaucoma.mean(), abs=1e-3)


def test_a_few_separable_eyes_do_not_make_the_slope_unbounded():
    vcdr = np.linspace(0.3, 0.7, 24)
    fitted = fit(Eyes(vcdr > 0.5, vcdr, np.zeros(24)))
    assert fitted.slope * fitted.vcdr_deviation < 3 * calibration.PRIOR


def test_the_slope_is_never_negative():
    eyes = drawn_eyes(500, slope=-20)
    assert fit(eyes).slope == 0


def test_every_eye_is_held_back_once_and_each_fold_has_both_classes():
    glaucoma = np.arange(115) < 12
    held = np.array(list(folds(glaucoma)))
    assert (held.sum(axis=0) == 1).all() and len(held) == calibration.FOLDS
    assert all(glaucoma[fold].any() and (~glaucoma[fold]).any() for fold in held)


def test_no_eye_is_judged_by_a_fit_that_saw_it(monkeypatch):
    """A fit that memorises its eyes and knows nothing about others ranks at random."""

    class Memory:
        def __init__(self, eyes):
            self.known = dict(zip(eyes.vcdr, eyes.glaucoma, strict=True))

        def risks(self, eyes):
            return np.array([float(self.known.get(vcdr, 0.5)) for vcdr in eyes.vcdr])

    monkeypatch.setattr(calibration, "fit", Memory)
    report = cross_validate(drawn_eyes(200, slope=20), 0.95)
    assert report.auc.value == 0.5 and report.brier.value == 0.25


def test_cross_validation_finds_calibrated_risks_and_the_stated_specificity():
    eyes = drawn_eyes(2000, slope=20, spread=0.02)
    report = cross_validate(eyes, 0.9)
    assert report.auc.value == pytest.approx(report.auc_vcdr.value, abs=0.01)
    assert report.specificity.value == pytest.approx(0.9, abs=0.02)
    for each in report.bins:
        assert each.glaucoma.low < each.risk < each.glaucoma.high
    assert sum(each.glaucoma.count for each in report.bins) == 2000


@pytest.mark.parametrize("precropped", [False, True])
def test_a_picture_is_measured_as_screening_measures_it(precropped):
    bundle = bundles.load(bundles.default_folder())
    predictor = Predictor(bundle)
    images = [draw(camera, 3).image for camera in (clinic(), hospital())]
    nothing = np.zeros((1, 1, 1, 1), np.float32)
    batch = batch_of([nothing] * 2, [Roi(0, 0, 1)] * 2, ["ok", "ok"])
    batch["image"] = columns.tensors(images)
    batch["height"], batch["width"] = np.array([image.shape[:2] for image in images]).T
    batch["field"] = columns.tensors(
        [None, None] if precropped else list(map(field_of_view, images))
    )
    batch = models.Locate(predictor, precropped=precropped)(batch)
    batch = models.Segment(predictor)(light.crop(batch, side=predictor.side))
    table = light.Measure(bundle.thresholds, None, RUN)(batch)
    for screened, image in zip(table.to_pylist(), images, strict=True):
        eye = calibration.measure_picture(image, predictor, precropped=precropped)
        assert (screened["vcdr"], screened["vcdr_sd"]) == pytest.approx(
            (eye.biomarkers.vcdr, eye.vcdr_sd), rel=1e-4
        )
