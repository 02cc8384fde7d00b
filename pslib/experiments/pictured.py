"""The fifteen test people that every record keeps the embeddings of, and what is known about each of their boxes.

A page that compares models names its rows as data, ``Row("RSS", "ian-table1", "E2E-PS (ResNet-50)")``; whatever is
recorded of them by then is shown, the rest is named as missing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pslib.data.annotations import PersonSearchSet
from pslib.data.redraw import placement_of, scene_of
from pslib.data.scenes import render
from pslib.errors import UserError
from pslib.evaluation.separation import compared_as
from pslib.experiments.lookup import at_profile, find_experiment, records_of
from pslib.experiments.records import Record
from pslib.experiments.tables import main_protocol_of
from pslib.progress import progress

__all__ = ["Known", "Pictured", "Row", "known_of", "pictured_of", "recorded_sets", "stacked"]


@dataclass(frozen=True)
class Row:
    """One model of a page: its ``title`` there, and the row of an experiment whose records (and reading) hold it."""

    title: str
    experiment: str
    row: str
    kind: str = "cuhk-sysu"


@dataclass(frozen=True, eq=False)
class Pictured:
    """N true boxes of a record: ``embeddings`` (N, D), ``people`` and ``frames`` (N,), ``boxes`` (N, 4) xyxy px."""

    embeddings: np.ndarray
    people: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray
    seed: int
    retrieval: float  # mAP of the test set with true boxes, per cent: all queries, not these people alone

    @property
    def similarity(self) -> str:
        """How this model compares embeddings, "cosine" or "euclidean"."""
        return compared_as(self.embeddings)


@dataclass(frozen=True, eq=False)
class Known:
    """What the drawn set knows about each box, all (N,): ``height`` px, ``camera`` (0: not told), ``visible`` 0..1."""

    height: np.ndarray
    camera: np.ndarray
    visible: np.ndarray


def pictured_of(record: Record) -> Pictured:
    """The pictured people of a record; UserError if it holds none (a run that was never tested)."""
    names = ("embeddings", "people", "frames", "boxes")
    if missing := [name for name in names if f"pictured/{name}" not in record.arrays]:
        raise UserError(f"the record {record.path} holds no pictured {missing[0]}: it never saw the test people.")
    arrays = {name: record.arrays[f"pictured/{name}"] for name in names}
    return Pictured(
        arrays["embeddings"].astype(np.float64),
        arrays["people"],
        arrays["frames"],
        arrays["boxes"].astype(np.float64),
        seed=int(record.info["seed"]),
        retrieval=100 * float(record.ap(main_protocol_of(record), "ground-truth").mean()),
    )


def recorded_sets(rows: Iterable[Row], profile: str = "tiny") -> tuple[dict[str, list[Pictured]], list[str]]:
    """Title -> pictured people of every recorded seed, rows in order; and the titles with no record yet.

    A row whose experiment does not exist yet, or whose records lack its reading, counts as not recorded.
    """
    found: dict[str, list[Pictured]] = {}
    missing = []
    for row in rows:
        try:
            experiment = find_experiment(row.experiment)
            recipe = at_profile(experiment.recipe(row.row, row.kind), profile)
            sets = [pictured_of(record) for record in records_of(recipe, experiment.read(row.row))]
        except UserError:
            sets = []
        if sets:
            found[row.title] = sets
        else:
            missing.append(row.title)
    return found, missing


def stacked(parts: Mapping[str, Pictured]) -> tuple[Pictured, np.ndarray]:
    """The same boxes embedded several times (two branches, two seeds) as one set, and the part of each point, (N,).

    Raises UserError if the parts do not picture the same boxes or their embeddings differ in size.
    """
    first, *others = parts.values()
    for other in others:
        if other.embeddings.shape != first.embeddings.shape or not np.array_equal(other.frames, first.frames):
            raise UserError(f"{' and '.join(parts)} picture different boxes, or embed them with other sizes: draw each "
                            "on its own.")  # fmt: skip
    embeddings = np.concatenate([one.embeddings for one in parts.values()])
    count = len(parts)
    both = Pictured(embeddings, np.tile(first.people, count), np.tile(first.frames, count),
                    np.tile(first.boxes, (count, 1)), first.seed, first.retrieval)  # fmt: skip
    return both, np.repeat(list(parts), len(first.people))


def known_of(data: PersonSearchSet, pictured: Pictured, visible: bool = True) -> Known:
    """Heights, cameras and visible parts of the pictured boxes.

    The annotations do not say how much of a person is hidden; the drawn scene does, so each frame is painted again
    (some 30 ms).  Without ``visible`` that part is nan.
    """
    seen = np.full(len(pictured.people), np.nan)
    if visible:
        for place, frame in progress(list(enumerate(pictured.frames)), "who is hidden"):
            drawn = render(scene_of(data, int(frame)))
            person = placement_of(drawn, pictured.boxes[place])
            seen[place] = drawn.visible[np.flatnonzero(drawn.placements == person)[0]]
    cameras = np.array([data.frames[frame].camera for frame in pictured.frames])
    return Known(pictured.boxes[:, 3] - pictured.boxes[:, 1], cameras, seen)
