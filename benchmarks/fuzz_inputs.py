"""Make the inputs of `fuzz_decode.py`: sound files of every kind, their mutations, and bombs."""

import io
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pydicom
from dicom_files import SYNTAXES, dicom_file
from PIL import Image
from pydicom.dataset import Dataset

from fundus.decoding.picture import pictures

PILLOW = {
    "jpeg": ("JPEG", {"quality": 90}),
    "jpeg_progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "tiff": ("TIFF", {}),
    "tiff_lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff_jpeg": ("TIFF", {"compression": "jpeg"}),
    "tiff_deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "bmp": ("BMP", {}),
    "ppm": ("PPM", {}),
    "webp": ("WEBP", {}),
    "gif": ("GIF", {}),
    "jpeg_2000": ("JPEG2000", {}),
}
CONTAINERS = {"zip": ".zip", "tar": ".tar", "gz": ".tar.gz"}
"""The first word of a container's kind, and the suffix that identifies it."""
MEMBERS = ("a.jpg", "day 2/b.dcm", "day 2/ü.png")
SIDE = 256
"""Longer side of the pictures, in pixels: small files allow more mutations per second."""


def sound(folder: Path) -> dict[str, bytes]:
    """Return three real pictures, reduced, in every format and container, by "kind name"."""
    suffixes = (".jpg", ".jpeg", ".png", ".tif", ".ppm")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in suffixes)
    made = {}
    for file in files[:: max(1, len(files) // 3)][:3]:
        pixels = pictures(file.read_bytes())[0].pixels
        scale = SIDE / max(pixels.shape[:2])
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for kinds in (_plain(small), _odd(small), _dicom(small), _containers(small)):
            made |= {f"{kind} {file.name}": data for kind, data in kinds}
    return made


def _plain(small: np.ndarray) -> Iterator[tuple[str, bytes]]:
    for name, (kind, options) in PILLOW.items():
        yield name, _saved(Image.fromarray(small), kind, **options)
    deep = small.astype(np.uint16) * 257
    for suffix in (".png", ".tiff"):
        yield f"deep{suffix}", cv2.imencode(suffix, deep)[1].tobytes()


def _odd(small: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Yield pages, views, joined files, 12 bits, an empty alpha channel and a lost end marker."""
    picture = Image.fromarray(small)
    pages = [picture, picture.rotate(90, expand=True), picture.resize((64, 64))]
    for name, kind in (("tiff_pages", "TIFF"), ("gif_frames", "GIF"), ("webp_frames", "WEBP")):
        same = pages if kind == "TIFF" else [picture, picture.rotate(180)]
        yield name, _saved(same[0], kind, save_all=True, append_images=same[1:])
    yield "mpo", _saved(picture, "MPO", save_all=True, append_images=[picture.rotate(180)])
    for kind in ("PNG", "BMP", "PPM"):
        yield f"joined_{kind.lower()}", _saved(picture, kind) + _saved(pages[1], kind)
    few = (small.astype(np.uint16) * 4095 // 255).astype(np.uint16)
    for suffix in (".png", ".tiff"):
        yield f"12_bits{suffix}", cv2.imencode(suffix, few)[1].tobytes()
    empty = np.dstack([small, np.zeros_like(small[..., 0])])
    yield "png_empty_alpha", _saved(Image.fromarray(empty), "PNG")
    jpeg = cv2.imencode(".jpg", small)[1].tobytes()
    yield "jpeg_no_end", jpeg[:-2]
    at = jpeg.index(b"\xff\xc0")
    yield "jpeg_12_bits", jpeg[: at + 4] + b"\x0c" + jpeg[at + 5 :]


def _dicom(small: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Yield every syntax with one frame and with three, and headers that contradict the pixels."""
    three = np.stack([small] * 3)
    for syntax in SYNTAXES:
        yield f"dicom_{syntax}", dicom_file(small, syntax)
        yield f"dicom_{syntax}_frames", dicom_file(np.stack([small[..., 1]] * 3), syntax)
    yield "dicom_says_rgb", dicom_file(small, "jpeg_baseline", PhotometricInterpretation="RGB")
    for photometric in ("YBR_FULL_422", "MONOCHROME2", "YBR_FULL"):
        name = f"dicom_says_{photometric.lower()}"
        yield name, dicom_file(small, PhotometricInterpretation=photometric)
    signed = (small[..., 1].astype(np.int16) * 16 - 2048).view(np.uint16)
    yield "dicom_signed", dicom_file(signed, bits=12, PixelRepresentation=1)
    for keyword in ("PhotometricInterpretation", "BitsStored"):
        yield f"dicom_no_{keyword.lower()}", _without(dicom_file(small), keyword)
    yield "dicom_one_sample", dicom_file(small, SamplesPerPixel=1)
    yield "dicom_no_uid", _without(dicom_file(small), "SOPInstanceUID")
    coded = dicom_file(three, "jpeg_baseline")
    yield "dicom_cut_in_a_frame", coded[: len(coded) * 2 // 3]
    yield "dicom_no_delimiter", coded[:-8]
    yield "dicom_no_preamble", dicom_file(small)[132:]
    yield "dicom_frame_eyes", dicom_file(three, PerFrameFunctionalGroupsSequence=_eyes("RLR"))


def _without(data: bytes, keyword: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    del dataset[keyword]
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def _eyes(sides: str) -> list[Dataset]:
    """Return functional groups that give the laterality of each frame."""
    groups = []
    for side in sides:
        anatomy, group = Dataset(), Dataset()
        anatomy.FrameLaterality = side
        group.FrameAnatomySequence = [anatomy]
        groups.append(group)
    return groups


def _containers(small: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Yield zips and tars, alone and joined."""
    picture = Image.fromarray(small).resize((64, 64))
    files = (_saved(picture, "JPEG"), dicom_file(np.asarray(picture)), _saved(picture, "PNG"))
    members = dict(zip(MEMBERS, files, strict=True))
    second = {f"second/{name}": data for name, data in members.items()}
    for kind, compression in (("deflated", zipfile.ZIP_DEFLATED), ("stored", zipfile.ZIP_STORED)):
        one, other = (_zip(some, compression) for some in (members, second))
        yield f"zip_{kind}", one
        yield f"zip_{kind}_joined", one + other
    for kind, mode in (("tar", "w"), ("gz", "w:gz")):
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
            one, other = (_tar(some, mode, form) for some in (members, second))
            yield f"{kind}_{form}", one
            yield f"{kind}_{form}_joined", one + other


def _zip(members: dict[str, bytes], compression: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as container:
        for name, data in members.items():
            container.writestr(name, data)
    return stream.getvalue()


def _tar(members: dict[str, bytes], mode: str, form: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def mutated(files: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Return the kind and a broken file, the same for the same files, seed and number."""
    rng = random.Random(f"{seed} {number}")
    name = rng.choice(list(files))
    data = bytearray(files[name])
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        # Headers come first: half of the changes are made there.
        at = rng.randrange(min(len(data), 1200) if rng.random() < 0.5 else len(data))
        length = rng.choice((1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                data[at : at + length] = rng.randbytes(length)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at : at + length] = rng.choice((b"\xff", b"\0", b"\x7f")) * length
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length * 8]
            case 5:
                other = files[rng.choice(list(files))]
                data[at : at + length * 4] = other[at : at + length * 4]
        if not data:
            break
    if rng.random() < 0.2:
        del data[rng.randrange(len(data) + 1) :]
    return name.split()[0], bytes(data)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Yield small files that decode to a huge size, or claim to."""
    yield "PNG of 20000 x 20000", _vast_png(20_000)
    yield "PNG of 7000 x 7000", _vast_png(7_000)
    yield "empty file", b""
    small = np.zeros((64, 64, 3), np.uint8)
    deflated = dicom_file(small, "deflated")
    start = deflated.index(b"1.2.840.10008.1.2.1.99") + 22
    yield "deflated DICOM of 1 GiB", deflated[:start] + _deflated_zeros(1 << 30)
    yield "DICOM of 2000000000 frames", dicom_file(small, NumberOfFrames=2_000_000_000)
    yield "DICOM of 65535 x 65535", dicom_file(small, Rows=65_535, Columns=65_535)
    yield "RLE DICOM of 7000 x 7000", dicom_file(small, "rle", Rows=7_000, Columns=7_000)
    vast = cv2.imencode(".jp2", np.zeros((7_000, 7_000), np.uint8))[1].tobytes()
    yield "JPEG 2000 of 7000 x 7000", vast
    for syntax, marker in (("jpeg_baseline", ">HH"), ("jpeg_ls", ">HH"), ("jpeg_2000", ">II")):
        coded = dicom_file(small, syntax)
        huge = coded.replace(struct.pack(marker, 64, 64), struct.pack(marker, 65_500, 65_500))
        yield f"{syntax} of 65500 x 65500 in a DICOM of 64 x 64", huge
    yield "TIFF of one vast strip", _tiff(40_000, 1_000, 40_000_000)
    yield "TIFF of 4 GiB", _tiff(65_000, 65_000, 0xFFFFFFF0)
    bitmap = b"BM" + struct.pack("<IIIIiiHHII", 54, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0)
    yield "BMP of 50000 x 50000", bitmap + bytes(16)
    yield "PPM of 60000 x 60000", b"P6 60000 60000 255\n" + bytes(64)
    yield "GIF of 65535 x 65535", b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(64)


def _deflated_zeros(size: int) -> bytes:
    """Return a raw deflate stream of `size` zeros, made by repeating one part."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    part = packer.compress(bytes(1 << 16)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return part * (size >> 16) + packer.compress(bytes(size & 0xFFFF)) + packer.flush()


def _vast_png(side: int) -> bytes:
    size = side * (1 + 3 * side)
    checksum = struct.pack(">HH", size % 65_521, 1)  # Adler-32 of zeros
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = b"\x78\xda" + _deflated_zeros(size) + checksum
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [(b"IHDR", head), (b"IDAT", body), (b"IEND", b"")]
    )


def _tiff(width: int, height: int, strip: int) -> bytes:
    """Return a TIFF whose header claims one deflated strip of `strip` bytes; it has 8."""
    tags = [
        *((256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1)),
        *((273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, strip)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 16) + zlib.compress(bytes(64))[:8].ljust(8) + directory
