"""Pictures of misalignment: where a deformable neck looks, which level sees whom, a table of variants from records."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pslib.experiments.lookup import failed
from pslib.experiments.rows import RecordedRow
from pslib.viz.dense import LEVEL_STYLES
from pslib.viz.figures import PALETTE, draw_boxes, new_figure, plain, to_array

__all__ = ["level_story_figure", "rows_figure", "sampling_figure", "sizes_figure", "taps_figure"]

# Colour AND mark of the first, second, ... place whose points are drawn; the paper marks the body's centre in green.
PLACE_STYLES = (
    (PALETTE["green"], "o"), (PALETTE["vermillion"], "^"), (PALETTE["sky"], "s"), (PALETTE["purple"], "D"),
    (PALETTE["yellow"], "v"), (PALETTE["orange"], "P"),
)  # fmt: skip
SET_STYLES = {"cuhk-sysu": (PALETTE["blue"], "o", "CUHK-SYSU layout"), "prw": (PALETTE["orange"], "s", "PRW layout")}


def taps_figure(kernels: Mapping[str, Any], cells: int = 7) -> Figure:
    """One panel a kernel: the places its 9 taps read around the middle cell of a grid of ``cells`` x ``cells``.

    ``kernels`` maps titles to offsets (9, 2) in cells, y before x.  Open squares are the places of an ordinary
    convolution, filled dots where the offsets move them.

    >>> [ax.get_title() for ax in taps_figure({"ordinary": np.zeros((9, 2))}).axes]
    ['ordinary']
    """
    fig, axes = new_figure(2.4 * len(kernels), 2.6, 1, len(kernels), squeeze=False)
    regular = np.array([[row, column] for row in (-1, 0, 1) for column in (-1, 0, 1)], float)
    half = cells / 2
    for ax, (title, offset) in zip(axes.flat, kernels.items(), strict=True):
        moved = regular + np.asarray(offset, float).reshape(9, 2)
        for edge in np.arange(-half, half + 1):
            ax.plot([edge, edge], [-half, half], color="#BBBBBB", lw=0.7)
            ax.plot([-half, half], [edge, edge], color="#BBBBBB", lw=0.7)
        ax.add_patch(Rectangle((-0.5, -0.5), 1, 1, facecolor="#FBE3C2", edgecolor="black", lw=1))
        for (y0, x0), (y1, x1) in zip(regular, moved, strict=True):
            ax.plot([x0, x1], [y0, y1], color=PALETTE["vermillion"], lw=1)
        ax.plot(regular[:, 1], regular[:, 0], "s", mfc="none", mec="black", ms=6)
        ax.plot(moved[:, 1], moved[:, 0], "o", color=PALETTE["blue"], ms=4.5)
        ax.set(xlim=(-half, half), ylim=(half, -half), aspect="equal", xticks=[], yticks=[])
        ax.set_title(title, fontsize=9)
    return fig


def sampling_figure(
    image: Any, boxes: Any, places: Tensor, points: Mapping[str, Tensor], window: Sequence[float] | None = None
) -> Figure:
    """AlignPS's Fig. 7: one panel a path, over the picture the 81 points that each of a few cells reads.

    ``boxes`` (N, 4) xyxy px are drawn thin; ``places`` (M, 2) xy px are the cells, at most six; ``points`` maps a
    path's name to (M, 81, 2) xy px, as :func:`pslib.evaluation.sampling.sampling_points` gives them.  ``window`` xyxy
    px cuts out a part of the picture.
    """
    picture = to_array(image)
    x1, y1, x2, y2 = window if window is not None else (0, 0, picture.shape[1], picture.shape[0])
    width = 3.7 if (x2 - x1) > 0.9 * (y2 - y1) else 2.6
    fig, axes = new_figure(width * len(points), width * (y2 - y1) / (x2 - x1) + 0.3, 1, len(points), squeeze=False)
    for ax, (name, where) in zip(axes.flat, points.items(), strict=True):
        ax.imshow((picture * 0.75 + 255 * 0.25).astype(np.uint8), interpolation="bicubic")
        draw_boxes(ax, boxes, color="white", linewidth=2.4)
        draw_boxes(ax, boxes, color="black", linewidth=1.0)
        for place, own, (color, mark) in zip(places.tolist(), where.numpy(), PLACE_STYLES, strict=False):
            ax.plot(own[:, 0] - 0.5, own[:, 1] - 0.5, mark, color=color, ms=3.2, mec="black", mew=0.35)
            ax.plot(place[0] - 0.5, place[1] - 0.5, "+", color="black", ms=11, mew=3)
            ax.plot(place[0] - 0.5, place[1] - 0.5, "+", color=color, ms=10, mew=1.6)
        ax.set(xlim=(x1 - 0.5, x2 - 0.5), ylim=(y2 - 0.5, y1 - 0.5), xticks=[], yticks=[])
        ax.set_title(f"lateral {name} + output: {where.shape[1]} points a cell", fontsize=9)
    return fig


def rows_figure(
    rows: Mapping[str, Mapping[str, RecordedRow]], xlabel: str = "search mAP, per cent", gains: bool = False
) -> Figure:
    """A table of variants as dots with intervals, ``rows`` as :func:`pslib.experiments.rows.recorded_rows` has them.

    A row without records says so, one with fewer than three seeds and one with runs that failed too.  Where
    ``xlabel`` says per cent the axis ends at 100, and what has no room right of its interval stands left of it.
    ``gains``: values are differences, as of :func:`pslib.experiments.rows.recorded_gains`; they have signs, and the
    axis, a line at 0 and no end but theirs.

    >>> from pslib.evaluation.statistics import Interval
    >>> row = {"cuhk-sysu": RecordedRow(Interval(20.0, 17.0, 23.0), (0,)), "prw": RecordedRow(None)}
    >>> [ax.texts[0].get_text() for ax in rows_figure({"none": row}).axes]
    ['20.0 (1 seed)', 'not recorded yet']
    """
    kinds = list(dict.fromkeys(kind for sets in rows.values() for kind in sets))
    fig, axes = new_figure(7.8, 0.3 * len(rows) + 0.95, 1, len(kinds), squeeze=False, sharey=True)
    found = [sets[kind].value for sets in rows.values() for kind in sets if sets[kind].value is not None]
    low = min([value.low for value in found], default=0.0)
    high = max([value.high for value in found], default=50.0)
    span = max(high - low, 2.0)
    if gains:
        low, high = min(low, 0.0) - 0.05 * span, max(high, 0.0)
    else:
        low = max(0.0, low - 0.15 * span) if low > 50 else 0.0  # recalls lie close together, far from zero
    span = max(high - low, 2.0)
    end = high + 0.35 * span
    end = min(end, 100.0) if "per cent" in xlabel and not gains else end
    for ax, kind in zip(axes.flat, kinds, strict=True):
        color, mark, name = SET_STYLES.get(kind, (PALETTE["black"], "o", kind))
        for place, sets in enumerate(rows.values()):
            row, value = sets[kind], sets[kind].value
            if value is None:
                words = {"fontsize": 8, "va": "center", "color": "#555555", "style": "italic"}
                ax.text(low + 0.03 * span, place, row.absent, **words)
                continue
            few = f"{len(row.seeds)} seed{'s' * (len(row.seeds) > 1)}" if len(row.seeds) < 3 else ""
            notes = "; ".join(filter(None, (few, failed(row.lost))))
            told = f"{value.mean:{'+' if gains else ''}.1f}" + (f" ({notes})" if notes else "")
            ax.plot([value.low, value.high], [place, place], color=color, lw=2)
            ax.plot(value.mean, place, mark, color=color, ms=6, clip_on=False)  # at 100 per cent it is on the edge
            at, side = (value.high + 0.02 * span, "left")
            if value.high + 0.35 * span > end:
                at, side = (value.low - 0.02 * span, "right")
            # The line at 0 must not cross a number.
            behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.8} if gains else None
            ax.text(at, place, told, fontsize=8, va="center", ha=side, bbox=behind)
        if gains:
            ax.axvline(0, color="black", lw=0.9)
        ax.set_yticks(range(len(rows)), list(rows), fontsize=8.5)
        ax.set(xlim=(low, end), ylim=(len(rows) - 0.4, -0.6))
        ax.set_title(name, fontsize=9)
        ax.set_xlabel(xlabel, fontsize=8.5)
        plain(ax, "x")
    return fig


def sizes_figure(
    matrices: Mapping[str, np.ndarray],
    heights: Sequence[int],
    levels: Mapping[str, Sequence[str]],
    label: str = "cosine",
) -> Figure:
    """One panel a model: values (S, S) in 0..1, such as cosines, between people drawn at S sizes.

    ``heights`` (S,) px; ``levels[model]`` (S,) names the level that reads most people of that size.  Lines part sizes
    that are read from different levels.

    >>> fig = sizes_figure({"a": np.eye(2)}, (30, 90), {"a": ("P3", "P5")})
    >>> [tick.get_text() for tick in fig.axes[0].get_xticklabels()]
    ['30\\nP3', '90\\nP5']
    """
    fig, axes = new_figure(2.9 * len(matrices) + 0.6, 3.1, 1, len(matrices), squeeze=False, sharey=True)
    for ax, (title, matrix) in zip(axes.flat, matrices.items(), strict=True):
        shown = ax.imshow(matrix, cmap="cividis", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(matrix):
            ax.text(column, row, f"{value:.1f}".replace("0.", ".").replace("1.0", "1"), ha="center", va="center",
                    fontsize=7, color="white" if value < 0.5 else "black")  # fmt: skip
        names = levels[title]
        for place in range(1, len(heights)):
            if names[place] != names[place - 1]:
                ax.axvline(place - 0.5, color="white", lw=2.5)
                ax.axhline(place - 0.5, color="white", lw=2.5)
        ticks = [f"{height}\n{name}" for height, name in zip(heights, names, strict=True)]
        ax.set_xticks(range(len(heights)), ticks, fontsize=7)
        ax.set_yticks(range(len(heights)), [str(height) for height in heights], fontsize=7)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("height, px, and the level that reads it", fontsize=8)
    axes[0, 0].set_ylabel("height, px", fontsize=8)
    fig.colorbar(shown, ax=list(axes.flat), shrink=0.8, label=label)
    return fig


def level_story_figure(people: Sequence[Any], heights: Sequence[int], strides: Mapping[str, int]) -> Figure:
    """AlignPS's Fig. 3 redrawn: one person at three sizes, read from three levels, or from one.

    ``people`` are three pictures of her, far to near; ``heights`` px; ``strides`` maps P3, P4, P5 to px.
    """
    fig, axes = new_figure(7.8, 3.3, 1, 2)
    titles = ("several levels: three maps describe her", "scale alignment: one map describes her")
    for ax, title, reads in zip(axes, titles, (list(strides), ["P3"] * 3), strict=True):
        ax.set(xlim=(0, 10), ylim=(0, 9.4), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(title, fontsize=9.5)
        for place, (picture, height, level) in enumerate(zip(people, heights, reads, strict=True)):
            middle = 7.7 - 3.0 * place
            tall = 2.6 * (height / max(heights)) ** 0.6  # true to scale, the far one would be a dot
            shape = to_array(picture).shape
            wide = tall * shape[1] / shape[0] * 0.8
            ax.imshow(to_array(picture), extent=(1.4 - wide / 2, 1.4 + wide / 2, middle - tall / 2, middle + tall / 2),
                      aspect="auto", interpolation="bicubic")  # fmt: skip
            ax.text(2.7, middle - 0.9, f"{height} px", fontsize=7.5, ha="center")
            at = 7.7 - 3.0 * list(strides).index(level)
            ax.annotate("", (4.4, at), (2.4, middle), arrowprops={"arrowstyle": "-|>", "lw": 1.4})
        for place, (level, stride) in enumerate(strides.items()):
            if level in reads:
                _draw_map(ax, 7.7 - 3.0 * place, level, stride, min(strides.values()))
        ax.set(xlim=(0, 10), ylim=(0, 9.4))
    return fig


def _draw_map(ax: Axes, middle: float, level: str, stride: int, finest: int) -> None:
    """A map as a grid whose cells have the size of its stride, its name, and the embedding that leaves it."""
    color, mark = LEVEL_STYLES[level]
    cell, size = 0.3 * stride / finest, 2.4
    ax.add_patch(Rectangle((4.5, middle - size / 2), size, size, facecolor=color, alpha=0.35, edgecolor="black"))
    for edge in np.arange(0, size + 1e-6, cell):
        ax.plot([4.5 + edge] * 2, [middle - size / 2, middle + size / 2], color="black", lw=0.4)
        ax.plot([4.5, 4.5 + size], [middle - size / 2 + edge] * 2, color="black", lw=0.4)
    ax.annotate("", (8.0, middle), (6.9, middle), arrowprops={"arrowstyle": "-|>", "lw": 1.4})
    ax.plot(8.35, middle, mark, color=color, mec="black", ms=9)
    ax.text(8.75, middle, f"from {level},\nstride {stride}", fontsize=7.5, va="center", ha="left")
