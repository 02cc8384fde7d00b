"""Search metrics: mAP and top-k over galleries of whole frames, vectorised.

For one query: all detections of her gallery's frames are pooled and ranked by similarity to the query.  In a frame
that shows her, the most similar detection with enough overlap is *the* right one (of equal ones the first row); every
other detection is wrong, a second box on her included.  AP is scikit-learn's times the share of her appearances that
were detected.  mAP and top-k are plain means over queries.

Ties.  In AP equal similarities share one threshold, as scikit-learn groups them.  In ranks and top-k a tie counts
against us: wrong detections stand before right ones of the same similarity.  Equal embeddings always tie; by distance
(``similarity="euclidean"``), two different embeddings equally far away may be parted by rounding.

A query without a single positive has AP 0 and rank 0; it is left out of the means, or counted as 0 with
``without_positives="zero"``.  A query marked as ``missed`` (no feature could be made of it, say because the detector
did not find it) is counted as 0, or left out with ``missed_queries="skip"``, which flatters the method (quirk 14).

``cbgm=ContextMatching(...)`` re-ranks by the people beside the query (:mod:`pslib.evaluation.cbgm`); it is off unless
asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pslib.data.annotations import Protocol
from pslib.errors import NotFiniteError, UserError, require_choice
from pslib.evaluation.average_precision import average_precision
from pslib.evaluation.cbgm import ContextMatching, Revise, rematcher
from pslib.evaluation.detections import Detections
from pslib.evaluation.galleries import Resolved, box_iou_threshold, check_protocol, resolve
from pslib.evaluation.nearest import SIMILARITIES, as_dot_products
from pslib.evaluation.ragged import first_equal, paired_iou, ranges
from pslib.progress import progress

__all__ = ["SearchResult", "search"]

CHUNK_BYTES = 64 * 2**20  # of one block of the similarity matrix: queries x all detections
GATHER_COST = 12  # a similarity by gathered rows costs about as much as this many in one large matrix product
BAR_FROM = 2e7  # similarities above which the search takes seconds and deserves a progress bar


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Per-query outcome of one protocol, Q queries.

    ``ap`` (Q,) float64 in 0..1; ``rank`` (Q,) int64, place of the first right detection counted from 1, 0 if there
    is none; ``found`` and ``positives`` (Q,) int64, appearances detected and appearances in the gallery; ``counted``
    (Q,) bool, the queries that enter the means; ``person_ids`` (Q,) int64.
    """

    protocol: str
    ap: np.ndarray
    rank: np.ndarray
    found: np.ndarray
    positives: np.ndarray
    counted: np.ndarray
    person_ids: np.ndarray

    @property
    def recall(self) -> np.ndarray:
        """(Q,) share of the appearances that were detected, whatever their rank; 0 where there are none."""
        return self.found / np.maximum(self.positives, 1)

    @property
    def mean_ap(self) -> float:
        """mAP in 0..1; 0 if no query counts."""
        return float(self.ap[self.counted].mean()) if self.counted.any() else 0.0

    def top(self, k: int) -> float:
        """Share of the queries with a right detection among the ``k`` most similar ones."""
        rank = self.rank[self.counted]
        return float(((rank > 0) & (rank <= k)).mean()) if len(rank) else 0.0


@dataclass(frozen=True, eq=False)
class _Plan:
    """One query's geometry: frames to rank, rows that may be right, where each positive's rows begin among them.

    The rows to rank are not kept: for PRW's 2,057 galleries of 6,111 frames they would fill 700 MB.
    """

    frames: np.ndarray
    candidates: np.ndarray
    starts: np.ndarray
    positives: int


