"""Online instance matching (OIM): a softmax over everybody seen so far, without a classifier to train.

Xiao et al., "Joint Detection and Identification Feature Learning for Person Search" (2017); AlignPS, Sec. III-C.
A *lookup table* V keeps one running embedding for each of the I labelled identities, a circular *queue* U the
latest embeddings of people without identity.  An embedding x should resemble its own row more than all others::

    p_i = exp(v_i . x / tau) / ( sum_j exp(v_j . x / tau) + sum_k exp(u_k . x / tau) )

Eq. 1 of AlignPS prints tau outside the exponents, where it would cancel, and calls the queue's length Q, like
the queue itself; the formula above is what it means.  Sec. IV-B adds a focal factor: ``(1 - p)^2 * -log p``.

Table and queue are memory, not parameters: they change only in :meth:`OIMMemory.update`, which the trainer calls
after its optimiser step.  (In the released code they change inside ``backward``.)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError, require_choice

__all__ = ["OIMMemory", "memory_logits", "oim_loss", "require_memory", "require_temperature"]


def require_memory(queue_size: int, oim_momentum: float) -> None:
    """Raise UserError unless a memory can have such a queue and such rows."""
    if queue_size < 0 or not 0 <= oim_momentum < 1:
        raise UserError(
            f"queue_size={queue_size} and oim_momentum={oim_momentum} make no memory: give 0 rows or more, and a share "
            "of the old row in [0, 1)."
        )


def require_temperature(**named: float | None) -> None:
    """Raise UserError unless the temperatures, by the names they are set by, are above 0; None stands for another's."""
    for name, value in named.items():
        if value is not None and not value > 0:
            raise UserError(f"{name}={value} must be above 0: OIM divides by it.")


