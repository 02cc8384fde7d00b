"""From a list of images of different sizes to one padded batch, and back to what is image and what is padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ImageBatch", "Shapes", "batch_images"]

Shapes = tuple[tuple[int, int], ...]  # height and width of each image, px

# Mean and deviation of ImageNet's colours (RGB, 0..1), the usual normalisation of torchvision's weights.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageBatch:
    """Normalised images, padded with zeros at the right and the bottom."""

    tensors: Tensor  # (B, 3, H, W) float32
    sizes: Tensor  # (B, 2) int64, height and width of each image before padding
    shapes: Shapes  # the same as numbers: to read them off a GPU's tensor is to wait for it

    def valid(self, stride: int) -> Tensor:
        """1 where a cell of a map at ``stride`` has its corner inside the image: (B, 1, H/stride, W/stride)."""
        _, _, height, width = self.tensors.shape
        rows = torch.arange(0, height, stride, device=self.sizes.device)
        columns = torch.arange(0, width, stride, device=self.sizes.device)
        inside_rows = rows[None] < self.sizes[:, :1]  # (B, H/stride)
        inside_columns = columns[None] < self.sizes[:, 1:]  # (B, W/stride)
        return (inside_rows[:, None, :, None] & inside_columns[:, None, None, :]).to(self.tensors.dtype)


def batch_images(images: Sequence[Tensor], multiple: int) -> ImageBatch:
    """Normalise uint8 (0..255) or floating (0..1) images of shape (3, H, W) and pad them to one size.

    Height and width of the batch are multiples of ``multiple``, the coarsest stride of the backbone.

    >>> batch = batch_images([torch.zeros(3, 20, 30, dtype=torch.uint8), torch.ones(3, 24, 16)], multiple=16)
    >>> tuple(batch.tensors.shape), batch.shapes
    ((2, 3, 32, 32), ((20, 30), (24, 16)))
    """
    height = max(image.shape[-2] for image in images)
    width = max(image.shape[-1] for image in images)
    padded = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    device = images[0].device
    mean = torch.tensor(IMAGE_MEAN, device=device)[:, None, None]
    std = torch.tensor(IMAGE_STD, device=device)[:, None, None]
    tensors = torch.zeros(len(images), 3, *padded, device=device)
    for slot, image in zip(tensors, images, strict=True):
        scale = 255.0 if image.dtype == torch.uint8 else 1.0
        slot[:, : image.shape[-2], : image.shape[-1]] = (image.float() / scale - mean) / std
    shapes = tuple((image.shape[-2], image.shape[-1]) for image in images)
    return ImageBatch(tensors, torch.tensor(shapes, device=device), shapes)
