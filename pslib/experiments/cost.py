"""``pslib bench cost``: AlignPS's Table IX in one run: what an image costs each model, AlignPS being 1.

All models have a ResNet-50 of random weights and the papers' sizes; their boxes an image are fixed
(:func:`pslib.evaluation.cost.fixed_boxes`), all are prepared alike (:func:`pslib.evaluation.fast.prepare`), and they
take turns.  Milliseconds belong to the machine; the ratios are what can be held against the paper's.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pslib import paths
from pslib.errors import UserError, require_choice
from pslib.evaluation.cost import answer, fixed_boxes, images_of, parameter_count, peak_memory, take_turns
from pslib.evaluation.fast import PRECISIONS, prepare
from pslib.evaluation.flops import count_flops
from pslib.experiments.records import provenance
from pslib.experiments.reported import reported
from pslib.models.alignps import AlignPSConfig
from pslib.models.families import without_download
from pslib.models.two_stage import TwoStageConfig
from pslib.progress import progress
from pslib.training.recipes import make_recipe

__all__ = [
    "MODELS", "PLAIN", "Built", "bench_cost", "build_models", "clock_of", "cost_records", "missing_models",
    "reported_ratio", "run_cost", "table_lines",
]  # fmt: skip

IDENTITIES = 5532  # of CUHK-SYSU's training people
SIZE, BOXES, PROPOSALS = (1500, 900), (6, 100, 20), 300
PLAIN = ", plain"  # after the name of a model that is timed as it was built
_RPN = {
    "anchor_sizes": (32.0, 64.0, 128.0, 256.0, 512.0),
    "anchor_ratios": (0.5, 1.0, 2.0),
    "rpn_before_nms": (12000, 6000),
    "rpn_after_nms": (2000, 300),
    "rpn_nms_threshold": 0.7,
}


def _recipe(name: str, **changes: Any) -> Any:
    return replace(make_recipe(name, "cuhk-sysu").model, **changes)


def _config(module: str, name: str, **values: Any) -> Any:
    """A configuration by the name of its class; ImportError where this version has no such model."""
    try:
        return getattr(import_module(f"pslib.models.{module}"), name)(**values)
    except (AttributeError, TypeError) as error:
        raise ImportError(str(error)) from None


def _roi(**changes: Any) -> Any:
    released = {"roi_size": 14, "dim": 256, "queue_size": 5000}
    return _config("roi_branch", "RoiBranchConfig", **(released | changes))


def _tiny_roi(**changes: Any) -> Any:
    return _config("roi_branch", "RoiBranchConfig", **changes)


_R50 = {"backbone": "resnet50", "frozen_backbone": True}
_ALL = ("res3", "res4", "res5")
# What Table IX calls each model; the configuration that is timed, and the tiny profile's of the same kind.
MODELS: dict[str, dict[str, Callable[[], Any]]] = {
    "AlignPS": {"paper": lambda: _recipe("alignps-paper"), "tiny": lambda: AlignPSConfig()},
    "AlignPS+": {
        "paper": lambda: _recipe("alignps-plus-paper"),
        "tiny": lambda: AlignPSConfig(deformable_stages=_ALL),
    },
    "ROI-AlignPS": {
        "paper": lambda: _config("roi_alignps", "RoiAlignPSConfig", dense=_recipe("alignps-paper"), roi=_roi(), **_RPN),
        "tiny": lambda: _config("roi_alignps", "RoiAlignPSConfig"),
    },
    "NAE": {
        "paper": lambda: _config("nae", "NAEConfig", roi=_roi(), **_R50, **_RPN),
        "tiny": lambda: _config("nae", "NAEConfig"),
    },
    "NAE+": {
        "paper": lambda: _config("nae", "NAEConfig", roi=_roi(pixels=True), **_R50, **_RPN),
        "tiny": lambda: _config("nae", "NAEConfig", roi=_tiny_roi(pixels=True)),
    },
    "SeqNet": {
        "paper": lambda: _config("seqnet", "SeqNetConfig", roi=_roi(), **_R50, **_RPN),
        "tiny": lambda: _config("seqnet", "SeqNetConfig"),
    },
    "OIM": {"paper": lambda: _recipe("jdi-ps-paper"), "tiny": lambda: TwoStageConfig(identity_loss="oim")},
    "E2E-PS, IAN": {"paper": lambda: _recipe("ian-paper", backbone="resnet50"), "tiny": lambda: TwoStageConfig()},
}


@dataclass(frozen=True)
class Built:
    """A model of Table IX, ready to be timed, with the FLOPs of one image: in all, and by module."""

    name: str
    plain: nn.Module
    flops: int
    by_module: Mapping[str, int]


def missing_models(names: Sequence[str] = tuple(MODELS)) -> list[str]:
    """Those of the models that this version of the package cannot build."""
    return [name for name in names if _configuration(name, "tiny") is None]


def _configuration(name: str, profile: str) -> Any:
    require_choice("model", name, MODELS)
    require_choice("profile", profile, ("paper", "tiny"))
    try:
        return MODELS[name][profile]()
    except ImportError:
        return None


def build_models(
    names: Sequence[str],
    image: Tensor,
    detections: int,
    proposals: int = PROPOSALS,
    profile: str = "paper",
    identities: int = IDENTITIES,
) -> list[Built]:
    """Build the models ``names`` that there are, with fixed boxes and random weights, on the device of ``image``.

    Counts their FLOPs on ``image`` (3, H, W).  ``profile`` is "paper" (ResNet-50) or "tiny".
    """
    built = []
    for name in names:
        config = _configuration(name, profile)
        if config is None:
            continue
        torch.manual_seed(0)
        model = _model(fixed_boxes(without_download(config), detections, proposals), identities)
        counted = count_flops(model.eval().to(image.device), [image])
        built.append(Built(name, model, counted.total, counted.by_module))
    return built


def _model(config: Any, identities: int) -> nn.Module:
    """The model of ``config``: the class beside it that has its name without "Config"."""
    kind = type(config)
    return getattr(import_module(kind.__module__), kind.__name__.removesuffix("Config"))(config, identities)


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

    For each number of ``boxes`` FLOPs are counted; time and memory are measured at the last one.  The first model is
    timed unprepared, too: what preparing gains.  ``out`` is the JSON to write, in one piece.
    """
    require_choice("precision", precision, PRECISIONS)
    if not boxes or min(size) < 32:
        raise UserError(f"an image of {size} with {list(boxes)} people is none: give 32 px or more and one number.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {device} is not here: leave --device out to measure on the CPU.")
    (image,) = images_of([size], device)
    flops: dict[str, dict[str, int]] = {}
    for count in boxes:
        built = build_models(models, image, count, proposals, profile)
        for one in built:
            flops.setdefault(one.name, {})[str(count)] = one.flops
    rows: dict[str, dict[str, Any]] = {}
    calls: dict[str, Callable[[], object]] = {}
    for one in progress(built, "first calls"):
        calls[one.name] = _call(prepare(one.plain, precision), image, boxes[-1])
        rows[one.name] = {
            "peak_bytes": peak_memory(calls[one.name], device),  # also the call that warms up
            "parameters": parameter_count(one.plain),
            "flops": flops[one.name],
            "layers": _largest(one.by_module),
        }
    if built:
        first = built[0]
        calls[f"{first.name}{PLAIN}"] = _call(first.plain, image, boxes[-1])
        rows[f"{first.name}{PLAIN}"] = {key: rows[first.name][key] for key in ("parameters", "flops")}
    for name, times in take_turns(calls, repeats, device, warm_ups=0).items():
        rows[name] |= {"wall": [round(s, 4) for s in times.wall], "cpu": [round(s, 4) for s in times.cpu]}
    record = {
        "size": list(size),
        "boxes": list(boxes),
        "proposals": proposals,
        "repeats": repeats,
        "precision": precision,
        "profile": profile,
        "threads": torch.get_num_threads(),
        "models": rows,
        "missing": missing_models(models),
        "provenance": provenance(_device_name(device), None),
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f"{out.name}.part")
        part.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        part.replace(out)
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


