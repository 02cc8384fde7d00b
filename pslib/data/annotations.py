"""What a person-search set says about its images: frames, queries, galleries.

The readers of both layouts (``cuhk_sysu.py``, ``prw.py``) end in these classes, and nothing after them
knows which set it works on.  Boxes are ``[x1, y1, x2, y2]`` in pixels of the upright image, float32, with
exclusive right and bottom edges (width = x2 - x1).  Person ids are the data set's own numbers; people
without identity carry :data:`UNLABELLED`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["UNLABELLED", "Frame", "Query", "Gallery", "Protocol", "PersonSearchSet", "first_rows"]

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class Frame:
    """One whole scene image and the people annotated in it."""

    name: str
    path: Path
    boxes: np.ndarray  # (N, 4) float32
    person_ids: np.ndarray  # (N,) int64, UNLABELLED where the identity is not known
    camera: int = 0  # 1..6 in PRW, 0 in sets without cameras


@dataclass(frozen=True, eq=False)
class Query:
    """One person to be found: a box in a frame of the same set."""

    frame: int  # index into PersonSearchSet.frames
    box: np.ndarray  # (4,) float32
    person_id: int


@dataclass(frozen=True, eq=False)
class Gallery:
    """Where one query is searched, and the places that count as found."""

    frames: np.ndarray  # (G,) int32 indices into PersonSearchSet.frames; an index may repeat
    positive_frames: np.ndarray  # (P,) int32, the gallery frames that show the person
    positive_boxes: np.ndarray  # (P, 4) float32, her box in each of them


@dataclass(frozen=True, eq=False)
class Protocol:
    """A list of queries with one gallery each: ``TestG50`` .. ``TestG4000``, ``regular``, ``cross-camera`` ..."""

    name: str
    queries: list[Query]
    galleries: list[Gallery]


@dataclass(eq=False)
class PersonSearchSet:
    """One split of a person-search set, however it was stored.

    ``labels`` of training maps raw person ids to 0..I-1, the row numbers of the lookup table.
    """

    kind: str  # "cuhk-sysu" or "prw"
    split: str  # "train" or "test"
    root: Path
    frames: list[Frame]
    protocols: Mapping[str, Protocol] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what the reader changed, in words

    @property
    def person_ids(self) -> np.ndarray:
        """Sorted raw ids of the labelled people, shape (I,)."""
        ids = [frame.person_ids for frame in self.frames]
        every = np.unique(np.concatenate(ids)) if ids else np.empty(0, np.int64)
        return every[every != UNLABELLED]

    def labels(self) -> dict[int, int]:
        """Raw person id -> training label 0..I-1; unlabelled people stay UNLABELLED and are not a key."""
        return {int(person): label for label, person in enumerate(self.person_ids)}


def first_rows(frames: Sequence[Frame]) -> dict[int, dict[int, int]]:
    """Labelled person -> index of every frame that shows her, in order -> row of her first box there.

    >>> boxes = np.zeros((3, 4), np.float32)
    >>> first_rows([Frame("a", Path("a"), boxes, np.array([UNLABELLED, 7, 7]))])
    {7: {0: 1}}
    """
    found: dict[int, dict[int, int]] = {}
    for index, frame in enumerate(frames):
        for row, person in enumerate(frame.person_ids.tolist()):
            if person != UNLABELLED:
                found.setdefault(person, {}).setdefault(index, row)
    return found