def search(protocol: Protocol, detections: Detections, query_embeddings: np.ndarray, *, num_frames: int,
           score_threshold: float = 0.0, duplicates: str = "official", query_in_gallery: str = "keep",
           without_positives: str = "skip", missed: np.ndarray | None = None,
           missed_queries: str = "zero", similarity: str = "cosine",
           cbgm: ContextMatching | None = None) -> SearchResult:
    """Rank every query of ``protocol`` and score it.

    ``query_embeddings`` (Q, D), compared with ``detections.embeddings`` (M, D) by dot product, the cosine of unit
    embeddings, or by distance with ``similarity="euclidean"``; ``num_frames`` is ``len(set.frames)``;
    detections with score < ``score_threshold`` are dropped first.  The switches are explained above and in
    :mod:`pslib.evaluation.galleries`.  The only Python loop is over queries.

    Raises :class:`UserError` if dimensions differ, a feature is not finite, or the protocol is not of this set.

    >>> from pslib.data.annotations import Gallery, Query
    >>> box = np.array([0, 0, 20, 40], np.float32)
    >>> found = Detections([1, 1, 2], [box, box + 30, box], np.ones(3), [[.6, .8], [.8, .6], [0, 1]])
    >>> one = Protocol("toy", [Query(0, box, 7)], [Gallery(np.array([1, 2]), np.array([1]), box[None])])
    >>> result = search(one, found, np.array([[1., 0.]]), num_frames=3)
    >>> result.mean_ap, result.top(1), int(result.rank[0])       # a stranger in frame 1 looks more like her
    (0.5, 0.0, 2)
    """
    require_choice("without_positives", without_positives, ("skip", "zero"))
    require_choice("missed_queries", missed_queries, ("zero", "skip"))
    check_protocol(protocol, num_frames, duplicates, query_in_gallery)
    queries = check_queries(protocol, detections, query_embeddings)
    if require_choice("similarity", similarity, SIMILARITIES) == "euclidean":
        if cbgm is not None:
            raise UserError("cbgm matches people by cosines and similarity='euclidean' has distances: leave cbgm out, "
                            "or search with a model whose embeddings are compared by cosine.")
        embeddings, queries = as_dot_products(detections.embeddings, queries)
        detections = replace(detections, embeddings=embeddings)
    sorted_detections, offsets, _ = in_frame_order(detections, num_frames, score_threshold)
    galleries = [resolve(gallery, query.frame, duplicates, query_in_gallery)
                 for query, gallery in zip(protocol.queries, protocol.galleries, strict=True)]
    lost = np.zeros(len(queries), bool) if missed is None else np.asarray(missed)
    if lost.shape != (len(queries),) or lost.dtype != bool:
        raise UserError(f"missed of shape {lost.shape} and type {lost.dtype} must hold one true or false for each of "
                        f"the {len(queries)} queries: take it from best_iou_queries.")

    count = len(queries)
    ap, rank, found = np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.int64)
    positives = np.array([gallery.positives for gallery in galleries], np.int64)
    plans = _plans(galleries, sorted_detections.boxes, offsets)
    revise = None if cbgm is None else rematcher(cbgm, protocol, queries, sorted_detections, offsets)
    for number, pool, candidates in _similarities(plans, queries, sorted_detections.embeddings, offsets, revise):
        plan = plans[number]
        if len(candidates) == 0 or lost[number]:
            continue
        right = np.maximum.reduceat(candidates, plan.starts)  # the best candidate of each positive
        ap[number] = average_precision(right, pool, plan.positives)
        found[number], best = len(right), right.max()
        rank[number] = np.count_nonzero(pool >= best) - np.count_nonzero(right == best) + 1

    counted = np.ones(count, bool) if without_positives == "zero" else positives > 0
    if missed_queries == "skip":
        counted = counted & ~lost
    person_ids = np.array([query.person_id for query in protocol.queries], np.int64)
    return SearchResult(protocol.name, ap, rank, found, positives, counted, person_ids)


def check_queries(protocol: Protocol, detections: Detections, query_embeddings: np.ndarray) -> np.ndarray:
    """Query embeddings as (Q, D) float32, or a :class:`UserError` saying what does not fit."""
    queries = np.asarray(query_embeddings, np.float32)
    if queries.ndim != 2 or len(queries) != len(protocol.queries):
        raise UserError(f"protocol {protocol.name} has {len(protocol.queries)} queries but the query embeddings have "
                        f"shape {queries.shape}: give one row each.")
    if queries.shape[1] != detections.embeddings.shape[1]:
        raise UserError(f"query embeddings have {queries.shape[1]} numbers and those of the detections "
                        f"{detections.embeddings.shape[1]}: make both with the same model.")
    finite = np.isfinite(queries).all(axis=1)
    if not finite.all():
        raise NotFiniteError(f"the embedding of query {int(finite.argmin())} of protocol {protocol.name} is not "
                             "finite: look for an overflow in the model that made it (a diverged training does this).")
    return queries


