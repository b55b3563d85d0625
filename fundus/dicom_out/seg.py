"""A mask as a DICOM Segmentation object that refers to its source image."""

import copy

import highdicom
import numpy as np
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from fundus.anatomy.labels import cup_of, disc_of
from fundus.dicom_out import source as sources
from fundus.images.dicom import silence

SEGMENTS = (
    ("Optic disc", sources.OPTIC_DISC),
    # No public scheme has a code for the cup as a structure (DICOM codes its area and volume).
    ("Optic cup", Code("optic-cup", "99FUNDUS", "Optic cup")),
)
"""Segment 1 is the disc with its cup, segment 2 the cup: they overlap."""


def segmentation(
    header: bytes, mask: np.ndarray, *, bundle: str, identity: str, frame: int = 1
) -> bytes:
    """The mask of one frame as a DICOM file.

    header: `Picture.header` of the source. mask: HW uint8 {0, 1, 2} of the original frame
    (`roi.restore`). bundle: digest of the bundle that made it. identity: of the result, which gives
    the file its UIDs. The file repeats the patient, the study and the frame of reference of the
    source. A mask of another size, a frame that the source has not and a header that cannot be
    built on raise ValueError, which quotes nothing of it.
    """
    with silence():
        source = sources.read(header)
        frames = sources.frame_reference(source, frame)
        if mask.shape != (source.Rows, source.Columns):
            raise ValueError(
                f"the mask is {mask.shape}, the frame {(source.Rows, source.Columns)} pixels"
            )
        stacked = np.stack([disc_of(mask), cup_of(mask)], axis=-1)[None].astype(np.uint8)
        try:
            made = _build(source, stacked, frame, bundle, identity)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            kind = type(error).__name__
            raise ValueError(f"no segmentation can be built on this header ({kind})") from None
        _refer(made, source, frames)
        dimensions = sources.other_uid(source, "dimensions", frame, identity)
        for item in (made.DimensionOrganizationSequence[0], made.DimensionIndexSequence[0]):
            item.DimensionOrganizationUID = dimensions
        made.PatientOrientation = ""  # of type 2: eyes are turned as laterality says
        # Spacing without a slice's thickness is no valid macro; the source image has it.
        made.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence", None)
        made.ContentDescription = sources.NOTE
        return sources.finish(made, source)


def _build(
    source: Dataset, stacked: np.ndarray, frame: int, bundle: str, identity: str
) -> Segmentation:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="fundus", version=bundle[:16], family=sources.ARTIFICIAL_INTELLIGENCE
    )
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=Code("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=code,
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, (label, code) in enumerate(SEGMENTS, start=1)
    ]
    return Segmentation(
        source_images=[_single(source)],
        pixel_array=stacked,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=sources.series_uid(source, "seg", bundle),
        series_number=900,
        sop_instance_uid=sources.instance_uid(source, "seg", frame, identity),
        instance_number=frame,
        manufacturer=sources.MANUFACTURER,
        manufacturer_model_name="fundus",
        software_versions=f"bundle {bundle[:16]}",
        device_serial_number="none",
        omit_empty_frames=False,
    )


def _single(source: Dataset) -> Dataset:
    """The source as one of a single frame, for the builder alone.

    highdicom wants functional groups of every object that may hold several frames; ophthalmic
    photographs hold several and have none. `_refer` puts the true references in.
    """
    single = copy.deepcopy(source)
    single.SOPClassUID = uid.SecondaryCaptureImageStorage
    single.pop("NumberOfFrames", None)
    return single


def _refer(made: Dataset, source: Dataset, frames: list[int] | None) -> None:
    """Every reference to the source names its true class, and those to pixels its frame."""
    derivations = [
        group.DerivationImageSequence[0].SourceImageSequence[0]
        for group in made.PerFrameFunctionalGroupsSequence
    ]
    for item in (
        made.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0],
        *made.get("SourceImageSequence", []),
        *derivations,
    ):
        item.ReferencedSOPClassUID = source.SOPClassUID
    for item in derivations:
        if frames:
            item.ReferencedFrameNumber = frames[0]
