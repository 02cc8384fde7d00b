"""Arithmetic on lists of different lengths without a Python loop.

Every frame has its own number of detections.  They lie one after the other in flat arrays; a frame is a start
and a count.  The helpers below address many such pieces at once.
"""

import numpy as np

__all__ = ["first_equal", "ranges", "paired_iou", "segment_argmax"]


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


def first_equal(rows: np.ndarray) -> np.ndarray | None:
    """For each of ``rows`` (M, D) float32 the number of the first row that is equal to it, (M,); None if all differ.

    A matrix product adds up the last rows of a matrix in another order than the others, so equal embeddings may get
    similarities that differ in the last bit, and a tie is none.  Whoever ranks gives equal rows one value with this.

    >>> first_equal(np.float32([[1, 2], [3, 4], [1, 2], [1, 4]])).tolist()
    [0, 1, 0, 3]
    >>> first_equal(np.float32([[1, 2], [3, 4]]))
    """
    bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
    # Integers wrap around instead of rounding: equal rows have equal sums, others hardly ever.
    sums = bits @ np.random.default_rng(0).integers(2**32, size=bits.shape[1], dtype=np.uint32)
    _, place, counts = np.unique(sums, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(counts[place] > 1)
    if len(alike) == 0:
        return None
    _, first, group = np.unique(bits[alike], axis=0, return_index=True, return_inverse=True)
    if len(first) == len(alike):
        return None
    found = np.arange(len(rows))
    found[alike] = alike[first[group]]
    return found
