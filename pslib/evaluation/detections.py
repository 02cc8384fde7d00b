"""What a model found in the frames of a set: flat arrays, one row a detection."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pslib.data.annotations import Frame
from pslib.errors import NotFiniteError, UserError

__all__ = ["Detections", "normalize"]


def normalize(embeddings: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, (N, D) float32; a row of zeros stays zero, never NaN.

    >>> normalize(np.array([[3., 4.], [0., 0.]])).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    embeddings = np.asarray(embeddings, np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))
    return embeddings / np.where(lengths > 0, lengths, 1.0).astype(np.float32)[:, None]


@dataclass(frozen=True, eq=False)
class Detections:
    """M detections of a whole set.

    ``frame`` (M,) int32 index into ``PersonSearchSet.frames``; ``boxes`` (M, 4) float32 xyxy in pixels of the
    stored image; ``scores`` (M,) float32; ``embeddings`` (M, D) float32.  Similarity is the dot product, so
    embeddings are normally of length 1 (:func:`normalize`); they are used as they are given.

    Raises :class:`UserError` on lengths that differ, negative frames and values that are not finite.

    >>> Detections([0, 0], [[0, 0, 4, 9], [5, 0, 9, 9]], [.9, .8], [[1, 0], [0, 1]]).embeddings.shape
    (2, 2)
    """

    frame: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    embeddings: np.ndarray

    def __post_init__(self):
        count = len(self.frame)
        object.__setattr__(self, "frame", np.asarray(self.frame, np.int32))
        object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float32).reshape(-1, 4))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float32))
        embeddings = np.asarray(self.embeddings, np.float32)
        if embeddings.ndim == 1 and embeddings.size in (0, count):  # none, or one number each
            embeddings = embeddings[:, None]
        object.__setattr__(self, "embeddings", embeddings)
        for name, dims in (("boxes", 2), ("scores", 1), ("embeddings", 2)):
            values = getattr(self, name)
            if len(values) != count:
                raise UserError(f"detections hold {count} frame numbers but {len(values)} {name}: give one row each.")
            if values.ndim != dims:
                raise UserError(f"the {name} of detections have the shape {values.shape}: give {dims} dimensions.")
            if not np.isfinite(values).all():
                row = int(np.argmin(np.isfinite(values.reshape(count, -1)).all(axis=1)))
                raise NotFiniteError(f"detection {row} has a value in {name} that is not finite: "
                                     "look for an overflow in the model that made it (a diverged training does this).")
        if count and self.frame.min() < 0:
            raise UserError(f"detection {int(self.frame.argmin())} lies in frame {int(self.frame.min())}: "
                            "frames count from 0.")

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def empty(cls, dim: int) -> "Detections":
        """No detection at all, with embeddings of ``dim`` numbers."""
        return cls(np.empty(0, np.int32), np.empty((0, 4)), np.empty(0), np.empty((0, dim), np.float32))

    @classmethod
    def from_ground_truth(cls, frames: Sequence[Frame], embeddings: np.ndarray | None = None) -> "Detections":
        """A perfect detector: every annotated box, score 1, in order of the frames.

        ``embeddings`` (N, D), one row a box in the same order; left out, they have no columns (D = 0).
        Search on these is re-identification alone: no error of a detector enters.
        """
        counts = [len(frame.boxes) for frame in frames]
        number = np.repeat(np.arange(len(frames), dtype=np.int32), counts)
        boxes = np.concatenate([frame.boxes for frame in frames]) if frames else np.empty((0, 4), np.float32)
        if embeddings is None:
            embeddings = np.empty((len(number), 0), np.float32)
        return cls(number, boxes, np.ones(len(number), np.float32), embeddings)

    @classmethod
    def concatenate(cls, parts: Sequence["Detections"]) -> "Detections":
        """The rows of several batches, in order; needs at least one part, so that D is known."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts])
                     for name in ("frame", "boxes", "scores", "embeddings")))

    def select(self, index: np.ndarray) -> "Detections":
        """The rows that ``index`` (integers or a mask) names."""
        return Detections(self.frame[index], self.boxes[index], self.scores[index], self.embeddings[index])

    def offsets(self, num_frames: int) -> np.ndarray:
        """Where each frame begins when rows lie in order of frames: (num_frames + 1,) int64.

        Raises :class:`UserError` if a detection lies in a frame that the set has not.
        """
        if len(self) and int(self.frame.max()) >= num_frames:
            raise UserError(f"a detection lies in frame {int(self.frame.max())} but the set has {num_frames} frames: "
                            "use detections and annotations of the same set.")
        return np.concatenate([[0], np.cumsum(np.bincount(self.frame, minlength=num_frames))]).astype(np.int64)