def in_frame_order(detections: Detections, num_frames: int,
                   score_threshold: float) -> tuple[Detections, np.ndarray, np.ndarray]:
    """Detections that pass the threshold, by frame; the offsets of the frames; the row each one had before."""
    detections.offsets(num_frames)  # raises if a detection lies outside the set, dropped ones included
    order = np.argsort(detections.frame, kind="stable")
    order = order[detections.scores[order] >= score_threshold]
    kept = detections.select(order)
    return kept, kept.offsets(num_frames), order


def candidates_of(gallery: Resolved, boxes: np.ndarray,
                  offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections in the frames of the positives: rows (C,), which positive each belongs to (C,), and its IoU (C,)."""
    start = offsets[gallery.positive_frames]
    counts = offsets[gallery.positive_frames + 1] - start
    rows, positive = ranges(start, counts), np.repeat(np.arange(len(start)), counts)
    return rows, positive, paired_iou(boxes[rows], gallery.positive_boxes[positive])


def _plans(galleries: list[Resolved], boxes: np.ndarray, offsets: np.ndarray) -> list[_Plan]:
    """The geometry of all queries: IoU of all candidates in one go, then cut into queries."""
    counts = np.array([len(gallery.positive_frames) for gallery in galleries], np.int64)
    every = Resolved(np.empty(0, np.int64),
                     np.concatenate([gallery.positive_frames for gallery in galleries] or [np.empty(0, np.int64)]),
                     np.concatenate([gallery.positive_boxes for gallery in galleries] or [np.empty((0, 4))]), 0)
    rows, positive, overlap = candidates_of(every, boxes, offsets)
    enough = overlap >= box_iou_threshold(every.positive_boxes)[positive]
    rows, positive = rows[enough], positive[enough]
    first = np.flatnonzero(np.diff(positive, prepend=-1))  # where another positive's candidates begin
    ends = np.cumsum(counts)
    row_cut = np.searchsorted(positive, np.concatenate([[0], ends]))
    first_cut = np.searchsorted(first, row_cut)
    plans = []
    for number, gallery in enumerate(galleries):
        low, high = row_cut[number], row_cut[number + 1]
        starts = first[first_cut[number]:first_cut[number + 1]] - low
        plans.append(_Plan(gallery.frames, rows[low:high], starts, gallery.positives))
    return plans


def _similarities(plans: list[_Plan], queries: np.ndarray, embeddings: np.ndarray,
                  offsets: np.ndarray, revise: Revise | None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (query number, similarities of its whole gallery, similarities of its candidates), ``revise``-d if asked.

    Large galleries: one matrix product for a block of queries.  Small ones: only the rows that are needed.
    Either way each detection has one similarity per query, so that comparing a candidate with itself is exact, and so
    have detections of equal embeddings, so that their ties are ties.
    """
    twins = first_equal(embeddings)
    total, held = len(embeddings), np.diff(offsets)
    sizes = [int(held[plan.frames].sum()) for plan in plans]
    work = sum(sizes)
    gather = work * GATHER_COST < total * len(plans)
    step = 1 if gather else max(1, CHUNK_BYTES // (4 * max(total, 1)))
    similarity = np.zeros((1, total), np.float32)
    buffer = np.empty((max(sizes, default=0) if gather else 0, embeddings.shape[1]), np.float32)
    blocks = range(0, len(plans), step)
    for first in progress(blocks, "search") if work > BAR_FROM else blocks:
        if not gather:
            similarity = queries[first:first + step] @ embeddings.T
        for number in range(first, min(first + step, len(plans))):
            plan, row = plans[number], similarity[number - first]
            rows = ranges(offsets[plan.frames], held[plan.frames])
            if gather:
                row[rows] = np.take(embeddings, rows, axis=0, out=buffer[:len(rows)], mode="clip") @ queries[number]
            if twins is not None:
                row[twins[rows]] = row[rows]
                row[rows] = row[twins[rows]]
            if revise is not None:
                revise(number, row, rows)
            yield number, row[rows], row[plan.candidates]
