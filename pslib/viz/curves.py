"""Lines, intervals and matrices: the plots that compare models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pslib.viz.figures import MAX_WIDTH_INCHES, PALETTE, name_columns, new_figure, plain

__all__ = ["MODEL_STYLES", "Line", "intervals_figure", "lines_figure", "matrix_figure", "numbers_of"]

# Colour, line and mark of each model, the same in every picture of the series.
MODEL_STYLES = {
    "baseline": (PALETTE["vermillion"], "--", "s"),
    "alignps": (PALETTE["blue"], "-", "o"),
    "alignps-long": (PALETTE["sky"], (0, (8, 2)), "P"),
    "baseline, live": (PALETTE["black"], ":", "D"),
    "scale-task": (PALETTE["green"], "-.", "^"),
    "scale-region": (PALETTE["purple"], (0, (3, 1, 1, 1, 1, 1)), "X"),
    "region-task": (PALETTE["orange"], (0, (5, 2, 1, 2)), "v"),
}
_NAMES = {"alignps": "AlignPS"}
# Lines that belong to no model differ by colour and by dashes.
_OTHER_STYLES = (
    (PALETTE["blue"], "-"), (PALETTE["vermillion"], "--"), (PALETTE["green"], "-."), (PALETTE["black"], ":"),
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One curve; ``spread`` holds other values at the same x (seeds), drawn as a band from lowest to highest."""

    x: Sequence[float]
    y: Sequence[float]
    label: str
    model: str = ""  # key of MODEL_STYLES
    spread: Any = None  # (S, len(x))
    dim: bool = False  # thin and dotted, for a level of comparison


def draw_line(ax: Axes, line: Line, number: int = 0) -> None:
    """Draw one :class:`Line` in its model's style, or in the style of its ``number`` if it belongs to no model."""
    color, style, mark = MODEL_STYLES.get(line.model, (*_OTHER_STYLES[number % len(_OTHER_STYLES)], ""))
    if line.dim:
        style, mark = ":", ""
    ax.plot(line.x, line.y, color=color, ls=style, marker=mark, ms=4, lw=1.2 if line.dim else 1.8, label=line.label)
    if line.spread is not None and len(line.spread) > 1:
        values = np.asarray(line.spread)
        ax.fill_between(line.x, values.min(axis=0), values.max(axis=0), color=color, alpha=0.18, lw=0)


def numbers_of(panels: Sequence[Sequence[str | None]], styles: int) -> list[list[int]]:
    """Which of so many ``styles`` each line of each panel has, such that a label has the same in all panels.

    ``panels`` holds the labels of the lines: "" for a line without one, which is the line of its place in every panel,
    and None for one whose style is settled otherwise.  A label has its place in the first panel that shows it; where
    that style belongs to a label it shares a panel with, one that no label has, or else that none beside it has.

    >>> numbers_of([["a", "b"], ["b", "c"], ["", "", None, "c"]], styles=4)
    [[0, 1], [1, 2], [0, 1, 2, 2]]
    """
    keys = [[None if label is None else label or place for place, label in enumerate(labels)] for labels in panels]
    numbers: dict[str | int | None, int] = {}
    for shown in keys:
        for place, key in enumerate(shown):
            if key is None or key in numbers:
                continue
            beside = {numbers.get(other) for others in keys if key in others for other in others}
            tried = [place % styles, *sorted(range(styles), key=lambda one: one in numbers.values())]
            numbers[key] = next((one for one in tried if one not in beside), tried[0])
    return [[numbers.get(key, place) for place, key in enumerate(shown)] for shown in keys]


def lines_figure(
    panels: Mapping[str, Sequence[Line]],
    xlabel: str,
    ylabel: str = "",
    height: float = 2.8,
    columns: int = 2,
    marks: Sequence[float] = (),
    bottom: float | None = None,
) -> Figure:
    """One panel a title, ``columns`` in a row, each with its lines; ``marks`` are dashed verticals.

    A line of one label looks the same in all panels.
    ``bottom`` is where the y axis of every panel begins, and all panels then share one axis.

    >>> fig = lines_figure({"left": [Line([0, 1], [2, 3], "a")], "right": []}, "steps", "mAP")
    >>> [ax.get_title() for ax in fig.axes]
    ['left', 'right']
    """
    rows = -(-len(panels) // columns)
    fig, axes = new_figure(7.8, height, rows, min(columns, len(panels)), squeeze=False, sharey=bottom is not None)
    labels = [[None if line.model in MODEL_STYLES else line.label for line in lines] for lines in panels.values()]
    numbers = numbers_of(labels, len(_OTHER_STYLES))
    for ax, (title, lines), own in zip(axes.flat, panels.items(), numbers, strict=False):
        for line, number in zip(lines, own, strict=True):
            draw_line(ax, line, number)
        for mark in marks:
            ax.axvline(mark, color="#777777", ls=(0, (4, 3)), lw=0.9)
        ax.set_title(title, fontsize=9)
        plain(ax)
    _legends(fig, list(axes.flat)[: len(panels)])
    if bottom is not None:
        axes[0, 0].set_ylim(bottom=bottom)
    name_columns(axes, len(panels), xlabel)
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel, fontsize=8.5)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    return fig


