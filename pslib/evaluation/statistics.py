"""How far to trust a mean over queries, and what a difference of two models says about a claim.

Queries of one person succeed or fail together, so identities are drawn with replacement, not queries.  For a
difference of two variants trained from the same seeds, seeds are drawn first, then identities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pslib.errors import UserError, require_choice

__all__ = [
    "CLAIM_KINDS",
    "Interval",
    "Verdict",
    "bootstrap_mean",
    "bootstrap_runs",
    "nested_bootstrap",
    "paired_bootstrap",
    "verdict",
]

POWER = (1.96 + 0.84) / 1.96  # half widths of a 95 % interval from the border, to be beyond it four times in five
POWER_BOTH = (1.96 + 1.28) / 1.96  # the same, to be within two borders that are equally near
CLAIM_KINDS = ("difference", "equivalence", "no-better")  # what a claim may say of a difference, see verdict


@dataclass(frozen=True)
class Interval:
    """``mean`` of the sample and the ``low`` and ``high`` end of its bootstrap percentile interval."""

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length: the number behind the +- sign."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Verdict:
    """``word``: reproduced, not reproduced or undecided; ``reason``: why, and for undecided what would decide it."""

    word: str
    reason: str

    def __str__(self) -> str:
        return f"{self.word}: {self.reason}"


def bootstrap_mean(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator, draws: int = 2000,
                   level: float = 0.95) -> Interval:
    """Interval of a mean over queries; ``values`` (Q,), ``groups`` (Q,) the person of each query.

    Each draw takes as many persons as there are, with replacement, with all their queries.

    >>> rng = np.random.default_rng(0)
    >>> print(bootstrap_mean(np.array([1., 1., 0., 0.]), np.array([3, 3, 5, 5]), rng))   # two persons, not four
    0.5 [0, 1]
    """
    values, weights, sizes = _grouped(np.asarray(values, np.float64)[None], groups, rng, draws)
    return _interval(values[0].sum() / sizes.sum(), (weights @ values[0]) / (weights @ sizes), level)


def paired_bootstrap(differences: np.ndarray, groups: np.ndarray, rng: np.random.Generator, draws: int = 2000,
                     level: float = 0.95) -> Interval:
    """Two-level interval of a mean difference; ``differences`` (S, Q): one variant minus the other, by seed and query.

    Each draw takes S seeds with replacement, then one set of persons that all drawn seeds share: every seed was tested
    on the same queries, and redrawing them per seed would shrink their share of the doubt by the number of seeds.
    With few seeds the seeds' own share is underestimated: three say little about a spread.  Where nothing but the seed
    moved a difference, a 95 % interval over three of them would hold the truth in three of four cases, and in one of
    eight no difference would pass for one in the claimed direction; where people move it by a standard error as large
    as the spread of seeds, in 92 % and one of thirty (``tests/test_statistics.py``).  That all seeds agree adds little
    to it with three.  Notebook 16 sets the interval of Student's t over the seeds beside each verdict.
    """
    differences = np.atleast_2d(np.asarray(differences, np.float64))
    values, weights, sizes = _grouped(differences, groups, rng, draws)
    seeds = len(differences)
    shares = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds  # (draws, S)
    means = np.einsum("ds,sp,dp->d", shares, values, weights, optimize=True) / (weights @ sizes)
    return _interval(differences.mean(), means, level)


def nested_bootstrap(differences: Sequence[np.ndarray], groups: Sequence[np.ndarray], rng: np.random.Generator,
                     draws: int = 2000, level: float = 0.95) -> Interval:
    """Interval of a mean difference over folds that were tested on different people.

    ``differences`` and ``groups`` hold one array (Q_f,) a fold.  Each draw takes as many folds as there are, with
    replacement, then persons within each fold by itself; the mean is that of the folds' means, as is the point value.

    >>> rng = np.random.default_rng(0)
    >>> print(nested_bootstrap([np.array([1., 1.]), np.array([3.])], [np.array([1, 2]), np.array([8])], rng))
    2 [1, 3]
    """
    means = np.empty((draws, len(differences)))
    for fold, (values, people) in enumerate(zip(differences, groups, strict=True)):
        sums, weights, sizes = _grouped(np.asarray(values, np.float64)[None], people, rng, draws)
        means[:, fold] = (weights @ sums[0]) / (weights @ sizes)
    folds = len(differences)
    shares = rng.multinomial(folds, np.full(folds, 1 / folds), size=draws) / folds  # (draws, folds)
    return _interval(float(np.mean([np.mean(values) for values in differences])), (shares * means).sum(axis=1), level)


def bootstrap_runs(values: Sequence[np.ndarray], groups: Sequence[np.ndarray], rng: np.random.Generator) -> Interval:
    """Interval of a mean over runs, each with values (Q,) of people (Q,): paired if all were tested on the same people,
    as seeds are, nested if each has people of its own, as folds do.

    >>> people = np.array([1, 2])
    >>> runs = [np.array([1., 3.]), np.array([2., 4.])]
    >>> bootstrap_runs(runs, [people, people], np.random.default_rng(0)).mean
    2.5
    """
    if all(np.array_equal(groups[0], other) for other in groups):
        return paired_bootstrap(np.stack(values), groups[0], rng)
    return nested_bootstrap(values, groups, rng)


def verdict(per_seed: np.ndarray, interval: Interval, margin: float = 0.0, kind: str = "difference") -> Verdict:
    """The word on a claim, by the rule all pages share.

    ``per_seed`` (S,) mean difference of each seed, positive in the claimed direction; ``margin`` the smallest
    difference that matters, in the same unit.  ``kind="difference"``: reproduced if the interval lies above 0 and all
    seeds agree; otherwise not reproduced if it lies below 0 or within the margin.  ``kind="equivalence"``: reproduced
    if the interval lies within the margin, not reproduced if wholly outside.  ``kind="no-better"``: reproduced if the
    interval does not reach above the margin, however far below 0 it lies, not reproduced if wholly above the margin.

    >>> print(verdict(np.array([4., 6.]), Interval(5., 2., 8.)))
    reproduced: the interval [2, 8] lies above 0 and all 2 seeds agree
    >>> print(verdict(np.array([1., -.5]), Interval(.2, -1., 1.5), margin=2.).word)
    not reproduced
    """
    require_choice("kind", kind, CLAIM_KINDS)
    per_seed = np.atleast_1d(np.asarray(per_seed, np.float64))
    ends = f"[{interval.low:.3g}, {interval.high:.3g}]"
    within = -margin <= interval.low and interval.high <= margin
    if kind == "no-better":
        if interval.high <= margin:
            return Verdict("reproduced", f"the interval {ends} does not reach above the margin {margin:.3g}")
        if interval.low > margin:
            return Verdict("not reproduced", f"the interval {ends} lies above the margin {margin:.3g}")
        return Verdict("undecided", f"the interval {ends} straddles the margin {margin:.3g}: "
                                    + _more(interval.half_width, abs(margin - interval.mean)))
    if kind == "equivalence":
        if within:
            return Verdict("reproduced", f"the interval {ends} lies within the margin {margin:.3g}")
        if interval.low > margin or interval.high < -margin:
            return Verdict("not reproduced", f"the interval {ends} lies outside the margin {margin:.3g}")
        wide = interval.half_width >= margin
        word = f"is wider than the margin {margin:.3g} allows" if wide else f"straddles the margin {margin:.3g}"
        return Verdict("undecided", f"the interval {ends} {word}: " + _to_margin(interval, margin))
    if interval.low > 0 and (per_seed > 0).all():
        agree = f"all {len(per_seed)} seeds agree" if len(per_seed) > 1 else "the one seed agrees"
        return Verdict("reproduced", f"the interval {ends} lies above 0 and {agree}")
    if interval.high < 0:
        return Verdict("not reproduced", f"the interval {ends} lies below 0")
    if within:
        return Verdict("not reproduced", f"the interval {ends} lies within the margin {margin:.3g}")
    if interval.low > 0:
        against = int((per_seed <= 0).sum())
        return Verdict("undecided", f"the interval {ends} lies above 0 but {against} of {len(per_seed)} seeds "
                                    "disagree: more seeds would decide it")
    excluded = " (a difference of the margin in the claimed direction is already excluded)"
    smaller = excluded if interval.high < margin else ""
    nearer = abs(interval.mean) >= margin - abs(interval.mean)  # to lie beside 0 than within the margin
    more = _more(interval.half_width, abs(interval.mean)) if nearer else _to_margin(interval, margin)
    return Verdict("undecided", f"the interval {ends} holds 0: {more}{smaller}")


def _to_margin(interval: Interval, margin: float) -> str:
    """What would bring both ends to one side of the nearer margin, or both within the two of them.

    An interval around 0 may fail at either margin; a tenth each is one in five, too.
    """
    gap = abs(margin - abs(interval.mean))
    inside = abs(interval.mean) < margin
    both = inside and margin + abs(interval.mean) < 2 * gap
    return _more(interval.half_width, gap, POWER_BOTH if both else POWER)


def _more(half_width: float, needed: float, power: float = POWER) -> str:
    """What would decide it, with a chance of four in five: an interval shrinks with the root of the number of persons.

    With an interval just as short as ``needed`` its end would lie on the border half of the time.
    """
    if needed <= 0:
        return "no sample of this kind would decide it, the mean lies on the border"
    times = max(2.0, np.ceil((power * half_width / needed) ** 2))
    return f"about {times:.0f} times as many seeds and test persons would decide it (four times in five)"


def _grouped(values: np.ndarray, groups: np.ndarray, rng: np.random.Generator,
             draws: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums per person (S, P), how often each draw takes each person (draws, P), queries per person (P,)."""
    groups = np.asarray(groups)
    if values.shape[1] != len(groups) or not len(groups):
        raise UserError(f"a bootstrap needs one person for each of its values but got {len(groups)} for "
                        f"{values.shape[1]}: hand over the person ids of the same queries (at least one).")
    if not np.isfinite(values).all():
        raise UserError("a bootstrap got a value that is not finite: leave such queries out first.")
    _, person = np.unique(groups, return_inverse=True)
    persons = int(person.max()) + 1
    sums = np.stack([np.bincount(person, row, persons) for row in values])
    weights = rng.multinomial(persons, np.full(persons, 1 / persons), size=draws).astype(np.float64)
    return sums, weights, np.bincount(person, minlength=persons).astype(np.float64)


def _interval(mean: float, means: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(mean), float(low), float(high))
