"""Draws a person: an articulated figure of upper and lower limbs, garments, hair and bags.

Drawing units: a figure of average stature is 1 high; x to the right of the standing point, y upward.  Side views are
drawn walking to the right and mirrored for the left.  What is drawn last lies in front.
"""

from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageFilter

from pslib.data.canvas import SUPERSAMPLE, Canvas, Colour, Point, shaded
from pslib.data.people import VIEWS, Garment, Person
from pslib.errors import require_choice

__all__ = ["figure_tile", "draw_person"]

# heights of the joints of an average figure, in units of its height; the head is a little large, for a friendly look
_SHOULDER, _HIP, _KNEE, _ANKLE = 0.80, 0.49, 0.27, 0.035
_HEAD, _HEAD_X, _HEAD_Y = 0.905, 0.066, 0.082
_UPPER_ARM, _FOREARM = 0.165, 0.155
_REACH_X, _TOP, _BOTTOM = 0.46, 1.08, 0.10  # what a tile must hold, for stature 1


@lru_cache(maxsize=256)
def _texture(garment: Garment, factor: float, size: tuple[int, int], origin: Point, unit: float) -> Image.Image:
    """A tile of cloth: the garment's pattern, in units of the figure, darkened by ``factor``."""
    first, second = shaded(garment.colour, factor), shaded(garment.second, factor)
    image = Image.new("RGBA", size, (*first, 255))
    canvas = Canvas(image, origin, unit)
    if garment.pattern in ("horizontal", "check"):
        for k in range(10):
            canvas.box(-0.5, 0.085 * k + 0.02, 0.5, 0.085 * k + (0.06 if garment.pattern == "horizontal" else 0.05), second)
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


