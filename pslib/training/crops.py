"""Step 1 of IAN's training: batches of crops, half of them people with an identity, half background.

IAN, Sec. IV-A: the ground-truth boxes of the training people and as many random boxes of background, all brought to
one size and shuffled.  Here a background box has the size of a person's box, in the same frame, away from everybody.
The paper's size is a square; the tiny profile keeps the shape of people, or what is learned from crops fits the narrow
people of the scenes badly.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from pslib.data.annotations import PersonSearchSet
from pslib.training.batches import TrainingBatches
from pslib.training.recipe import Recipe

__all__ = ["CropBatches", "background_box"]

TRIES = 50
FAR = 0.1  # largest share of a background box that any person may cover


class CropBatches(TrainingBatches):
    """Item ``step`` is (crops, targets): crops uint8 (3, h, w), targets {"labels": (1,)}, 0..I-1 or I, background."""

    def __init__(self, recipe: Recipe, data: PersonSearchSet, seed: int):
        super().__init__(recipe, data, seed)
        self.crops = list(_people(self.targets))
        self.background = len(data.person_ids)
        self.resized: dict[int, Tensor] = {}  # the crops of people, which are the same in every epoch
        self.crops += [(frame, box, self.background) for frame, box, _ in self.crops]

    def __getitem__(self, step: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        crops, targets = [], []
        for index in self.example_indices(step):
            frame, box, label = self.crops[index]
            if label == self.background:
                image = self._image(frame)
                people, size = self.targets[frame]["boxes"].numpy(), tuple(image.shape[-2:])
                crop = self._crop(image, background_box(people, box, size, generator))
            else:
                crop = self._person(index)
            mirrored = self.recipe.flip and float(torch.rand((), generator=generator)) < 0.5
            crops.append(crop.flip(2) if mirrored else crop)
            targets.append({"labels": torch.tensor([label])})
        return crops, targets

    @property
    def examples(self) -> int:
        """How many examples an epoch has: the crops."""
        return len(self.crops)

    def _person(self, index: int) -> Tensor:
        if index not in self.resized:
            frame, box, _ = self.crops[index]
            crop = self._crop(self._image(frame), box)
            if not self._keeps(crop):
                return crop
            self.resized[index] = crop
        return self.resized[index]

    def _crop(self, image: Tensor, box: np.ndarray) -> Tensor:
        x1, y1 = (int(np.floor(value)) for value in box[:2])
        x2, y2 = (max(int(np.ceil(high)), low + 1) for high, low in zip(box[2:], (x1, y1), strict=True))
        size = list(self.recipe.crop_size)
        return F.resize(image[:, max(y1, 0) : y2, max(x1, 0) : x2], size, antialias=True)


def _people(targets: list[dict[str, Tensor]]) -> Iterator[tuple[int, np.ndarray, int]]:
    """(frame, box, label) of every person who has an identity."""
    for frame, target in enumerate(targets):
        for box, label in zip(target["boxes"].numpy(), target["labels"].tolist(), strict=True):
            if label >= 0:
                yield frame, box, label


def background_box(
    people: np.ndarray, like: np.ndarray, size: tuple[int, int], generator: torch.Generator
) -> np.ndarray:
    """A box (4,) as large as ``like`` (4,), within an image of ``size`` (H, W) px and away from ``people`` (N, 4).

    Of an image too full for one, the least covered box that was tried.
    """
    extent = np.minimum(like[2:] - like[:2], size[::-1])  # width, height
    corners = torch.rand((TRIES, 2), generator=generator).numpy() * (np.array(size[::-1]) - extent)
    low, high = corners[:, None], corners[:, None] + extent  # (tries, 1, 2)
    sides = np.clip(np.minimum(people[:, 2:], high) - np.maximum(people[:, :2], low), 0, None)  # (tries, N, 2)
    covered = sides.prod(axis=2).max(axis=1, initial=0.0)
    fits = covered <= FAR * extent.prod()
    chosen = corners[fits.argmax() if fits.any() else covered.argmin()]
    return np.concatenate([chosen, chosen + extent]).astype(np.float32)
