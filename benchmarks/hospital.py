#!/usr/bin/env python
"""An archive as a hospital has it, and the list of what must come out of it.

    python benchmarks/hospital.py s3://bucket/hospital --data data --count 2000 --seed 1

Real frames, made smaller, as picture files of all kinds, as DICOM in every transfer syntax, in
zips, tars and tar.gz of a clinic's day; a tenth of all is broken by mutation. The same data, count
and seed give the same bytes. `--data` has the `manifest.csv` of development pictures.
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
"""Longer side of the made-smaller frames, in pixels."""
FORMATS = {"jpg": "JPEG", "png": "PNG", "tif": "TIFF", "bmp": "BMP", "ppm": "PPM", "webp": "WEBP"}
CLINICS = ("Augenklinik Süd", "clinic-a", "clinic b", "100% eyes", "day#2")
A_DAY = 30
"""Members of an archive."""


@dataclass
class Hospital:
    """What was put where."""

    uri: str
    inventory: set[str] = field(default_factory=set)
    """URIs of all objects, members of archives among them: one row each must come out."""
    kinds: Counter[str] = field(default_factory=Counter)
    """How many objects of each kind: a format, a transfer syntax, a kind of archive, a mutation."""


class Wards:
    """Makes objects, by chance from a seed: frames, files of them, archives, broken things."""

    def __init__(self, data: Path, seed: int) -> None:
        self.data = data
        self.chance = random.Random(seed)
        self.numbers = counted(1)

    @cached_property
    def frames(self) -> list[np.ndarray]:
        """Real frames, (H, W, 3) uint8, the longer side `SIDE` pixels."""
        with (self.data / "manifest.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["set"] in FULL_FRAMES]
        chosen = self.chance.sample(rows, min(MOST_FRAMES, len(rows)))
        return [self._small(self.data / row["image"]) for row in chosen]

    @cached_property
    def variety(self) -> list[Path]:
        """Pictures as they are, of many kinds and makers."""
        return sorted(file for file in (self.data / "variety").rglob("*") if file.is_file())

    def picture(self) -> tuple[str, str, bytes]:
        """(kind, name, content) of a picture file; the kind is its format."""
        kind = self.chance.choice([*FORMATS, "jpg", "jpg", "jpg"])
        options = {"quality": self.chance.randint(80, 97)} if kind in ("jpg", "webp") else {}
        out = io.BytesIO()
        Image.fromarray(self.chance.choice(self.frames)).save(out, FORMATS[kind], **options)
        return kind, f"{self._name()}.{kind}", out.getvalue()

    def dicom(self) -> tuple[str, str, bytes]:
        """(kind, name, content) of a DICOM file; the kind is its transfer syntax."""
        number = next(self.numbers)
        kind = SYNTAXES[number % len(SYNTAXES)]
        frame = self.chance.choice(self.frames)
        return kind, f"{self._name()}.dcm", dicom_file(frame, kind, number=number)

    def file(self) -> tuple[str, str, bytes]:
        """One of the two."""
        return self.dicom() if self.chance.random() < 0.25 else self.picture()

    def broken(self) -> tuple[str, str, bytes]:
        """(mutation, name, content) of a file that was sound once, or never."""
        _, name, data = self.file()
        mutation = self.chance.choice(list(MUTATIONS))
        return mutation, name, MUTATIONS[mutation](data, self.chance)

    def _name(self) -> str:
        side = self.chance.choice(["OD", "OS"])
        return f"{next(self.numbers):05}_{side}"

    def _small(self, file: Path) -> np.ndarray:
        with Image.open(file) as picture:
            picture.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded no larger than needed
            small = picture.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            return np.asarray(small)


def _flipped(data: bytes, chance: random.Random) -> bytes:
    body = bytearray(data)
    for _ in range(chance.randint(1, 64)):
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return bytes(body)


def _holed(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + bytes(len(data[start:])) if chance.random() < 0.5 else data[start:]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": lambda data, chance: data[: chance.randrange(1, len(data))],
    "bits flipped": _flipped,
    "zeros or no beginning": _holed,
    "header lost": lambda data, chance: chance.randbytes(64) + data[64:],
    "empty": lambda data, chance: b"",
    "noise": lambda data, chance: chance.randbytes(chance.randrange(1, 20_000)),
    "web page": lambda data, chance: b"<html><body>404 Not Found</body></html>",
}


def build(place: Place, data: Path, count: int = 2000, seed: int = 1) -> Hospital:
    """Put `count` objects into a place, a tenth of them broken; what was put."""
    hospital, wards = Hospital(place.uri), Wards(data, seed)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(place.put, *item) for item in _items(hospital, wards, count)]
        for one in waiting:
            one.result()
    if len(hospital.inventory) != count:
        raise RuntimeError(f"{count} objects were asked for, {len(hospital.inventory)} made")
    return hospital


def _items(hospital: Hospital, wards: Wards, count: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each object to put; the hospital is told."""

    def told(kind: str, name: str, inside: str = "") -> None:
        hospital.inventory.add(f"{hospital.uri}/{quote(name)}" + (inside and f"!/{quote(inside)}"))
        hospital.kinds[kind] += 1

    def one(kind: str, name: str, content: bytes) -> tuple[str, bytes]:
        name = f"{_day(wards)}/{name}"
        told(kind, name)
        return name, content

    for file in wards.variety[: count // 10]:
        told("as it was", f"variety/{file.name}")
        yield f"variety/{file.name}", file.read_bytes()
    for suffix in ("zip", "tar", "tar.gz", "tgz") * (count // 400):
        members = [wards.file() for _ in range(A_DAY)]
        name = f"{_day(wards)}/archive {next(wards.numbers)}.{suffix}"
        for kind, inside, _ in members:
            told(kind, name, inside)
            hospital.kinds[f"in {suffix}"] += 1
        yield name, _archive(suffix, members)
    spoilt = count // 10
    for suffix in ("zip", "tar", "tar.gz"):
        yield _spoilt_archive(suffix, wards, told)
    already = hospital.kinds["broken archive"]
    for _ in range(spoilt - already):
        yield one(*wards.broken())
    while len(hospital.inventory) < count:
        yield one(*wards.file())


def _day(wards: Wards) -> str:
    return f"2027-03-{wards.chance.randint(1, 28):02}/{wards.chance.choice(CLINICS)}"


def _archive(suffix: str, members: list[tuple[str, str, bytes]]) -> bytes:
    out = io.BytesIO()
    if suffix == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for _, name, data in members:
                archive.writestr(zipfile.ZipInfo(name), data)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for _, name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue() if suffix == "tar" else gzip.compress(out.getvalue(), 1, mtime=0)


def _spoilt_archive(
    suffix: str, wards: Wards, told: Callable[[str, str, str], None]
) -> tuple[str, bytes]:
    """An archive that cannot be opened, or a tar that ends in the middle of its fourth member."""
    members = [wards.picture() for _ in range(6)]
    content = _archive(suffix, members)
    name = f"{_day(wards)}/spoilt {next(wards.numbers)}.{suffix}"
    if suffix == "zip":
        content = content[: len(content) // 2]
    elif suffix == "tar.gz":
        content = content[:2] + wards.chance.randbytes(5_000)
    else:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            infos = tar.getmembers()
        content = content[: infos[3].offset_data + infos[3].size // 2]
        for kind, inside, _ in members[:3]:
            told(kind, name, inside)
        told("broken archive", name, members[3][1])
    told("broken archive", name, "")
    return name, content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", help="folder or s3:// prefix to fill")
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--count", type=int, default=2000, help="how many objects")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inventory", type=Path, help="file to write the expected URIs to")
    arguments = parser.parse_args()
    place = open_place(arguments.archive)
    hospital = build(place, arguments.data, arguments.count, arguments.seed)
    for kind, number in sorted(hospital.kinds.items()):
        print(f"{number:>6} {kind}")
    print(f"{len(hospital.inventory):>6} objects in {hospital.uri}")
    if arguments.inventory:
        arguments.inventory.write_text("".join(f"{uri}\n" for uri in sorted(hospital.inventory)))


if __name__ == "__main__":
    main()
