"""The original object of a result, and the UIDs of the objects that are derived from it.

The same result gives the same UIDs. Because all dates are the original's, it also gives the same
bytes, so writing again is harmless. The `identity` of a result is that of its row, as text: URI and
content of the original, networks and settings. The original's own UID is not enough: archives
contain two objects of one UID, and a corrected object keeps its UID.
"""

import io
import uuid
from typing import Literal

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from fundus.dicom_in.objects import silence

Kind = Literal["seg", "sr"]

MANUFACTURER = "fundus"
NOTE = "research use, not a medical device; triage, never a diagnosis"
ARTIFICIAL_INTELLIGENCE = Code("123109", "DCM", "Artificial Intelligence")
OPTIC_DISC = Code("81016008", "SCT", "Optic nerve head")

_MUST = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Type 2: they must be present and may be empty.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


def read(header: bytes) -> Dataset:
    """Read the data set in a `Picture.header`; ValueError if it lacks a UID or its size."""
    source = pydicom.dcmread(io.BytesIO(header))
    missing = [keyword for keyword in (*_MUST, "Rows", "Columns") if not source.get(keyword)]
    if missing:
        raise ValueError(f"the DICOM header lacks {', '.join(missing)}")
    for keyword in _MAY_BE_EMPTY:
        if keyword not in source:
            setattr(source, keyword, "")
    if source.PatientSex not in ("M", "F", "O"):
        source.PatientSex = ""
    return source


def frame_reference(source: Dataset, frame: int) -> list[int] | None:
    """The frame's number for references; None if the original has only one frame.

    Raises:
        ValueError: the original has no such frame.
    """
    count = int(source.get("NumberOfFrames") or 1)
    if not 1 <= frame <= count:
        raise ValueError(f"the source has no frame {frame}")
    return [frame] if count > 1 else None


def instance_uid(source: Dataset, kind: Kind, frame: int, identity: str) -> str:
    """The UID of the object of this kind for the frame's result."""
    return _uid(kind, source.SOPInstanceUID, frame, identity)


def series_uid(source: Dataset, kind: Kind, bundle: str) -> str:
    """The UID of the series of all objects of a kind that a bundle derives from one series."""
    return _uid(kind, "series", source.SeriesInstanceUID, bundle)


def other_uid(source: Dataset, what: str, frame: int, identity: str) -> str:
    """The UID of an item inside such an object."""
    return _uid(what, source.SOPInstanceUID, frame, identity)


def file_name(header: bytes, kind: Kind, *, identity: str, frame: int = 1) -> str:
    """`<kind>-<UID>.dcm` with the new object's UID, which tells nothing about the patient."""
    with silence():
        return f"{kind}-{instance_uid(read(header), kind, frame, identity)}.dcm"


def _uid(*parts: object) -> str:
    name = "\n".join(str(part) for part in parts)
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def finish(made: Dataset, source: Dataset) -> bytes:
    """The object as a file, with the original's dates instead of the current time."""
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        made.pop(keyword, None)
    for item in made.get("ContributingEquipmentSequence", []):
        item.pop("ContributionDateTime", None)
    made.ContentDate = source.get("ContentDate") or source.StudyDate or "19000101"
    made.ContentTime = source.get("ContentTime") or source.StudyTime or "000000"
    made.SeriesDescription = "Optic disc and cup (research use)"
    made.file_meta.ImplementationClassUID = uid.PYDICOM_IMPLEMENTATION_UID
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
