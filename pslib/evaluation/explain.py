"""Why one query ended as it did: its ranking, and for every appearance the place it got or the reason it was missed."""

from dataclasses import dataclass

import numpy as np

from pslib.data.annotations import Protocol
from pslib.errors import UserError
from pslib.evaluation.average_precision import average_precision
from pslib.evaluation.detections import Detections
from pslib.evaluation.galleries import box_iou_threshold, check_protocol, resolve
from pslib.evaluation.ragged import first_equal, ranges, segment_argmax
from pslib.evaluation.search import candidates_of, check_queries, in_frame_order

__all__ = ["Appearance", "Explanation", "explain"]


@dataclass(frozen=True)
class Appearance:
    """One frame that shows the person, and what became of her there.

    ``outcome``: ``"found"`` at place ``rank`` (counted from 1) by row ``detection``; ``"under threshold"``, a
    detection on her had a score below the threshold; ``"not detected"``, no detection overlapped her enough.
    ``iou`` is that of the found detection, else the best there was; ``required_iou`` what it needed.
    """

    frame: int
    box: tuple[float, float, float, float]
    outcome: str
    rank: int
    detection: int
    iou: float
    required_iou: float

    def __str__(self) -> str:
        if self.outcome == "found":
            return f"frame {self.frame}: found at rank {self.rank} (IoU {self.iou:.2f})"
        if self.outcome == "under threshold":
            return f"frame {self.frame}: missed, her detection's score is under the threshold"
        return f"frame {self.frame}: not detected (best IoU {self.iou:.2f}, needed {self.required_iou:.2f})"


@dataclass(frozen=True, eq=False)
class Explanation:
    """One query: ``ap``, ``rank`` of the first right one (0 none), one :class:`Appearance` per positive, and the
    ranking: ``detection`` (K,) rows of the detections as given, ``similarity`` (K,), ``right`` (K,) bool."""

    query: int
    ap: float
    rank: int
    appearances: list[Appearance]
    detection: np.ndarray
    similarity: np.ndarray
    right: np.ndarray


def explain(protocol: Protocol, number: int, detections: Detections, query_embedding: np.ndarray, *, num_frames: int,
            score_threshold: float = 0.0, duplicates: str = "official",
            query_in_gallery: str = "keep") -> Explanation:
    """Explain query ``number`` of ``protocol``; arguments and ties as in :func:`pslib.evaluation.search.search`.

    In the ranking wrong detections stand before right ones of equal similarity, so ``rank`` is the place of the first
    right one in it.  With ``duplicates="twice"`` a row of a repeated image appears twice.

    >>> from pslib.data.annotations import Gallery, Query
    >>> box = np.array([0, 0, 20, 40], np.float32)
    >>> found = Detections([1, 1], [box, box + 30], np.ones(2), [[.6, .8], [.8, .6]])
    >>> one = Protocol("toy", [Query(0, box, 7)], [Gallery(np.array([1, 2]), np.array([1, 2]), np.stack([box, box]))])
    >>> for appearance in explain(one, 0, found, np.array([1., 0.]), num_frames=3).appearances:
    ...     print(appearance)
    frame 1: found at rank 2 (IoU 1.00)
    frame 2: not detected (best IoU 0.00, needed 0.50)
    """
    if not 0 <= number < len(protocol.queries):
        raise UserError(f"protocol {protocol.name} has no query {number}: choose 0 to {len(protocol.queries) - 1}.")
    query, gallery = protocol.queries[number], protocol.galleries[number]
    one = Protocol(protocol.name, [query], [gallery])
    check_protocol(one, num_frames, duplicates, query_in_gallery)
    embedding = check_queries(one, detections, np.asarray(query_embedding)[None])[0]
    every, offsets, order = in_frame_order(detections, num_frames, -np.inf)
    alive = every.scores >= score_threshold
    resolved = resolve(gallery, query.frame, duplicates, query_in_gallery)
    similarity = every.embeddings @ embedding
    twins = first_equal(every.embeddings)
    similarity = similarity if twins is None else similarity[twins]
    required = box_iou_threshold(resolved.positive_boxes)

    rows, positive, overlap = candidates_of(resolved, every.boxes, offsets)
    enough = np.flatnonzero((overlap >= required[positive]) & alive[rows])
    best = enough[segment_argmax(similarity[rows[enough]], positive[enough])]  # one per positive that was found

    counts = np.diff(offsets)[resolved.frames]
    pool, slot = ranges(offsets[resolved.frames], counts), np.repeat(np.arange(len(counts)), counts)
    right = np.zeros(len(pool), bool)
    place_of = {}
    for candidate in best:
        # Under "twice" a frame has several slots: the n-th positive of a frame is looked for in its n-th slot.
        which = int(positive[candidate])
        nth = int((resolved.positive_frames[:which] == resolved.positive_frames[which]).sum())
        place_of[which] = int(np.flatnonzero(pool == rows[candidate])[nth])
        right[place_of[which]] = True
    kept = np.flatnonzero(alive[pool])
    ranking = kept[np.lexsort((slot[kept], right[kept], -similarity[pool[kept]]))]
    rank_of = {int(place): rank for rank, place in enumerate(ranking, 1)}

    appearances = []
    for which, frame in enumerate(resolved.positive_frames):
        own = positive == which
        box = tuple(float(side) for side in resolved.positive_boxes[which])
        needed, detection, rank = float(required[which]), -1, 0
        iou = float(overlap[own].max()) if own.any() else 0.0
        outcome = "under threshold" if iou >= needed else "not detected"
        if which in place_of:
            outcome, rank = "found", rank_of[place_of[which]]
            row = pool[place_of[which]]
            detection, iou = int(order[row]), float(overlap[own & (rows == row)][0])
        appearances.append(Appearance(int(frame), box, outcome, rank, detection, iou, needed))
    ranks = [appearance.rank for appearance in appearances if appearance.rank]
    scores = similarity[pool]
    ap = average_precision(scores[right], scores[kept], resolved.positives)
    return Explanation(number, ap, min(ranks, default=0), appearances, order[pool[ranking]],
                       scores[ranking], right[ranking])
