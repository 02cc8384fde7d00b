"""Writes drawn frames in the on-disk layouts of CUHK-SYSU and PRW, to the letter.

The layouts, shapes and number types were counted in the released sets; ``data/README.md`` shows both trees.
Nothing here draws: a :class:`DrawnFrame` is what the drawing left, and the images are written beside it.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pslib.data.annotations import UNLABELLED
from pslib.data.matfile import char, mat_bytes, numeric, struct_array, write_mat

__all__ = ["DrawnFrame", "DrawnQuery", "CuhkProtocol", "write_cuhk_sysu", "write_prw", "prw_line", "write_bytes"]

_SCENE = ("imname", "idlocate", "ishard")
_QUERY = ("imname", "idlocate", "ishard", "idname")
_HARD_VISIBLE = 0.6  # a person less visible than this is marked ``ishard``
_KEYS = ("box_new", "anno_file", "anno_previous")


@dataclass(frozen=True, eq=False)
class DrawnFrame:
    """One frame as drawn: boxes are ``[x, y, w, h]`` (N, 4) in pixels, integral for CUHK-SYSU."""

    name: str
    boxes: np.ndarray  # (N, 4) float64
    person_ids: np.ndarray  # (N,) int64 with UNLABELLED
    visible: np.ndarray  # (N,) fraction 0..1 of the person that nothing hides
    camera: int = 0


@dataclass(frozen=True)
class DrawnQuery:
    """A query by position: row ``row`` of frame ``frame``."""

    frame: int
    row: int


@dataclass(frozen=True, eq=False)
class CuhkProtocol:
    """One protocol file: its place under ``annotation/test``, its key, and a gallery for each query.

    ``galleries`` lists test frame numbers, the ones that show the person first.
    """

    file: str
    key: str
    queries: Sequence[DrawnQuery]
    galleries: Sequence[np.ndarray]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)


# ---------------------------------------------------------------------------------------------- CUHK-SYSU


def _cuhk_box(box: np.ndarray) -> bytes:
    """``[x y w h]`` in the smallest type that holds each number, though it may not hold their sums."""
    kind = np.uint8 if box.max() <= 255 and box.min() >= 0 else np.uint16 if box.min() >= 0 else np.int16
    return numeric(box[None].astype(kind))


def _hard(visible: float) -> bytes:
    return numeric(np.uint8([[visible < _HARD_VISIBLE]]))


def _person_name(person: int) -> str:
    return f"p{person}"


def _scene(frame: DrawnFrame, row: int) -> bytes:
    return char(frame.name) + _cuhk_box(frame.boxes[row]) + _hard(frame.visible[row])


def _people(frames: Sequence[DrawnFrame]) -> dict[int, list[tuple[DrawnFrame, int]]]:
    """Labelled people in ascending order of id, each with her frames and rows."""
    found: dict[int, list[tuple[DrawnFrame, int]]] = {}
    for frame in frames:
        for row, person in enumerate(frame.person_ids):
            if person != UNLABELLED:
                found.setdefault(int(person), []).append((frame, row))
    return dict(sorted(found.items()))


def _person_fields(person: int, places: list[tuple[DrawnFrame, int]]) -> bytes:
    scenes = struct_array(_SCENE, [_scene(frame, row) for frame, row in places])
    return char(_person_name(person)) + numeric(np.uint16([[len(places)]])) + scenes


class _Galleries:
    """The encoded rows of one protocol, made one query at a time so that 2,900 x 4,000 fit in memory."""

    def __init__(self, protocol: CuhkProtocol, frames: Sequence[DrawnFrame]):
        self.protocol, self.frames = protocol, frames
        empty = numeric(np.empty((1, 0))) + numeric(np.empty((1, 0)))
        self.absent = [char(frame.name) + empty for frame in frames]

    def __iter__(self) -> Iterator[bytes]:
        for query, gallery in zip(self.protocol.queries, self.protocol.galleries, strict=True):
            frame = self.frames[query.frame]
            person = int(frame.person_ids[query.row])
            asked = struct_array(_QUERY, [_scene(frame, query.row) + char(_person_name(person))])
            yield asked + struct_array(_SCENE, self._rows(gallery.tolist(), person))

    def _rows(self, gallery: list[int], person: int) -> list[bytes]:
        """Positives come first, so the search for the person's row stops at the first frame without her."""
        encoded: list[bytes] = []
        times: dict[int, int] = {}
        for index in gallery:
            frame = self.frames[index]
            rows = np.flatnonzero(frame.person_ids == person)
            if len(rows) == 0:
                break
            # A frame listed again shows the person's next box, where she was annotated twice.
            seen = times.get(index, 0)
            times[index] = seen + 1
            encoded.append(_scene(frame, int(rows[min(seen, len(rows) - 1)])))
        return encoded + [self.absent[index] for index in gallery[len(encoded) :]]


