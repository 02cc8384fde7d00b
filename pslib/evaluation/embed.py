"""Where query features come from: the ground-truth box (default), or the detection that overlaps it best.

With ground-truth boxes the model embeds the query's annotated box itself (OIM, NAE, SeqNet).  The other way, of
AlignPS and PSTR, takes the detection with the highest IoU in the query's frame, so a query that was not detected has
no feature.
"""

import numpy as np

from pslib.data.annotations import Protocol
from pslib.errors import UserError
from pslib.evaluation.detections import Detections
from pslib.evaluation.ragged import paired_iou, ranges, segment_argmax

__all__ = ["best_iou_queries", "ground_truth_queries"]


def ground_truth_queries(protocol: Protocol, ground_truth: Detections) -> np.ndarray:
    """Embeddings (Q, D) of the queries' own boxes, picked from those of all annotated boxes.

    ``ground_truth`` is :meth:`Detections.from_ground_truth` with embeddings.  Raises :class:`UserError` if a query's
    box is not annotated in its frame (an offset of up to half an IoU is forgiven: PRW rounds differently in its two
    files).
    """
    embeddings, missed = best_iou_queries(protocol, ground_truth, iou=0.5)
    if missed.any():
        number = int(missed.argmax())
        query = protocol.queries[number]
        raise UserError(f"the box of query {number} (person {query.person_id}) of protocol {protocol.name} is not "
                        f"annotated in frame {query.frame}: mend the query list or the annotation.")
    return embeddings


def best_iou_queries(protocol: Protocol, detections: Detections, iou: float = 0.0,
                     score_threshold: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Query embeddings (Q, D) taken from detections, and which queries were ``missed`` (Q,) bool.

    The detection with the highest IoU in the query's frame is taken, the first of equal ones; a query is missed if its
    IoU is not above 0, or is below ``iou``.  A missed query's embedding is zero: hand ``missed`` on to ``search``.

    >>> from pslib.data.annotations import Query
    >>> found = Detections([0, 0], [[0, 0, 10, 20], [2, 0, 12, 20]], [.9, .9], [[1, 0], [0, 1]])
    >>> one = Protocol("toy", [Query(0, np.array([2., 0, 12, 20]), 7), Query(3, np.array([0., 0, 9, 9]), 8)], [])
    >>> [values.tolist() for values in best_iou_queries(one, found)]
    [[[0.0, 1.0], [0.0, 0.0]], [False, True]]
    """
    order = np.argsort(detections.frame, kind="stable")
    order = order[detections.scores[order] >= score_threshold]
    frames = np.array([query.frame for query in protocol.queries], np.int64)
    boxes = np.array([query.box for query in protocol.queries], np.float64).reshape(-1, 4)
    start = np.searchsorted(detections.frame[order], frames)
    counts = np.searchsorted(detections.frame[order], frames, side="right") - start
    rows, number = order[ranges(start, counts)], np.repeat(np.arange(len(frames)), counts)
    overlap = paired_iou(detections.boxes[rows], boxes[number])
    best = segment_argmax(overlap, number)
    best = best[(overlap[best] > 0) & (overlap[best] >= iou)]
    embeddings = np.zeros((len(frames), detections.embeddings.shape[1]), np.float32)
    embeddings[number[best]] = detections.embeddings[rows[best]]
    missed = np.ones(len(frames), bool)
    missed[number[best]] = False
    return embeddings, missed
