"""Changes that an adaptation made to the outlines of the target, for its report, without labels."""

from dataclasses import dataclass

import numpy as np

from fundus.anatomy.pairs import Pair, differing_most
from fundus.datasets.batches import Crops
from fundus.training.gate import Judgement

MOST = 24


@dataclass(frozen=True, eq=False)
class Changes:
    """The target before and after an adaptation."""

    vcdr: np.ndarray
    """(N, 2) float: vCDR of each picture by the source-only and by the adapted segmenter; NaN where
    undefined."""
    pairs: tuple[Pair, ...]
    """The pictures whose outlines differ most, the largest difference first."""


def changes(judgement: Judgement, target: Crops, most: int = MOST) -> Changes:
    """The vCDR of all target pictures, and the `most` pictures whose outlines changed most."""
    vcdr = np.stack([judgement.before.vcdr, judgement.after.vcdr], axis=1)
    masks = zip(judgement.before.masks, judgement.after.masks, strict=True)
    pairs = differing_most(
        (
            Pair(
                name,
                before,
                after,
                (_known(ratios[0]), _known(ratios[1])),
                image.permute(1, 2, 0).numpy(),
            )
            for name, image, ratios, (before, after) in zip(
                target.ids, target.images, vcdr, masks, strict=True
            )
        ),
        most,
    )
    return Changes(vcdr, tuple(pairs))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
