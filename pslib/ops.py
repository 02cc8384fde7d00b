"""Deformable convolution: torchvision's operator, made quick on a CPU.

A deformable convolution (v1: Dai et al. 2017; modulated, v2: Zhu et al. 2019) reads each tap of its kernel at
a learned, fractional place: tap k of output cell p is read at ``p * stride - padding + k * dilation + offset``,
by bilinear interpolation, and (v2) multiplied by a mask.  AlignPS (Sec. III-B) builds its region alignment from it.

``torchvision.ops.deform_conv2d`` does this well on a GPU; its CPU kernel copies value by value.  Here, on a CPU,
it is two library calls, because both steps are linear and may be done in either order:

* *project, then gather* (the usual case): multiply every input cell by the kernel matrix of every tap, then sum
  for each output cell the 4 corners of its taps, with their bilinear weights: one weighted ``embedding_bag``
  with 4 * K entries a bag, on rows as short as the output has channels;
* *gather, then project* (groups, strides, more channels out than in): sum the 4 corners of each tap first, then
  one matrix product over taps and channels.

The interpolation weights stay ordinary differentiable tensors, so autograd gives the exact gradient of the
offsets and of the mask.  ``pslib bench deform-conv`` prints the speed beside torchvision's.
"""

import math
import warnings
from functools import lru_cache

import torch
import torch.nn.functional as F
import torchvision.ops
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["DeformableConv2d", "deform_conv2d", "project_taps", "sample_projected"]


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Deformable convolution with torchvision's arguments, layout and values, quick on a CPU.

    ``input`` (B, C, H, W); ``weight`` (C_out, C / groups, kh, kw); ``bias`` (C_out,); ``offset``
    (B, 2 * offset_groups * kh * kw, H_out, W_out) in input cells, the y and the x of each tap in turn; ``mask``
    (B, offset_groups * kh * kw, H_out, W_out) multiplies each tap (v2; ``None`` is v1).  Group counts follow from
    the shapes.  Returns (B, C_out, H_out, W_out) in the dtype of ``input``; on a CPU laid out channels-last.

    A place up to one cell outside the map fades linearly to zero; further outside it reads zero.  The CPU computes
    in float32 (float64 for float64 input) even under autocast: eight bits cannot hold a fractional offset.
    Raises ValueError where shapes disagree.

    >>> image = torch.arange(12.0).reshape(1, 1, 3, 4)
    >>> half_a_cell_right = torch.tensor([0.0, 0.5]).reshape(1, 2, 1, 1).expand(1, 2, 3, 4)
    >>> deform_conv2d(image, half_a_cell_right, torch.ones(1, 1, 1, 1))[0, 0, 0]
    tensor([0.5000, 1.5000, 2.5000, 1.5000])
    """
    given = (input, offset, weight)
    if has_torch_function(given):  # PyTorch's protocol for whoever counts or replaces operators
        return handle_torch_function(deform_conv2d, given, *given, bias, stride, padding, dilation, mask)
    stride, padding, dilation = _pair(stride), _pair(padding), _pair(dilation)
    if input.device.type != "cpu":
        return torchvision.ops.deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask)
    groups, offset_groups = _check_shapes(input, offset, weight, mask, stride, padding, dilation)
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    with torch.autocast("cpu", enabled=False):
        index, share = _corners(
            offset.to(dtype), offset_groups, input.shape[-2:], weight.shape[-2:], stride, padding, dilation
        )
        if mask is not None:
            batch, cells, taps = share.shape[:3]
            share = share * mask.to(dtype).reshape(batch, offset_groups, taps, cells).permute(0, 3, 2, 1).unsqueeze(-1)
        cells_in, cells_out = input.shape[-2] * input.shape[-1], offset.shape[-2] * offset.shape[-1]
        ungrouped = groups == 1 and offset_groups == 1
        project_first = ungrouped and cells_in * weight.shape[0] <= cells_out * input.shape[1]
        method = _project_then_gather if project_first else _gather_then_project
        out = method(input.to(dtype), weight.to(dtype), index, share)
        if bias is not None:
            out = out + bias.to(dtype)
    out = out.reshape(input.shape[0], *offset.shape[-2:], weight.shape[0])
    return out.permute(0, 3, 1, 2).to(input.dtype)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """One number for both axes, or (vertical, horizontal)."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _check_shapes(input, offset, weight, mask, stride, padding, dilation) -> tuple[int, int]:
    """Return (groups, offset_groups), or say in one sentence which shape is wrong."""
    taps, channels = weight.shape[2] * weight.shape[3], input.shape[1]
    groups, offset_groups = channels // weight.shape[1], offset.shape[1] // (2 * taps)
    size = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(input.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True)
    )
    if min(size) < 1:
        raise ValueError(f"deform_conv2d: the output would be of size {size}; use a larger input or padding.")
    if groups * weight.shape[1] != channels or weight.shape[0] % max(groups, 1):
        raise ValueError(f"deform_conv2d: weight {tuple(weight.shape)} does not fit an input of {channels} channels.")
    if offset_groups < 1 or channels % offset_groups:
        raise ValueError(
            f"deform_conv2d: {offset.shape[1]} offset channels do not fit {taps} taps and {channels} channels."
        )
    if offset.shape != (input.shape[0], 2 * offset_groups * taps, *size):
        want = (input.shape[0], 2 * offset_groups * taps, *size)
        raise ValueError(f"deform_conv2d: offset is {tuple(offset.shape)} where {want} is needed.")
    if mask is not None and mask.shape != (input.shape[0], offset_groups * taps, *size):
        want = (input.shape[0], offset_groups * taps, *size)
        raise ValueError(f"deform_conv2d: mask is {tuple(mask.shape)} where {want} is needed.")
    return groups, offset_groups


