#!/usr/bin/env python
"""Fill an archive as varied as a hospital's, and list the objects that must be found in it.

    python benchmarks/hospital.py s3://bucket/hospital --data data --count 2000 --seed 1

Real frames, reduced, become picture files of all formats and DICOM files in every transfer syntax,
some of them in a zip, tar or tar.gz per day of a clinic. A tenth of the objects are broken by
mutation. The same data, count and seed give the same bytes. `--data` holds the `manifest.csv` of
the development pictures.
"""

import argparse
import csv
import gzip
import io
import random
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count as counted
from pathlib import Path
from urllib.parse import quote

import numpy as np
from dicom_files import SYNTAXES, dicom_file
from PIL import Image

from fundus.storage.places import Place, open_place

FULL_FRAMES = {"refuge_full", "drishti_gs1_full", "drions_disc", "palm_disc", "idrid20_disc"}
MOST_FRAMES = 100
SIDE = 640
"""Longer side of the reduced frames, in pixels."""
FORMATS = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "bmp": "BMP", "ppm": "PPM", "webp": "WEBP"}
CLINICS = ("Augenklinik Süd", "clinic-a", "clinic b", "100% eyes", "day#2")
MEMBERS = 30
"""Per container."""


@dataclass
class Hospital:
    """The objects of an archive."""

    uri: str
    inventory: set[str] = field(default_factory=set)
    """URIs of all objects, including members of containers: each must give one row."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Objects per kind: a format, a transfer syntax, a kind of container or a mutation."""


class Maker:
    """Makes random objects from a seed: picture files, DICOM files and broken files."""

    def __init__(self, data: Path, seed: int) -> None:
        self.data = data
        self.rng = random.Random(seed)
        self.numbers = counted(1)

    @cached_property
    def frames(self) -> list[np.ndarray]:
        """Real frames, HWC uint8 RGB, the longer side `SIDE` pixels."""
        with (self.data / "manifest.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["set"] in FULL_FRAMES]
        chosen = self.rng.sample(rows, min(MOST_FRAMES, len(rows)))
        return [self._small(self.data / row["image"]) for row in chosen]

    @cached_property
    def variety(self) -> list[Path]:
        """Unchanged pictures of many formats and manufacturers."""
        return sorted(file for file in (self.data / "variety").rglob("*") if file.is_file())

    def picture(self) -> tuple[str, str, bytes]:
        """Return (kind, name, content) of a picture file; the kind is its format."""
        kind = self.rng.choice([*FORMATS, "jpg", "jpg", "jpg"])
        options = {"quality": self.rng.randint(80, 97)} if kind in ("jpg", "webp") else {}
        out = io.BytesIO()
        Image.fromarray(self.rng.choice(self.frames)).save(out, FORMATS[kind], **options)
        return kind, f"{self._name()}.{kind}", out.getvalue()

    def dicom(self) -> tuple[str, str, bytes]:
        """Return (kind, name, content) of a DICOM file; the kind is its transfer syntax."""
        number = next(self.numbers)
        kind = SYNTAXES[number % len(SYNTAXES)]
        frame = self.rng.choice(self.frames)
        return kind, f"{self._name()}.dcm", dicom_file(frame, kind, number=number)

    def file(self) -> tuple[str, str, bytes]:
        """Return (kind, name, content) of a picture file or a DICOM file."""
        return self.dicom() if self.rng.random() < 0.25 else self.picture()

    def broken(self) -> tuple[str, str, bytes]:
        """Return (mutation, name, content) of a broken file."""
        _, name, data = self.file()
        mutation = self.rng.choice(list(MUTATIONS))
        return mutation, name, MUTATIONS[mutation](data, self.rng)

    def _name(self) -> str:
        side = self.rng.choice(["OD", "OS"])
        return f"{next(self.numbers):05}_{side}"

    def _small(self, file: Path) -> np.ndarray:
        with Image.open(file) as picture:
            picture.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded no larger than needed
            small = picture.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            return np.asarray(small)


def _flipped(data: bytes, rng: random.Random) -> bytes:
    body = bytearray(data)
    for _ in range(rng.randint(1, 64)):
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    return bytes(body)


def _holed(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + bytes(len(data[start:])) if rng.random() < 0.5 else data[start:]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": lambda data, rng: data[: rng.randrange(1, len(data))],
    "bits flipped": _flipped,
    "zeros or no beginning": _holed,
    "header lost": lambda data, rng: rng.randbytes(64) + data[64:],
    "empty": lambda data, rng: b"",
    "noise": lambda data, rng: rng.randbytes(rng.randrange(1, 20_000)),
    "web page": lambda data, rng: b"<html><body>404 Not Found</body></html>",
}


def build(place: Place, data: Path, count: int = 2000, seed: int = 1) -> Hospital:
    """Put `count` objects into a place, a tenth of them broken; return their inventory."""
    hospital, maker = Hospital(place.uri), Maker(data, seed)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(place.put, *item) for item in _items(hospital, maker, count)]
        for future in futures:
            future.result()
    if len(hospital.inventory) != count:
        raise RuntimeError(f"{count} objects were requested, {len(hospital.inventory)} made")
    return hospital