class OIMMemory(nn.Module):
    """The lookup table (I, D), the queue (U, D) and the queue's write position, all buffers, all zero at first.

    ``momentum`` m moves a row v to ``m v + (1 - m) x``; ``normalize_table`` then brings it back to unit length (so
    AlignPS's released code does for PRW, but not for CUHK-SYSU).  ``queue_channels=64`` writes only the first 64
    channels of the queue, the others stay zero: a slip in the first OIM code (bytes counted as floats) that the
    released AlignPS inherited.  ``None`` writes them all.

    >>> memory = OIMMemory(num_identities=3, queue_size=2, dim=4)
    >>> memory.update(torch.eye(4)[:3], torch.tensor([1, UNLABELLED, 1]))
    >>> memory.table[1], memory.queue[0], int(memory.pointer)
    (tensor([0.7071, 0.0000, 0.7071, 0.0000]), tensor([0., 1., 0., 0.]), 1)
    """

    def __init__(
        self,
        num_identities: int,
        queue_size: int,
        dim: int,
        momentum: float = 0.5,
        normalize_table: bool = True,
        queue_channels: int | None = None,
    ):
        super().__init__()
        require_memory(queue_size, momentum)
        self.momentum, self.normalize_table = momentum, normalize_table
        self.queue_channels = dim if queue_channels is None else min(queue_channels, dim)
        self.register_buffer("table", torch.zeros(num_identities, dim))
        self.register_buffer("queue", torch.zeros(queue_size, dim))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Take in embeddings (N, D) of labels (N,), one after another in the order of the batch.

        A labelled embedding moves its row of the table, an unlabelled one overwrites the oldest row of the queue.
        Call it after ``backward``: before, autograd would find the memory changed and refuse.
        """
        _check_labels(labels, len(self.table))
        embeddings = embeddings.detach().to(self.table)
        self._update_table(embeddings[labels >= 0], labels[labels >= 0])
        self._update_queue(embeddings[labels < 0])

    def _update_table(self, embeddings: Tensor, labels: Tensor) -> None:
        # Rows of different identities do not touch: round r takes the r-th embedding of every identity at once,
        # which is the same as one by one and takes as many rounds as the most frequent identity has embeddings.
        order = labels.argsort(stable=True)
        embeddings, labels = embeddings[order], labels[order]
        turn = torch.arange(len(labels), device=labels.device) - torch.searchsorted(labels, labels)
        order = turn.argsort(stable=True)
        sizes = turn.bincount().tolist()  # once for all rounds: a GPU waits at every such question
        for rows, owners in zip(embeddings[order].split(sizes), labels[order].split(sizes), strict=True):
            moved = self.momentum * self.table[owners] + (1 - self.momentum) * rows
            self.table[owners] = F.normalize(moved) if self.normalize_table else moved

    def _update_queue(self, embeddings: Tensor) -> None:
        size, new = len(self.queue), len(embeddings)
        if size == 0 or new == 0:
            return
        kept = torch.arange(max(0, new - size), new, device=embeddings.device)
        slots = (self.pointer + kept) % size
        self.queue[slots, : self.queue_channels] = embeddings[kept, : self.queue_channels]
        self.pointer.copy_((self.pointer + new) % size)


def memory_logits(
    embeddings: Tensor, memory: OIMMemory, temperature: float = 0.1, queue_temperature: float | None = None
) -> Tensor:
    """Logits (N, I + U) of unit embeddings (N, D), those of the table first: Eq. 1 is their softmax."""
    queue_temperature = temperature if queue_temperature is None else queue_temperature
    table_logits = embeddings @ memory.table.T / temperature
    queue_logits = embeddings @ memory.queue.T / queue_temperature
    return torch.cat([table_logits, queue_logits], dim=1)


def oim_loss(
    embeddings: Tensor,
    labels: Tensor,
    memory: OIMMemory,
    temperature: float = 0.1,
    queue_temperature: float | None = None,
    focal_gamma: float = 2.0,
    average: str = "labelled",
    mask_empty: bool = False,
) -> tuple[Tensor, Tensor]:
    """Focal OIM loss of unit embeddings (N, D) with labels (N,) in 0..I-1 or UNLABELLED: scalar and per row (N,).

    The logits are ``x . v / temperature`` and ``x . u / queue_temperature`` (``None``: the same; AlignPS's released
    PRW code has 1/15 and 1/10).  Rows without label cost 0.  ``average="labelled"`` divides the sum by their number
    (at least 1), ``"positives"`` by N, as released.  ``focal_gamma=0`` is plain cross-entropy.

    Rows of the memory that are still empty (zero) take part with logit 0, as released, so the very first loss is
    the focal loss of log(I + U); ``mask_empty`` leaves them out, except a row's own.

    With nobody labelled, or nobody at all, the loss is a zero with a graph.  Computed in the memory's dtype
    (float32), whatever the autocast state.  No gradient reaches the memory.

    >>> memory = OIMMemory(num_identities=7, queue_size=3, dim=4)
    >>> loss, _ = oim_loss(torch.eye(4), torch.tensor([0, 5, UNLABELLED, 6]), memory, focal_gamma=0.0)
    >>> round(loss.item(), 4)  # the natural logarithm of 7 + 3
    2.3026
    """
    require_choice("average", average, ("labelled", "positives"))
    _check_labels(labels, len(memory.table))
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = embeddings.to(memory.table.dtype)
        logits = memory_logits(embeddings, memory, temperature, queue_temperature)
        own = labels.clamp(min=0).unsqueeze(1)  # (N, 1)
        if mask_empty:
            empty = torch.cat([memory.table, memory.queue]).eq(0).all(dim=1)
            hidden = empty.expand_as(logits).scatter(1, own, False)
            logits = logits.masked_fill(hidden, -torch.inf)
        log_p = logits.log_softmax(dim=1).gather(1, own).squeeze(1)
        # 1 - p without the cancellation of 1 - exp(log_p) where p is nearly 1.
        focal = (-torch.expm1(log_p)) ** focal_gamma
        per_sample = torch.where(labels >= 0, -focal * log_p, 0.0)
        count = int((labels >= 0).sum()) if average == "labelled" else len(labels)
        return per_sample.sum() / max(1, count), per_sample


def _check_labels(labels: Tensor, num_identities: int) -> None:
    # A label past the table would silently name a queue slot (it has happened: PRW's identities 483 and 932).
    if len(labels) == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < UNLABELLED or high >= num_identities:
        raise ValueError(
            f"labels from {low} to {high} do not fit a table of {num_identities} identities: "
            f"use 0..{num_identities - 1}, or {UNLABELLED} for people without identity."
        )
