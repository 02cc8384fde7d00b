"""Detection recall and average precision, as person search counts them.

A detection and an annotated person are a match if their IoU reaches the threshold and each is the other's best.
So no person is found twice, and no detection finds two.  AP is scikit-learn's times the recall.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pslib.data.annotations import UNLABELLED, Frame
from pslib.evaluation.average_precision import average_precision
from pslib.evaluation.detections import Detections
from pslib.evaluation.ragged import paired_iou, ranges, segment_argmax

__all__ = ["DetectionResult", "detection_metrics"]


@dataclass(frozen=True, eq=False)
class DetectionResult:
    """``recall`` and ``ap`` in 0..1 (both 0 in a set without people), and what they were counted from.

    ``matched_person`` (M,) int64: for each detection the row of its person, counted over all frames in order
    (of the labelled ones if ``labelled_only``), or -1.
    """

    recall: float
    ap: float
    num_people: int
    num_detections: int
    matched_person: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(M,) bool: the detections that found someone."""
        return self.matched_person >= 0


def detection_metrics(frames: Sequence[Frame], detections: Detections, iou: float = 0.5,
                      labelled_only: bool = False, score_threshold: float = 0.0) -> DetectionResult:
    """Recall and AP of ``detections`` on ``frames``.

    ``labelled_only`` asks for people with an identity only; detections of the others then count as wrong, as the
    released evaluators have it, and so do those on frames that show nobody with one, which SeqNet's leaves out.  A
    detection with score < ``score_threshold`` is left out (``matched_person`` -1).

    >>> one = Frame("a", "a.jpg", np.array([[0, 0, 10, 20], [20, 0, 30, 20]], np.float32), np.array([7, -1]))
    >>> found = Detections([0, 0], [[0, 0, 10, 18], [50, 0, 60, 20]], [.6, .9], np.zeros((2, 1)))
    >>> result = detection_metrics([one], found)
    >>> result.recall, result.ap        # one of two people found, at rank 2: AP = 1/2 * 1/2
    (0.5, 0.25)
    """
    boxes, person_frame = _people(frames, labelled_only)
    detections.offsets(len(frames))  # raises if a detection lies outside the set
    kept = np.flatnonzero(detections.scores >= score_threshold)
    person_start = np.searchsorted(person_frame, np.arange(len(frames) + 1))

    # Every pair of a detection and a person of the same frame, one row each.
    start, end = person_start[detections.frame[kept]], person_start[detections.frame[kept] + 1]
    pair_person = ranges(start, end - start)
    pair_detection = np.repeat(kept, end - start)
    overlap = paired_iou(detections.boxes[pair_detection], boxes[pair_person])
    best_of_detection = np.zeros(len(overlap), bool)
    best_of_detection[segment_argmax(overlap, pair_detection)] = True
    best_of_person = np.zeros(len(overlap), bool)
    best_of_person[segment_argmax(overlap, pair_person)] = True
    match = best_of_detection & best_of_person & (overlap >= iou)

    matched_person = np.full(len(detections), -1, np.int64)
    matched_person[pair_detection[match]] = pair_person[match]
    found, people = int(match.sum()), len(boxes)
    ap = average_precision(detections.scores[matched_person >= 0], detections.scores[kept], people)
    return DetectionResult(found / people if people else 0.0, ap, people, len(kept), matched_person)


def _people(frames: Sequence[Frame], labelled_only: bool) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) of all people asked for and the frame (N,) of each."""
    boxes, number = [np.empty((0, 4), np.float32)], [np.empty(0, np.int64)]
    for index, frame in enumerate(frames):
        kept = frame.boxes[frame.person_ids != UNLABELLED] if labelled_only else frame.boxes
        boxes.append(kept.reshape(-1, 4))
        number.append(np.full(len(kept), index, np.int64))
    return np.concatenate(boxes), np.concatenate(number)
