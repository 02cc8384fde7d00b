"""Streets without people: a ground plane under a horizon, houses, road, pavement, furniture.

A :class:`Background` is a few numbers; its pixels are painted from them when needed and kept, so a fixed camera
costs its background once.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from pslib.data.canvas import Canvas, Colour, shaded
from pslib.data.knobs import Knobs
from pslib.data.objects import OBJECTS, paint_object

__all__ = ["Background", "Occluder", "furniture", "paint_background", "sample_background"]

_WALLS: tuple[Colour, ...] = (
    (176, 150, 126), (150, 92, 74), (196, 188, 172), (128, 132, 138), (206, 178, 132), (140, 148, 132), (112, 96, 90),
)  # fmt: skip
_PAVING: tuple[Colour, ...] = ((158, 154, 148), (172, 162, 146), (136, 136, 138), (150, 138, 126))


@dataclass(frozen=True)
class Background:
    """One place.

    Attributes:
        seed: chooses houses, colours, furniture.
        horizon: height of the horizon below the frame's upper edge, in frame heights.
        ratio: height of an average person divided by the height of the camera: a person whose feet are at y
            (frame heights from above) appears ``ratio * (y - horizon)`` frame heights high.
        clutter: density of furniture, 0..1.
    """

    seed: int
    horizon: float = 0.24
    ratio: float = 0.95
    clutter: float = 0.6

    def height_at(self, foot_y: float) -> float:
        """Height of an average person standing at ``foot_y``, both in frame heights."""
        return self.ratio * (foot_y - self.horizon)

    def foot_for(self, height: float) -> float:
        """Where an average person of that height stands: the inverse of :meth:`height_at`."""
        return self.horizon + height / self.ratio


@dataclass(frozen=True)
class Occluder:
    """A thing that stands at (x, y), in frame heights, and hides what is behind it.

    ``unit`` is the height, in frame heights, of an average person standing there; ``width`` stretches it.
    """

    kind: str
    x: float
    y: float
    unit: float
    seed: int = 0
    width: float = 1.0


def sample_background(rng: np.random.Generator, knobs: Knobs | None = None) -> Background:
    """A new place.  Give it to several scenes and they share a fixed camera.

    >>> sample_background(np.random.default_rng(0)) == sample_background(np.random.default_rng(0))
    True
    """
    knobs = knobs or Knobs()
    return Background(
        seed=int(rng.integers(2**31)),
        horizon=float(rng.uniform(0.12, 0.28)),
        ratio=float(rng.uniform(0.75, 1.0)),
        clutter=knobs.clutter,
    )


def _houses(canvas: Canvas, rng: np.random.Generator, wide: float, ground: float) -> None:
    """A row of fronts along the far pavement; ``ground`` is its y below the frame's upper edge."""
    x = -float(rng.uniform(0, 0.2))
    while x < wide:
        width, height = float(rng.uniform(0.25, 0.6)), float(rng.uniform(0.25, 0.6))
        wall = shaded(_WALLS[int(rng.integers(len(_WALLS)))], float(rng.uniform(0.75, 1.1)))
        top = ground - height
        canvas.box(x, -ground, x + width, -top, wall)
        canvas.box(x - 0.008, -(top + 0.016), x + width + 0.008, -top, shaded(wall, 0.7))  # the cornice
        glass, frame = shaded((86, 100, 116), float(rng.uniform(0.7, 1.3))), shaded(wall, 0.78)
        columns, rows = int(rng.integers(2, 5)), max(1, int(height / 0.13))
        pitch = width / columns
        for row in range(rows):
            y = ground - 0.13 * (row + 1)
            for column in range(columns):
                left = x + pitch * (column + 0.25)
                lit = rng.random() < 0.12
                canvas.box(left - 0.006, -(y + 0.076), left + pitch * 0.5 + 0.006, -(y - 0.006), frame)
                canvas.box(left, -(y + 0.07), left + pitch * 0.5, -y, (232, 206, 140) if lit else glass)
        if rng.random() < 0.6:  # a shop or a door
            canvas.box(x + width * 0.1, -ground, x + width * 0.9, -(ground - 0.085), shaded(wall, 0.55))
            awning = _WALLS[int(rng.integers(len(_WALLS)))]
            canvas.box(x + width * 0.05, -(ground - 0.08), x + width * 0.95, -(ground - 0.115), awning)
        x += width + (float(rng.uniform(0.04, 0.16)) if rng.random() < 0.3 else 0.0)


