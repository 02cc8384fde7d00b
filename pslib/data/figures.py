"""Draws a person: an articulated figure of upper and lower limbs, garments, hair and bags.

Drawing units: a figure of average stature is 1 high; x to the right of the standing point, y upward.  Side views are
drawn walking to the right and mirrored for the left.  What is drawn last lies in front.
"""

from math import cos, sin

import numpy as np
from PIL import Image, ImageFilter

from pslib.data.canvas import SUPERSAMPLE, Canvas, Point, shaded
from pslib.data.people import VIEWS, Person
from pslib.data.wardrobe import Wardrobe
from pslib.errors import require_choice

__all__ = ["figure_tile", "draw_person"]

# heights of the joints and lengths of the arms of an average figure, in units of its height
_SHOULDER, _HIP, _KNEE, _ANKLE = 0.80, 0.49, 0.27, 0.035
_UPPER_ARM, _FOREARM = 0.165, 0.155
_REACH_X, _TOP, _BOTTOM = 0.46, 1.08, 0.10  # what a tile must hold, for stature 1


class _Figure(Wardrobe):
    """The body: limbs, and the order in which a view is drawn."""

    def leg(self, hip: Point, knee: Point, ankle: Point, toe: float, factor: float) -> None:
        """Skin, then trousers or shorts, then the shoe, whose toe points ``toe`` to the right."""
        canvas, person, wide = self.canvas, self.person, self.build**0.7
        upper, lower = 0.088 * wide, 0.058 * wide
        bare = person.lower.kind != "trousers"
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

    def facing(self, back: bool) -> None:
        person, canvas, swing = self.person, self.canvas, self.swing
        hands = []
        if not back:
            self.hair_behind(side=False)
            if person.hair == "ponytail":
                canvas.ellipse((0, 0.99), 0.03, 0.022, person.hair_colour)
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
            canvas.polygon([(depth * 0.45, 0.82), (depth * 0.9, 0.8), (depth * 0.93, 0.7), (hip * 1.1, 0.425),
                            (hip * 0.75, 0.425)], person.inner)  # fmt: skip
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
        The tile, RGBa (premultiplied), and its pixel (x, y) of the corner the standing point is measured from.
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
    return image.convert("RGBa").reduce(SUPERSAMPLE), (across, above)


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
        tile = tile.filter(ImageFilter.GaussianBlur(blur * height_px))
    return np.asarray(tile.crop(tile.getbbox()).convert("RGBA"))
