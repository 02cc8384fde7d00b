"""How many operations a network takes: counted from shapes, nothing large computed.

One FLOP is one multiplication, addition, comparison or division; a multiply-add is two.  Counted are products and
convolutions (PyTorch's own formulas), and by the formulas here what reads between the cells of a map: deformable
convolution, ROIAlign, bilinear resizing and ROI pooling.  Not counted are activations, normalisations, copies, sorting
and suppression, which take one or a few operations a value.

Convolutions and products are not carried out but answered with zeros of their shape, so 1500 x 900 pixels cost
seconds on one core, and the count depends on no weight.  It is the operator's count, not that of one way to compute
it: a deformable convolution costs the same on a CPU, where pslib computes it otherwise, and on a GPU.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchvision.ops
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

from pslib.errors import UserError
from pslib.ops import deform_conv2d

__all__ = ["FlopCount", "count_flops"]

_BILINEAR = 8  # four corners, a multiply-add each
_OPERATORS = torch.ops.torchvision
# Work that no formula covers must not pass as nothing: any operator from elsewhere, and these kinds of PyTorch's own.
_HEAVY = re.compile(r"(mm|conv|linear|dot|attention|lstm|gru|cdist|grid_sampler|embedding_bag|fft)")
_FREE = {"torchvision.nms"}  # comparisons of boxes, far fewer than anything counted


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of one call: in all, by operator, and by module (``"Model.neck.lateral.0"``; a module holds its parts)."""

    total: int
    by_operator: dict[str, int]
    by_module: dict[str, int]


def count_flops(model: nn.Module, images: Sequence[Tensor]) -> FlopCount:
    """Count one call ``model(images)``.  Raises :class:`UserError` for an operator of weight that has no formula."""
    with torch.no_grad(), _Shapes(), FlopCounterMode(display=False) as counter, _OneOperator():
        model(images)
    counts = counter.get_flop_counts()
    by_module = {name: sum(counts[name].values()) for name in counts if name != "Global"}
    by_operator = {str(operator): number for operator, number in counts.get("Global", {}).items()}
    return FlopCount(sum(by_operator.values()), by_operator, by_module)


class _OneOperator(TorchFunctionMode):
    """Hands pslib's deformable convolution to torchvision's operator, which is counted."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is deform_conv2d:
            function = torchvision.ops.deform_conv2d
        return function(*args, **(kwargs or {}))


class _Shapes(TorchDispatchMode):
    """Answers every operator that has a formula with zeros, and stops at heavy ones that have none."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        operator = function._overloadpacket
        if operator in flop_registry:
            shapes = function(*tree_map_only(Tensor, _meta, args), **tree_map_only(Tensor, _meta, kwargs))
            device = next(x for x in args if isinstance(x, Tensor)).device
            return tree_map_only(Tensor, lambda x: torch.zeros_like(x, device=device), shapes)
        foreign = not str(operator).startswith(("aten.", "prim"))
        if str(operator) not in _FREE and (foreign or _HEAVY.search(str(operator))):
            raise UserError(f"the operator {operator} has no FLOP formula: register one, as this file does.")
        return function(*args, **kwargs)


def _meta(x: Tensor) -> Tensor:
    return x.to("meta")


@register_flop_formula(_OPERATORS.deform_conv2d)
def _deform_conv2d(x: Sequence[int], weight: Sequence[int], *_, out_shape: Sequence[int], **__) -> int:
    """Each tap of each output cell interpolates all channels; then the products of an ordinary convolution.

    The few operations that make the interpolation weights of a tap, mask included, serve all channels: not counted.
    """
    out_channels, group_channels, *kernel = weight
    taps = out_shape[0] * math.prod(out_shape[2:]) * math.prod(kernel)
    return taps * (_BILINEAR * x[1] + 2 * group_channels * out_channels)


@register_flop_formula(torch.ops.aten.upsample_bilinear2d)
def _bilinear(*_, out_shape: Sequence[int], **__) -> int:
    return _BILINEAR * math.prod(out_shape)


@register_flop_formula(_OPERATORS.roi_align, get_raw=True)
def _roi_align(x, rois, scale, height, width, sampling_ratio, aligned, out_val=None, **_) -> int:
    """``sampling_ratio`` squared samples a bin (as many as it has cells where the ratio is not positive), one mean."""
    if sampling_ratio > 0:
        samples = len(rois) * sampling_ratio**2
    else:
        sides = (rois[:, 3:] - rois[:, 1:3]) * scale  # (R, 2) cells, width and height
        sides = sides if aligned else sides.clamp(min=1)
        samples = int((sides / torch.tensor([width, height]).to(sides)).ceil().prod(dim=1).sum())
    return x.shape[1] * height * width * (_BILINEAR * samples + len(rois))


@register_flop_formula(_OPERATORS.roi_pool, get_raw=True)
def _roi_pool(x, rois, scale, height, width, out_val=None, **_) -> int:
    """One comparison for every cell of every bin; neighbouring bins may share cells."""
    bins = []
    for side, count, cells in ((1, width, x.shape[3]), (2, height, x.shape[2])):
        first, last = (rois[:, [side, side + 2]] * scale).round().unbind(dim=1)  # (R,)
        length = (last - first + 1).clamp(min=1)[:, None] / count
        steps = torch.arange(count).to(length)
        begin = (first[:, None] + (steps * length).floor()).clamp(0, cells)
        bins.append(((first[:, None] + ((steps + 1) * length).ceil()).clamp(0, cells) - begin).sum(dim=1))
    return x.shape[1] * int((bins[0] * bins[1]).sum())
