"""Reads a data set in the layout of CUHK-SYSU.

Boxes on disk are ``[x, y, w, h]`` in ``uint8`` or ``uint16``, where ``x + w`` may not fit: they are cast to
``int64`` before anything is added.  Training images are all images that are not in the pool, sorted by name.  A
labelled person's box gets its identity by exact equality of its four numbers with a box of ``Images.mat``; where two
people claim one box, the one named last has it and a note counts the conflict.  A gallery keeps repeated images and the
query's own image where the file lists them: the evaluator decides.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pslib.data.annotations import UNLABELLED, Frame, Gallery, PersonSearchSet, Protocol, Query
from pslib.data.boxes import BoxChecker
from pslib.data.matfile import read_mat, read_names, text_of
from pslib.data.protocol_file import ProtocolRow, read_protocol
from pslib.errors import UserError

__all__ = ["read_cuhk_sysu"]

_SUBSETS = {"Occlusion": ("Occlusion.mat", "Occlusion1"), "Resolution": ("Resolution.mat", "Test_Size")}


def read_cuhk_sysu(root: Path, split: str, bad_boxes: str = "raise") -> PersonSearchSet:
    """Read split ``"train"`` or ``"test"`` below ``root``; see :func:`pslib.data.loading.load`."""
    checker = BoxChecker(bad_boxes)
    annotation = root / "annotation"
    images = _annotated(annotation / "Images.mat")
    pool = read_names(annotation / "pool.mat", "pool")
    names = pool if split == "test" else sorted(images.keys() - set(pool), key=_natural)
    missing = [name for name in names if name not in images]
    if missing:
        raise UserError(
            f"{annotation / 'pool.mat'} lists {missing[0]}, which Images.mat does not: restore both from one copy."
        )
    claims = _training_claims(annotation) if split == "train" else _test_claims(annotation)
    identities, conflicts = _identities(claims)
    unmatched = sum(map(len, identities.values()))
    frames = []
    for name in names:
        path = root / "Image" / "SSM" / name
        corners = _corners(_checked(images[name], f"image {name} of {annotation / 'Images.mat'}"))
        known = identities.get(name, {})
        ids = np.array([known.get(tuple(box), UNLABELLED) for box in corners.tolist()], np.int64)
        unmatched -= len(known.keys() & set(map(tuple, corners.tolist())))
        boxes, kept = checker(corners, path)
        frames.append(Frame(name, path, boxes, ids[kept]))
    dataset = PersonSearchSet("cuhk-sysu", split, root, frames, notes=checker.notes())
    if unmatched:
        dataset.notes.append(f"{unmatched} labelled boxes equal no box of Images.mat and were left out")
    if conflicts:
        dataset.notes.append(f"{conflicts} boxes are claimed by two people; the one named last has the box")
    if split == "test":
        dataset.protocols = _Protocols(dataset, checker)
    return dataset


def _structs(value: np.ndarray, where: str, *fields: str) -> np.ndarray:
    """The structs of an array in one row; UserError if it holds something else, or lacks one of the ``fields``.

    An empty array may be of any kind, as MATLAB writes it.
    """
    if value.size and not set(fields) <= set(value.dtype.names or ()):
        raise UserError(f"{where} holds no structs with the fields {', '.join(fields)}: restore the file from the set.")
    return value.ravel()


def _annotated(path: Path) -> dict[str, list[np.ndarray]]:
    """Image name -> its boxes as they stand in ``Images.mat``."""
    images: dict[str, list[np.ndarray]] = {}
    for place, image in enumerate(_structs(read_mat(path, "Img"), f"Img of {path}", "imname", "box"), start=1):
        name = text_of(image["imname"], f"image {place} of {path}")
        if name in images:
            raise UserError(f"{path} lists {name} more than once: restore it from the data set.")
        images[name] = [box["idlocate"] for box in _structs(image["box"], f"image {name} of {path}", "idlocate")]
    return images


def _natural(name: str) -> tuple[int, str]:
    digits = "".join(character for character in name if character.isdigit())
    return int(digits or 0), name


def _checked(boxes: Sequence[np.ndarray], where: str) -> Sequence[np.ndarray]:
    """The same boxes; UserError if one is not four finite numbers."""
    for box in boxes:
        if box.size != 4 or box.dtype.kind not in "iuf" or not np.isfinite(box).all():
            numbers = box.ravel().tolist()
            raise UserError(f"{where} has the box {numbers}, not four numbers [x, y, w, h]: restore the file.")
    return boxes


def _corners(boxes: Iterable[np.ndarray]) -> np.ndarray:
    """``[x, y, w, h]`` of any integer type -> ``[x1, y1, x2, y2]`` (N, 4) int64, right and bottom exclusive."""
    corners = np.array([box.ravel() for box in boxes]).reshape(-1, 4).astype(np.int64)
    corners[:, 2:] += corners[:, :2]
    return corners


_Claim = tuple[str, tuple[int, ...], int]  # image, box as corners, person


def _training_claims(annotation: Path) -> Iterator[_Claim]:
    """Which box of which image each person has, from ``Train.mat``."""
    path = annotation / "test/train_test/Train.mat"
    for place, cell in enumerate(read_mat(path, "Train").ravel(), start=1):
        where = f"person {place} of {path}"
        fields = _structs(np.asarray(cell), where, "idname", "scene")
        if not len(fields):
            raise UserError(f"{where} is empty: restore the file from the data set.")
        number = _person_number(text_of(fields[0]["idname"], where), where)
        for scene in _structs(fields[0]["scene"], where, "imname", "idlocate"):
            yield text_of(scene["imname"], where), _one(scene["idlocate"], where), number


def _test_claims(annotation: Path) -> Iterator[_Claim]:
    """The same from the queries and positives of the smallest ``TestG`` file."""
    path, name = next(iter(_protocol_files(annotation).values()))
    for index, row in enumerate(read_protocol(path, name)):
        where = f"query {index} of {path}"
        number = _person_number(row.person, where)
        yield row.image, _one(row.box, where), number
        for image, box in zip(row.gallery, row.boxes, strict=True):
            if box is not None:
                yield image, _one(box, where), number


def _identities(claims: Iterable[_Claim]) -> tuple[dict[str, dict[tuple[int, ...], int]], int]:
    """Image name -> box -> person, and how many boxes are claimed by more than one person."""
    identities: dict[str, dict[tuple[int, ...], int]] = {}
    conflicts = set()
    for image, box, person in claims:
        if identities.setdefault(image, {}).get(box, person) != person:
            conflicts.add((image, box))
        identities[image][box] = person
    return identities, len(conflicts)


def _one(box: np.ndarray, where: str) -> tuple[int, ...]:
    return tuple(_corners(_checked([box], where))[0].tolist())


def _person_number(name: str, where: str) -> int:
    if not (digits := name.removeprefix("p")).isdecimal():
        raise UserError(f"{where} has the person {name!r}, but people are named p and a number: restore the file.")
    return int(digits)


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

    def _box(self, box: np.ndarray, frame: int, where: str) -> np.ndarray:
        return self.checker.one(_corners(_checked([box], where))[0], self.frames[frame].path, where)

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
        boxes = np.stack([self._box(row.boxes[index], int(listed[index]), where) for index in shown])
        query = Query(frame, self._box(row.box, frame, where), _person_number(row.person, where))
        return query, Gallery(listed, listed[shown], boxes)
