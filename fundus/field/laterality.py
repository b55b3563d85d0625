"""Laterality of a frame from its anatomy: the disc is on the nasal side of the macula."""

from typing import Literal

from fundus.field.fov import FieldOfView
from fundus.field.roi import Roi

LEAST, MOST = 0.75, 3.5
"""Horizontal distance of the disc from the field's centre, in disc diameters, within which the eye
can be determined. The fovea is 2.5 disc diameters from the disc. A camera that aims at the fovea,
or between fovea and disc, has the disc on the nasal side. At smaller distances it aimed at the
disc, at larger ones at neither."""


def of_anatomy(
    field: FieldOfView, disc_x: float, disc_y: float, disc_diameter: float
) -> Literal["OD", "OS"] | None:
    """OD or OS of an upright, unmirrored frame; None if it cannot be determined.

    In a right eye the disc is to the right of the macula. A field that is centred nasally of the
    disc, as in some protocols, would be taken for the other eye. Only the fovea, which is not
    searched, could prevent that.

    Args:
        field: the field of view.
        disc_x, disc_y: centre of the disc, pixels of the frame.
        disc_diameter: pixels of the frame.
    """
    across = (disc_x - field.x) / disc_diameter
    down = abs(disc_y - field.y) / disc_diameter
    if not LEAST <= abs(across) <= MOST or down > abs(across):
        return None
    return "OD" if across > 0 else "OS"


def of_roi(field: FieldOfView | None, where: Roi, scale: float) -> Literal["OD", "OS"] | None:
    """As `of_anatomy`, from a detector's ROI, which is `scale` disc diameters wide."""
    if field is None:
        return None
    half = where.size / 2
    return of_anatomy(field, where.x + half, where.y + half, where.size / scale)
