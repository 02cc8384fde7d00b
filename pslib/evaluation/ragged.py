"""Arithmetic on lists of different lengths without a Python loop.

Every frame has its own number of detections.  They lie one after the other in flat arrays; a frame is a start
and a count.  The helpers below address many such pieces at once.
"""

import numpy as np

__all__ = ["ranges", "paired_iou", "segment_argmax"]


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The integers of many half-open ranges, one range after the other.

    ``starts`` and ``counts`` are (R,) integers; the result is (sum of counts,) int64.

    >>> ranges(np.array([10, 3, 7]), np.array([2, 0, 3])).tolist()
    [10, 11, 7, 8, 9]
    """
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    shift = np.asarray(starts, np.int64) - (ends - counts)  # first value of a range minus its place in the result
    return np.repeat(shift, counts) + np.arange(total)


def paired_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of row n with row n, (N,) float64; both (N, 4) xyxy, exclusive right and bottom.

    No ``+1`` is added to widths (peers that count inclusive pixels do); two empty boxes give 0.

    >>> paired_iou(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2]])).round(3).tolist()
    [0.333]
    """
    boxes, others = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def segment_argmax(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Position of the largest value of every segment that occurs, in rising order of segment number.

    ``values`` (N,), ``segments`` (N,) integers in any order; of equal values the first position wins.

    >>> segment_argmax(np.array([1., 5., 5., 2.]), np.array([0, 0, 0, 4])).tolist()
    [1, 3]
    """
    order = np.lexsort((np.arange(len(values)), -np.asarray(values), segments))
    ordered = np.asarray(segments)[order]
    first = np.ones(len(order), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]