def _legends(fig: Figure, panels: Sequence[Axes]) -> None:
    """One legend above panels that show (nearly) the same lines, where it hides none of them; else one in each."""
    found = [list(zip(*ax.get_legend_handles_labels(), strict=True)) for ax in panels]
    named = {label: handle for lines in found for handle, label in lines}
    looks = {(label, line.get_color(), str(line.get_linestyle())) for lines in found for line, label in lines}
    different = {look[1:] for look in looks}  # a legend of all panels needs a look for each label
    if len(panels) > 1 and len(different) == len(looks) == len(named) <= 1 + max(map(len, found)):
        fig.legend(list(named.values()), list(named), loc="outside upper center", ncols=4, fontsize=7.5, frameon=False)
        return
    for ax, lines in zip(panels, found, strict=True):
        if lines:
            ax.legend(fontsize=7.5, frameon=False)


def intervals_figure(panels: Mapping[str, Mapping[str, Mapping[str, Any]]], xlabel: str = "per cent") -> Figure:
    """One panel a set; for each measure, a row in all panels, one dot with its interval for every model.

    ``panels[title][measure][model]`` is an :class:`pslib.evaluation.statistics.Interval`.
    """
    rows = list(dict.fromkeys(measure for measures in panels.values() for measure in measures))
    fig, axes = new_figure(7.8, 0.6 * len(rows) + 0.95, 1, len(panels), squeeze=False, sharey=True)
    named = {}
    for ax, (title, measures) in zip(axes.flat, panels.items(), strict=True):
        for measure, models in measures.items():
            row = rows.index(measure)
            for place, (model, value) in enumerate(models.items()):
                color, style, mark = MODEL_STYLES[model]
                y = row + 0.24 * (place - (len(models) - 1) / 2)
                ax.plot([value.low, value.high], [y, y], color=color, ls=style, lw=2)
                (named[_NAMES.get(model, model)],) = ax.plot(value.mean, y, mark, color=color, ms=6)
                ax.text(max(value.high, value.mean + 2) + 1.5, y, f"{value.mean:.1f}", fontsize=8, va="center")
        ax.set_yticks(range(len(rows)), rows, fontsize=8.5)
        ax.set(xlim=(0, 109), title=title)
        ax.title.set_size(9)
        ax.set_xlabel(xlabel, fontsize=8.5)
        plain(ax)
    axes[0, 0].invert_yaxis()
    axes[0, 0].legend(list(named.values()), list(named), fontsize=8, frameon=False, loc="center right")
    return fig


def matrix_figure(
    matrices: Mapping[str, np.ndarray],
    names: Sequence[str],
    rows: str,
    columns: str,
    counts: np.ndarray | None = None,
    form: str = ".0f",
    label: str = "mAP, per cent",
) -> Figure:
    """Square matrices side by side on one colour scale, in every field the number (in ``form``).

    ``counts`` says how many each stands on, in brackets below it; ``label`` says at the scale what the numbers are.
    """
    width = min(3.3 * len(matrices) + 0.7, MAX_WIDTH_INCHES)
    fig, axes = new_figure(width, 3.1, 1, len(matrices), squeeze=False, sharey=True)
    known = np.concatenate([matrix[~np.isnan(matrix)] for matrix in matrices.values()])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    for ax, (title, matrix) in zip(axes.flat, matrices.items(), strict=True):
        shown = ax.imshow(matrix, cmap="cividis", vmin=low, vmax=high)
        for (row, column), value in np.ndenumerate(matrix):
            below = "" if counts is None else f"\n({counts[row, column]})"
            text = "too few" if np.isnan(value) else f"{value:{form}}{below}"
            dark = not np.isnan(value) and value < (low + high) / 2
            ax.text(column, row, text, ha="center", va="center", fontsize=10, color="white" if dark else "black")
        ax.set_xticks(range(len(names)), names, fontsize=8)
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set_xlabel(columns, fontsize=8.5)
        ax.set_title(title, fontsize=9)
    axes[0, 0].set_ylabel(rows, fontsize=8.5)
    fig.colorbar(shown, ax=list(axes.flat), shrink=0.8, label=label)
    return fig