def _items(hospital: Hospital, maker: Maker, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file to put, and record its objects in `hospital`."""

    def record(kind: str, name: str, inside: str = "") -> None:
        hospital.inventory.add(f"{hospital.uri}/{quote(name)}" + (inside and f"!/{quote(inside)}"))
        hospital.kinds[kind] += 1

    def single(kind: str, name: str, content: bytes) -> tuple[str, bytes]:
        name = f"{_day(maker)}/{name}"
        record(kind, name)
        return name, content

    for file in maker.variety[: count // 10]:
        record("unchanged", f"variety/{file.name}")
        yield f"variety/{file.name}", file.read_bytes()
    for suffix in ("zip", "tar", "tar.gz", "tgz") * (count // 400):
        members = [maker.file() for _ in range(MEMBERS)]
        name = f"{_day(maker)}/archive {next(maker.numbers)}.{suffix}"
        for kind, inside, _ in members:
            record(kind, name, inside)
            hospital.kinds[f"in {suffix}"] += 1
        yield name, _container(suffix, members)
    broken = count // 10
    for suffix in ("zip", "tar", "tar.gz"):
        yield _broken_container(suffix, maker, record)
    for _ in range(broken - hospital.kinds["broken container"]):
        yield single(*maker.broken())
    while len(hospital.inventory) < count:
        yield single(*maker.file())


def _day(maker: Maker) -> str:
    return f"2027-03-{maker.rng.randint(1, 28):02}/{maker.rng.choice(CLINICS)}"


def _container(suffix: str, members: list[tuple[str, str, bytes]]) -> bytes:
    out = io.BytesIO()
    if suffix == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as container:
            for _, name, data in members:
                container.writestr(zipfile.ZipInfo(name), data)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for _, name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue() if suffix == "tar" else gzip.compress(out.getvalue(), 1, mtime=0)


def _broken_container(
    suffix: str, maker: Maker, record: Callable[[str, str, str], None]
) -> tuple[str, bytes]:
    """Return a container that cannot be opened, or a tar that is cut in its fourth member."""
    members = [maker.picture() for _ in range(6)]
    content = _container(suffix, members)
    name = f"{_day(maker)}/spoilt {next(maker.numbers)}.{suffix}"
    if suffix == "zip":
        content = content[: len(content) // 2]
    elif suffix == "tar.gz":
        content = content[:2] + maker.rng.randbytes(5_000)
    else:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            infos = tar.getmembers()
        content = content[: infos[3].offset_data + infos[3].size // 2]
        for kind, inside, _ in members[:3]:
            record(kind, name, inside)
        record("broken container", name, members[3][1])
    record("broken container", name, "")
    return name, content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", help="folder or s3:// prefix to fill")
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--count", type=int, default=2000, help="number of objects")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inventory", type=Path, help="file to write the expected URIs to")
    args = parser.parse_args()
    place = open_place(args.archive)
    hospital = build(place, args.data, args.count, args.seed)
    for kind, number in sorted(hospital.kinds.items()):
        print(f"{number:>6} {kind}")
    print(f"{len(hospital.inventory):>6} objects in {hospital.uri}")
    if args.inventory:
        args.inventory.write_text("".join(f"{uri}\n" for uri in sorted(hospital.inventory)))


if __name__ == "__main__":
    main()
