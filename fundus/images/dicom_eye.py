"""Which eye a DICOM object says that a frame shows."""

from collections.abc import Iterator

import pydicom

from fundus.images.content import EYE

WORDS = {"R": "OD", "OD": "OD", "RIGHT": "OD", "L": "OS", "OS": "OS", "LEFT": "OS"}
"""What files write; the standard has R and L."""
CODES = {"24028007": "OD", "G-A100": "OD", "7771000": "OS", "G-A101": "OS"}
"""Right and left in SNOMED CT and in the older SNOMED codes that DICOM still allows."""


def laterality(dataset: pydicom.Dataset, index: int) -> tuple[str | None, tuple[str, ...]]:
    """ "OD", "OS" or None for frame `index` (from 0), and a remark where two eyes are named.

    Read are ImageLaterality, Laterality, FrameLaterality in the functional groups of this frame and
    of all frames, and the modifier of the anatomic region.
    """
    named = set(_named(dataset))
    for groups, at in (("PerFrame", index), ("Shared", 0)):
        items = dataset.get(f"{groups}FunctionalGroupsSequence") or []
        if at < len(items):
            for anatomy in items[at].get("FrameAnatomySequence") or []:
                named |= {*_named(anatomy)}
    if len(named) > 1:
        return None, (EYE,)
    return next(iter(named), None), ()


def _named(item: pydicom.Dataset) -> Iterator[str]:
    for keyword in ("ImageLaterality", "Laterality", "FrameLaterality"):
        side = WORDS.get(str(item.get(keyword) or "").strip(" \0").upper())
        if side:
            yield side
    for region in item.get("AnatomicRegionSequence") or []:
        for modifier in region.get("AnatomicRegionModifierSequence") or []:
            side = CODES.get(str(modifier.get("CodeValue") or "").strip())
            if side:
                yield side
