import io
import shutil
import subprocess
import traceback
import warnings

import cv2
import highdicom
import numpy as np
import pyarrow as pa
import pydicom
import pytest
from dicom_files import dicom_file
from pydicom import uid

from fundus.anatomy.biomarkers import vcdr
from fundus.anatomy.labels import cup_of, disc_of
from fundus.decoding.picture import pictures
from fundus.dicom_out.seg import segmentation
from fundus.dicom_out.source import file_name
from fundus.dicom_out.sr import report
from fundus.field import roi
from fundus.ledger import row
from fundus.ledger.runs import Run
from fundus.screening.dicom import WriteObjects

RESULT = "file:///a/b.dcm\n1-2\n5e5e\nframes"
ABOUT = {"bundle": "5e" * 32, "identity": RESULT}
FRAME = np.full((240, 320, 3), 90, np.uint8)


def drawn_mask():
    """A disc and a cup outlined in a ROI, put back into the frame."""
    rows, columns = np.mgrid[:64, :64] - 31.5
    in_roi = (np.hypot(rows, columns) < 24).astype(np.uint8) + (np.hypot(rows * 0.8, columns) < 10)
    return roi.restore(in_roi.astype(np.uint8), roi.around(200.0, 100.0, 90.0), 240, 320)


MASK = drawn_mask()
MEASURES = {"vcdr": vcdr(MASK), "hcdr": 0.4, "area_cdr": None, "rim_nasal": 0.3}


def header(pixels=FRAME, frame=1, without=(), **elements):
    dataset = pydicom.dcmread(io.BytesIO(dicom_file(pixels, **elements)))
    for keyword in without:
        del dataset[keyword]
    stream = io.BytesIO()
    dataset.save_as(stream)
    return pictures(stream.getvalue(), keep_header=True)[frame - 1].header


def read(data):
    return pydicom.dcmread(io.BytesIO(data))


def both(source, **options):
    yield segmentation(source, MASK, **ABOUT, **options)
    yield report(source, MEASURES, **ABOUT, **options)


def test_the_segments_are_the_disc_with_its_cup_and_the_cup():
    made = highdicom.seg.segread(io.BytesIO(segmentation(header(), MASK, **ABOUT)))
    assert [s.segment_label for s in map(made.get_segment_description, (1, 2))] == [
        "Optic disc",
        "Optic cup",
    ]
    assert (made.pixel_array[0] == disc_of(MASK)).all()
    assert (made.pixel_array[1] == cup_of(MASK)).all() and made.pixel_array[1].any()


def test_every_object_refers_to_its_source_and_belongs_to_its_study():
    source = read(header())
    for data in both(header()):
        made = read(data)
        assert made.PatientID == source.PatientID and made.PatientName == source.PatientName
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert made.SeriesInstanceUID != source.SeriesInstanceUID
        text = str(made)
        assert source.SOPInstanceUID in text and "Ophthalmic Photography 8 Bit" in text
        assert "Secondary Capture" not in text


def test_the_frame_is_named_where_the_source_has_several():
    frames = np.stack([FRAME, FRAME])
    for data in both(header(frames, frame=2), frame=2):
        assert "Referenced Frame Number             IS: '2'" in str(read(data))
    for data in both(header()):
        assert "Referenced Frame Number" not in str(read(data))
    with pytest.raises(ValueError, match="no frame 3"):
        segmentation(header(frames), MASK, **ABOUT, frame=3)


def numbers(item):
    """Code, value and unit of every number in a report."""
    if item.get("ValueType") == "NUM":
        measured = item.MeasuredValueSequence[0]
        unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
        yield item.ConceptNameCodeSequence[0].CodeValue, float(measured.NumericValue), unit
    for child in item.get("ContentSequence", []):
        yield from numbers(child)


