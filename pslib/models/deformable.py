"""Ordinary convolutions made deformable without changing what they compute at the start.

AlignPS+ (Sec. IV-C, Table V) does so to stages of the backbone, the released code also to the head's towers; both
take the modulated kind (v2).  A fresh one has zero offsets and, its mask being a sigmoid of zero, the factor 0.5 on
every tap.  Doubling the kernel cancels that factor: a network of pretrained weights goes on seeing what it saw, and
a comparison with and without deformation starts from one and the same function.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pslib.ops import DeformableConv2d

__all__ = ["START_MASK", "deformable_copy", "deform_last", "load_ordinary", "random_offsets"]

START_MASK = 0.5  # sigmoid(0)


def deformable_copy(conv: nn.Conv2d) -> DeformableConv2d:
    """A modulated deformable convolution that computes what ``conv`` does until its offsets learn.

    ``conv`` is square, of "same" padding, without groups or dilation.  Draws nothing from the global generator, so
    whatever is initialised later is the same with and without.

    >>> conv, images = nn.Conv2d(3, 4, 3, padding=1), torch.rand(1, 3, 6, 5)
    >>> torch.allclose(deformable_copy(conv)(images), conv(images), atol=1e-6)
    True
    """
    with torch.random.fork_rng(devices=[]):
        copy = DeformableConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            conv.stride[0],
            modulated=True,
            bias=conv.bias is not None,
        )
    with torch.no_grad():
        copy.weight.copy_(conv.weight / START_MASK)
        if conv.bias is not None:
            copy.bias.copy_(conv.bias)
    return copy


def deform_last(layers: nn.Sequential) -> None:
    """Make the last convolution of ``layers`` deformable, in place."""
    index = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
    layers[index] = deformable_copy(layers[index])


def load_ordinary(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the state of the same module with ordinary convolutions, its kernels carried over as by a copy.

    Offsets stay as they are.  Raises RuntimeError, as ``load_state_dict``, where the state is of another module.
    """
    state = dict(tensors)
    for name, layer in module.named_modules():
        if isinstance(layer, DeformableConv2d):
            own = {f"{name}.{key}": value for key, value in layer.state_dict().items()}
            state |= {key: value for key, value in own.items() if ".conv_offset." in key}
            if f"{name}.weight" in tensors:
                state[f"{name}.weight"] = tensors[f"{name}.weight"] / START_MASK
    module.load_state_dict(state)


def random_offsets(module: nn.Module) -> None:
    """Start every deformable convolution of ``module`` from random offsets (Xavier), as the released neck does."""
    for layer in module.modules():
        if isinstance(layer, DeformableConv2d):
            layer.offset_init = "xavier"
            layer.reset_parameters()
