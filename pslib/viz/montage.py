"""Crops in context side by side, drawn fast: the whole sheet is one picture and one axes.

Ten matplotlib axes with a layout engine take most of a second; a ranked gallery must be there in a fraction of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from pslib.viz.figures import DPI, PALETTE, RIGHT, SECOND, WRONG, to_array

__all__ = ["QUERY", "STYLES", "UNKNOWN", "Tile", "crop_in_context", "sheet"]

QUERY = (PALETTE["black"], "solid", "", "query")
UNKNOWN = (PALETTE["blue"], "dotted", "?", "not labelled")
# What a box turned out to be: (colour, line style, mark, word), so that no one of them is needed to tell.
STYLES = {"query": QUERY, "right": RIGHT, "wrong": WRONG, "second box": SECOND, "not labelled": UNKNOWN}

_TILE = (128, 150)  # px, height and width of the picture in a tile
_LINE = 13  # px
_GAP = 8
_HEADING = 20
_LETTER = 7.8  # width of a letter of a heading, a generous mean


@dataclass(frozen=True, eq=False)
class Tile:
    """One box in its surroundings: ``crop`` (h, w, 3) uint8, ``box`` xyxy in px of the crop, lines of text below.

    ``verdict`` is a key of :data:`STYLES`; its mark and word go before the first line.
    """

    crop: np.ndarray
    box: tuple[float, float, float, float]
    verdict: str
    lines: tuple[str, ...]


def crop_in_context(image: Any, box: Sequence[float], around: float = 0.75,
                    shape: tuple[int, int] = _TILE) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """A window of ``shape``'s aspect about ``box`` (xyxy px), wider by ``around`` box heights, inside the image.

    Returns the crop, resized to ``shape`` (height, width), and the box within it.

    >>> crop, box = crop_in_context(np.zeros((100, 200, 3), np.uint8), (90, 40, 110, 80), shape=(60, 60))
    >>> crop.shape, tuple(round(side) for side in box)
    ((60, 60, 3), (21, 13, 39, 47))
    """
    pixels = to_array(image)
    high, wide = pixels.shape[:2]
    x1, y1, x2, y2 = (float(side) for side in box)
    aspect = shape[1] / shape[0]
    height = max((y2 - y1) * (1 + around), (x2 - x1) * (1 + around / 2) / aspect, 24.0)
    height = min(height, high, wide / aspect)
    width = height * aspect
    left = min(max((x1 + x2 - width) / 2, 0), wide - width)
    top = min(max((y1 + y2 - height) / 2, 0), high - height)
    cut = Image.fromarray(pixels).resize(shape[::-1], Image.Resampling.BICUBIC,
                                         box=(left, top, left + width, top + height))
    scale = shape[0] / height
    inside = ((x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale)
    return np.asarray(cut), inside


def sheet(rows: Sequence[tuple[str, Sequence[Tile]]], *, columns: int = 5, wrap: bool = True) -> Figure:
    """Rows of tiles with a heading each (may be empty); with ``wrap`` a row goes on below when it is full.

    Every tile has a frame of its verdict's colour and line, the box in it, and below it mark, word and lines.
    """
    lines = max((len(tile.lines) for _, tiles in rows for tile in tiles), default=0) + 1
    step_x, step_y = _TILE[1] + _GAP, _TILE[0] + lines * _LINE + _GAP
    parts: list[tuple[str, Sequence[Tile]]] = []
    for heading, tiles in rows:
        chunks = [tiles[at : at + columns] for at in range(0, len(tiles), columns)] if wrap else [tiles]
        parts += [(heading if not number else "", chunk) for number, chunk in enumerate(chunks or [[]])]
    width = max([columns, *(len(tiles) for _, tiles in parts)]) * step_x
    width = max(width, int(max((len(heading) for heading, _ in parts), default=0) * _LETTER))
    height = sum(_HEADING * bool(heading) + (step_y if tiles else 0) for heading, tiles in parts) or _HEADING
    canvas = np.full((height, width, 3), 255, np.uint8)
    fig = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.axis("off")
    top = 0
    for heading, tiles in parts:
        if heading:
            ax.text(2, top + _HEADING - 6, heading, fontsize=9, fontweight="bold", va="baseline")
            top += _HEADING
        for column, tile in enumerate(tiles):
            _draw(ax, canvas, tile, column * step_x + 3, top + 3)
        top += step_y if tiles else 0
    ax.imshow(canvas, interpolation="none", extent=(0, width, height, 0), aspect="auto")
    return fig


def _draw(ax: Any, canvas: np.ndarray, tile: Tile, left: int, top: int) -> None:
    high, wide = tile.crop.shape[:2]
    canvas[top : top + high, left : left + wide] = tile.crop
    color, line, mark, word = STYLES[tile.verdict]
    ax.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=color, linestyle=line, linewidth=3))
    x1, y1, x2, y2 = np.clip(tile.box, 0, (wide - 1, high - 1, wide - 1, high - 1))
    for paint, thick, style in (("white", 2.6, "solid"), (color, 1.5, line)):
        ax.add_patch(Rectangle((left + x1, top + y1), x2 - x1, y2 - y1, fill=False, edgecolor=paint, linestyle=style,
                               linewidth=thick))
    below = top + high + 4
    first = f"{mark} {word}".strip()
    for number, text in enumerate((first, *tile.lines)):
        ax.text(left, below + _LINE * number, text, fontsize=7.5, va="top", color=color if not number else "black",
                fontweight="bold" if not number else "normal")
