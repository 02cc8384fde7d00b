"""Do two tasks pull shared weights the same way?  The cosine between the gradients of detection and of re-id.

AlignPS, Sec. III-B ("Task Alignment"), argues that the tasks stand in each other's way.  Where two losses reach the
same weights, the angle of their gradients says whether one step can serve both: cosine near 1, the same direction;
near -1, what one wins the other loses; near 0, they hardly meet.  In a space of many thousand weights almost any two
vectors are near 0, so the cosine of *one* task's gradients on *different* scenes stands beside as a yardstick.  Where
that is small, most of a gradient is noise, and noise hides even opposed means: gradients are then summed over batches.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor, nn

from pslib.models.alignps import AlignPS
from pslib.training.recipe import LossWeights

__all__ = ["TASKS", "both_ways", "meeting_of", "shared_parts", "task_gradients"]

# The losses of each task, as the model names them.
TASKS = {"detection": ("classification", "box", "centerness"), "re-id": ("oim", "triplet")}

Batch = tuple[Sequence[Tensor], Sequence[dict[str, Tensor]]]


def shared_parts(model: AlignPS) -> dict[str, nn.Module]:
    """The parts of ``model`` that both tasks' losses reach: backbone and neck, and the tower that T1 or T2 shares.

    >>> from pslib.models.alignps import AlignPSConfig
    >>> [list(shared_parts(AlignPS(AlignPSConfig(structure=s), 2))) for s in ("reid-first", "box")]
    [['backbone', 'neck'], ['backbone', 'neck', 'box tower']]
    """
    parts = {"backbone": model.backbone, "neck": model.neck}
    towers = {"box": model.head.box_tower, "class": model.head.class_tower}
    if model.config.structure in towers:
        parts[f"{model.config.structure} tower"] = towers[model.config.structure]
    return parts


def task_gradients(
    model: AlignPS, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], weights: LossWeights | None = None
) -> dict[str, dict[str, Tensor]]:
    """Gradient of each task's weighted losses on each shared part, as one vector: ``[task][part]`` -> (W,).

    ``weights`` are the recipe's factors (default: 1 each).  The model computes as in training, batch statistics
    included, and is left as it was: parameters, their gradients, buffers, memory, mode.
    """
    factors = weights or LossWeights()
    parts = {
        name: [parameter for parameter in part.parameters() if parameter.requires_grad]
        for name, part in shared_parts(model).items()
    }
    everything = [parameter for part in parts.values() for parameter in part]
    found = {}
    with _untouched(model), torch.enable_grad():
        losses = model.train()(images, targets)
        for task, names in TASKS.items():
            total = sum(getattr(factors, name) * losses[name] for name in names if name in losses)
            gradients = torch.autograd.grad(total, everything, retain_graph=True, materialize_grads=True)
            pieces = iter(gradients)
            found[task] = {
                name: torch.cat([next(pieces).flatten() for _ in members]) for name, members in parts.items()
            }
    return found


def meeting_of(
    gradients: Sequence[Mapping[str, Mapping[str, Tensor]]], halvings: int = 0
) -> dict[str, dict[str, float]]:
    """How two tasks' gradients meet on each shared part; ``gradients`` holds :func:`task_gradients` of N batches.

    Returns for each part: ``between``, the cosine of detection's gradient with re-id's; ``detection`` and ``re-id``,
    the cosine of a task's gradient with itself; ``room``, how far from 0 ``between`` could lie if both tasks' means had
    one line: the root of the product of the two before, 0 if one of them is below 0; ``error``, the standard error of
    ``between`` by leaving out one batch at a time (nan below three batches); ``share``, re-id's part of the two
    gradients' lengths, 0..1.  A cosine with a gradient that is zero is nan.

    Cosines are means over all pairs of *different* batches, so that what is accidental in one batch enters none; nan
    with a single batch.  With ``halvings``, gradients are summed over halves of the batches, and the cosine of one half
    with the other is averaged over that many random halvings: noise averages out, what the batches agree on stays.
    """
    count = len(gradients)
    pairs = _halves(count, halvings) if halvings else [([i], [j]) for i, j in combinations(range(count), 2)]
    sums = [half for pair in pairs for half in pair] or [[0]]
    meeting = {}
    for part in gradients[0][next(iter(TASKS))]:
        both = torch.cat([torch.stack([batch[task][part] for batch in gradients]) for task in TASKS]).double()
        products = both @ both.T  # (2N, 2N), of all with all: detection's rows first
        cosines: dict[str, list[float]] = {"between": [], **{task: [] for task in TASKS}}
        for left, right in pairs:
            first, second = _moved(left, count), _moved(right, count)
            cosines["between"] += [_cosine(products, left, second), _cosine(products, right, first)]
            for task, halves in zip(TASKS, ((left, right), (first, second)), strict=True):
                cosines[task].append(_cosine(products, *halves))
        values = {name: _mean(found) for name, found in cosines.items()}
        lengths = [sum(_length(products, _moved(half, rows)) for half in sums) for rows in (0, count)]
        meeting[part] = values | {
            "room": math.sqrt(math.prod(max(values[task], 0.0) for task in TASKS)),
            "error": _error(products, sums),
            "share": lengths[1] / sum(lengths) if sum(lengths) else float("nan"),
        }
    return meeting


def both_ways(
    model: AlignPS, batches: Iterable[Batch], weights: LossWeights | None = None, halvings: int = 100
) -> dict[str, dict[str, dict[str, float]]]:
    """:func:`meeting_of` on ``batches``: of "single" ones, and "summed" over halves of them."""
    gradients = [task_gradients(model, images, targets, weights) for images, targets in batches]
    return {"single": meeting_of(gradients), "summed": meeting_of(gradients, halvings)}


def _halves(count: int, halvings: int) -> list[tuple[list[int], list[int]]]:
    """``halvings`` random ways to make two halves of ``count`` batches; of an odd number one stays out."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(count, generator=generator).tolist() for _ in range(halvings)]
    return [(order[: count // 2], order[count // 2 : count // 2 * 2]) for order in orders]


def _moved(half: Sequence[int], rows: int) -> list[int]:
    return [row + rows for row in half]


def _length(products: Tensor, rows: Sequence[int]) -> float:
    """The length of the sum of the gradients ``rows``, from the dot ``products`` of all with all."""
    return math.sqrt(max(float(products[rows][:, rows].sum()), 0.0))


def _cosine(products: Tensor, left: Sequence[int], right: Sequence[int]) -> float:
    """The cosine of the sum of the gradients ``left`` with that of ``right``."""
    length = _length(products, left) * _length(products, right)
    return float(products[left][:, right].sum()) / length if length else float("nan")


def _error(products: Tensor, sums: Sequence[Sequence[int]]) -> float:
    """Jackknife error of the cosine between the tasks: that of the mean dot product, over the ``sums``' lengths."""
    count = len(products) // 2
    if count < 3:
        return float("nan")
    crossed = products[:count, count:] - products[:count, count:].diag().diag()  # (N, N), different batches only
    without = (crossed.sum() - crossed.sum(0) - crossed.sum(1)) / ((count - 1) * (count - 2))  # (N,)
    spread = math.sqrt((count - 1) * float(without.var(correction=0)))
    lengths = [
        _length(products, a) * _length(products, _moved(b, count))
        for first, second in zip(sums[::2], sums[1::2], strict=True)
        for a, b in ((first, second), (second, first))
    ]
    return spread * _mean([len(sums[0]) ** 2 / length if length else float("nan") for length in lengths])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


@contextmanager
def _untouched(model: AlignPS) -> Iterator[None]:
    """Put back what a forward pass in training changes: running statistics, the pending memory, the mode."""
    modes = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    pending = model._pending
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        model._pending = pending
        for module, mode in modes.items():
            module.training = mode
