"""The door: bytes of any kind in, the pictures that they hold out, or a refusal with its reason."""

from fundus.images import decode
from fundus.images.content import Contents, Picture
from fundus.images.refusal import MAX_PIXELS


def pictures(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    subject_key: bytes | None = None,
    keep_header: bool = False,
) -> list[Picture]:
    """The pictures in `data`, as `contents` gives them, without the frames that are lost."""
    found = contents(data, max_pixels=max_pixels, subject_key=subject_key, keep_header=keep_header)
    return found.pictures


def contents(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    subject_key: bytes | None = None,
    keep_header: bool = False,
) -> Contents:
    """The frames in `data`, told by content: pages and frames of a picture file, frames of DICOM.

    Copies of a page at a smaller size are passed over. `max_pixels` bounds all frames of one object
    together and is checked before any is decoded. Raises Refused where no frame gives pixels. Bytes
    from strangers can still crash a reader written in C or make it take all memory:
    `sandbox.Decoder` is this door in a process of its own.
    """
    if _is_dicom(data):
        from fundus.images import dicom  # with the first DICOM alone: pydicom costs 180 ms, 40 MB

        return dicom.read(
            data, max_pixels=max_pixels, subject_key=subject_key, keep_header=keep_header
        )
    return decode.read(data, max_pixels=max_pixels)


def _is_dicom(data: bytes) -> bool:
    """Whether `data` is a DICOM file, with the preamble or, as old archives have them, without."""
    if data[128:132] == b"DICM":
        return True
    # Without it, the first element is one of group 2 or 8: a short number and a VR, or a length.
    group, element, rest = data[:2], int.from_bytes(data[2:4], "little"), data[4:8]
    explicit = rest[:2].isalpha() and rest[:2].isupper()
    implicit = len(rest) == 4 and rest[1:] == bytes(3)
    return group in (b"\x02\0", b"\x08\0") and element <= 0x20 and (explicit or implicit)
