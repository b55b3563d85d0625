"""Which eye a frame shows, according to its DICOM object."""

from collections.abc import Iterator

import pydicom

from fundus.images.content import EYE

WORDS = dict.fromkeys(("R", "OD", "RE", "RIGHT"), "OD") | dict.fromkeys(
    ("L", "OS", "LE", "LEFT"), "OS"
)
"""Words for the eye in files, without "EYE" at the end and anything but letters. The standard
allows only R and L."""
CODES = {"24028007": "OD", "G-A100": "OD", "7771000": "OS", "G-A101": "OS"}
"""Right and left in SNOMED CT and in the older SNOMED codes that DICOM still allows."""


def laterality(dataset: pydicom.Dataset, index: int) -> tuple[str | None, tuple[str, ...]]:
    """Return "OD", "OS" or None for frame `index` (from 0), and a remark if two eyes are named.

    The elements ImageLaterality, Laterality and FrameLaterality are read, and the modifiers of the
    anatomic region and the primary anatomic structure. They are also read in the functional groups
    of this frame and of all frames.
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
        value = item.get(keyword) or ""
        for word in [value] if isinstance(value, str) else value:
            letters = "".join(filter(str.isalpha, str(word).upper()))
            side = WORDS.get(letters.removesuffix("EYE"))
            if side:
                yield side
    for part in ("AnatomicRegion", "PrimaryAnatomicStructure"):
        for region in item.get(f"{part}Sequence") or []:
            for modifier in region.get(f"{part}ModifierSequence") or []:
                side = CODES.get(str(modifier.get("CodeValue") or "").strip())
                if side:
                    yield side
