"""``pslib bench cost``: AlignPS's Table IX in one run: what an image costs each model, AlignPS being 1.

All models have a ResNet-50 of random weights and the papers' sizes; their boxes an image are fixed
(:func:`pslib.evaluation.cost.fixed_boxes`), all are prepared alike (:func:`pslib.evaluation.fast.prepare`), and they
take turns.  Milliseconds belong to the machine; the ratios are what can be held against the paper's.  The records are
read and printed by :mod:`pslib.experiments.cost_table`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pslib.errors import UserError, require_choice
from pslib.evaluation.cost import Times, answer, fixed_boxes, images_of, parameter_count, peak_memory, take_turns
from pslib.evaluation.fast import PRECISIONS, prepare
from pslib.evaluation.flops import count_flops
from pslib.experiments.cost_table import (
    COST_VERSION,
    PLAIN,
    clock_of,
    cost_records,
    measured_at,
    precision_line,
    preparing_lines,
    reported_ratio,
    stale_reason,
    table_lines,
)
from pslib.experiments.records import provenance, write_json
from pslib.models.alignps import AlignPSConfig
from pslib.models.backbones import STAGES
from pslib.models.families import Config, build, without_download
from pslib.models.nae import NAEConfig
from pslib.models.roi_alignps import RoiAlignPSConfig
from pslib.models.seqnet import SeqNetConfig
from pslib.models.two_stage import TwoStageConfig
from pslib.progress import progress
from pslib.training.recipe import COMPONENT_VERSIONS
from pslib.training.recipes import make_recipe

__all__ = [
    "MODELS", "PLAIN", "TRAINING_ONLY", "Built", "bench_cost", "build_models", "clock_of", "cost_records",
    "measured_at", "precision_line", "preparing_lines", "reported_ratio", "run_cost", "stale_reason", "table_lines",
]  # fmt: skip

IDENTITIES = 5532  # of CUHK-SYSU's training people
SIZE, BOXES, PROPOSALS = (1500, 900), (6, 100, 20), 300
ELSEWHERE, AS_BUILT = 1, 2  # turns at the other numbers of people, and of the models as they were built


def _recipe(name: str, **changes: Any) -> Any:
    return replace(make_recipe(name, "cuhk-sysu").model, **changes)


def _pixels(config: NAEConfig) -> NAEConfig:
    return replace(config, roi=replace(config.roi, pixels=True))


# What Table IX calls each model; the configuration that is timed, and the tiny profile's of the same kind.
MODELS: dict[str, dict[str, Callable[[], Config]]] = {
    "AlignPS": {"paper": lambda: _recipe("alignps-paper"), "tiny": AlignPSConfig},
    "AlignPS+": {
        "paper": lambda: _recipe("alignps-plus-paper"),
        "tiny": lambda: AlignPSConfig(deformable_stages=STAGES),
    },
    "ROI-AlignPS": {"paper": lambda: _recipe("roi-alignps-paper", mutual=()), "tiny": RoiAlignPSConfig},
    "NAE": {"paper": lambda: _recipe("nae-paper"), "tiny": NAEConfig},
    "NAE+": {"paper": lambda: _pixels(_recipe("nae-paper")), "tiny": lambda: _pixels(NAEConfig())},
    "SeqNet": {"paper": lambda: _recipe("seqnet-paper"), "tiny": SeqNetConfig},
    "OIM": {"paper": lambda: _recipe("jdi-ps-paper"), "tiny": lambda: TwoStageConfig(identity_loss="oim")},
    "E2E-PS, IAN": {"paper": lambda: _recipe("ian-paper", backbone="resnet50"), "tiny": TwoStageConfig},
}
# Parts that a model holds for training only: at test nobody calls them, and they do not count as its weights.
TRAINING_ONLY = {"ROI-AlignPS": ("rpn",)}


@dataclass(frozen=True)
class Built:
    """A model of Table IX, ready to be timed, with the FLOPs of one image: in all, and by module."""

    name: str
    plain: nn.Module
    flops: int
    by_module: Mapping[str, int]


def build_models(
    names: Sequence[str],
    image: Tensor,
    detections: int,
    proposals: int = PROPOSALS,
    profile: str = "paper",
    identities: int = IDENTITIES,
) -> list[Built]:
    """Build the models ``names`` with fixed boxes and random weights, on the device of ``image``.

    Counts their FLOPs on ``image`` (3, H, W).  ``profile`` is "paper" (ResNet-50) or "tiny".
    """
    built = []
    for name in names:
        config = MODELS[require_choice("model", name, MODELS)][require_choice("profile", profile, ("paper", "tiny"))]()
        torch.manual_seed(0)
        model = build(fixed_boxes(without_download(config), detections, proposals), identities)
        _keep_boxes(model)
        counted = count_flops(model.eval().to(image.device), [image])
        built.append(Built(name, model, counted.total, counted.by_module))
    return built


@torch.no_grad()
def _keep_boxes(model: nn.Module) -> None:
    """Let every head of proposals and regions leave its boxes where they are: zero what they are moved by.

    At the paper's size random weights throw the boxes out of the image, as slivers or as nothing, so that a second head
    has too few left and pooling has other work than on people.  Layers of zeros cost as much as any.
    """
    for name, layer in model.named_modules():
        moves = name.endswith(".bbox_pred") or (isinstance(layer, nn.Linear) and layer.out_features == 4)
        if moves and isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def run_cost(
    size: tuple[int, int] = SIZE,
    boxes: Sequence[int] = BOXES,
    repeats: int = 3,
    device: str = "cpu",
    precision: str = "float32",
    models: Sequence[str] = tuple(MODELS),
    out: Path | None = None,
    proposals: int = PROPOSALS,
    profile: str = "paper",
) -> dict[str, Any]:
    """Measure the ``models`` on one image of ``size`` (width, height) px; returns the record.

    First an untimed call of every prepared model tells its peak memory; then the models take ``repeats`` turns at the
    last number of ``boxes``, and :data:`ELSEWHERE` at the others, memory and time of the same calls.  FLOPs are counted
    at each.  In float32 every model is timed as it was built, too, in :data:`AS_BUILT` of these turns: what preparing
    gains it.  ``out`` is the JSON to write, in one piece.
    """
    require_choice("precision", precision, PRECISIONS)
    if not models or not boxes or min(size) < 32:
        raise UserError(
            f"{len(models)} models on an image of {size} px with {list(boxes)} people measure nothing: give a model, a "
            "number of people, and 32 px or more."
        )
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {device} is not here: leave --device out to measure on the CPU.")
    (image,) = images_of([size], device)
    main, others = boxes[-1], tuple(count for count in dict.fromkeys(boxes) if count != boxes[-1])
    built = build_models(models, image, main, proposals, profile)
    rows: dict[str, dict[str, Any]] = {}
    calls = {one.name: _call(prepare(one.plain, precision), image, main) for one in built}
    for one in progress(built, "first calls"):
        rows[one.name] = {
            "peak_bytes": peak_memory(calls[one.name], device),  # also the call that warms up
            "parameters": parameter_count(one.plain, TRAINING_ONLY.get(one.name, ())),
            "flops": {str(main): one.flops},
            "layers": _largest(one.by_module),
        }
    turns = dict.fromkeys(calls, repeats)
    if precision == "float32":
        for one in built:
            name = f"{one.name}{PLAIN}"
            calls[name], turns[name] = _call(one.plain, image, main), min(AS_BUILT, repeats)
            rows[name] = {key: rows[one.name][key] for key in ("parameters", "flops")}
    for name, times in take_turns(calls, turns, device, warm_ups=0).items():
        rows[name] |= _measured(times)
    calls.clear()
    built.clear()
    for count in progress(others, "other numbers of people") if others else ():
        built = build_models(models, image, count, proposals, profile)
        calls = {one.name: _call(prepare(one.plain, precision), image, count) for one in built}
        for one in built:
            rows[one.name]["flops"][str(count)] = one.flops
        for name, times in take_turns(calls, min(ELSEWHERE, repeats), device, warm_ups=0, memory=True).items():
            rows[name].setdefault("elsewhere", {})[str(count)] = _measured(times)
    record = {
        "version": COST_VERSION,
        "size": list(size),
        "boxes": list(boxes),
        "proposals": proposals,
        "repeats": repeats,
        "precision": precision,
        "profile": profile,
        "threads": torch.get_num_threads(),
        "models": rows,
        "provenance": provenance(_device_name(device), None) | {"components": dict(COMPONENT_VERSIONS)},
    }
    if out is not None:
        write_json(out, record, sort_keys=True)
    return record


def bench_cost(options: Any) -> None:
    """``pslib bench cost``: the options of the command line, checked and handed on; prints the table."""
    sides = options.size.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() for side in sides):
        raise UserError(f"--size {options.size} is no size: give width and height in px, e.g. 1500x900.")
    size = (int(sides[0]), int(sides[1]))
    models = tuple(options.models or MODELS)
    record = run_cost(size, options.boxes, options.repeats, options.device, options.precision, models, options.out)
    print("\n".join(table_lines(record)))


def _call(model: nn.Module, image: Tensor, boxes: int) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return answer(model, image, boxes)

    return call


def _measured(times: Times) -> dict[str, Any]:
    """What a record holds of measured calls: seconds of each, and bytes at the peak where they were taken."""
    found: dict[str, Any] = {kind: [round(seconds, 4) for seconds in getattr(times, kind)] for kind in ("wall", "cpu")}
    return found | ({"peak_bytes": max(times.peak)} if times.peak else {})


def _largest(by_module: Mapping[str, int], share: float = 0.02) -> dict[str, int]:
    """The FLOPs of modules that hold at least ``share`` of all: layers too small to be seen are left out."""
    least = share * max(by_module.values())
    return {name: count for name, count in by_module.items() if count >= least}


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
