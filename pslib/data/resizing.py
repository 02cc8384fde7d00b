"""Resizing and flipping with a generator of one's own, so that a batch follows from (seed, step) alone.

torchvision's v2 transforms draw from the global random state; here the draws come from a generator passed in and
torchvision's functional forms do the rest.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

__all__ = ["fit_size", "resize_and_flip"]


def fit_size(size: Sequence[int], limits: tuple[int, int]) -> float:
    """Factor by which an image of ``size`` (H, W) fits ``limits`` (longer, shorter side in px), ratio kept.

    >>> fit_size((720, 576), (1500, 900))
    1.5625
    """
    return min(max(limits) / max(size), min(limits) / min(size))


def resize_and_flip(
    image: Tensor,
    boxes: Tensor,
    generator: torch.Generator,
    sizes: Sequence[tuple[int, int]] = (),
    flip: bool = True,
) -> tuple[Tensor, Tensor]:
    """One random training view of an image (3, H, W) and its boxes (N, 4) xyxy px.

    ``sizes`` lists (longer, shorter) sides, one is picked evenly and the ratio kept (AlignPS trains on six); empty
    keeps the stored size.  ``flip`` mirrors every second image.  Bilinear without antialiasing, as the released
    code resizes.
    """
    boxes = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(image.shape[-2:]))
    if sizes:
        limits = sizes[int(torch.randint(len(sizes), (1,), generator=generator))]
        factor = fit_size(image.shape[-2:], limits)
        size = [max(1, round(side * factor)) for side in image.shape[-2:]]
        image, boxes = F.resize(image, size, antialias=False), F.resize(boxes, size)
    if flip and float(torch.rand(1, generator=generator)) < 0.5:
        image, boxes = F.horizontal_flip(image), F.horizontal_flip(boxes)
    return image, boxes.as_subclass(Tensor)
