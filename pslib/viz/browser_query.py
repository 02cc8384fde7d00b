"""Who is searched, and among which frames she was chosen: what the query browser knows apart from its controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pslib.data.annotations import UNLABELLED, PersonSearchSet
from pslib.data.loading import read_image
from pslib.evaluation.detections import Detections
from pslib.evaluation.gallery import GalleryEmbeddings
from pslib.models.alignps import AlignPS
from pslib.viz.browser_input import box_in_image, data_uri

__all__ = ["Item", "OwnPicture", "Query", "Source", "annotated_rows", "embedding_of", "item_of", "of_frame",
           "people_in", "people_of", "query_in_frame", "query_in_picture"]


@dataclass(frozen=True, eq=False)
class Source:
    """One set to search in: its frames, and for each model what that model saw in them."""

    data: PersonSearchSet
    models: Mapping[str, AlignPS]
    galleries: Mapping[str, GalleryEmbeddings]


@dataclass(frozen=True, eq=False)
class Query:
    """One person to be found.

    ``image`` (3, H, W) uint8; ``box`` xyxy px; ``frame`` index into the set, -1 for a picture of one's own; ``row`` her
    place among the frame's annotated boxes, -1 if none fits; ``person_id`` is UNLABELLED where nobody knows.
    """

    image: Tensor
    box: tuple[float, float, float, float]
    frame: int
    row: int
    person_id: int
    name: str


@dataclass(eq=False)
class OwnPicture:
    """A picture (H, W, 3) uint8 of one's own, what it is called, and the query that was ``asked`` in it last."""

    image: np.ndarray
    name: str
    asked: Query | None = None


@dataclass(frozen=True)
class Item:
    """One thumbnail: a frame, and the annotated box ``row`` that is searched at once (-1: only show the frame)."""

    frame: int
    row: int = -1
    label: str = ""


def query_in_frame(data: PersonSearchSet, frame: int, box: Sequence[float], row: int = -1) -> Query:
    """The query that ``box`` in a frame of the set asks; without ``row``, an annotation it overlaps by half is hers."""
    from torchvision.ops import box_iou

    shown = data.frames[frame]
    image = read_image(shown.path)
    cut = box_in_image(box, tuple(image.shape[-2:]))
    exact = row >= 0
    if not exact and len(shown.boxes):
        overlap = box_iou(torch.tensor([cut]), torch.from_numpy(shown.boxes).float())[0]
        row = int(overlap.argmax()) if float(overlap.max()) >= 0.5 else -1
    person = int(shown.person_ids[row]) if row >= 0 else UNLABELLED
    who = f"person {person}" if person != UNLABELLED else "somebody without a number"
    kind = "" if exact else ", box as detected or drawn"
    return Query(image, tuple(cut), frame, row if exact else -1, person, f"{who} in {shown.name}{kind}")


def query_in_picture(image: np.ndarray, box: Sequence[float], name: str) -> Query:
    """The query that ``box`` in a picture (H, W, 3) of one's own asks; nobody's verdicts are known for it."""
    cut = box_in_image(box, image.shape[:2])
    pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    return Query(pixels, tuple(cut), -1, -1, UNLABELLED, f"a box in {name}")


@torch.no_grad()
def embedding_of(query: Query, source: Source, model: str) -> np.ndarray:
    """The query's embedding (D,): that of her annotated box where it was searched, else of the box as given."""
    if query.row >= 0 and query.frame >= 0:
        return source.galleries[model].ground_truth.embeddings[annotated_rows(source.data)[query.frame] + query.row]
    _, (rows,) = source.models[model].detect_and_embed([query.image], [torch.tensor([query.box])])
    return rows[0].float().cpu().numpy()


def annotated_rows(data: PersonSearchSet) -> np.ndarray:
    """Where each frame's annotated boxes begin among those of all frames: (F + 1,)."""
    return np.concatenate([[0], np.cumsum([len(frame.boxes) for frame in data.frames])]).astype(int)


def of_frame(detections: Detections, frame: int, threshold: float = 0.0) -> Detections:
    """The detections of one frame that reach ``threshold``, best score first."""
    rows = np.flatnonzero((detections.frame == frame) & (detections.scores >= threshold))
    return detections.select(rows[np.argsort(-detections.scores[rows], kind="stable")])


def people_of(source: Source, frame: int, model: str, kind: str, threshold: float) -> list[dict[str, Any]]:
    """The boxes to click in a frame, as the picker takes them: ``kind`` is ``"annotated"`` or ``"detected"``."""
    if kind == "detected":
        found = of_frame(source.galleries[model].detections, frame, threshold)
        return _detected(found.boxes, found.scores)
    shown = source.data.frames[frame]
    return [{"box": box.tolist(), "kind": kind,
             "name": f"annotated, person {person}" if person != UNLABELLED else "annotated, without a number"}
            for box, person in zip(shown.boxes, shown.person_ids.tolist(), strict=True)]


@torch.no_grad()
def people_in(image: np.ndarray, source: Source, model: str, threshold: float) -> list[dict[str, Any]]:
    """The boxes that a model detects in a picture (H, W, 3) of one's own, as the picker takes them, best first."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    (found,) = source.models[model]([pixels])
    kept = found["scores"] >= threshold
    return _detected(found["boxes"][kept].numpy(), found["scores"][kept].numpy())


def _detected(boxes: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    return [{"box": box.tolist(), "name": f"detected, score {score:.2f}", "kind": "detected"}
            for box, score in zip(boxes, scores, strict=True)]


def item_of(data: PersonSearchSet, item: Item) -> dict[str, str]:
    """An item as the picker takes it: thumbnail, alt text, label."""
    frame = data.frames[item.frame]
    label = item.label or frame.name
    return {"image": data_uri(read_image(frame.path), width=112, quality=70), "name": label,
            "alt": f"{frame.name}, {len(frame.boxes)} annotated people"}
