"""Tables from records: one row a recipe, seeds summarised with an interval, the source in words."""

import textwrap
from collections.abc import Sequence

import numpy as np

from pslib.errors import UserError, require_choice
from pslib.evaluation.statistics import Interval, bootstrap_runs
from pslib.experiments.catalogue import VARIANTS
from pslib.experiments.lookup import at_profile, find_recipe
from pslib.experiments.records import Record, main_protocol_name
from pslib.training.recipe import recipe_hash

__all__ = [
    "grouped",
    "main_protocol_of",
    "per_query",
    "summary",
    "difference",
    "comparison",
    "failed_runs",
    "results_table",
]

_ORDER = {name: place for place, name in enumerate(VARIANTS)}
WIDTH = 140


def grouped(records: Sequence[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Records of one set, recipe and hash together, seeds in order; recipes as in the registry, others after them."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: record.info["seed"]):
        recipe = record.info["recipe"]
        groups.setdefault((recipe["kind"], recipe["name"], record.info["hash"]), []).append(record)
    return dict(sorted(groups.items(), key=lambda item: (item[0][0], _ORDER.get(item[0][1], len(_ORDER)), item[0])))


def main_protocol_of(record: Record) -> str:
    """The protocol a record's headline number is taken from."""
    return main_protocol_name(record.info["protocols"])


def per_query(records: Sequence[Record], what: str = "map", boxes: str = "detected", protocol: str | None = None):
    """Per-query values in per cent over seeds, (S, Q), and the queries' people, (Q,).

    ``what`` is "map" (average precision) or "top1" (100 where the first rank is right); ``boxes`` is "detected" or
    "ground-truth".
    """
    values, people = _runs(records, what, boxes, protocol)
    return np.stack(values), people[0]


def _runs(
    records: Sequence[Record], what: str, boxes: str, protocol: str | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each record its values (Q,) in per cent and its queries' people (Q,), which differ between folds."""
    require_choice("measure", what, ("map", "top1"))
    name = protocol or main_protocol_of(records[0])
    values = [record.ap(name, boxes) if what == "map" else record.rank(name, boxes) == 1 for record in records]
    return [100 * one.astype(np.float64) for one in values], [record.people(name) for record in records]


def summary(
    records: Sequence[Record], what: str = "map", boxes: str = "detected", protocol: str | None = None
) -> Interval:
    """Mean over seeds and queries with its 95 % interval, drawn over seeds, then over query people."""
    return bootstrap_runs(*_runs(records, what, boxes, protocol), np.random.default_rng(0))


def difference(
    records: Sequence[Record], rivals: Sequence[Record], what: str = "map", boxes: str = "detected"
) -> Interval:
    """Mean of ``records`` minus ``rivals``, seed by seed and query by query, with its 95 % interval."""
    common = sorted({r.info["seed"] for r in records} & {r.info["seed"] for r in rivals})
    if not common:
        names = " and ".join(group[0].info["recipe"]["name"] if group else "nothing" for group in (records, rivals))
        raise UserError(f"the records of {names} share no seed to compare: run both with the same seeds.")
    ours, theirs = ([r for seed in common for r in group if r.info["seed"] == seed] for group in (records, rivals))
    (first, people), (second, _) = _runs(ours, what, boxes), _runs(theirs, what, boxes)
    apart = [one - other for one, other in zip(first, second, strict=True)]
    return bootstrap_runs(apart, people, np.random.default_rng(0))


def results_table(records: Sequence[Record]) -> str:
    """The results of recorded runs as text of 140 columns (if names fit), one row per set, recipe and profile."""
    if not records:
        return "no records yet: pslib train alignps makes one."
    groups = grouped(records)
    wide = max(10, *(len(_name(group[0])) for group in groups.values()))
    lines = [
        "RECORDED results, mean over seeds [95 % interval over seeds and query people], test people, in per cent",
        f"{'set':<9} {'recipe':<{wide}} {'seeds':>5} {'recall':>6}  {'search mAP':<18} {'top-1':<18} "
        f"{'ground-truth mAP':<18} {'protocol':<8} source",
    ]
    for (kind, _, _), group in groups.items():
        search, first, truth = summary(group), summary(group, "top1"), summary(group, "map", "ground-truth")
        recall = np.mean([record.info["results"]["detection"]["recall"] for record in group])
        info = group[0].info
        stale = "  STALE" if group[0].stale else ""
        line = (
            f"{kind:<9} {_name(group[0]):<{wide}} {len(group):>5} {recall:>6.1f}  {_text(search):<18} "
            f"{_text(first):<18} {_text(truth):<18} {main_protocol_of(group[0]):<8} "
        )
        source = f"{info.get('device', 'unknown device')}, {info.get('date', 'no date')}"
        room = WIDTH - len(line) - len(stale)
        # A long name takes the room of the source, and more.
        lines.append(f"{line}{textwrap.shorten(source, room, placeholder='') if room > 0 else ''}{stale}")
    if any(record.info["recipe"].get("folds") for record in records):
        lines.append("Protocol validation: cross-validated, tested on the training people that a run's fold kept out.")
    thresholds = {_name(record): record.info["recipe"].get("search_threshold") for record in records}
    for threshold in sorted({value for value in thresholds.values() if value}):
        names = ", ".join(name for name, value in thresholds.items() if value == threshold)
        lines += textwrap.wrap(
            f"Search leaves out detections that score below {threshold:g}, so their search mAP stands beside each "
            f"other's only: {names}.",
            WIDTH,
        )
    return "\n".join(lines)


def failed_runs(records: Sequence[Record]) -> str:
    """The runs that failed, one a paragraph, with their reason; empty if there is none."""
    lines = []
    for (kind, _, _), group in grouped([record for record in records if record.info["status"] != "finished"]).items():
        for record in group:
            steps = max((len(values) for name, values in record.arrays.items() if name.startswith("loss/")), default=0)
            text = (
                f"FAILED {kind} {_name(record)}, seed {record.info['seed']} (its loss curve is kept, {steps} steps): "
                f"{record.info.get('reason', 'no reason is recorded')}"
            )
            lines += textwrap.wrap(text, WIDTH, subsequent_indent="    ")
    return "\n".join(lines)


def _name(record: Record) -> str:
    """The recipe's name, with the profile where that is not tiny."""
    recipe = record.info["recipe"]
    profile = recipe.get("profile", "tiny")
    return recipe["name"] + (f" ({profile})" if profile != "tiny" else "")


def comparison(records: Sequence[Record], name: str = "alignps", rival: str = "baseline") -> str:
    """One line a set: recipe ``name`` minus ``rival`` with intervals, and the rival's share of ground-truth-box mAP.

    Of several hashes of one name, the recipe as it is named today is taken, not one with other settings; of several
    such with other settings the one with most seeds.
    """
    lines = []
    groups: dict[tuple[str, str, str], list[Record]] = {}
    found = [(key, group) for key, group in grouped(records).items() if key[1] in (name, rival) and not group[0].stale]
    for (kind, recipe, _), group in sorted(found, key=lambda item: (_as_named(item[1][0]), len(item[1]))):
        groups[kind, recipe, group[0].info["recipe"].get("profile", "tiny")] = group
    for kind, profile in sorted({(kind, profile) for kind, _, profile in groups}):
        ours, theirs = groups.get((kind, name, profile)), groups.get((kind, rival, profile))
        if not ours or not theirs or not {r.info["seed"] for r in ours} & {r.info["seed"] for r in theirs}:
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
        text = f"{name} minus {rival}: {', '.join(parts)}; {rival} reaches {100 * share:.0f} % of it"
        lines += textwrap.wrap(f"{kind:<9} {text}", WIDTH, subsequent_indent="    ")
    return "\n".join(lines)


def _as_named(record: Record) -> bool:
    """True if the record's recipe has the settings that its name has today."""
    recipe = record.recipe
    try:
        named = at_profile(find_recipe(recipe.name, recipe.kind), recipe.profile)
    except UserError:  # no such name or profile
        return False
    return recipe_hash(named, record.info["data"]["fingerprint"]) == record.info["hash"]


def _text(value: Interval) -> str:
    return f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]"
