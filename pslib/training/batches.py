"""Training batches as a function of (recipe, seed, step)."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pslib.data.annotations import PersonSearchSet
from pslib.data.loading import read_image, training_labels, training_target
from pslib.data.transforms import TrainTransform
from pslib.errors import UserError
from pslib.training.recipe import Recipe

__all__ = ["TrainingBatches"]

# Decoded images are kept while all of them fit in this many bytes: the tiny sets do (0.2 GB), real ones do not.
CACHE_BYTES = 1_000_000_000


class TrainingBatches(Dataset):
    """Item ``step`` is (images, targets) of that step.

    Images are uint8 (3, H, W); a target holds ``boxes`` (N, 4) float32 xyxy px and ``labels`` (N,) int64.  Frames
    are visited in a new order every epoch; order, sizes and flips follow from seed and step alone.
    """

    def __init__(self, recipe: Recipe, data: PersonSearchSet, seed: int):
        if not data.frames:
            raise UserError(f"the training split in {data.root} has no frames: make or fetch the set again.")
        self.recipe, self.frames, self.seed = recipe, data.frames, seed
        labels = training_labels(data)
        self.targets = [training_target(frame, labels) for frame in data.frames]
        self.transform = TrainTransform(recipe.image_sizes, flip=0.5 if recipe.flip else 0.0)
        self.cache: dict[int, Tensor] = {}
        self.cached_bytes = 0

    def __len__(self) -> int:
        return self.recipe.schedule.first_step + self.recipe.schedule.steps

    @property
    def examples(self) -> int:
        """How many examples an epoch has: the frames."""
        return len(self.frames)

    def __getitem__(self, step: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        examples = [self._example(index, generator) for index in self.example_indices(step)]
        return [image for image, _ in examples], [target for _, target in examples]

    def example_indices(self, step: int) -> list[int]:
        """Which examples step ``step`` shows: consecutive places in the shuffled epochs."""
        size, count = self.recipe.schedule.batch_size, self.examples
        places = range(step * size, (step + 1) * size)
        orders = {epoch: self._epoch_order(epoch) for epoch in {place // count for place in places}}
        return [orders[place // count][place % count] for place in places]

    def _epoch_order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + 500_000_000 + epoch)
        return torch.randperm(self.examples, generator=generator).tolist()

    def _example(self, index: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return self.transform(self._image(index), self.targets[index], generator)

    def _image(self, index: int) -> Tensor:
        if index not in self.cache:
            image = read_image(self.frames[index].path)
            if not self._keeps(image):
                return image
            self.cache[index] = image
        return self.cache[index]

    def _keeps(self, image: Tensor) -> bool:
        """Whether there is room to keep ``image``, which counts from now on; each loader process has its share."""
        if self.cached_bytes + image.nbytes > CACHE_BYTES // max(1, self.recipe.workers):
            return False
        self.cached_bytes += image.nbytes
        return True

    def loader(self, first: int, last: int) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
        """Batches of the steps first..last-1, read ahead by ``recipe.workers`` processes."""
        steps = _Steps(self, range(first, last))
        for batch in DataLoader(steps, batch_size=None, num_workers=self.recipe.workers):
            if isinstance(batch, str):
                raise UserError(batch)
            yield batch


class _Steps(Dataset):
    """The batches of some steps; where there is a mistake in one, what it says, which a loader process can hand over.

    Raised in such a process it would reach the user as the text of a traceback.
    """

    def __init__(self, batches: TrainingBatches, steps: range):
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> tuple[list[Tensor], list[dict[str, Tensor]]] | str:
        try:
            return self.batches[self.steps[index]]
        except UserError as error:
            return str(error)
