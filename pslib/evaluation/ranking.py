"""One query against one gallery, told rank by rank: what the query browser shows and ``pslib search`` prints.

The query may be a protocol's, any other annotated person, a detected box, or a box in a picture of one's own; of the
last nobody knows who it is, so nothing can be called right or wrong.  Where she is known the counting is that of
:func:`pslib.evaluation.explain.explain`, hence that of every table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pslib.data.annotations import UNLABELLED, Frame, Gallery, PersonSearchSet, Protocol, Query
from pslib.errors import UserError, require_choice
from pslib.evaluation.detections import Detections
from pslib.evaluation.explain import Appearance, explain
from pslib.evaluation.galleries import box_iou_threshold, resolve
from pslib.evaluation.gallery import GalleryEmbeddings
from pslib.evaluation.nearest import as_dot_products
from pslib.evaluation.ragged import paired_iou, ranges, segment_argmax
from pslib.evaluation.search import search

__all__ = ["ALL", "CAMERAS", "VERDICTS", "Missed", "Ranking", "gallery_names", "gallery_of", "hardest", "rank"]

VERDICTS = ("right", "wrong", "second box", "not labelled")
CAMERAS = ("all", "same", "other")
ALL = "all frames"  # the gallery that every set has besides its protocols


@dataclass(frozen=True)
class Missed:
    """A true match outside the first ranks: where, and ``reason``, a phrase; ``rank`` is 0 if it has none."""

    frame: int
    box: tuple[float, float, float, float]
    reason: str
    rank: int = 0


@dataclass(frozen=True, eq=False)
class Ranking:
    """All K detections of a gallery that reach the score threshold, most similar first.

    ``detection`` (K,) rows of the gallery's detections; ``similarity`` (K,) cosine -1..1, or the negative
    distance where a model compares by it; ``verdict`` K of
    :data:`VERDICTS`: ``"right"``; ``"second box"``, on her where she was found already; ``"not labelled"``, on somebody
    whose identity nobody annotated, or the query herself is not known; ``"wrong"``, on another person or on nobody.
    All but ``"right"`` count as wrong.

    ``ap`` in 0..1, or None where it cannot be told, and then ``note`` says why; ``rank`` of the first right one,
    0 if there is none; ``positives`` true matches in the gallery; ``missed`` those outside the first ``shown`` ranks;
    ``running_ap`` (K,) what the first n ranks have earned of the AP, empty without one (equal similarities count one
    by one here, together in ``ap``); ``frames`` how many were searched; ``compared`` "cosine" or "euclidean".
    """

    detection: np.ndarray
    similarity: np.ndarray
    verdict: list[str]
    ap: float | None
    rank: int
    positives: int
    missed: list[Missed]
    running_ap: np.ndarray
    frames: int
    note: str = ""
    appearances: list[Appearance] = field(default_factory=list)
    compared: str = "cosine"
    shown: int = 10

    def __len__(self) -> int:
        return len(self.detection)

    def closeness(self, place: int) -> str:
        """The place (from 0) in words: "similarity 0.71", or "distance 3.20" where the model compares by it."""
        value = float(self.similarity[place])
        return f"similarity {value:.2f}" if self.compared == "cosine" else f"distance {-value:.2f}"


def rank(
    gallery: GalleryEmbeddings,
    query_embedding: np.ndarray,
    *,
    frames: Sequence[Frame],
    person_id: int = UNLABELLED,
    query_frame: int = -1,
    among: Gallery | None = None,
    cameras: str = "all",
    score_threshold: float = 0.0,
    shown: int = 10,
) -> Ranking:
    """Rank the detections of ``gallery`` by similarity to ``query_embedding`` (D,), as its model compares embeddings.

    Args:
        gallery: all frames as one model sees them; the query's embedding must be the same model's.
        frames: the set's frames, ``data.frames``.
        person_id: who is asked for; UNLABELLED where nobody knows.
        query_frame: the frame she was taken from, -1 for a picture of one's own.
        among: where to search (:func:`gallery_of`); all frames but her own if not given.
        cameras: keep only frames of the query's camera (``"same"``), of the others (``"other"``), or ``"all"``.
        score_threshold: detections with a score below it are left out.
        shown: true matches at ranks beyond it count as missed.

    Raises:
        UserError: embeddings of different models, no frame left by the filters, cameras asked for where there are none.

    >>> box = np.array([[0, 0, 20, 40]], np.float32)
    >>> set_of_3 = [Frame(name, None, box, np.array([7])) for name in "abc"]
    >>> found = Detections([1, 1], [box[0], box[0] + 60], np.ones(2), [[.6, .8], [.8, .6]])
    >>> ranking = rank(GalleryEmbeddings(found, found, np.array([7, 7, 7])), np.array([1., 0.]),
    ...                frames=set_of_3, person_id=7, query_frame=0)
    >>> ranking.verdict, ranking.ap, [missed.reason for missed in ranking.missed]
    (['wrong', 'right'], 0.25, ['not detected (best IoU 0.00, needed 0.50)'])
    """
    detections = gallery.detections
    among = among if among is not None else _everywhere(frames, query_frame, person_id)
    among = _under(among, frames, query_frame, require_choice("camera filter", cameras, CAMERAS))
    # A query from elsewhere is in none of the frames; with its own image kept, the number of its frame is not read.
    query = Query(max(query_frame, 0), np.zeros(4, np.float32), person_id)
    compared, asked = detections, query_embedding
    if gallery.similarity == "euclidean":
        rows, (asked,) = as_dot_products(detections.embeddings, query_embedding[None])
        compared = replace(detections, embeddings=rows)
    told = explain(
        Protocol("of this query", [query], [among]), 0, compared, asked, num_frames=len(frames),
        score_threshold=score_threshold,
    )  # fmt: skip
    if gallery.similarity == "euclidean":
        apart = np.linalg.norm(detections.embeddings[told.detection] - query_embedding, axis=1)
        told = replace(told, similarity=-apart)
    searched = len(np.unique(among.frames))
    if person_id == UNLABELLED:
        note = "nobody knows who this is, so nothing can be counted as right or wrong"
        verdict = ["not labelled"] * len(told.detection)
        return Ranking(told.detection, told.similarity, verdict, None, 0, 0, [], np.empty(0), searched, note,
                       compared=gallery.similarity)  # fmt: skip
    verdict = _verdicts(detections, told.detection, told.right, frames, person_id)
    positives = len(told.appearances)
    if not positives:
        note = f"person {person_id} appears in none of the {searched} frames searched, so no match can be right"
        return Ranking(told.detection, told.similarity, verdict, None, 0, 0, [], np.empty(0), searched, note,
                       compared=gallery.similarity)  # fmt: skip
    missed = [_missed(one, detections, score_threshold) for one in told.appearances
              if one.outcome != "found" or one.rank > shown]  # fmt: skip
    precision = np.cumsum(told.right) / np.arange(1, len(told.right) + 1)
    # Where a gallery lists a frame twice the recall divides by more than there are appearances (switch "official").
    running = np.cumsum(precision * told.right) / resolve(among, -1).positives
    return Ranking(
        told.detection, told.similarity, verdict, told.ap, told.rank, positives, missed, running, searched,
        appearances=told.appearances, compared=gallery.similarity, shown=shown,
    )  # fmt: skip


def _missed(one: Appearance, detections: Detections, score_threshold: float) -> Missed:
    reason = f"ranked at {one.rank}"
    if one.outcome == "not detected":
        reason = f"not detected (best IoU {one.iou:.2f}, needed {one.required_iou:.2f})"
    elif one.outcome == "under threshold":
        own = np.flatnonzero(detections.frame == one.frame)
        overlap = paired_iou(detections.boxes[own], np.tile(one.box, (len(own), 1)))
        score = float(detections.scores[own[overlap >= one.required_iou]].max())
        reason = f"under the threshold (score {score:.2f}, asked for {score_threshold:.2f})"
    return Missed(one.frame, one.box, reason, one.rank)


def _verdicts(detections: Detections, rows: np.ndarray, right: np.ndarray, frames: Sequence[Frame],
              person_id: int) -> list[str]:  # fmt: skip
    """A word for each ranked detection, by the annotated box that it overlaps best, if it overlaps it enough."""
    owner, boxes, people = _annotations(frames)
    counts = np.bincount(owner, minlength=len(frames))
    starts = np.cumsum(counts) - counts
    at = detections.frame[rows]
    pairs, place = ranges(starts[at], counts[at]), np.repeat(np.arange(len(rows)), counts[at])
    overlap = paired_iou(detections.boxes[rows[place]], boxes[pairs])
    best = segment_argmax(overlap, place)
    best = best[overlap[best] >= box_iou_threshold(boxes[pairs[best]])]
    words = np.full(len(rows), "wrong", object)
    who = people[pairs[best]]
    words[place[best][who == UNLABELLED]] = "not labelled"
    words[place[best][who == person_id]] = "second box"
    words[right] = "right"
    return words.tolist()


def _everywhere(
    frames: Sequence[Frame], query_frame: int, person_id: int, allowed: np.ndarray | None = None
) -> Gallery:
    """All frames but the query's own, or those ``allowed``; a person annotated twice in a frame has her first box."""
    listed = np.arange(len(frames)) if allowed is None else np.asarray(allowed)
    listed = listed[listed != query_frame].astype(np.int32)
    at, boxes, people = _annotations(frames)
    hers = np.flatnonzero((people == person_id) & (people != UNLABELLED) & np.isin(at, listed))
    shown, first = np.unique(at[hers], return_index=True)
    return Gallery(listed, shown.astype(np.int32), boxes[hers[first]])


