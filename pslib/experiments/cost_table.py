"""Records of ``pslib bench cost`` (:mod:`pslib.experiments.cost`): read, checked for age, and told in lines of text.

A row is a prepared model, or with :data:`PLAIN` after its name the same model as it was built.  It holds seconds of
each call and bytes at the peak, measured at the last number of ``boxes``; under ``elsewhere`` the same at the others.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pslib import paths
from pslib.errors import UserError
from pslib.experiments.reported import reported
from pslib.training.recipe import COMPONENT_VERSIONS

__all__ = [
    "COST_VERSION", "PARTS", "PLAIN", "SEPARATE", "clock_of", "cost_records", "measured_at", "median_seconds",
    "precision_line", "preparing_lines", "reported_ratio", "stale_reason", "table_lines",
]  # fmt: skip

COST_VERSION = 3
PLAIN = ", plain"  # after the name of a model that is timed as it was built
SEPARATE = "AlignPS + NAE"  # two networks, as Table VI's first rows read them
PARTS = ("ops", "model", "two_stage", "roi_branch")  # of COMPONENT_VERSIONS what a search at test runs through


def cost_records(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """The committed records by file name; empty where nothing has been recorded yet."""
    found = {}
    for path in sorted((folder or paths.results_dir() / "cost").glob("*.json"), key=lambda path: path.stem):
        try:
            found[path.stem] = json.loads(path.read_text())
        except (OSError, ValueError):
            message = f"the record {path} cannot be read: delete it and run `pslib bench cost --out {path}`."
            raise UserError(message) from None
    return found


def stale_reason(record: Mapping[str, Any]) -> str:
    """Why a record no longer fits today's code, in one sentence that begins with STALE; empty where it fits.

    >>> stale_reason({"version": 3, "provenance": {"components": {**COMPONENT_VERSIONS, "ops": 0}}})
    'STALE: ops changed since this was measured; run `pslib bench cost` with --out again.'
    """
    if record.get("version", 1) != COST_VERSION:
        return (
            "STALE: measured before every call had a first one untimed, and all numbers of people as many turns; run "
            "`pslib bench cost` with --out again."
        )
    made = record["provenance"]["components"]
    changed = [name for name in PARTS if made.get(name) != COMPONENT_VERSIONS[name]]
    if changed:
        return f"STALE: {', '.join(changed)} changed since this was measured; run `pslib bench cost` with --out again."
    return ""


def reported_ratio(name: str) -> float | None:
    """Time of a model over AlignPS's in Table IX; None where the table lacks it or timed it on another GPU.

    The two networks of :data:`SEPARATE` stand in Table VI, which has the same AlignPS.
    """
    if name == SEPARATE:
        apart = reported("alignps-table6")
        times = [apart.value(row, "both", "time") for row in ("separate, concatenation", "separate, AlignPS")]
        return times[0] / times[1]
    printed = reported("alignps-table9")
    if name not in printed.rows("both") or printed.cell(name, "both", "GPU") != "V100":
        return None
    return printed.value(name, "both", "time") / printed.value("AlignPS", "both", "time")


def clock_of(record: Mapping[str, Any]) -> str:
    """Which seconds count: the processor's on a CPU, where other programs may run, and the wall's on a GPU."""
    return "cpu" if record["provenance"]["device"] == "cpu" else "wall"


def measured_at(record: Mapping[str, Any], name: str, boxes: int | None = None) -> Mapping[str, Any] | None:
    """``wall`` and ``cpu`` (seconds of each call) and ``peak_bytes`` of a model with ``boxes`` people.

    The last number of the record's unless told; None where the record has not measured it.
    """
    row = record["models"].get(name)
    if row is None or boxes in (None, record["boxes"][-1]):
        return row
    return row.get("elsewhere", {}).get(str(boxes))


def median_seconds(
    record: Mapping[str, Any], name: str, boxes: int | None = None, clock: str | None = None
) -> float | None:
    """Median seconds of a call, by the record's own clock unless told; None where it was not measured."""
    found = measured_at(record, name, boxes)
    return None if found is None else float(np.median(found[clock or clock_of(record)]))


