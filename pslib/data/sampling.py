"""Chance: how scenes come out of a generator and the knobs."""

from collections.abc import Sequence

import numpy as np

from pslib.data.annotations import UNLABELLED
from pslib.data.knobs import Knobs
from pslib.data.objects import OBJECTS
from pslib.data.people import VIEWS, Person, sample_person
from pslib.data.stage import Lighting, Placement, Scene
from pslib.data.streets import Background, Occluder, furniture, sample_background
from pslib.errors import require_choice

__all__ = ["sample_crop", "sample_lighting", "sample_scene"]


def sample_lighting(rng: np.random.Generator, knobs: Knobs | None = None, near: Lighting | None = None,
                    drift: float = 0.25) -> Lighting:  # fmt: skip
    """A light; ``near`` a given one (a fixed camera's), it moves only by ``drift`` of the knobs' spread."""
    knobs = knobs or Knobs()
    base, spread = (near, drift) if near is not None else (Lighting(), 1.0)

    def gain(value: float, sigma: float) -> float:
        return float(value * np.exp(rng.normal(0, 1) * sigma * spread))

    brightness, contrast = gain(base.brightness, knobs.brightness), gain(base.contrast, knobs.contrast)
    cast = tuple(gain(value, knobs.cast) for value in base.cast)
    shadow, side = float(rng.uniform(0, knobs.side_shadow)), str(rng.choice(("left", "right")))
    if near is not None:
        shadow, side = (1 - drift) * near.side_shadow + drift * shadow, near.shadow_side
    return Lighting(brightness, contrast, cast, shadow, side)


def _place(person: Person, person_id: int, placed: list[Placement], rng: np.random.Generator, knobs: Knobs,
           background: Background, wide: float) -> Placement:  # fmt: skip
    """A standing point on the ground plane; its depth gives the size."""
    low, high = np.log(knobs.min_height / 144), np.log(knobs.max_height / 144)
    best, least = None, np.inf
    for _ in range(6):
        # many far, few near: this beta has its median at 0.39, 44 px for 24..112
        average = float(np.exp(low + (high - low) * rng.beta(1.6, 2.4)))
        if placed and rng.random() < knobs.crowding:
            friend = placed[int(rng.integers(len(placed)))]
            average = float(np.clip(friend.height / friend.person.stature * np.exp(rng.normal(0, 0.1)),
                                    np.exp(low), np.exp(high)))  # fmt: skip
            x = friend.x + float(rng.choice((-1, 1)) * rng.uniform(0.22, 0.55)) * average
        else:
            x = float(rng.uniform(0.03, wide - 0.03))
        y = background.foot_for(average)
        if y > 1.06:  # too near for this camera: the feet would leave the frame
            y = float(rng.uniform(0.97, 1.06))
            average = background.height_at(y)
        # how much this place would hide, or be hidden by, those placed before
        clash = sum(max(0.0, 0.36 - abs(x - other.x) / max(average, other.height)) for other in placed)
        clash += 2.0 * (not 0.02 * wide < x < 0.98 * wide)
        if clash < least:
            best, least = (x, y, average), clash
        if clash < 0.25:
            break
    x, y, average = best
    weights = np.array(knobs.view_mix, float)
    return Placement(
        person, person_id, x, y, average * person.stature,
        view=VIEWS[int(rng.choice(4, p=weights / weights.sum()))],
        phase=float(rng.random()),
        stride=float(np.clip(rng.normal(0.75, 0.35), 0, 1)),
        blur=float(knobs.blur * rng.random() ** 2),
        motion=float(knobs.motion * rng.random() ** 2),
        shade=float(knobs.shade * rng.random() ** 2),
    )  # fmt: skip


def _occlude(target: Placement, rng: np.random.Generator, background: Background) -> Occluder:
    """A thing a little nearer than a person, before a part of the body."""
    kind = str(rng.choice(("pole", "car", "bin", "hedge", "bench", "sign"), p=(0.2, 0.14, 0.16, 0.22, 0.14, 0.14)))
    y = target.y + float(rng.uniform(0.01, 0.08)) * target.height
    aside = 0.9 if kind in ("car", "hedge") else 0.14
    x = target.x + float(rng.normal(0, 0.5)) * aside * target.height
    return Occluder(kind, x, y, max(0.02, background.height_at(y)), int(rng.integers(2**31)))


