"""Comparison of two groups of rows, feature by feature, with a stated rate of false alarms.

Each number is compared by the two-sample Kolmogorov-Smirnov test, and the share of each status by
Fisher's exact test. Holm's correction (Scand J Stat 1979;6:65) over all tests of one night limits
the probability of any false alarm to `ALPHA` if pictures are independent; features may depend on
each other. In large nights tiny differences are significant, so an alarm also needs a distance of
`LEAST`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

ALPHA = 0.01
"""Highest probability of an alarm in an unchanged night: at most one night in a hundred."""
LEAST = 0.2
"""Least Kolmogorov-Smirnov distance, or difference of shares, for an alarm."""
FEWEST = 20
"""Least number of pictures in each of two groups that are compared."""
LOOK = ("field_red", "field_green", "field_blue", "sharpness")
"""Features that depend only on the pictures."""
MEASURED = ("disc_confidence", "vcdr", "vcdr_sd")
"""Features that depend on the networks: compared only between rows of the same networks."""


@dataclass(frozen=True)
class Difference:
    """One feature of two groups."""

    feature: str
    """A column, or "share of STATUS"."""
    now: float
    """Median, or share, of the night."""
    then: float
    """Median, or share, of the rows with which it is compared."""
    distance: float
    """Kolmogorov-Smirnov distance, or difference of the shares; 0 to 1."""
    p: float
    """p value of the test; adjusted by Holm's method in the result of `corrected`."""
    camera: str = ""
    against: str = ""

    @property
    def alarm(self) -> bool:
        """Whether the change is both significant and large."""
        return self.p < ALPHA and self.distance >= LEAST


def differences(now: pa.Table, then: pa.Table, features: Sequence[str]) -> list[Difference]:
    """Uncorrected differences of the features and of all statuses; none if a group is too small."""
    if min(now.num_rows, then.num_rows) < FEWEST:
        return []
    found = [_number(name, now[name].to_numpy(), then[name].to_numpy()) for name in features]
    statuses = pc.unique(pa.chunked_array([*now["status"].chunks, *then["status"].chunks]))
    return [one for one in found if one] + [
        _share(status, now["status"], then["status"]) for status in sorted(statuses.to_pylist())
    ]


def corrected(found: Sequence[Difference]) -> list[Difference]:
    """The same differences with p values adjusted by Holm's method over all of them."""
    order = sorted(range(len(found)), key=lambda i: found[i].p)
    adjusted, highest = [0.0] * len(found), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, found[i].p * (len(found) - rank)))
        adjusted[i] = highest
    return [replace(one, p=p) for one, p in zip(found, adjusted, strict=True)]


def _number(name: str, now: np.ndarray, then: np.ndarray) -> Difference | None:
    now, then = (values[np.isfinite(values)] for values in (now, then))
    if min(len(now), len(then)) < FEWEST:
        return None
    test = stats.ks_2samp(now, then)
    medians = float(np.median(now)), float(np.median(then))
    return Difference(name, *medians, float(test.statistic), float(test.pvalue))


def _share(status: str, now: pa.ChunkedArray, then: pa.ChunkedArray) -> Difference:
    counts = [int(pc.sum(pc.equal(each, status)).as_py() or 0) for each in (now, then)]
    sizes = len(now), len(then)
    table = [[count, size - count] for count, size in zip(counts, sizes, strict=True)]
    first, second = (count / size for count, size in zip(counts, sizes, strict=True))
    p = float(stats.fisher_exact(np.array(table)).pvalue)
    return Difference(f"share of {status}", first, second, abs(first - second), p)
