"""Drawing in relative units: the small layer between Pillow and everything that is drawn.

A :class:`Canvas` maps a drawing's own units (x to the right, y upward, the standing point at 0, 0) to the pixels
of a tile that is drawn twice as large as needed and then averaged down, which smooths all edges.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["SUPERSAMPLE", "Canvas", "Colour", "Point", "shaded"]

SUPERSAMPLE = 2  # tiles are drawn this many times larger, then averaged

Colour = tuple[int, int, int]
Point = tuple[float, float]


def shaded(colour: Colour, factor: float) -> Colour:
    """The colour with its light multiplied by ``factor``.

    >>> shaded((100, 200, 50), 0.5)
    (50, 100, 25)
    """
    return tuple(int(min(255, max(0, channel * factor))) for channel in colour)


class Canvas:
    """A Pillow image with an origin, a unit and, if asked, left and right exchanged.

    Args:
        image: the tile to draw on, mode RGBA or RGB.
        origin: pixel position of the drawing's point (0, 0).
        unit: pixels per drawing unit.
        mirror: exchange left and right about x = 0.
    """

    def __init__(self, image: Image.Image, origin: Point, unit: float, mirror: bool = False):
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.origin = origin
        self.unit = unit
        self.sign = -1.0 if mirror else 1.0
        self.stretch = 1.0  # widens a drawing about x = 0

    def pixels(self, points: Sequence[Point]) -> list[Point]:
        ox, oy = self.origin
        across = self.sign * self.stretch * self.unit
        return [(ox + across * x, oy - y * self.unit) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: "Colour | Image.Image") -> None:
        """Fill a polygon with one colour, or with the same pixels of a tile-sized texture."""
        if isinstance(fill, Image.Image):
            xy = self.pixels(points)
            # a mask of the polygon's surroundings only: sleeves are small, tiles are not
            left, top = (max(0, int(min(axis))) for axis in zip(*xy, strict=True))
            right, bottom = (int(max(axis)) + 2 for axis in zip(*xy, strict=True))
            right, bottom = min(right, self.image.width), min(bottom, self.image.height)
            if right <= left or bottom <= top:
                return
            mask = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in xy], fill=255)
            self.image.paste(fill.crop((left, top, right, bottom)), (left, top), mask)
        else:
            self.draw.polygon(self.pixels(points), fill=fill)

    def box(self, left: float, bottom: float, right: float, top: float, fill: "Colour | Image.Image") -> None:
        self.polygon([(left, bottom), (right, bottom), (right, top), (left, top)], fill)

    def ellipse(self, center: Point, radius_x: float, radius_y: float, fill: Colour) -> None:
        (x, y), rx, ry = self.pixels([center])[0], radius_x * self.unit, radius_y * self.unit
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def pie(self, center: Point, radius_x: float, radius_y: float, start: float, end: float, fill: Colour) -> None:
        """A piece of an ellipse between two angles in degrees, counter-clockwise from the right."""
        angles = np.radians(np.linspace(start, end, 13))
        self.polygon([(center[0] + radius_x * np.cos(a), center[1] + radius_y * np.sin(a)) for a in angles], fill)

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        self.draw.line(self.pixels(points), fill=fill, width=max(1, round(width * self.unit)), joint="curve")

    def limb(self, start: Point, end: Point, start_width: float, end_width: float,
             fill: "Colour | Image.Image") -> None:  # fmt: skip
        """A tapering segment with a blunt end: upper and lower arms and legs are made of these."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = (dx * dx + dy * dy) ** 0.5 or 1.0
        ux, uy = dx / length, dy / length
        nx, ny, a, b = -uy, ux, start_width / 2, end_width / 2
        self.polygon(
            [
                (start[0] + nx * a, start[1] + ny * a),
                (start[0] - ux * a * 0.7, start[1] - uy * a * 0.7),
                (start[0] - nx * a, start[1] - ny * a),
                (end[0] - nx * b, end[1] - ny * b),
                (end[0] + ux * b * 0.7, end[1] + uy * b * 0.7),
                (end[0] + nx * b, end[1] + ny * b),
            ],
            fill,
        )
