"""The search metric as one would say it aloud: one query, one gallery image, one detection at a time.

Slow and plain on purpose.  It follows the loops of the released evaluators and shares no code with
:mod:`pslib.evaluation.search`: the tests hold the two against each other, notebook 02 reads this one, and
``pslib bench evaluator`` measures what the other saves.
"""

import numpy as np
from sklearn.metrics import average_precision_score

from pslib.data.annotations import Gallery, Protocol, Query
from pslib.evaluation.detections import Detections

__all__ = ["box_iou", "reference_query", "reference_search"]


def box_iou(one: list[float], other: list[float]) -> float:
    """Intersection over union of two xyxy boxes, exclusive right and bottom.

    >>> box_iou([0, 0, 2, 2], [1, 0, 3, 2])
    0.3333333333333333
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
    return shared / union if union > 0 else 0.0


def reference_query(query: Query, gallery: Gallery, detections_of: dict[int, list[int]], detections: Detections,
                    query_embedding: np.ndarray, score_threshold: float = 0.0, duplicates: str = "official",
                    query_in_gallery: str = "keep") -> dict:
    """Score one query; ``detections_of`` maps a frame to its rows.  Returns ap, rank, found, positives as a dict."""
    waiting: dict[int, list[list[float]]] = {}  # boxes of the person that no gallery entry has taken yet
    for frame, box in zip(gallery.positive_frames, gallery.positive_boxes, strict=True):
        waiting.setdefault(int(frame), []).append([float(side) for side in box])

    positives, found = 0, 0
    labels: list[bool] = []
    similarities: list[float] = []
    seen: set[int] = set()
    for frame in gallery.frames:
        frame = int(frame)
        if query_in_gallery == "drop" and frame == query.frame:
            continue
        again = frame in seen
        if again and duplicates == "drop":
            continue
        seen.add(frame)
        truth = waiting[frame].pop(0) if waiting.get(frame) else None
        if truth is not None:
            positives += 1
        if again and duplicates == "official":
            continue

        rows = [row for row in detections_of.get(frame, []) if detections.scores[row] >= score_threshold]
        if not rows:
            continue
        values = detections.embeddings[rows].dot(query_embedding)
        right = None
        if truth is not None:
            width, height = truth[2] - truth[0], truth[3] - truth[1]
            needed = min(0.5, width * height / ((width + 10) * (height + 10)))
            for place in sorted(range(len(rows)), key=lambda place: -values[place]):  # most similar first; stable
                if box_iou([float(side) for side in detections.boxes[rows[place]]], truth) >= needed:
                    right = place
                    found += 1
                    break
        for place, value in enumerate(values):
            labels.append(place == right)
            similarities.append(float(value))

    ap = 0.0
    if found:
        ap = average_precision_score(labels, similarities) * found / positives
    # Wrong detections first among equals: a tie counts against us.
    ranking = sorted(zip(similarities, labels, strict=True), key=lambda pair: (-pair[0], pair[1]))
    rank = next((place for place, pair in enumerate(ranking, 1) if pair[1]), 0)
    return {"ap": ap, "rank": rank, "found": found, "positives": positives}


def reference_search(protocol: Protocol, detections: Detections, query_embeddings: np.ndarray,
                     **switches) -> list[dict]:
    """:func:`reference_query` for every query of a protocol, in order."""
    detections_of: dict[int, list[int]] = {}
    for row, frame in enumerate(detections.frame.tolist()):
        detections_of.setdefault(frame, []).append(row)
    return [reference_query(query, gallery, detections_of, detections, embedding, **switches)
            for query, gallery, embedding in zip(protocol.queries, protocol.galleries, query_embeddings,
                                                     strict=True)]