def _ground(canvas: Canvas, rng: np.random.Generator, wide: float, background: Background, edge: float) -> None:
    """Pavement with joints that run to a vanishing point, and usually a road with markings across it."""
    paving = shaded(_PAVING[int(rng.integers(len(_PAVING)))], float(rng.uniform(0.88, 1.15)))
    canvas.box(0, -1, wide, -edge, paving)
    vanish = float(rng.uniform(0.2, 0.8)) * wide
    joint, h = shaded(paving, 0.88), background.horizon
    t = edge - h
    for k in range(-9, 10):  # joints into the depth meet at the vanishing point
        canvas.line([(vanish + 0.12 * k, -edge), (vanish + 0.12 * k * (1.05 - h) / t, -1.05)], 0.004, joint)
    y = edge
    while y < 1:  # joints across come closer together towards the horizon
        canvas.line([(0, -y), (wide, -y)], 0.004, joint)
        y += 0.22 * (y - h)
    kind = rng.random()
    if kind < 0.75:
        near = h + t * float(rng.uniform(1.9, 2.8))
        far = h + t * float(rng.uniform(1.15, 1.4))
        asphalt = shaded((84, 86, 90), float(rng.uniform(0.75, 1.25)))
        canvas.box(0, -near, wide, -far, asphalt)
        canvas.box(0, -(near + 0.012), wide, -near, shaded(paving, 1.18))
        canvas.box(0, -far, wide, -(far - 0.008), shaded(paving, 1.18))
        middle, x = h + (near - h + far - h) / 2 * 0.94, float(rng.uniform(-0.2, 0))
        while x < wide:
            canvas.box(x, -(middle + 0.008), x + 0.12, -middle, (214, 212, 200))
            x += 0.26
        if rng.random() < 0.5:  # a crossing
            x0 = float(rng.uniform(0.1, 0.7)) * wide
            for k in range(6):
                a = x0 + 0.07 * k
                canvas.polygon([(vanish + (a - vanish) * (far - h) / t, -far),
                                (vanish + (a + 0.036 - vanish) * (far - h) / t, -far),
                                (vanish + (a + 0.036 - vanish) * (near - h) / t, -near),
                                (vanish + (a - vanish) * (near - h) / t, -near)], (206, 205, 198))  # fmt: skip
    elif kind < 0.9:
        grass = shaded((104, 132, 78), float(rng.uniform(0.8, 1.1)))
        canvas.box(0, -(h + t * 2.2), wide, -(h + t * 1.2), grass)
    for _ in range(rng.poisson(6 * background.clutter)):  # covers, puddles and repaired patches lie flat
        y, x = float(rng.uniform(h + 2 * t, 1.0)), float(rng.uniform(0, wide))
        size, mark = float(rng.uniform(0.1, 0.3)) * (y - h), int(rng.integers(3))
        if mark == 0:
            canvas.ellipse((x, -y), size * 0.6, size * 0.14, shaded(paving, 0.6))
            canvas.ellipse((x, -y), size * 0.5, size * 0.11, shaded(paving, 0.72))
        elif mark == 1:
            canvas.ellipse((x, -y), size, size * 0.2, shaded((150, 170, 190), float(rng.uniform(0.8, 1.1))))
            canvas.ellipse((x + 0.7 * size, -y), size * 0.5, size * 0.12, (156, 174, 192))
        else:
            canvas.polygon([(x - size, -y), (x + size, -y), (x + 0.8 * size, -(y - 0.4 * size)),
                            (x - 0.8 * size, -(y - 0.4 * size))], shaded(paving, 0.85))  # fmt: skip


def _things(rng: np.random.Generator, mean: float, wide: float, near: float,
            far: float) -> list[tuple[float, float, str, int]]:  # fmt: skip
    """Furniture between two depths: (foot, x, kind, seed), lengths in frame heights, about ``mean`` pieces."""
    kinds = ("car", "tree", "pole", "bench", "sign", "bin", "hedge")
    return [
        (float(rng.uniform(near, far)), float(rng.uniform(0, wide)),
         str(rng.choice(kinds, p=(0.14, 0.2, 0.18, 0.16, 0.08, 0.12, 0.12))), int(rng.integers(2**31)))
        for _ in range(rng.poisson(mean))
    ]  # fmt: skip


def furniture(background: Background, wide: float) -> tuple[Occluder, ...]:
    """The place's nearer furniture, among which people walk: the same for every scene of a fixed camera.

    ``wide`` is the frame's width in frame heights.
    """
    rng = np.random.default_rng((background.seed, 1))
    start = background.horizon + 0.18
    things = _things(rng, 4 * background.clutter, wide, start, 0.86)
    return tuple(Occluder(kind, x, foot, background.height_at(foot), seed) for foot, x, kind, seed in things)


@lru_cache(maxsize=32)
def paint_background(background: Background, size: tuple[int, int]) -> np.ndarray:
    """The street's own pixels before light and noise, uint8 (H, W, 3), read-only because they are kept."""
    height, width = size
    rng = np.random.default_rng(background.seed)
    wide = width / height
    image = Image.new("RGB", (width * 2, height * 2))
    canvas = Canvas(image, (0, 0), height * 2)
    sky = np.array((196, 212, 228)) * rng.uniform(0.8, 1.08)
    edge = background.horizon + float(rng.uniform(0.1, 0.16))  # where the houses stand
    for k in range(8):
        tone = tuple(int(min(255, channel * (0.88 + 0.02 * k))) for channel in sky)
        canvas.box(0, -edge * (k + 1) / 8, wide, -edge * k / 8, tone)
    _houses(canvas, rng, wide, edge)
    _ground(canvas, rng, wide, background, edge)
    for foot, x, kind, seed in sorted(_things(rng, 7 * background.clutter, wide, edge, edge + 0.05)):
        unit = background.height_at(foot)
        middle = (x * height * 2, foot * height * 2)
        half = OBJECTS[kind][0] * (0.5 if kind in ("tree", "pole") else 1.0)
        shadow = Canvas(image, middle, unit * height * 2)
        tone = image.getpixel((min(width * 2 - 1, int(middle[0])), min(height * 2 - 1, int(middle[1]))))
        shadow.ellipse((0, 0.0), half, 0.07, shaded(tone, 0.72))
        paint_object(shadow, kind, seed)
    # blotches of brightness, so that no wall or pavement is one flat colour
    coarse = Image.fromarray(rng.normal(128, 5, (24, 40)).clip(0, 255).astype(np.uint8)).resize((width, height), 2)
    stains = np.asarray(coarse, np.int16) - 128
    pixels = np.clip(np.asarray(image.reduce(2), np.int16) + stains[..., None], 0, 255).astype(np.uint8)
    pixels.setflags(write=False)
    return pixels
