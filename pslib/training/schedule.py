"""Parameter groups and learning rates: the part of training that is pure arithmetic."""

import math

import torch
from torch import nn

from pslib.ops import DeformableConv2d
from pslib.training.recipe import Schedule

__all__ = ["build_optimizer", "learning_rate_factor"]


def build_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """An optimiser with three kinds of parameters.

    Convolutions that predict sampling offsets learn at ``offset_rate`` of the rate, since a large early step throws
    the sampling points off the people; biases and normalisations are not decayed.  Each group remembers its own
    full rate as ``peak``.
    """
    offset_names = {
        f"{name}.conv_offset.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, DeformableConv2d)
        for parameter in ("weight", "bias")
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = schedule.learning_rate * (schedule.offset_rate if name in offset_names else 1.0)
        decay = schedule.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    settings = [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(settings, momentum=0.9)
    return torch.optim.AdamW(settings, fused=True)


def learning_rate_factor(step: int, schedule: Schedule) -> float:
    """Factor on the full learning rate at ``step``: a linear warm-up, then a cosine to 0 or divisions by 10.

    >>> [round(learning_rate_factor(step, Schedule(steps=100, warmup_steps=10)), 2) for step in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    if schedule.policy == "one-cycle":
        done = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))
    return 0.1 ** sum(step >= fraction * schedule.steps for fraction in schedule.milestones)
