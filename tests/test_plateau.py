"""What counts as having learned: curves drawn by hand, and those of the committed records."""

from dataclasses import asdict

import numpy as np
import pytest
from toy_sets import toy_recipe

from pslib import paths
from pslib.experiments.catalogue import EXPERIMENTS
from pslib.experiments.lookup import records_of
from pslib.experiments.plateau import plateau_reason, uniform_loss
from pslib.experiments.records import Record, read_records
from pslib.training.recipes import make_recipe

UNIFORM = uniform_loss(640, 128)


def has_learned(record) -> bool:
    return not plateau_reason(record)


def run_of(curve, points=()):
    """A record with this re-id loss and these validation mAPs, of 640 people and a queue of 128."""
    recipe = asdict(toy_recipe(model__queue_size=128))
    validation = [{"step": step, "ground_truth_map": value} for step, value in enumerate(points)]
    info = {"recipe": recipe, "data": {"identities": 640}, "validation": validation}
    return Record(None, info, {"loss/oim": np.array(curve, np.float32)})


def noisy(values, scatter=0.6):
    return np.array(values) + np.random.default_rng(0).normal(0, scatter, len(values))


def test_the_uniform_value_is_that_of_a_loss_that_knows_nothing():
    assert uniform_loss(7, 3, focal_gamma=0) == pytest.approx(np.log(10))
    assert uniform_loss(7, 3) == pytest.approx(0.9**2 * np.log(10))


RISES = np.concatenate([np.full(10, UNIFORM), np.full(350, UNIFORM + 1.2)])
FALLS_BELOW = np.linspace(UNIFORM + 1.2, UNIFORM - 1.5, 360)
FALLS_TO_UNIFORM = np.linspace(UNIFORM + 1.2, UNIFORM - 0.1, 360)


@pytest.mark.parametrize(
    ("curve", "points", "learned"),
    [
        (noisy(np.full(360, UNIFORM)), [4, 4, 4, 4, 5], False),  # one direction for everybody
        (noisy(RISES), [4, 5, 5, 5, 6], False),  # rose over stale rows and stayed
        (noisy(RISES), [2, 5, 8, 9, 9], False),  # search gained (detection did), the loss did not
        (noisy(FALLS_BELOW), [8, 9, 10, 11, 12], True),
        (noisy(FALLS_BELOW), [], True),  # without validation the loss alone can say it
        (noisy(FALLS_TO_UNIFORM), [8, 9, 12, 18, 24], True),  # slow, but it learned
        (noisy(FALLS_TO_UNIFORM), [8, 8, 9, 9, 10], False),
        (noisy(FALLS_TO_UNIFORM), [], False),
        ([UNIFORM] * 5, [1, 9], False),  # too short to say
    ],
)
def test_the_criterion_on_curves_drawn_by_hand(curve, points, learned):
    assert has_learned(run_of(curve, points)) is learned


def test_a_loss_that_unlabelled_people_dilute_tells_nothing():
    record = run_of(noisy(FALLS_BELOW), [8, 9, 10, 11, 12])
    record.info["recipe"]["model"]["oim_average"] = "positives"
    assert "cannot tell" in plateau_reason(record)


RSS_UNIFORM = np.log(64)


def two_stage(curve, start=None):
    """A record of an RSS model with this loss over labelled people, fine-tuned from ``start`` if that is a stage."""
    recipe = asdict(make_recipe("ian", "cuhk-sysu").with_(start=None))
    recipe["start"] = {"stage": start} if start else None
    info = {"recipe": recipe, "data": {"identities": 640}, "validation": []}
    return Record(None, info, {"loss/rss_people": np.array(curve, np.float32), "loss/rss": np.zeros(len(curve))})


