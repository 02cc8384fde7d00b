"""From which pyramid level was a box embedded, and does re-id work from one level to another?

AlignPS, Sec. III-B and Fig. 3: a detector with several levels embeds small people from P3 and large ones from P5, so
one person seen near and far is described by two different maps.  These functions measure what that does, with
ground-truth boxes, so that no error of the detector mixes in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pslib.data.annotations import UNLABELLED, Frame
from pslib.data.loading import read_image
from pslib.evaluation.average_precision import average_precision
from pslib.models.alignps import AlignPS
from pslib.models.batching import batch_images
from pslib.progress import progress

__all__ = ["BoxEmbeddings", "LevelRetrieval", "embed_boxes", "embed_frames", "retrieval_by_level"]


@dataclass(frozen=True, eq=False)
class BoxEmbeddings:
    """N ground-truth boxes, their embeddings and the map each was read from."""

    embeddings: np.ndarray  # (N, D) float32, unit length
    strides: np.ndarray  # (N,) int64 px, of the level read
    boxes: np.ndarray  # (N, 4) float32 xyxy px
    people: np.ndarray  # (N,) int64 person id, UNLABELLED where not known
    frames: np.ndarray  # (N,) int64


@dataclass(frozen=True, eq=False)
class LevelRetrieval:
    """Re-id of people of one size among people of another; rows are the query's group, columns the gallery's."""

    ap: np.ndarray  # (L, L) mean average precision, 0..1, nan without queries
    same: np.ndarray  # (L, L) mean cosine of two boxes of one person
    queries: np.ndarray  # (L, L) int64, how many queries each mean holds


@torch.no_grad()
def embed_boxes(model: AlignPS, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings (N, D) of the boxes given for each image, and the stride (N,) of the level each was read from.

    ``images`` are (3, H, W) tensors, ``boxes`` one (n, 4) xyxy tensor an image.  The cell is the one that
    :meth:`AlignPS.best_cells` names, as in every evaluation.
    """
    dense = model.dense(batch_images(images, multiple=model.backbone.strides[-1]))
    cells = torch.cat([model.best_cells(dense, image, one) for image, one in enumerate(boxes)])
    rows = torch.arange(len(boxes)).repeat_interleave(torch.tensor([len(one) for one in boxes]))
    embeddings = model.normalize(dense.embeddings[rows, cells])
    return embeddings.cpu().numpy(), dense.strides[cells].long().cpu().numpy()


def embed_frames(model: AlignPS, frames: Sequence[Frame], batch_size: int = 8, desc: str = "embed") -> BoxEmbeddings:
    """:func:`embed_boxes` for all annotated boxes of ``frames``."""
    parts = []
    for start in progress(range(0, len(frames), batch_size), desc=desc):
        chosen = frames[start : start + batch_size]
        images = [read_image(frame.path) for frame in chosen]
        parts.append(embed_boxes(model, images, [torch.from_numpy(frame.boxes) for frame in chosen]))
    embeddings, strides = (np.concatenate(column) for column in zip(*parts, strict=True))
    return BoxEmbeddings(
        embeddings,
        strides,
        boxes=np.concatenate([frame.boxes for frame in frames]),
        people=np.concatenate([frame.person_ids for frame in frames]),
        frames=np.repeat(np.arange(len(frames)), [len(frame.boxes) for frame in frames]),
    )


def retrieval_by_level(
    found: BoxEmbeddings, groups: np.ndarray, rng: np.random.Generator, distractors: int = 100
) -> LevelRetrieval:
    """Average precision from every group of boxes to every other.

    ``groups`` (N,) holds 0..L-1.  A query is a labelled box; its gallery in a column is the same person's boxes of that
    group in other frames, and ``distractors`` boxes of other people of that group, drawn by ``rng``.  Their number is
    the same everywhere, or a group with fewer people would look easier: where a group has not as many for a query, it
    is left out of that column.

    >>> embeddings = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    >>> two = BoxEmbeddings(embeddings, np.full(4, 4), np.zeros((4, 4)), np.array([7, 7, 8, 8]), np.arange(4))
    >>> retrieval_by_level(two, np.zeros(4, int), np.random.default_rng(0), distractors=2).ap.tolist()
    [[1.0]]
    """
    count = int(groups.max()) + 1
    sums = np.zeros((2, count, count))
    queries = np.zeros((count, count), np.int64)
    for query in np.flatnonzero(found.people != UNLABELLED):
        elsewhere = found.frames != found.frames[query]
        mine = found.people == found.people[query]
        cosine = found.embeddings @ found.embeddings[query]  # (N,)
        for column in range(count):
            pool = elsewhere & (groups == column)
            others = np.flatnonzero(pool & ~mine)
            if not (pool & mine).any() or len(others) < distractors:
                continue
            drawn = cosine[rng.choice(others, distractors, replace=False)]
            right = cosine[pool & mine]
            cell = groups[query], column
            sums[(slice(None), *cell)] += average_precision(right, np.append(right, drawn), len(right)), right.mean()
            queries[cell] += 1
    means = np.divide(sums, queries, out=np.full_like(sums, np.nan), where=queries > 0)
    return LevelRetrieval(*means, queries)
