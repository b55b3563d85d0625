"""Cameras of synthetic sites: the look of their frames and their patients, one function each."""

from dataclasses import dataclass

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """The look of a site's frames, and its patients. Colours are RGB in [0, 1]."""

    name: str
    height: int
    """Height of the frame, pixels."""
    width: int
    """Width of the frame, pixels."""
    field: float
    """Diameter of the circular field of view, relative to the width of the frame."""
    cropped: float
    """Share of the field's diameter that is cut off at the top, and the same at the bottom."""
    centred_on_disc: float
    """0: the field is centred between disc and fovea; 1: on the disc."""
    disc_size: float
    """Mean vertical diameter of the disc, relative to the diameter of the field."""
    retina: Colour
    rim: Colour
    cup: Colour
    haze: Colour
    """Colour of the haze over the edge of the field on one side."""
    light: float
    """Mean exposure; 1 leaves the colours as they are given."""
    vignetting: float
    """Share of the light that is lost at the edge of the field."""
    hazing: float
    """Strength of the haze at the edge, 0 to 1."""
    blur: float
    """Standard deviation of the defocus, pixels."""
    noise: float
    """Standard deviation of the sensor noise, grey levels of 255."""
    glaucoma: float
    """Share of eyes with glaucoma."""
    vcdr_healthy: tuple[float, float]
    """Mean and standard deviation of the vertical cup-to-disc ratio."""
    vcdr_glaucoma: tuple[float, float]
    jpeg_quality: int

    def __post_init__(self) -> None:
        for name in ("field", "disc_size", "glaucoma", "vignetting", "hazing", "centred_on_disc"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"camera {self.name}: {name}={getattr(self, name)} not in [0, 1]")


def clinic() -> Camera:
    """A macula-centred 45-degree camera with mostly healthy eyes: orange, sharp, small cups."""
    return Camera(
        name="clinic", height=1000, width=1040, field=0.96, cropped=0.02, centred_on_disc=0.15,
        disc_size=0.145, retina=(0.66, 0.34, 0.13), rim=(0.91, 0.55, 0.28), cup=(1.0, 0.90, 0.62),
        haze=(0.40, 0.47, 0.33), light=1.0, vignetting=0.45, hazing=0.35, blur=0.7, noise=2.0,
        glaucoma=0.1, vcdr_healthy=(0.40, 0.08), vcdr_glaucoma=(0.66, 0.08), jpeg_quality=92,
    )  # fmt: skip


def hospital() -> Camera:
    """A disc-centred 30-degree camera of a glaucoma clinic: darker, bluish, softer, large cups."""
    return Camera(
        name="hospital", height=900, width=1050, field=0.97, cropped=0.09, centred_on_disc=0.8,
        disc_size=0.19, retina=(0.47, 0.27, 0.21), rim=(0.72, 0.47, 0.41), cup=(0.84, 0.76, 0.70),
        haze=(0.36, 0.42, 0.52), light=0.82, vignetting=0.55, hazing=0.5, blur=1.9, noise=5.0,
        glaucoma=0.7, vcdr_healthy=(0.48, 0.08), vcdr_glaucoma=(0.74, 0.08), jpeg_quality=80,
    )  # fmt: skip


def handheld() -> Camera:
    """A hand-held camera: narrow, unevenly lit field, magenta, blurred, strongly compressed."""
    return Camera(
        name="handheld", height=960, width=1280, field=0.68, cropped=0.0, centred_on_disc=0.6,
        disc_size=0.17, retina=(0.66, 0.25, 0.22), rim=(0.90, 0.55, 0.47), cup=(0.97, 0.83, 0.74),
        haze=(0.60, 0.40, 0.52), light=0.9, vignetting=0.7, hazing=0.45, blur=2.6, noise=8.0,
        glaucoma=0.35, vcdr_healthy=(0.43, 0.09), vcdr_glaucoma=(0.70, 0.09), jpeg_quality=60,
    )  # fmt: skip


CAMERAS = {"clinic": clinic, "hospital": hospital, "handheld": handheld}
"""Cameras by the names that commands and set descriptions use."""
