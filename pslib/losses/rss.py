"""Random sampling softmax (RSS): a classifier of all identities and background that looks at a few classes at a time.

Xiao et al., "End-to-End Deep Learning for Person Search" (E2E-PS, 2016); IAN, Sec. III-A trains with it.  With I
identities and background there are I + 1 classes and few boxes of each.  For every box anew RSS takes its *true* class,
*background* and other classes at random, ``samples`` in all (100 of 5,533 in the released layer), and computes the
softmax over these alone::

    loss = -log( exp(z_y) / sum over the sampled classes j of exp(z_j) )

Only the sampled logits get a gradient.  People without identity are no class, so their boxes are left out.
"""

import torch
from torch import Tensor

from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError, require_choice

__all__ = ["random_sampling_softmax", "sample_classes"]


def random_sampling_softmax(
    logits: Tensor,
    labels: Tensor,
    samples: int | None,
    generator: torch.Generator | None = None,
    average: str = "labelled",
) -> tuple[Tensor, Tensor]:
    """RSS of logits (N, I + 1) with labels (N,) in 0..I, I being background, or UNLABELLED: scalar and per row (N,).

    ``samples`` classes are drawn for each row (:func:`sample_classes`); ``None``, or I + 1 and more, is the full
    softmax.  ``generator=None`` draws from torch's global one.  Rows without label cost 0.  ``average="labelled"``
    divides the sum by the number of rows that have one, ``"rows"`` by N, as E2E-PS's released layer does.

    With nobody labelled, or nobody at all, the loss is a zero with a graph.  Computed in float32 or wider, whatever
    the autocast state.

    >>> loss, per_row = random_sampling_softmax(torch.zeros(3, 1001), torch.tensor([4, 1000, UNLABELLED]), samples=100)
    >>> round(loss.item(), 4)  # equal logits: the natural logarithm of 100
    4.6052
    """
    require_choice("average", average, ("labelled", "rows"))
    _check(logits, labels, samples)
    with torch.autocast(logits.device.type, enabled=False):
        row = (labels != UNLABELLED).nonzero().squeeze(1)
        true = labels[row].long()
        if samples is None or samples >= logits.shape[1]:
            chosen, slot = logits[row], true.unsqueeze(1)
        else:
            # Indexing takes the sampled logits out of the big table without copying the rest.
            chosen = logits[row.unsqueeze(1), sample_classes(true, logits.shape[1] - 1, samples, generator)]
            slot = torch.zeros_like(true).unsqueeze(1)
        chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
        cost = -chosen.log_softmax(dim=1).gather(1, slot).squeeze(1)
        per_row = chosen.new_zeros(len(labels)).index_put((row,), cost)
        count = len(row) if average == "labelled" else len(labels)
        return per_row.sum() / max(1, count), per_row


def sample_classes(
    labels: Tensor, num_identities: int, samples: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw ``samples`` different classes of 0..I for each label (N,) in 0..I: (N, samples), the true class first.

    Background, class I, is always among them; the others are uniform among the identities that are left, and drawn
    for each row anew.  Needs 2 <= samples <= I.

    >>> sample_classes(torch.tensor([3, 9]), num_identities=9, samples=4)[:, 0]
    tensor([3, 9])
    """
    device = labels.device if generator is None else generator.device
    true = labels.to(device)
    # A background row has one place more to fill: a random identity takes the part of the true one.
    stand_in = torch.randint(num_identities, true.shape, generator=generator, device=device)
    is_background = true == num_identities
    identity = torch.where(is_background, stand_in, true)
    second = torch.where(is_background, stand_in, num_identities)
    others = _draw(len(true), samples - 2, num_identities - 1, generator, device)
    others = others + (others >= identity.unsqueeze(1))  # 0..I-2 without a gap becomes 0..I-1 without the row's own
    return torch.cat([true.unsqueeze(1), second.unsqueeze(1), others], dim=1).to(labels.device)


def _draw(rows: int, count: int, pool: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """``count`` different numbers below ``pool`` for every row (rows, count), all sets equally likely.

    Shuffling all of the pool costs time that grows with the number of identities.  From a large pool it is quicker to
    draw *with* replacement, a little over twice too many, and to keep the first ``count`` that are different.
    """
    many = 2 * count + 16
    if pool <= many:
        return torch.rand(rows, pool, generator=generator, device=device).argsort(dim=1)[:, :count]
    while True:
        drawn = torch.randint(pool, (rows, many), generator=generator, device=device)
        # A stable sort puts equal numbers side by side, the first drawn first: those after it are repeats.
        ordered, place = drawn.sort(dim=1, stable=True)
        repeat = torch.zeros_like(drawn, dtype=torch.bool)
        repeat.scatter_(1, place[:, 1:], ordered[:, 1:] == ordered[:, :-1])
        first = repeat.byte().argsort(dim=1, stable=True)[:, :count]
        # A row of too many repeats hardly ever happens.  All numbers are alike to this test, so starting again is fair.
        if not repeat.gather(1, first).any():
            return drawn.gather(1, first)


def _check(logits: Tensor, labels: Tensor, samples: int | None) -> None:
    if logits.ndim != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} and labels of shape {tuple(labels.shape)} do not fit: give "
            "(N, I + 1), one identity or more and background, and (N,)."
        )
    if samples is not None and samples < 2:
        raise UserError(f"samples={samples} leaves no room for the true class and background: give 2 or more, or None.")
    background = logits.shape[1] - 1
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if low < UNLABELLED or high > background:
        raise ValueError(
            f"labels from {low} to {high} do not fit logits of {background} identities and background: use "
            f"0..{background - 1}, {background} for background, or {UNLABELLED} for people without identity."
        )
