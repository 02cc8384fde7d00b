"""Records of ``pslib bench cost`` (:mod:`pslib.experiments.cost`): read, checked for age, and told in lines of text.

A row is a prepared model, or with :data:`PLAIN` after its name the same model as it was built.  It holds seconds of
each call and bytes at the peak, measured at the last number of ``boxes``; under ``elsewhere`` the same at the others.
All models took turns, so their k-th calls are of one time, and two models are compared turn by turn.  Where a row has
``reference``, these are the seconds of AlignPS's calls right before its own.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import quantile_test

from pslib import paths
from pslib.errors import UserError
from pslib.experiments.reported import reported
from pslib.training.recipe import COMPONENT_VERSIONS

__all__ = [
    "COST_VERSION", "PARTS", "PLAIN", "REFERENCE", "SEPARATE", "Range", "Ratio", "clock_of", "cost_records",
    "measured_at",
    "median_seconds", "precision_line", "preparing_lines", "record_label", "reported_ratio", "stale_reason", "standing",
    "table_lines", "time_ratio",
]  # fmt: skip

COST_VERSION = 4
PLAIN = ", plain"  # after the name of a model that is timed as it was built
REFERENCE = "AlignPS"  # whose time is 1
SEPARATE = "AlignPS + NAE"  # two networks, as Table VI's first rows read them
PARTS = ("ops", "model", "two_stage", "roi_branch")  # of COMPONENT_VERSIONS what a search at test runs through


class Ratio(NamedTuple):
    """Median of the ratios within turns, and its 95 % interval: of fewer than six turns a :class:`Range`."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} [{self.low:.2f}, {self.high:.2f}]"


