"""Mutual information where it is known: the bound of :mod:`pslib.losses.mutual` on pairs of correlated Gaussians.

If every coordinate of b is rho times that of a plus independent noise, all of variance 1, then over D coordinates ::

    I(a, b) = -D/2 log(1 - rho^2)    nats

and the best T of Eq. 6 is known too: the logarithm of p(a, b) / (p(a) p(b)).  So a trained bound can be held against
the truth, and a network's failure told from one that no network can help.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pslib.errors import UserError, require_choice
from pslib.losses.mutual import MARGINALS, MutualInformationEstimator, mutual_information_bound

__all__ = ["BoundRun", "batch_bounds", "best_estimator", "correlation", "gaussian_pairs", "train_bound"]

Estimator = Callable[[Tensor, Tensor], Tensor]


def correlation(nats: float, dim: int) -> float:
    """The correlation of each of ``dim`` coordinates with which two Gaussians share ``nats`` of information.

    >>> round(correlation(nats=1.0, dim=1), 4)  # the root of 1 - exp(-2)
    0.9299
    """
    if not (math.isfinite(nats) and nats >= 0) or dim < 1:
        raise UserError(f"nats={nats} must be finite and 0 or more, dim={dim} 1 or more.")
    return math.sqrt(-math.expm1(-2 * nats / dim))


def gaussian_pairs(
    nats: float, count: int, dim: int = 2, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """``count`` pairs a, b, each (count, dim), of standard Gaussians that share ``nats`` of information."""
    rho = correlation(nats, dim)
    a, noise = torch.randn(2, count, dim, generator=generator)
    return a, rho * a + math.sqrt(1 - rho**2) * noise


def best_estimator(nats: float, dim: int = 2) -> Estimator:
    """The T that no network can beat for these Gaussians: a (..., dim), b (..., dim) to the log density ratio (...)."""
    rho = correlation(nats, dim)
    rest = 1 - rho**2

    def density_ratio(a: Tensor, b: Tensor) -> Tensor:
        squares = (a.square() + b.square()).sum(dim=-1)
        return (rho * (a * b).sum(dim=-1) - rho**2 * squares / 2) / rest - dim / 2 * math.log(rest)

    return density_ratio


@dataclass(frozen=True, eq=False)
class BoundRun:
    """What training T on fresh batches of one size did, all in nats.

    ``batches`` (S,) is the bound that each step raised, on its own batch.  After each of ``looks`` (L,) steps,
    ``fresh`` (L,) is the bound of T on one large sample that no step has seen.  ``small`` (K,) are the bounds of the
    T of the last step on fresh batches of the size it was trained with.
    """

    nats: float  # the truth
    batch_size: int
    batches: np.ndarray
    looks: np.ndarray
    fresh: np.ndarray
    small: np.ndarray


def train_bound(
    nats: float,
    batch_size: int = 64,
    *,
    dim: int = 2,
    steps: int = 400,
    marginal: str = "permutation",
    hidden: int = 64,
    rate: float = 0.01,
    seed: int = 0,
    look_every: int = 20,
    fresh_pairs: int = 20_000,
) -> BoundRun:
    """Raise the bound over T for ``steps`` steps of Adam (a second or two); the same seed gives the same numbers.

    The learning rate falls from ``rate`` to a twentieth of it.
    Every step sees ``batch_size`` new pairs, so nothing can be learned by heart.  ``marginal`` is where training takes
    its strangers from; ``fresh`` and ``small`` are read with "permutation" whatever it is.
    """
    require_choice("marginal", marginal, MARGINALS)
    correlation(nats, dim)  # refuses values out of range
    if batch_size < 2 or steps < 1 or look_every < 1:
        raise UserError(
            f"batch_size={batch_size} must be at least 2, steps={steps} and look_every={look_every} at least 1."
        )
    batches, looks, fresh = [], [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # weights, pairs and strangers
        estimator = MutualInformationEstimator(dim, dim, hidden)
        optimizer = torch.optim.Adam(estimator.parameters(), lr=rate)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=steps)
        for step in range(1, steps + 1):
            bound = mutual_information_bound(estimator, *gaussian_pairs(nats, batch_size, dim), marginal=marginal)
            optimizer.zero_grad()
            (-bound).backward()
            optimizer.step()
            decay.step()
            batches.append(bound.detach())
            if step % look_every == 0 or step == steps:
                looks.append(step)
                fresh.append(batch_bounds(estimator, nats, fresh_pairs, 1, dim))
        small = batch_bounds(estimator, nats, batch_size, 100, dim)
    return BoundRun(nats, batch_size, torch.stack(batches).numpy(), np.array(looks), np.concatenate(fresh), small)


@torch.no_grad()
def batch_bounds(
    estimator: Estimator,
    nats: float,
    batch_size: int,
    count: int,
    dim: int = 2,
    marginal: str = "permutation",
    generator: torch.Generator | None = None,
) -> np.ndarray:
    """What ``estimator`` reads off ``count`` fresh batches of ``batch_size`` pairs each: bounds (count,) in nats."""
    bounds = [
        mutual_information_bound(estimator, *gaussian_pairs(nats, batch_size, dim, generator),
                                 generator=generator, marginal=marginal)
        for _ in range(count)
    ]  # fmt: skip
    return torch.stack(bounds).numpy()
