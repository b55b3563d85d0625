"""Which eye a frame shows, from its anatomy: the disc lies nasally of the macula."""

from typing import Literal

from fundus.images.fov import FieldOfView

LEAST, MOST = 0.75, 3.5
"""Horizontal distance of the disc from the field's centre, in disc diameters, at which the eye is
told. The fovea lies 2.5 disc diameters from the disc: a camera that aims between the two or at the
fovea leaves the disc on its nasal side. Nearer, it aimed at the disc; further, at neither."""


def of_anatomy(
    field: FieldOfView, disc_x: float, disc_y: float, disc_diameter: float
) -> Literal["OD", "OS"] | None:
    """OD or OS of an upright, unmirrored frame, None where it cannot be told.

    disc_x, disc_y, disc_diameter: pixels of the frame, as the field's. In a right eye the disc lies
    to the right of the macula. A field that is centred nasally of the disc (some protocols add
    such) would be called the other eye: nothing but its fovea, which is not looked for, could tell.
    """
    across = (disc_x - field.x) / disc_diameter
    down = abs(disc_y - field.y) / disc_diameter
    if not LEAST <= abs(across) <= MOST or down > abs(across):
        return None
    return "OD" if across > 0 else "OS"
