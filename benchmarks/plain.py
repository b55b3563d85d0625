#!/usr/bin/env python
"""The script that a user would write: one process, OpenCV, the bundle's networks in PyTorch, a CSV.

    python benchmarks/plain.py FOLDER rows.csv [--limit 40]

It uses float32, all cores, and the networks and eight turns of `jobs/screen.py --profile exact`. It
has no gradability, spread or masks, accepts no bad input and does not resume. It serves as a
comparison in `benchmarks/bench.py`.
"""

import argparse
import csv
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from fundus.models import bundle as bundles
from fundus.models.networks import members, to_input


def square(image: np.ndarray, x: float, y: float, size: float, side: int) -> np.ndarray:
    """Return the square of `size` pixels around (x, y), scaled to `side` pixels."""
    scale = side / size
    where = np.float32([[scale, 0, side / 2 - scale * x], [0, scale, side / 2 - scale * y]])
    return cv2.warpAffine(image, where, (side, side), flags=cv2.INTER_AREA)


def predict(network: torch.nn.Module, pictures: np.ndarray) -> np.ndarray:
    batch = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    with torch.inference_mode():
        return network(to_input(batch)).sigmoid().numpy()


def height(mask: np.ndarray) -> int:
    rows = np.flatnonzero(mask.any(axis=1))
    return rows[-1] - rows[0] + 1 if rows.size else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    bundle = bundles.load(bundles.default_folder())
    sizes = bundle.preprocessing
    detector = bundle.networks["detector"].build().eval()
    segmenters = [m.eval() for m in members(bundle.networks["source_only"].build())]
    started = time.monotonic()
    with args.csv.open("w") as stream:
        rows = csv.writer(stream)
        files = sorted(args.archive.iterdir())[: args.limit]
        for file in files:
            image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
            y, x = np.nonzero(image.max(axis=2) > 25)
            size = max(np.ptp(x), np.ptp(y)) + 1.0
            centre = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
            crop = square(image, *centre, size, sizes.detector_side)
            disc = predict(detector, crop[None])[0, 0]
            rows_in, columns_in = np.nonzero(disc >= disc.max() / 2)
            scale = size / sizes.detector_side
            x_disc = centre[0] + (columns_in.mean() + 0.5 - sizes.detector_side / 2) * scale
            y_disc = centre[1] + (rows_in.mean() + 0.5 - sizes.detector_side / 2) * scale
            roi = sizes.roi_scale * 2 * np.sqrt(len(rows_in) / np.pi) * scale
            crop = square(image, x_disc, y_disc, roi, sizes.roi_side)
            maps = []
            for network in segmenters:
                seen = [np.rot90(crop[:, ::-1] if n > 3 else crop, n) for n in range(8)]
                for n, found in enumerate(predict(network, np.stack(seen))):
                    back = np.rot90(found, -n, (1, 2))
                    maps.append(back[..., ::-1] if n > 3 else back)
            disc, cup = np.mean(maps, axis=0) > 0.5
            rows.writerow([file.name, height(cup & disc) / max(1, height(disc))])
    print(f"{len(files)} frames in {time.monotonic() - started:.2f} s after start-up")


if __name__ == "__main__":
    main()
