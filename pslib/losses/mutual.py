"""What two branches that describe the same people can teach each other: information, consensus, or difference.

AlignPS, Sec. III-D, branch-level mutual learning.  ROI-AlignPS embeds every person twice, in the dense branch (A) and
in the ROI branch (R), and adds one or more of three losses between the branches:

* *mutual information* (Eqs. 5 to 7): knowing a person's embedding of one branch should tell as much as possible about
  that of the other, whatever the form of the dependence.  The integral of Eq. 5 cannot be computed from samples, so a
  small network T bounds it from below (Donsker and Varadhan; Belghazi et al., "MINE", 2018), and T and the branches
  raise the bound together::

      I(A, R) >= mean over pairs of T(a, r)  -  log( mean over strangers of exp T(a, r') )            (Eq. 6)

  A pair is one person seen by both branches; strangers are the embeddings of two different people.
* *consensus* (Eq. 8): the branches' posteriors over the identities should agree, a KL divergence.
* *diversity* (Eq. 9): the two embeddings of one person should *differ*, cosine near 0 or below, so that putting them
  side by side gains most.  The first two pull together what this one pushes apart.

The paper leaves much out.  Its released code has mutual information alone, with weight 0.2, and there:

* each labelled identity that both branches see enters once a branch, as its mean embedding, of unit length;
* strangers are drawn with replacement, so now and then a person meets herself (not so here by default);
* in two of three steps, at random, the embeddings are detached and T learns alone; in the third all learn;
* T's gradient is left as it is, although it is biased: that of the second term is E_B[grad T e^T] / E_B[e^T], and a
  ratio of two means over one batch B is, on average, not the ratio of the means over all strangers.  MINE puts a
  running mean over batches below the line.  (The term's value is biased, too: the logarithm of a batch's mean is, on
  average, below the logarithm of the mean over all strangers.)

The number that a batch of B pairs gives can be trusted while the truth lies well below log(B).  Above, the batch holds
too few strangers to show T where it is too high, and the number swings by more than it says (Song and Ermon 2020: the
variance grows with exp(I)).  :mod:`pslib.training.gaussians` shows both where the truth is known.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pslib.errors import UserError, require_choice

__all__ = [
    "MARGINALS",
    "MutualInformationEstimator",
    "branch_pairs",
    "diversity",
    "features_detached",
    "identity_means",
    "kl_consensus",
    "mutual_information_bound",
]

MARGINALS = ("permutation", "replacement", "all-pairs")
SHORTEST = 1e-3  # a mean of unit features that is shorter has hardly a direction


class MutualInformationEstimator(nn.Module):
    """The network T of Eq. 6: one hidden layer over both embeddings side by side, a number for each pair.

    >>> estimator = MutualInformationEstimator(dim_a=4, dim_b=2)
    >>> a, b = torch.zeros(3, 4), torch.zeros(3, 2)
    >>> estimator(a, b).shape, estimator(a.unsqueeze(1), b).shape
    (torch.Size([3]), torch.Size([3, 3]))
    """

    def __init__(self, dim_a: int, dim_b: int, hidden: int = 256):
        super().__init__()
        self.dims = (dim_a, dim_b)
        self.hidden = nn.Linear(dim_a + dim_b, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """T of a (..., Da) and b (..., Db), whose leading sizes broadcast: (B, Da) and (B, Db) give (B,).

        Raises UserError for embeddings of other sizes than it was made for.
        """
        if (a.shape[-1], b.shape[-1]) != self.dims:
            raise UserError(
                f"embeddings of {a.shape[-1]} and {b.shape[-1]} numbers do not fit an estimator made for "
                f"{self.dims[0]} and {self.dims[1]}: build it with the two branches' embedding sizes."
            )
        # Each half of the layer once a row and not once a pair, so that all B x B pairs cost 2 B products.
        half_a, half_b = self.hidden.weight.split(self.dims, dim=1)
        return self.score((F.linear(a, half_a, self.hidden.bias) + F.linear(b, half_b)).relu()).squeeze(-1)


def mutual_information_bound(
    estimator: Callable[[Tensor, Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    shuffled: Tensor | None = None,
    generator: torch.Generator | None = None,
    marginal: str = "permutation",
) -> Tensor:
    """Lower bound of the mutual information of a (B, Da) and b (B, Db), row i of both being a pair; nats, a scalar.

    Eq. 6 for one ``estimator`` T, without the supremum: raise it over T to come near the information.  Where the
    strangers r' come from:

    * ``marginal="permutation"``: every a meets another row's b, every b is used once;
    * ``"replacement"``, as released: B draws, own rows included, which pulls the bound down;
    * ``"all-pairs"``: all B (B - 1) pairs of different rows;
    * ``shuffled`` (B, Db) gives them and decides alone.

    Leaving own rows out fits people from an endless crowd.  Where the same L people come again, strangers of Eq. 6 are
    the same person once in L; without those the number overstates and can pass log(L), with one in B, a batch's own
    rows, it understates.

    ``generator=None`` draws from torch's global one.  With fewer than two pairs nobody is a stranger, and the bound
    is a zero with a graph.  Computed in float32 or wider, whatever the autocast state.  Raises UserError for another
    ``marginal``, ValueError for rows that are no pairs or ``shuffled`` of another shape than b.

    >>> a = torch.tensor([[-1.0], [1.0]])
    >>> round(mutual_information_bound(lambda a, b: (a * b).sum(-1), a, a).item(), 4)  # 1 - log(exp(-1))
    2.0
    """
    require_choice("marginal", marginal, MARGINALS)
    _check_pairs(a, b)
    if shuffled is not None and shuffled.shape != b.shape:
        raise ValueError(f"shuffled of shape {tuple(shuffled.shape)} must have the shape of b, {tuple(b.shape)}.")
    with torch.autocast(a.device.type, enabled=False):
        a, b = _wide(a), _wide(b)
        if len(a) < 2:
            return estimator(a, b).sum() * 0
        if shuffled is not None:
            strangers = estimator(a, _wide(shuffled))
        elif marginal == "all-pairs":
            own = torch.eye(len(a), dtype=torch.bool, device=a.device)
            strangers = estimator(a.unsqueeze(1), b)[~own]
        else:
            strangers = estimator(a, b[_partners(len(b), marginal, generator, b.device)])
        # exp T overflows where the logarithm of its mean is an ordinary number.
        return estimator(a, b).mean() - (strangers.logsumexp(dim=0) - math.log(len(strangers)))


def _partners(count: int, marginal: str, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """The row of b (B,) that each row of a meets as a stranger."""
    drawn_on = device if generator is None else generator.device
    if marginal == "replacement":
        return torch.randint(count, (count,), generator=generator, device=drawn_on).to(device)
    # A round trip through all rows in random order: each goes to the next, so nobody stays, and all others are
    # equally likely.
    order = torch.randperm(count, generator=generator, device=drawn_on).to(device)
    return torch.empty_like(order).index_copy_(0, order, order.roll(1))


def features_detached(share: float = 2 / 3, generator: torch.Generator | None = None) -> bool:
    """Whether in this step the embeddings are detached and the estimator learns alone: true with probability ``share``.

    Embeddings can only be led by a T that has kept up with them, and T has a few pairs a step to learn from.  One draw
    from torch's global generator, which the trainer seeds before every step from the run's seed and the step, so that
    the same step of the same run always answers the same.  Raises UserError for a share outside 0..1.

    >>> features_detached(share=1.0), features_detached(share=0.0)
    (True, False)
    """
    if not 0 <= share <= 1:
        raise UserError(f"share={share} must lie in [0, 1]: the part of the steps in which the estimator learns alone.")
    return bool(torch.rand((), generator=generator) < share)


def identity_means(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The identities (K,) among labels (N,), in rising order, and the unit mean (K, D) of each one's features (N, D).

    Rows with a label below 0 are left out.  Raises ValueError unless there is one label a row.

    >>> features = torch.tensor([[2.0, 0.0], [0.0, 2.0], [9.0, 9.0], [0.0, 5.0]])
    >>> identity_means(features, torch.tensor([7, 7, -1, 3]))
    (tensor([3, 7]), tensor([[0.0000, 1.0000],
            [0.7071, 0.7071]]))
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features of shape {tuple(features.shape)} and labels of shape {tuple(labels.shape)} do not fit: give "
            "(N, D) and (N,)."
        )
    with torch.autocast(features.device.type, enabled=False):
        features, labels = _wide(features[labels >= 0]), labels[labels >= 0]
        identities, count = labels.unique(return_counts=True)
        member = (labels == identities.unsqueeze(1)).to(features.dtype)  # (K, N)
        # A person whose features cancel has no direction: her short mean stays short, or its gradient had no bound.
        return identities, F.normalize(member @ features / count.unsqueeze(1), eps=SHORTEST)


def branch_pairs(features_a: Tensor, labels_a: Tensor, features_b: Tensor, labels_b: Tensor) -> tuple[Tensor, Tensor]:
    """Unit means (K, Da) and (K, Db) of the K labelled identities that both branches have, in the same order.

    ``features_a`` (Na, Da) with ``labels_a`` (Na,) and ``features_b`` (Nb, Db) with ``labels_b`` (Nb,) are what the
    branches made of one batch; they need not hold the same boxes.  Nobody in common: no rows, but with a graph.  Raises
    ValueError unless there is one label a row.
    """
    identities_a, means_a = identity_means(features_a, labels_a)
    identities_b, means_b = identity_means(features_b, labels_b)
    return means_a[torch.isin(identities_a, identities_b)], means_b[torch.isin(identities_b, identities_a)]


def kl_consensus(
    logits_a: Tensor, logits_b: Tensor, identities: int, literal: bool = False, gradient: str = "both"
) -> Tensor:
    """Eq. 8: KL(p_a || p_b) in nats, the mean over rows of logits (B, I + Ua) and (B, I + Ub); a scalar.

    The first ``identities`` = I logits are those of the table, the rest, which may differ in number, those of a queue
    (:mod:`pslib.losses.oim`).  Posteriors are taken over the identities alone, so the loss is at least 0, and 0 only
    where they agree.  ``literal=True`` is Eq. 8 as printed: Eq. 1 shares the probability between identities and queue,
    so that of the identities does not sum to one, and the loss can fall below 0, though not below -1/e, where a gives
    its queue more than b does.

    ``gradient`` names the branch that learns: "both" (the paper does not say), or "a" or "b" alone with the other as
    its teacher.  No rows: a zero with a graph.  Computed in float32 or wider, whatever the autocast state.

    Raises UserError for another ``gradient``, ValueError unless both logits have two axes, as many rows, and at least
    ``identities`` columns.

    >>> certain, unsure = torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.0, 9.0]])
    >>> round(kl_consensus(certain, unsure, identities=2).item(), 4)
    0.5023
    """
    require_choice("gradient", gradient, ("both", "a", "b"))
    for name, logits in (("logits_a", logits_a), ("logits_b", logits_b)):
        if logits.ndim != 2 or logits.shape[1] < identities or len(logits) != len(logits_a):
            raise ValueError(
                f"{name} of shape {tuple(logits.shape)} must be ({len(logits_a)}, {identities} or more): one row a "
                "person, one column an identity, and then the queue's."
            )
    with torch.autocast(logits_a.device.type, enabled=False):
        log_a, log_b = (
            _log_posterior(logits.detach() if gradient == other else logits, identities, literal)
            for logits, other in ((logits_a, "b"), (logits_b, "a"))
        )
        return (log_a.exp() * (log_a - log_b)).sum() / max(1, len(logits_a))


def _log_posterior(logits: Tensor, identities: int, literal: bool) -> Tensor:
    """Logarithms (B, I) of the identities' probabilities, among all columns or, not ``literal``, among themselves."""
    return (_wide(logits) if literal else _wide(logits)[:, :identities]).log_softmax(dim=1)[:, :identities]


def diversity(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 9: mean cosine of the rows of a and b, both (B, D); a scalar, and a zero with a graph without rows.

    Raises UserError where the branches' embedding sizes differ, ValueError unless both have two axes
    and as many rows.

    >>> diversity(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    tensor(0.5000)
    """
    _check_pairs(a, b)
    if a.shape != b.shape:
        raise UserError(
            f"a cosine of embeddings of {a.shape[1]} and {b.shape[1]} numbers does not exist: give both branches the "
            "same embedding size, or leave diversity out."
        )
    with torch.autocast(a.device.type, enabled=False):
        return F.cosine_similarity(_wide(a), _wide(b)).sum() / max(1, len(a))


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check_pairs(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(
            f"a of shape {tuple(a.shape)} and b of shape {tuple(b.shape)} are no pairs: give (B, Da) and (B, Db)."
        )
