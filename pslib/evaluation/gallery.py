"""From a model and a set to what every measurement reads: its detections, and embeddings of the annotated boxes.

One pass over the frames gives both, so that re-identification can be judged with the model's own boxes (search) and
with ground-truth boxes (alignment alone, no error of the detector).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol as Interface

import numpy as np
import torch
from torch import Tensor

from pslib.data.annotations import PersonSearchSet, Protocol
from pslib.data.loading import read_ahead
from pslib.data.transforms import TestTransform
from pslib.errors import UserError
from pslib.evaluation.detections import Detections
from pslib.evaluation.embed import ground_truth_queries
from pslib.progress import progress

__all__ = ["SearchModel", "GalleryEmbeddings", "embed_gallery", "similarity_of"]


class SearchModel(Interface):
    """What a model must offer to be evaluated; :class:`pslib.models.alignps.AlignPS` and
    :class:`pslib.models.two_stage.TwoStage` do."""

    def detect_and_embed(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor]
    ) -> tuple[list[dict[str, Tensor]], list[Tensor]]: ...


@dataclass(frozen=True, eq=False)
class GalleryEmbeddings:
    """All frames of a set as a model sees them."""

    detections: Detections
    ground_truth: Detections  # the annotated boxes, score 1, frame by frame in the annotations' order
    person_ids: np.ndarray  # (M,) int64, of each ground-truth box
    similarity: str = "cosine"  # or "euclidean": how the model means its embeddings to be compared

    def of_queries(self, protocol: Protocol) -> np.ndarray:
        """Embeddings of the queries' annotated boxes, (Q, D)."""
        return ground_truth_queries(protocol, self.ground_truth)


def similarity_of(model: SearchModel) -> str:
    """How a model means its embeddings to be compared: "cosine", unless it says "euclidean" itself."""
    return getattr(model, "similarity", "cosine")


@torch.no_grad()
def embed_gallery(
    model: SearchModel,
    data: PersonSearchSet,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 8,
    test_size: tuple[int, int] | None = None,
    desc: str = "embed",
) -> GalleryEmbeddings:
    """Run ``model`` over all frames of ``data``, ``batch_size`` at a time, in their order.

    Frames of one batch are padded to the largest of them.  Convolutions see where the padding begins, and group
    normalisation takes its statistics over all of the map, so among frames of other sizes scores and embeddings change:
    compare models at one ``batch_size``, and take 1 where frames are of many sizes.

    ``test_size`` (longer, shorter side in px) enlarges or shrinks each frame to fit, as the paper's 1500 x 900; boxes
    are given and returned in pixels of the stored image either way.

    Raises UserError on a set without frames, a batch size below 1, and a model in training mode, whose batch statistics
    would move while it looks.
    """
    if getattr(model, "training", False):
        raise UserError("the model is in training mode, in which it embeds no gallery: call model.eval() first.")
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} embeds no frame: give 1 or more.")
    if not data.frames:
        raise UserError(f"the {data.split} split in {data.root} has no frames: make or fetch the set again.")
    transform = TestTransform(test_size)
    found: list[dict[str, np.ndarray]] = []
    annotated: list[np.ndarray] = []
    ahead = read_ahead((frame.path for frame in data.frames), batch_size)
    for start in progress(range(0, len(data.frames), batch_size), desc=desc):
        frames = data.frames[start : start + batch_size]
        images, scales = zip(*map(transform, islice(ahead, len(frames))), strict=True)
        boxes = [torch.from_numpy(frame.boxes).to(device) * scale for frame, scale in zip(frames, scales, strict=True)]
        results, embedded = model.detect_and_embed([image.to(device) for image in images], boxes)
        annotated += [rows.float().cpu().numpy() for rows in embedded]
        for scale, result in zip(scales, results, strict=True):
            item = {name: result[name].float().cpu().numpy() for name in ("boxes", "scores", "embeddings")}
            found.append(item | {"boxes": item["boxes"] / scale})
    counts = [len(item["scores"]) for item in found]
    joined = {name: np.concatenate([item[name] for item in found]) for name in ("boxes", "scores", "embeddings")}
    return GalleryEmbeddings(
        detections=Detections(frame=np.repeat(np.arange(len(found), dtype=np.int32), counts), **joined),
        ground_truth=Detections.from_ground_truth(data.frames, np.concatenate(annotated)),
        person_ids=np.concatenate([frame.person_ids for frame in data.frames]),
        similarity=similarity_of(model),
    )
