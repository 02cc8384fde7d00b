"""Things that stand on a street: cars, trees, poles, benches, signs, bins, hedges and a plain panel.

Drawing units: 1 is the height of a person of average stature; x to the right of the standing point, y upward.
The same drawings furnish backgrounds and hide people (occluders).
"""

import colorsys
from functools import lru_cache

import numpy as np
from PIL import Image

from pslib.data.canvas import SUPERSAMPLE, Canvas, Colour, shaded
from pslib.errors import require_choice

__all__ = ["OBJECTS", "draw_object", "object_tile", "paint_object"]

# kind -> (half width, height) in person heights
OBJECTS: dict[str, tuple[float, float]] = {
    "car": (1.3, 0.86), "tree": (0.8, 2.6), "pole": (0.3, 2.6), "bench": (0.5, 0.5), "sign": (0.24, 1.5),
    "bin": (0.2, 0.62), "hedge": (0.75, 0.62), "panel": (0.5, 1.0),
}  # fmt: skip


def _hue(rng: np.random.Generator, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)


def _leaf(rng: np.random.Generator) -> Colour:
    return int(rng.integers(50, 95)), int(rng.integers(95, 135)), int(rng.integers(45, 80))


def _car(canvas: Canvas, rng: np.random.Generator) -> None:
    paint = _hue(rng, float(rng.choice((0.05, 0.45, 0.6))), float(rng.uniform(0.3, 0.9)))
    glass, dark = (70, 84, 96), shaded(paint, 0.7)
    canvas.polygon([(-1.25, 0.18), (-1.25, 0.46), (-0.85, 0.52), (1.2, 0.5), (1.26, 0.18)], paint)
    canvas.polygon([(-0.8, 0.5), (-0.45, 0.84), (0.5, 0.84), (0.95, 0.5)], paint)
    canvas.polygon([(-0.68, 0.51), (-0.4, 0.78), (0.0, 0.78), (0.0, 0.51)], glass)
    canvas.polygon([(0.06, 0.51), (0.06, 0.78), (0.46, 0.78), (0.8, 0.51)], glass)
    canvas.box(-1.25, 0.18, 1.26, 0.25, dark)
    canvas.box(-1.25, 0.38, -1.16, 0.45, (240, 232, 190))
    canvas.box(1.18, 0.38, 1.26, 0.45, (190, 50, 44))
    for x in (-0.78, 0.78):
        canvas.ellipse((x, 0.19), 0.19, 0.19, (30, 30, 32))
        canvas.ellipse((x, 0.19), 0.09, 0.09, (140, 142, 146))


