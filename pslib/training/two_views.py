"""Two branches that look at one person, small enough that what they share is known: the toy of mutual learning.

Each branch sees ``dim`` standard Gaussian numbers.  In the first ``shared`` of them, and nowhere else, the two views
agree, with the correlation that makes ``nats`` of information (:mod:`pslib.training.gaussians`); the others are a
branch's own noise: its background, its scale, its blur.  A branch is a linear map to a few numbers.  At first it mixes
everything; it shares most once it reads the shared numbers alone.  Linear maps of Gaussians are Gaussian, so the
information of the two embeddings is known at every step and can be held against what the estimator claims.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pslib.errors import UserError
from pslib.losses.mutual import MutualInformationEstimator, features_detached, mutual_information_bound
from pslib.training.gaussians import correlation

__all__ = ["ViewsRun", "apart_at", "level_of_all", "linear_information", "train_views"]


@dataclass(frozen=True, eq=False)
class ViewsRun:
    """What mutual learning did to two branches, all in nats, after each of ``looks`` (L,) steps.

    ``truth`` (L,) is the information of the two embeddings, ``claimed`` (L,) what the estimator reads off a large
    sample that no step has seen.  ``led`` counts the steps in which the branches learned, too.
    """

    share: float  # of the steps in which the estimator learns alone
    nats: float  # the most that the branches can share
    looks: np.ndarray
    truth: np.ndarray
    claimed: np.ndarray
    led: int


def linear_information(map_a: Tensor, map_b: Tensor, shared: Tensor) -> float:
    """Information in nats of A x and B y, of the maps A (Da, N) and B (Db, N), x and y standard Gaussians (N,).

    ``shared`` (N, N) is the covariance of x with y.  With S the covariances of the two outputs and of both together
    it is 1/2 log(det S_a det S_b / det S_ab).

    >>> one = torch.eye(1)
    >>> round(linear_information(one, 3 * one, 0.6 * one), 4)  # -1/2 log(1 - 0.36), whatever the scale
    0.2231
    """
    both = torch.block_diag(map_a, map_b).double()
    unit = torch.eye(len(shared)).double()
    inputs = torch.cat([torch.cat([unit, shared.double()], 1), torch.cat([shared.double().T, unit], 1)])
    covariance = both @ inputs @ both.T
    first = len(map_a)
    parts = covariance[:first, :first].logdet() + covariance[first:, first:].logdet()
    return float((parts - covariance.logdet()) / 2)


def train_views(
    share: float = 2 / 3,
    batch_size: int = 20,
    *,
    nats: float = 3.0,
    shared: int = 2,
    dim: int = 16,
    outputs: int = 4,
    steps: int = 450,
    rate: float = 0.003,
    hidden: int = 64,
    seed: int = 0,
    looks: int = 15,
    fresh_pairs: int = 2000,
) -> ViewsRun:
    """Raise the bound over estimator and branches, the embeddings detached in a ``share`` of the steps.

    Every step sees ``batch_size`` new people; the same seed gives the same numbers.  A second or so.  Raises UserError
    for a share outside 0..1, information below 0, a batch of fewer than two, more shared numbers than there are, or
    more looks than steps.
    """
    rho = correlation(nats, shared)
    if batch_size < 2 or not 1 <= shared <= dim or steps < looks or looks < 1:
        raise UserError(
            f"batch_size={batch_size} must be at least 2, shared={shared} lie in 1..{dim}, and steps={steps} be at "
            f"least looks={looks}, which is at least 1."
        )
    common = torch.zeros(dim, dim)
    common[:shared, :shared] = rho * torch.eye(shared)
    at = np.unique(np.linspace(0, steps, looks + 1).round().astype(int))[1:]
    truth, claimed, led = [], [], 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # weights, people, strangers, and which steps lead the branches
        branches = [nn.Linear(dim, outputs, bias=False) for _ in range(2)]
        estimator = MutualInformationEstimator(outputs, outputs, hidden)
        optimizer = torch.optim.Adam(nn.ModuleList([*branches, estimator]).parameters(), lr=rate)
        for step in range(1, steps + 1):
            pair = [branch(view) for branch, view in zip(branches, _views(batch_size, dim, shared, rho), strict=True)]
            if features_detached(share):
                pair = [embedding.detach() for embedding in pair]
            else:
                led += 1
            optimizer.zero_grad()
            (-mutual_information_bound(estimator, *pair)).backward()
            optimizer.step()
            if step in at:
                with torch.no_grad():
                    views = _views(fresh_pairs, dim, shared, rho)
                    fresh = [branch(view) for branch, view in zip(branches, views, strict=True)]
                    claimed.append(float(mutual_information_bound(estimator, *fresh)))
                    truth.append(linear_information(*(branch.weight for branch in branches), common))
    return ViewsRun(share, nats, at, np.array(truth), np.array(claimed), led)


def level_of_all(runs: Iterable[ViewsRun]) -> float:
    """Nats that the branches of every run come to share: where runs can be compared at equal truth.

    Two thirds of the way from the highest truth at a first look to the lowest of the runs' highest truths, so that
    even the slowest run passes it and none has passed it before it was looked at.  Raises UserError where there is no
    such way, or no run.
    """
    runs = list(runs)
    if not runs:
        raise UserError("no run to compare: give at least one.")
    start, reached = max(run.truth[0] for run in runs), min(run.truth.max() for run in runs)
    if reached <= start:
        raise UserError(
            f"a run never shares more than {reached:.2f} nats, and another starts at {start:.2f}: there is no level "
            "that all pass, so give more steps, or leave out the run whose branches stand still."
        )
    return float(start + 2 / 3 * (reached - start))


def apart_at(run: ViewsRun, level: float) -> float:
    """By how many nats T claims less than the truth where the branches first share ``level`` nats.

    The claim of one look is noisy, so the difference is averaged over each look and the ones before and after it.  What
    the branches share may fall for a while, so the average is read between the looks at which they shared more than
    at any look before.  Raises UserError for a level that the run does not pass.

    >>> run = ViewsRun(0.0, 3.0, np.arange(3), np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.7, 1.7]), 3)
    >>> round(apart_at(run, 1.0), 3), round(apart_at(run, 1.5), 3)  # (0 + 0.3 + 0.3) / 3, and half way on to 0.3
    (0.2, 0.25)
    """
    if not run.truth[0] <= level <= run.truth.max():
        raise UserError(
            f"the branches of this run share {run.truth[0]:.2f} to {run.truth.max():.2f} nats and never {level:.2f}: "
            "choose a level that all runs pass (level_of_all)."
        )
    apart = run.truth - run.claimed
    smooth = np.array([apart[max(0, place - 1) : place + 2].mean() for place in range(len(apart))])
    highest = np.concatenate([[-np.inf], np.maximum.accumulate(run.truth)[:-1]])
    rising = run.truth > highest
    return float(np.interp(level, run.truth[rising], smooth[rising]))


def _views(count: int, dim: int, shared: int, rho: float) -> tuple[Tensor, Tensor]:
    """What the branches see of ``count`` people, (count, dim) each."""
    one, other = torch.randn(2, count, dim)
    other[:, :shared] = rho * one[:, :shared] + math.sqrt(1 - rho**2) * other[:, :shared]
    return one, other