def write_cuhk_sysu(
    root: Path, train: Sequence[DrawnFrame], test: Sequence[DrawnFrame], protocols: Iterable[CuhkProtocol]
) -> None:
    """Write ``annotation/`` of a CUHK-SYSU root; the images lie in ``Image/SSM`` already."""
    annotation = root / "annotation"
    for folder in ("test/train_test", "test/subset"):
        (annotation / folder).mkdir(parents=True, exist_ok=True)
    everyone = sorted([*train, *test], key=lambda frame: int(frame.name[1:-4]))
    images = []
    for frame in everyone:
        boxes = [_cuhk_box(box) + _hard(seen) for box, seen in zip(frame.boxes, frame.visible, strict=True)]
        images.append(char(frame.name) + numeric(np.uint16([[len(boxes)]])) + struct_array(_SCENE[1:], boxes))
    write_mat(annotation / "Images.mat", "Img", ("imname", "nAppear", "box"), (1, len(images)), images)
    fields = ("idname", "nAppear", "scene")
    people = [_person_fields(person, places) for person, places in _people(everyone).items()]
    write_mat(annotation / "Person.mat", "Person", fields, (1, len(people)), people)
    write_mat(annotation / "pool.mat", "pool", None, (len(test), 1), [char(frame.name) for frame in test])
    trained = [struct_array(fields, [_person_fields(person, places)]) for person, places in _people(train).items()]
    write_mat(annotation / "test/train_test/Train.mat", "Train", None, (len(trained), 1), trained)
    for protocol in protocols:
        shape = (1, len(protocol.queries))
        rows = _Galleries(protocol, test)
        write_mat(annotation / "test" / protocol.file, protocol.key, ("Query", "Gallery"), shape, rows)


# ---------------------------------------------------------------------------------------------- PRW


def prw_line(frame: DrawnFrame, row: int) -> str:
    """One line of ``query_info.txt`` without its end: person, box, frame name."""
    numbers = " ".join(f"{value:.2f}" for value in frame.boxes[row])
    return f"{int(frame.person_ids[row])} {numbers} {frame.name.removesuffix('.jpg')}"


def _prw_annotation(frame: DrawnFrame, key: str) -> bytes:
    ids = np.where(frame.person_ids == UNLABELLED, -2, frame.person_ids)
    table = np.column_stack([ids.astype(np.float64), np.round(frame.boxes.reshape(-1, 4), 2)])
    return mat_bytes(numeric(table, key))


def _names_column(path: Path, key: str, frames: Sequence[DrawnFrame]) -> None:
    write_mat(path, key, None, (len(frames), 1), [char(frame.name.removesuffix(".jpg")) for frame in frames])


def write_prw(
    root: Path,
    train: Sequence[DrawnFrame],
    test: Sequence[DrawnFrame],
    queries: Sequence[DrawnQuery],
    odd_corners: bool = False,
) -> None:
    """Write everything of a PRW root but ``frames/`` and ``query_box/``.

    The released annotations stand under three keys; ``odd_corners`` uses all three in turn, else the first.
    """
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate([*train, *test]):
        key = _KEYS[index % 3] if odd_corners else _KEYS[0]
        write_bytes(root / "annotations" / f"{frame.name}.mat", _prw_annotation(frame, key))
    _names_column(root / "frame_train.mat", "img_index_train", train)
    _names_column(root / "frame_test.mat", "img_index_test", test)
    for file, key, frames in (("ID_train.mat", "ID_train", train), ("ID_test.mat", "ID_test2", test)):
        identities = np.array([list(_people(frames))], np.float64)
        write_bytes(root / file, mat_bytes(numeric(identities, key)))
    lines = [prw_line(test[query.frame], query.row) + "\r\n" for query in queries]
    write_bytes(root / "query_info.txt", "".join(lines).encode("ascii"))
