"""Would more steps change a comparison?  Rows of a table that are recorded on a longer schedule, too.

A design that learns slower loses every comparison that is stopped early.  So a difference says something of the designs
only if further training does not move it by much: by less than a third, when the steps are doubled.  A record says of
itself only where it stopped; what tells is another record of the same recipe with at least twice the steps.
Such a schedule may have another learning rate, too, and then the gain is of both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pslib.experiments.catalogue import VARIANTS
from pslib.experiments.lookup import at_profile, runs_if_any
from pslib.experiments.records import Record, main_protocol_name
from pslib.experiments.registry import Experiment
from pslib.training.recipe import Recipe, Schedule

__all__ = ["Longer", "longer_rows"]

FACTOR = 2  # steps, at least


@dataclass(frozen=True)
class Longer:
    """One row of a table, and what it gains from a longer schedule."""

    label: str
    variant: str  # which has the longer schedule
    steps: int
    longer_steps: int
    rate: float  # of the longer schedule over that of the row: a schedule is more than its steps
    gain: float  # points of search mAP, mean over the seeds that both have
    seeds: int


def longer_rows(experiment: Experiment, kind: str, profile: str) -> list[Longer]:
    """The rows of ``experiment`` on one set that are recorded with at least twice the steps, the longest run each."""
    found = []
    for label in experiment.rows:
        recipe, read = at_profile(experiment.recipe(label, kind), profile), experiment.read(label)
        best = None
        for name, other in _longer_variants(recipe):
            gains = _gains(recipe, other, read)
            if gains and (best is None or other.schedule.steps > best.longer_steps):
                steps = recipe.schedule.steps, other.schedule.steps
                rate = other.schedule.learning_rate / recipe.schedule.learning_rate
                best = Longer(label, name, *steps, rate, sum(gains) / len(gains), len(gains))
        found += [best] if best else []
    return found


def _longer_variants(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Variants that differ from ``recipe`` in nothing but their schedule, and have at least twice the steps."""
    for name, variant in VARIANTS.items():
        other = at_profile(variant.with_(kind=recipe.kind), recipe.profile)
        alike = _without_schedule(other) == _without_schedule(recipe)
        if alike and other.schedule.steps >= FACTOR * recipe.schedule.steps:
            yield name, other


def _without_schedule(recipe: Recipe) -> Recipe:
    return replace(recipe, name="any", schedule=Schedule())


def _gains(recipe: Recipe, other: Recipe, read: str) -> list[float]:
    """Search mAP of the longer run minus that of the shorter one, of every seed that both have."""
    short, long = ({r.info["seed"]: _map(r) for r in runs_if_any(one, read)[0]} for one in (recipe, other))
    return [long[seed] - short[seed] for seed in short if seed in long]


def _map(record: Record) -> float:
    return float(record.info["results"]["search"][main_protocol_name(record.info["protocols"])]["map"])
