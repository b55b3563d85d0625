"""What a row of the results holds: the schema, written once, and the closed list of statuses."""

import pyarrow as pa

from fundus.images.content import REMARKS

FORMAT_VERSION = "3"

OK = "ok"
STATUSES = {
    OK: "measured",
    "ungradable": "a picture that shows too little to be measured",
    "no_disc": "no optic disc was found in the picture",
    "decode_failed": "a picture that is broken",
    "unsupported": "not a picture, or of a kind that is not read",
    "too_large": "more pixels or bytes than are decoded",
    "read_failed": "the bytes could not be fetched",
    "timed_out": "decoding took too long",
    "crashed": "decoding ended its process",
    "model_failed": "a network's answer was not finite numbers",
}
"""Every row has one of these. A new kind of failure needs a new entry, never a silent skip."""
ANSWERS = frozenset((OK, "ungradable", "no_disc"))
"""Statuses of pictures that were read: an answer, whatever it is. All others are failures."""

FLAGS = {
    "no_disc": "the segmenter found no disc in the ROI",
    "no_cup": "the segmenter found a disc and no cup in it",
    "cup_outside_disc": "the cup reached outside the disc and was clipped",
    "poor_quality": "measured although gradability advises against it",
    "two_discs": "the detector saw a second disc, far from the one that was measured",
    "no_dicom_out": "no DICOM object could be built on the file's header",
} | REMARKS
"""What `flags` may hold, and what each says of the picture or of its measures."""

IDENTITY = ("uri", "etag", "measuring", "settings")
"""What an object's result is known by: where it lies, its content, and what measured it how."""

_TEXT, _REAL = pa.string(), pa.float64()

_COLUMNS = [
    ("uri", _TEXT, "where the object lies; percent-encoded as URIs are"),
    ("etag", _TEXT, "changes when the object's content changes"),
    ("frame", pa.int32(), "1-based number of the picture in its object: DICOM frame, page, ..."),
    ("frames", pa.int32(), "pictures in the object, each with a row; 1 where it was not decoded"),
    ("run_id", _TEXT, "the run that wrote this row"),
    ("bundle", _TEXT, "SHA-256 digest of the bundle that measured, or set the risk since"),
    ("measuring", _TEXT, "SHA-256 of its networks, preprocessing and thresholds"),
    (
        "settings",
        _TEXT,
        "how it was measured, where that is not the bundle's: frames or precropped",
    ),
    ("status", _TEXT, "; ".join(f"{name}: {meaning}" for name, meaning in STATUSES.items())),
    ("error", _TEXT, "why the status is not ok, details in parentheses; null where it is"),
    ("width", pa.int32(), "pixels of the upright original frame; null where it was not decoded"),
    ("height", pa.int32(), "pixels of the upright original frame; null where it was not decoded"),
    ("subject", _TEXT, "HMAC-SHA256 of the DICOM patient id; null without the id or a key"),
    ("manufacturer", _TEXT, "of the camera, as the DICOM header names it; else null"),
    ("model", _TEXT, "of the camera, as the DICOM header names it; else null"),
    ("laterality", _TEXT, "OD (right eye) or OS (left eye); null where unknown"),
    ("laterality_source", _TEXT, "dicom: the file says so; anatomy: by the place of the disc"),
    ("quality", _REAL, "gradability, 0 to 1; null where it was not assessed"),
    ("sharpness", _REAL, "contrast of fine structure in the field; null where it was not assessed"),
    ("field_red", _REAL, "mean red of the field, 0 to 255; null where it was not assessed"),
    ("field_green", _REAL, "mean green of the field, 0 to 255; null where it was not assessed"),
    ("field_blue", _REAL, "mean blue of the field, 0 to 255; null where it was not assessed"),
    ("disc_confidence", _REAL, "of the detector, 0 to 1; null where detection was left out"),
    ("roi_x", _REAL, "left edge of the ROI, pixels of the original frame; may lie outside"),
    ("roi_y", _REAL, "upper edge of the ROI, pixels of the original frame; may lie outside"),
    ("roi_size", _REAL, "side of the square ROI, pixels of the original frame"),
    ("vcdr", _REAL, "vertical cup-to-disc ratio, inclusive extents; null without disc or cup"),
    ("hcdr", _REAL, "horizontal cup-to-disc ratio, inclusive extents"),
    ("area_cdr", _REAL, "cup area over disc area"),
    ("rim_inferior", _REAL, "mean rim width of the inferior sector, in vertical disc diameters"),
    ("rim_superior", _REAL, "mean rim width of the superior sector, in vertical disc diameters"),
    ("rim_nasal", _REAL, "mean rim width of the nasal sector; null without laterality"),
    ("rim_temporal", _REAL, "mean rim width of the temporal sector; null without laterality"),
    ("vcdr_sd", _REAL, "standard deviation of vcdr over the maps of all networks and turns"),
    ("flags", pa.list_(_TEXT), "remarks, words of a list of their own; null or empty without any"),
    ("risk", _REAL, "calibrated risk of glaucoma, 0 to 1; null until a bundle is calibrated"),
    ("referable", pa.bool_(), "risk at or above the referral threshold; null without a risk"),
    (
        "disc_height_mm",
        _REAL,
        "vertical disc diameter in mm; null without the file's pixel spacing",
    ),
    ("mask_png", pa.binary(), "8-bit PNG of the ROI frame: 0 background, 1 rim, 2 cup"),
]

REQUIRED = (*IDENTITY, "frame", "frames", "run_id", "bundle", "status")
SKIP_BY = (*REQUIRED, "subject", "laterality", "quality", "vcdr", "vcdr_sd", "risk")
"""Columns of which the table knows each file's lowest and highest value, so that a reader may skip
the file."""

SCHEMA = pa.schema(
    [
        pa.field(
            name,
            kind,
            nullable=name not in REQUIRED,
            metadata={"description": description},
        )
        for name, kind, description in _COLUMNS
    ]
)
"""Columns in order, each with its `description` in the field's metadata."""


def schema(run_id: str, bundle: str) -> pa.Schema:
    """`SCHEMA` with what holds for the whole run in the file's own metadata."""
    return SCHEMA.with_metadata(
        {
            "fundus.format": FORMAT_VERSION,
            "fundus.run_id": run_id,
            "fundus.bundle": bundle,
            "fundus.note": "research use, not a medical device; triage, never a diagnosis",
        }
    )


def table(
    columns: dict[str, list], run_id: str, bundle: str, settings: str, measuring: str = ""
) -> pa.Table:
    """Rows of one run. Columns not given are null, `frame` and `frames` 1; the run's are filled in.

    A column that the schema does not know and a status off the list raise ValueError.
    """
    rows = len(columns["uri"])
    of_run = {"run_id": run_id, "bundle": bundle, "settings": settings, "measuring": measuring}
    columns = {"frame": [1] * rows, "frames": [1] * rows} | columns
    columns |= {name: [value] * rows for name, value in of_run.items()}
    unknown = set(columns) - set(SCHEMA.names)
    if unknown:
        raise ValueError(f"rows have no column {sorted(unknown)}")
    foreign = set(columns["status"]) - set(STATUSES)
    if foreign:
        raise ValueError(f"{sorted(foreign)} is no status of a row")
    filled = {name: columns.get(name, [None] * rows) for name in SCHEMA.names}
    return pa.Table.from_pydict(filled, schema=schema(run_id, bundle))
