"""People as data: what makes an identity, drawn from a seed, and her look-alikes.

A :class:`Person` is an appearance and nothing else: pose, view and light change between sightings and belong to the
scene.  :mod:`pslib.data.figures` draws a person.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pslib.data.canvas import Colour
from pslib.data.knobs import Knobs
from pslib.errors import UserError

__all__ = [
    "BAGS", "HAIR_STYLES", "HATS", "LOWER_KINDS", "PATTERNS", "UPPER_KINDS", "VIEWS",
    "Garment", "Person", "look_alike", "sample_people", "sample_person",
]  # fmt: skip

VIEWS = ("front", "right", "back", "left")  # side views: where the person walks to, as the camera sees it
PATTERNS = ("plain", "horizontal", "vertical", "check", "dots", "two-tone", "logo")
UPPER_KINDS = ("t-shirt", "long-sleeve", "open-jacket", "coat", "dress")
LOWER_KINDS = ("trousers", "shorts", "skirt")
HAIR_STYLES = ("short", "bob", "long", "ponytail", "curly", "bald")
BAGS = ("none", "backpack", "shoulder-bag", "hand-bag")
HATS = ("none", "cap", "beanie")

# Commonest first, as on a street: knob ``palette`` keeps the first so many.
_CLOTHES: tuple[Colour, ...] = (
    (38, 38, 44), (226, 226, 222), (44, 58, 104), (128, 130, 134), (176, 48, 50), (74, 116, 176),
    (196, 172, 134), (66, 102, 70), (106, 72, 50), (214, 164, 58), (118, 60, 108), (168, 200, 224),
    (216, 110, 52), (222, 156, 172), (46, 128, 128), (116, 114, 62), (120, 36, 54), (150, 140, 196),
)  # fmt: skip
_LOWER_COLOURS = (0, 2, 3, 6, 0, 2, 8, 5, 7, 15)  # trousers are duller than shirts
_SKINS: tuple[Colour, ...] = (
    (246, 212, 186), (232, 188, 154), (210, 160, 122), (172, 122, 86), (128, 84, 58), (92, 60, 44),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (30, 24, 22), (62, 42, 30), (104, 70, 42), (196, 158, 92), (152, 70, 36), (170, 168, 166),
)  # fmt: skip


@dataclass(frozen=True)
class Garment:
    """One piece of clothing: its cut, its pattern, the main colour and the pattern's second colour."""

    kind: str
    pattern: str
    colour: Colour
    second: Colour


@dataclass(frozen=True)
class Person:
    """The appearance of one identity.  ``stature`` and ``build`` are factors around 1 (height, width)."""

    skin: Colour
    hair: str
    hair_colour: Colour
    hat: str
    hat_colour: Colour
    stature: float
    build: float
    upper: Garment
    inner: Colour  # the shirt under an open jacket or coat
    lower: Garment
    shoes: Colour
    bag: str
    bag_colour: Colour
    bag_side: str  # the person's own "left" or "right"


def _cloth_colour(rng: np.random.Generator, knobs: Knobs, dull: bool = False) -> Colour:
    """One palette colour, dyed a little differently each time, at the knobs' saturation."""
    # the weight falls with rank, so the common colours are shared by many people
    allowed = [i for i in _LOWER_COLOURS if i < knobs.palette] if dull else list(range(knobs.palette))
    weights = np.array([1.0 / (3 + rank) for rank in range(len(allowed))])
    base = _CLOTHES[int(rng.choice(allowed, p=weights / weights.sum()))]
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in base))
    value = float(np.clip(value * np.exp(rng.normal(0, 0.08)), 0.08, 0.95))
    hue = (hue + rng.normal(0, 0.012)) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation * knobs.saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)


def _second_colour(rng: np.random.Generator, knobs: Knobs, first: Colour) -> Colour:
    """A colour that can be told from the first (at least 60 grey levels away in some channel)."""
    for _ in range(20):
        second = _cloth_colour(rng, knobs)
        if max(abs(a - b) for a, b in zip(first, second, strict=True)) >= 60:
            return second
    return (235, 235, 230) if sum(first) < 380 else (30, 30, 34)


def _sample_upper(rng: np.random.Generator, knobs: Knobs) -> Garment:
    kind = str(rng.choice(UPPER_KINDS, p=(0.3, 0.27, 0.19, 0.12, 0.12)))
    patterns = (0.2, 0.14, 0.12, 0.14, 0.12, 0.14, 0.14)
    pattern = str(rng.choice(PATTERNS, p=patterns))
    colour = _cloth_colour(rng, knobs)
    return Garment(kind, pattern, colour, _second_colour(rng, knobs, colour))


