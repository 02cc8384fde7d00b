"""``pslib bench cost``: AlignPS's Table IX in one run: what an image costs each model, AlignPS being 1.

All models have a ResNet-50 of random weights and the papers' sizes; their boxes an image are fixed
(:func:`pslib.evaluation.cost.fixed_boxes`), all are prepared alike (:func:`pslib.evaluation.fast.prepare`), and they
take turns.  A turn of all takes minutes, in which a machine changes its pace, so AlignPS is timed again right before
each rival.  Milliseconds belong to the machine; the ratios are what can be held against the paper's.  The records are
read and printed by :mod:`pslib.experiments.cost_table`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from pslib.errors import UserError, require_choice, require_writable
from pslib.evaluation.cost import Times, answer, fixed_boxes, images_of, parameter_count, peak_memory, take_turns
from pslib.evaluation.fast import PRECISIONS, prepare
from pslib.evaluation.flops import count_flops
from pslib.experiments.cost_table import (
    COST_VERSION,
    PLAIN,
    REFERENCE,
    SEPARATE,
    Ratio,
    clock_of,
    cost_records,
    measured_at,
    precision_line,
    preparing_lines,
    record_label,
    reported_ratio,
    stale_reason,
    standing,
    table_lines,
    time_ratio,
)
from pslib.experiments.records import provenance, write_json
from pslib.models.alignps import AlignPSConfig
from pslib.models.backbones import STAGES
from pslib.models.families import Config, build, without_download
from pslib.models.nae import NAEConfig
from pslib.models.proposals import ProposalConfig
from pslib.models.roi_alignps import RoiAlignPSConfig
from pslib.models.seqnet import SeqNetConfig
from pslib.models.two_stage import TwoStageConfig
from pslib.progress import progress
from pslib.training.recipe import COMPONENT_VERSIONS
from pslib.training.recipes import make_recipe

__all__ = [
    "MODELS", "PLAIN", "SEPARATE", "TRAINING_ONLY", "Built", "Ratio", "bench_cost", "build_models", "clock_of",
    "cost_records", "measured_at", "precision_line", "preparing_lines", "record_label", "reported_ratio", "run_cost",
    "stale_reason", "standing", "table_lines", "time_ratio",
]  # fmt: skip

IDENTITIES = 5532  # of CUHK-SYSU's training people
SIZE, BOXES, PROPOSALS = (1500, 900), (6, 100, 20), 300
BEFORE = f"{REFERENCE} before "  # a model: the reference's own call right before that model's, in each turn


def _recipe(name: str, **changes: Any) -> Any:
    return replace(make_recipe(name, "cuhk-sysu").model, **changes)


def _pixels(config: NAEConfig) -> NAEConfig:
    return replace(config, roi=replace(config.roi, pixels=True))


def _apart(dense: AlignPSConfig, nae: NAEConfig) -> RoiAlignPSConfig:
    proposals = {item.name: getattr(nae, item.name) for item in fields(ProposalConfig)}
    return RoiAlignPSConfig(**proposals, dense=dense, roi=nae.roi, shared=False, matching="iou")


# What Table IX calls each model; the configuration that is timed, and the tiny profile's of the same kind.
MODELS: dict[str, dict[str, Callable[[], Config]]] = {
    "AlignPS": {"paper": lambda: _recipe("alignps-paper"), "tiny": AlignPSConfig},
    "AlignPS+": {
        "paper": lambda: _recipe("alignps-plus-paper"),
        "tiny": lambda: AlignPSConfig(deformable_stages=STAGES),
    },
    # Table VI's two networks apart: both read the image, each detects, and their detections are matched.
    SEPARATE: {
        "paper": lambda: _apart(_recipe("alignps-paper"), _recipe("nae-paper")),
        "tiny": lambda: _apart(AlignPSConfig(), NAEConfig()),
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
    proposals: int = PROPOSALS,
    profile: str = "paper",
) -> dict[str, Any]:
    """Measure the ``models`` on one image of ``size`` (width, height) px; returns the record.

    At each number of ``boxes`` an untimed first call of every model tells its peak memory, then the models take
    ``repeats`` turns, AlignPS right before each of the others; FLOPs are counted at each.  In float32 every model takes
    part as it was built, too, at the last number of boxes: what preparing gains it.
    """
    require_choice("precision", precision, PRECISIONS)
    if repeats < 1:
        raise UserError(f"repeats={repeats} time nothing: give at least 1.")
    if not models or not boxes or min(size) < 32:
        raise UserError(
            f"{len(models)} models on an image of {size} px with {list(boxes)} people measure nothing: give a model, a "
            "number of people, and 32 px or more."
        )
    if device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", device):
        raise UserError(f"device {device} cannot be measured: use cpu, cuda or cuda:1.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {device} is not here: leave --device out to measure on the CPU.")
    (image,) = images_of([size], device)
    rows: dict[str, dict[str, Any]] = {}
    for count in reversed(dict.fromkeys(boxes)):  # the last number first: its rows are the table's own
        at_last = count == boxes[-1]
        built = build_models(models, image, count, proposals, profile)
        calls = {one.name: _call(prepare(one.plain, precision), image, count) for one in built}
        if at_last:
            rows = {one.name: _counts(one) | {"layers": _largest(one.by_module)} for one in built}
            if precision == "float32":
                rows |= {f"{one.name}{PLAIN}": _counts(one) | {"flops": {str(count): one.flops}} for one in built}
                calls |= {f"{one.name}{PLAIN}": _call(one.plain, image, count) for one in built}
        for one in built:
            rows[one.name]["flops"][str(count)] = one.flops
        # Also the calls that warm up: what a library prepares for a shape it sees first is nobody's time.
        first = progress(calls.items(), f"{count} people, first calls")
        peaks = {name: peak_memory(call, device) for name, call in first}
        turns = take_turns(_beside(calls), repeats, device, warm_ups=0, desc=f"{count} people, turns")
        for name in calls:
            found = {"peak_bytes": peaks[name], **_seconds(turns[name])}
            if f"{BEFORE}{name}" in turns:
                found["reference"] = _seconds(turns[f"{BEFORE}{name}"])
            if at_last:
                rows[name] |= found
            else:
                rows[name].setdefault("elsewhere", {})[str(count)] = found
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
    return record


def bench_cost(options: Any) -> None:
    """``pslib bench cost``: the options of the command line, checked and handed on; prints the table."""
    sides = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", options.size.lower())
    if not sides:
        raise UserError(f"--size {options.size} is no size: give width and height in px, e.g. 1500x900.")
    size = (int(sides[1]), int(sides[2]))
    models = tuple(options.models or MODELS)
    if options.out is not None:
        if options.out.is_dir():
            raise UserError(f"--out {options.out} is a folder: name a file in it.")
        require_writable(options.out.absolute().parent)
    record = run_cost(size, options.boxes, options.repeats, options.device, options.precision, models)
    print("\n".join(table_lines(record)))  # shown, whatever becomes of the file
    if options.out is not None:
        write_json(options.out, record, sort_keys=True)


def _call(model: nn.Module, image: Tensor, boxes: int) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return answer(model, image, boxes)

    return call


def _beside(calls: Mapping[str, Callable[[], object]]) -> dict[str, Callable[[], object]]:
    """The calls in the order of a turn: each prepared rival right after the reference, and right before its plain form.

    >>> list(_beside({"AlignPS": print, "NAE": print, "AlignPS, plain": print, "NAE, plain": print}))
    ['AlignPS', 'AlignPS, plain', 'AlignPS before NAE', 'NAE', 'NAE, plain']
    """
    order: dict[str, Callable[[], object]] = {}
    for name in calls:
        if name.endswith(PLAIN):
            continue
        if name != REFERENCE and REFERENCE in calls:
            order[f"{BEFORE}{name}"] = calls[REFERENCE]
        order |= {form: calls[form] for form in (name, f"{name}{PLAIN}") if form in calls}
    return order


def _counts(one: Built) -> dict[str, Any]:
    """What of a model is counted, not measured; its FLOPs at each number of boxes are still to come."""
    return {"parameters": parameter_count(one.plain, TRAINING_ONLY.get(one.name, ())), "flops": {}}


def _seconds(times: Times) -> dict[str, list[float]]:
    return {clock: [round(seconds, 6) for seconds in getattr(times, clock)] for clock in ("wall", "cpu")}


def _largest(by_module: Mapping[str, int], share: float = 0.02) -> dict[str, int]:
    """The FLOPs of modules that hold at least ``share`` of all: layers too small to be seen are left out."""
    least = share * max(by_module.values())
    return {name: count for name, count in by_module.items() if count >= least}


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