def _largest(by_module: Mapping[str, int], share: float = 0.002) -> dict[str, int]:
    """The FLOPs of modules that hold at least ``share`` of all: layers too small to be seen are left out."""
    least = share * max(by_module.values())
    return {name: count for name, count in by_module.items() if count >= least}


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


def cost_records(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """The committed records by file name; empty where nothing has been recorded yet."""
    found = {}
    for path in sorted((folder or paths.results_dir() / "cost").glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text())
        except (OSError, ValueError):
            message = f"the record {path} cannot be read: delete it and run `pslib bench cost --out {path}`."
            raise UserError(message) from None
    return found


def reported_ratio(name: str) -> float | None:
    """Time of a model over AlignPS's in Table IX; None where the table lacks it or timed it on another GPU."""
    printed = reported("alignps-table9")
    if name not in printed.rows("both") or printed.cell(name, "both", "GPU") != "V100":
        return None
    return printed.value(name, "both", "time") / printed.value("AlignPS", "both", "time")


def clock_of(record: Mapping[str, Any]) -> str:
    """Which seconds count: the processor's on a CPU, where other programs may run, and the wall's on a GPU."""
    return "cpu" if record["provenance"]["device"] == "cpu" else "wall"


def table_lines(record: Mapping[str, Any]) -> list[str]:
    """A record as lines of aligned text, a model each; "REPORTED" is the ratio of times in Table IX."""
    width, height = record["size"]
    clock, boxes = clock_of(record), record["boxes"][-1]
    head = ("", "s", "quickest", "slowest", "ratio", "REPORTED", "GFLOPs", "peak MB", "M weights")
    lines = [
        f"{width} x {height} px, {boxes} people found, {record['proposals']} proposals where a model has them; "
        f"{record['precision']}, {record['provenance']['device']}, {record['threads']} threads, {clock} seconds, "
        f"median of {record['repeats']}",
        f"  {head[0]:<16}" + "".join(f"{word:>10}" for word in head[1:]),
    ]
    rows = record["models"]
    own = float(np.median(rows["AlignPS"][clock])) if "AlignPS" in rows else None
    for name, row in rows.items():
        seconds, claim = float(np.median(row[clock])), reported_ratio(name)
        cells = (
            f"{seconds:.3f}",
            f"{min(row[clock]):.3f}",
            f"{max(row[clock]):.3f}",
            f"{seconds / own:.2f}" if own else "-",
            f"{claim:.2f}" if claim else "-",
            f"{row['flops'][str(boxes)] / 1e9:.{0 if row['flops'][str(boxes)] > 1e11 else 2}f}",
            f"{row['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in row else "-",
            f"{row['parameters'] / 1e6:.2f}",
        )
        lines.append(f"  {name:<16}" + "".join(f"{cell:>10}" for cell in cells))
    return [*lines, *(f"  {name}: not in this version" for name in record["missing"])]
