"""Where the network sees a person: similarity, score and centerness at every cell of one pyramid level.

AlignPS embeds every cell, not only the detected ones (Sec. III-A), so one image can be asked where the query might be
without a detector's word.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pslib.data.transforms import TestTransform
from pslib.errors import UserError, require_choice
from pslib.models.alignps import AlignPS
from pslib.models.batching import batch_images
from pslib.models.neck import LEVELS

__all__ = ["FrameMaps", "frame_maps"]


@dataclass(frozen=True, eq=False)
class FrameMaps:
    """One image as the network sees it, cell by cell of ``level``; H x W cells of ``stride`` px of the image it saw.

    ``classes``, ``centerness`` and their product ``scores`` are (H, W) in 0..1; ``embeddings`` (H, W, D) of unit
    length; ``boxes`` (N, 4) px of the stored image and ``box_scores`` (N,) the detections of all levels.
    """

    level: str
    stride: int
    classes: np.ndarray
    centerness: np.ndarray
    scores: np.ndarray
    embeddings: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray

    def similarity(self, query_embedding: np.ndarray) -> np.ndarray:
        """Cosine of the query's embedding (D,) with every cell, (H, W) in -1..1.

        Raises UserError for an embedding of another model or one of length zero.
        """
        query = np.asarray(query_embedding, np.float32).ravel()
        if len(query) != self.embeddings.shape[-1]:
            raise UserError(f"the query's embedding has {len(query)} numbers and those of the cells "
                            f"{self.embeddings.shape[-1]}: make both with the same model.")  # fmt: skip
        length = float(np.linalg.norm(query))
        if not (np.isfinite(length) and length > 0):
            raise UserError(f"the query's embedding has length {length:g} and points nowhere: choose another box.")
        return self.embeddings @ (query / length)


@torch.no_grad()
def frame_maps(
    model: AlignPS, image: Tensor, *, level: str | None = None, test_size: tuple[int, int] | None = None
) -> FrameMaps:
    """Look at ``image`` (3, H, W), uint8 or floats in 0..1, on its own.

    ``level`` is one of the model's pyramid levels, by default its finest; ``test_size`` (longer, shorter side in px)
    as in :func:`pslib.evaluation.gallery.embed_gallery`.
    """
    levels = model.config.levels
    level = require_choice("pyramid level of this model", level or levels[0], levels)
    seen, factor = TestTransform(test_size)(image)
    device = next(model.parameters()).device
    batch = batch_images([seen.to(device)], multiple=model.backbone.strides[-1])
    dense = model.dense(batch)
    found = model.detect(dense, batch.sizes)[0]
    # The cells of all levels lie in one row, finest level first; a level covers the padded image.
    padded = batch.tensors.shape[-2:]
    strides = [model.backbone.strides[LEVELS.index(name)] for name in levels]
    sizes = [(-(-padded[0] // stride), -(-padded[1] // stride)) for stride in strides]
    number = levels.index(level)
    first = sum(high * wide for high, wide in sizes[:number])
    high, wide = sizes[number]
    inside = tuple(-(-side // strides[number]) for side in seen.shape[-2:])

    def grid(rows: Tensor) -> np.ndarray:
        """(A, ...) of all cells -> (H, W, ...) of the level's cells that are image, not padding."""
        own = rows[first : first + high * wide].reshape(high, wide, *rows.shape[1:])
        return own[: inside[0], : inside[1]].float().cpu().numpy()

    return FrameMaps(
        level=level,
        stride=strides[number],
        classes=grid(dense.class_logits[0].sigmoid()),
        centerness=grid(dense.centerness_logits[0].sigmoid()),
        scores=grid(dense.scores[0]),
        embeddings=grid(model.normalize(dense.embeddings[0])),
        boxes=found["boxes"].float().cpu().numpy() / factor,
        box_scores=found["scores"].float().cpu().numpy(),
    )