def _corners(offset, offset_groups, size_in, kernel, stride, padding, dilation) -> tuple[Tensor, Tensor]:
    """The 4 neighbours of every tap: cell index and bilinear share, both (B, cells, K, offset_groups, 4).

    The index counts cells of one map row by row.  A neighbour outside the map has share 0 (and some valid index).
    """
    height, width = size_in
    height_out, width_out = offset.shape[-2:]
    taps, cells = kernel[0] * kernel[1], height_out * width_out
    offset = offset.reshape(offset.shape[0], offset_groups, taps, 2, cells).permute(3, 0, 4, 2, 1)

    def steps(count: int, step: int, start: int = 0) -> Tensor:
        return torch.arange(count, dtype=offset.dtype, device=offset.device) * step + start

    cell_y = steps(height_out, stride[0], -padding[0]).repeat_interleave(width_out)
    cell_x = steps(width_out, stride[1], -padding[1]).repeat(height_out)
    tap_y = steps(kernel[0], dilation[0]).repeat_interleave(kernel[1])
    tap_x = steps(kernel[1], dilation[1]).repeat(kernel[0])
    y = offset[0] + (cell_y[:, None] + tap_y).unsqueeze(-1)
    x = offset[1] + (cell_x[:, None] + tap_x).unsqueeze(-1)
    rows, columns = _neighbours(y, height), _neighbours(x, width)
    index = [row * width + column for row, _ in rows for column, _ in columns]
    share = [share_y * share_x for _, share_y in rows for _, share_x in columns]
    return torch.stack(index, -1), torch.stack(share, -1)