def _sample_lower(rng: np.random.Generator, knobs: Knobs) -> Garment:
    kind = str(rng.choice(LOWER_KINDS, p=(0.62, 0.2, 0.18)))
    pattern = str(rng.choice(("plain", "vertical", "check", "two-tone"), p=(0.7, 0.1, 0.12, 0.08)))
    colour = _cloth_colour(rng, knobs, dull=True)
    return Garment(kind, pattern, colour, _second_colour(rng, knobs, colour))


def _sample_hair(rng: np.random.Generator) -> tuple[str, Colour]:
    style = str(rng.choice(HAIR_STYLES, p=(0.32, 0.16, 0.18, 0.14, 0.12, 0.08)))
    return style, _HAIRS[int(rng.choice(len(_HAIRS), p=(0.34, 0.22, 0.16, 0.12, 0.07, 0.09)))]


def sample_person(rng: np.random.Generator, knobs: Knobs | None = None) -> Person:
    """One appearance.  ``knobs.palette`` and ``knobs.saturation`` say how distinctive clothes are.

    >>> sample_person(np.random.default_rng(0)) == sample_person(np.random.default_rng(0))
    True
    """
    knobs = (knobs or Knobs()).validate()
    hair, hair_colour = _sample_hair(rng)
    upper, lower = _sample_upper(rng, knobs), _sample_lower(rng, knobs)
    return Person(
        skin=_SKINS[int(rng.integers(len(_SKINS)))],
        hair=hair,
        hair_colour=hair_colour,
        hat=str(rng.choice(HATS, p=(0.78, 0.13, 0.09))),
        hat_colour=_cloth_colour(rng, knobs),
        stature=float(np.clip(rng.normal(1.0, 0.06), 0.85, 1.15)),
        build=float(np.clip(rng.normal(1.0, 0.13), 0.75, 1.4)),
        upper=upper,
        inner=_second_colour(rng, knobs, upper.colour),
        lower=lower,
        shoes=_cloth_colour(rng, knobs),
        bag=str(rng.choice(BAGS, p=(0.4, 0.25, 0.2, 0.15))),
        bag_colour=_cloth_colour(rng, knobs),
        bag_side=str(rng.choice(("left", "right"))),
    )


# attributes that go together; the first says whether a group differs
_GROUPS = (
    ("hair", "hair_colour"), ("skin",), ("hat", "hat_colour"), ("upper", "inner"), ("lower",), ("shoes",),
    ("bag", "bag_colour"), ("build", "stature"),
)  # fmt: skip


def _differs(one: object, other: object) -> bool:
    """Whether two values of an attribute can be told apart by eye."""
    if isinstance(one, Garment) and isinstance(other, Garment):
        return (one.kind, one.pattern) != (other.kind, other.pattern) or _differs(one.colour, other.colour)
    if isinstance(one, tuple):
        return max(abs(a - b) for a, b in zip(one, other, strict=True)) >= 35
    return abs(one - other) >= 0.12 if isinstance(one, float) else one != other


def look_alike(person: Person, rng: np.random.Generator, changed: int = 2, knobs: Knobs | None = None) -> Person:
    """A different person who shares everything with ``person`` but ``changed`` of eight attribute groups.

    The groups are hair, skin, hat, upper garment, lower garment, shoes, bag, body shape.

    >>> rng = np.random.default_rng(0)
    >>> person = sample_person(rng)
    >>> twin = look_alike(person, rng, changed=1)
    >>> twin != person
    True
    """
    knobs = (knobs or Knobs()).validate()
    if not 0 <= changed <= len(_GROUPS):
        raise UserError(f"a look-alike cannot differ in {changed} attributes: choose a number in 0..{len(_GROUPS)}.")
    result = person
    for index in rng.permutation(len(_GROUPS))[:changed]:
        while True:  # until the group differs by more than the dye
            other = sample_person(rng, knobs)
            if _differs(getattr(other, _GROUPS[index][0]), getattr(person, _GROUPS[index][0])):
                break
        result = replace(result, **{name: getattr(other, name) for name in _GROUPS[index]})
    return result


def sample_people(count: int, rng: np.random.Generator, knobs: Knobs | None = None) -> Sequence[Person]:
    """``count`` people, a share ``knobs.look_alikes`` of whom copy an earlier one but for a few attributes."""
    knobs = (knobs or Knobs()).validate()
    people: list[Person] = []
    for _ in range(count):
        if people and rng.random() < knobs.look_alikes:
            model = people[int(rng.integers(len(people)))]
            people.append(look_alike(model, rng, knobs.look_alike_changes, knobs))
        else:
            people.append(sample_person(rng, knobs))
    return people
