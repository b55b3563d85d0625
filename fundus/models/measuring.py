"""From the maps of one ROI to its measures, for screening, calibration and notebooks."""

from dataclasses import dataclass

import numpy as np

from fundus.anatomy.biomarkers import Biomarkers, Laterality, measure, vcdr
from fundus.anatomy.labels import disc_of
from fundus.field import roi
from fundus.field.roi import Roi
from fundus.models.thresholds import Thresholds


@dataclass(frozen=True)
class Measured:
    """The measures of one eye; None where undefined."""

    mask: np.ndarray
    """(S, S) uint8 {0 background, 1 rim, 2 cup} in ROI coordinates, from the mean over all maps."""
    flags: tuple[str, ...]
    """Flags of the mask, see `postprocess.clean`."""
    biomarkers: Biomarkers
    """Biomarkers of the mask in pixels of the original frame."""
    vcdr_sd: float | None
    """Standard deviation of the vCDR over the single maps, joined with the `hidden` one; None with
    fewer than two ratios, or if the hidden one is unknown."""
    disc_height: float | None
    """Vertical extent of the disc, pixels of the original frame; None without a disc."""


def measure_maps(
    maps: np.ndarray,
    where: Roi,
    thresholds: Thresholds,
    laterality: Laterality | None = None,
    hidden: float | None = 0.0,
) -> Measured:
    """Measure the maps of one ROI.

    Args:
        maps: (M, 2, S, S) float probabilities in [0, 1], disc then cup.
        where: the ROI, in pixels of the original frame.
        thresholds: where probabilities become masks.
        laterality: for nasal and temporal rim; None if unknown.
        hidden: standard deviation of the vCDR that these maps do not show (Bundle.hidden_spread);
            None if it is unknown: then the whole spread is.
    """
    cleaned = thresholds.draw(maps.mean(axis=0))
    ratios = [vcdr(thresholds.draw(one).mask) for one in maps]
    defined = [ratio for ratio in ratios if ratio is not None]
    return Measured(
        mask=cleaned.mask,
        flags=cleaned.flags,
        biomarkers=measure(_in_frame_pixels(cleaned.mask, where), laterality),
        vcdr_sd=_spread(defined, hidden),
        disc_height=_disc_height(cleaned.mask) * where.size / maps.shape[-1] or None,
    )


def _spread(ratios: list[float], hidden: float | None) -> float | None:
    if len(ratios) < 2 or hidden is None:
        return None
    return float(np.hypot(np.std(ratios), hidden))


def _in_frame_pixels(mask: np.ndarray, where: Roi) -> np.ndarray:
    """The mask in pixels of the original frame, in which extents are measured.

    Only the window of the ROI is drawn. The mask of a ROI that is smaller than its raster stays as
    it is, because conversion would lose resolution.
    """
    side = int(np.ceil(where.size)) + 1
    if where.size <= mask.shape[0]:
        return mask
    return roi.restore(mask, Roi(where.x % 1, where.y % 1, where.size), side, side)


def _disc_height(mask: np.ndarray) -> int:
    """Rows from the first to the last of the disc, both counted; 0 without a disc."""
    rows = np.flatnonzero(disc_of(mask).any(axis=1))
    return int(rows[-1] - rows[0] + 1) if rows.size else 0
