"""Which people are asked for, and where they are looked for, in a drawn test set."""

from collections.abc import Sequence

import numpy as np

from pslib.data.annotations import first_rows
from pslib.data.layouts import CuhkProtocol, DrawnFrame, DrawnQuery

__all__ = ["cuhk_protocols", "prw_queries", "SUBSET_GALLERY"]

SUBSET_GALLERY = 100
_CLEAR, _OCCLUDED = 0.6, 0.75  # visible fractions: queries are at least so clear; subset "Occlusion" at most so


def _sightings(frames: Sequence[DrawnFrame]) -> dict[int, list[DrawnQuery]]:
    """Labelled people in order of id, each with the first row of every frame that shows her."""
    found = sorted(first_rows(frames).items())
    return {person: [DrawnQuery(*place) for place in rows.items()] for person, rows in found}


def _visible(frames: Sequence[DrawnFrame], query: DrawnQuery) -> float:
    return float(frames[query.frame].visible[query.row])


def _height(frames: Sequence[DrawnFrame], query: DrawnQuery) -> float:
    return float(frames[query.frame].boxes[query.row, 3])


def _clearest_first(
    frames: Sequence[DrawnFrame], rows: list[DrawnQuery], rng: np.random.Generator
) -> list[DrawnQuery]:
    """A random order in which clearly visible sightings come before the others."""
    shuffled = [rows[place] for place in rng.permutation(len(rows))]
    return sorted(shuffled, key=lambda query: _visible(frames, query) < _CLEAR)


def _galleries(
    queries: Sequence[DrawnQuery], sightings: dict[int, list[DrawnQuery]], frames: Sequence[DrawnFrame],
    rng: np.random.Generator, largest: int,
) -> list[np.ndarray]:  # fmt: skip
    """For each query its positive frames in random order, then random frames without the person."""
    galleries = []
    for query in queries:
        person = int(frames[query.frame].person_ids[query.row])
        shown = np.array([row.frame for row in sightings[person]])
        positives = rng.permutation(shown[shown != query.frame])
        others = np.setdiff1d(np.arange(len(frames)), shown)
        if len(others) > largest:  # drawing a few is cheaper than shuffling all
            others = rng.choice(others, largest, replace=False)
        else:
            others = rng.permutation(others)
        galleries.append(np.concatenate([positives, others]))
    return galleries


def cuhk_protocols(
    frames: Sequence[DrawnFrame], queries_per_person: int, gallery_sizes: Sequence[int], rng: np.random.Generator,
    odd_corners: bool = False,
) -> list[CuhkProtocol]:  # fmt: skip
    """``TestG<n>`` for every size the pool allows, and the subsets of occluded and of low-resolution queries.

    All ``TestG`` files list the same queries in the same order, and a larger gallery contains the smaller one.
    ``odd_corners`` puts query 0's own image into its gallery, repeats a gallery image of query 1 (the same box
    twice), and lists an image that shows its person twice once for each box.
    """
    sightings = _sightings(frames)
    queries = [
        query
        for rows in sightings.values()
        if len(rows) >= 2
        for query in _clearest_first(frames, rows, rng)[: min(queries_per_person, len(rows))]
    ]
    sizes = [size for size in sorted(gallery_sizes) if size < len(frames)] or [max(1, len(frames) - 1)]
    full = _galleries(queries, sightings, frames, rng, max(sizes))
    if odd_corners:
        full[0] = np.concatenate([[queries[0].frame], full[0]])
        full[1] = np.concatenate([full[1][:1], full[1]])
        for number, query in enumerate(queries[2:], start=2):
            person = frames[query.frame].person_ids[query.row]
            twice = [index for index in full[number] if (frames[index].person_ids == person).sum() > 1]
            full[number] = np.concatenate([np.array(twice, int), full[number]])
    protocols = []
    for size in sizes:
        cut = [gallery[:size] for gallery in full]
        protocols.append(CuhkProtocol(f"train_test/TestG{size}.mat", f"TestG{size}", queries, cut))

    def subset(file: str, key: str, chosen: list[DrawnQuery]) -> None:
        size = min(SUBSET_GALLERY, max(sizes))
        cut = [gallery[:size] for gallery in _galleries(chosen, sightings, frames, rng, size)]
        protocols.append(CuhkProtocol(f"subset/{file}", key, chosen, cut))

    repeated = [rows for rows in sightings.values() if len(rows) >= 2]
    hidden = [min(rows, key=lambda query: _visible(frames, query)) for rows in repeated]
    smallest = [min(rows, key=lambda query: _height(frames, query)) for rows in repeated]
    low = np.quantile([_height(frames, row) for rows in repeated for row in rows], 0.25) if repeated else 0.0
    subset("Occlusion.mat", "Occlusion1", [query for query in hidden if _visible(frames, query) <= _OCCLUDED])
    subset("Resolution.mat", "Test_Size", [query for query in smallest if _height(frames, query) <= low])
    return protocols


def prw_queries(
    frames: Sequence[DrawnFrame], queries_per_person: int, rng: np.random.Generator
) -> list[DrawnQuery]:
    """For each person up to so many queries, each under another camera, if at least two cameras saw her."""
    queries = []
    for rows in _sightings(frames).values():
        chosen: dict[int, DrawnQuery] = {}
        for query in _clearest_first(frames, rows, rng):
            chosen.setdefault(frames[query.frame].camera, query)
        if len(chosen) >= 2:
            queries += list(chosen.values())[:queries_per_person]
    return queries
