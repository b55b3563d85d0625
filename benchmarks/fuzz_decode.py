#!/usr/bin/env python
"""Broken files at the decoder's door: python benchmarks/fuzz_decode.py --count 5000 --data FOLDER

Mutates real pictures of many formats, adds bombs made by hand, and gives all of them to the sandbox
from several threads. Every input must give pictures or a refusal with a status of the closed list;
this process must live, and no child may stay behind. Exit code 1 otherwise. The same seed gives the
same inputs. An input that crashed its reader is kept in --keep.
"""

import argparse
import hashlib
import io
import os
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from dicom_files import SYNTAXES, dicom_file
from PIL import Image

from fundus.images.decode import Refused
from fundus.images.picture import pictures
from fundus.images.sandbox import Decoder

STATUSES = {"ok", "decode_failed", "unsupported", "too_large", "timed_out", "crashed"}
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
SIDE = 256
"""Of the mutated pictures: small files break in more places a second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--data", type=Path, required=True, help="a folder of real pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for an input")
    parser.add_argument("--keep", type=Path, help="where inputs that crash a reader are kept")
    options = parser.parse_args()
    start = time.monotonic()
    sound = _sound(options.data)
    bombs = dict(_bombs())
    print(f"{len(sound)} sound files of {len({k.split()[0] for k in sound})} formats", flush=True)
    names = [*bombs, *(f"mutated {number}" for number in range(options.count - len(bombs)))]
    decoders = [Decoder(timeout_s=options.timeout, max_pixels=50_000_000) for _ in range(2)]
    counts: Counter[str] = Counter()
    by_format: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()

    def one(number: int, decoder: Decoder) -> None:
        name = names[number]
        made = ("bomb", bombs[name]) if name in bombs else _mutated(sound, options.seed, number)
        kind, data = made
        status, reason = _verdict(decoder, data)
        counts[status] += 1
        by_format[kind, status] += 1
        if status in ("crashed", "timed_out"):
            reasons[f"{kind}: {status}: {reason}"] += 1
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
        if name in bombs:
            print(f"  {name} ({len(data)} bytes): {status}: {reason}", flush=True)

    def some(turn: int) -> None:
        for number in range(turn, len(names), len(decoders)):
            one(number, decoders[turn])

    with ThreadPoolExecutor(len(decoders)) as pool:
        list(pool.map(some, range(len(decoders))))
    alive = all(_verdict(decoder, next(iter(sound.values())))[0] == "ok" for decoder in decoders)
    for decoder in decoders:
        decoder.close()
    left = _children()
    _show(counts, by_format, reasons)
    print(
        f"{sum(counts.values())} of {len(names)} inputs have a verdict, {len(left)} children left"
    )
    print(f"the parent lives and still decodes: {alive}; {time.monotonic() - start:.0f} s")
    whole = sum(counts.values()) == len(names) and set(counts) <= STATUSES
    sys.exit(not (whole and alive and not left))


def _verdict(decoder: Decoder, data: bytes) -> tuple[str, str]:
    try:
        found = decoder(data, subject_key=b"fuzz", keep_header=True)
    except Refused as refused:
        return refused.status, refused.reason
    sound = all(p.pixels.dtype == np.uint8 and p.pixels.shape[2:] == (3,) for p in found)
    return ("ok" if found and sound else "nonsense"), f"{len(found)} pictures"


def _sound(folder: Path) -> dict[str, bytes]:
    """Real pictures, made small, in every format and syntax; the first two as they came."""
    suffixes = (".jpg", ".jpeg", ".png", ".tif", ".ppm")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in suffixes)
    sound = {}
    for file in files[:: max(1, len(files) // 3)][:3]:
        pixels = pictures(file.read_bytes())[0].pixels
        scale = SIDE / max(pixels.shape[:2])
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for name, (kind, saving) in PILLOW.items():
            stream = io.BytesIO()
            Image.fromarray(small).save(stream, kind, **saving)
            sound[f"{name} {file.name}"] = stream.getvalue()
        deep = small.astype(np.uint16) * 257
        for suffix in (".png", ".tiff"):
            sound[f"deep{suffix} {file.name}"] = cv2.imencode(suffix, deep)[1].tobytes()
        sound |= {f"{name} {file.name}": data for name, data in _odd(small)}
        for syntax in SYNTAXES:
            sound[f"dicom_{syntax} {file.name}"] = dicom_file(small, syntax)
            sound[f"dicom_{syntax}_frames {file.name}"] = dicom_file(
                np.stack([small[..., 1]] * 3), syntax
            )
    return sound


def _odd(small: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """What hospitals send beside the plain formats: pages, few bits, headers that contradict."""
    picture = Image.fromarray(small)
    pages = [picture, picture.rotate(90, expand=True), picture.resize((64, 64))]
    for name, kind in (("tiff_pages", "TIFF"), ("gif_frames", "GIF"), ("webp_frames", "WEBP")):
        stream = io.BytesIO()
        same = pages if kind == "TIFF" else [picture, picture.rotate(180)]
        same[0].save(stream, kind, save_all=True, append_images=same[1:])
        yield name, stream.getvalue()
    few = (small.astype(np.uint16) * 4095 // 255).astype(np.uint16)
    for suffix in (".png", ".tiff"):
        yield f"12_bits{suffix}", cv2.imencode(suffix, few)[1].tobytes()
    stream = io.BytesIO()
    Image.fromarray(np.dstack([small, np.zeros_like(small[..., 0])])).save(stream, "PNG")
    yield "png_empty_alpha", stream.getvalue()
    jpeg = cv2.imencode(".jpg", small)[1].tobytes()
    yield "jpeg_no_end", jpeg[:-2]
    at = jpeg.index(b"\xff\xc0")
    yield "jpeg_12_bits", jpeg[: at + 4] + b"\x0c" + jpeg[at + 5 :]
    yield "dicom_says_rgb", dicom_file(small, "jpeg_baseline", PhotometricInterpretation="RGB")
    for photometric in ("YBR_FULL_422", "MONOCHROME2", "YBR_FULL"):
        name = f"dicom_says_{photometric.lower()}"
        yield name, dicom_file(small, PhotometricInterpretation=photometric)
    yield "dicom_one_sample", dicom_file(small, SamplesPerPixel=1)
    yield "dicom_no_uid", dicom_file(small, SOPInstanceUID="")
    three = dicom_file(np.stack([small] * 3), "jpeg_baseline")
    yield "dicom_cut_in_a_frame", three[: len(three) * 2 // 3]


def _mutated(sound: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """The format's name and a broken file, always the same for the same seed and number."""
    rng = random.Random(f"{seed} {number}")
    name = rng.choice(list(sound))
    data = bytearray(sound[name])
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        # Headers lie early: half of the changes go there.
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
                other = sound[rng.choice(list(sound))]
                data[at : at + length * 4] = other[at : at + length * 4]
        if not data:
            break
    if rng.random() < 0.2:
        del data[rng.randrange(len(data) + 1) :]
    return name.split()[0], bytes(data)


