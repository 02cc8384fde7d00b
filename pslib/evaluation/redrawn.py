"""The queries of a drawn set, drawn again with one thing changed: do they still find themselves?

AlignPS, Sec. III-D, names occluders and backgrounds as what can mislead either branch.  Here the query alone is redrawn
(:mod:`pslib.data.redraw`); the galleries in which she is searched stay as they are on disk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pslib.data.annotations import PersonSearchSet, Protocol
from pslib.data.people import Person
from pslib.data.profiles import Profile
from pslib.data.redraw import placement_of, scene_of
from pslib.data.scenes import render
from pslib.data.stage import Scene
from pslib.errors import UserError
from pslib.evaluation.attribution import branch_embeddings
from pslib.evaluation.factors import with_neighbor
from pslib.models.batching import batch_images
from pslib.models.roi_alignps import RoiAlignPS

__all__ = ["Chosen", "Redrawn", "box_errors", "choose_queries", "cut_down", "embed_branches", "redraw", "walk_in"]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Query number ``query`` of a protocol, the ``scene`` she stands in, and which of its placements she is."""

    query: int
    person_id: int
    scene: Scene
    place: int


@dataclass(frozen=True, eq=False)
class Redrawn:
    """N drawn scenes, each about one person."""

    images: tuple[Tensor, ...]  # each (3, H, W) uint8
    boxes: Tensor  # (N, 4) float32 xyxy px, of her whole body, hidden or not
    owners: tuple[np.ndarray, ...]  # each (H, W) int16, whose a pixel is; negative: nobody's
    places: tuple[int, ...]  # which owner she is
    visible: np.ndarray  # (N,) fraction of her that is to be seen


def choose_queries(
    data: PersonSearchSet,
    protocol: str,
    count: int,
    height: float = 40,
    visible: float = 0.9,
    profile: Profile | None = None,
) -> list[Chosen]:
    """The first ``count`` queries of other people each, at least ``height`` px tall and ``visible`` to that fraction.

    ``profile`` as for :func:`pslib.data.redraw.scene_of`.  Raises UserError where the protocol has no such query.
    """
    found: dict[int, Chosen] = {}
    for number, query in enumerate(data.protocols[protocol].queries):
        if len(found) == count:
            break
        if query.box[3] - query.box[1] < height or query.person_id in found:
            continue
        scene = scene_of(data, query.frame, profile)
        drawn = render(scene)
        place = placement_of(drawn, query.box)
        if drawn.visible[drawn.placements == place][0] >= visible:
            found[query.person_id] = Chosen(number, query.person_id, scene, place)
    if not found:
        raise UserError(f"protocol {protocol} has no query of {height} px that is visible to {visible}: ask for less.")
    return list(found.values())


def redraw(chosen: Sequence[Chosen], change: Callable[[Scene, int], Scene] | None = None) -> Redrawn:
    """Draw every scene after ``change(scene, place)``, which must leave the order of its people; None: as it was."""
    images, boxes, owners, visible = [], [], [], []
    for one in chosen:
        drawn = render(one.scene if change is None else change(one.scene, one.place))
        row = np.flatnonzero(drawn.placements == one.place)
        if not len(row):
            raise UserError(f"person {one.person_id} of query {one.query} is not to be seen any more: change less.")
        images.append(torch.from_numpy(drawn.image).permute(2, 0, 1))
        boxes.append(torch.from_numpy(drawn.boxes[row[0]]))
        owners.append(drawn.owner)
        visible.append(float(drawn.visible[row[0]]))
    return Redrawn(
        tuple(images), torch.stack(boxes), tuple(owners), tuple(one.place for one in chosen), np.array(visible)
    )


def walk_in(appearance: Person, gap: float, front: bool = False) -> Callable[[Scene, int], Scene]:
    """The change that puts somebody beside her, ``gap`` body heights towards the side with more room.

    Right behind her, or with ``front`` right before her, where the newcomer hides a part of her.
    """

    def change(scene: Scene, place: int) -> Scene:
        height, width = scene.size
        side = 1 if scene.placements[place].x < width / height / 2 else -1
        return with_neighbor(scene, appearance, side * gap, place, front)

    return change


def box_errors(boxes: Tensor, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    """Boxes (N, 4) xyxy as a detector may get them wrong: moved by ``shift`` of each side, ``scale`` times as large.

    >>> box_errors(torch.tensor([[10.0, 10.0, 20.0, 30.0]]), shift=0.5).tolist()
    [[15.0, 20.0, 25.0, 40.0]]
    >>> box_errors(torch.tensor([[10.0, 10.0, 20.0, 30.0]]), scale=2.0).tolist()
    [[5.0, 0.0, 25.0, 40.0]]
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    middle = (boxes[:, 2:] + boxes[:, :2]) / 2 + shift * sides
    return torch.cat([middle - scale * sides / 2, middle + scale * sides / 2], dim=1)


@torch.no_grad()
def embed_branches(
    model: RoiAlignPS, images: Sequence[Tensor], boxes: Sequence[Tensor], batch_size: int = 16
) -> dict[str, np.ndarray]:
    """Embeddings of the ``boxes``, (n, 4) an image with the same n everywhere, by read: ``"dense"``, ``"roi"``, each
    (N, n, D), and ``"both"`` (N, n, 2 D), the two side by side; all of unit length."""
    multiple = model.alignps.backbone.strides[-1]
    parts = [
        branch_embeddings(
            model, batch_images(images[start : start + batch_size], multiple), boxes[start : start + batch_size]
        )
        for start in range(0, len(images), batch_size)
    ]
    found = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in ("dense", "roi")}
    found["both"] = np.concatenate([found["dense"], found["roi"]], axis=1) / np.sqrt(2)
    return {name: rows.reshape(len(images), -1, rows.shape[1]) for name, rows in found.items()}


def cut_down(protocol: Protocol, chosen: Sequence[Chosen]) -> Protocol:
    """The protocol with the ``chosen`` queries alone, in their order."""
    rows = [one.query for one in chosen]
    return Protocol(protocol.name, [protocol.queries[row] for row in rows], [protocol.galleries[row] for row in rows])
