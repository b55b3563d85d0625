"""The labelled sets of a training: opened, checked, and described for the bundle.

Without PyTorch: a cluster's worker answers for the sets in a second.
"""

from collections.abc import Sequence
from typing import Any

from fundus.datasets.public import open_set
from fundus.datasets.samples import HELD_BACK, LabelledSet, person_of
from fundus.errors import ConfigurationError


def labelled_set(spec: str) -> LabelledSet:
    """A set, all of whose pictures have masks; ConfigurationError if one has none, or there are
    too few persons to keep one back."""
    labelled = open_set(spec)
    without = sum(not s.structures for s in labelled.samples)
    if without:
        raise ConfigurationError(
            f"{spec}: {without} of {len(labelled.samples)} pictures have no mask"
        )
    if len({person_of(s) for s in labelled.samples}) < HELD_BACK:
        raise ConfigurationError(
            f"{spec}: give at least {HELD_BACK} persons' pictures, one to validate on"
        )
    return labelled


def described_sets(sources: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """What a bundle says of the labelled sets; they are opened, and read whole."""
    return tuple(_described(labelled_set(spec), "labelled source") for spec in sources)


def _described(labelled: LabelledSet, role: str) -> dict[str, Any]:
    return {
        "name": labelled.name,
        "role": role,
        "count": len(labelled.samples),
        "digest": labelled.digest(),
    }