def _neighbours(place: Tensor, size: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """The cells before and after fractional places on an axis of ``size`` cells: (index int32, linear share) of each.

    A neighbour outside the axis has share 0 and the index of the nearest cell.
    """
    before = place.detach().floor()
    fraction = place - before
    pairs = []
    for cell, share in ((before, 1 - fraction), (before + 1, fraction)):
        index = cell.clamp(0, size - 1)
        # A diverged (NaN) offset must give a NaN output, not an index out of range.
        pairs.append((index.nan_to_num(0.0).int(), share * (index == cell)))
    return tuple(pairs)


def _project_then_gather(input: Tensor, weight: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """One group: kernel matrices first, then one bag of 4 * K rows an output cell.  Returns (B * cells, C_out)."""
    batch, channels, height, width = input.shape
    rows = input.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    return _gather(project_taps(rows, weight), weight.shape[0], index, share, height * width)


def project_taps(rows: Tensor, weight: Tensor) -> Tensor:
    """Cells (N, C) times the kernel matrix of every tap of ``weight`` (D, C, kh, kw): (N, kh * kw * D)."""
    return rows @ weight.permute(1, 2, 3, 0).reshape(rows.shape[1], -1)


def sample_projected(projected: Tensor, offset: Tensor, mask: Tensor | None, kernel: tuple[int, int]) -> Tensor:
    """The second half of a deformable convolution with "same" padding and stride 1: (B, D, H, W).

    ``projected`` (B, H, W, K * D) holds :func:`project_taps` of every cell; ``offset`` and ``mask`` as in
    :func:`deform_conv2d`, and so is the precision.  Made for a CPU: whoever has the projection from elsewhere (coarse
    maps that are enlarged, half precision) needs no more.
    """
    batch, height, width, columns = projected.shape
    taps, cells, padding = math.prod(kernel), height * width, tuple(size // 2 for size in kernel)
    dtype = torch.float64 if projected.dtype == torch.float64 else torch.float32
    with torch.autocast("cpu", enabled=False):
        index, share = _corners(offset.to(dtype), 1, (height, width), kernel, (1, 1), padding, (1, 1))
        if mask is not None:
            share = share * mask.to(dtype).reshape(batch, 1, taps, cells).permute(0, 3, 2, 1).unsqueeze(-1)
        out = _gather(projected.to(dtype), columns // taps, index, share, cells)
    return out.reshape(batch, height, width, columns // taps).permute(0, 3, 1, 2)


def _gather(projected: Tensor, out_channels: int, index: Tensor, share: Tensor, cells_in: int) -> Tensor:
    """One bag of 4 * K rows of the projection of B * ``cells_in`` cells for each output cell: (B * cells, C_out)."""
    taps = index.shape[2]
    rows = projected.reshape(-1, out_channels)
    tap = torch.arange(taps, dtype=_index_dtype(len(rows))).view(1, 1, -1, 1, 1)
    index = _in_batch(index, cells_in, taps, tap)
    return _weighted_sum(rows, index.reshape(-1, taps * 4), share.reshape(-1, taps * 4))


def _gather_then_project(input: Tensor, weight: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """Any groups: interpolated columns first, then one matrix product a group.  Returns (B * cells, C_out)."""
    batch, channels, height, width = input.shape
    out_channels, group_channels, *kernel = weight.shape
    offset_groups, taps, groups = index.shape[3], math.prod(kernel), channels // group_channels
    rows = input.permute(0, 2, 3, 1).reshape(-1, channels // offset_groups)
    group = torch.arange(offset_groups, dtype=_index_dtype(len(rows))).view(1, 1, 1, -1, 1)
    index = _in_batch(index, height * width, offset_groups, group)
    columns = _weighted_sum(rows, index.reshape(-1, 4), share.reshape(-1, 4))
    cells = batch * index.shape[1]
    columns = columns.reshape(cells, taps, groups, group_channels).permute(2, 0, 1, 3)
    columns = columns.reshape(groups, cells, taps * group_channels)
    kernels = weight.reshape(groups, -1, group_channels, taps).permute(0, 3, 2, 1)
    kernels = kernels.reshape(groups, taps * group_channels, out_channels // groups)
    return torch.bmm(columns, kernels).permute(1, 0, 2).reshape(cells, out_channels)


def _index_dtype(count: int) -> torch.dtype:
    """The narrowest type that counts ``count`` rows; half the bytes to move."""
    return torch.int32 if count <= torch.iinfo(torch.int32).max else torch.int64


def _in_batch(index: Tensor, cells: int, parts: int, part: Tensor) -> Tensor:
    """Row of each cell ``index`` (B, ...) of one map among the ``parts`` rows of every cell of every map."""
    first = torch.arange(index.shape[0], dtype=part.dtype).view(-1, 1, 1, 1, 1) * (cells * parts)
    return index.to(part.dtype) * parts + (first + part)


def _weighted_sum(rows: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """``sum_t share[m, t] * rows[index[m, t]]`` for rows (R, D), index and share (M, T): (M, D)."""
    if index.shape[0] == 0:
        return rows.new_zeros(0, rows.shape[1]) + rows.sum() + share.sum()
    return _WeightedSum.apply(rows, index, share)


class _WeightedSum(torch.autograd.Function):
    """A weighted ``embedding_bag`` whose backward is one too.

    Forward, output row m is the bag of the rows it reads.  Backward, row r's gradient is the bag of the outputs that
    read it: the same shares as a sparse matrix, read by columns instead of rows, which SciPy turns by counting, in a
    seventh of the time of a sort.  A share's gradient is the product of its row and its output's gradient, one for
    every entry of that matrix: a sampled product, in half the time of PyTorch's own backward of the bag.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, share: Tensor) -> Tensor:
        ctx.save_for_backward(rows, index, share)
        return F.embedding_bag(index, rows, mode="sum", per_sample_weights=share)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        rows, index, share = ctx.saved_tensors
        grad = grad.contiguous()
        bounds = torch.arange(0, index.numel() + 1, index.shape[1], dtype=index.dtype)
        index, shares = index.reshape(-1), share.reshape(-1)
        to_rows = to_share = None
        if ctx.needs_input_grad[0]:
            read = (shares.numpy(), index.numpy(), bounds.numpy())
            by_row = csr_matrix(read, shape=(len(grad), len(rows))).tocsc()
            readers, starts, turned = map(torch.from_numpy, (by_row.indices, by_row.indptr[:-1], by_row.data))
            to_rows = F.embedding_bag(readers, grad, starts, mode="sum", per_sample_weights=turned)
        if ctx.needs_input_grad[2]:
            to_share = _sampled_products(grad, rows, index, bounds).reshape(share.shape)
        return to_rows, None, to_share


def _sampled_products(left: Tensor, right: Tensor, index: Tensor, bounds: Tensor) -> Tensor:
    """``left[m] @ right[index[n]]`` for every n in ``bounds[m]`` to ``bounds[m + 1]``: (N,), left (M, D), right (R, D).

    PyTorch's kernel goes entry by entry, so it does not matter that a row's columns are neither in order nor different
    (two corners on one cell), as they should be in a sparse matrix; only more entries than columns it refuses.
    """
    each = len(index) // len(left)
    if len(right) < each:
        right = F.pad(right, (0, 0, 0, each - len(right)))
    _expect_sparse_tensors()
    size, values = (len(left), len(right)), left.new_zeros(len(index))
    entries = torch.sparse_csr_tensor(bounds, index, values, size=size, check_invariants=False)
    return torch.sparse.sampled_addmm(entries, left, right.t(), beta=0.0).values()


@lru_cache(maxsize=1)
def _expect_sparse_tensors() -> None:
    """Let PyTorch say here, unheard, what it says once in a process: that its sparse rows are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1).to_sparse_csr()


class DeformableConv2d(nn.Module):
    """A deformable convolution with the ordinary convolution that predicts its offsets, "same" padding.

    (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride).  ``modulated`` adds the sigmoid mask
    (v2: the head and the backbone of the released AlignPS; its neck is v1 without bias).  ``offset_init="zero"``
    starts as an ordinary convolution (with mask 0.5 when modulated); ``"xavier"`` starts with random offsets, as
    the released AlignPS neck does because its initialiser visits every convolution.  Parameter names and channel
    order (2 * K offsets, then K masks) are those of the released checkpoints.

    >>> layer = DeformableConv2d(8, 4, modulated=True)
    >>> layer(torch.zeros(2, 8, 5, 7)).shape
    torch.Size([2, 4, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        modulated: bool = False,
        bias: bool = False,
        offset_init: str = "zero",
    ):
        super().__init__()
        if offset_init not in ("zero", "xavier"):
            raise ValueError(f"offset_init={offset_init!r} is unknown: use 'zero' or 'xavier'.")
        self.stride, self.padding, self.modulated = stride, kernel_size // 2, modulated
        self.taps, self.offset_init = kernel_size**2, offset_init
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.conv_offset = nn.Conv2d(
            in_channels, (3 if modulated else 2) * self.taps, kernel_size, stride=stride, padding=self.padding
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kernel as in an ordinary convolution; offsets by ``offset_init``; biases zero."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.offset_init == "zero":
            nn.init.zeros_(self.conv_offset.weight)
        else:
            nn.init.xavier_uniform_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def predict_offsets(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Offsets (B, 2 * K, H_out, W_out) in input cells, y before x, and the mask (B, K, ...) in 0..1 or None."""
        with torch.autocast(features.device.type, enabled=False):
            predicted = self.conv_offset(features.to(self.conv_offset.weight.dtype))
        if not self.modulated:
            return predicted, None
        return predicted[:, : 2 * self.taps], predicted[:, 2 * self.taps :].sigmoid()

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H_out, W_out), at offsets predicted from ``features`` itself."""
        offset, mask = self.predict_offsets(features)
        return deform_conv2d(features, offset, self.weight, self.bias, self.stride, self.padding, mask=mask)