def _bombs() -> Iterator[tuple[str, bytes]]:
    """Small files that unfold to much, or promise to."""
    yield "PNG of 20000 x 20000", _vast_png(20_000)
    yield "PNG of 7000 x 7000", _vast_png(7_000)
    yield "nothing", b""
    small = np.zeros((64, 64, 3), np.uint8)
    deflated = dicom_file(small, "deflated")
    start = deflated.index(b"1.2.840.10008.1.2.1.99") + 22
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    yield "deflated DICOM of 1 GiB", deflated[:start] + body
    yield "DICOM of 2000000000 frames", dicom_file(small, NumberOfFrames=2_000_000_000)
    yield "DICOM of 65535 x 65535", dicom_file(small, Rows=65_535, Columns=65_535)
    yield "RLE DICOM of 7000 x 7000", dicom_file(small, "rle", Rows=7_000, Columns=7_000)
    vast = cv2.imencode(".jp2", np.zeros((7_000, 7_000), np.uint8))[1].tobytes()
    yield "JPEG 2000 of 7000 x 7000", vast
    coded = dicom_file(small, "jpeg_baseline")
    yield (
        "JPEG of 65500 x 65500 in a DICOM of 64 x 64",
        coded.replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 65_500, 65_500)),
    )
    yield "TIFF of one vast strip", _tiff(40_000, 1_000, 40_000_000)
    yield "TIFF of 4 GiB", _tiff(65_000, 65_000, 0xFFFFFFF0)
    bitmap = b"BM" + struct.pack("<IIIIiiHHII", 54, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0)
    yield "BMP of 50000 x 50000", bitmap + bytes(16)
    yield "PPM of 60000 x 60000", b"P6 60000 60000 255\n" + bytes(64)
    yield "GIF of 65535 x 65535", b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(64)


def _vast_png(side: int) -> bytes:
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [(b"IHDR", head), (b"IDAT", body), (b"IEND", b"")]
    )


def _tiff(width: int, height: int, strip: int) -> bytes:
    """A TIFF header that promises one strip of so many bytes, deflated, and has 8."""
    tags = [
        *((256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1)),
        *((273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, strip)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 16) + zlib.compress(bytes(64))[:8].ljust(8) + directory


def _children() -> list[str]:
    """Processes whose parent is this one: none should be left."""
    left = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # ended meanwhile
        if int(parent) == os.getpid():
            left.append(f"{stat.parent.name} {state}")
    return left


def _show(counts: Counter, by_format: Counter, reasons: Counter) -> None:
    print("\nby status:", dict(counts.most_common()))
    print("by format:")
    for kind in sorted({kind for kind, _ in by_format}):
        verdicts = {status: n for (k, status), n in sorted(by_format.items()) if k == kind}
        print(f"  {kind}: {verdicts}")
    print("crashed or timed out:")
    for reason, count in reasons.most_common():
        print(f"  {count} x {reason}")


if __name__ == "__main__":
    main()
