"""Two embeddings of the same boxes: when is one right where the other is wrong, and what do they gain side by side?

AlignPS, Sec. III-D and Table VI.  Two unit embeddings put side by side have the *mean* of their cosines, so all that
concatenation can do is average two scores.  Averaging helps as far as the two err apart from each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torchvision.ops import box_iou

from pslib.data.annotations import UNLABELLED, Frame
from pslib.errors import UserError
from pslib.evaluation.detection import detection_metrics
from pslib.evaluation.detections import Detections
from pslib.evaluation.gallery import GalleryEmbeddings

__all__ = [
    "Agreement", "PairScores", "agreement", "averaged_dprime", "dprime", "kinds_of_boxes", "mixed", "pair_scores",
    "part_of",
]  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    """Queries by whether the first (row) and the second (column) embedding ranks a right box first; index 1 is right.

    ``queries`` (2, 2) counts them, ``together`` (2, 2) those that both embeddings side by side get right.
    """

    queries: np.ndarray
    together: np.ndarray

    @property
    def either(self) -> float:
        """Share of the queries that at least one gets right: what a perfect choice between the two would reach."""
        return float(1 - self.queries[0, 0] / self.queries.sum())


@dataclass(frozen=True, eq=False)
class PairScores:
    """Cosines of pairs of boxes of different frames by the first and the second embedding, each (P,)."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray  # (P,) bool: both boxes show one person


def part_of(both: GalleryEmbeddings, size: int, second: bool = False) -> GalleryEmbeddings:
    """One of two embeddings that lie side by side: the first ``size`` numbers, or with ``second`` all others."""

    def cut(rows: np.ndarray) -> np.ndarray:
        part = rows[:, size:] if second else rows[:, :size]
        return part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)

    found: dict[str, Detections] = {
        name: replace(getattr(both, name), embeddings=cut(getattr(both, name).embeddings))
        for name in ("detections", "ground_truth")
    }
    return replace(both, **found)


def kinds_of_boxes(frames: Sequence[Frame], detections: Detections, nobody: float = 0.1) -> np.ndarray:
    """What each detection is, (M,): 0 somebody's best box, 1 another box that overlaps somebody, 2 on nobody.

    A best box is one that :func:`pslib.evaluation.detection.detection_metrics` counts as right; a box on nobody
    overlaps every annotated person of ``frames`` by an IoU below ``nobody``.
    """
    kinds = np.full(len(detections), 2)
    for number, frame in enumerate(frames):
        rows = np.flatnonzero(detections.frame == number)
        if len(rows) and len(frame.boxes):
            overlap = box_iou(*map(torch.from_numpy, (detections.boxes[rows], frame.boxes)))
            kinds[rows[overlap.amax(dim=1).numpy() >= nobody]] = 1
    kinds[detection_metrics(frames, detections).right] = 0
    return kinds


def mixed(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Unit embeddings whose cosine is (1 - weight) times the first's plus weight times the second's.

    ``first`` (N, D) and ``second`` (N, E) have rows of unit length, and so has the result (N, D + E); a half puts them
    side by side as ROI-AlignPS does.  Raises UserError for a weight outside 0..1.

    >>> one, two = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[1.0], [-1.0]])
    >>> rows = mixed(one, two, 0.25)
    >>> float((rows[0] @ rows[1]).round(6))
    0.5
    """
    if not 0 <= weight <= 1:
        raise UserError(f"weight={weight} of the second embedding is no share: give a number in 0..1.")
    return np.concatenate([np.sqrt(1 - weight) * first, np.sqrt(weight) * second], axis=1)


def agreement(first: np.ndarray, second: np.ndarray, both: np.ndarray) -> Agreement:
    """:class:`Agreement` from the ranks (Q,) of the first right box by each embedding and by both; 0: none found.

    Raises UserError unless all three hold as many queries, at least one.

    >>> found = agreement(np.array([1, 1, 3, 0]), np.array([1, 2, 1, 0]), np.array([1, 1, 1, 0]))
    >>> found.queries.tolist(), found.together.tolist(), found.either
    ([[1, 1], [1, 1]], [[0, 1], [1, 1]], 0.75)
    """
    if not len(first) == len(second) == len(both) > 0:
        raise UserError(f"ranks of {len(first)}, {len(second)} and {len(both)} queries: give those of the same ones.")
    queries, together = np.zeros((2, 2), int), np.zeros((2, 2), int)
    cell = ((first == 1).astype(int), (second == 1).astype(int))
    np.add.at(queries, cell, 1)
    np.add.at(together, cell, (both == 1).astype(int))
    return Agreement(queries, together)


def pair_scores(
    first: np.ndarray, second: np.ndarray, people: np.ndarray, frames: np.ndarray, rng: np.random.Generator,
    others: int = 20_000,
) -> PairScores:  # fmt: skip
    """Cosines of all pairs of labelled boxes of one person, and of ``others`` random pairs of different people.

    ``first`` (N, D) and ``second`` (N, E) embed the same N boxes, of ``people`` (N,) in ``frames`` (N,).  Pairs within
    a frame are left out: nobody is searched in her own picture.  Raises UserError unless some pair of boxes of
    different frames shows one person, and some other pair two.
    """
    known = np.flatnonzero(people != UNLABELLED)
    a, b = np.triu_indices(len(known), 1)
    a, b = known[a], known[b]
    apart = frames[a] != frames[b]
    a, b = a[apart], b[apart]
    same = people[a] == people[b]
    if not same.any() or same.all():
        raise UserError("there are no two people with boxes in different frames: give more boxes.")
    strangers = np.flatnonzero(~same)
    if len(strangers) > others:
        strangers = rng.choice(strangers, others, replace=False)
    kept = np.concatenate([np.flatnonzero(same), strangers])
    a, b = a[kept], b[kept]
    return PairScores((first[a] * first[b]).sum(1), (second[a] * second[b]).sum(1), same[kept])


def dprime(scores: np.ndarray, same: np.ndarray) -> float:
    """How far same and different lie apart, in standard deviations: difference of the means over the root mean square
    of the two deviations.  ``scores`` (P,) with ``same`` (P,) bool, both values occurring; a number without unit.

    >>> dprime(np.array([3.0, 5.0, 0.0, 2.0]), np.array([True, True, False, False]))
    3.0
    """
    spread = np.sqrt((scores[same].var() + scores[~same].var()) / 2)
    return float((scores[same].mean() - scores[~same].mean()) / max(spread, 1e-12))


def averaged_dprime(pairs: PairScores, independent: bool = False) -> float:
    """:func:`dprime` of the mean of the two scores of ``pairs`` (P of them), in standard deviations of that mean.

    Computed from the variances and covariances of the two scores (P,) within same and within different pairs; with
    ``independent`` as if these covariances were 0.

    >>> scores = np.array([3.0, 5.0, 0.0, 2.0])
    >>> pairs = PairScores(scores, scores, np.array([True, True, False, False]))
    >>> averaged_dprime(pairs), round(averaged_dprime(pairs, independent=True), 3)  # a copy adds nothing; else sqrt(2)
    (3.0, 4.243)
    """
    gap, variance = 0.0, 0.0
    for sign, mask in ((1, pairs.same), (-1, ~pairs.same)):
        covariance = np.cov(pairs.first[mask], pairs.second[mask], bias=True)
        gap += sign * (pairs.first[mask].mean() + pairs.second[mask].mean()) / 2
        variance += (np.trace(covariance) + (0 if independent else 2 * covariance[0, 1])) / 4 / 2
    return float(gap / np.sqrt(max(variance, 1e-24)))
