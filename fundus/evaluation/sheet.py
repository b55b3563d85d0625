"""Overlay sheets: pictures with the experts' and the predicted outlines."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fundus.anatomy.labels import cup_of, disc_of
from fundus.field import roi

EXPERT = (80, 255, 80)
PREDICTED = (50, 110, 255)
_PAPER = (24, 24, 24)
_INK = (235, 235, 235)
_MARGIN, _LINE, _FONT = 8, 20, 15
_DASH = 20


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet. Masks have its size, or any size if both are square."""

    picture: np.ndarray
    """HWC uint8 RGB."""
    truth: np.ndarray | None
    """HW uint8 {0, 1, 2}, outlined in the experts' colour; None for no outline."""
    predicted: np.ndarray | None
    """HW uint8 {0, 1, 2}, outlined in the predicted colour; None for no outline."""
    caption: tuple[str, ...]
    """Lines below the picture."""


def draw_sheet(
    tiles: Sequence[Tile], title: str, *, columns: int = 5, side: int = 384
) -> np.ndarray:
    """Draw tiles row by row below a title and a legend: HWC uint8 RGB.

    Each picture is fitted into a square of `side` pixels without distortion. Predicted outlines are
    dashed, so that both are visible where they coincide. ValueError without tiles.
    """
    if not tiles:
        raise ValueError("a sheet needs a tile")
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = max(len(tile.caption) for tile in tiles)
    cell_height, cell_width = side + lines * _LINE + 2 * _MARGIN, side + _MARGIN
    head = 2 * _LINE + 2 * _MARGIN
    sheet = Image.new("RGB", (columns * cell_width + _MARGIN, head + rows * cell_height), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    pen.text((_MARGIN, _MARGIN), title, _INK, font)
    pen.text((_MARGIN, _MARGIN + _LINE), "experts", EXPERT, font)
    pen.text((_MARGIN + 70, _MARGIN + _LINE), "predicted", PREDICTED, font)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        x, y = _MARGIN + column * cell_width, head + row * cell_height
        sheet.paste(Image.fromarray(outlined(tile, side)), (x, y))
        for line, text in enumerate(tile.caption):
            pen.text((x, y + side + _MARGIN // 2 + line * _LINE), text, _INK, font)
    return np.asarray(sheet)


def outlined(tile: Tile, side: int) -> np.ndarray:
    """The tile's picture with both outlines: (side, side, 3) uint8 RGB."""
    drawn = roi.crop(tile.picture, roi.whole(*tile.picture.shape[:2]), side).copy()
    for mask, colour, dash in (
        (tile.truth, EXPERT, _DASH),
        (tile.predicted, PREDICTED, _DASH // 2),
    ):
        if mask is None:
            continue
        fitted = roi.crop_mask(mask, roi.whole(*mask.shape), side)
        for inside in (disc_of(fitted), cup_of(fitted)):
            outlines, _ = cv2.findContours(
                inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            for outline in outlines:
                closed = np.concatenate([outline, outline[:1]])
                for start in range(0, len(outline), _DASH):
                    piece = closed[start : start + dash + 1]
                    cv2.polylines(drawn, [piece], False, colour, 2, cv2.LINE_AA)
    return drawn
