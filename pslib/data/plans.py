"""Who is drawn where: people dealt into scenes and walks before a pixel is painted.

A plan is plain data made from one seed, so the drawing can run in any order, on any number of workers, and again
after a kill.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from pslib.errors import UserError

__all__ = ["Job", "deal", "gapped_ids", "generator", "plan_scenes", "plan_walks"]

CAMERAS = 6


@dataclass(frozen=True)
class Job:
    """One scene to draw, in one frame or in consecutive frames of a walk.

    ``seed`` feeds the drawing of this job alone; ``camera`` is 0 where every scene has its own place.
    """

    names: tuple[str, ...]
    people: tuple[int, ...]  # raw person ids
    size: tuple[int, int]
    seed: tuple[int, ...]
    camera: int = 0


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """A generator of its own for each purpose: ``generator(20, "prw", "train", "people")``."""
    return np.random.default_rng([seed, *(crc32(str(word).encode()) for word in words)])


def gapped_ids(people: Sequence[int], rng: np.random.Generator) -> list[np.ndarray]:
    """Rising raw ids with gaps, one disjoint range for each entry of ``people`` (how many people it has).

    Released sets number their people with gaps too, so a reader that forgets to renumber them fails here.

    >>> train, test = gapped_ids([3, 2], np.random.default_rng(0))
    >>> len(train), len(test), bool(train.max() < test.min())
    (3, 2, True)
    """
    ids = np.cumsum(rng.integers(1, 4, sum(people)))
    return np.split(ids, np.cumsum(people)[:-1])


def deal(people: np.ndarray, times: int, sizes: np.ndarray, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Deal each of ``people`` ``times`` times into groups of ``sizes``, nobody twice into one group.

    People are dealt round by round in a fresh order, so somebody meets herself only where two rounds join; she is
    then swapped with a random other place.

    Raises UserError if a group has more places than there are people to fill them.
    """
    order = np.concatenate([rng.permutation(people) for _ in range(times)])[: int(sizes.sum())]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    # Where there are more places than people to deal, the last groups stay smaller than planned.
    largest = int(np.diff(np.minimum(starts, len(order))).max(initial=0))
    if largest > len(people):
        raise UserError(
            f"a scene for {largest} people cannot be filled from {len(people)}, nobody twice: plan more people, fewer "
            "sightings of each, or more scenes for them."
        )
    group = np.repeat(np.arange(len(sizes)), sizes)

    def members(number: int) -> list[int]:
        return order[starts[number] : starts[number + 1]].tolist()

    for number in range(len(sizes)):
        while len(set(members(number))) < len(members(number)):
            own = members(number)
            twice = next(place for place in range(len(own)) if own[place] in own[:place]) + starts[number]
            other = int(rng.integers(len(order)))
            here, there = order[twice], order[other]
            if group[other] != number and here not in members(int(group[other])) and there not in own:
                order[twice], order[other] = there, here
    return [tuple(members(number)) for number in range(len(sizes))]


def _group_sizes(total: int, groups: int, rng: np.random.Generator) -> np.ndarray:
    """``groups`` sizes near their mean that sum to ``total``.

    Where a group is drawn as both ends of a move, it grows by one; the last groups make up for it and may stay empty.
    """
    least = 1 if total >= groups else 0
    sizes = np.full(groups, max(least, total // groups))
    while sizes.sum() < total:
        sizes[int(rng.integers(groups))] += 1
    while sizes.sum() > total:
        large = np.flatnonzero(sizes > least)
        sizes[int(rng.choice(large))] -= 1
    for _ in range(groups):  # spread them a little: one person moves from a group to another
        a, b = rng.integers(groups, size=2)
        if sizes[a] > least and sizes[b] <= total / groups + 1:
            sizes[a], sizes[b] = sizes[a] - 1, sizes[b] + 1
    return np.diff(np.minimum(np.cumsum([0, *sizes]), total))


def plan_scenes(
    people: np.ndarray, sightings: int, names: Sequence[str], frame_sizes: Sequence[tuple[int, int]], seed: int,
    word: str,
) -> list[Job]:  # fmt: skip
    """Separate scenes, each in a place of its own (CUHK-SYSU)."""
    rng = generator(seed, word, "scenes")
    groups = deal(people, sightings, _group_sizes(len(people) * sightings, len(names), rng), rng)
    weights = np.array([2.0] + [1.0] * (len(frame_sizes) - 1))
    chosen = rng.choice(len(frame_sizes), len(names), p=weights / weights.sum())
    return [
        Job((name,), group, frame_sizes[size], (seed, crc32(word.encode()), index))
        for index, (name, group, size) in enumerate(zip(names, groups, chosen.tolist(), strict=True))
    ]


def plan_walks(
    people: np.ndarray,
    walks: int,
    frames: int,
    scenes: int,
    frame_sizes: tuple[tuple[int, int], tuple[int, int]],
    sequence: int,
    seed: int,
    word: str,
) -> list[Job]:
    """Walks under six fixed cameras (PRW): each person walks ``walks`` times, each time under another camera."""
    rng = generator(seed, word, "walks")
    under: list[list[int]] = [[] for _ in range(CAMERAS)]
    for person in people.tolist():
        for camera in rng.permutation(CAMERAS)[:walks]:
            under[camera].append(person)
    total = max(CAMERAS, scenes // frames)
    share = np.array([len(who) for who in under]) / sum(map(len, under)) * total
    counts = np.floor(share).astype(int)
    counts[np.argsort(counts - share)[: total - counts.sum()]] += 1
    counts = [max(1, min(count, len(who))) for count, who in zip(counts.tolist(), under, strict=True)]
    jobs = []
    for camera, (who, count) in enumerate(zip(under, counts, strict=True), start=1):
        sizes = _group_sizes(len(who), count, rng)
        groups = np.split(rng.permutation(who), np.cumsum(sizes)[:-1])
        clock = 100
        for group in groups:
            numbers = [clock + 25 * step for step in range(frames)]
            clock = numbers[-1] + int(rng.integers(50, 400))
            names = tuple(f"c{camera}s{sequence}_{number:06d}.jpg" for number in numbers)
            job_seed = (seed, crc32(word.encode()), len(jobs))
            jobs.append(Job(names, tuple(group.tolist()), frame_sizes[camera == CAMERAS], job_seed, camera))
    return jobs
