"""What the strip of thumbnails offers: frames in order, one person's frames, frames at random, or failed queries."""

import numpy as np

from pslib.data.annotations import UNLABELLED, PersonSearchSet
from pslib.errors import UserError
from pslib.viz.browser_query import Item, Source
from pslib.viz.browser_search import Search

__all__ = ["MODES", "listed", "places"]

MODES = ("frame", "identity", "at random", "hardest first", "own image")


def listed(source: Source, mode: str, number: int, count: int, *, seed: int, search: Search, model: str) -> list[Item]:
    """``count`` items from ``number`` on; "identity" counts through the set's people, each with her first frames.

    Failed queries come worst first: those of the chosen protocol under ``model``, by average precision.  Raises
    UserError where ``number`` is beyond the last one.
    """
    data = source.data
    if mode == "identity":
        return _sightings(data, number)[:count]
    if mode == "hardest first":
        items = [Item(frame, row, f"AP {ap:.2f}") for frame, row, ap in search.hardest(model)]
        what = "queries"
    else:
        order = np.arange(len(data.frames))
        if mode == "at random":
            order = np.random.default_rng(seed).permutation(order)
        items, what = [Item(int(frame)) for frame in order], "frames"
    if number >= len(items):
        raise UserError(f"there is no number {number}: the list has {len(items)} {what}, counted from 0.")
    return items[number : number + count]


def places(source: Source, mode: str, *, search: Search, model: str) -> int:
    """How many numbers :func:`listed` knows: the set's people for "identity", else queries or frames."""
    if mode == "identity":
        return len(source.data.person_ids)
    return len(search.hardest(model)) if mode == "hardest first" else len(source.data.frames)


def _sightings(data: PersonSearchSet, number: int) -> list[Item]:
    """Every frame that shows the set's labelled person at place ``number``."""
    people = data.person_ids
    if number >= len(people):
        raise UserError(f"there is no person {number}: the set has {len(people)} labelled people, counted from 0.")
    person = int(people[number])
    assert person != UNLABELLED
    return [Item(index, int(row), f"person {person}") for index, frame in enumerate(data.frames)
            for row in np.flatnonzero(frame.person_ids == person)]
