"""The columns of a row of the results, and the closed lists of its statuses and flags."""

import pyarrow as pa

from fundus.images.content import REMARKS

FORMAT_VERSION = "3"

OK = "ok"
STATUSES = {
    OK: "measured",
    "ungradable": "the picture shows too little to be measured",
    "no_disc": "no optic disc was found in the picture",
    "decode_failed": "the picture is broken",
    "unsupported": "not a picture, or of a kind that is not read",
    "too_large": "more pixels or bytes than are read",
    "read_failed": "the bytes could not be fetched",
    "timed_out": "decoding took too long",
    "crashed": "decoding or measuring ended its process",
    "model_failed": "the output of a network was not finite numbers",
}
"""Every row has one of these. A new kind of failure needs a new entry, never a silent skip."""
ANSWERS = frozenset((OK, "ungradable", "no_disc"))
"""Statuses of pictures that were read and assessed. All others are failures."""

FLAGS = {
    "no_disc": "the segmenter found no disc in the ROI",
    "no_cup": "the segmenter found a disc but no cup",
    "cup_outside_disc": "the cup reached outside the disc and was clipped",
    "poor_quality": "measured although gradability advises against it",
    "two_discs": "the detector saw a second disc, far from the one that was measured",
    "no_dicom_out": "no DICOM object could be made from the file's header",
} | REMARKS
"""The remarks that `flags` may hold, each with its meaning."""

IDENTITY = ("uri", "etag", "measuring", "settings")
"""The columns that identify a result: the object, its content, the networks and the settings."""

_TEXT, _REAL = pa.string(), pa.float64()

_COLUMNS = [
    ("uri", _TEXT, "URI of the object, percent-encoded; or its pseudonym"),
    ("etag", _TEXT, "changes when the object's content changes"),
    ("frame", pa.int32(), "1-based number of the picture in its object: DICOM frame, page, ..."),
    ("frames", pa.int32(), "pictures in the object, each with a row; 1 if it was not decoded"),
    ("run_id", _TEXT, "the run that wrote this row"),
    ("bundle", _TEXT, "SHA-256 digest of the bundle that measured, or that set the risk later"),
    ("measuring", _TEXT, "SHA-256 of its networks, preprocessing and thresholds"),
    (
        "settings",
        _TEXT,
        "settings besides the bundle: frames or precropped, gradability, profile",
    ),
    ("status", _TEXT, "; ".join(f"{name}: {meaning}" for name, meaning in STATUSES.items())),
    ("error", _TEXT, "why the status is not ok, with details in parentheses; null if it is ok"),
    ("width", pa.int32(), "pixels of the upright original frame; null if it was not decoded"),
    ("height", pa.int32(), "pixels of the upright original frame; null if it was not decoded"),
    ("subject", _TEXT, "HMAC-SHA256 of the DICOM patient id; null without the id or a key"),
    ("manufacturer", _TEXT, "manufacturer of the camera in the DICOM header; else null"),
    ("model", _TEXT, "model of the camera in the DICOM header; else null"),
    ("laterality", _TEXT, "OD (right eye) or OS (left eye); null if unknown"),
    ("laterality_source", _TEXT, "dicom: stated by the file; anatomy: by the location of the disc"),
    ("quality", _REAL, "gradability, 0 to 1; null if it was not assessed"),
    ("sharpness", _REAL, "contrast of fine structure in the field; null if it was not assessed"),
    ("field_red", _REAL, "mean red of the field, 0 to 255; null if it was not assessed"),
    ("field_green", _REAL, "mean green of the field, 0 to 255; null if it was not assessed"),
    ("field_blue", _REAL, "mean blue of the field, 0 to 255; null if it was not assessed"),
    ("disc_confidence", _REAL, "confidence of the detector, 0 to 1; null without detection"),
    ("roi_x", _REAL, "left edge of the ROI, pixels of the original frame; may be outside it"),
    ("roi_y", _REAL, "upper edge of the ROI, pixels of the original frame; may be outside it"),
    ("roi_size", _REAL, "side of the square ROI, pixels of the original frame"),
    ("vcdr", _REAL, "vertical cup-to-disc ratio, inclusive extents; null without disc or cup"),
    ("hcdr", _REAL, "horizontal cup-to-disc ratio, inclusive extents"),
    ("area_cdr", _REAL, "cup area over disc area"),
    ("rim_inferior", _REAL, "mean rim width of the inferior sector, in vertical disc diameters"),
    ("rim_superior", _REAL, "mean rim width of the superior sector, in vertical disc diameters"),
    ("rim_nasal", _REAL, "mean rim width of the nasal sector; null without laterality"),
    ("rim_temporal", _REAL, "mean rim width of the temporal sector; null without laterality"),
    ("vcdr_sd", _REAL, "standard deviation of vcdr over the maps of all networks and turns"),
    ("flags", pa.list_(_TEXT), "remarks from a closed list; null or empty without any"),
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
"""Columns of which the table stores each file's lowest and highest value, so that readers may skip
files."""

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
    """`SCHEMA` with facts about the whole run in the file's metadata."""
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
    """Make rows of one run.

    Args:
        columns: lists of values by the column's name, `uri` at least. Columns that are not given
            are null; `frame` and `frames` are 1.
        run_id, bundle, settings, measuring: written into every row.

    Raises:
        ValueError: a column that the schema does not have, or an unknown status.
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
        raise ValueError(f"rows have no status {sorted(foreign)}")
    filled = {name: columns.get(name, [None] * rows) for name in SCHEMA.names}
    return pa.Table.from_pydict(filled, schema=schema(run_id, bundle))
