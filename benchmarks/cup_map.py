#!/usr/bin/env python
"""Test whether a map fitted on other cameras removes the bias of vCDR on a camera left out.

    python benchmarks/cup_map.py --data DATA --out loo

Reads the maps that `benchmarks/leave_one_out.py` stored in `--out`. Two linear maps are fitted to
the experts' vCDR by least squares, with the same weight for each camera. One uses the measured vCDR
alone. The other uses seven measures of each eye: vCDR at cup thresholds of .3, .5, .6 and .8, the
softness of the edges of cup and disc, and the peak of the cup. `nested` fits on three cameras and
scores the fourth. `oracle` fits on all four, including the scored one. No site could do that, so
it is an upper bound for such maps. Prints one line per map: vCDR MAE (bias) by camera, and the mean
MAE.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from left_out import CAMERAS, Data, score

from fundus.models import bundle as bundles
from fundus.training.recipes import laptop

LEVELS = (0.3, 0.5, 0.6, 0.8)
MEASURES = {"vCDR": [1], "seven measures": list(range(7))}
Eyes = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By camera: (N, 7) measures and (N,) vCDR of the experts."""


def measured(data: Data, camera: str, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the measures of each eye of a left-out camera, and the experts' vCDR."""
    book = laptop()
    crops = data.scored(CAMERAS[camera][0], book)
    maps = np.load(out / f"{camera}.npz")["maps"].astype(np.float32)
    found = [
        [eye.vcdr for eye in score(maps, crops, replace(book.thresholds, cup=level))]
        for level in LEVELS
    ]
    soft = (maps * (1 - maps)).sum(axis=(2, 3)) / np.maximum(maps.sum(axis=(2, 3)), 1)
    every = np.column_stack([*found, soft[:, ::-1], maps[:, 1].max(axis=(1, 2))])
    whole = np.isfinite(every).all(axis=1) & np.isfinite(crops.vcdr)
    return every[whole], crops.vcdr[whole]


def errors(eyes: Eyes, fitted: Sequence[str], scored: str, columns: list[int]) -> np.ndarray:
    """Return (N,) vCDR errors on the camera `scored` of a map fitted on the cameras `fitted`."""
    rows = np.concatenate([eyes[c][0][:, columns] for c in fitted])
    wanted = np.concatenate([eyes[c][1] for c in fitted])
    weight = np.concatenate([np.full(len(eyes[c][1]), len(eyes[c][1]) ** -0.5) for c in fitted])
    design = np.column_stack([rows, np.ones(len(rows))])
    linear = np.linalg.lstsq(design * weight[:, None], wanted * weight, rcond=None)[0]
    seen, truth = eyes[scored]
    return seen[:, columns] @ linear[:-1] + linear[-1] - truth


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit the maps, score them and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--cache", type=Path, default=Path("runs/crops"))
    parser.add_argument("--out", type=Path, required=True, help="--out of leave_one_out.py")
    args = parser.parse_args(arguments)
    data = Data(args.data, args.cache, bundles.load(bundles.default_folder()))
    eyes = {camera: measured(data, camera, args.out) for camera in CAMERAS}
    print(f"{'map of':15} {'fitted':7}", *(f"{c:14}" for c in CAMERAS), "mean MAE")
    for name, columns in MEASURES.items():
        for how in ("nested", "oracle"):
            found = {
                c: errors(eyes, [x for x in CAMERAS if how == "oracle" or x != c], c, columns)
                for c in CAMERAS
            }
            cells = (f"{np.abs(e).mean():.3f} ({e.mean():+.3f})" for e in found.values())
            mean = np.mean([np.abs(e).mean() for e in found.values()])
            print(f"{name:15} {how:7}", *cells, f"{mean:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
