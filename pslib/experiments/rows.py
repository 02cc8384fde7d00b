"""The rows of an experiment as the records have them, for tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pslib.evaluation.statistics import Interval
from pslib.experiments.catalogue import EXPERIMENTS, VARIANTS
from pslib.experiments.lookup import at_profile, find_experiment, records_of
from pslib.experiments.records import Record
from pslib.experiments.tables import summary

__all__ = ["RecordedRow", "recorded_rows", "recorded_variants"]


@dataclass(frozen=True)
class RecordedRow:
    """One row of an experiment on one set: ``value`` over its ``seeds``, None where no run is recorded."""

    value: Interval | None
    seeds: tuple[int, ...] = ()
    source: str = ""  # device and date of the first run


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
                records_of(at_profile(experiment.recipe(label, kind), profile), experiment.read(label)), what, boxes
            )
            for kind in experiment.kinds
        }
        for label in experiment.rows
    }


def _recorded_row(group: Sequence[Record], what: str, boxes: str) -> RecordedRow:
    if not group:
        return RecordedRow(None)
    if what == "recall":
        recalls = [float(record.info["results"]["detection"]["recall"]) for record in group]
        value = Interval(float(np.mean(recalls)), min(recalls), max(recalls))
    else:
        value = summary(group, what, boxes)
    info = group[0].info
    return RecordedRow(value, tuple(record.info["seed"] for record in group), f"{info['device']}, {info['date']}")


def recorded_variants(kind: str, profile: str = "tiny") -> dict[str, list[Record]]:
    """Records of every variant that stands in a table of the set ``kind``, those that see its test people.

    A model with several embeddings has an entry for each that a table reads, as "roi-joint@dense".
    """
    tables = [experiment for experiment in EXPERIMENTS.values() if kind in experiment.kinds]
    found: dict[str, list[Record]] = {}
    for row in dict.fromkeys(row for experiment in tables for row in experiment.rows.values()):
        variant, _, read = row.partition("@")
        if not VARIANTS[variant].folds:
            found[row] = records_of(at_profile(VARIANTS[variant].with_(kind=kind), profile), read)
    return found