class Range(Ratio):
    """Median of the ratios within turns, and the lowest and highest of them."""

    __slots__ = ()


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

    >>> stale_reason({"version": 4, "provenance": {"components": {**COMPONENT_VERSIONS, "ops": 0}}})
    'STALE: ops changed since this was measured; run `pslib bench cost` with --out again.'
    """
    if record.get("version", 1) != COST_VERSION:
        return (
            "STALE: measured before AlignPS was timed right before each rival; run `pslib bench cost` with --out again."
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


def time_ratio(
    record: Mapping[str, Any],
    name: str,
    over: str = REFERENCE,
    boxes: int | None = None,
    clock: str | None = None,
) -> Ratio | None:
    """Time of ``name`` over that of ``over``, turn by turn; None where one of the two was not measured.

    Over AlignPS these are pairs of calls, one right after the other, where the record has them.  With ``boxes`` people
    and by the ``clock`` ("cpu" or "wall"), the record's own unless told.  The interval is that of the turns' order
    statistics: it supposes nothing about how times scatter.

    >>> seconds = {"AlignPS": [1, 2, 1], "NAE": [2, 6, 1]}
    >>> rows = {name: {"cpu": values} for name, values in seconds.items()}
    >>> str(time_ratio({"boxes": [20], "provenance": {"device": "cpu"}, "models": rows}, "NAE"))
    '2.00 [1.00, 3.00]'
    """
    ours, theirs = (measured_at(record, one, boxes) for one in (over, name))
    if ours is None or theirs is None:
        return None
    if over == REFERENCE:
        ours = theirs.get("reference", ours)
    clock = clock or clock_of(record)
    turns = np.array([other / own for other, own in zip(theirs[clock], ours[clock], strict=True)])
    interval = quantile_test(turns, p=0.5).confidence_interval(0.95)
    known = np.isfinite([interval.low, interval.high]).all()
    low, high = (interval.low, interval.high) if known else (turns.min(), turns.max())
    return (Ratio if known else Range)(float(np.median(turns)), float(low), float(high))


def standing(ratios: Mapping[str, Ratio | float], rivals: Sequence[str]) -> str:
    """Which of the ``rivals`` that have a ratio AlignPS is below, which it cannot be told from, and which are below it.

    The range of a few turns lies on one side by chance too often to tell: of three turns every fourth time.

    >>> standing({"NAE": Ratio(1.4, 1.2, 1.6), "OIM": Ratio(1.1, 0.9, 1.3)}, ("NAE", "OIM", "SeqNet"))
    'AlignPS is below 1 of 2 rivals (NAE), level with OIM'
    >>> standing({"NAE": 0.9}, ("NAE",))
    'AlignPS is below 0 of 1 rivals, above NAE'
    """
    found = {name: ratios[name] for name in rivals if name in ratios}
    every = {name: one if isinstance(one, Ratio) else Ratio(one, one, one) for name, one in found.items()}
    ends = {name: one for name, one in every.items() if not isinstance(one, Range)}
    below, above = [name for name in ends if ends[name].low > 1], [name for name in ends if ends[name].high < 1]
    level = [name for name in ends if name not in below and name not in above]
    untold = [name for name in every if name not in ends]
    others = (("level with", level), ("above", above), ("too few turns for", untold))
    parts = (
        f" ({'; '.join(below)})" if below else "",
        *(f", {words} {'; '.join(names)}" for words, names in others if names),
    )
    return f"AlignPS is below {len(below)} of {len(every)} rivals" + "".join(parts)


def record_label(record: Mapping[str, Any]) -> str:
    """What was measured on, and whether it still holds, for a legend.

    >>> record_label({"size": [1500, 900], "precision": "float32", "provenance": {"device": "cpu"}})
    '1500 px, float32, cpu (RECORDED, STALE)'
    """
    stale = ", STALE" if stale_reason(record) else ""
    return f"{record['size'][0]} px, {record['precision']}, {record['provenance']['device']} (RECORDED{stale})"


def table_lines(record: Mapping[str, Any]) -> list[str]:
    """A record as lines of aligned text, a model each, first with the last number of people, then with the others.

    "ratio" is :func:`time_ratio` to AlignPS, "low" and "high" its interval, "elapsed" the same ratio of the seconds on
    the wall, and "REPORTED" of times in Table IX; "s" are seconds by the record's own clock.
    """
    width, height = record["size"]
    paired = any("reference" in row for row in record["models"].values())
    lines = [
        f"{width} x {height} px, {record['boxes'][-1]} people found, {record['proposals']} proposals where a model has "
        f"them; {record['precision']}, {record['provenance']['device']}, {record['threads']} threads, "
        f"{clock_of(record)} seconds; medians of {record['repeats']} turns, ratios within each"
        + (f", {REFERENCE} timed right before every other" if paired else "")
        + ", with "
        + ("their range" if record["repeats"] < 6 else "a 95 % interval"),
        *([stale_reason(record)] if stale_reason(record) else []),
        *_block(record, record["boxes"][-1]),
    ]
    for boxes in sorted(set(record["boxes"][:-1])):
        if any(measured_at(record, name, boxes) for name in record["models"]) and boxes != record["boxes"][-1]:
            lines += [f"{boxes} people found", *_block(record, boxes)]
    return lines


def _block(record: Mapping[str, Any], boxes: int) -> list[str]:
    """The lines of one number of people: a head, then the prepared models, then those as built."""
    words = ("s", "ratio", "low", "high", "elapsed", "REPORTED", "GFLOPs", "peak MB", "M weights")
    lines = [f"  {'':<20}" + "".join(f"{word:>10}" for word in words)]
    for name in sorted(record["models"], key=lambda name: name.endswith(PLAIN)):
        row, found, claim = record["models"][name], measured_at(record, name, boxes), reported_ratio(name)
        if found is None:
            continue
        flops, ratio = row["flops"][str(boxes)], time_ratio(record, name, boxes=boxes)
        elapsed = time_ratio(record, name, boxes=boxes, clock="wall")
        cells = (
            f"{median_seconds(record, name, boxes):.3f}",
            *([f"{value:.2f}" for value in ratio] if ratio else "---"),
            f"{elapsed.middle:.2f}" if elapsed else "-",
            f"{claim:.2f}" if claim else "-",
            f"{flops / 1e9:.{0 if flops > 1e11 else 2}f}",
            f"{found['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in found else "-",
            f"{row['parameters'] / 1e6:.2f}",
        )
        lines.append(f"  {name:<20}" + "".join(f"{cell:>10}" for cell in cells))
    return lines


def preparing_lines(record: Mapping[str, Any]) -> list[str]:
    """What preparing saves each model and costs it in memory, and times over AlignPS's, all prepared and all as built.

    Times are :func:`time_ratio`.  Empty where the record has no model as it was built.
    """
    both = [name for name in record["models"] if f"{name}{PLAIN}" in record["models"]]
    if "AlignPS" not in both:
        return []
    saved = {name: time_ratio(record, name, f"{name}{PLAIN}") for name in both}
    held = {name: [record["models"][name + mark]["peak_bytes"] / 1e6 for mark in (PLAIN, "")] for name in both}
    lines = [
        *([stale_reason(record)] if stale_reason(record) else []),
        "time prepared over time as built: " + ", ".join(f"{name} {ratio}" for name, ratio in saved.items()),
        "peak memory, as built to prepared, MB: "
        + ", ".join(f"{name} {plain:.0f} to {ready:.0f}" for name, (plain, ready) in held.items()),
    ]
    for words, mark in (("all prepared", ""), ("all as built", PLAIN)):
        ratios = (f"{name} {time_ratio(record, name + mark, 'AlignPS' + mark)}" for name in both if name != "AlignPS")
        lines.append(f"time over AlignPS's, {words}: " + ", ".join(ratios))
    return lines


def precision_line(record: Mapping[str, Any], full: Mapping[str, Any]) -> str:
    """Seconds of a record in half precision over those of ``full`` in float32, by model: medians, two runs.

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
