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
from fundus.dicom_in.objects import silence
from fundus.dicom_out import source as sources

SEGMENTS = (
    ("Optic disc", sources.OPTIC_DISC),
    # No public scheme has a code for the cup as a structure (DICOM codes its area and volume).
    ("Optic cup", Code("optic-cup", "99FUNDUS", "Optic cup")),
)
"""Segment 1 is the disc including the cup, segment 2 is the cup: they overlap."""


def segmentation(
    header: bytes, mask: np.ndarray, *, bundle: str, identity: str, frame: int = 1
) -> bytes:
    """The mask of one frame as a DICOM file, with the original's patient, study and reference.

    Args:
        header: `Picture.header` of the original.
        mask: HW uint8 {0, 1, 2} in original coordinates (`roi.restore`).
        bundle: digest of the bundle that made the mask.
        identity: of the result; it determines the UIDs of the file.
        frame: number of the frame in the original, from 1.

    Raises:
        ValueError: the mask has another size, the original has no such frame, or no object can be
            built on its header. The message quotes nothing of the header.
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
        made.PatientOrientation = ""  # required, may be empty (type 2): laterality tells the eye
        # The macro is invalid without a slice thickness; the spacing is in the original image.
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
    """The original as an object of a single frame, only for the builder.

    highdicom requires functional groups of each object that may have several frames. Ophthalmic
    photographs may have several, and have no such groups. `_refer` sets the true references.
    """
    single = copy.deepcopy(source)
    single.SOPClassUID = uid.SecondaryCaptureImageStorage
    single.pop("NumberOfFrames", None)
    return single


def _refer(made: Dataset, source: Dataset, frames: list[int] | None) -> None:
    """Set the true class in every reference to the original, and the frame in those to pixels."""
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
