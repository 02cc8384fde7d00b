"""Where the deformable neck looks: the 81 points that one cell of P3 is made from.

AlignPS, Fig. 7: the output convolution of P3 reads 9 fractional places of the merged map, and at each of them a lateral
convolution has read 9 places of C3 (or of C4).  Both offsets are learned; their composition is where a person's
embedding comes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pslib.data.annotations import PersonSearchSet
from pslib.data.loading import read_image
from pslib.data.transforms import TestTransform
from pslib.errors import UserError
from pslib.models.alignps import AlignPS
from pslib.models.batching import batch_images
from pslib.ops import DeformableConv2d

__all__ = ["SamplingSpread", "has_sampling_points", "sampling_points", "sampling_spread"]

PATHS = ("C3", "C4")


@dataclass(frozen=True, eq=False)
class SamplingSpread:
    """How far M people's sampling points reach, for one path."""

    radius: np.ndarray  # (M,) mean distance of the 81 points from the box's centre cell, in box heights
    inside: np.ndarray  # (M,) share of the 81 points inside the box, 0..1


def has_sampling_points(model: AlignPS) -> bool:
    """True if P3 is computed with deformable lateral and output convolutions."""
    layers = [*model.neck.lateral, *model.neck.output.values()]
    return "P3" in model.neck.output and all(isinstance(layer, DeformableConv2d) for layer in layers)


@torch.no_grad()
def sampling_points(
    model: AlignPS, image: Tensor, places: Tensor, paths: Sequence[str] = PATHS
) -> dict[str, Tensor]:
    """Points (N, 81, 2), xy in px, that the P3 cells at ``places`` (N, 2), xy in px, of one image (3, H, W) read.

    One entry for each of ``paths``, maps of the backbone from "C3" on: output convolution, then the lateral convolution
    of that map at the cell nearest to each of the 9 places.  Raises UserError for a neck without deformable
    convolutions, KeyError for a map that it does not read.
    """
    if not has_sampling_points(model):
        raise UserError("this model's neck has ordinary convolutions: sampling points need deformable ones.")
    maps = model.backbone(batch_images([image], multiple=model.backbone.strides[-1]).tensors)
    output, _ = model.neck.output["P3"].predict_offsets(model.neck.merge(maps)["P3"])
    first = _taps(output, places[:, None], model.backbone.strides[0])[:, 0]  # (N, 9, 2) px
    layers = zip(model.neck.lateral, maps, model.backbone.strides, strict=True)
    read = {f"C{number}": layer for number, layer in enumerate(layers, start=3)}
    points = {}
    for name in paths:
        lateral, level, stride = read[name]
        points[name] = _taps(lateral.predict_offsets(level)[0], first, stride).flatten(1, 2)
    return points


def _taps(offset: Tensor, places: Tensor, stride: int) -> Tensor:
    """The 9 places (N, K, 9, 2), xy px, read at the cells of ``places`` (N, K, 2); ``offset`` is (1, 18, H, W)."""
    _, _, height, width = offset.shape
    cell = (places / stride).floor().long()
    x, y = cell[..., 0].clamp(0, width - 1), cell[..., 1].clamp(0, height - 1)
    moved = offset[0, :, y, x].permute(1, 2, 0).unflatten(-1, (9, 2)).flip(-1)  # offsets are y before x
    grid = torch.tensor([[column, row] for row in (-1, 0, 1) for column in (-1, 0, 1)], device=offset.device)
    return (torch.stack([x, y], dim=-1)[:, :, None] + grid + moved + 0.5) * stride


def sampling_spread(
    model: AlignPS, data: PersonSearchSet, frames: Sequence[int], test_size: tuple[int, int] | None = None
) -> dict[str, SamplingSpread]:
    """:class:`SamplingSpread` of all annotated people of the ``frames`` (indices), one entry a path."""
    transform = TestTransform(test_size)
    radius: dict[str, list[Tensor]] = {name: [] for name in PATHS}
    inside: dict[str, list[Tensor]] = {name: [] for name in PATHS}
    for number in frames:
        image, scale = transform(read_image(data.frames[number].path))
        boxes = torch.from_numpy(data.frames[number].boxes) * scale
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        for name, points in sampling_points(model, image, centres).items():
            low, high = boxes[:, None, :2], boxes[:, None, 2:]
            inside[name].append(((points >= low) & (points <= high)).all(-1).float().mean(1))
            distance = (points - centres[:, None]).norm(dim=-1).mean(1)
            radius[name].append(distance / (boxes[:, 3] - boxes[:, 1]).clamp(min=1e-6))
    return {name: SamplingSpread(torch.cat(radius[name]).numpy(), torch.cat(inside[name]).numpy()) for name in PATHS}