def table_lines(record: Mapping[str, Any]) -> list[str]:
    """A record as lines of aligned text, a model each, first with the last number of people, then with the others.

    "ratio" is of the seconds shown, "elapsed" of those on the wall, "REPORTED" of times in Table IX; AlignPS being 1.
    """
    width, height = record["size"]
    lines = [
        f"{width} x {height} px, {record['boxes'][-1]} people found, {record['proposals']} proposals where a model has "
        f"them; {record['precision']}, {record['provenance']['device']}, {record['threads']} threads, "
        f"{clock_of(record)} seconds, median of {record['repeats']} calls",
        *([stale_reason(record)] if stale_reason(record) else []),
        *_block(record, record["boxes"][-1]),
    ]
    for boxes in sorted(set(record["boxes"][:-1])):
        if any(measured_at(record, name, boxes) for name in record["models"]) and boxes != record["boxes"][-1]:
            lines += [f"{boxes} people found", *_block(record, boxes)]
    return lines


def _block(record: Mapping[str, Any], boxes: int) -> list[str]:
    """The lines of one number of people: a head, then the prepared models, then those as built."""
    words = ("s", "quickest", "slowest", "ratio", "elapsed", "REPORTED", "GFLOPs", "peak MB", "M weights")
    lines = [f"  {'':<20}" + "".join(f"{word:>10}" for word in words)]
    own = {clock: median_seconds(record, "AlignPS", boxes, clock) for clock in ("wall", "cpu")}
    clock = clock_of(record)
    for name in sorted(record["models"], key=lambda name: name.endswith(PLAIN)):
        row, found, claim = record["models"][name], measured_at(record, name, boxes), reported_ratio(name)
        if found is None:
            continue
        flops = row["flops"][str(boxes)]
        seconds = {kind: float(np.median(found[kind])) for kind in ("wall", "cpu")}
        cells = (
            f"{seconds[clock]:.3f}",
            f"{min(found[clock]):.3f}",
            f"{max(found[clock]):.3f}",
            f"{seconds[clock] / own[clock]:.2f}" if own[clock] else "-",
            f"{seconds['wall'] / own['wall']:.2f}" if own["wall"] else "-",
            f"{claim:.2f}" if claim else "-",
            f"{flops / 1e9:.{0 if flops > 1e11 else 2}f}",
            f"{found['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in found else "-",
            f"{row['parameters'] / 1e6:.2f}",
        )
        lines.append(f"  {name:<20}" + "".join(f"{cell:>10}" for cell in cells))
    return lines


def preparing_lines(record: Mapping[str, Any]) -> list[str]:
    """What preparing saves each model, and the times over AlignPS's with all prepared and with all as built.

    Empty where the record has no model as it was built.
    """
    both = [name for name in record["models"] if f"{name}{PLAIN}" in record["models"]]
    if "AlignPS" not in both:
        return []
    second = {name: median_seconds(record, name) or 0.0 for name in record["models"]}
    lines = [
        "what preparing saves: "
        + ", ".join(f"{name} {100 * (1 - second[name] / second[name + PLAIN]):.0f} %" for name in both)
    ]
    for words, mark in (("all prepared", ""), ("all as built", PLAIN)):
        ratios = (f"{name} {second[name + mark] / second['AlignPS' + mark]:.2f}" for name in both if name != "AlignPS")
        lines.append(f"time over AlignPS's, {words}: " + ", ".join(ratios))
    return lines


def precision_line(record: Mapping[str, Any], full: Mapping[str, Any]) -> str:
    """Seconds of a record in half precision over those of ``full`` in float32, by model.

    Empty unless all else is alike: device, machine, threads, size, boxes and proposals.
    """
    same = ("size", "proposals", "profile", "threads")
    alike = all(record[key] == full[key] for key in same) and record["boxes"][-1] == full["boxes"][-1]
    alike = alike and all(record["provenance"][key] == full["provenance"][key] for key in ("device", "machine"))
    if not alike or record["precision"] == "float32" or full["precision"] != "float32":
        return ""
    ratios = {
        name: (median_seconds(record, name) or 0.0) / (median_seconds(full, name) or 1.0)
        for name in record["models"]
        if name in full["models"]
    }
    return f"{record['precision']} over float32, time: " + ", ".join(f"{name} {x:.2f}" for name, x in ratios.items())
