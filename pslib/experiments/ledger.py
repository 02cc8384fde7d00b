"""The ledger: for every claim of every experiment and each set, what the records say.

A claim is a difference (or sum) of rows, taken query by query between runs of the same seed, so that what makes a seed
or a person easy cancels.  The verdict is that of :func:`pslib.evaluation.statistics.verdict`, under three conditions:
every row of the claim is recorded, with at least three common seeds, and every run has left the plateau of its re-id
loss (:mod:`pslib.experiments.plateau`).  What fails one of them is undecided, with what is missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from pslib.errors import UserError
from pslib.evaluation.statistics import Interval, Verdict, bootstrap_runs, verdict
from pslib.experiments.catalogue import EXPERIMENTS
from pslib.experiments.closing import Gap, gap_between
from pslib.experiments.history import commit_of_claim, is_ancestor
from pslib.experiments.longer import Longer, longer_rows
from pslib.experiments.lookup import LostRun, at_profile, find_experiment, runs_if_any
from pslib.experiments.measures import values_of
from pslib.experiments.plateau import plateau_reason
from pslib.experiments.records import Record
from pslib.experiments.registry import MEASURES, Claim, Experiment
from pslib.experiments.reported import reported
from pslib.training.recipe import Recipe

__all__ = ["MIN_SEEDS", "NOT_RECORDED", "Entry", "entry", "ledger", "paper_effect"]

MIN_SEEDS = 3
NOT_RECORDED = "not recorded"
# Arrays that records made before they were introduced do not have, and what to call them.
LATER_ARRAYS = {
    "detection/": "which people were detected",
    "sampling/": "where the neck samples",
    "dense:": "what the dense branch embeds",
    "roi:": "what the ROI branch embeds",
}
Rows = Mapping[str, Sequence[Record]]
Lost = Mapping[str, Sequence[LostRun]]


@dataclass(frozen=True)
class Entry:
    """One claim on one set: what was compared, what came out, and since when the claim has stood."""

    experiment: str
    claim: Claim
    set: str
    profile: str
    verdict: Verdict
    seeds: tuple[int, ...] = ()
    queries: int = 0  # or whatever the measure counts, for each seed
    interval: Interval | None = None
    per_seed: tuple[float, ...] = ()
    effect: float | None = None  # the same contrast of the paper's reported numbers
    effect_origin: str = ""  # "printed", or how not all of them are: "derived", "assumed"
    claim_commit: str = ""
    record_commits: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()  # device and date of its records
    rows_commit: str = ""  # since when its rows have had the variants of today, by name
    older: tuple[str, ...] = ()  # rows whose records were all computed before the claim was written down
    partly_older: tuple[str, ...] = ()  # rows of which some were
    longer: tuple[Longer, ...] = ()  # its rows that are recorded on a longer schedule, too
    gap: Gap | None = None  # of two rows while they trained, where their schedules are equal
    note: str = ""  # the experiment's

    @property
    def predates(self) -> bool:
        """True if no record of the claim is younger than the claim: it was written down knowing them."""
        return bool(self.older) and set(self.older) == set(self.claim.contrast)

    @property
    def at_risk(self) -> bool | None:
        """False where no record could have spoken against the claim: it is younger than all, or needs no training.

        None where git does not know the claim: nobody can tell.
        """
        if self.claim.holds_untrained:
            return False
        return None if not self.claim_commit else not self.predates

    @property
    def steps_matter(self) -> bool | None:
        """Could more steps move the difference by a third of itself or more?  None: no longer run tells.

        Where all of its rows have one and the same longer schedule, the difference on that one answers.  Elsewhere a
        row that gains so much is enough for True, for nobody knows what the others would gain.
        """
        if self.interval is None or self.claim.measure != "map":
            return None
        limit = abs(self.interval.mean) / 3
        gains = {row.label: self.claim.contrast[row.label] * row.gain for row in self.longer}
        complete = set(gains) == set(self.claim.contrast)
        if complete and len({(row.longer_steps, row.rate) for row in self.longer}) == 1:
            return abs(sum(gains.values())) >= limit
        if any(abs(gain) >= limit for gain in gains.values()):
            return True
        return False if complete else None

    def as_dict(self) -> dict[str, object]:
        """The entry as plain data."""
        ends = None if self.interval is None else [round(self.interval.low, 4), round(self.interval.high, 4)]
        return {
            "experiment": self.experiment,
            "claim": self.claim.name,
            "text": self.claim.text,
            "set": self.set,
            "profile": self.profile,
            "contrast": dict(self.claim.contrast),
            "measure": self.claim.measure,
            "unit": MEASURES[self.claim.measure],
            "kind": self.claim.kind,
            "margin": self.claim.margin,
            "seeds": list(self.seeds),
            "queries": self.queries,
            "difference": None if self.interval is None else round(self.interval.mean, 4),
            "interval": ends,
            "per_seed": [round(value, 4) for value in self.per_seed],
            "verdict": self.verdict.word,
            "reason": self.verdict.reason,
            "paper_effect": self.effect,
            "paper_effect_origin": self.effect_origin,
            "commit_of_claim": self.claim_commit,
            "commits_of_records": list(self.record_commits),
            "sources_of_records": list(self.sources),
            "commit_of_rows": self.rows_commit,
            "rows_older_than_claim": list(self.older),
            "rows_partly_older_than_claim": list(self.partly_older),
            "put_at_risk": self.at_risk,
            "rows_on_longer_schedules": [asdict(row) for row in self.longer],
            "more_steps_could_move_it_by_a_third": self.steps_matter,
            "last_gap_over_largest": None if self.gap is None or self.gap.left is None else round(self.gap.left, 4),
            "gap_closes": None if self.gap is None else self.gap.closes,
            "note": self.note,
        }


def ledger(profile: str = "tiny", experiments: Iterable[str | Experiment] | None = None) -> list[Entry]:
    """Entries of all claims of ``experiments``, named or given (all if None), sets side by side."""
    given = EXPERIMENTS.values() if experiments is None else experiments
    chosen = [one if isinstance(one, Experiment) else find_experiment(one) for one in given]
    known: dict[tuple[Recipe, str], tuple[list[Record], list[LostRun]]] = {}
    found = []
    for experiment in chosen:
        grown = {kind: longer_rows(experiment, kind, profile) for kind in experiment.kinds}
        for claim in experiment.claims:
            for kind in experiment.kinds:
                rows, others = {}, {}
                for label in claim.contrast:
                    row = at_profile(experiment.recipe(label, kind), profile), experiment.read(label)
                    if row not in known:
                        known[row] = runs_if_any(*row)
                    rows[label], others[label] = known[row]
                judged = entry(experiment, claim, kind, profile, rows, others)
                longer = tuple(row for row in grown[kind] if row.label in claim.contrast)
                found.append(replace(judged, longer=longer))
    return found


def entry(
    experiment: Experiment,
    claim: Claim,
    kind: str,
    profile: str,
    rows: Rows,
    others: Lost | None = None,
) -> Entry:
    """Judge one claim by the finished records of its rows; ``others`` says of each row which runs are of no use."""
    stood, of_rows = commit_of_claim(experiment, claim), commit_of_claim(experiment, claim, by="variants")
    older = {label: _older(group, stood) for label, group in rows.items()}
    effect, origin = paper_effect(experiment, claim, kind)
    records = [record for group in rows.values() for record in group]
    base = {
        "experiment": experiment.name,
        "claim": claim,
        "set": kind,
        "profile": profile,
        "effect": effect,
        "effect_origin": origin,
        "note": experiment.note,
        "claim_commit": stood,
        "record_commits": tuple(sorted({record.commit for record in records})),
        "sources": tuple(sorted({_source(record) for record in records})),
        "rows_commit": of_rows,
        "older": tuple(label for label, count in older.items() if count and count == len(rows[label])),
        "partly_older": tuple(label for label, count in older.items() if 0 < count < len(rows[label])),
        "gap": _gap(claim, rows),
    }
    try:
        seeds = _common_seeds(rows, others or {})
        used = {label: [next(r for r in group if r.info["seed"] == s) for s in seeds] for label, group in rows.items()}
        differences, groups = _contrast(claim, used)
    except _MissingError as missing:
        return Entry(**base, verdict=Verdict(NOT_RECORDED, str(missing)))
    interval = bootstrap_runs(differences, groups, np.random.default_rng(0))
    per_seed = np.array([values.mean() for values in differences])
    said = verdict(per_seed, interval, claim.margin, claim.kind)
    if reason := _not_comparable(used, rows, others or {}):
        said = Verdict("undecided", reason)
    elif others and (lost := _left_out(others)):
        said = replace(said, reason="; ".join(filter(None, (said.reason, lost))))
    measured = {"seeds": tuple(seeds), "queries": min(map(len, differences)), "interval": interval}
    return Entry(**base, **measured, per_seed=tuple(map(float, per_seed)), verdict=said)


class _MissingError(Exception):
    """What a claim cannot be computed without; ``str(error)`` says what."""


def _common_seeds(rows: Rows, others: Lost) -> list[int]:
    """Seeds that every row has."""
    absent = [label for label, group in rows.items() if not group]
    if absent:
        because = [f"{label}: {lost.why}" for label in absent for lost in others.get(label, ())]
        raise _MissingError("; ".join([f"not recorded yet: {', '.join(map(repr, absent))}", *because]))
    common = set.intersection(*({record.info["seed"] for record in group} for group in rows.values()))
    if not common:
        have = ", ".join(f"{label!r} has {_seeds(group)}" for label, group in rows.items())
        raise _MissingError(f"the rows share no seed: {have}")
    return sorted(common)


def _seeds(group: Sequence[Record]) -> str:
    numbers = [str(record.info["seed"]) for record in group]
    return f"seed{'s' * (len(numbers) > 1)} {', '.join(numbers)}"


def _contrast(claim: Claim, rows: Rows) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each seed the values of the claim, one a query (Q,), and the person (or frame) of each query (Q,)."""
    total: list[np.ndarray] = []
    for label, sign in claim.contrast.items():
        parts, groups = [], []
        for record in rows[label]:
            try:
                values, people = values_of(record, claim.measure)
            except KeyError as error:
                what = next((text for name, text in LATER_ARRAYS.items() if error.args[0].startswith(name)), "this")
                raise _MissingError(
                    f"the record of {label!r}, seed {record.info['seed']}, is older than this measure and does not "
                    f"say {what}: compute it anew"
                ) from None
            parts.append(sign * values)
            groups.append(people)
        total = [one + other for one, other in zip(total, parts, strict=True)] if total else parts
    return total, groups


