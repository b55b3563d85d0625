"""The labelled sets of a training: opened, checked, and described for the bundle.

This module does not import PyTorch, so that a worker checks the sets within a second.
"""

from collections.abc import Sequence
from typing import Any

from fundus.datasets.public import open_set
from fundus.datasets.samples import HELD_BACK, LabelledSet, person_of
from fundus.errors import ConfigurationError


def labelled_set(spec: str) -> LabelledSet:
    """Open a set in which every picture has a mask.

    Raises:
        ConfigurationError: there is no such set, a picture has no mask, or the set has too few
            persons to reserve one for validation.
    """
    labelled = open_set(spec)
    without = sum(not s.structures for s in labelled.samples)
    if without:
        raise ConfigurationError(
            f"{spec}: {without} of {len(labelled.samples)} pictures have no mask: training needs"
            " a set in which all have one"
        )
    if len({person_of(s) for s in labelled.samples}) < HELD_BACK:
        raise ConfigurationError(
            f"{spec}: give at least {HELD_BACK} persons' pictures, one to validate on"
        )
    return labelled


def described_sets(sources: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Describe labelled sets for the bundle: name, role, count and digest. Reads all files."""
    return tuple(_described(labelled_set(spec), "labelled source") for spec in sources)


def _described(labelled: LabelledSet, role: str) -> dict[str, Any]:
    return {
        "name": labelled.name,
        "role": role,
        "count": len(labelled.samples),
        "digest": labelled.digest(),
    }