class _Figure:
    """One drawing of one person: the canvas, the proportions and the cloth of this call."""

    def __init__(self, canvas: Canvas, person: Person, phase: float, stride: float):
        self.canvas, self.person = canvas, person
        self.swing = sin(2 * pi * phase) * stride
        self.lift = cos(2 * pi * phase) * stride
        self.build = person.build / person.stature  # the unit already carries the stature
        self.shoulder = 0.105 * self.build**0.8
        self.hip = 0.078 * self.build

    def cloth(self, garment: Garment, factor: float = 1.0) -> "Colour | Image.Image":
        if garment.pattern in ("plain", "logo"):
            return (*shaded(garment.colour, factor), 255)
        canvas = self.canvas
        origin = (round(canvas.origin[0] * 2) / 2, round(canvas.origin[1] * 2) / 2)  # fewer textures to keep
        return _texture(garment, factor, canvas.image.size, origin, canvas.unit)

    # ---- limbs -----------------------------------------------------------------------------------------------
    def leg(self, hip: Point, knee: Point, ankle: Point, toe: float, factor: float) -> None:
        """Skin, then trousers or shorts, then the shoe, whose toe points ``toe`` to the right."""
        canvas, person, wide = self.canvas, self.person, self.build**0.7
        upper, lower = 0.088 * wide, 0.058 * wide
        bare = person.lower.kind != "trousers" or person.upper.kind == "dress"
        if bare:
            skin = shaded(person.skin, factor)
            canvas.limb(hip, knee, upper * 0.85, lower, skin)
            canvas.limb(knee, ankle, lower, lower * 0.72, skin)
            if person.lower.kind == "shorts" and person.upper.kind != "dress":
                middle = (hip[0] + 0.85 * (knee[0] - hip[0]), hip[1] + 0.85 * (knee[1] - hip[1]))
                canvas.limb(hip, middle, upper, upper * 0.95, self.cloth(person.lower, factor))
        else:
            cloth = self.cloth(person.lower, factor)
            canvas.limb(hip, knee, upper, lower * 1.12, cloth)
            canvas.limb(knee, ankle, lower * 1.12, lower, cloth)
        x, y = ankle
        shoe = shaded(person.shoes, factor)
        if toe:
            canvas.polygon([(x - 0.032, y + 0.02), (x + 0.03, y + 0.02), (x + toe, y - 0.012), (x + toe, y - 0.035),
                            (x - 0.034, y - 0.035)], shoe)  # fmt: skip
        else:
            canvas.polygon([(x - 0.027, y + 0.022), (x + 0.027, y + 0.022), (x + 0.034, y - 0.035),
                            (x - 0.034, y - 0.035)], shoe)  # fmt: skip

    def arm(self, shoulder: Point, elbow: Point, hand: Point, factor: float) -> None:
        canvas, person, wide = self.canvas, self.person, self.build**0.5
        skin = shaded(person.skin, factor)
        canvas.ellipse(hand, 0.025, 0.027, skin)
        sleeve = self.cloth(person.upper, factor)
        if person.upper.kind in ("t-shirt", "dress"):
            canvas.limb(shoulder, elbow, 0.05 * wide, 0.046 * wide, skin)
            canvas.limb(elbow, hand, 0.046 * wide, 0.036 * wide, skin)
            middle = ((shoulder[0] + elbow[0]) / 2, (shoulder[1] + elbow[1]) / 2)
            canvas.limb(shoulder, middle, 0.066 * wide, 0.068 * wide, sleeve)
        else:
            canvas.limb(shoulder, elbow, 0.066 * wide, 0.058 * wide, sleeve)
            canvas.limb(elbow, hand, 0.058 * wide, 0.048 * wide, sleeve)

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
            canvas.ellipse((s * 0.026, _HEAD - 0.008), 0.0095, 0.011, (40, 32, 32))
        canvas.line([(-0.02, _HEAD - 0.042), (0, _HEAD - 0.049), (0.02, _HEAD - 0.042)], 0.009, shaded(skin, 0.55))

    def head_back(self) -> None:
        canvas, person = self.canvas, self.person
        hair = person.hair_colour if person.hair != "bald" else shaded(person.skin, 0.96)
        canvas.limb((0, 0.80), (0, 0.86), 0.06, 0.055, shaded(person.skin, 0.85))
        if person.hair == "curly":
            canvas.ellipse((0, _HEAD + 0.015), _HEAD_X + 0.03, _HEAD_Y + 0.02, hair)
        canvas.ellipse((0, _HEAD), _HEAD_X, _HEAD_Y, person.skin)
        canvas.ellipse((0, _HEAD + 0.008), _HEAD_X + 0.006, _HEAD_Y - 0.004, hair)
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
        canvas.ellipse((0.04, _HEAD - 0.004), 0.009, 0.012, (40, 32, 32))

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
    def skirt(self, width: float, factor: float = 1.0) -> None:
        """The hanging part of a skirt, dress or coat, from the waist down."""
        person, sway = self.person, 0.02 * self.swing
        if person.upper.kind == "dress":
            garment, top, end, flare = person.upper, 0.6, 0.27, 1.75
        elif person.upper.kind == "coat":
            garment, top, end, flare = person.upper, 0.6, 0.29, 1.3
        elif person.lower.kind == "skirt":
            garment, top, end, flare = person.lower, 0.53, 0.29, 1.6
        else:
            return
        self.canvas.polygon([(-width, top), (width, top), (width * flare + sway, end), (-width * flare + sway, end)],
                            self.cloth(garment, factor))  # fmt: skip

    def torso(self, shoulder: float, hip: float) -> None:
        canvas, person = self.canvas, self.person
        end = 0.45 if person.upper.kind in ("t-shirt", "long-sleeve", "open-jacket") else 0.5
        waist = 0.5 * (shoulder + hip) * 0.92
        canvas.polygon([(-shoulder * 0.5, 0.835), (shoulder * 0.5, 0.835), (shoulder, 0.805), (shoulder * 0.97, 0.72),
                        (waist, 0.6), (hip * 1.1, end), (-hip * 1.1, end), (-waist, 0.6), (-shoulder * 0.97, 0.72),
                        (-shoulder, 0.805)], self.cloth(person.upper))  # fmt: skip

    def chest(self, shoulder: float) -> None:
        """What only the front shows: the shirt under an open jacket, a coat's buttons, a logo, the neckline."""
        canvas, person = self.canvas, self.person
        if person.upper.kind == "open-jacket":
            canvas.polygon([(-0.026, 0.83), (0.026, 0.83), (0.05, 0.45), (-0.05, 0.45)], person.inner)
        elif person.upper.kind == "coat":
            canvas.polygon([(-0.034, 0.835), (0.034, 0.835), (0, 0.72)], person.inner)
            canvas.line([(0, 0.72), (0, 0.3)], 0.011, shaded(person.upper.colour, 0.6))
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
            canvas.polygon([(-0.09, 0.77), (-0.06, 0.8), (0.06, 0.8), (0.09, 0.77), (0.098, 0.53), (-0.098, 0.53)], colour)
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
        x, y = hand
        self.canvas.line([(x - 0.03, y - 0.06), (x, y), (x + 0.03, y - 0.06)], 0.012, shaded(self.person.bag_colour, 0.7))
        self.canvas.box(x - 0.058, y - 0.15, x + 0.058, y - 0.055, self.person.bag_colour)

    # ---- whole views -----------------------------------------------------------------------------------------
    def facing(self, back: bool) -> None:
        person, canvas, swing = self.person, self.canvas, self.swing
        hands = []
        if not back:
            self.hair_behind(side=False)
            if person.hair == "ponytail":
                canvas.ellipse((0, _HEAD + 0.085), 0.03, 0.022, person.hair_colour)
        for s in (-1, 1):
            raised = max(0.0, s * swing) * 0.07  # the foot that swings away from the ground looks shorter
            knee = (s * self.hip * 0.78, _KNEE + 0.35 * raised)
            self.leg((s * self.hip * 0.58, _HIP), knee, (s * self.hip * 0.74, _ANKLE + raised), 0, 1 - raised * 3)
        if person.lower.kind in ("trousers", "shorts"):
            canvas.box(-self.hip * 1.05, _HIP - 0.03, self.hip * 1.05, 0.52, self.cloth(person.lower))
        for s in (-1, 1):
            forward = s * swing  # the arm opposite to the leg comes forward and looks shorter
            shoulder = (s * (self.shoulder - 0.012), _SHOULDER - 0.01)
            elbow = (s * (self.shoulder + 0.022), shoulder[1] - _UPPER_ARM + 0.012 * forward)
            hand = (s * (self.shoulder + 0.018 - 0.012 * forward), elbow[1] - _FOREARM + 0.05 * max(0.0, forward))
            self.arm(shoulder, elbow, hand, 0.86)
            hands.append(hand)
        if person.upper.kind == "dress" or person.upper.kind == "coat":
            self.torso(self.shoulder, self.hip)
            self.skirt(self.hip)
        else:
            self.skirt(self.hip)
            self.torso(self.shoulder, self.hip)
        if not back:
            self.chest(self.shoulder)
        self.bag_facing(near_back=back)
        if person.bag == "hand-bag":
            self.hand_bag(hands[1 if (person.bag_side == "left") != back else 0])
        if back:
            self.head_back()
        else:
            self.head_front()
        self.hat(-1 if back else 0)

    def walking(self, visible_side: str) -> None:
        person, canvas, swing = self.person, self.canvas, self.swing
        depth, hip = self.shoulder * 0.66, self.hip * 0.82
        legs, lowest = [], 1.0
        for s in (-1, 1):  # the far leg first; thigh and shin about one height above the ground
            thigh = 0.48 * s * swing
            bend = 0.10 * abs(swing) + 0.55 * max(0.0, -s * self.lift)
            knee = ((_HIP - _KNEE) * sin(thigh), _HIP - (_HIP - _KNEE) * cos(thigh))
            shin = thigh - bend
            ankle = (knee[0] + (_KNEE - _ANKLE) * sin(shin), knee[1] - (_KNEE - _ANKLE) * cos(shin))
            lowest = min(lowest, ankle[1])
            legs.append((knee, ankle))
        drop = lowest - _ANKLE  # the foot that stands touches the ground: the body sinks with the stride
        canvas.origin = (canvas.origin[0], canvas.origin[1] + drop * canvas.unit)
        arms = []
        for s in (-1, 1):
            angle = -0.5 * s * swing
            elbow = (_UPPER_ARM * sin(angle), _SHOULDER - 0.01 - _UPPER_ARM * cos(angle))
            lower = angle + 0.2 + 0.25 * max(0.0, -s * swing)
            arms.append((elbow, (elbow[0] + _FOREARM * sin(lower), elbow[1] - _FOREARM * cos(lower))))
        near = person.bag_side == visible_side
        self.arm((0, _SHOULDER - 0.01), *arms[0], 0.72)
        if person.bag == "hand-bag" and not near:
            self.hand_bag(arms[0][1])
        if person.bag == "shoulder-bag" and not near:
            canvas.box(-0.03, 0.44, 0.085, 0.54, shaded(person.bag_colour, 0.7))
        self.leg((0, _HIP), *legs[0], 0.075, 0.78)
        self.leg((0, _HIP), *legs[1], 0.075, 1.0)
        if person.bag == "backpack":
            canvas.polygon([(-depth * 0.5, 0.8), (-depth - 0.085, 0.76), (-depth - 0.1, 0.54), (-depth * 0.6, 0.53)],
                           person.bag_colour)  # fmt: skip
        if person.lower.kind in ("trousers", "shorts"):
            canvas.box(-hip, _HIP - 0.03, hip, 0.52, self.cloth(person.lower))
        if person.upper.kind in ("dress", "coat"):
            self.torso(depth, hip)
            self.skirt(hip)
        else:
            self.skirt(hip)
            self.torso(depth, hip)
        if person.upper.kind == "open-jacket":  # a narrow strip of the shirt shows at the front edge
            canvas.polygon([(depth * 0.45, 0.82), (depth * 0.9, 0.8), (depth * 0.93, 0.7), (hip * 1.1, 0.45),
                            (hip * 0.75, 0.45)], person.inner)  # fmt: skip
        self.head_side()
        self.hat(1)
        if person.bag == "backpack":
            canvas.line([(-depth * 0.55, 0.8), (depth * 0.35, 0.74), (-depth * 0.3, 0.58)], 0.024, person.bag_colour)
        if person.bag == "shoulder-bag" and near:
            canvas.line([(0, 0.83), (0.015, 0.56)], 0.02, shaded(person.bag_colour, 0.7))
            canvas.box(-0.07, 0.42, 0.08, 0.555, person.bag_colour)
            canvas.box(-0.07, 0.51, 0.08, 0.555, shaded(person.bag_colour, 0.7))
        self.arm((0, _SHOULDER - 0.01), *arms[1], 0.9)
        if person.bag == "hand-bag" and near:
            self.hand_bag(arms[1][1])