def _not_comparable(used: Rows, rows: Rows, others: Lost) -> str:
    """Why no verdict may be given on these records; empty if one may.

    A seed that failed is not computed again, so further ones, of every row, take its place.
    """
    stuck = [
        f"{label!r}, seed {record.info['seed']}, has not left the plateau ({reason})"
        for label, group in used.items()
        for record in group
        if (reason := plateau_reason(record))
    ]
    if stuck:
        return f"{'; '.join(stuck)}: training longer would decide it"
    count = len(next(iter(used.values())))
    if count >= MIN_SEEDS:
        return ""
    failed = {lost.seed for runs in others.values() for lost in runs}
    wanted = [seed for seed in range(MIN_SEEDS + len(failed)) if seed not in failed][:MIN_SEEDS]
    missing = []
    for label, group in rows.items():
        absent = [seed for seed in wanted if seed not in {record.info["seed"] for record in group}]
        if absent:
            missing.append(f"{label!r} seed{'s' * (len(absent) > 1)} {', '.join(map(str, absent))}")
    decide = f"recording {' and '.join(missing) or 'common seeds'} would decide it"
    return "; ".join(filter(None, (f"{count} of {MIN_SEEDS} seeds: {decide}", _left_out(others))))


def _left_out(others: Lost) -> str:
    """The runs of no use, named; empty if there are none."""
    named = [f"{label!r}, {lost.why}" for label, runs in others.items() for lost in runs]
    return f"left out: {', '.join(named)}" if named else ""


