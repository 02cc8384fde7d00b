"""Tables from records: one row a recipe, seeds summarised with an interval, the source in words."""

from collections.abc import Sequence

import numpy as np

from pslib.errors import UserError, require_choice
from pslib.evaluation.statistics import Interval, paired_bootstrap
from pslib.experiments.records import Record

__all__ = ["grouped", "main_protocol_of", "per_query", "summary", "difference", "comparison", "results_table"]


def grouped(records: Sequence[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Records of one set, recipe and hash together, seeds in order."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: record.info["seed"]):
        recipe = record.info["recipe"]
        groups.setdefault((recipe["kind"], recipe["name"], record.info["hash"]), []).append(record)
    return dict(sorted(groups.items()))


def main_protocol_of(record: Record) -> str:
    """The protocol a record's headline number is taken from."""
    names = record.info["protocols"]
    return next((name for name in ("TestG100", "regular") if name in names), names[0])


def per_query(records: Sequence[Record], what: str = "map", boxes: str = "detected", protocol: str | None = None):
    """Per-query values in per cent over seeds, (S, Q), and the queries' people, (Q,).

    ``what`` is "map" (average precision) or "top1" (100 where the first rank is right); ``boxes`` is "detected" or
    "ground-truth".
    """
    require_choice("measure", what, ("map", "top1"))
    name = protocol or main_protocol_of(records[0])
    if what == "map":
        values = np.stack([record.ap(name, boxes) for record in records])
    else:
        values = np.stack([record.rank(name, boxes) == 1 for record in records])
    return 100 * values.astype(np.float64), records[0].people(name)


def summary(
    records: Sequence[Record], what: str = "map", boxes: str = "detected", protocol: str | None = None
) -> Interval:
    """Mean over seeds and queries with its 95 % interval, drawn over seeds, then over query people."""
    values, people = per_query(records, what, boxes, protocol)
    return paired_bootstrap(values, people, np.random.default_rng(0))


def difference(
    records: Sequence[Record], rivals: Sequence[Record], what: str = "map", boxes: str = "detected"
) -> Interval:
    """Mean of ``records`` minus ``rivals``, seed by seed and query by query, with its 95 % interval."""
    common = sorted({r.info["seed"] for r in records} & {r.info["seed"] for r in rivals})
    if not common:
        names = " and ".join(group[0].info["recipe"]["name"] if group else "nothing" for group in (records, rivals))
        raise UserError(f"the records of {names} share no seed to compare: run both with the same seeds.")
    ours, theirs = ([r for seed in common for r in group if r.info["seed"] == seed] for group in (records, rivals))
    (first, people), (second, _) = per_query(ours, what, boxes), per_query(theirs, what, boxes)
    return paired_bootstrap(first - second, people, np.random.default_rng(0))


def results_table(records: Sequence[Record]) -> str:
    """The results of all recorded runs as text, one row per set and recipe."""
    if not records:
        return "no records yet: pslib train alignps makes one."
    lines = [
        "RECORDED results, mean over seeds [95 % interval over seeds and query people], test people, in per cent",
        f"{'set':<10} {'recipe':<10} {'seeds':>5} {'recall':>6}  {'search mAP':<19} {'top-1':<19} "
        f"{'ground-truth-box mAP':<20} {'protocol':<9} source",
    ]
    for (kind, name, _), group in grouped(records).items():
        search, first, truth = summary(group), summary(group, "top1"), summary(group, "map", "ground-truth")
        recall = np.mean([record.info["results"]["detection"]["recall"] for record in group])
        info = group[0].info
        stale = "  STALE" if group[0].stale else ""
        lines.append(
            f"{kind:<10} {name:<10} {len(group):>5} {recall:>6.1f}  {_text(search):<19} "
            f"{_text(first):<19} {_text(truth):<20} {main_protocol_of(group[0]):<9} "
            f"{info['device']}, {info['date']}{stale}"
        )
    return "\n".join(lines)


def comparison(records: Sequence[Record], name: str = "alignps", rival: str = "baseline") -> str:
    """One line a set: recipe ``name`` minus ``rival`` with intervals, and the rival's share of ground-truth-box mAP."""
    lines = []
    groups = {(kind, recipe): group for (kind, recipe, _), group in grouped(records).items()}
    for kind in sorted({kind for kind, _ in groups}):
        ours, theirs = groups.get((kind, name)), groups.get((kind, rival))
        if not ours or not theirs:
            continue
        share = summary(theirs, "map", "ground-truth").mean / summary(ours, "map", "ground-truth").mean
        parts = [
            f"{label} {_text(difference(ours, theirs, what, boxes))}"
            for label, what, boxes in (
                ("search mAP", "map", "detected"),
                ("top-1", "top1", "detected"),
                ("ground-truth-box mAP", "map", "ground-truth"),
            )
        ]
        lines.append(f"{kind:<10} {name} minus {rival}: {', '.join(parts)}; {rival} reaches {100 * share:.0f} % of it")
    return "\n".join(lines)


def _text(value: Interval) -> str:
    return f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]"
