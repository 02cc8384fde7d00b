"""The same network, prepared to answer quickly: for evaluation only, of any model that this package builds.

:func:`prepare` copies a model and changes how the copy computes, not what:

* batch normalisations of the backbone, constants in evaluation, are folded into the convolutions before them;
* on a CPU, deformable convolutions multiply before they gather, in ``precision``; those that read concatenated maps of
  several sizes (AlignPS, Sec. III-B) multiply each map at its own size (:mod:`pslib.models.merging`);
* activations lie channels-last, no graph is kept, and ``precision`` is that of the large convolutions and products.
  Layers that read a few numbers out of many channels (scores, boxes, sampling offsets) stay in float32, where they
  cost next to nothing: in bfloat16 a box 100 px wide would be off by half a pixel.

What may differ is rounding: see :data:`TOLERANCES`.  The tests hold trained models of AlignPS, its baseline, IAN and
ROI-AlignPS to all three of them, and AlignPS+, NAE, NAE+, SeqNet and JDI-PS to the last, for boxes that are given;
float16 where there is a GPU.
"""

import copy
from collections.abc import Callable, Sequence

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from pslib.errors import require_choice
from pslib.models.merging import concatenated, project_concatenated
from pslib.ops import DeformableConv2d, sample_projected

__all__ = ["PRECISIONS", "TOLERANCES", "Prepared", "fold_batch_norms", "prepare"]

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
# On one and the same person: px of a box, difference of a score, 1 - cosine of an embedding; each at most.
TOLERANCES = {"float32": (0.05, 1e-3, 1e-5), "bfloat16": (3.0, 0.1, 0.02), "float16": (1.0, 0.02, 0.002)}
_FEW, _TIMES = 40, 8  # a layer with at most 40 outputs, an eighth of its inputs or fewer, is a read-out


class Prepared(nn.Module):
    """A model in evaluation, as :func:`prepare` returns it; same calls, same answers, all in float32."""

    def __init__(self, model: nn.Module, precision: str):
        super().__init__()
        self.model, self.precision = model, precision
        self.similarity = getattr(model, "similarity", "cosine")
        self.config = getattr(model, "config", None)
        self.eval()

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """``model(images)``: one dict an image with boxes (N, 4) px, scores (N,), embeddings (N, D)."""
        return self._run(self.model, images)

    def detect_and_embed(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[list, list[Tensor]]:
        """``model.detect_and_embed(images, boxes)``: detections, and embeddings (N, D) of the given boxes."""
        return self._run(self.model.detect_and_embed, images, boxes)

    def _run(self, work: Callable, *given: object):
        dtype = PRECISIONS[self.precision]
        device = next(self.model.parameters()).device.type
        with torch.inference_mode(), torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            return torch.utils._pytree.tree_map_only(Tensor, Tensor.float, work(*given))

    def train(self, mode: bool = True) -> "Prepared":
        """A prepared model stays in evaluation."""
        return super().train(False)


def prepare(model: nn.Module, precision: str = "float32") -> Prepared:
    """A copy of ``model`` (AlignPS, two-stage or any of their relatives) for fast evaluation; ``model`` is untouched.

    ``precision`` is "float32", "bfloat16" or "float16"; results agree within :data:`TOLERANCES` of it.
    """
    require_choice("precision", precision, PRECISIONS)
    fast = copy.deepcopy(model).eval().requires_grad_(False)
    fold_batch_norms(fast)
    on_cpu = next(fast.parameters()).device.type == "cpu"

    def better(layer: nn.Module) -> nn.Module:
        if isinstance(layer, DeformableConv2d):
            return _ProjectingConv(layer) if on_cpu and _can_project(layer) else layer
        return _FullPrecision(layer) if PRECISIONS[precision] and _is_readout(layer) else layer

    _replace(fast, better)
    return Prepared(fast.to(memory_format=torch.channels_last), precision)


def fold_batch_norms(module: nn.Module) -> int:
    """Fold constant batch normalisations into the convolutions before them, in place; returns how many.

    A normalisation in evaluation multiplies and shifts each channel by constants, which a kernel can do itself.  Looks
    into ``nn.Sequential`` and torchvision's residual networks, where the order of the layers is the order of the calls.
    """
    folded = 0
    for part in module.modules():
        if not isinstance(part, (nn.Sequential, torchvision.models.ResNet, Bottleneck, BasicBlock)):
            continue
        children = list(part.named_children())
        for (_, conv), (name, norm) in zip(children, children[1:], strict=False):
            plain = isinstance(conv, nn.Conv2d) or isinstance(conv, DeformableConv2d)
            if plain and isinstance(norm, (nn.BatchNorm2d, FrozenBatchNorm2d)):
                _fold(conv, norm)
                setattr(part, name, nn.Identity())
                folded += 1
    return folded


@torch.no_grad()
def _fold(conv: nn.Conv2d | DeformableConv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> None:
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()  # (C_out,)
    shift = norm.bias - norm.running_mean * scale
    bias = shift if conv.bias is None else conv.bias * scale + shift
    conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)


def _replace(module: nn.Module, better: Callable[[nn.Module], nn.Module]) -> None:
    """Put ``better(layer)`` in the place of every layer below ``module``, from the top; what changed is left alone."""
    for name, layer in list(module.named_children()):
        new = better(layer)
        if new is layer and not isinstance(layer, DeformableConv2d):  # its offsets are in full precision by themselves
            _replace(layer, better)
        else:
            setattr(module, name, new)


def _is_readout(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels <= _FEW and layer.out_channels * _TIMES <= layer.in_channels
    if isinstance(layer, nn.Linear):
        return layer.out_features <= _FEW and layer.out_features * _TIMES <= layer.in_features
    return False


class _FullPrecision(nn.Module):
    """A layer that computes in float32 also under autocast."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.layer(x.float())


def _can_project(layer: DeformableConv2d) -> bool:
    """True where multiplying first makes no more products than gathering first."""
    return layer.stride == 1 and layer.weight.shape[0] <= layer.weight.shape[1]


class _ProjectingConv(nn.Module):
    """A deformable convolution of one map, or of several that would be concatenated, its products in ``precision``."""

    def __init__(self, layer: DeformableConv2d):
        super().__init__()
        self.layer = layer

    def forward(self, *maps: Tensor) -> Tensor:
        """(B, C_i, H_i, W_i), each enlarged to the size of the one before it, to (B, D, H, W) of the first."""
        layer = self.layer
        offset, mask = layer.predict_offsets(concatenated(maps))
        projected = project_concatenated(maps, layer.weight)
        out = sample_projected(projected, offset, mask, tuple(layer.weight.shape[-2:]))
        return out if layer.bias is None else out + layer.bias[:, None, None]