def paper_effect(experiment: Experiment, claim: Claim, kind: str) -> tuple[float | None, str]:
    """The claim's contrast of the paper's numbers for a set, and their origin; None and "" where it has none."""
    if experiment.reported is None or claim.column is None:
        return None, ""
    table = reported(experiment.reported)
    try:
        effect = table.contrast(claim.contrast, kind, claim.column)
    except UserError:  # the paper has no such row, set or column
        return None, ""
    return (None, "") if effect is None else (effect, table.contrast_origin(claim.contrast, kind, claim.column))


def _source(record: Record) -> str:
    return f"{record.info.get('device', 'unknown device')}, {record.info.get('date', 'no date')}"


def _older(group: Sequence[Record], claim_commit: str) -> int:
    """How many records of the group git knows to have been computed before the claim was committed."""
    return sum(is_ancestor(claim_commit, record.commit) is False for record in group)


def _gap(claim: Claim, rows: Rows) -> Gap | None:
    """How the two rows of a difference of search mAP came apart while they trained; None for other claims."""
    if claim.measure != "map" or claim.kind != "difference" or sorted(claim.contrast.values()) != [-1, 1]:
        return None
    second, first = sorted(claim.contrast, key=lambda label: claim.contrast[label])
    return gap_between(rows[first], rows[second])
