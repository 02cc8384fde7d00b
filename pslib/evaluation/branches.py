"""What two branches' embeddings of the same boxes have in common, and how each keeps people apart.

Numbers to stand beside AlignPS's Fig. 9, whose pictures put the embeddings of both branches on one plane.
"""

from dataclasses import dataclass

import numpy as np

from pslib.errors import UserError
from pslib.evaluation.separation import as_compared, checked, linear_probe, neighbor_purity

__all__ = ["BranchNumbers", "branch_numbers", "turned"]


@dataclass(frozen=True)
class BranchNumbers:
    """What :func:`branch_numbers` finds, for the N boxes of one model."""

    probe: float  # share of boxes of unseen people whose branch a hyperplane tells; chance is 1/2
    own_branch: float  # share of the nearest points, both branches poured together, that are of the same branch
    purity_dense: float  # identity purity of each branch alone, and of both side by side
    purity_roi: float
    purity_both: float
    cosine: float  # of a box's two embeddings, as they are
    cosine_turned: float  # the same for people who did not help to find the turn

    def __str__(self) -> str:
        return (f"branch probe {self.probe:.2f}, identity purity {self.purity_both:.2f} "
                f"(dense {self.purity_dense:.2f}, ROI {self.purity_roi:.2f})")  # fmt: skip


def branch_numbers(dense: np.ndarray, roi: np.ndarray, people: np.ndarray, k: int = 5) -> BranchNumbers:
    """Compare embeddings ``dense`` and ``roi`` (N, D) of the same boxes of ``people`` (N,), by cosine.

    UserError where the two do not picture the same number of boxes, differ in size, or one embedding is zero.
    """
    _, people = checked(dense, people)
    dense, roi = as_compared(dense, "cosine"), as_compared(roi, "cosine")
    if dense.shape != roi.shape:
        raise UserError(f"embeddings of shape {dense.shape} and {roi.shape} cannot be compared number by number: give "
                        "two branches with one embedding size, of the same boxes.")  # fmt: skip
    poured, branch = np.concatenate([dense, roi]), np.repeat([0, 1], len(people))
    fitted = np.isin(people, np.unique(people)[::2])
    after = [(dense * turned(dense, roi, half))[~half].sum(axis=1) for half in (fitted, ~fitted)]
    return BranchNumbers(
        probe=linear_probe(poured, branch, np.tile(people, 2), "cosine").accuracy,
        own_branch=neighbor_purity(poured, branch, k, "cosine"),
        purity_dense=neighbor_purity(dense, people, k, "cosine"),
        purity_roi=neighbor_purity(roi, people, k, "cosine"),
        purity_both=neighbor_purity(np.concatenate([dense, roi], axis=1), people, k, "cosine"),
        cosine=float((dense * roi).sum(axis=1).mean()),
        cosine_turned=float(np.concatenate(after).mean()),
    )


def turned(dense: np.ndarray, roi: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """``roi`` (N, D) after the rotation or mirroring that brings its rows ``fitted`` (N,) bool nearest to ``dense``.

    Orthogonal Procrustes: no distance within ``roi`` changes.

    >>> square = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> turned(square, square[::-1], np.array([True, True])).round(6) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    from scipy.linalg import orthogonal_procrustes

    return roi @ orthogonal_procrustes(roi[fitted], dense[fitted])[0]