def _annotations(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All M annotated boxes of a set: frame (M,), box (M, 4), person id (M,)."""
    at = np.repeat(np.arange(len(frames)), [len(frame.boxes) for frame in frames])
    boxes = np.concatenate([np.empty((0, 4), np.float32), *(frame.boxes.reshape(-1, 4) for frame in frames)])
    return at, boxes, np.concatenate([np.empty(0, np.int64), *(frame.person_ids for frame in frames)])


def _under(among: Gallery, frames: Sequence[Frame], query_frame: int, cameras: str) -> Gallery:
    """The part of a gallery that a camera filter leaves."""
    kept, positive = np.ones(len(among.frames), bool), np.ones(len(among.positive_frames), bool)
    if cameras != "all":
        if query_frame < 0:
            raise UserError(f"cameras={cameras!r} is asked for, but a picture of your own has no camera: choose 'all'.")
        own = frames[query_frame].camera
        if not own:
            raise UserError(f"cameras={cameras!r} is asked for, but this set does not know its cameras: choose 'all'.")
        camera = np.array([frame.camera for frame in frames])
        kept = (camera[among.frames] == own) == (cameras == "same")
        positive = (camera[among.positive_frames] == own) == (cameras == "same")
    if not kept.any():
        raise UserError(f"no frame is left to search with cameras={cameras!r}: choose 'all', or a larger gallery.")
    return Gallery(among.frames[kept], among.positive_frames[positive], among.positive_boxes[positive])


def gallery_names(data: PersonSearchSet) -> list[str]:
    """What :func:`gallery_of` offers for a set: its protocols, then all frames."""
    return [*data.protocols, ALL]


def gallery_of(data: PersonSearchSet, name: str, *, query_frame: int = -1, person_id: int = UNLABELLED) -> Gallery:
    """The gallery ``name`` of :func:`gallery_names` for any person, a query of that protocol or not.

    A query of the protocol gets the gallery that the protocol lists.  Anybody else gets one made the same way: of
    CUHK-SYSU's protocols as many frames, first those that show her, the others drawn with a fixed seed; of PRW's all
    frames that the protocol allows.
    """
    require_choice("gallery", name, gallery_names(data))
    if name == ALL:
        return _everywhere(data.frames, query_frame, person_id)
    protocol = data.protocols[name]
    for query, gallery in zip(protocol.queries, protocol.galleries, strict=True):
        if query.frame == query_frame and query.person_id == person_id:
            return gallery
    if data.kind == "prw":
        cameras = np.array([frame.camera for frame in data.frames])
        own = cameras[query_frame] if query_frame >= 0 else 0
        allowed = np.flatnonzero(cameras != own) if name == "cross-camera" else None
        return _everywhere(data.frames, query_frame, person_id, allowed)
    size = max((len(gallery.frames) for gallery in protocol.galleries), default=len(data.frames))
    every = _everywhere(data.frames, query_frame, person_id)
    others = np.random.default_rng(0).permutation(np.setdiff1d(every.frames, every.positive_frames))
    listed = np.concatenate([every.positive_frames, others])[: max(size, len(every.positive_frames))]
    return Gallery(listed.astype(np.int32), every.positive_frames, every.positive_boxes)


def hardest(
    protocol: Protocol, gallery: GalleryEmbeddings, *, num_frames: int, score_threshold: float = 0.0
) -> list[tuple[int, float]]:
    """(query number, AP) of every query that can be counted, worst first; equal ones in the protocol's order."""
    result = search(protocol, gallery.detections, gallery.of_queries(protocol), num_frames=num_frames,
                    score_threshold=score_threshold, similarity=gallery.similarity)  # fmt: skip
    counted = np.flatnonzero(result.counted)
    order = counted[np.argsort(result.ap[counted], kind="stable")]
    return [(int(number), float(result.ap[number])) for number in order]
