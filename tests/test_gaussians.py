"""Gaussians of known mutual information: the pairs, the best estimator, and what a run hands back."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from pslib.errors import UserError
from pslib.training.gaussians import batch_bounds, best_estimator, correlation, gaussian_pairs, train_bound

SHORT = dict(steps=7, look_every=3, fresh_pairs=50)


@pytest.mark.parametrize(("nats", "dim"), [(0.0, 1), (0.5, 1), (2.0, 3), (8.0, 2)])
def test_pairs_have_unit_variance_and_the_correlation_of_their_information(nats, dim):
    rho = correlation(nats, dim)
    assert -dim / 2 * math.log(1 - rho**2) == pytest.approx(nats, abs=1e-12)
    a, b = gaussian_pairs(nats, 40_000, dim, torch.Generator().manual_seed(0))
    covariance = np.cov(torch.cat([a, b], dim=1).T.numpy())
    expected = np.kron([[1, rho], [rho, 1]], np.eye(dim))
    np.testing.assert_allclose(covariance, expected, atol=0.03)


def test_best_estimator_is_the_log_ratio_of_densities():
    rho, (a, b) = correlation(1.5, 2), gaussian_pairs(0.3, 20, 2, torch.Generator().manual_seed(0))
    joint = multivariate_normal(np.zeros(4), np.kron([[1, rho], [rho, 1]], np.eye(2)))
    alone = multivariate_normal(np.zeros(2), np.eye(2))
    expected = joint.logpdf(torch.cat([a, b], dim=1)) - alone.logpdf(a) - alone.logpdf(b)
    estimator = best_estimator(1.5)
    np.testing.assert_allclose(estimator(a, b), expected, rtol=1e-4, atol=1e-4)
    assert estimator(a.unsqueeze(1), b).shape == (20, 20)


def test_best_estimator_reads_the_truth_off_a_large_sample():
    for nats in (0.0, 1.0, 4.0):
        (bound,) = batch_bounds(best_estimator(nats), nats, 100_000, 1, generator=torch.Generator().manual_seed(0))
        assert bound == pytest.approx(nats, abs=0.1)


def test_run_has_every_step_and_look():
    run = train_bound(1.0, 16, **SHORT)
    assert (run.nats, run.batch_size) == (1.0, 16)
    assert run.batches.shape == (7,) and run.small.shape == (100,)
    assert run.looks.tolist() == [3, 6, 7] and run.fresh.shape == (3,)


def test_same_seed_same_numbers_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    runs = [train_bound(1.0, 16, seed=seed, **SHORT) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(runs[0].batches, runs[1].batches)
    np.testing.assert_array_equal(runs[0].small, runs[1].small)
    assert not np.array_equal(runs[0].batches, runs[2].batches)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nats": -1.0}, "nats=-1.0"),
        ({"nats": float("nan")}, "nats=nan"),
        ({"dim": 0}, "dim=0"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"steps": 0}, "steps=0"),
        ({"marginal": "all_pairs"}, "nearest: all-pairs"),
    ],
)
def test_mistakes_are_answered_in_one_sentence(options, words):
    with pytest.raises(UserError, match=words):
        train_bound(**{"nats": 1.0, **SHORT, **options})
