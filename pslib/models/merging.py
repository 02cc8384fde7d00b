"""Maps of several sizes brought together as AlignPS's neck does it, and a convolution that spares itself the copies.

AFA (AlignPS, Sec. III-B) enlarges a coarse map to the size of the next finer one, lays both beside each other, and does
so again.  A convolution over the result, deformable or not, may multiply every cell by its kernel before it adds up
what its taps read (:mod:`pslib.ops`); that and enlarging by copies may be done in either order.  A cell of P5 is 16
cells of P3: multiplied before it is enlarged, 15 of these 16 products need not be made, more than half of all for three
maps of equal width.  Training on a CPU does so, and so do prepared models (:mod:`pslib.evaluation.fast`); without
gradients a layer computes what it is defined as, and they are held against it.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import has_torch_function

from pslib.ops import DeformableConv2d, project_taps, sample_projected

__all__ = ["MergingConv2d", "concatenated", "enlarged", "fold_taps", "project_concatenated"]


def enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) to (B, C, *size) by copies, the nearest cell."""
    return x if x.shape[-2:] == tuple(size) else F.interpolate(x, size=tuple(size), mode="nearest")


def concatenated(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C_i, H_i, W_i), fine to coarse, to (B, sum of C_i, H_0, W_0): from the last on, enlarged, laid beside.

    >>> concatenated([torch.zeros(1, 2, 4, 6), torch.zeros(1, 3, 2, 3), torch.zeros(1, 5, 1, 2)]).shape
    torch.Size([1, 10, 4, 6])
    """
    merged = maps[-1]
    for fine in reversed(maps[:-1]):
        merged = torch.cat([fine, enlarged(merged, fine.shape[-2:])], dim=1)
    return merged


def project_concatenated(maps: Sequence[Tensor], weight: Tensor) -> Tensor:
    """:func:`pslib.ops.project_taps` of ``concatenated(maps)``, each map multiplied at its own size.

    ``weight`` (D, sum of C_i, kh, kw).  Returns (B, H_0, W_0, kh * kw * D).
    """
    total = None
    weights = weight.split([x.shape[1] for x in maps], dim=1)
    for x, own in zip(reversed(maps), reversed(weights), strict=True):  # coarse to fine
        rows = project_taps(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]), own)
        if total is not None:
            # In place into the product itself: into a view of it, autograd would copy all.
            rows.add_(enlarged(total.permute(0, 3, 1, 2), x.shape[-2:]).permute(0, 2, 3, 1).reshape(rows.shape))
        total = rows.reshape(len(x), *x.shape[-2:], rows.shape[1])
    return total


def fold_taps(projected: Tensor, kernel: tuple[int, int]) -> Tensor:
    """The second half of an ordinary convolution of "same" padding and stride 1: what each tap reads, added up.

    ``projected`` (B, H, W, kh * kw * D) holds :func:`pslib.ops.project_taps` of every cell; kh and kw are odd.  Returns
    (B, D, H, W).
    """
    return _FoldTaps.apply(projected, kernel).permute(0, 3, 1, 2)


class _FoldTaps(torch.autograd.Function):
    """Shifted sums, and backward shifted copies: autograd would keep a graph of nine additions in place.

    ``F.fold`` adds up alike, but wants the taps last, and takes all the time that this way wins.
    """

    @staticmethod
    def forward(ctx, projected: Tensor, kernel: tuple[int, int]) -> Tensor:
        ctx.kernel = kernel
        batch, height, width, columns = projected.shape
        taps = projected.reshape(batch, height, width, math.prod(kernel), columns // math.prod(kernel))
        total = taps.new_zeros(batch, height + kernel[0] - 1, width + kernel[1] - 1, taps.shape[-1])
        for tap, (down, right) in enumerate(_shifts(kernel)):
            total[:, down : down + height, right : right + width] += taps[:, :, :, tap]
        return total[:, kernel[0] // 2 :, kernel[1] // 2 :][:, :height, :width]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        batch, height, width, channels = grad.shape
        rows, columns = (size // 2 for size in ctx.kernel)
        padded = F.pad(grad, (0, 0, columns, columns, rows, rows))
        taps = grad.new_empty(batch, height, width, math.prod(ctx.kernel), channels)
        for tap, (down, right) in enumerate(_shifts(ctx.kernel)):
            taps[:, :, :, tap] = padded[:, down : down + height, right : right + width]
        return taps.flatten(3), None


def _shifts(kernel: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Where in a padded map the cells go that each tap reads: a tap above reads for the cell below it."""
    return itertools.product(reversed(range(kernel[0])), reversed(range(kernel[1])))


class MergingConv2d(DeformableConv2d):
    """A deformable convolution, v1 without bias and of stride 1, of maps that are to be concatenated.

    Raises ValueError where ``in_channels`` are not the sum of the maps' channels.

    >>> layer = MergingConv2d(8, 4)
    >>> layer(torch.zeros(1, 3, 4, 6), torch.zeros(1, 5, 2, 3)).shape
    torch.Size([1, 4, 4, 6])
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels)

    def forward(self, *maps: Tensor) -> Tensor:
        """(B, C_i, H_i, W_i), fine to coarse, to (B, out_channels, H_0, W_0): that of ``concatenated(maps)``."""
        channels = [x.shape[1] for x in maps]
        if sum(channels) != self.weight.shape[1]:
            raise ValueError(f"maps of {channels} channels do not make up {self.weight.shape[1]}: give all it reads.")
        # On a GPU torchvision's kernel reads the whole; and whoever counts operators is to see this one.
        by_parts = torch.is_grad_enabled() and maps[0].device.type == "cpu" and not has_torch_function(maps)
        return self._by_parts(maps) if by_parts and len(maps) > 1 else super().forward(concatenated(maps))

    def _by_parts(self, maps: Sequence[Tensor]) -> Tensor:
        """Offsets and output, each map multiplied at its own size; the offsets' layer is read here, not called."""
        kernel, offsets = tuple(self.weight.shape[-2:]), self.conv_offset
        dtype = torch.float64 if maps[0].dtype == torch.float64 else torch.float32
        with torch.autocast("cpu", enabled=False):  # in full precision, as deform_conv2d
            given = [x.to(dtype) for x in maps]
            offset = fold_taps(project_concatenated(given, offsets.weight.to(dtype)), kernel)
            offset = offset + offsets.bias.to(dtype)[:, None, None]
            out = sample_projected(project_concatenated(given, self.weight.to(dtype)), offset, None, kernel)
        return out.to(maps[0].dtype)
