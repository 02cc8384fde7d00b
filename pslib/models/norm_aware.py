"""One vector for two tasks: its length says whether there is a person, its direction who it is.

Chen et al., "Norm-Aware Embedding for Efficient Person Search" (NAE, 2020), the head of ROI-AlignPS's second branch
(AlignPS, Sec. III-D): detection and re-id pull one embedding e at different handles.  With the length r = |e|, e / r is
the re-id feature, and the logit of "person" is r itself, shifted and scaled by a batch normalisation of one channel.

NAE+ of the same paper reads every cell of a region so, and lets the cells that are surely person speak loudest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pslib.errors import UserError

__all__ = [
    "FewRowsNorm", "NormAwareHead", "NormAwareOutput", "PixelNormAwareHead", "covered_cells", "person_scores",
]  # fmt: skip


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
    """What the head says about R vectors, or about R regions of h x w cells."""

    embeddings: Tensor  # (R, D) of unit length
    logits: Tensor  # (R,) or (R, h, w) of "this is a person"
    norms: Tensor  # (R,) or (R, h, w), length of the embedding before it was made 1

    @property
    def scores(self) -> Tensor:
        """How surely each shows a person, (R,) in 0..1."""
        return person_scores(self.logits)


def person_scores(logits: Tensor) -> Tensor:
    """The probability of a person from logits (R,), or its mean over the cells from logits (R, h, w): (R,)."""
    sure = logits.sigmoid()
    return sure if sure.ndim == 1 else sure.mean(dim=(1, 2))


class NormAwareHead(nn.Module):
    """From vectors of several depths of a network to one norm-aware embedding.

    Every input (R, C_i) has a linear layer with batch normalisation of its own; the embedding's ``dim`` are split
    evenly between the inputs (the first ones get what is left over) and put side by side.  Computed in float32,
    whatever the autocast state.

    ``gamma_std`` is the spread of the N(0, gamma_std) that the factors of these batch normalisations start at; None
    starts them at 1.  Made unit length, an embedding does not depend on how large they all are, but the score hangs on
    how they compare with the offsets: around an offset of zero a channel is as long on one side of its mean as on the
    other, so only offsets can make people long and background short.  Adam moves a number by about its rate, whatever
    its size.  Beside factors of 0.01, with which NAE and ROI-AlignPS are released, the offsets therefore count after a
    few steps, and beside 1 only after hundreds: a short schedule that reads the score (NAE) does well to set 0.01.  Its
    price are random factors that weigh the channels unequally at first; None spares it where only the direction is
    read (ROI-AlignPS; the recipe of Table VI sets 0.01 for all rows, since one of them reads NAE's score).
    ``weight_std`` likewise is the linear layers' start, released with 0.01 (None: torch's own); before a batch
    normalisation only its size relative to a step matters.
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


class PixelNormAwareHead(NormAwareHead):
    """NAE+: the head at every cell of a region, with the very same parameters (1x1 convolutions are linear layers).

    Maps (R, C_i, h_i, w_i) are resized to the last one's cells (the released code resizes after the first layers,
    which without training is the same).  A region's embedding is the mean of its cells' unit embeddings, each weighted
    by its score, at unit length; its score is the mean of the scores.  Only how the scores compare counts for the
    embedding, which therefore exists where all of them are near 0, too.
    """

    def forward(self, maps: Sequence[Tensor]) -> NormAwareOutput:
        cells = maps[-1].shape[-2:]
        resized = [x if x.shape[-2:] == cells else _resize(x.float(), cells) for x in maps]
        each = super().forward([x.movedim(1, 3).flatten(0, 2) for x in resized])  # R*h*w rows
        logits = each.logits.reshape(len(maps[-1]), *cells)
        # The scores relative to their sum, from their logarithms: exact where all of them underflow.
        shares = F.logsigmoid(logits).flatten(1).softmax(dim=1)  # (R, h*w)
        embeddings = (shares.unsqueeze(2) * each.embeddings.unflatten(0, shares.shape)).sum(dim=1)
        return NormAwareOutput(F.normalize(embeddings), logits, each.norms.reshape(logits.shape))


def _resize(maps: Tensor, cells: Sequence[int]) -> Tensor:
    # torch's interpolation refuses no region at all.
    if len(maps) == 0:
        return maps.new_zeros(0, maps.shape[1], *cells)
    # Channels last, as the cells are read next: otherwise a GPU resizes such small maps plane after plane.
    maps = maps.contiguous(memory_format=torch.channels_last)
    return F.interpolate(maps, size=tuple(cells), mode="bilinear", align_corners=False)


def covered_cells(boxes: Tensor, others: Tensor, cells: Sequence[int]) -> Tensor:
    """The share of each cell that a person's box covers, in 0..1: what NAE+'s cells learn to say.

    Box r of ``boxes`` (R, 4) px is cut into ``cells`` = (h, w) parts, of which ``others`` (R, 4) px covers some:
    (R, h, w).  (The released code draws the overlap in whole pixels and resizes the drawing.)

    >>> covered_cells(torch.tensor([[0.0, 0.0, 6.0, 4.0]]), torch.tensor([[3.0, 0.0, 9.0, 4.0]]), (1, 3))
    tensor([[[0.0000, 0.5000, 1.0000]]])
    """
    shares = []
    for axis, count in ((1, cells[0]), (0, cells[1])):
        low, side = boxes[:, axis, None], (boxes[:, axis + 2] - boxes[:, axis])[:, None] / count  # (R, 1)
        edges = low + side * torch.arange(count + 1, device=boxes.device)  # (R, count + 1)
        inside = edges.maximum(others[:, axis, None]).minimum(others[:, axis + 2, None])
        shares.append(inside.diff(dim=1) / side.clamp(min=1e-6))
    return shares[0][:, :, None] * shares[1][:, None, :]
