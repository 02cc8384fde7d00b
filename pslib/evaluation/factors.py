"""The same person drawn again with one factor changed: how far does her embedding move?

A drawn scene is data (:class:`pslib.data.scenes.Scene`), so a street can be exchanged behind somebody, or her size
changed, while all else stays.  What an embedding does then has one cause.  AlignPS names two: with several levels a
person's size decides which map she is read from (Sec. III-B, scale), and a cell reads more than the person it stands
for (region).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from pslib.data.annotations import UNLABELLED
from pslib.data.knobs import Knobs
from pslib.data.people import Person, sample_person
from pslib.data.sampling import sample_scene
from pslib.data.scenes import render
from pslib.data.stage import Scene
from pslib.errors import UserError
from pslib.evaluation.levels import embed_boxes
from pslib.models.alignps import AlignPS
from pslib.models.batching import batch_images

__all__ = [
    "Likeness",
    "Views",
    "at_height",
    "draw_views",
    "drawn_people",
    "embed_at_levels",
    "embed_views",
    "likeness",
    "street_swapped_beyond",
    "with_neighbor",
]


@dataclass(frozen=True, eq=False)
class Views:
    """N drawn scenes, each about one person."""

    images: tuple[Tensor, ...]  # each (3, H, W) uint8
    boxes: Tensor  # (N, 4) float32 xyxy px, the person's
    masks: tuple[np.ndarray, ...]  # each (H, W) bool, pixels that are hers alone


@dataclass(frozen=True, eq=False)
class Likeness:
    """N changed embeddings compared with the N unchanged ones."""

    own: np.ndarray  # (N,) cosine of each person to herself
    others: np.ndarray  # (N,) mean cosine to the other people
    nearest: np.ndarray  # (N,) bool, nobody else is more similar

    @property
    def moved(self) -> np.ndarray:
        """How far each embedding moved, (N,): 0 not at all, 1 as far as to the average other person."""
        return (1 - self.own) / np.maximum(1 - self.others.mean(), 1e-6)


def drawn_people(count: int, rng: np.random.Generator, height: float | None = None) -> list[Scene]:
    """``count`` scenes, each with one person alone in the middle foreground, unhidden; ``height`` in px or as drawn.

    >>> scenes = drawn_people(2, np.random.default_rng(0), height=60)
    >>> [round(scene.placements[0].height * scene.size[0]) for scene in scenes]
    [60, 60]
    """
    knobs = Knobs(occlusion=0, clutter=0.2)
    scenes = [
        sample_scene([(number, sample_person(rng))], rng, knobs, unlabelled=0).with_(position=(0.78, 0.97))
        for number in range(count)
    ]
    return scenes if height is None else [at_height(scene, height) for scene in scenes]


def at_height(scene: Scene, height: float) -> Scene:
    """The scene with its first person ``height`` px tall, standing where she stood.

    >>> round(at_height(drawn_people(1, np.random.default_rng(0))[0], 40).placements[0].height * 144)
    40
    """
    return scene.with_(scale=height / (scene.placements[0].height * scene.size[0]))


def draw_views(scenes: Sequence[Scene], person: int = 0) -> Views:
    """Draw every scene; the box and the pixels are those of placement ``person``.

    Raises UserError where that person is hidden or out of the picture.
    """
    images, boxes, masks = [], [], []
    for number, scene in enumerate(scenes):
        drawn = render(scene)
        row = np.flatnonzero(drawn.placements == person)
        if not len(row):
            raise UserError(f"person {person} of scene {number} is not to be seen: choose another size or place.")
        images.append(torch.from_numpy(drawn.image).permute(2, 0, 1))
        boxes.append(torch.from_numpy(drawn.boxes[row[0]]))
        masks.append(drawn.owner == person)
    return Views(tuple(images), torch.stack(boxes), tuple(masks))


def street_swapped_beyond(scenes: Sequence[Scene], street: int, reach: float, person: int = 0) -> Views:
    """Another street behind the person, but only where a pixel is more than ``reach`` px away from her own pixels.

    ``reach`` 0 swaps all that is not her; a large one leaves the picture as it was.  Boxes are the unchanged scene's.
    """
    before = draw_views(scenes, person)
    after = draw_views([scene.with_(background=street) for scene in scenes], person)
    images = []
    for old, new, mask in zip(before.images, after.images, before.masks, strict=True):
        far = torch.from_numpy(distance_transform_edt(~mask) > reach)  # (H, W)
        images.append(torch.where(far, new, old))
    return replace(before, images=tuple(images))


def with_neighbor(scene: Scene, appearance: Person, gap: float, person: int = 0, front: bool = False) -> Scene:
    """The scene with somebody unlabelled right behind placement ``person``, ``gap`` body heights to her right.

    With ``front`` she stands right before that person and hides a part.  A standing figure is about 0.4 heights wide:
    at 0.3 the two overlap, at 0.6 there is street between them.
    """
    her = scene.placements[person]
    step = 0.01 if front else -0.01
    neighbour = replace(her, person=appearance, person_id=UNLABELLED, x=her.x + gap * her.height, y=her.y + step)
    return replace(scene, placements=(*scene.placements, neighbour))


def embed_views(model: AlignPS, views: Views, batch_size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings (N, D) of the people of ``views``, and the stride (N,) px of the level each was read from."""
    parts = [
        embed_boxes(model, views.images[start : start + batch_size], views.boxes[start : start + batch_size].split(1))
        for start in range(0, len(views.images), batch_size)
    ]
    embeddings, strides = (np.concatenate(column) for column in zip(*parts, strict=True))
    return embeddings, strides


@torch.no_grad()
def embed_at_levels(model: AlignPS, views: Views, places: Tensor | None = None) -> tuple[np.ndarray, Tensor]:
    """Every person read from each of the model's L levels, whatever her size.

    Unit embeddings (L, ..., N, D) and the points (L, ..., N, 2) xy px they were read at: of every level the cell
    nearest to ``places`` (..., N, 2) xy px, by default the middle of her box.  The points of a level are odd multiples
    of half its stride, so from level to level the map differs, and by a few pixels the place.
    """
    dense = model.dense(batch_images(views.images, multiple=model.backbone.strides[-1]))
    if places is None:
        places = (views.boxes[:, :2] + views.boxes[:, 2:]) / 2
    distance = (dense.points - places[..., None, :]).square().sum(dim=-1)  # (..., N, A)
    rows = torch.arange(len(views.images))
    found, points = [], []
    for stride in dense.strides.unique():
        nearest = distance.masked_fill(dense.strides != stride, torch.inf).argmin(dim=-1)  # (..., N)
        embeddings = model.normalize(dense.embeddings[rows, nearest].flatten(0, -2))
        found.append(embeddings.unflatten(0, nearest.shape))
        points.append(dense.points[nearest])
    return torch.stack(found).cpu().numpy(), torch.stack(points)


def likeness(unchanged: np.ndarray, changed: np.ndarray) -> Likeness:
    """:class:`Likeness` of two sets of unit embeddings (N, D) of the same N people, N at least 2.

    >>> same = likeness(np.eye(3), np.eye(3))
    >>> same.own.tolist(), same.others.tolist(), same.nearest.tolist()
    ([1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [True, True, True])
    """
    cosine = changed @ unchanged.T  # (N, N)
    own = np.diag(cosine)
    others = (cosine.sum(axis=1) - own) / (len(cosine) - 1)
    return Likeness(own, others, cosine.argmax(axis=1) == np.arange(len(cosine)))
