"""What it costs a model to read one image: time, memory, parameters.  FLOPs are counted in :mod:`flops`.

Times are only worth comparing within one run on one machine, so models take turns, and beside the clock on the wall
stands the processor time of this process, which other programs on a busy machine cannot lengthen by waiting.

How many boxes a network finds depends on its weights, and the work of a second stage on how many boxes there are.
:func:`fixed_boxes` therefore fixes both for every model alike: thresholds of the score at 0, non-maximum suppression
at an overlap that nothing exceeds, and a number of proposals and of detections that are then simply the best-scored
ones.  :func:`answer` makes sure of it.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile

from pslib.errors import UserError
from pslib.progress import progress

__all__ = ["Times", "answer", "fixed_boxes", "images_of", "parameter_count", "peak_memory", "take_turns"]

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would tell stderr of each start and stop
LOST = 0.1  # share of the boxes asked for that may leave the image


@dataclass(frozen=True)
class Times:
    """Seconds of each repeated call: on the wall, and of this process's processor time (all threads)."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def middle(self, kind: str = "wall") -> float:
        """Median of the ``"wall"`` or ``"cpu"`` seconds."""
        return float(np.median(getattr(self, kind)))

    def spread(self, kind: str = "wall") -> tuple[float, float]:
        """Quickest and slowest call, s."""
        return min(getattr(self, kind)), max(getattr(self, kind))


def fixed_boxes(config: Any, detections: int, proposals: int = 300) -> Any:
    """``config`` with as many ``detections`` an image, from as many ``proposals``, whatever the weights.

    Parts that are configurations themselves change alike.  In training nothing of this has a place.

    >>> from pslib.models.two_stage import TwoStageConfig
    >>> fixed = fixed_boxes(TwoStageConfig(), detections=6, proposals=20)
    >>> fixed.detections_per_image, fixed.rpn_after_nms, fixed.rpn_before_nms, fixed.nms_threshold
    (6, (20, 20), (600, 600), 1.0)
    """
    if not 1 <= detections <= proposals:
        raise UserError(f"{detections} detections of {proposals} proposals: give 1 or more, at most as many.")
    changes: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            changes[item.name] = fixed_boxes(value, detections, proposals)
        elif item.name.endswith(("score_threshold", "class_threshold")):
            changes[item.name] = 0.0
        elif item.name.endswith("nms_threshold"):
            changes[item.name] = 1.0
        elif item.name.endswith("detections_per_image"):
            changes[item.name] = detections
        elif item.name == "rpn_after_nms":
            changes[item.name] = (proposals, proposals)
        elif item.name == "rpn_before_nms":
            changes[item.name] = tuple(max(count, proposals) for count in value)
    return replace(config, **changes)


def answer(model: nn.Module, image: Tensor, detections: int) -> list[dict[str, Tensor]]:
    """``model`` on one image (3, H, W); raises :class:`UserError` unless it finds ``detections``.

    A tenth may be missing: a box moved out of the image has no area, and no threshold keeps it.
    """
    found = model([image])
    count = len(found[0]["boxes"])
    if not (1 - LOST) * detections <= count <= detections:
        raise UserError(
            f"the model found {count} people where {detections} are to be timed: build it from "
            "fixed_boxes(config, ...), and give an image of as many cells at least."
        )
    return found


def parameter_count(model: nn.Module, leave_out: Sequence[str] = ()) -> int:
    """Learned numbers of a model, each once; tables of identities are none.

    Parts named in ``leave_out`` do not count: a model may hold parts that only training uses.

    >>> parameter_count(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))), parameter_count(nn.Linear(3, 2), ["bias"])
    (11, 6)
    """
    parts = tuple(f"{name}." for name in leave_out)
    return sum(one.numel() for name, one in model.named_parameters() if not f"{name}.".startswith(parts))


def take_turns(
    calls: Mapping[str, Callable[[], object]], repeats: int = 5, device: str = "cpu", warm_ups: int = 1, desc: str = ""
) -> dict[str, Times]:
    """Time every one of ``calls`` ``repeats`` times, in turns, after ``warm_ups`` untimed calls each.

    On a GPU the clock is read when all queued work is done.  ``desc`` names a progress bar; "" has none.
    """
    if repeats < 1:
        raise UserError(f"repeats={repeats} time nothing: give at least 1.")
    for _ in range(warm_ups):
        for call in calls.values():
            call()
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    turns = list(calls.items()) * repeats
    for name, call in progress(turns, desc) if desc else turns:
        _wait(device)
        start, worked = time.perf_counter(), time.process_time()
        call()
        _wait(device)
        wall[name].append(time.perf_counter() - start)
        cpu[name].append(time.process_time() - worked)
    return {name: Times(tuple(wall[name]), tuple(cpu[name])) for name in calls}


def peak_memory(call: Callable[[], object], device: str = "cpu") -> int:
    """Bytes of tensors that ``call`` holds at its peak, beyond what was held before it: PyTorch's allocator tells.

    The same number every time, whatever ran before.  Scratch that a library takes for itself is not in it.

    >>> peak_memory(lambda: torch.ones(1000, 2).sum() + torch.ones(500).sum())  # 2000 floats, and their sum
    8004
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(profile_memory=True) as seen:
        call()
    events = sorted(
        (event for event in seen.kineto_results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    return int(np.cumsum([0] + [event.nbytes() for event in events]).max())  # what is freed counts below 0


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def images_of(sizes: Sequence[tuple[int, int]], device: str = "cpu") -> list[Tensor]:
    """Gray noise (3, H, W) in 0..1 of each (width, height) px, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, height, width, generator=generator).to(device) for width, height in sizes]
