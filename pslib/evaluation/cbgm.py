"""Context bipartite graph matching: who stands beside the query helps to find her (Li & Miao, SeqNet, AAAI 2021).

People who walk together are often seen together again.  After a search the images of the ``k1`` most similar
detections are looked at once more.  The query and the surest other people of *her* frame, ``k2`` in all, are matched
one to one with the detections of the image so that the similarities of the pairs have the largest sum (the assignment
problem, solved by the Hungarian or Kuhn-Munkres method).  The detection that falls to the query gets a new similarity
(``combine``):

``"sum"``
    the sum over all pairs, which the matching made as large as it can be: an image where her companions are found
    too moves up.
``"largest"``
    the largest similarity of any pair: what the matching of the released codes of SeqNet and COAT returns.
``"average"``
    the mean of the old similarity and the largest one, as PSTR's released code.

Where a frame shows nobody besides the query the matching has one pair and nothing changes.  Where a gallery image has
fewer detections than there are people to match, somebody goes without a partner; if it is the query, nothing changes
in this image.  Of several matchings with the same sum the one that SciPy finds is taken.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from pslib.data.annotations import Protocol
from pslib.errors import UserError, require_choice
from pslib.evaluation.detections import Detections, normalize
from pslib.evaluation.ragged import paired_iou, ranges

__all__ = ["COMBINE", "RELEASED", "ContextMatching", "most_similar", "query_context", "rematcher"]

COMBINE = ("sum", "largest", "average")
SAME_PERSON_IOU = 0.5  # above it a detection of the query's frame is the query herself (SeqNet's second suppression)

Revise = Callable[[int, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class ContextMatching:
    """``k1`` detections whose images are matched again, ``k2`` people of the query's frame, herself included.

    The defaults are SeqNet's for CUHK-SYSU.
    """

    k1: int = 10
    k2: int = 3
    combine: str = "largest"

    def __post_init__(self) -> None:
        require_choice("combine", self.combine, COMBINE)
        for name in ("k1", "k2"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} leaves nothing to match: give at least 1.")


# SeqNet's settings for the two sets.
RELEASED = {"cuhk-sysu": ContextMatching(), "prw": ContextMatching(30, 4)}


def rematcher(
    settings: ContextMatching, protocol: Protocol, queries: np.ndarray, detections: Detections, offsets: np.ndarray
) -> Revise:
    """A function that revises the similarities of one query in place: ``revise(number, similarities, rows)``.

    ``queries`` (Q, D) and ``detections``, in order of frames, compare by dot product; frame f holds the rows
    ``offsets[f]`` to ``offsets[f + 1]``.  ``similarities`` (M,) are the query's to all detections, of which only
    ``rows``, those of its gallery, are read and changed.
    """
    held = np.diff(offsets)

    def revise(number: int, similarities: np.ndarray, rows: np.ndarray) -> None:
        rows = np.unique(rows)
        images = np.unique(detections.frame[rows[most_similar(similarities[rows], settings.k1)]])
        companions = query_context(protocol, number, detections, offsets, settings.k2 - 1)
        if len(images) == 0 or len(companions) == 0:
            return
        beside = ranges(offsets[images], held[images])
        context = np.vstack([similarities[beside], normalize(companions) @ detections.embeddings[beside].T])
        for columns in np.split(np.arange(len(beside)), np.cumsum(held[images])[:-1]):
            pairs = context[:, columns]  # (1 + companions, detections of the image)
            people, partners = linear_sum_assignment(pairs, maximize=True)
            if people[0] == 0:  # SciPy lists the people in order, the query is the first
                own = beside[columns[partners[0]]]
                similarities[own] = _combined(settings.combine, pairs[people, partners])

    return revise


def query_context(
    protocol: Protocol, number: int, detections: Detections, offsets: np.ndarray, count: int
) -> np.ndarray:
    """Embeddings (C, D) of the ``count`` surest detections in the frame of query ``number``, surest first.

    Detections on the query herself are left out; C is smaller where the frame has not as many others, or none.  Of
    equal scores the first rows are taken.
    """
    query = protocol.queries[number]
    rows = np.arange(offsets[query.frame], offsets[query.frame + 1])
    own_box = np.broadcast_to(query.box, (len(rows), 4))
    rows = rows[paired_iou(detections.boxes[rows], own_box) <= SAME_PERSON_IOU]
    surest = np.argsort(-detections.scores[rows], kind="stable")[:count]
    return detections.embeddings[rows[surest]]


def most_similar(similarities: np.ndarray, count: int) -> np.ndarray:
    """Places of the ``count`` largest of ``similarities`` (N,), in any order, all where there are fewer.

    Of those equal to the smallest that is let in the first ones are taken.

    >>> sorted(most_similar(np.array([0.5, 0.9, 0.5, 0.5]), 3).tolist())
    [0, 1, 2]
    """
    if len(similarities) <= count:
        return np.arange(len(similarities))
    least = np.partition(similarities, -count)[-count]
    above = np.flatnonzero(similarities > least)
    return np.concatenate([above, np.flatnonzero(similarities == least)[: count - len(above)]])


def _combined(combine: str, pairs: np.ndarray) -> float:
    """The new similarity from those of the matched pairs (P,), the query's own first."""
    if combine == "sum":
        return pairs.sum(dtype=np.float64)
    return pairs.max() if combine == "largest" else (np.float64(pairs[0]) + pairs.max()) / 2
