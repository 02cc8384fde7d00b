"""What if?  A person of a drawn set, drawn again with one factor changed and everything else as it was.

A drawn frame is a file, but the plan behind it comes from the set's seed, so the very scene can be had again:
:func:`scene_of`, and with another view, size, light ... of one person in it: :func:`query_with`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pslib.data.annotations import PersonSearchSet
from pslib.data.drawing import World, scenes_of
from pslib.data.plans import Job
from pslib.data.profiles import Profile
from pslib.data.scenes import Rendered, Scene, render
from pslib.data.stage import Placement
from pslib.data.synthetic import dealt
from pslib.errors import UserError

__all__ = ["Redrawn", "placement_of", "query_with", "scene_of", "what_ifs"]

_LEFT_OF_HER = 0.08  # visible fraction below which the generator gives a person no box


@dataclass(frozen=True, eq=False)
class Redrawn:
    """A query drawn again: ``image`` (H, W, 3) uint8, her ``box`` xyxy px, the ``visible`` fraction of her, 0..1."""

    image: np.ndarray
    box: tuple[float, float, float, float]
    visible: float
    scene: Scene


@lru_cache(maxsize=4)
def _plan(root: Path, split: str, profile: Profile | None, _changed: float) -> tuple[dict[str, tuple[Job, int]], World]:
    """Where each frame's name stands in the plan; made again when the manifest was written anew."""
    jobs, world = dealt(root, split, profile)
    return {name: (job, place) for job in jobs for place, name in enumerate(job.names)}, world


def scene_of(data: PersonSearchSet, frame: int, profile: Profile | None = None) -> Scene:
    """The scene that frame number ``frame`` of a drawn set was painted from.

    Rendered it gives the pixels of the stored file as they were before JPEG.  ``profile`` is needed only for sets that
    were drawn with a profile of one's own.  Raises UserError for a set that is not drawn, or drawn by another version.
    """
    manifest = data.root / "manifest.json"
    names, world = _plan(data.root, data.split, profile, manifest.stat().st_mtime if manifest.exists() else 0.0)
    name = data.frames[frame].name
    if name not in names:
        raise UserError(f"{name} is not in the plan of {data.root}: draw the set again with 'pslib data make'.")
    job, place = names[name]
    return scenes_of(job, world)[place]


def placement_of(drawn: Rendered, box: np.ndarray) -> int:
    """Which of ``scene.placements`` the annotated ``box`` (4,) xyxy belongs to: the one whose corners are nearest."""
    if not len(drawn.boxes):
        raise UserError("nobody has a box in this scene: choose a frame with people.")
    return int(drawn.placements[np.abs(drawn.boxes - np.asarray(box, np.float32)).sum(axis=1).argmin()])


def query_with(data: PersonSearchSet, frame: int, row: int, profile: Profile | None = None, **changes: Any) -> Redrawn:
    """The person of annotated box ``row`` in ``frame`` drawn again with ``changes``, arguments of :meth:`Scene.with_`.

    ``query_with(data, 3, 0, view="back")``; without changes it is the frame as it was before JPEG.  Raises UserError
    if so little of her is left that nobody would annotate her.
    """
    boxes = data.frames[frame].boxes
    if not 0 <= row < len(boxes):
        name = data.frames[frame].name
        raise UserError(f"{name} has {len(boxes)} annotated people, none at place {row}: count them from 0.")
    scene = scene_of(data, frame, profile)
    person = placement_of(render(scene), boxes[row])
    changed = scene.with_(person=person, **changes)
    drawn = render(changed)
    place = np.flatnonzero(drawn.placements == person)
    if not len(place):
        told = ", ".join(f"{name}={value!r}" for name, value in changes.items() if isinstance(value, (float, str)))
        raise UserError(f"with {told or 'this change'} less than {_LEFT_OF_HER:.0%} of her is to be seen: change less.")
    box = tuple(float(side) for side in drawn.boxes[place[0]])
    return Redrawn(drawn.image, box, float(drawn.visible[place[0]]), changed)


def what_ifs(scene: Scene, person: int) -> dict[str, Mapping[str, Any]]:
    """One-factor changes for placement ``person``, by what they are called: arguments of :meth:`Scene.with_`.

    The factors are those whose failures AlignPS shows in its Fig. 10 (viewpoint, occlusion, scale) and those of the
    drawn world besides (light, street, step).  A change that would leave her as she is is not offered.
    """
    her: Placement = scene.placements[person]
    views = {"front": "from the front", "back": "from behind", "left": "from the left", "right": "from the right"}
    turned = {f"seen {text}": {"view": view} for view, text in views.items() if view != her.view}
    light = scene.lighting
    # A walking cycle is two steps; who stands still has no legs to move.
    walking = {"half a step on": {"phase": (her.phase + 0.25) % 1.0}} if her.stride > 0 else {}
    return {
        "as drawn": {},
        **turned,
        "lower half hidden": {"occluder": 0.5},
        "half as tall": {"scale": 0.5},
        "half as tall again": {"scale": 1.5},
        "another street": {"background": scene.background.seed + 1},
        "darker": {"lighting": replace(light, brightness=light.brightness * 0.6)},
        "bluer light": {"lighting": replace(light, cast=(light.cast[0] * 0.8, light.cast[1], light.cast[2] * 1.2))},
        **walking,
    }
