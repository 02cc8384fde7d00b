"""A validation split for the real sets, which have none: carved out of the training split by people *and* scenes.

Tuning on the test split is the field's old habit; this is the way out.  Frames that share a labelled person, or were
taken one after the other by one camera, hang together; whole groups go to validation, so no validation person
appears in what remains for training.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pslib.data.annotations import UNLABELLED, Frame, Gallery, PersonSearchSet, Protocol, Query, first_rows
from pslib.errors import UserError

__all__ = ["carve_fold", "carve_validation"]

_MOMENT = 1500  # frame numbers of a camera that show one scene: a minute at 25 a second


def carve_validation(
    train: PersonSearchSet, people: int, rng: np.random.Generator, largest_share: float = 0.2
) -> tuple[PersonSearchSet, PersonSearchSet]:
    """Split a training set into (training, validation) with at least ``people`` validation people to ask for.

    Groups of frames connected by people are dealt to validation in random order.  Sets like PRW, where nearly all
    frames hang together, get no group small enough; there ``people`` people are chosen and every frame that shows one
    of them goes to validation, while people of the training part keep their box there and lose their identity.

    Args:
        train: a training split.
        people: validation people wanted, each seen in two frames at least: nobody else can be searched for.
        rng: the source of chance.
        largest_share: groups with more than this share of all frames are not taken whole.

    Returns:
        The remaining training split, and a set of split ``"validation"`` with one protocol ``"validation"``: each
        person's first two frames as queries, all other validation frames as gallery.

    Raises:
        UserError: ``people`` is less than 1, the set has too few people, or none would be left to train on.
    """
    if people < 1:
        raise UserError(f"a validation split of {people} people measures nothing: ask for 1 or more.")
    everyone = train.person_ids
    seen = Counter(person for index in range(len(train.frames)) for person in _people(train.frames, [index]))
    repeated = {person for person, frames in seen.items() if frames > 1}
    if len(everyone) <= people or len(repeated) < people:
        raise UserError(
            f"{train.root} has {len(everyone)} training people, {len(repeated)} of them in two frames or more, too few "
            f"to take {people} away: ask for fewer, or give a set that labels more."
        )
    groups = _connected(train.frames)
    chosen: list[int] = []
    taken: set[int] = set()
    for number in rng.permutation(len(groups)).tolist():
        if len(taken & repeated) >= people:
            break
        here = _people(train.frames, groups[number])
        if here & repeated and len(groups[number]) <= largest_share * len(train.frames):
            chosen += groups[number]
            taken |= here
    if len(taken & repeated) < people:
        taken = set(rng.choice(sorted(repeated), people, replace=False).tolist())
        chosen = [index for index, frame in enumerate(train.frames) if taken & set(frame.person_ids.tolist())]
    inside = set(chosen)
    rest = [frame for index, frame in enumerate(train.frames) if index not in inside]
    if not _people(rest, range(len(rest))):
        raise UserError(
            f"taking {people} people and their frames away from {train.root} leaves nobody to train on: ask for fewer."
        )
    held = [_only(train.frames[index], taken) for index in sorted(inside)]
    validation = PersonSearchSet(train.kind, "validation", train.root, held)
    validation.protocols = {"validation": _protocol(held)}
    return PersonSearchSet(train.kind, "train", train.root, rest, notes=list(train.notes)), validation


def carve_fold(train: PersonSearchSet, folds: int, fold: int) -> tuple[PersonSearchSet, PersonSearchSet]:
    """Cross-validation over identities: the people are dealt to ``folds`` equal parts, and part ``fold`` is kept out.

    Every frame that shows one of its people is kept out with them, so training sees neither; people of the training
    part have fewer boxes left, and their box in a frame kept out loses its identity.

    Returns:
        The remaining training split, and a set of split ``"fold"`` with the protocol of :func:`carve_validation`.

    Raises:
        UserError: no such fold, fewer people than folds, or nobody left to train on or to search for.
    """
    everyone = train.person_ids
    if folds < 2 or len(everyone) < folds:
        raise UserError(
            f"{folds} folds over the {len(everyone)} people of {train.root}: give at least 2, and at most as many as "
            "there are people."
        )
    if not 0 <= fold < folds:
        raise UserError(
            f"there is no fold {fold} of {folds}, the seed of a cross-validated run: give 0 to {folds - 1}."
        )
    dealt = np.array_split(np.random.default_rng(0).permutation(everyone), folds)
    taken = set(dealt[fold].tolist())
    shows = [bool(taken & set(frame.person_ids.tolist())) for frame in train.frames]
    held = [_only(frame, taken) for frame, inside in zip(train.frames, shows, strict=True) if inside]
    rest = [frame for frame, inside in zip(train.frames, shows, strict=True) if not inside]
    kept = PersonSearchSet(train.kind, "fold", train.root, held)
    kept.protocols = {"validation": _protocol(held)}
    if not kept.protocols["validation"].queries or not _people(rest, range(len(rest))):
        raise UserError(
            f"fold {fold} of {folds} over {train.root} leaves nobody to train on, or keeps nobody out who is seen "
            "twice: give another number of folds, or a set whose people are seen more often."
        )
    return PersonSearchSet(train.kind, "train", train.root, rest, notes=list(train.notes)), kept


def _people(frames: Sequence[Frame], indices: Sequence[int]) -> set[int]:
    return {p for index in indices for p in frames[index].person_ids.tolist() if p != UNLABELLED}


def _connected(frames: Sequence[Frame]) -> list[list[int]]:
    """Groups of frame indices that share labelled people or a camera's moment, by union-find."""
    parent = list(range(len(frames)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[object, int] = {}
    for index, frame in enumerate(frames):
        keys: list[object] = [p for p in frame.person_ids.tolist() if p != UNLABELLED]
        if frame.camera:
            keys.append(_moment(frame))
        for key in keys:
            parent[root(index)] = root(first.setdefault(key, index))
    groups: dict[int, list[int]] = {}
    for index in range(len(frames)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())


def _moment(frame: Frame) -> tuple[str, int]:
    """Camera sequence and minute of a frame under a fixed camera, from its name: ``c1s1_000151.jpg``."""
    parts = re.fullmatch(r"([^_]+)_(\d+)\.jpg", frame.name)
    if parts is None:
        raise UserError(
            f"the frame {frame.name} does not say when its camera took it: name it like c1s1_000151.jpg, by camera, "
            "sequence and number."
        )
    return parts[1], int(parts[2]) // _MOMENT


def _only(frame: Frame, people: set[int]) -> Frame:
    ids = np.array([p if p in people else UNLABELLED for p in frame.person_ids.tolist()], np.int64)
    return Frame(frame.name, frame.path, frame.boxes, ids, frame.camera)


def _protocol(frames: Sequence[Frame]) -> Protocol:
    queries, galleries = [], []
    for person, rows in sorted(first_rows(frames).items()):
        boxes = {index: frames[index].boxes[row] for index, row in rows.items()}
        for asked in list(boxes)[:2] if len(boxes) > 1 else ():
            shown = [index for index in boxes if index != asked]
            queries.append(Query(asked, boxes[asked], person))
            everywhere = np.delete(np.arange(len(frames), dtype=np.int32), asked)
            galleries.append(Gallery(everywhere, np.array(shown, np.int32), np.stack([boxes[i] for i in shown])))
    return Protocol("validation", queries, galleries)
