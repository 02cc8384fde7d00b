"""Reads a data set in the layout of PRW.

Every frame has its own annotation, ``[person, x, y, w, h]`` a row under one of three keys, with person -2 for people
without identity.  Corners are formed before the cut at the image's edge, in the annotations and in the query list
alike.  Where a person is annotated twice in a frame, the gallery keeps her first box, as every released evaluator
does.  Frames are read in the order of ``frame_train.mat`` and ``frame_test.mat``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pslib.data.annotations import UNLABELLED, Frame, Gallery, PersonSearchSet, Protocol, Query, first_rows
from pslib.data.boxes import BoxChecker
from pslib.data.matfile import read_mat, read_names
from pslib.errors import UserError

__all__ = ["read_prw"]

_KEYS = ("box_new", "anno_file", "anno_previous")


def read_prw(root: Path, split: str, bad_boxes: str = "raise") -> PersonSearchSet:
    """Read split ``"train"`` or ``"test"`` below ``root``; see :func:`pslib.data.loading.load`."""
    checker = BoxChecker(bad_boxes)
    names = read_names(root / f"frame_{split}.mat", f"img_index_{split}")
    frames = []
    for name in names:
        image = root / "frames" / f"{name}.jpg"
        table = _table(root / "annotations" / f"{name}.jpg.mat")
        ids = table[:, 0].astype(np.int64)
        ids[ids < 0] = UNLABELLED
        boxes, kept = checker(_corners(table[:, 1:]), image)
        frames.append(Frame(image.name, image, boxes, ids[kept], _camera(name, root)))
    dataset = PersonSearchSet("prw", split, root, frames, notes=checker.notes())
    if split == "test":
        dataset.protocols = _Protocols(dataset, _queries(dataset, checker))
    return dataset


def _table(path: Path) -> np.ndarray:
    """``[person, x, y, w, h]`` (N, 5) float64 of one frame; people are whole numbers, boxes unchecked."""
    table = read_mat(path, *_KEYS)
    if table.dtype.kind not in "iuf":
        raise UserError(f"{path} holds no table of numbers, N x 5 [person x y w h]: restore the file.")
    if table.size == 0:
        return np.empty((0, 5))
    if table.ndim != 2 or table.shape[1] < 5:
        raise UserError(f"{path} holds a table of shape {table.shape}, not N x 5 [person x y w h]: restore the file.")
    table = table[:, :5].astype(np.float64)
    strange = np.flatnonzero(~np.isfinite(table[:, 0]) | (table[:, 0] != np.round(table[:, 0])))
    if len(strange):
        row = strange[0]
        raise UserError(f"row {row + 1} of {path} has the person {table[row, 0]:g}, no whole number: restore the file.")
    return table


def _corners(boxes: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # infinite numbers are named when the box is checked
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _camera(name: str, root: Path) -> int:
    if not (name[:1] == "c" and name[1:2].isdigit()):
        raise UserError(f"{root} has a frame {name!r}, but PRW names begin with c and the camera's digit: rename it.")
    return int(name[1])


def _queries(dataset: PersonSearchSet, checker: BoxChecker) -> list[Query]:
    """``query_info.txt``: person, x, y, w, h, frame on each line, whatever ends the lines."""
    path = dataset.root / "query_info.txt"
    if not path.exists():
        raise UserError(f"{path} is missing: restore it from the data set, or draw the set again.")
    numbers = {frame.name: index for index, frame in enumerate(dataset.frames)}
    shown = set(dataset.person_ids.tolist())
    queries = []
    for number, line in enumerate(path.read_text(encoding="ascii", errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        where = f"line {number} of {path}"
        try:
            person, box, name = int(words[0]), np.array(words[1:5], np.float64), f"{words[5]}.jpg"
        except (ValueError, IndexError):
            raise UserError(f"{where} is {line!r}, not 'person x y w h frame': restore the file.") from None
        if name not in numbers:
            raise UserError(f"{where} names frame {name}, which frame_test.mat does not: restore both from one copy.")
        if person not in shown:
            raise UserError(f"{where} asks for person {person}, who appears in no test frame: remove that line.")
        frame = numbers[name]
        corners = checker.one(_corners(box[None])[0], dataset.frames[frame].path, where)
        queries.append(Query(frame, corners, person))
    if not queries:
        raise UserError(f"{path} lists no query: restore it from the data set, or draw the set again.")
    return queries


class _Protocols(Mapping[str, Protocol]):
    """``regular``: all test frames but the query's.  ``cross-camera``: those of the other cameras."""

    names = ("regular", "cross-camera")

    def __init__(self, dataset: PersonSearchSet, queries: list[Query]):
        self.dataset, self.queries = dataset, queries
        self.built: dict[str, Protocol] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Protocol:
        if name not in self.names:
            raise KeyError(name)
        if name not in self.built:
            self.built[name] = self._build(name)
        return self.built[name]

    def _build(self, name: str) -> Protocol:
        frames = self.dataset.frames
        cameras = np.array([frame.camera for frame in frames])
        everywhere = np.arange(len(frames), dtype=np.int32)
        places = first_rows(frames)
        queries, galleries = [], []
        for query in self.queries:
            allowed = cameras != cameras[query.frame] if name == "cross-camera" else everywhere != query.frame
            if not allowed.any():
                raise UserError(
                    f"the {name} gallery of person {query.person_id} in {frames[query.frame].name} is empty: "
                    "add test frames of another camera, or use the protocol 'regular'."
                )
            shown = [index for index in places.get(query.person_id, {}) if allowed[index]]
            if not shown and name == "regular":
                raise UserError(
                    f"person {query.person_id}, asked for in {frames[query.frame].name}, appears in no other test "
                    "frame: remove her line from query_info.txt."
                )
            if shown:  # a person that one camera saw alone cannot be asked for across cameras
                boxes = np.stack([frames[index].boxes[places[query.person_id][index]] for index in shown])
                queries.append(query)
                galleries.append(Gallery(everywhere[allowed], np.array(shown, np.int32), boxes))
        return Protocol(name, queries, galleries)
