"""One picture through screening's own steps, from bytes to measures, without Ray."""

from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fundus.anatomy.postprocess import NO_DISC
from fundus.errors import ConfigurationError
from fundus.images import fields, quality, roi
from fundus.images.decode import Refused
from fundus.images.fov import field_of_view
from fundus.images.laterality import of_anatomy
from fundus.images.picture import Picture
from fundus.images.sandbox import Decoder
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
            once for each process.
        precropped: the picture is a disc crop already, of any tightness; the detector is left out.
        gradability: "advise" measures a picture that shows little and flags it `poor_quality`, but
            for one that is black or no fundus photograph; "refuse" does not measure it; "off" does
            not look.
        frame: number of the frame in a DICOM object, from 1.

    Returns:
        The eye. A picture that cannot be read or measured is an Eye too: its `status` and `reason`
        say why, and its measures are None.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigurationError: an unknown gradability, a frame that the object does not have, pixels of
            another shape or type.
        fundus.models.bundle.BundleError: no bundle lies there, or it lacks a network.
    """
    if gradability not in GRADABILITY:
        raise ConfigurationError(
            f"gradability is {gradability!r}; give one of {', '.join(GRADABILITY)}"
        )
    known, predictor = _loaded(str(bundle or bundles.default_folder()))
    try:
        found = _decoded(picture, frame)
    except Refused as refused:
        return Eye(refused.status, refused.reason)
    return _measured(found, known, predictor, precropped=precropped, gradability=gradability)


def _decoded(picture: str | Path | bytes | np.ndarray, frame: int) -> Picture:
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ConfigurationError(
                f"pixels are (H, W, 3) uint8 RGB, not {picture.shape} {picture.dtype}"
            )
        return Picture(picture)
    data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    frames = _decoder()(data)
    if not 1 <= frame <= len(frames):
        raise ConfigurationError(f"there is no frame {frame}: the object has {len(frames)}")
    return frames[frame - 1]


def _measured(
    found: Picture, bundle: Bundle, predictor: Predictor, *, precropped: bool, gradability: str
) -> Eye:
    image = found.pixels
    eye = Eye(row.OK, None, laterality=found.laterality, size=(image.shape[0], image.shape[1]))
    eye = replace(eye, flags=found.flags)
    flags = found.flags
    if not precropped and fields.are_two(image):
        return replace(eye, status="unsupported", reason=fields.REASON)
    if gradability != "off":
        grade = quality.assess(image, crop=precropped)
        look: dict[str, Any] = {
            column: grade.measures.get(name) for column, name in quality.LOOK.items()
        }
        eye = replace(eye, quality=grade.score, **look)
        if grade.reason and (grade.hopeless or gradability == "refuse"):
            return replace(eye, status="ungradable", reason=grade.reason)
        flags += (POOR,) if grade.poor else ()
    detection = predictor.place(image, precropped=precropped)
    if detection.roi is None and np.isnan(detection.confidence):
        reason = "the detector's map is not finite numbers"
        return replace(eye, status="model_failed", reason=reason)
    if not precropped:
        eye = replace(eye, disc_confidence=detection.confidence)
    flags += (TWO_DISCS,) if detection.two else ()
    where = detection.roi
    if where is None:
        reason = f"no disc was found (confidence {detection.confidence:.2f})"
        return replace(eye, status="no_disc", reason=reason)
    if not precropped:
        eye = replace(eye, laterality=eye.laterality or _side(image, where, predictor))
    crop = roi.crop(image, where, predictor.side, mirrored=True)
    maps = predictor.segment(crop[None])[0]
    if not np.isfinite(maps).all():
        reason = "the segmenter's maps are not finite numbers"
        return replace(eye, status="model_failed", reason=reason)
    seen = measure_maps(maps, where, bundle.thresholds, eye.laterality)  # type: ignore[arg-type]
    eye = replace(eye, roi=where, picture=crop, flags=(*seen.flags, *flags))
    if NO_DISC in seen.flags:
        return replace(eye, status="no_disc", reason="the segmenter found no disc in the ROI")
    risk = bundle.risk.risk(seen.biomarkers.vcdr, seen.vcdr_sd) if bundle.risk else None
    return replace(
        eye,
        **asdict(seen.biomarkers),
        vcdr_sd=seen.vcdr_sd,
        mask=seen.mask,
        risk=risk,
        referable=bundle.risk.referable(risk) if bundle.risk else None,
    )


def _side(image: np.ndarray, where: roi.Roi, predictor: Predictor) -> str | None:
    """Which eye it is, by the place of the disc in the field."""
    field = field_of_view(image)
    middle = (where.x + where.size / 2, where.y + where.size / 2)
    diameter = where.size / predictor.preprocessing.roi_scale
    return of_anatomy(field, *middle, diameter) if field else None


@lru_cache(maxsize=2)
def _loaded(folder: str) -> tuple[Bundle, Predictor]:
    bundle = bundles.load(folder)
    return bundle, Predictor(bundle)


@lru_cache(maxsize=1)
def _decoder() -> Decoder:
    return Decoder()
