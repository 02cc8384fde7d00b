"""Which images one query is searched in, and which boxes count as hers: the switches of the field, in one place.

Two oddities of the real protocols need a decision: four galleries of CUHK-SYSU name an
image twice, and two hold the query's own image.

``duplicates``
    ``"official"``: the image is scored once, but each of its entries that shows the person counts in the recall
    factor, so that a perfect ranking stays below 1 (SeqNet, COAT, OIMNet++, GFN).
    ``"twice"``: each entry is an image of its own; its detections are in the ranking twice (OIM, NAE, AlignPS).
    ``"drop"``: the image is there once, in both counts.
``query_in_gallery``
    ``"keep"``: the query's own image stays, an easy hit (everyone); ``"drop"``: it is taken out.

An image holds at most one right detection.  Where one image shows the person twice, the first box counts (quirk 16).
"""

from dataclasses import dataclass

import numpy as np

from pslib.data.annotations import Gallery, Protocol
from pslib.errors import UserError, require_choice

__all__ = ["DUPLICATES", "QUERY_IN_GALLERY", "Resolved", "resolve", "box_iou_threshold", "check_protocol"]

DUPLICATES = ("official", "twice", "drop")
QUERY_IN_GALLERY = ("keep", "drop")


@dataclass(frozen=True, eq=False)
class Resolved:
    """A gallery after the switches: ``frames`` (G,) to rank; the boxes to be found there, ``positive_frames`` (P,)
    and ``positive_boxes`` (P, 4); ``positives``, the number the recall divides by (>= P)."""

    frames: np.ndarray
    positive_frames: np.ndarray
    positive_boxes: np.ndarray
    positives: int


def resolve(gallery: Gallery, query_frame: int, duplicates: str = "official",
            query_in_gallery: str = "keep") -> Resolved:
    """Apply the two switches to one gallery.

    >>> twice = Gallery(np.array([4, 4, 9]), np.array([4, 4]), np.zeros((2, 4)))
    >>> [(len(r.frames), len(r.positive_frames), r.positives)
    ...  for r in (resolve(twice, 0, way) for way in ("official", "twice", "drop"))]
    [(2, 1, 2), (3, 2, 2), (2, 1, 1)]
    """
    frames, positive_frames, boxes = gallery.frames, gallery.positive_frames, gallery.positive_boxes.reshape(-1, 4)
    if query_in_gallery == "drop":
        others = positive_frames != query_frame
        frames, positive_frames, boxes = frames[frames != query_frame], positive_frames[others], boxes[others]
    once, first, entries = np.unique(positive_frames, return_index=True, return_counts=True)
    unique, occurrences = np.unique(frames, return_counts=True)
    if len(unique) == len(frames):
        return Resolved(frames, once, boxes[first], len(once))
    shown = np.minimum(entries, occurrences[np.searchsorted(unique, once)])  # entries that show the person
    if duplicates == "twice":
        order = np.argsort(positive_frames, kind="stable")
        nth = np.arange(len(order)) - np.repeat(np.cumsum(entries) - entries, entries)  # nth box of its image
        chosen = order[nth < np.repeat(shown, entries)]
        return Resolved(frames, positive_frames[chosen], boxes[chosen], len(chosen))
    return Resolved(unique, once, boxes[first], int(shown.sum()) if duplicates == "official" else len(once))


def box_iou_threshold(boxes: np.ndarray) -> np.ndarray:
    """min(0.5, w h / ((w + 10)(h + 10))): the IoU a detection needs, (N,) for boxes (N, 4) in original pixels.

    A box five pixels off on every side still passes; only small boxes are spared the full 0.5.

    >>> box_iou_threshold(np.array([[0, 0, 100, 200], [0, 0, 10, 20]])).round(3).tolist()
    [0.5, 0.333]
    """
    sides = np.asarray(boxes, np.float64)[:, 2:] - np.asarray(boxes, np.float64)[:, :2]
    return np.minimum(0.5, sides.prod(axis=1) / (sides + 10).prod(axis=1))


def check_protocol(protocol: Protocol, num_frames: int, duplicates: str, query_in_gallery: str) -> None:
    """Raise :class:`UserError` for a protocol that cannot be scored; costs a few microseconds a query."""
    require_choice("duplicates", duplicates, DUPLICATES)
    require_choice("query_in_gallery", query_in_gallery, QUERY_IN_GALLERY)
    name = protocol.name
    if len(protocol.queries) != len(protocol.galleries):
        raise UserError(f"protocol {name} has {len(protocol.queries)} queries but {len(protocol.galleries)} galleries: "
                        "give each query one gallery.")
    present = np.zeros(num_frames, bool)
    for number, (query, gallery) in enumerate(zip(protocol.queries, protocol.galleries, strict=True)):
        frames = gallery.frames
        if not len(frames):
            raise UserError(f"query {number} (person {query.person_id}) of protocol {name} has an empty gallery: "
                            "remove the query or give it images to search.")
        lowest, highest = int(frames.min()), int(frames.max())
        if lowest < 0 or highest >= num_frames or not 0 <= query.frame < num_frames:
            wrong = query.frame if 0 <= lowest and highest < num_frames else (lowest if lowest < 0 else highest)
            raise UserError(f"query {number} of protocol {name} names frame {wrong} but the set has {num_frames} "
                            "frames: use the protocol and the frames of one set.")
        present[frames] = True
        inside = ((gallery.positive_frames >= 0) & (gallery.positive_frames < num_frames)).all()
        if not inside or not present[gallery.positive_frames].all():
            raise UserError(f"query {number} of protocol {name} counts a frame as right that is not in its gallery: "
                            "mend the protocol file.")
        present[frames] = False