def figure_tile(person: Person, height: float, view: str, phase: float, stride: float,
                offset: Point = (0.0, 0.0)) -> tuple[Image.Image, tuple[int, int]]:  # fmt: skip
    """Draw a figure on its own tile.

    Args:
        height: height of the standing figure in pixels; the person's stature is already in it.
        offset: fraction of a pixel, 0..1, by which the standing point lies right of and below a pixel corner.

    Returns:
        The RGBA tile, and the tile pixel (x, y) of the corner the standing point is measured from.
    """
    require_choice("view", view, VIEWS)
    across = int(height * _REACH_X * max(1.0, person.build / person.stature)) + 2
    above, below = int(height * _TOP) + 2, int(height * _BOTTOM) + 2
    size = (2 * across * SUPERSAMPLE, (above + below) * SUPERSAMPLE)
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    origin = ((across + offset[0]) * SUPERSAMPLE, (above + offset[1]) * SUPERSAMPLE)
    # 0.987 is where the crown of a hatless head lies: the drawing fills the asked height
    canvas = Canvas(image, origin, height / 0.987 * SUPERSAMPLE, mirror=view == "left")
    figure = _Figure(canvas, person, phase, stride)
    if view in ("front", "back"):
        figure.facing(back=view == "back")
    else:
        figure.walking(visible_side=view)
    return image.reduce(SUPERSAMPLE), (across, above)


def draw_person(person: Person, height_px: float, view: str = "front", phase: float = 0.0, stride: float = 1.0,
                blur: float = 0.0) -> np.ndarray:  # fmt: skip
    """The figure alone, cut to its own extent.

    Args:
        height_px: height of the standing figure, pixels, at least 4.
        view: one of :data:`~pslib.data.people.VIEWS`.
        phase: position in the walking cycle, 0..1.
        stride: 0 stands, 1 walks.
        blur: Gaussian sigma in units of the height.

    Returns:
        uint8 array (H, W, 4): red, green, blue, alpha (not premultiplied).

    >>> from pslib.data.people import sample_person
    >>> draw_person(sample_person(np.random.default_rng(0)), 44.0, "back").shape[2]
    4
    """
    tile, _ = figure_tile(person, height_px, view, phase, stride)
    if blur:
        tile = tile.convert("RGBa").filter(ImageFilter.GaussianBlur(blur * height_px)).convert("RGBA")
    return np.asarray(tile.crop(tile.getbbox()))