def test_the_report_holds_the_ratios_in_dicoms_own_codes():
    made = read(report(header(), MEASURES, **ABOUT, laterality="OD"))
    assert made.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    found = list(numbers(made))
    assert found == [
        ("131257", pytest.approx(MEASURES["vcdr"], abs=1e-4), "{ratio}"),
        ("131258", 0.4, "{ratio}"),
    ]
    assert "24028007" in str(made) and "7771000" not in str(made)  # right, left
    (segmented,) = [read(d) for d in both(header()) if read(d).Modality == "SEG"]
    assert segmented.SOPInstanceUID in str(made)
    with pytest.raises(ValueError, match="no measure"):
        report(header(), {"vcdr": None}, **ABOUT)


def test_writing_again_gives_the_same_bytes_and_another_result_another_object():
    assert list(both(header())) == list(both(header()))
    other = segmentation(header(), MASK, bundle="5e" * 32, identity=RESULT.replace("1-2", "1-3"))
    first = segmentation(header(), MASK, **ABOUT)
    assert read(other).SOPInstanceUID != read(first).SOPInstanceUID
    assert read(first).SOPInstanceUID in file_name(header(), "seg", identity=RESULT)


def test_file_names_and_errors_contain_no_personal_data():
    source = header(PatientSex="Planted", StudyDate="Planted")
    with pytest.warns(UserWarning, match="lanted"):  # by pydicom itself
        wrong = header(SOPInstanceUID="Planted")
    texts = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for kind in ("seg", "sr"):
            texts += [file_name(one, kind, identity=RESULT) for one in (source, wrong)]
    texts += [str(one.message) for one in warned]
    for broken in (source, header(without=["StudyInstanceUID"]), header()):
        try:
            segmentation(broken, MASK[:-1] if broken == header() else MASK, **ABOUT)
        except ValueError as error:
            texts.append("".join(traceback.format_exception(error)))
    assert len(texts) > 3
    assert not [text for text in texts for word in ("lanted", "PLANTED", "1942") if word in text]


@pytest.mark.parametrize("missing", ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID"])
def test_a_measured_eye_without_its_uids_stays_ok_and_is_flagged_as_no_dicom_out(tmp_path, missing):
    mask = cv2.imencode(".png", MASK[55:145, 155:245])[1].tobytes()
    measured = {
        **{"uri": "a.dcm", "etag": "1", "status": "ok", "mask_png": mask, "vcdr": 0.5},
        **{"roi_x": 155.0, "roi_y": 55.0, "roi_size": 90.0, "height": 240, "width": 320},
    }
    rows = row.table({k: [v, v] for k, v in measured.items()}, "r", "5e" * 32, "frames")
    headers = pa.array([header(without=[missing]), header()], pa.binary())
    table = WriteObjects(str(tmp_path), Run("r", "5e" * 32, "frames"))(
        rows.append_column("header", headers)
    )
    assert table["status"].to_pylist() == ["ok", "ok"] and table["vcdr"].to_pylist() == [0.5, 0.5]
    assert table["flags"].to_pylist() == [["no_dicom_out"], None]
    assert len(list(tmp_path.rglob("*.dcm"))) == 2  # of the other eye


@pytest.mark.parametrize(
    ("frame", "elements"),
    [
        (1, {}),
        (2, {"storage": uid.OphthalmicPhotography8BitImageStorage}),
        (2, {"storage": uid.MultiFrameTrueColorSecondaryCaptureImageStorage}),
        (1, {"storage": uid.VLPhotographicImageStorage, "without": ["NumberOfFrames"]}),
        (1, {"PatientName": "Müller^Jürgen", "SpecificCharacterSet": "ISO_IR 100"}),
        (1, {"without": ["FrameOfReferenceUID", "PatientSex", "StudyID", "ContentDate"]}),
        (1, {"LossyImageCompression": "01", "LossyImageCompressionRatio": 12}),
    ],
)
def test_a_dicom_validator_finds_no_error(tmp_path, frame, elements):
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    pixels = FRAME if frame == 1 else np.stack([FRAME] * frame)
    for number, data in enumerate(both(header(pixels, frame=frame, **elements), frame=frame)):
        file = tmp_path / f"{number}.dcm"
        file.write_bytes(data)
        done = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True)
        assert "Segmentation" in done.stderr or "ComprehensiveSR" in done.stderr
        assert "Error" not in done.stderr, done.stderr
