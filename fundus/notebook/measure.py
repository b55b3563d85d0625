"""Measuring of one picture by the same steps as screening, without Ray."""

from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fundus.anatomy.postprocess import NO_DISC
from fundus.decoding.picture import Picture
from fundus.decoding.sandbox import Decoder
from fundus.errors import ConfigurationError
from fundus.field import fields, quality, roi
from fundus.field.fov import exposure
from fundus.field.laterality import of_roi
from fundus.images import working_frame
from fundus.images.decode import Refused
from fundus.ledger import row
from fundus.models import bundle as bundles
from fundus.models.bundle import Bundle
from fundus.models.measuring import measure_maps
from fundus.models.predictor import TWO_DISCS, Predictor
from fundus.notebook.eye import Eye

POOR = "poor_quality"
GRADABILITY = ("refuse", "advise", "off")


def measure(
    picture: str | Path | bytes | np.ndarray,
    *,
    bundle: str | Path | None = None,
    precropped: bool = False,
    gradability: str = "advise",
    frame: int = 1,
) -> Eye:
    """Measure disc and cup in one picture, as screening does.

    Args:
        picture: a local file, the bytes of one, or HWC uint8 RGB pixels, upright.
        bundle: folder or s3:// URI of a bundle; None for the one in the package. A bundle is loaded
            once per process.
        precropped: the picture is a disc crop already, of any tightness; there is no detection.
        gradability: "advise" measures a picture of poor quality and flags it `poor_quality`, unless
            it is black or not a fundus photograph; "refuse" does not measure it; "off" does not
            assess quality.
        frame: number of the frame in a DICOM object, from 1.

    Returns:
        The eye. A picture that cannot be read or measured is an Eye too: `status` and `reason` give
        the reason, and its measures are None.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigurationError: an unknown gradability, a frame that the object does not have, pixels of
            another shape or type.
        fundus.models.bundle.BundleError: there is no such bundle, or it lacks a network.
    """
    if gradability not in GRADABILITY:
        raise ConfigurationError(
            f"gradability is {gradability!r}; give one of {', '.join(GRADABILITY)}"
        )
    known, predictor = _loaded(str(bundle or bundles.default_folder()))
    try:
        found = _decoded(picture, frame, known.preprocessing.least_side(precropped=precropped))
    except Refused as refused:
        return Eye(refused.status, refused.reason)
    return _measured(found, known, predictor, precropped=precropped, gradability=gradability)


def _decoded(picture: str | Path | bytes | np.ndarray, frame: int, least_side: int) -> Picture:
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ConfigurationError(
                f"pixels are (H, W, 3) uint8 RGB, not {picture.shape} {picture.dtype}"
            )
        return working_frame.reduced(Picture(picture), least_side)
    data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    frames = _decoder(least_side)(data)
    if not 1 <= frame <= len(frames):
        raise ConfigurationError(f"there is no frame {frame}: the object has {len(frames)}")
    return frames[frame - 1]


def _measured(
    found: Picture, bundle: Bundle, predictor: Predictor, *, precropped: bool, gradability: str
) -> Eye:
    image = found.pixels
    eye = Eye(row.OK, None, laterality=found.laterality, size=found.size)
    eye = replace(eye, flags=found.flags)
    flags = found.flags
    seen = None if precropped else exposure(image)
    field = seen.field if seen else None
    if seen and fields.are_two(image, seen):
        return replace(eye, status="unsupported", reason=fields.REASON)
    if gradability != "off":
        grade = quality.assess(image, seen=seen, crop=precropped, shrink=found.shrink)
        look: dict[str, Any] = {
            column: grade.measures.get(name) for column, name in quality.LOOK.items()
        }
        eye = replace(eye, quality=grade.score, **look)
        if grade.reason and (grade.hopeless or gradability == "refuse"):
            return replace(eye, status="ungradable", reason=grade.reason)
        flags += (POOR,) if grade.poor else ()
    detection = predictor.place(image, precropped=precropped, field=field)
    if detection.roi is None and np.isnan(detection.confidence):
        reason = "the detector's map is not finite numbers"
        return replace(eye, status="model_failed", reason=reason)
    if not precropped:
        eye = replace(eye, disc_confidence=detection.confidence)
    flags += (TWO_DISCS,) if detection.two else ()
    place = detection.roi  # in pixels of the working frame
    if place is None:
        reason = f"no disc was found (confidence {detection.confidence:.2f})"
        return replace(eye, status="no_disc", reason=reason)
    side = of_roi(field, place, predictor.preprocessing.roi_scale)
    eye = replace(eye, laterality=eye.laterality or side)
    crop = roi.crop(image, place, predictor.side, mirrored=True)
    where = place.times(found.shrink)
    maps = predictor.segment_roi(image, place)
    if not np.isfinite(maps).all():
        reason = "the segmenter's maps are not finite numbers"
        return replace(eye, status="model_failed", reason=reason)
    measured = measure_maps(maps, where, bundle.thresholds, eye.laterality)  # type: ignore[arg-type]
    eye = replace(eye, roi=where, picture=crop, flags=(*measured.flags, *flags))
    if NO_DISC in measured.flags:
        return replace(eye, status="no_disc", reason="the segmenter found no disc in the ROI")
    risk = bundle.risk.risk(measured.biomarkers.vcdr, measured.vcdr_sd) if bundle.risk else None
    return replace(
        eye,
        **asdict(measured.biomarkers),
        vcdr_sd=measured.vcdr_sd,
        mask=measured.mask,
        risk=risk,
        referable=bundle.risk.referable(risk) if bundle.risk else None,
    )


@lru_cache(maxsize=2)
def _loaded(folder: str) -> tuple[Bundle, Predictor]:
    bundle = bundles.load(folder)
    return bundle, Predictor(bundle)


@lru_cache(maxsize=2)
def _decoder(least_side: int) -> Decoder:
    return Decoder(least_side=least_side)
