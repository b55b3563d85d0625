"""Measures as a DICOM Structured Report by template TID 1500 (Measurement Report)."""

from collections.abc import Mapping

from highdicom import sr
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from fundus.dicom_in.objects import silence
from fundus.dicom_out import source as sources

# DICOM's own codes and unit, from its context group 4281 (Optic Disc Key Measurements).
CODES = {
    "vcdr": Code("131257", "DCM", "Cup to disc ratio vertical"),
    "hcdr": Code("131258", "DCM", "Cup to disc ratio horizontal"),
    "area_cdr": Code("131256", "DCM", "Cup to disc area ratio"),
}
RATIO = Code("{ratio}", "UCUM", "ratio")
EYE = Code("81745001", "SCT", "Eye")
SIDES = {"OD": Code("24028007", "SCT", "Right"), "OS": Code("7771000", "SCT", "Left")}
PROCEDURE = Code("314971001", "SCT", "Camera fundoscopy")


def report(
    header: bytes,
    measures: Mapping[str, float | None],
    *,
    bundle: str,
    identity: str,
    frame: int = 1,
    laterality: str | None = None,
) -> bytes:
    """The measures of one frame as a DICOM file.

    The report refers to the original, and to the segmentation that `seg.segmentation` makes for the
    same frame, bundle and identity.

    Args:
        header: `Picture.header` of the original.
        measures: by the names in `CODES`; other names and None are left out.
        bundle: digest of the bundle that measured.
        identity: of the result; it determines the UIDs of the file.
        frame: number of the frame in the original, from 1.
        laterality: "OD", "OS" or None.

    Raises:
        ValueError: there is no measure, the original has no such frame, or no object can be built
            on its header. The message quotes nothing of the header.
    """
    with silence():
        source = sources.read(header)
        frames = sources.frame_reference(source, frame)
        known = {name: value for name in CODES if (value := measures.get(name)) is not None}
        if not known:
            raise ValueError("there is no measure to report")
        segmented = _segmentation(source, frame, bundle, identity)
        try:
            made = sr.ComprehensiveSR(
                evidence=[source, segmented],
                content=_content(
                    source, segmented, known, frames, bundle, identity, frame, laterality
                ),
                series_instance_uid=sources.series_uid(source, "sr", bundle),
                series_number=901,
                sop_instance_uid=sources.instance_uid(source, "sr", frame, identity),
                instance_number=frame,
                manufacturer=sources.MANUFACTURER,
                is_complete=True,
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            kind = type(error).__name__
            raise ValueError(f"no report can be built on this header ({kind})") from None
        _name_the_segment_alone(made)
        return sources.finish(made, source)


def _segmentation(source: Dataset, frame: int, bundle: str, identity: str) -> Dataset:
    """The attributes of the segmentation that references need."""
    segmented = Dataset()
    segmented.SOPClassUID = uid.SegmentationStorage
    segmented.SOPInstanceUID = sources.instance_uid(source, "seg", frame, identity)
    segmented.SeriesInstanceUID = sources.series_uid(source, "seg", bundle)
    segmented.StudyInstanceUID = source.StudyInstanceUID
    return segmented


def _name_the_segment_alone(item: Dataset) -> None:
    """Remove frame numbers beside segment numbers: highdicom writes both, DICOM allows one."""
    for reference in item.get("ReferencedSOPSequence", []):
        if "ReferencedSegmentNumber" in reference:
            reference.pop("ReferencedFrameNumber", None)
    for child in item.get("ContentSequence", []):
        _name_the_segment_alone(child)


def _content(
    source: Dataset,
    segmented: Dataset,
    measures: Mapping[str, float],
    frames: list[int] | None,
    bundle: str,
    identity: str,
    frame: int,
    laterality: str | None,
) -> sr.MeasurementReport:
    observer = sr.ObserverContext(
        observer_type=sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=sources.other_uid(source, "observer", 0, identity),
            name=f"fundus ({sources.NOTE})",
            model_name=f"bundle {bundle[:16]}",
        ),
    )
    algorithm = sr.AlgorithmIdentification(name="fundus", version=bundle[:16])
    disc = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=sources.other_uid(source, "disc", frame, identity), identifier="Optic disc"
        ),
        referenced_segment=sr.ReferencedSegmentationFrame(
            sop_class_uid=segmented.SOPClassUID,
            sop_instance_uid=segmented.SOPInstanceUID,
            frame_number=1,
            segment_number=1,
            source_image=sr.SourceImageForSegmentation(
                source.SOPClassUID, source.SOPInstanceUID, frames
            ),
        ),
        finding_type=sources.OPTIC_DISC,
        algorithm_id=algorithm,
        finding_sites=[sr.FindingSite(EYE, laterality=SIDES.get(laterality or ""))],
        measurements=[
            sr.Measurement(name=CODES[name], value=round(value, 4), unit=RATIO)
            for name, value in measures.items()
        ],
    )
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=PROCEDURE,
        imaging_measurements=[disc],
    )
