"""What a figure wears: cloth with its pattern, hair and face, hats, garments on the body, bags.

Drawing units as in :mod:`pslib.data.figures`: a figure of average stature is 1 high, its standing point at (0, 0).
"""

from math import cos, pi, sin

from PIL import Image

from pslib.data.canvas import Canvas, Colour, Point, shaded
from pslib.data.people import Garment, Person

__all__ = ["Wardrobe"]

# the head's middle and radii; a little large, for a friendly look
_HEAD, _HEAD_X, _HEAD_Y = 0.905, 0.066, 0.082
_EYE: Colour = (40, 32, 32)


def _texture(garment: Garment, factor: float, size: tuple[int, int], origin: Point, unit: float) -> Image.Image:
    """A tile of cloth: the garment's pattern, in units of the figure, darkened by ``factor``."""
    first, second = shaded(garment.colour, factor), shaded(garment.second, factor)
    image = Image.new("RGBA", size, (*first, 255))
    canvas = Canvas(image, origin, unit)
    if garment.pattern in ("horizontal", "check"):
        thick = 0.04 if garment.pattern == "horizontal" else 0.03
        for k in range(10):
            canvas.box(-0.5, 0.085 * k + 0.02, 0.5, 0.085 * k + 0.02 + thick, second)
    if garment.pattern in ("vertical", "check"):
        tint = second if garment.pattern == "vertical" else shaded(second, 0.8)
        for k in range(-6, 7):
            canvas.box(0.075 * k - 0.017, 0, 0.075 * k + 0.017, 1, tint)
    if garment.pattern == "dots":
        for row in range(4, 13):
            for column in range(-4, 5):
                canvas.ellipse((0.075 * (column + 0.5 * (row % 2)), 0.068 * row), 0.021, 0.021, second)
    if garment.pattern == "two-tone":
        edge = 0.64 if garment.kind not in ("trousers", "shorts", "skirt") else 0.30
        canvas.box(-0.6, -0.2, 0.6, edge, second)
    return image


