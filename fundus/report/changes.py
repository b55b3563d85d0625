"""Parts of two pages: eyes before and after, as figures, charts and outlines."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from fundus.anatomy.pairs import Pair
from fundus.report import charts, pictures
from fundus.report.outlines import outlines, path
from fundus.report.page import shared_folder

SIDE = 256
"""Pixels of a picture on the page: about 10 kB each."""


def figures(before: np.ndarray, after: np.ndarray, names: tuple[str, str]) -> dict[str, Any]:
    """Charts and figures of (N,) vCDR of the same eyes, NaN where undefined.

    The limits of agreement are those of Bland and Altman (Lancet 1986;327:307): the mean of the
    differences and 1.96 of their standard deviations to either side.
    """
    both = np.isfinite(before) & np.isfinite(after)
    difference = (after - before)[both]
    rows = [
        (f"measured, {name}", f"{np.isfinite(values).sum():,} of {len(values):,}")
        for name, values in zip(names, (before, after), strict=True)
    ]
    if len(difference) > 1:
        mean, spread = float(difference.mean()), float(difference.std(ddof=1))
        rows += [
            (f"mean vCDR, {names[0]}", f"{before[both].mean():.3f}"),
            (f"mean vCDR, {names[1]}", f"{after[both].mean():.3f}"),
            ("mean difference", f"{mean:+.3f}"),
            (
                "95 % limits of agreement",
                f"{mean - 1.96 * spread:+.3f} to {mean + 1.96 * spread:+.3f}",
            ),
            ("largest difference", f"{difference[abs(difference).argmax()]:+.3f}"),
        ]
    samples = [charts.Sample(names[0], before), charts.Sample(names[1], after)]
    return {
        "rows": rows,
        "distribution": charts.distribution(samples, label="vCDR"),
        "against": charts.against(before, after, names),
    }


def shown(pairs: Sequence[Pair], *, identified: bool = True) -> list[dict[str, Any]]:
    """The pairs as values for the template.

    Without `identified`, names and pictures are left out, because strangers may read the page.
    """
    folder = shared_folder([pair.name for pair in pairs])
    return [
        _shown(pair, number, pair.name.removeprefix(folder), identified)
        for number, pair in enumerate(pairs, start=1)
    ]


def _shown(pair: Pair, number: int, name: str, identified: bool) -> dict[str, Any]:
    picture = pair.picture if identified else None
    disc, cup = pair.dice
    return {
        "number": number,
        "name": name if identified else f"eye {number}",
        "picture": None if picture is None else _uri(picture),
        "sides": [
            dict(zip(("disc", "cup"), map(path, outlines(mask)), strict=True)) | {"vcdr": vcdr}
            for mask, vcdr in zip((pair.before, pair.after), pair.vcdr, strict=True)
        ],
        "disc_dice": disc,
        "cup_dice": cup,
    }


def _uri(picture: np.ndarray) -> str:
    if picture.shape[0] != SIDE:
        picture = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return pictures.data_uri(pictures.jpeg(picture), "image/jpeg")
