"""The ledger as text: a line a claim and set, then why, where there is no verdict."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from pslib.experiments.catalogue import EXPERIMENTS
from pslib.experiments.ledger import MIN_SEEDS, NOT_RECORDED, Entry
from pslib.experiments.lookup import STEPS_FACTOR
from pslib.experiments.registry import MEASURES, Claim

__all__ = ["claim_label", "ledger_text", "ledger_summary"]

WIDTH = 107  # columns, what a notebook shows without wrapping
NAME = 36  # a longer name of a claim stands on a line of its own
WORDS = ("reproduced", "not reproduced", "undecided", NOT_RECORDED)
LARGE_EFFECT = 3.0  # points: effects of the paper that a small experiment should be able to see
SHORT = {"gallery growth": "growth"}  # as a claim's label says it
UNTRAINED = "true of a network that has learned nothing, too: no record could speak against it"
UNKNOWN = "git does not know since when the claim has stood: commit it, or fetch the whole history"
PREDATES = "the claim was written down after all its records: it was not put at risk"


def ledger_text(entries: Sequence[Entry]) -> str:
    """All entries grouped by experiment, and the summary."""
    sources = sorted({source for item in entries for source in item.sources})
    measures = {item.claim.measure for item in entries}
    lines = [
        *textwrap.wrap(
            "RECORDED on drawn sets: claims of the papers as differences in points of per cent [95 % interval over "
            "seeds and people].  They are of search mAP, unless the claim says in brackets of what.",
            WIDTH,
        ),
        *(f"  {SHORT.get(name, name)}: {MEASURES[name]}" for name in MEASURES if name in measures - {"map"}),
        *textwrap.wrap(f"Computed on: {'; '.join(sources) or 'nothing yet'}.", WIDTH),
        *textwrap.wrap(
            "REPORTED: the same difference of the paper's numbers, on the real sets; ~ where some are not printed for "
            "these rows, but derived from others or assumed to belong here.",
            WIDTH,
        ),
    ]
    for profile in sorted({item.profile for item in entries} & STEPS_FACTOR.keys()):
        lines.append(f"At the profile {profile} rows have {STEPS_FACTOR[profile]} times the steps that the notes name.")
    for name in dict.fromkeys(item.experiment for item in entries):
        group = [item for item in entries if item.experiment == name]
        experiment = EXPERIMENTS.get(name)
        about = f": {experiment.title} ({experiment.source})" if experiment else ""
        lines += ["", *textwrap.wrap(f"{name}{about}", WIDTH)]
        if experiment and experiment.note:
            lines += textwrap.wrap(experiment.note, WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines.append(
            f"  {'claim':<{NAME}} {'set':<9} {'RECORDED':<20} {'margin':>6} {'seeds':>5} {'REPORTED':>8}  verdict"
        )
        for item in group:
            lines += _lines(item)
            lines += _remarks(item)
        for words in (_changed_rows(group), _more_steps(group)):
            lines += textwrap.wrap(words, WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join([*lines, "", ledger_summary(entries)])


def ledger_summary(entries: Sequence[Entry]) -> str:
    """How many claims came out how, and how many of the large ones are open."""
    profiles = ", ".join(dict.fromkeys(item.profile for item in entries)) or "no"
    lines = [f"ledger, {profiles} profile, {len(entries)} claims (each on each set):", _counts(entries)]
    large = [item for item in entries if item.effect is not None and abs(item.effect) >= LARGE_EFFECT]
    if large:
        open_ones = [item for item in large if item.verdict.word in ("undecided", NOT_RECORDED)]
        wanting = sum(len(item.seeds) < MIN_SEEDS for item in open_ones)
        share = f"{len(open_ones)} ({100 * len(open_ones) / len(large):.0f} %)"
        words = f"of the {len(large)} whose effect in the paper is {LARGE_EFFECT:g} points or more, {share}"
        lines.append(f"{words} are undecided or not recorded" + ("," if wanting else ""))
        if wanting:
            lines.append(f"  {wanting} of them because fewer than {MIN_SEEDS} seeds are recorded")
    closing = [item for item in entries if item.verdict.word == "reproduced" and item.gap and item.gap.closes]
    if closing:
        lines.append(
            f"of those reproduced, {len(closing)} have a gap that closes with training: in part slow convergence"
        )
    safe = [item for item in entries if item.verdict.word == "reproduced" and item.at_risk is False]
    if safe:
        lines.append(
            f"of those reproduced, {len(safe)} were not put at risk: written down after all their records, or true of "
            "any network"
        )
    unknown = [item for item in entries if item.verdict.word != NOT_RECORDED and item.at_risk is None]
    if unknown:
        lines.append(f"whether {len(unknown)} of all were put at risk cannot be told: git does not know them")
    return "\n".join(lines)


def _counts(entries: Sequence[Entry]) -> str:
    counts = Counter(item.verdict.word for item in entries)
    return ", ".join(f"{counts[word]} {word}" for word in WORDS)


def _changed_rows(group: Sequence[Entry]) -> str:
    """The claims whose rows were given other variants, or other names of variants, after the claim was written."""
    changed: dict[tuple[str, str], dict[str, None]] = {}
    for item in group:
        if item.rows_commit != item.claim_commit:
            changed.setdefault((item.rows_commit, item.claim_commit), {})[item.claim.name] = None
    told = "; ".join(
        f"written in {claim}, of today's variants since {rows}: {', '.join(names)}"
        for (rows, claim), names in changed.items()
    )
    return f"Rows changed or renamed after the claim: {told}." if told else ""


def _more_steps(group: Sequence[Entry]) -> str:
    """What longer runs say of an experiment's differences of search mAP."""
    judged = [item for item in group if item.interval is not None and item.claim.measure == "map"]
    if not judged:
        return ""
    gains = {(item.set, row.label): row for item in judged for row in item.longer}
    if not gains:
        return (
            "More steps: no row is recorded with twice as many, so whether these differences would last is not tested "
            "by longer runs."
        )
    told = "; ".join(
        f"{kind} {row.label!r} {row.gain:+.1f} points with {row.longer_steps} steps instead of {row.steps}"
        + (f" and {row.rate:g} times the rate" if row.rate != 1 else "")
        for (kind, _), row in gains.items()
    )
    said = Counter(item.steps_matter for item in judged)
    return (
        f"More steps: {told}.  {said[True]} of the {len(judged)} differences of search mAP move by a third or more, or "
        "one of their rows does, where not all have the same longer run: they may speak of this schedule only.  For "
        f"{said[None]} a longer run is missing."
    )


