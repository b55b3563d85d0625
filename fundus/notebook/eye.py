"""One measured picture, for notebooks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fundus.anatomy.biomarkers import rim_profile
from fundus.anatomy.labels import cup_of, disc_of
from fundus.field import roi
from fundus.field.roi import Roi

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DISC_COLOUR, CUP_COLOUR = "#00c2c7", "#ffd23f"


@dataclass(frozen=True, eq=False)
class Eye:
    """The measures of one picture, under the names of a row's columns.

    A value that could not be measured is None, never 0.
    """

    status: str
    """One word of `fundus.ledger.row.STATUSES`; "ok" if the picture was measured."""
    reason: str | None
    """Why the status is not "ok", in one sentence; None if it is."""
    quality: float | None = None
    """Gradability, 0 to 1."""
    sharpness: float | None = None
    """Contrast of fine structure in the field."""
    field_red: float | None = None
    """Mean red of the field, 0 to 255; the next two fields are green and blue."""
    field_green: float | None = None
    field_blue: float | None = None
    laterality: str | None = None
    """"OD" (right eye) or "OS" (left eye)."""
    disc_confidence: float | None = None
    """Confidence of the detector, 0 to 1."""
    vcdr: float | None = None
    """Vertical cup-to-disc ratio."""
    vcdr_sd: float | None = None
    """Standard deviation of the ratio over the maps of all networks and turns."""
    hcdr: float | None = None
    """Horizontal cup-to-disc ratio."""
    area_cdr: float | None = None
    """Cup area over disc area."""
    rim_inferior: float | None = None
    """Mean rim width of the inferior sector in vertical disc diameters; the next three likewise."""
    rim_superior: float | None = None
    rim_nasal: float | None = None
    rim_temporal: float | None = None
    risk: float | None = None
    """Calibrated risk of glaucoma, 0 to 1; None if the bundle is not calibrated."""
    referable: bool | None = None
    """Whether the risk reaches the referral threshold; None without a risk."""
    flags: tuple[str, ...] = ()
    """Remarks, as in the row's column `flags`."""
    roi: Roi | None = None
    """The square around the disc, pixels of the original frame."""
    picture: np.ndarray | None = None
    """(S, S, 3) uint8 RGB: the ROI as the segmenter saw it."""
    mask: np.ndarray | None = None
    """(S, S) uint8 {0 background, 1 rim, 2 cup} in ROI coordinates."""
    size: tuple[int, int] | None = None
    """Height and width of the upright original frame, pixels."""

    @property
    def rim_profile(self) -> np.ndarray | None:
        """(72,) float: rim width by angle, see `fundus.anatomy.biomarkers.rim_profile`."""
        return None if self.mask is None else rim_profile(self.mask)

    def mask_in_frame(self) -> np.ndarray | None:
        """(H, W) uint8 {0, 1, 2}: the mask in pixels of the original frame."""
        if self.mask is None or self.roi is None or self.size is None:
            return None
        return roi.restore(self.mask, self.roi, *self.size)

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Draw the ROI with the outlines of disc and cup; returns matplotlib's axes."""
        if axes is None:
            from matplotlib import pyplot

            axes = pyplot.figure(figsize=(4, 4.4), layout="constrained").add_subplot()
        axes.set_axis_off()
        axes.set_title(str(self), fontsize=9)
        if self.picture is not None:
            axes.imshow(self.picture)
        if self.mask is not None:
            for inside, colour in ((disc_of, DISC_COLOUR), (cup_of, CUP_COLOUR)):
                region = inside(self.mask)
                if region.any():
                    axes.contour(region, levels=[0.5], colors=[colour], linewidths=1.5)
        return axes

    def __str__(self) -> str:
        """One line for people."""
        if self.vcdr is None:
            return f"{self.status}: {self.reason}" if self.reason else f"{self.status}: no cup"
        spread = f" ± {self.vcdr_sd:.2f}" if self.vcdr_sd is not None else ""
        risk = f", risk {self.risk:.2f}" if self.risk is not None else ""
        return f"{self.laterality or 'eye'}: vCDR {self.vcdr:.2f}{spread}{risk}"

    def __repr__(self) -> str:
        return f"<Eye {self}>"
