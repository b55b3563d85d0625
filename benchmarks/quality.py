#!/usr/bin/env python
"""Measure which pictures the quality gate accepts.

    python benchmarks/quality.py --data FOLDER [--others FOLDER]

Pictures are read as working frames, as in screening. Prints the accepted share of every set in
FOLDER/manifest.csv, and each refused picture with its reason. It then prints the accepted share of
frames that were degraded on purpose: darkened and blurred copies of one frame in ten. With --others
it adds a folder of pictures that are not fundus photographs, unchanged and in a round mask.

With --discs it prints instead how many frames are taken for two fields of view or two discs. It
also prints these numbers for frames into which a second disc was pasted: the feathered disc of the
previous frame of the set, on the other side of the field. --keep stores the pairs that are missed.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from fundus.decoding.picture import contents
from fundus.field import fields, roi
from fundus.field.fov import field_of_view
from fundus.field.quality import assess
from fundus.field.roi import Roi
from fundus.images.content import Picture
from fundus.images.decode import Refused
from fundus.models import bundle
from fundus.models.predictor import Predictor

CROPS = "crop"
"""Part of the name of every set of disc crops."""
BLURS = (0.008, 0.012, 0.016, 0.024, 0.032)
"""Standard deviations, in diameters of the field of view."""
LIGHTS = (0.5, 0.3, 0.2, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--others", type=Path, help="pictures that are not fundus photographs")
    parser.add_argument("--discs", action="store_true", help="only count frames with two discs")
    parser.add_argument("--keep", type=Path, help="folder for the pairs that --discs misses")
    options = parser.parse_args()
    with (options.data / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    if options.discs:
        _two_discs(options.data, [row for row in rows if CROPS not in row["set"]], options.keep)
        return
    accepted: Counter[str] = Counter()
    poor: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    degraded: Counter[str] = Counter()
    for number, row in enumerate(rows):
        crop = CROPS in row["set"]
        picture = read((options.data / row["image"]).read_bytes(), crop=crop)
        quality = assess(picture.pixels, crop=crop, shrink=picture.shrink)
        seen[row["set"]] += 1
        accepted[row["set"]] += quality.reason is None
        poor[row["set"]] += quality.reason is None and quality.poor
        if quality.reason:
            print(f"refused: {row['set']} {row['id']}: {quality.reason}")
        elif number % 10 == 0 and not crop:
            seen["degraded"] += 1
            degraded.update(
                name for name, copy in _degraded(picture.pixels) if assess(copy).reason is None
            )
    print("\naccepted, by set:")
    for name, count in seen.items():
        if name != "degraded":
            share = f"{accepted[name]} of {count} ({accepted[name] / count:.1%})"
            print(f"  {name}: {share}, {poor[name]} of them poor")
    print(f"\naccepted, of {seen['degraded']} frames degraded in each way:")
    for name, _ in _degraded(np.zeros((64, 64, 3), np.uint8)):
        print(f"  {name}: {degraded[name]}")
    if options.others:
        print("\nother pictures:")
        _others(options.others)


@cache
def _preprocessing() -> bundle.Preprocessing:
    return bundle.load(bundle.default_folder()).preprocessing


def read(data: bytes, *, crop: bool = False) -> Picture:
    """Return the first picture, as the networks of the bundle in the package receive it."""
    preprocessing = _preprocessing()
    return contents(data, least_side=preprocessing.least_side(precropped=crop)).pictures[0]


def _degraded(pixels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    scale = min(1, 800 / max(pixels.shape[:2]))  # blurs as wide as these take seconds per megapixel
    pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    field = field_of_view(pixels)
    diameter = 2 * field.radius if field else 64
    for blur in BLURS:
        yield f"blur {blur:.1%} of the field", cv2.GaussianBlur(pixels, (0, 0), blur * diameter)
    for light in LIGHTS:
        yield f"light x {light}", (pixels * light).astype(np.uint8)


def _two_discs(data: Path, rows: list[dict[str, str]], keep: Path | None) -> None:
    """Run the detector on every frame, and on one in ten with a second disc pasted in."""
    predictor = Predictor(bundle.load(bundle.default_folder()))
    frames = fields_seen = alarms = pairs = found = refused = 0
    before: tuple[np.ndarray, Roi] | None = None
    for number, row in enumerate(rows):
        pixels = read((data / row["image"]).read_bytes()).pixels
        seen = predictor.detect(pixels)
        frames += 1
        fields_seen += fields.are_two(pixels)
        alarms += seen.two
        if seen.two:
            print(f"two discs: {row['set']} {row['id']}")
        if number % 10 == 1 and before and seen.roi and not seen.two:
            both = _pasted(pixels, seen.roi, *before)
            if both is not None:
                pairs += 1
                is_found, is_refused = predictor.detect(both).two, fields.are_two(both)
                found, refused = found + is_found, refused + is_refused
                if keep and not (is_found or is_refused):
                    keep.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(keep / f"{row['set']}-{number}.png"), both[..., ::-1])
        before = (pixels, seen.roi) if seen.roi and not seen.two else None
    print(f"taken for two fields: {fields_seen} of {frames}; for two discs: {alarms} of {frames}")
    print(f"two eyes in one field: {found} of {pairs} seen as two discs, {refused} as two fields")


def _pasted(image: np.ndarray, here: Roi, other: np.ndarray, there: Roi) -> np.ndarray | None:
    """Paste the other disc on the other side of the field; None if it does not fit there."""
    field = field_of_view(image)
    side = round(here.size)
    if field is None:
        return None
    left = round(2 * field.x - here.x - here.size)
    top = round(here.y)
    inside = left >= 0 and left + side <= image.shape[1] and 0 <= top < image.shape[0] - side
    if not inside or abs(left - here.x) < here.size:
        return None
    place = np.s_[top : top + side, left : left + side]
    rows, columns = np.ogrid[:side, :side]
    apart = np.hypot(rows - side / 2, columns - side / 2) / (side / 2)
    share = np.clip((1 - apart) / 0.3, 0, 1)[..., None]
    both = image.copy()
    both[place] = share * roi.crop(other, there, side, mirrored=True) + (1 - share) * both[place]
    return both


def _others(folder: Path) -> None:
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        try:
            pixels = read(file.read_bytes()).pixels
        except Refused as refused:
            print(f"  {file.name}: {refused.status}")
            continue
        plain, masked = assess(pixels), assess(_round(pixels))
        print(f"  {file.name}: {plain.reason or 'ACCEPTED'}; round: {masked.reason or 'ACCEPTED'}")


def _round(pixels: np.ndarray) -> np.ndarray:
    """Return the central square in a round mask, as from a fundus camera."""
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side].copy()
    rows, columns = np.ogrid[:side, :side]
    square[np.hypot(rows - side / 2, columns - side / 2) > 0.48 * side] = 0
    return square


if __name__ == "__main__":
    main()