@pytest.mark.parametrize(
    ("curve", "start", "learned"),
    [
        (noisy(np.full(300, RSS_UNIFORM)), "crops", False),  # background is told apart, nobody else
        (noisy(np.full(300, RSS_UNIFORM)), "scenes", False),
        (noisy(np.linspace(5, 2.5, 300)), "crops", True),
        (noisy(np.full(300, 2.5)), "scenes", True),
        (noisy(np.linspace(2.5, 5, 300)), "scenes", True),  # center loss has undone what was learned: a result
        (noisy(np.linspace(2.5, 5, 300)), "crops", False),
    ],
)
def test_the_criterion_of_two_stage_models(curve, start, learned):
    assert has_learned(two_stage(curve, start)) is learned


def test_batches_that_label_nobody_do_not_count():
    plateau = noisy(np.full(300, RSS_UNIFORM), scatter=0.1)
    plateau[::3] = np.nan  # as zeros they would bring the mean a third below the uniform value
    assert not has_learned(two_stage(plateau)) and has_learned(two_stage(np.where(np.isnan(plateau), 0, plateau)))
    assert plateau_reason(two_stage(np.full(300, np.nan))) == "no curve of the re-id loss is recorded"


def test_an_oim_of_nobody_does_not_count():
    """Its value is exactly 0: every eighth would bring the mean of a plateau an eighth down."""
    plateau = noisy(np.full(360, uniform_loss(640, 128)), scatter=0.1)
    plateau[::8] = 0
    assert plateau.mean() < 0.9 * uniform_loss(640, 128) and not has_learned(run_of(plateau, [5, 5, 5, 5, 5]))


@pytest.mark.parametrize(("dense", "roi"), [(True, True), (True, False), (False, True), (None, True), (None, False)])
def test_both_branches_must_have_learned(dense, roi):
    curves = {True: np.linspace(8, 3, 300), False: np.full(300, 6.7)}
    model = {"dense": {"queue_size": 128, "focal_gamma": 2.0}, "roi": {"queue_size": 128}}
    info = {"recipe": {"model": model}, "data": {"identities": 640}, "validation": []}
    arrays = {"loss/roi_oim": curves[roi], "loss/roi_box": np.zeros(300)}
    record = Record(None, info, arrays if dense is None else arrays | {"loss/oim": curves[dense]})
    assert has_learned(record) is (roi and dense is not False)
    assert plateau_reason(record).count("re-id loss") == (not roi) + (dense is False)


def test_the_reason_holds_the_numbers_it_rests_on():
    reason = plateau_reason(run_of(np.full(360, 7.25), [4.0, 5.5]))
    assert "7.25 at the end" in reason and "6.63 for a uniform guess" in reason and "4.0 at first, 5.5 at the" in reason
    assert "no curve" in plateau_reason(Record(None, run_of([1.0]).info, {}))


def test_alignps_and_the_baseline_have_learned_and_what_they_were_early_on_had_not():
    found = [r for name in ("alignps", "baseline") for r in read_records(paths.results_dir(), name=name)]
    found = [record for record in found if not record.stale]
    assert len(found) >= 12
    for record in found:
        assert has_learned(record), record.path
        early = record.arrays["loss/oim"][: len(record.arrays["loss/oim"]) // 5]
        first = record.info | {"validation": record.info["validation"][:1]}
        assert not has_learned(Record(None, first, {"loss/oim": early})), record.path


def test_every_recorded_run_of_an_experiment_has_left_the_plateau():
    """Row by row: a claim of which a row is missing says nothing of the rows that are there."""
    wanted = {
        experiment.recipe(label, kind): f"{experiment.name}, {label!r}, {kind}"
        for experiment in EXPERIMENTS.values()
        for kind in experiment.kinds
        for label in experiment.rows
    }
    found = {place: records_of(recipe) for recipe, place in wanted.items()}
    for place, group in found.items():  # of the first paper's claims that are judged: every row, three seeds
        if place.startswith(("alignps-fig6", *(f"alignps-table{number}," for number in range(1, 6)))):
            assert {record.info["seed"] for record in group} >= {0, 1, 2}, place
    reasons = {(place, r.info["seed"]): plateau_reason(r) for place, group in found.items() for r in group}
    assert not {key: reason for key, reason in reasons.items() if reason}
