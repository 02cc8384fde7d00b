"""Image and boxes changed together: multi-scale resizing and flips, by torchvision's v2 transforms.

Boxes travel as ``tv_tensors.BoundingBoxes``, so whatever moves pixels moves them too.  Chance comes from a
``torch.Generator`` passed in, never from a global one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

__all__ = ["MULTI_SCALE", "TEST_SCALE", "TestTransform", "TrainTransform", "fit_scale", "resize"]

# (longer, shorter) side in pixels.  AlignPS trains at one of six pairs drawn for each image (its paper says the longer
# side runs "from 667 to 2000"; the released configuration lists these) and tests at 1500 x 900 (sec. IV-A).
MULTI_SCALE = ((667, 400), (1000, 600), (1333, 800), (1500, 900), (1666, 1000), (2000, 1200))
TEST_SCALE = (1500, 900)


def fit_scale(height: int, width: int, pair: tuple[int, int]) -> float:
    """The factor that makes an image as large as it can be within ``pair`` (longer, shorter) at its own aspect.

    >>> fit_scale(1080, 1920, (1500, 900))
    0.78125
    """
    longer, shorter = pair
    return min(longer / max(height, width), shorter / min(height, width))


def resize(image: Tensor, boxes: Tensor, pair: tuple[int, int]) -> tuple[Tensor, Tensor, float]:
    """Resize an image (3, H, W) and its boxes (N, 4) xyxy to fit ``pair``; also the factor that was applied."""
    height, width = image.shape[-2:]
    factor = fit_scale(height, width, pair)
    size = [max(1, round(height * factor)), max(1, round(width * factor))]
    if size == [height, width]:
        return image, boxes, 1.0
    wrapped = _wrap(boxes, (height, width))
    # Without antialiasing, as the released code resizes: its weights have seen no other pixels.
    resized = F.resize(tv_tensors.Image(image), size, antialias=False)
    return resized.as_subclass(Tensor), F.resize(wrapped, size).as_subclass(Tensor), factor


def _wrap(boxes: Tensor, size: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)


@dataclass(frozen=True)
class TrainTransform:
    """A random scale of ``pairs`` (none: the image's own size), then a horizontal flip with probability ``flip``."""

    pairs: Sequence[tuple[int, int]] = ()
    flip: float = 0.5

    def __call__(
        self, image: Tensor, target: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """``image`` (3, H, W) and ``target`` with ``boxes`` (N, 4) -> the same, changed together."""
        boxes = target["boxes"]
        if self.pairs:
            chosen = int(torch.randint(len(self.pairs), (), generator=generator))
            image, boxes, _ = resize(image, boxes, self.pairs[chosen])
        if float(torch.rand((), generator=generator)) < self.flip:
            boxes = F.horizontal_flip(_wrap(boxes, tuple(image.shape[-2:]))).as_subclass(Tensor)
            image = F.horizontal_flip(image)
        return image, {**target, "boxes": boxes}


@dataclass(frozen=True)
class TestTransform:
    """The test scale (none: the image's own size).  Detections come back by dividing by the returned factor."""

    __test__ = False  # a name that pytest would collect

    pair: tuple[int, int] | None = None

    def __call__(self, image: Tensor) -> tuple[Tensor, float]:
        """``image`` (3, H, W) -> the resized image and its factor.

        >>> image, factor = TestTransform((112, 72))(torch.zeros(3, 144, 224, dtype=torch.uint8))
        >>> tuple(image.shape), factor
        ((3, 72, 112), 0.5)
        """
        if self.pair is None:
            return image, 1.0
        image, _, factor = resize(image, torch.zeros(0, 4), self.pair)
        return image, factor
