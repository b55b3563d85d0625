"""Elements about the pixels that a data set lacks or misspells, filled in from the others."""

import pydicom

from fundus.dicom_in.pixels import COLOUR, JPEG, NATIVE
from fundus.images.content import HEADER


def complete(dataset: pydicom.Dataset, syntax: str) -> tuple[str, ...]:
    """Correct the colours, depth and number of frames in a data set.

    Returns:
        A remark if anything was changed.
    """
    filled: dict[str, object] = {}
    declared = str(dataset.get("PhotometricInterpretation") or "")
    photometric = declared.strip(" \0").upper()
    if not photometric:
        photometric = "RGB" if dataset.get("SamplesPerPixel") == 3 else "MONOCHROME2"
    elif syntax in JPEG and photometric.startswith("YBR") and photometric not in COLOUR:
        photometric = "YBR_FULL_422"
    if photometric != declared:
        filled["PhotometricInterpretation"] = photometric
    stored, allocated = dataset.get("BitsStored"), dataset.get("BitsAllocated")
    if not allocated and (stored or syntax not in NATIVE):
        filled["BitsAllocated"] = allocated = 16 if stored and stored > 8 else 8
    if allocated and not stored:
        filled["BitsStored"] = allocated
    if int(dataset.get("NumberOfFrames") or 1) < 1:
        filled["NumberOfFrames"] = 1
    for keyword, value in filled.items():
        setattr(dataset, keyword, value)
    return (HEADER,) if filled else ()
