"""The ledger as pictures: how many claims came out how, and every claim's difference with its interval and margin."""

from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter

from pslib.experiments.ledger import NOT_RECORDED, Entry
from pslib.experiments.ledger_text import claim_label
from pslib.experiments.registry import Claim
from pslib.viz.figures import DPI, PALETTE, new_figure

__all__ = ["VERDICT_STYLES", "effect_in_words", "forest_alt", "forest_figure", "tally", "tally_figure"]

# Each verdict has a colour AND a mark AND a hatch: (colour, mark, hatch).
VERDICT_STYLES = {
    "reproduced": (PALETTE["green"], "o", ""),
    "not reproduced": (PALETTE["vermillion"], "X", "xxx"),
    "undecided": (PALETTE["sky"], "D", "///"),
    NOT_RECORDED: ("#DDDDDD", "", "..."),
}
LARGE, MEDIUM = 3.0, 1.0  # points
ROW = 18  # px: of a whole number rows are drawn alike, and the packed picture is half as large
MARGIN = "#D4D4D4"
GUIDE, FAINT = "#CCCCCC", "#E8E8E8"
# The axis is linear to +-5 points, where most intervals and all margins lie, and logarithmic beyond.
LINEAR = 5.0
TICKS, BETWEEN = (-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50), (-4, -3, -1, 1, 3, 4)


def effect_in_words(effect: float | None, claim: Claim | None = None) -> str:
    """A difference that a paper prints, as a word: its points belong to other sets than ours.

    "Against": the number goes against ``claim`` (by default one that something is better).  What is claimed to be as
    good, or no better, may lie below 0.

    >>> [effect_in_words(effect) for effect in (None, 0.0, 0.4, -0.4, 2.0, 18.5)]
    ['no number', 'none', 'small', 'small, against', 'medium', 'large']
    >>> as_good = Claim("a as b", "As good.", {"a": 1, "b": -1}, kind="equivalence", margin=1.5)
    >>> no_better = Claim("a no better", "No better.", {"a": 1, "b": -1}, kind="no-better", margin=1.5)
    >>> [effect_in_words(effect, as_good) for effect in (-1.4, -2.0, 2.0)]
    ['medium', 'medium, against', 'medium, against']
    >>> [effect_in_words(effect, no_better) for effect in (-4.0, 1.2, 2.0)]
    ['large', 'medium', 'medium, against']
    """
    if effect is None:
        return "no number"
    size = abs(effect)
    if size < 0.05:
        return "none"
    word = "large" if size >= LARGE else "medium" if size >= MEDIUM else "small"
    kind, margin = (claim.kind, claim.margin) if claim else ("difference", 0.0)
    holds = {"difference": effect > 0, "equivalence": size <= margin, "no-better": effect <= margin}[kind]
    return word if holds else f"{word}, against"


def tally(entries: Sequence[Entry]) -> dict[str, Counter]:
    """Verdicts counted by experiment, in the order of the entries."""
    counts: dict[str, Counter] = {}
    for entry in entries:
        counts.setdefault(entry.experiment, Counter())[entry.verdict.word] += 1
    return counts


def tally_figure(entries: Sequence[Entry]) -> Figure:
    """One bar an experiment: its claims (each on each set) by verdict, with their numbers."""
    counts = tally(entries)
    fig, ax = new_figure(7.6, 0.34 * len(counts) + 0.95)
    for place, verdicts in enumerate(counts.values()):
        left = 0
        for word, (color, _, hatch) in VERDICT_STYLES.items():
            number = verdicts[word]
            if number:
                ax.barh(place, number, left=left, color=color, hatch=hatch, edgecolor="white", height=0.7)
                ax.text(left + number / 2, place, str(number), ha="center", va="center", fontsize=8,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0})  # fmt: skip
            left += number
    ax.set_yticks(range(len(counts)), list(counts), fontsize=8.5)
    ax.invert_yaxis()
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("claims, each on each set", fontsize=8.5)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    handles = [
        Patch(facecolor=color, hatch=hatch, edgecolor="white", label=word)
        for word, (color, _, hatch) in VERDICT_STYLES.items()
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return fig


def forest_figure(entries: Sequence[Entry], titles: Mapping[str, str]) -> Figure:
    """All claims, one row each and one panel a set: difference, 95 % interval, margin (grey), the verdict's mark.

    ``titles`` gives each set's panel its title.  Differences are in points of per cent: of search mAP, where the row
    does not say in brackets of what.  Beside a row stands in words how large the paper's own difference is.  The axis
    is linear to +-5 points and logarithmic beyond, or the large differences would hide the margins of the small ones.
    The plot is taller than a screen: every experiment's heading row repeats the numbers of the axis.
    """
    rows = _rows(entries)
    fig, axes = new_figure(9.0, ROW * len(rows) / DPI + 1.2, 1, len(titles), squeeze=False, sharey=True, sharex=True)
    ends = [end for entry in entries if entry.interval for end in (entry.interval.low, entry.interval.high)]
    low, high = 1.1 * min([-3.0, *ends]), 1.3 * max([3.0, *ends])  # words begin at the right end
    for ax, (kind, title) in zip(axes.flat, titles.items(), strict=True):
        ax.set_xscale("symlog", linthresh=LINEAR)
        ax.set_xlim(low, high)
        ax.set_xticks([tick for tick in TICKS if low <= tick <= 0.8 * high])
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _told(value)))
        ax.axvline(0, color="black", lw=0.8)
        ax.grid(axis="x", color=GUIDE, lw=0.6)
        ax.xaxis.set_minor_locator(FixedLocator([tick for tick in BETWEEN if low <= tick <= high]))
        ax.grid(axis="x", which="minor", color=FAINT, lw=0.6)
        ax.set_axisbelow(True)
        for place, row in enumerate(rows):
            if isinstance(row, tuple):
                found = next((entry for entry in entries if (entry.experiment, entry.claim.name) == row
                              and entry.set == kind), None)  # fmt: skip
                if found is not None:
                    _draw_row(ax, place, found, high)
            else:
                _draw_heading(ax, place, high)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("difference, points of per cent", fontsize=8)
        ax.tick_params(labelsize=7.5, length=2, top=True, labeltop=True)
        ax.tick_params(axis="y", length=0, pad=10)
        ax.spines[["right", "left"]].set_visible(False)
    told = {(entry.experiment, entry.claim.name): claim_label(entry.claim) for entry in entries}
    labels = [told[row] if isinstance(row, tuple) else row for row in rows]
    axes[0, 0].set_yticks(range(len(rows)), labels, fontsize=7)
    for text, row in zip(axes[0, 0].get_yticklabels(), rows, strict=True):
        text.set_fontweight("normal" if isinstance(row, tuple) else "bold")
    axes[0, 0].set_ylim(len(rows) - 0.4, -0.6)
    fig.legend(handles=_legend(), loc="outside upper center", ncols=5, fontsize=7.5, frameon=False)
    _fit_rows(fig, axes[0, 0])
    return fig


