"""Do two tasks pull shared weights the same way?  The cosine between the gradients of detection and of re-id.

AlignPS, Sec. III-B ("Task Alignment"), argues that the tasks stand in each other's way.  Where two losses reach the
same weights, the angle of their gradients says whether one step can serve both: cosine near 1, the same direction;
near -1, what one wins the other loses; near 0, they hardly meet.  In a space of many thousand weights almost any two
vectors are near 0, so the cosine of *one* task's gradients on *different* scenes stands beside as a yardstick.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor, nn

from pslib.models.alignps import AlignPS
from pslib.training.recipe import LossWeights

__all__ = ["TASKS", "shared_parts", "task_gradients", "gradient_meeting"]

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


def gradient_meeting(
    model: AlignPS, batches: Sequence[Batch], weights: LossWeights | None = None
) -> dict[str, dict[str, float]]:
    """How the two tasks' gradients meet on each shared part, over some ``batches`` of (images, targets).

    Returns for each part: ``between``, the cosine of detection's gradient with re-id's on the same batch; ``detection``
    and ``re-id``, the cosine of that task's gradients on two different batches (all three are means); ``share``,
    re-id's part of the two gradients' lengths, 0..1.  A cosine with a gradient that is zero is nan, and so is that of
    different batches if there is only one.
    """
    gradients = [task_gradients(model, images, targets, weights) for images, targets in batches]
    meeting = {}
    for part in shared_parts(model):
        one, other = ([found[task][part] for found in gradients] for task in TASKS)
        lengths = sum(float(g.norm()) for g in one), sum(float(g.norm()) for g in other)
        meeting[part] = {
            "between": _mean([_cosine(a, b) for a, b in zip(one, other, strict=True)]),
            **{
                task: _mean([_cosine(a, b) for a, b in combinations(found, 2)])
                for task, found in zip(TASKS, (one, other), strict=True)
            },
            "share": lengths[1] / sum(lengths) if sum(lengths) else float("nan"),
        }
    return meeting


def _cosine(a: Tensor, b: Tensor) -> float:
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length else float("nan")


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