def _tree(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.limb((0, 0), (0, 1.4), 0.2, 0.13, (92, 70, 52))
    leaf = _leaf(rng)
    for _ in range(7):
        x, y, r = rng.uniform(-0.42, 0.42), rng.uniform(1.3, 2.2), rng.uniform(0.26, 0.4)
        canvas.ellipse((x, y), r, r, shaded(leaf, float(rng.uniform(0.75, 1.2))))


def _pole(canvas: Canvas, rng: np.random.Generator) -> None:
    grey = shaded((120, 124, 128), float(rng.uniform(0.5, 1.1)))
    canvas.limb((0, 0), (0, 2.45), 0.1, 0.07, grey)
    canvas.box(-0.08, 0, 0.08, 0.12, shaded(grey, 0.7))
    canvas.line([(0, 2.42), (0.22, 2.5)], 0.05, grey)
    canvas.box(0.12, 2.42, 0.29, 2.5, (236, 226, 180))


def _bench(canvas: Canvas, rng: np.random.Generator) -> None:
    wood = shaded((150, 104, 62), float(rng.uniform(0.7, 1.15)))
    for x in (-0.38, 0.38):
        canvas.box(x - 0.03, 0, x + 0.03, 0.5, (60, 62, 66))
    for y in (0.22, 0.33, 0.43):
        canvas.box(-0.48, y, 0.48, y + 0.07, wood)


def _sign(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.box(-0.025, 0, 0.025, 1.2, (130, 132, 136))
    if rng.random() < 0.5:
        canvas.ellipse((0, 1.28), 0.2, 0.2, (190, 44, 44))
        canvas.box(-0.12, 1.24, 0.12, 1.32, (238, 238, 236))
    else:
        canvas.box(-0.22, 1.1, 0.22, 1.46, (44, 88, 160))
        canvas.polygon([(-0.1, 1.16), (0.1, 1.16), (0, 1.4)], (238, 238, 236))


def _bin(canvas: Canvas, rng: np.random.Generator) -> None:
    colour = _hue(rng, 0.45, float(rng.uniform(0.3, 0.55)))
    canvas.polygon([(-0.15, 0), (0.15, 0), (0.19, 0.52), (-0.19, 0.52)], colour)
    canvas.box(-0.2, 0.5, 0.2, 0.6, shaded(colour, 0.65))
    canvas.box(-0.08, 0.3, 0.08, 0.36, shaded(colour, 1.4))


def _hedge(canvas: Canvas, rng: np.random.Generator) -> None:
    leaf = _leaf(rng)
    canvas.box(-0.7, 0, 0.7, 0.5, shaded(leaf, 0.8))
    for x in np.linspace(-0.64, 0.64, 9):
        r = float(rng.uniform(0.07, 0.11))
        canvas.ellipse((float(x), 0.5), r, r, shaded(leaf, float(rng.uniform(0.8, 1.1))))
    for _ in range(12):
        canvas.ellipse((rng.uniform(-0.6, 0.6), rng.uniform(0.08, 0.45)), 0.06, 0.05,
                       shaded(leaf, float(rng.uniform(0.75, 1.15))))  # fmt: skip


def _panel(canvas: Canvas, rng: np.random.Generator) -> None:
    colour = _hue(rng, 0.08, 0.55)
    canvas.box(-0.5, 0, 0.5, 1.0, colour)
    canvas.box(-0.5, 0.92, 0.5, 1.0, shaded(colour, 0.8))


_PAINTERS = {
    "car": _car, "tree": _tree, "pole": _pole, "bench": _bench, "sign": _sign, "bin": _bin, "hedge": _hedge,
    "panel": _panel,
}  # fmt: skip


def paint_object(canvas: Canvas, kind: str, seed: int) -> None:
    """Draw one object at the canvas's origin; ``seed`` chooses its colours and small shapes."""
    _PAINTERS[require_choice("object", kind, _PAINTERS)](canvas, np.random.default_rng(seed))


@lru_cache(maxsize=32)  # a few fixed cameras' furniture
def object_tile(kind: str, unit: float, seed: int, width: float = 1.0,
                offset: tuple[float, float] = (0.0, 0.0)) -> tuple[Image.Image, tuple[int, int]]:  # fmt: skip
    """An object on its own RGBa (premultiplied) tile, and the tile pixel of its standing point.

    ``unit`` is the height in pixels of an average person beside it.  ``width`` stretches a panel to that width
    in units; everything else keeps its proportions.
    """
    half, height = OBJECTS[require_choice("object", kind, OBJECTS)]
    across, above = int(half * unit * width) + 2, int(height * unit) + 2
    image = Image.new("RGBA", (2 * across * SUPERSAMPLE, (above + 2) * SUPERSAMPLE), (0, 0, 0, 0))
    origin = ((across + offset[0]) * SUPERSAMPLE, (above + offset[1]) * SUPERSAMPLE)
    canvas = Canvas(image, origin, unit * SUPERSAMPLE)
    if kind == "panel":
        canvas.stretch = width
    paint_object(canvas, kind, seed)
    return image.convert("RGBa").reduce(SUPERSAMPLE), (across, above)


def draw_object(kind: str, unit_px: float, seed: int = 0) -> np.ndarray:
    """One object alone as uint8 (H, W, 4), beside an average person ``unit_px`` pixels high.

    >>> draw_object("bin", 40.0).shape[2]
    4
    """
    tile, _ = object_tile(kind, float(unit_px), seed)
    return np.asarray(tile.crop(tile.getbbox()).convert("RGBA"))
