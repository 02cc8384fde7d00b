"""Two branches that share what is known: the closed form, who learns when, and repeatability."""

import math

import numpy as np
import pytest
import torch

from pslib.errors import UserError
from pslib.losses import mutual
from pslib.training import two_views
from pslib.training.gaussians import correlation
from pslib.training.two_views import ViewsRun, apart_at, level_of_all, linear_information, train_views

SHORT = dict(steps=12, looks=3, fresh_pairs=50)


def test_information_of_linear_maps_agrees_with_the_formula_of_one_dimension():
    rho, angles = 0.8, (0.3, 1.1)
    one, other = (torch.tensor([[math.cos(angle), math.sin(angle)]]) for angle in angles)
    common = torch.diag(torch.tensor([rho, 0.0]))
    seen = rho * math.cos(angles[0]) * math.cos(angles[1])  # the correlation of the two numbers
    assert linear_information(one, 7 * other, common) == pytest.approx(-math.log(1 - seen**2) / 2, abs=1e-6)


def test_information_is_that_of_the_inputs_for_maps_that_keep_all_and_none_for_blind_ones():
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(3, 3, generator=generator)
    common = correlation(1.7, 2) * torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    assert linear_information(turn, torch.eye(3), common) == pytest.approx(1.7, abs=1e-4)
    assert linear_information(torch.eye(3)[2:], torch.eye(3), common) == pytest.approx(0.0, abs=1e-9)


def test_branches_stand_still_while_the_estimator_learns_alone_and_share_more_once_led():
    alone = train_views(1.0, **SHORT)
    assert alone.led == 0 and np.ptp(alone.truth) == 0
    led = train_views(0.0, 64, steps=150, looks=2, fresh_pairs=50)
    assert led.led == 150 and led.truth[-1] > led.truth[0] + 0.5 > alone.truth[0] + 0.5
    assert led.truth.max() <= led.nats + 1e-6


def test_looks_and_steps_in_which_the_branches_learn():
    run = train_views(0.5, seed=3, **SHORT)
    assert run.looks.tolist() == [4, 8, 12] and run.truth.shape == run.claimed.shape == (3,)
    assert 0 < run.led < 12 and run.share == 0.5


def test_same_seed_same_numbers_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    runs = [train_views(0.5, seed=seed, **SHORT) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(runs[0].claimed, runs[1].claimed)
    assert not np.array_equal(runs[0].claimed, runs[2].claimed)


def test_a_sign_planted_in_the_bound_is_seen(monkeypatch):
    """Branches that lower the bound share less: the test of learning above would fail."""
    right = mutual.mutual_information_bound
    monkeypatch.setattr(two_views, "mutual_information_bound", lambda *args: -right(*args))
    assert train_views(0.0, 64, steps=150, looks=1, fresh_pairs=50).truth[-1] < 0.5


def views_run(truth, claimed=None):
    truth = np.array(truth, float)
    claimed = truth - 0.5 if claimed is None else np.array(claimed, float)
    return ViewsRun(0.0, 3.0, np.arange(len(truth)), truth, claimed, len(truth))


def test_apart_at_equal_truth_by_hand():
    """The differences are 0, 0.6, 0.3, 1.2 and over neighbours 0.3, 0.3, 0.7, 0.75; the third look is no step up."""
    run = views_run([0, 1, 0.5, 2], [0, 0.4, 0.2, 0.8])
    assert apart_at(run, 0.5) == pytest.approx(0.3)  # between the first and the second look, which both say 0.3
    assert apart_at(run, 1.5) == pytest.approx((0.3 + 0.75) / 2)
    assert apart_at(run, 2.0) == pytest.approx(0.75)


def test_one_wild_claim_moves_the_difference_by_a_third_of_it():
    truth = [0.0, 0.5, 1.0, 1.5, 2.0]
    calm, wild = views_run(truth), views_run(truth, [-0.5, 0, 0.5 - 0.9, 1, 1.5])
    assert apart_at(calm, 1.0) == pytest.approx(0.5) and apart_at(wild, 1.0) == pytest.approx(0.5 + 0.9 / 3)


def test_the_level_lies_within_the_reach_of_the_slowest_run_and_above_every_start():
    quick, slow = views_run([0.3, 2.0, 3.0]), views_run([0.1, 1.8, 1.4])
    level = level_of_all([quick, slow])
    assert level == pytest.approx(0.3 + 2 / 3 * 1.5)
    assert apart_at(quick, level) == apart_at(slow, level) == pytest.approx(0.5)


def test_a_level_that_a_run_does_not_pass_is_refused_and_not_read_off_its_end():
    slow = views_run([0.1, 1.8, 1.4])
    for level in (0.05, 1.81, float("nan")):
        with pytest.raises(UserError, match=f"share 0.10 to 1.80 nats and never {level:.2f}"):
            apart_at(slow, level)
    with pytest.raises(UserError, match="never shares more than 0.05 nats, and another starts at 0.10"):
        level_of_all([slow, views_run([0.05, 0.04])])
    with pytest.raises(UserError, match="no run to compare"):
        level_of_all([])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": 1.5}, "share=1.5"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"shared": 17}, "shared=17"),
        ({"steps": 2}, "looks=3"),
        ({"nats": -1.0}, "nats=-1.0"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(options, words):
    with pytest.raises(UserError, match=words):
        train_views(**{**SHORT, **options})
