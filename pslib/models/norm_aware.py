"""One vector for two tasks: its length says whether there is a person, its direction who it is.

Chen et al., "Norm-Aware Embedding for Efficient Person Search" (NAE, 2020), the head of ROI-AlignPS's second branch
(AlignPS, Sec. III-D): detection and re-id pull one embedding e at different handles.  With the length r = |e|, e / r is
the re-id feature, and the logit of "person" is r itself, shifted and scaled by a batch normalisation of one channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pslib.errors import UserError

__all__ = ["FewRowsNorm", "NormAwareHead", "NormAwareOutput"]


class FewRowsNorm(nn.BatchNorm1d):
    """Batch normalisation of rows (R, C) that bears any R: fewer than two have no variance, the running one stands in.

    ``gamma_std`` starts the factors at N(0, gamma_std) instead of at 1.
    """

    def __init__(self, channels: int, gamma_std: float | None = None):
        super().__init__(channels)
        if gamma_std is not None:
            nn.init.normal_(self.weight, std=gamma_std)

    def forward(self, rows: Tensor) -> Tensor:
        if len(rows) > 1:
            return super().forward(rows)
        return F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


@dataclass(frozen=True)
class NormAwareOutput:
    """What the head says about R vectors."""

    embeddings: Tensor  # (R, D) of unit length
    logits: Tensor  # (R,) of "this is a person"
    norms: Tensor  # (R,) length of the embedding before it was made 1

    @property
    def scores(self) -> Tensor:
        """How surely each shows a person, (R,) in 0..1."""
        return self.logits.sigmoid()


class NormAwareHead(nn.Module):
    """From vectors of several depths of a network to one norm-aware embedding.

    Every input (R, C_i) has a linear layer with batch normalisation of its own; the embedding's ``dim`` are split
    evenly between the inputs (the first ones get what is left over) and put side by side.  Computed in float32,
    whatever the autocast state.

    ``gamma_std`` is the spread of the N(0, gamma_std) that the factors of these batch normalisations start at; NAE and
    ROI-AlignPS are released with 0.01.  Made unit length, an embedding does not depend on how large they are, but the
    random ones weigh the channels unequally from the start, some near nothing, and as Adam moves all numbers by about
    its rate, whatever their size, it overthrows such small ones in a few steps.  The default, None, starts them all at
    1: over a short schedule every channel then counts from the first step on.  ``weight_std`` likewise is the
    linear layers' start, released with 0.01; before a batch normalisation only its size relative to a step matters.
    """

    def __init__(
        self, channels: Sequence[int], dim: int, gamma_std: float | None = None, weight_std: float | None = None
    ):
        super().__init__()
        if not channels or dim < len(channels):
            raise UserError(f"an embedding of {dim} numbers has none for some of {len(channels)} inputs: enlarge it.")
        share, rest = divmod(dim, len(channels))
        self.projectors = nn.ModuleList()
        for place, width in enumerate(channels):
            size = share + (place < rest)
            linear = nn.Linear(width, size)
            if weight_std is not None:
                nn.init.normal_(linear.weight, std=weight_std)
            nn.init.zeros_(linear.bias)
            self.projectors.append(nn.Sequential(linear, FewRowsNorm(size, gamma_std)))
        self.rescaler = FewRowsNorm(1)

    def forward(self, vectors: Sequence[Tensor]) -> NormAwareOutput:
        with torch.autocast(vectors[0].device.type, enabled=False):
            parts = [project(rows.float()) for project, rows in zip(self.projectors, vectors, strict=True)]
            raw = torch.cat(parts, dim=1)  # (R, D)
            norms = raw.norm(dim=1)
            logits = self.rescaler(norms.unsqueeze(1)).squeeze(1)
            return NormAwareOutput(F.normalize(raw, dim=1), logits, norms)
