"""Does a gap between two rows close while they train?

A design that only learns faster leads early and is caught up with.  Every record has validation mAP at some steps;
where two rows have one schedule, the gap at its largest is held against the gap at the end.  With true boxes, so that
no detector that is still learning blurs it.  The share that counts as closing was chosen for notebook 07, when the
records of Fig. 6 on the CUHK-SYSU layout were known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pslib.experiments.records import Record

__all__ = ["CLOSED", "Gap", "gap_between"]

CLOSED = 0.75  # of the largest gap: below it, what is left at the end counts as closing


@dataclass(frozen=True)
class Gap:
    """Validation mAP (true boxes, per cent) of one row minus another's after each of ``steps``, mean over ``seeds``."""

    steps: tuple[int, ...]
    points: tuple[float, ...]
    seeds: int

    @property
    def left(self) -> float | None:
        """The last gap over the largest; None where the first row never led."""
        largest = max(self.points)
        return self.points[-1] / largest if largest > 0 else None

    @property
    def closes(self) -> bool:
        """Is the last gap below :data:`CLOSED` of the largest?  Then part of it was slow convergence.

        >>> [Gap((10, 20), points, 3).closes for points in ((8.0, 7.0), (8.0, 4.0), (-1.0, -2.0))]
        [False, True, False]
        """
        return self.left is not None and self.left < CLOSED


def gap_between(first: Sequence[Record], second: Sequence[Record]) -> Gap | None:
    """The gap of ``first`` over ``second``, of seeds that both have; None unless they were measured at equal steps."""
    curves = [{record.info["seed"]: record.info.get("validation", []) for record in group} for group in (first, second)]
    seeds = sorted(set(curves[0]) & set(curves[1]))
    steps = {tuple(point["step"] for point in of[seed]) for of in curves for seed in seeds}
    if len(steps) != 1 or len(next(iter(steps))) < 2:
        return None
    values = [np.array([[point["ground_truth_map"] for point in of[seed]] for seed in seeds]) for of in curves]
    gap = (values[0] - values[1]).mean(axis=0)
    return Gap(next(iter(steps)), tuple(map(float, gap)), len(seeds))
