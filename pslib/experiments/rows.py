"""The rows of an experiment as the records have them, for tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pslib.errors import require_choice
from pslib.evaluation.statistics import Interval
from pslib.experiments.catalogue import EXPERIMENTS, VARIANTS
from pslib.experiments.lookup import LostRun, at_profile, failed, find_experiment, runs_of
from pslib.experiments.records import Record
from pslib.experiments.tables import difference, summary

__all__ = ["RecordedRow", "recorded_gains", "recorded_rows", "recorded_variants", "source_of", "source_of_rows"]


@dataclass(frozen=True)
class RecordedRow:
    """One row of an experiment on one set: ``value`` over its ``seeds``, None where no run has finished."""

    value: Interval | None
    seeds: tuple[int, ...] = ()
    source: str = ""  # of its runs, see :func:`source_of`
    lost: tuple[LostRun, ...] = ()  # runs that were computed and cannot be compared

    @property
    def absent(self) -> str:
        """Why there is no value, in words; empty where there is one.

        >>> RecordedRow(None).absent, RecordedRow(None, lost=(LostRun("seed 0 failed: not finite", 0),)).absent
        ('not recorded yet', 'failed: seed 0')
        """
        return "" if self.value is not None else failed(self.lost) or "not recorded yet"


def recorded_rows(
    name: str, profile: str = "tiny", what: str = "map", boxes: str = "detected"
) -> dict[str, dict[str, RecordedRow]]:
    """Every row of the experiment ``name`` on each of its sets, ``{label: {set: RecordedRow}}``.

    Measures as in :func:`pslib.experiments.tables.per_query`, and "recall" of detection, whose interval is the lowest
    and highest seed.
    """
    experiment = find_experiment(name)
    return {
        label: {
            kind: _recorded_row(
                *runs_of(at_profile(experiment.recipe(label, kind), profile), experiment.read(label)), what, boxes
            )
            for kind in experiment.kinds
        }
        for label in experiment.rows
    }


def recorded_gains(
    name: str, base: str, profile: str = "tiny", what: str = "map", boxes: str = "detected"
) -> dict[str, dict[str, RecordedRow]]:
    """Every other row of the experiment ``name`` minus its row ``base``, ``{label: {set: RecordedRow}}``.

    Differences are taken query by query between runs of one seed, of the seeds that both rows have, so that their
    intervals are those of the ledger's claims: what makes a person or a seed easy cancels.  UserError for a ``base``
    that is no row.
    """
    experiment = find_experiment(name)
    require_choice("row", base, experiment.rows)
    found: dict[str, dict[str, RecordedRow]] = {label: {} for label in experiment.rows if label != base}
    for kind in experiment.kinds:
        runs = {
            label: runs_of(at_profile(experiment.recipe(label, kind), profile), experiment.read(label))
            for label in experiment.rows
        }
        rivals, lost_rivals = runs[base]
        for label in found:
            group, lost = runs[label]
            seeds = sorted({r.info["seed"] for r in group} & {r.info["seed"] for r in rivals})
            value = difference(group, rivals, what, boxes) if seeds else None
            found[label][kind] = RecordedRow(value, tuple(seeds), lost=(*lost, *lost_rivals))
    return found


def _recorded_row(group: Sequence[Record], lost: Sequence[LostRun], what: str, boxes: str) -> RecordedRow:
    if not group:
        return RecordedRow(None, lost=tuple(lost))
    if what == "recall":
        recalls = [float(record.info["results"]["detection"]["recall"]) for record in group]
        value = Interval(float(np.mean(recalls)), min(recalls), max(recalls))
    else:
        value = summary(group, what, boxes)
    return RecordedRow(value, tuple(record.info["seed"] for record in group), source_of(group), tuple(lost))


def source_of(records: Sequence[Record]) -> str:
    """How many runs, on what, when and with which seeds, as a banner has it."""
    if not records:
        return "no run yet"
    devices, dates = (sorted({record.info.get(key, f"no {key}") for record in records}) for key in ("device", "date"))
    seeds = sorted({record.info["seed"] for record in records})
    span = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    runs, numbers = (f"{word}{'s' * (count > 1)}" for word, count in (("run", len(records)), ("seed", len(seeds))))
    return f"{len(records)} {runs}, {', '.join(devices)}, {span}, {numbers} {', '.join(map(str, seeds))}"


def source_of_rows(name: str, profile: str = "tiny") -> str:
    """:func:`source_of` all runs in the rows of an experiment, those of both sets."""
    experiment = find_experiment(name)
    pairs = [(label, kind) for label in experiment.rows for kind in experiment.kinds]
    recipes = {at_profile(experiment.recipe(label, kind), profile) for label, kind in pairs}
    return source_of([record for recipe in recipes for record in runs_of(recipe)[0]])


def recorded_variants(kind: str, profile: str = "tiny") -> dict[str, tuple[list[Record], list[LostRun]]]:
    """Records of every variant that stands in a table of the set ``kind``, those that see its test people.

    Beside them the runs that failed, as :func:`pslib.experiments.lookup.runs_of` has them.
    A model with several embeddings has an entry for each that a table reads, as "roi-joint@dense".
    """
    tables = [experiment for experiment in EXPERIMENTS.values() if kind in experiment.kinds]
    found: dict[str, tuple[list[Record], list[LostRun]]] = {}
    for row in dict.fromkeys(row for experiment in tables for row in experiment.rows.values()):
        variant, _, read = row.partition("@")
        if not VARIANTS[variant].folds:
            found[row] = runs_of(at_profile(VARIANTS[variant].with_(kind=kind), profile), read)
    return found
