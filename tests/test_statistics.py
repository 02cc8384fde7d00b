"""Bootstrap intervals cover what they should; the verdict rule says what was agreed."""

import re

import numpy as np
import pytest

from pslib.errors import UserError
from pslib.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_runs,
    nested_bootstrap,
    paired_bootstrap,
    verdict,
)


def covered(draw_interval, truth, trials, seed=0):
    rng = np.random.default_rng(seed)
    inside = [interval.low <= truth <= interval.high for interval in (draw_interval(rng) for _ in range(trials))]
    return float(np.mean(inside))


def test_bootstrap_covers_the_true_mean_with_grouped_queries():
    def one(rng, grouped=True):
        persons = rng.normal(0.5, 0.2, 60)  # what identities share
        groups = np.repeat(np.arange(60), 3)
        values = persons[groups] + rng.normal(0, 0.05, 180)
        return bootstrap_mean(values, groups if grouped else np.arange(180), rng, draws=400)

    assert 0.90 <= covered(one, 0.5, 200) <= 0.99
    # Ignoring the identities, the planted fault, gives intervals far too short.
    assert covered(lambda rng: one(rng, grouped=False), 0.5, 200) < 0.85


def test_hundred_queries_mean_about_six_points():
    ap = (np.random.default_rng(0).random(100) < 0.11).astype(float)  # mean near 11 %, spread 0.31
    interval = bootstrap_mean(ap, np.arange(100), np.random.default_rng(1))
    assert 0.05 < interval.half_width < 0.07


def test_bootstrap_equals_a_loop():
    rng = np.random.default_rng(3)
    values, groups = rng.random(20), rng.integers(0, 6, 20)
    interval = bootstrap_mean(values, groups, np.random.default_rng(0), draws=4000)
    persons, means = np.unique(groups), []
    for _ in range(4000):
        picked = [values[groups == person] for person in rng.choice(persons, len(persons))]
        means.append(np.concatenate(picked).mean())
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(np.quantile(means, .025), abs=0.015)
    assert interval.high == pytest.approx(np.quantile(means, .975), abs=0.015)


def test_one_person_has_no_spread_and_constant_values_neither():
    one = bootstrap_mean(np.array([0.2, 0.4]), np.array([7, 7]), np.random.default_rng(0))
    assert one.low == pytest.approx(one.high) == pytest.approx(0.3)
    flat = paired_bootstrap(np.full((3, 5), 2.0), np.arange(5), np.random.default_rng(0))
    assert (flat.low, flat.high, flat.half_width) == pytest.approx((2, 2, 0))
    assert str(flat) == "2 [2, 2]"


def test_paired_bootstrap_spread_comes_from_both_levels():
    rng = np.random.default_rng(0)
    persons = rng.normal(0, 1, 200)
    same_seeds = paired_bootstrap(np.tile(persons, (8, 1)), np.arange(200), rng)
    assert same_seeds.half_width == pytest.approx(1.96 / np.sqrt(200), rel=0.2)  # not divided by the eight seeds
    same_persons = paired_bootstrap(np.tile(rng.normal(0, 1, 8)[:, None], (1, 200)), np.arange(200), rng)
    assert 0.3 < same_persons.half_width < 1.2  # about 1.96 / sqrt(8)
    one_seed = paired_bootstrap(persons, np.arange(200), np.random.default_rng(1))
    single = bootstrap_mean(persons, np.arange(200), np.random.default_rng(2))
    assert one_seed.half_width == pytest.approx(single.half_width, rel=0.1)


def test_paired_bootstrap_coverage():
    def one(rng):
        seeds, persons = rng.normal(1.0, 0.3, (12, 1)), rng.normal(0, 1.5, 80)
        return paired_bootstrap(seeds + persons + rng.normal(0, 0.3, (12, 80)), np.arange(80), rng, draws=300)

    assert 0.88 <= covered(one, 1.0, 200) <= 0.99


@pytest.mark.parametrize(("person", "coverage", "false"), [(0.0, 0.73, 0.125), (0.45, 0.87, 0.06), (1.0, 0.92, 0.035)])
def test_what_three_seeds_are_worth(person, coverage, false):
    """The docstring's figures: no difference at all, seeds of spread 1, people with this standard error."""
    rng, held, passed = np.random.default_rng(1), [], []
    for _ in range(1500):
        seeds, persons = rng.normal(0, 1, (3, 1)), rng.normal(0, person * np.sqrt(60), 60)
        found = seeds + persons
        interval = paired_bootstrap(found, np.arange(60), rng, draws=400)
        held.append(interval.low <= 0 <= interval.high)
        passed.append(verdict(found.mean(axis=1), interval).word == "reproduced")
    assert np.mean(held) == pytest.approx(coverage, abs=0.03)
    assert np.mean(passed) == pytest.approx(false, abs=0.02)


