"""From bytes of any kind to the pictures in them, or a refusal with its reason."""

from fundus.images import decode, working_frame
from fundus.images.content import Contents, Picture
from fundus.images.refusal import MAX_PIXELS


def pictures(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    subject_key: bytes | None = None,
    keep_header: bool = False,
) -> list[Picture]:
    """The pictures in `data`, as of `contents`, without the lost frames."""
    found = contents(data, max_pixels=max_pixels, subject_key=subject_key, keep_header=keep_header)
    return found.pictures


def contents(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    subject_key: bytes | None = None,
    keep_header: bool = False,
    least_side: int | None = None,
) -> Contents:
    """Read the frames in `data`: pages and frames of a picture file, or frames of a DICOM object.

    The format is recognised by content. Copies of a page at a smaller size are left out. Bytes from
    strangers can crash a reader written in C or exhaust memory: `sandbox.Decoder` calls this
    function in a process of its own.

    Args:
        data: the object.
        max_pixels: of all frames together; checked before any is decoded.
        subject_key: key of the HMAC of the patient id; None for no `subject`.
        keep_header: also return the DICOM header, which names the patient.
        least_side: pixels that the shorter side of a picture keeps if it is reduced to a working
            frame (fundus.images.working_frame); None for the whole.

    Raises:
        Refused: no frame gives pixels.
    """
    if _is_dicom(data):
        from fundus.dicom_in import objects  # not before: pydicom costs 180 ms and 40 MB

        found = objects.read(
            data, max_pixels=max_pixels, subject_key=subject_key, keep_header=keep_header
        )
    else:
        found = decode.read(data, max_pixels=max_pixels, least_side=least_side)
    small = [working_frame.reduced(one, least_side) for one in found.pictures]
    return Contents(small, found.lost)


def _is_dicom(data: bytes) -> bool:
    """Whether `data` is a DICOM file, with its preamble or, as in old archives, without."""
    if data[128:132] == b"DICM":
        return True
    # Without the preamble, the first element is of group 2 or 8: a short number, then VR or length.
    group, element, rest = data[:2], int.from_bytes(data[2:4], "little"), data[4:8]
    explicit = rest[:2].isalpha() and rest[:2].isupper()
    implicit = len(rest) == 4 and rest[1:] == bytes(3)
    return group in (b"\x02\0", b"\x08\0") and element <= 0x20 and (explicit or implicit)