def sample_scene(people: Sequence[tuple[int, Person]], rng: np.random.Generator, knobs: Knobs | None = None, *,
                 background: Background | None = None, unlabelled: "Sequence[Person] | int | None" = None,
                 lighting: Lighting | None = None, size: tuple[int, int] = (144, 224)) -> Scene:  # fmt: skip
    """A scene with these people in it.

    Args:
        people: (person id, appearance) of the labelled people.
        background: a fixed camera's place; a new one if not given.
        unlabelled: passers-by, or how many to invent; by default so many that their expected share is
            ``knobs.unlabelled``.
        lighting: a light; a new one if not given.
        size: (H, W) in pixels.

    >>> from pslib.data.people import sample_person
    >>> rng = np.random.default_rng(1)
    >>> len(sample_scene([(0, sample_person(rng))], rng, unlabelled=2).placements)
    3
    """
    knobs = (knobs or Knobs()).validate()
    background = background or sample_background(rng, knobs)
    lighting = lighting or sample_lighting(rng, knobs)
    if unlabelled is None:
        unlabelled = int(rng.poisson(max(1, len(people)) * knobs.unlabelled / (1 - knobs.unlabelled)))
    if isinstance(unlabelled, int):
        unlabelled = [sample_person(rng, knobs) for _ in range(unlabelled)]
    crowd = [*people, *((UNLABELLED, person) for person in unlabelled)]
    placed: list[Placement] = []
    for index in rng.permutation(len(crowd)):
        person_id, person = crowd[index]
        placed.append(_place(person, person_id, placed, rng, knobs, background, size[1] / size[0]))
    occluders = [*furniture(background, size[1] / size[0])]
    occluders += [_occlude(p, rng, background) for p in placed if rng.random() < knobs.occlusion]
    return Scene(size, background, tuple(placed), tuple(occluders), lighting, knobs.noise,
                 int(rng.integers(2**31)), knobs.min_visible)  # fmt: skip


def sample_crop(rng: np.random.Generator, knobs: Knobs | None = None, *, person: Person | None = None,
                kind: str | None = None, size: tuple[int, int] = (64, 32)) -> Scene:  # fmt: skip
    """One person, or one object of ``kind`` from ``OBJECTS``, large before a random street; neither: the street.

    Labels for a neutral classifier stand in the scene: ``placements[0].view``, ``.person.upper.kind``,
    ``.person.upper.pattern``, ``.person.hair``, ``.person.bag`` ...; ``occluders[0].kind``.
    """
    knobs = knobs or Knobs()
    background = sample_background(rng, knobs)
    wide = size[1] / size[0]
    x, y = wide * float(rng.uniform(0.42, 0.58)), float(rng.uniform(0.92, 1.0))
    placements, occluders = (), ()
    if person is not None:
        weights = np.array(knobs.view_mix, float)
        placements = (Placement(
            person, 0, x, y, float(rng.uniform(0.76, 0.92)),
            view=VIEWS[int(rng.choice(4, p=weights / weights.sum()))], phase=float(rng.random()),
            stride=float(np.clip(rng.normal(0.75, 0.35), 0, 1)), blur=float(knobs.blur * rng.random() ** 2),
            motion=float(knobs.motion * rng.random() ** 2), shade=float(knobs.shade * rng.random() ** 2),
        ),)  # fmt: skip
    elif kind is not None:
        half, height = OBJECTS[require_choice("object", kind, OBJECTS)]
        unit = float(rng.uniform(0.75, 1.0)) * min(0.92 / height, 0.5 * wide / half)
        occluders = (Occluder(kind, x, y, unit, int(rng.integers(2**31))),)
    return Scene(size, background, placements, occluders, sample_lighting(rng, knobs), knobs.noise,
                 int(rng.integers(2**31)), knobs.min_visible)  # fmt: skip