def claim_label(claim: Claim) -> str:
    """The claim's name, with what it compares where that is not the search mAP.

    >>> claim_label(Claim("the lead grows", "It grows.", {"ours": 1, "theirs": -1}, measure="gallery growth"))
    'the lead grows (growth)'
    """
    measure = "" if claim.measure == "map" else f" ({SHORT.get(claim.measure, claim.measure)})"
    return f"{claim.name}{measure}"


def _lines(item: Entry) -> list[str]:
    difference = "-"
    if item.interval is not None:
        difference = f"{item.interval.mean:+.1f} [{item.interval.low:+.1f}, {item.interval.high:+.1f}]"
    sign = {"equivalence": "\u00b1", "no-better": "\u2264"}.get(item.claim.kind, "")
    mark = "" if item.effect_origin == "printed" else "~"
    # As many decimals as the paper has: 2.95, which is no large effect, would be read as one if it stood there as 3.0.
    effect = "-" if item.effect is None else mark + f"{item.effect:+.2f}".removesuffix("0")
    label = claim_label(item.claim)
    above, beside = ([f"  {label}"], "") if len(label) > NAME else ([], label)
    return [
        *above,
        f"  {beside:<{NAME}} {item.set:<9} {difference:<20} {f'{sign}{item.claim.margin:g}':>6} "
        f"{len(item.seeds):>5} {effect:>8}  {item.verdict.word}",
    ]


def _remarks(item: Entry) -> list[str]:
    said = [item.verdict.reason] if item.verdict.word in ("undecided", NOT_RECORDED) else []
    if item.claim.holds_untrained:
        said.append(UNTRAINED)
    elif item.at_risk is None and item.verdict.word != NOT_RECORDED:
        said.append(UNKNOWN)
    if item.gap and item.gap.closes and item.verdict.word == "reproduced":
        said.append(
            f"the gap closes while they train, from {max(item.gap.points):.1f} points at its largest to "
            f"{item.gap.points[-1]:.1f} (validation people, true boxes): in part slow convergence"
        )
    if item.predates:
        said.append(PREDATES)
    elif item.older:
        said.append(f"older than the claim: {', '.join(map(repr, item.older))}")
    if item.partly_older:
        said.append(f"some of its records older than the claim: {', '.join(map(repr, item.partly_older))}")
    return [line for text in said for line in textwrap.wrap(text, WIDTH, initial_indent=" " * 6,
                                                            subsequent_indent=" " * 6)]
