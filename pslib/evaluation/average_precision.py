"""Average precision, once, for detection and for search.

Person search multiplies scikit-learn's ``average_precision_score`` by the recall, so that what
was never detected costs as much as what was ranked last.  Both factors together are one short sum:

    AP = 1 / P * sum over the right ones i of  (right ones scored >= s_i) / (all scored >= s_i)

with P the number of things to be found.  Equal scores share one threshold, hence one precision, as scikit-learn has it.
"""

import numpy as np

__all__ = ["average_precision"]


def average_precision(right_scores: np.ndarray, all_scores: np.ndarray, positives: int) -> float:
    """AP x recall of a ranking, in 0..1; 0 if nothing right was found or there was nothing to find.

    ``right_scores`` (R,) the scores of the right ones, ``all_scores`` (M,) the scores of all, the right ones
    included; ``positives`` how many there were to find (R <= positives).

    >>> average_precision(np.array([.9, .7]), np.array([.9, .8, .7]), positives=2)  # (1/1 + 2/3) / 2
    0.8333333333333333
    """
    if positives <= 0 or len(right_scores) == 0:
        return 0.0
    right, above = counts_at(right_scores, all_scores)
    return float((right / above).sum() / positives)


def counts_at(right_scores: np.ndarray, all_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every right score s: how many right scores are >= s, and how many of all are; both (R,), by falling s."""
    falling = np.sort(right_scores)[::-1]
    # What lies under the last right one cannot change a precision: a good ranking leaves little to sort.
    rivals = np.sort(all_scores[all_scores >= falling[-1]])
    right = len(falling) - np.searchsorted(falling[::-1], falling, side="left")
    above = len(rivals) - np.searchsorted(rivals, falling, side="left")
    return right, above
