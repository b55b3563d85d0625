"""Thresholds on probabilities, without torch, which measuring does not need."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fundus.anatomy.postprocess import Cleaned, clean


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a bundle."""

    disc_found: float = 0.5
    """Confidence from which a disc counts as found."""
    disc: float = 0.5
    """Probability from which a pixel is disc."""
    cup: float = 0.5
    """Probability from which a pixel is cup."""
    ovals: bool | None = None
    """Draw disc and cup as ellipses (fundus.anatomy.postprocess); None and False: as segmented."""
    confidence: tuple[float, float] | None = None
    """Slope and offset of the calibrated confidence (fundus.models.confidence); None: the peak of
    the detector's map is the confidence."""

    def __post_init__(self) -> None:
        if self.confidence is not None:
            object.__setattr__(self, "confidence", tuple(self.confidence))

    def draw(self, maps: np.ndarray) -> Cleaned:
        """The clean mask of (2, S, S) probabilities, disc then cup."""
        return clean(maps, disc_threshold=self.disc, cup_threshold=self.cup, ovals=bool(self.ovals))

    def described(self) -> dict[str, Any]:
        """The values for JSON, without unset ones: a bundle without them keeps its digest."""
        return {k: v for k, v in vars(self).items() if v is not None}