class Wardrobe:
    """One drawing of one person: canvas, proportions and everything that is worn.

    Args:
        phase: place in the walking cycle, 0..1.
        stride: 0 stands, 1 walks.
    """

    def __init__(self, canvas: Canvas, person: Person, phase: float, stride: float):
        self.canvas, self.person = canvas, person
        self.swing = sin(2 * pi * phase) * stride
        self.lift = cos(2 * pi * phase) * stride
        self.build = person.build / person.stature  # the canvas's unit already carries the stature
        self.shoulder = 0.105 * self.build**0.8
        self.hip = 0.078 * self.build
        self._textures: dict[tuple[Garment, float], Image.Image] = {}

    def cloth(self, garment: Garment, factor: float = 1.0) -> "Colour | Image.Image":
        """The fill of a garment's parts, darkened by ``factor``: a colour, or a texture shared by all parts."""
        if garment.pattern in ("plain", "logo"):
            return (*shaded(garment.colour, factor), 255)
        key = (garment, factor)
        if key not in self._textures:
            canvas = self.canvas
            self._textures[key] = _texture(garment, factor, canvas.image.size, canvas.origin, canvas.unit)
        return self._textures[key]

    # ---- head ------------------------------------------------------------------------------------------------
    def hair_behind(self, side: bool) -> None:
        """Hair that hangs behind the neck, drawn before the body in front views."""
        style, hair = self.person.hair, self.person.hair_colour
        if style == "long":
            left, right = (-0.085, 0.01) if side else (-0.083, 0.083)
            self.canvas.polygon([(left, _HEAD), (right, _HEAD), (right, 0.735), (left, 0.735)], hair)
        elif style == "bob" and not side:
            self.canvas.box(-0.082, 0.835, 0.082, _HEAD, hair)

    def head_front(self) -> None:
        canvas, person = self.canvas, self.person
        skin, hair = person.skin, person.hair_colour
        canvas.limb((0, 0.80), (0, 0.86), 0.06, 0.055, shaded(skin, 0.85))
        if person.hair == "curly":
            canvas.ellipse((0, _HEAD + 0.02), _HEAD_X + 0.03, _HEAD_Y + 0.016, hair)
        canvas.ellipse((0, _HEAD), _HEAD_X, _HEAD_Y, skin)
        if person.hair != "bald":
            canvas.pie((0, _HEAD + 0.018), _HEAD_X + 0.008, _HEAD_Y - 0.006, 0, 180, hair)
        if person.hair in ("bob", "long"):
            for s in (-1, 1):
                canvas.limb((s * 0.064, _HEAD + 0.03), (s * 0.07, 0.85), 0.034, 0.03, hair)
        for s in (-1, 1):
            canvas.ellipse((s * 0.026, _HEAD - 0.008), 0.0095, 0.011, _EYE)
        canvas.line([(-0.02, _HEAD - 0.042), (0, _HEAD - 0.049), (0.02, _HEAD - 0.042)], 0.009, shaded(skin, 0.55))

    def head_back(self) -> None:
        canvas, person = self.canvas, self.person
        hair = person.hair_colour if person.hair != "bald" else shaded(person.skin, 0.96)
        canvas.limb((0, 0.80), (0, 0.86), 0.06, 0.055, shaded(person.skin, 0.85))
        if person.hair == "curly":
            canvas.ellipse((0, _HEAD + 0.015), _HEAD_X + 0.03, _HEAD_Y + 0.02, hair)
        canvas.ellipse((0, _HEAD + 0.004), _HEAD_X + 0.004, _HEAD_Y, hair)
        if person.hair == "bob":
            canvas.box(-0.08, 0.835, 0.08, _HEAD + 0.02, hair)
        elif person.hair == "long":
            canvas.polygon([(-0.078, _HEAD + 0.02), (0.078, _HEAD + 0.02), (0.086, 0.72), (-0.086, 0.72)], hair)
        elif person.hair == "ponytail":
            canvas.limb((0, _HEAD + 0.01), (0, 0.74), 0.045, 0.03, shaded(hair, 0.8))

    def head_side(self) -> None:
        canvas, person = self.canvas, self.person
        skin, hair = person.skin, person.hair_colour
        canvas.limb((0, 0.80), (0.005, 0.86), 0.06, 0.055, shaded(skin, 0.85))
        if person.hair == "ponytail":
            canvas.limb((-0.05, _HEAD + 0.03), (-0.115, 0.79), 0.042, 0.02, hair)
        if person.hair == "curly":
            canvas.ellipse((-0.022, _HEAD + 0.016), _HEAD_X + 0.022, _HEAD_Y + 0.016, hair)
        canvas.ellipse((0.008, _HEAD), _HEAD_X - 0.004, _HEAD_Y, skin)
        canvas.polygon([(0.06, _HEAD + 0.015), (0.09, _HEAD - 0.016), (0.06, _HEAD - 0.026)], skin)
        if person.hair != "bald":
            canvas.pie((-0.004, _HEAD + 0.012), _HEAD_X + 0.006, _HEAD_Y - 0.002, 30, 205, hair)
            canvas.box(-0.066, _HEAD - 0.03, -0.018, _HEAD + 0.02, hair)
        if person.hair == "bob":
            canvas.box(-0.072, 0.835, 0.0, _HEAD + 0.02, hair)
        elif person.hair == "long":
            canvas.polygon([(-0.074, _HEAD + 0.02), (0.0, _HEAD + 0.02), (-0.01, 0.735), (-0.09, 0.735)], hair)
        canvas.ellipse((0.04, _HEAD - 0.004), 0.009, 0.012, _EYE)

    def hat(self, brim: float) -> None:
        """``brim`` is where a cap's peak points: 0 to the camera, 1 to the right, -1 away."""
        canvas, person = self.canvas, self.person
        if person.hat == "none":
            return
        canvas.pie((0, _HEAD + 0.03), _HEAD_X + 0.014, _HEAD_Y - 0.01, 0, 180, person.hat_colour)
        dark = shaded(person.hat_colour, 0.7)
        if person.hat == "beanie":
            canvas.box(-_HEAD_X - 0.014, _HEAD + 0.022, _HEAD_X + 0.014, _HEAD + 0.045, dark)
        elif brim == 1:
            canvas.box(0.02, _HEAD + 0.026, 0.135, _HEAD + 0.044, dark)
        elif brim == 0:
            canvas.box(-0.062, _HEAD + 0.016, 0.062, _HEAD + 0.038, dark)

    # ---- garments --------------------------------------------------------------------------------------------
    def skirt(self, width: float) -> None:
        """The hanging parts of a skirt, dress or coat, from the waist down."""
        person, sway, hanging = self.person, 0.02 * self.swing, []
        if person.lower.kind == "skirt" and person.upper.kind != "dress":
            hanging.append((person.lower, 0.53, 0.28, 1.6))
        if person.upper.kind == "dress":
            hanging.append((person.upper, 0.6, 0.27, 1.75))
        elif person.upper.kind == "coat":
            hanging.append((person.upper, 0.6, 0.36, 1.35))
        for garment, top, end, flare in hanging:
            self.canvas.polygon([(-width, top), (width, top), (width * flare + sway, end),
                                 (-width * flare + sway, end)], self.cloth(garment))  # fmt: skip

    def torso(self, shoulder: float, hip: float) -> None:
        canvas, person = self.canvas, self.person
        end = {"t-shirt": 0.455, "long-sleeve": 0.455, "open-jacket": 0.425}.get(person.upper.kind, 0.5)
        waist = 0.5 * (shoulder + hip) * 0.92
        canvas.polygon([(-shoulder * 0.5, 0.835), (shoulder * 0.5, 0.835), (shoulder, 0.805), (shoulder * 0.97, 0.72),
                        (waist, 0.6), (hip * 1.1, end), (-hip * 1.1, end), (-waist, 0.6), (-shoulder * 0.97, 0.72),
                        (-shoulder, 0.805)], self.cloth(person.upper))  # fmt: skip

    def chest(self, shoulder: float) -> None:
        """What only the front shows: the shirt under an open jacket, a coat's buttons, a logo, the neckline."""
        canvas, person = self.canvas, self.person
        if person.upper.kind == "open-jacket":
            canvas.polygon([(-0.026, 0.83), (0.026, 0.83), (0.05, 0.425), (-0.05, 0.425)], person.inner)
        elif person.upper.kind == "coat":
            canvas.polygon([(-0.034, 0.835), (0.034, 0.835), (0, 0.72)], person.inner)
            canvas.line([(0, 0.72), (0, 0.37)], 0.011, shaded(person.upper.colour, 0.6))
        else:
            canvas.ellipse((0, 0.836), 0.034, 0.02, person.skin)
        if person.upper.pattern == "logo" and person.upper.kind != "open-jacket":
            canvas.ellipse((0, 0.685), 0.056, 0.052, person.upper.second)
        elif person.upper.pattern == "logo":
            canvas.box(0.052, 0.67, 0.09, 0.74, person.upper.second)

    # ---- bags ------------------------------------------------------------------------------------------------
    def bag_facing(self, near_back: bool) -> None:
        """Bags as seen from the front or, with ``near_back``, from behind."""
        canvas, person = self.canvas, self.person
        colour, dark = person.bag_colour, shaded(person.bag_colour, 0.7)
        # her left is on the right of the image when she faces the camera
        s = (1 if person.bag_side == "left" else -1) * (-1 if near_back else 1)
        if person.bag == "backpack" and near_back:
            canvas.polygon([(-0.09, 0.77), (-0.06, 0.8), (0.06, 0.8), (0.09, 0.77), (0.098, 0.53), (-0.098, 0.53)],
                           colour)  # fmt: skip
            canvas.box(-0.066, 0.545, 0.066, 0.635, dark)
        elif person.bag == "backpack":
            for side in (-1, 1):
                canvas.limb((side * 0.058, 0.82), (side * 0.066, 0.6), 0.026, 0.026, colour)
        elif person.bag == "shoulder-bag":
            canvas.line([(-s * self.shoulder * 0.6, 0.83), (s * (self.hip + 0.04), 0.56)], 0.018, dark)
            x = s * (self.hip + 0.045)
            canvas.box(x - 0.058, 0.43, x + 0.058, 0.55, colour)
            canvas.box(x - 0.058, 0.51, x + 0.058, 0.55, dark)

    def hand_bag(self, hand: Point) -> None:
        (x, y), strap = hand, shaded(self.person.bag_colour, 0.7)
        self.canvas.line([(x - 0.03, y - 0.06), (x, y), (x + 0.03, y - 0.06)], 0.012, strap)
        self.canvas.box(x - 0.058, y - 0.15, x + 0.058, y - 0.055, self.person.bag_colour)