def forest_alt(entries: Sequence[Entry], titles: Mapping[str, str]) -> str:
    """What the forest plot shows, in words: by set and verdict, the claims."""
    parts = []
    for kind, title in titles.items():
        for word in VERDICT_STYLES:
            names = [claim_label(entry.claim) for entry in entries if entry.set == kind and entry.verdict.word == word]
            if names:
                told = f": {'; '.join(names)}" if word != NOT_RECORDED else ""
                parts.append(f"{title}, {word} ({len(names)}){told}")
    return f"Intervals of differences, one row a claim. {'. '.join(parts)}."


def _rows(entries: Sequence[Entry]) -> list[str | tuple[str, str]]:
    """Rows of the plot: an experiment's name as heading, then (experiment, claim) for each of its claims."""
    rows: dict[str | tuple[str, str], None] = {}
    for name in dict.fromkeys(entry.experiment for entry in entries):
        rows[name] = None
        rows |= dict.fromkeys((name, entry.claim.name) for entry in entries if entry.experiment == name)
    return list(rows)


def _fit_rows(fig: Figure, ax: Axes) -> None:
    """Make the figure as high as rows of ``ROW`` pixels need; what stands above and below them keeps its height."""
    fig.draw_without_rendering()
    (_, first), (_, second) = ax.transData.transform([(0, 0), (0, 1)])
    bottom, top = ax.get_ylim()
    width, height = fig.get_size_inches()
    fig.set_size_inches(width, height + (ROW - (first - second)) * (bottom - top) / fig.dpi)


def _draw_heading(ax: Axes, place: int, edge: float) -> None:
    """A line with the numbers of the axis on it, at the grid's lines."""
    ax.axhline(place, color="#BBBBBB", lw=0.6)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    for value in ax.get_xticks():
        ax.text(value, place, _told(value), fontsize=6.5, ha="center", va="center", color="#555555", bbox=behind)
    ax.text(edge, place, "paper's own:", fontsize=7, va="center", clip_on=False)


def _told(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _draw_row(ax: Axes, place: int, entry: Entry, edge: float) -> None:
    margin = entry.claim.margin
    ax.axhline(place, color=FAINT, lw=0.6, zorder=0.5)
    ax.add_patch(Rectangle((-margin, place - 0.4), 2 * margin, 0.8, color=MARGIN, lw=0))
    ax.text(edge, place, effect_in_words(entry.effect, entry.claim), fontsize=7, va="center", clip_on=False)
    if entry.interval is None:
        ax.text(margin + 0.3, place, NOT_RECORDED, fontsize=6.5, va="center", color="#666666")
        return
    color, mark, _ = VERDICT_STYLES[entry.verdict.word]
    ax.plot([entry.interval.low, entry.interval.high], [place, place], color=color, lw=2)
    ax.plot(entry.interval.mean, place, mark, color=color, ms=4.5, mec="black", mew=0.6)


def _legend() -> list[Line2D | Patch]:
    drawn = [
        Line2D([], [], color=color, marker=mark, mec="black", mew=0.6, ms=4.5, lw=2, label=word)
        for word, (color, mark, _) in VERDICT_STYLES.items()
        if mark
    ]
    return [*drawn, Patch(facecolor=MARGIN, label="margin")]
