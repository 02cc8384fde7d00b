"""Has every row of a comparison been tuned alike?  The re-id loss's weight, from one small grid for all.

A weight that was chosen for one design may hold back another.  What each reaches with each weight of the grid stands in
records and in trials (:mod:`pslib.experiments.trials`), both measured on validation people at the end of training.

The rule, written before the first of these trials: where the best weight gains a rival more than a third of what it
lies behind in a claim, the claim speaks of unequal tuning until the rival has runs on test people at that weight.
"""

from collections.abc import Mapping, Sequence

from pslib.experiments.catalogue import VARIANTS
from pslib.experiments.lookup import UnknownSetError, at_profile, known_fingerprint, runs_of
from pslib.experiments.trials import read_trials
from pslib.training.recipe import recipe_hash

__all__ = ["REID_WEIGHTS", "could_gain", "tried_weights"]

REID_WEIGHTS = (0.1, 0.2, 0.4)  # of OIM and of the triplet loss alike


def tried_weights(
    variant: str,
    kind: str = "cuhk-sysu",
    profile: str = "tiny",
    seed: int = 0,
    weights: Sequence[float] = REID_WEIGHTS,
) -> dict[float, float | None]:
    """Search mAP (per cent) of validation people with each weight, all else as in ``variant``; None if not tried."""
    recipe = at_profile(VARIANTS[variant].with_(kind=kind), profile)
    try:
        fingerprint = known_fingerprint(kind, profile)
    except UnknownSetError:  # neither drawn nor recorded at this profile
        return dict.fromkeys(weights)
    trials = {(one.get("hash"), one["seed"]): one for one in read_trials()}
    found: dict[float, float | None] = {}
    for weight in weights:
        tried = recipe.with_(weights__oim=weight, weights__triplet=weight)
        recorded = [record for record in runs_of(tried)[0] if record.info["seed"] == seed]
        trial = trials.get((recipe_hash(tried, fingerprint), seed))
        points = recorded[0].info["validation"] if recorded else trial["validation"] if trial else []
        found[weight] = round(float(points[-1]["map"]), 2) if points else None
    return found


def could_gain(tried: Mapping[float, float | None], weight: float) -> float | None:
    """Points that the best weight tried is above ``weight``, 0 if none is; None where not all were tried.

    >>> could_gain({0.1: 30.0, 0.2: 32.0, 0.4: 33.5}, 0.2), could_gain({0.1: 30.0, 0.2: None}, 0.2)
    (1.5, None)
    """
    values = list(tried.values())
    if None in values or weight not in tried:
        return None
    return max(values) - tried[weight]
