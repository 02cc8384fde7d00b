"""``pslib bench cost``: AlignPS's Table IX in one run: what an image costs each model, AlignPS being 1.

All models have a ResNet-50 of random weights and the papers' sizes; their boxes an image are fixed
(:func:`pslib.evaluation.cost.fixed_boxes`), all are prepared alike (:func:`pslib.evaluation.fast.prepare`), and they
take turns.  Milliseconds belong to the machine; the ratios are what can be held against the paper's.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
from pslib.models.backbones import STAGES
from pslib.models.families import Config, build, without_download
from pslib.models.nae import NAEConfig
from pslib.models.roi_alignps import RoiAlignPSConfig
from pslib.models.seqnet import SeqNetConfig
from pslib.models.two_stage import TwoStageConfig
from pslib.progress import progress
from pslib.training.recipes import make_recipe

__all__ = [
    "MODELS", "PLAIN", "Built", "bench_cost", "build_models", "clock_of", "cost_records",
    "reported_ratio", "run_cost", "table_lines",
]  # fmt: skip

IDENTITIES = 5532  # of CUHK-SYSU's training people
SIZE, BOXES, PROPOSALS = (1500, 900), (6, 100, 20), 300
PLAIN = ", plain"  # after the name of a model that is timed as it was built


def _recipe(name: str, **changes: Any) -> Any:
    return replace(make_recipe(name, "cuhk-sysu").model, **changes)


def _pixels(config: NAEConfig) -> NAEConfig:
    return replace(config, roi=replace(config.roi, pixels=True))


def _seqnet() -> SeqNetConfig:
    """NAE's sizes; how SeqNet's second head differs in its cost is its class, not its configuration."""
    nae = _recipe("nae-paper")
    return SeqNetConfig(**{item.name: getattr(nae, item.name) for item in fields(nae)})


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
    "SeqNet": {"paper": _seqnet, "tiny": SeqNetConfig},
    "OIM": {"paper": lambda: _recipe("jdi-ps-paper"), "tiny": lambda: TwoStageConfig(identity_loss="oim")},
    "E2E-PS, IAN": {"paper": lambda: _recipe("ian-paper", backbone="resnet50"), "tiny": TwoStageConfig},
}


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
        counted = count_flops(model.eval().to(image.device), [image])
        built.append(Built(name, model, counted.total, counted.by_module))
    return built


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

    For each number of ``boxes`` FLOPs are counted; time and memory are measured at the last one.  Every model is timed
    as it was built, too: what preparing gains each.  ``out`` is the JSON to write, in one piece.
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
    for one in progress(built, "first calls, unprepared"):
        name = f"{one.name}{PLAIN}"
        calls[name] = _call(one.plain, image, boxes[-1])
        calls[name]()
        rows[name] = {key: rows[one.name][key] for key in ("parameters", "flops")}
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


def _largest(by_module: Mapping[str, int], share: float = 0.02) -> dict[str, int]:
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
    return lines