def test_same_generator_same_interval():
    values = np.random.default_rng(0).random(50)
    one, two = (bootstrap_mean(values, np.arange(50), np.random.default_rng(9)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(("per_seed", "ends", "margin", "kind", "word"), [
    ([1, 2, 3], (0.5, 3.5), 0.0, "difference", "reproduced"),
    ([-1, 3, 4], (0.5, 3.5), 0.0, "difference", "undecided"),  # the seeds disagree
    ([-1, 3, 4], (0.5, 3.5), 4.0, "difference", "not reproduced"),  # ... and it would not matter
    ([1, 2, 3], (0.5, 3.5), 4.0, "difference", "reproduced"),  # small, but there
    ([-1, -2, -3], (-3.5, -0.5), 0.0, "difference", "not reproduced"),
    ([1, 2, 3], (-0.5, 4.5), 1.0, "difference", "undecided"),
    ([0.1, -0.1], (-0.5, 0.5), 1.0, "difference", "not reproduced"),
    ([0.1, -0.1], (-0.5, 0.5), 1.0, "equivalence", "reproduced"),
    ([3, 4], (2.5, 4.5), 1.0, "equivalence", "not reproduced"),
    ([-3, -4], (-4.5, -2.5), 1.0, "equivalence", "not reproduced"),
    ([1, 1], (0.5, 1.5), 1.0, "equivalence", "undecided"),
    ([1, 1], (-3.0, 5.0), 1.0, "equivalence", "undecided"),
    ([1, 1.6], (0.9, 1.7), 1.0, "equivalence", "undecided"),
    ([-3, -4], (-4.5, -2.5), 1.0, "no-better", "reproduced"),
    ([0.5, -2], (-3.0, 1.0), 1.0, "no-better", "reproduced"),
    ([2, 3], (1.5, 3.5), 1.0, "no-better", "not reproduced"),
    ([0.5, 2], (-0.5, 2.5), 1.0, "no-better", "undecided"),
])
def test_verdict_rule(per_seed, ends, margin, kind, word):
    low, high = ends
    said = verdict(np.array(per_seed), Interval((low + high) / 2, low, high), margin, kind)
    assert said.word == word and str(said).startswith(word + ": ")
    assert ("would decide it" in said.reason) == (word == "undecided")


def test_verdict_tells_how_much_more():
    said = verdict(np.array([1.0, 3.0]), Interval(2.0, -2.0, 6.0))  # half width 4, needed 2: (1.43 * 2) squared
    assert "about 9 times as many" in said.reason


def test_as_much_more_as_the_verdict_tells_decides_four_times_in_five():
    """A difference of 1 point measured with a half width of 4: means of as many times more persons, drawn anew."""
    said = verdict(np.array([1.0]), Interval(1.0, -3.0, 5.0))
    times = int(re.search(r"about (\d+) times", said.reason)[1])
    half_width = 4.0 / np.sqrt(times)
    means = np.random.default_rng(0).normal(1.0, half_width / 1.96, 20_000)
    assert np.mean(means - half_width > 0) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("mean", "half", "kind"), [
    (1.9, 2.5, "equivalence"), (1.0, 2.5, "equivalence"), (0.0, 3.0, "equivalence"), (0.0, 3.0, "difference"),
    (0.3, 3.0, "difference"), (2.3, 0.6, "equivalence"), (1.7, 0.6, "no-better"),
])  # fmt: skip
def test_as_much_more_decides_where_a_margin_is_near(mean, half, kind):
    """Wherever the mean stands to a margin of 2: decided, whichever way, in eight cases of ten or somewhat more."""
    said = verdict(np.array([mean]), Interval(mean, mean - half, mean + half), 2.0, kind)
    times = int(re.search(r"about (\d+) times", said.reason)[1])
    short = half / np.sqrt(times)
    means = np.random.default_rng(0).normal(mean, short / 1.96, 4_000)
    words = [verdict(np.array([one]), Interval(one, one - short, one + short), 2.0, kind).word for one in means]
    most = 0.9 if times > 2 and kind != "difference" else 1.0  # a difference has a second way out
    assert 0.78 <= np.mean([word != "undecided" for word in words]) <= most


def test_undecided_says_what_is_excluded_already():
    open_step = verdict(np.array([-0.9, 0.1]), Interval(-0.6, -1.3, 0.1), margin=1.0)  # 0.1 < 1: no rise by a point
    assert open_step.word == "undecided" and open_step.reason.endswith("in the claimed direction is already excluded)")
    wide = verdict(np.array([0.9, 0.1]), Interval(0.5, -0.6, 1.3), margin=1.0)
    assert wide.word == "undecided" and "excluded" not in wide.reason


def test_bad_input():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="3 for 2"):
        bootstrap_mean(np.ones(2), np.arange(3), rng)
    with pytest.raises(UserError, match="at least one"):
        bootstrap_mean(np.empty(0), np.empty(0), rng)
    with pytest.raises(UserError, match="not finite"):
        paired_bootstrap(np.array([[1.0, np.nan]]), np.arange(2), rng)
    with pytest.raises(UserError, match="unknown kind"):
        verdict(np.ones(2), Interval(1, 0, 2), kind="order")


def test_folds_are_drawn_whole_and_people_within_them():
    """Independent route: the variance of a mean of folds, by hand, for folds without any scatter inside."""
    rng = np.random.default_rng(0)
    levels = rng.normal(size=25)
    values = [np.full(5, level) for level in levels]
    people = [np.arange(5) + 10 * fold for fold in range(25)]
    interval = nested_bootstrap(values, people, rng, draws=20_000, level=0.6827)  # one sigma to each side
    assert interval.mean == pytest.approx(levels.mean())
    assert interval.half_width == pytest.approx(levels.std() / 5, rel=0.05)  # sigma / sqrt(25)


def test_folds_of_different_size_count_alike():
    values, people = [np.zeros(100), np.ones(2)], [np.arange(100), np.array([200, 201])]
    assert nested_bootstrap(values, people, np.random.default_rng(0)).mean == 0.5


def test_runs_are_paired_if_they_share_their_people_and_nested_if_not():
    rng = np.random.default_rng(1)
    values, people = [rng.normal(size=8) for _ in range(3)], np.arange(8)
    shared = bootstrap_runs(values, [people] * 3, np.random.default_rng(0))
    assert shared == paired_bootstrap(np.stack(values), people, np.random.default_rng(0))
    apart = [people, people + 10, people + 20]
    assert bootstrap_runs(values, apart, np.random.default_rng(0)) == nested_bootstrap(
        values, apart, np.random.default_rng(0)
    )
