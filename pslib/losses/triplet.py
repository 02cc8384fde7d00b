"""The triplet half of the triplet-aided OIM loss (TOIM): compare embeddings with each other, by distance.

AlignPS, Sec. III-C and Eq. 3.  Every person contributes several embeddings (the cells sampled around her centre)
and, when the lookup table is given, the row the table keeps of her.  Embeddings of one person should lie closer
to each other than to anybody else's, by a margin.
"""

import torch
from torch import Tensor

from pslib.errors import require_choice

__all__ = ["triplet_loss"]


def triplet_loss(
    embeddings: Tensor,
    labels: Tensor,
    table: Tensor | None = None,
    margin: float = 0.3,
    mining: str = "hard",
) -> Tensor:
    """Triplet loss of embeddings (N, D) with labels (N,), those below 0 left out; Euclidean distances; a scalar.

    ``table`` (I, D), the memory's lookup table, adds the row of every identity in the batch as one more member,
    without gradient; a row that is still empty (zero) is nobody's and stays out.  Every member is an anchor a, with
    positives p (same identity) and negatives n.

    * ``mining="hard"``, as released: the mean over anchors of ``max(0, margin + max_p d(a, p) - min_n d(a, n))``.
    * ``mining="all"``, Eq. 3 as printed: the *sum* over all a, p, n of ``max(0, margin + d(a, p) - d(a, n))``.  The
      print has square brackets where the hinge is meant, and gives no margin; 0.3 is the released one.

    Fewer than two identities: a zero with a graph.  Computed in float32 or wider, whatever the autocast state.

    >>> embeddings = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.5]])
    >>> triplet_loss(embeddings, torch.tensor([0, 0, 1]))  # (0.3 + 1 - 1.118 + 0.3 + 1 - 0.5 + 0) / 3
    tensor(0.3273)
    """
    require_choice("mining", mining, ("hard", "all"))
    with torch.autocast(embeddings.device.type, enabled=False):
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        members, owner = embeddings[labels >= 0], labels[labels >= 0]
        identities = owner.unique()
        if len(identities) < 2:
            return embeddings.sum() * 0
        if table is not None:
            rows = table.detach()[identities].to(members.dtype)
            filled = rows.ne(0).any(dim=1)
            members, owner = torch.cat([members, rows[filled]]), torch.cat([owner, identities[filled]])
        # The product form of the distance is quicker and loses the small distances that decide here.
        distance = torch.cdist(members, members, compute_mode="donot_use_mm_for_euclid_dist")  # (M, M)
        same = owner.unsqueeze(1) == owner.unsqueeze(0)
        return _hardest(distance, same, margin) if mining == "hard" else _all_triplets(distance, same, margin)


def _hardest(distance: Tensor, same: Tensor, margin: float) -> Tensor:
    """Batch-hard mining (Hermans et al. 2017): the farthest positive and the nearest negative of every anchor."""
    farthest = distance.masked_fill(~same, -torch.inf).amax(dim=1)
    nearest = distance.masked_fill(same, torch.inf).amin(dim=1)
    return (margin + farthest - nearest).clamp(min=0).mean()


def _all_triplets(distance: Tensor, same: Tensor, margin: float) -> Tensor:
    """Sum of the hinge over all triplets in M^2 log M steps and M^2 memory, not M^3.

    Sort each anchor's negatives; a positive at distance d meets the ``count`` negatives nearer than margin + d, and
    costs ``count * (margin + d) - (sum of those negatives)``, which a running sum holds ready.
    """
    negatives = distance.masked_fill(same, torch.inf).sort(dim=1).values
    finite = torch.where(negatives.isfinite(), negatives, 0.0)
    running = torch.cat([finite.new_zeros(len(finite), 1), finite.cumsum(dim=1)], dim=1)  # (M, M + 1)
    reach = margin + distance
    count = torch.searchsorted(negatives.detach(), reach.detach())
    cost = count * reach - running.gather(1, count)
    itself = torch.eye(len(same), dtype=torch.bool, device=same.device)
    return torch.where(same & ~itself, cost, 0.0).sum()
