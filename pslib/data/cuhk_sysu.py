"""Reads a data set in the layout of CUHK-SYSU.

Boxes on disk are ``[x, y, w, h]`` in ``uint8`` or ``uint16``, where ``x + w`` may not fit: they are cast to
``int64`` before anything is added.  Training images are all images that are not in the pool, sorted by name.  A
labelled person's box gets its identity by exact equality of its four numbers with a box of ``Images.mat``.  A
gallery keeps repeated images and the query's own image where the file lists them: the evaluator decides.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from pslib.data.annotations import UNLABELLED, Frame, Gallery, PersonSearchSet, Protocol, Query
from pslib.data.boxes import BoxChecker
from pslib.data.matfile import read_mat
from pslib.data.protocol_file import ProtocolRow, read_protocol
from pslib.errors import UserError

__all__ = ["read_cuhk_sysu"]

_SUBSETS = {"Occlusion": ("Occlusion.mat", "Occlusion1"), "Resolution": ("Resolution.mat", "Test_Size")}


def read_cuhk_sysu(root: Path, split: str, bad_boxes: str = "raise") -> PersonSearchSet:
    """Read split ``"train"`` or ``"test"`` below ``root``; see :func:`pslib.data.loading.load`."""
    checker = BoxChecker(bad_boxes)
    annotation = root / "annotation"
    images = read_mat(annotation / "Images.mat", "Img").ravel()
    pool = [_text(name) for name in read_mat(annotation / "pool.mat", "pool").ravel()]
    in_pool = set(pool)
    places = {_text(image["imname"]): image for image in images}
    names = pool if split == "test" else sorted(places.keys() - in_pool, key=_natural)
    missing = [name for name in names if name not in places]
    if missing:
        raise UserError(
            f"{annotation / 'pool.mat'} lists {missing[0]}, which Images.mat does not: restore both from one copy."
        )
    identities = _training_places(annotation) if split == "train" else _test_places(annotation)
    unmatched = sum(map(len, identities.values()))
    frames = []
    for name in names:
        path = root / "Image" / "SSM" / name
        corners = _corners([box["idlocate"] for box in places[name]["box"].ravel()])
        known = identities.get(name, {})
        ids = np.array([known.get(tuple(box), UNLABELLED) for box in corners.tolist()], np.int64)
        unmatched -= len(known.keys() & set(map(tuple, corners.tolist())))
        boxes, kept = checker(corners, path, ids)
        frames.append(Frame(name, path, boxes, ids[kept]))
    dataset = PersonSearchSet("cuhk-sysu", split, root, frames, notes=checker.notes())
    if unmatched:
        dataset.notes.append(f"{unmatched} labelled boxes equal no box of Images.mat and were left out")
    if split == "test":
        dataset.protocols = _Protocols(dataset, checker)
    return dataset


def _text(value: np.ndarray) -> str:
    return str(value.item() if value.size == 1 else value.ravel()[0])


def _natural(name: str) -> tuple[int, str]:
    digits = "".join(character for character in name if character.isdigit())
    return int(digits or 0), name


def _corners(boxes: Iterable[np.ndarray]) -> np.ndarray:
    """``[x, y, w, h]`` of any integer type -> ``[x1, y1, x2, y2]`` (N, 4) int64, right and bottom exclusive."""
    corners = np.array([box.ravel() for box in boxes]).reshape(-1, 4).astype(np.int64)
    corners[:, 2:] += corners[:, :2]
    return corners


def _training_places(annotation: Path) -> dict[str, dict[tuple[int, ...], int]]:
    """Image name -> box -> person, from ``Train.mat``."""
    places: dict[str, dict[tuple[int, ...], int]] = {}
    for person in read_mat(annotation / "test/train_test/Train.mat", "Train").ravel():
        person = person.ravel()[0]
        for scene in person["scene"].ravel():
            _add_place(places, _text(scene["imname"]), scene["idlocate"], _person_number(_text(person["idname"])))
    return places


def _test_places(annotation: Path) -> dict[str, dict[tuple[int, ...], int]]:
    """Image name -> box -> person, from the queries and positives of the smallest ``TestG`` file."""
    places: dict[str, dict[tuple[int, ...], int]] = {}
    name, path = next(iter(_protocol_files(annotation).values()))[::-1]
    for row in read_protocol(path, name):
        person = _person_number(row.person)
        _add_place(places, row.image, row.box, person)
        for image, box in zip(row.gallery, row.boxes, strict=True):
            if box is not None:
                _add_place(places, image, box, person)
    return places


def _add_place(places: dict, image: str, box: np.ndarray, person: int) -> None:
    places.setdefault(image, {})[tuple(_corners([box])[0].tolist())] = person


def _person_number(name: str) -> int:
    return int(name.removeprefix("p"))


def _protocol_files(annotation: Path) -> dict[str, tuple[Path, str]]:
    """Protocol name -> (file, key), galleries from small to large, then the two subsets."""
    sized = {}
    for path in annotation.glob("test/train_test/TestG*.mat"):
        if path.stem.removeprefix("TestG").isdigit():
            sized[int(path.stem.removeprefix("TestG"))] = path
    if not sized:
        raise UserError(
            f"{annotation / 'test/train_test'} has no TestG file: restore TestG50.mat to TestG4000.mat from the set."
        )
    files = {f"TestG{size}": (sized[size], f"TestG{size}") for size in sorted(sized)}
    for name, (file, key) in _SUBSETS.items():
        if (annotation / "test/subset" / file).exists():
            files[name] = (annotation / "test/subset" / file, key)
    return files


class _Protocols(Mapping[str, Protocol]):
    """The protocols of a test set, each read when first asked for: TestG4000 alone holds 11.6 million rows."""

    def __init__(self, dataset: PersonSearchSet, checker: BoxChecker):
        self.files = _protocol_files(dataset.root / "annotation")
        self.numbers = {frame.name: index for index, frame in enumerate(dataset.frames)}
        self.frames, self.checker = dataset.frames, checker
        self.read: dict[str, Protocol] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, name: str) -> Protocol:
        if name not in self.read:
            path, key = self.files[name]
            pairs = [self._pair(row, f"query {index} of {path}") for index, row in enumerate(read_protocol(path, key))]
            self.read[name] = Protocol(name, [query for query, _ in pairs], [gallery for _, gallery in pairs])
        return self.read[name]

    def _box(self, box: np.ndarray, frame: int) -> np.ndarray:
        return self.checker(_corners([box]), self.frames[frame].path, None)[0][0]

    def _pair(self, row: ProtocolRow, where: str) -> tuple[Query, Gallery]:
        strange = next((name for name in (row.image, *row.gallery) if name not in self.numbers), None)
        if strange is not None:
            raise UserError(f"{where} names {strange}, which pool.mat does not: restore both from one copy of the set.")
        if not row.gallery:
            raise UserError(f"{where} ({row.person}) has an empty gallery: restore the file, or leave that query out.")
        frame = self.numbers[row.image]
        listed = np.array([self.numbers[name] for name in row.gallery], np.int32)
        shown = [index for index, box in enumerate(row.boxes) if box is not None]
        if not shown:
            raise UserError(
                f"{where}: person {row.person} appears in none of its {len(listed)} gallery images: "
                "restore the file, or leave that query out."
            )
        boxes = np.stack([self._box(row.boxes[index], int(listed[index])) for index in shown])
        query = Query(frame, self._box(row.box, frame), _person_number(row.person))
        return query, Gallery(listed, listed[shown], boxes)
