"""Two-stage search in pictures: anchors and their labels, objectness, ROI pooling, the model by its own shapes.

The drawings of notebook 08; IAN's Figs. 1 and 3 are among them.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pslib.errors import UserError
from pslib.viz.figures import PALETTE, draw_boxes, image_grid, new_figure, to_array

__all__ = ["LABELS", "anchors_figure", "objectness_figure", "ranked_frames_figure", "roi_figure", "rss_figure"]

# What an anchor's label is drawn as: (colour, mark, word).
LABELS = {
    1: (PALETTE["green"], "o", "person"),
    0: (PALETTE["vermillion"], "x", "background"),
    -1: ("#444444", "+", "ignored"),
}
EXACT, ROUNDED = (PALETTE["black"], "solid"), (PALETTE["vermillion"], "dashed")


def ranked_frames_figure(
    query: Any, box: Sequence[float], ranked: Sequence[tuple[Any, Sequence[float], bool, str]], columns: int = 4
) -> Figure:
    """IAN Fig. 1: the query's whole frame with her ``box`` (4,), then ranked whole frames with the box that was found.

    ``ranked`` holds (frame, box (4,), whether it is she, words below the rank) in order; boxes are xyxy px.
    """
    titles = ["query", *(f"rank {place}{words}" for place, (*_, words) in enumerate(ranked, start=1))]
    right = [None, *(is_right for _, _, is_right, _ in ranked)]
    fig = image_grid([query, *(frame for frame, *_ in ranked)], titles, right=right, columns=columns, width=5.8)
    for ax, drawn, verdict in zip(fig.axes, [box, *(one[1] for one in ranked)], right, strict=False):
        draw_boxes(ax, [drawn], color=PALETTE["black"], right=None if verdict is None else [verdict], linewidth=2.2)
    return fig


def anchors_figure(
    image: Any, anchors: Tensor, labels: Tensor, truth: Tensor, cell: tuple[int, int], stride: int
) -> Figure:
    """Cells with the labels of their anchors, the anchors called a person, and all anchors of one ``cell``.

    ``anchors`` (H, W, A, 4) xyxy px, ``labels`` (H, W, A) with the keys of :data:`LABELS`, ``truth`` (N, 4), ``cell``
    (row, column).  A cell's mark is that of the best of its anchors: a person before an ignored one before background.
    A fourth anchor of the cell is drawn as the first is.
    """
    picture = to_array(image)
    sides = _around(truth, picture)
    fig, ax = new_figure(4.2, 4.2 * (sides[3] - sides[1]) / (sides[2] - sides[0]) + 0.5)
    rows, columns = labels.shape[:2]
    y, x = np.mgrid[:rows, :columns] * stride
    ax.imshow((picture * 0.4 + 255 * 0.6).astype(np.uint8))
    rank = {0: 0, -1: 1, 1: 2}
    best = np.vectorize(rank.get)(labels.numpy()).max(axis=2)  # (H, W)
    for value, (color, mark, word) in LABELS.items():
        chosen = (best == rank[value]) & (value != 0)  # nearly all cells are background: they stay bare
        note = "" if value else " (no mark)"
        ax.plot(x[chosen], y[chosen], mark, color=color, ms={1: 5, 0: 1, -1: 4}[value], mew=0.6,
                label=f"{word}{note}: {int((labels == value).sum())}", zorder=4 if value == 1 else 2)  # fmt: skip
    draw_boxes(ax, anchors[labels == 1], color=LABELS[1][0], linewidth=0.9)
    draw_boxes(ax, truth, color="black", linewidth=2)
    styles = itertools.cycle(((PALETTE["blue"], "-"), (PALETTE["purple"], "--"), (PALETTE["orange"], ":")))
    for one, (color, line) in zip(anchors[cell], styles, strict=False):
        draw_boxes(ax, one[None], color=color, linestyle=line, linewidth=2.2)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, fontsize=7.5, frameon=False)
    ax.set(xticks=[], yticks=[], xlim=(sides[0], sides[2]), ylim=(sides[3], sides[1]))
    return fig


def _around(boxes: Tensor, picture: np.ndarray, margin: float = 32) -> list[float]:
    """The part of a picture that ``boxes`` (N, 4) take, with a margin: left, top, right, bottom in px."""
    height, width = picture.shape[:2]
    low, high = boxes[:, :2].amin(dim=0) - margin, boxes[:, 2:].amax(dim=0) + margin
    ends = [max(float(low[0]), -0.5), max(float(low[1]), -0.5), min(float(high[0]), width - 0.5)]
    return [*ends, min(float(high[1]), height - 0.5)]


def objectness_figure(
    image: Any, maps: Mapping[str, np.ndarray], stride: int, truth: Tensor, proposals: Tensor
) -> Figure:
    """One panel for each of ``maps`` (h, w) in 0..1 over the picture, and a last one with the best proposals (K, 4).

    All show the part of the picture around the true boxes (N, 4).
    """
    picture = to_array(image)
    sides = _around(truth, picture)
    panels = len(maps) + 1
    fig, axes = new_figure(2.3 * panels, 2.3 * (sides[3] - sides[1]) / (sides[2] - sides[0]) + 0.7, 1, panels)
    covered = (-stride / 2 - 0.5, (next(iter(maps.values())).shape[1] - 0.5) * stride - 0.5)
    for ax, (title, values) in zip(axes, maps.items(), strict=False):
        bottom = (values.shape[0] - 0.5) * stride - 0.5
        ax.imshow(picture, alpha=0.4)
        drawn = ax.imshow(values, extent=(*covered, bottom, -stride / 2 - 0.5), cmap="cividis", vmin=0, vmax=1,
                          alpha=0.75, interpolation="nearest")  # fmt: skip
        draw_boxes(ax, truth, color="white", linewidth=1.4)
        ax.set_title(title, fontsize=9)
    fig.colorbar(drawn, ax=list(axes), shrink=0.5, ticks=(0, 0.5, 1), location="bottom", aspect=40, pad=0.03)
    axes[-1].imshow(picture)
    draw_boxes(axes[-1], truth, color="black", linewidth=2)
    draw_boxes(axes[-1], proposals, color=PALETTE["blue"], linestyle="dashed", linewidth=1.6)
    axes[-1].set_title(f"dashed: the {len(proposals)} best after NMS", fontsize=9)
    for ax in axes:
        ax.set(xticks=[], yticks=[], xlim=(sides[0], sides[2]), ylim=(sides[3], sides[1]))
    return fig


def roi_figure(values: Tensor, roi: Sequence[float], size: int, shifts: Sequence[float], answers: Any) -> Figure:
    """Left: what ROI pooling (dashed) and RoIAlign (dots) read of one box.  Right: their answers while it moves.

    Args:
        values: the map (h, w), written into its cells.
        roi: the box xyxy in cells; cell (row i, column j) is the square around (j, i).
        size: bins a side.
        shifts: how far the box was moved to the right, in cells, (S,).
        answers: name -> (S,) values of the upper left bin after each shift.
    """
    fig, (ax, right) = new_figure(7.2, 3.0, 1, 2, width_ratios=(1, 1))
    x1, y1, x2, y2 = (float(side) for side in roi)
    left, top, last, bottom = (int(np.floor(side + 0.5)) for side in (x1, y1, x2, y2))
    for (row, column), value in np.ndenumerate(values.numpy()):
        ax.text(column, row, f"{value:.0f}", fontsize=7, ha="center", va="center", color="#666666")
    high, wide = values.shape
    ax.set(xticks=np.arange(wide) - 0.5, yticks=np.arange(high) - 0.5, xlim=(-0.5, wide - 0.5), ylim=(high - 0.5, -0.5),
           aspect="equal")  # fmt: skip
    ax.tick_params(length=0, labelbottom=False, labelleft=False)
    ax.grid(color="#DDDDDD", lw=0.6)
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=EXACT[0], lw=2.2))
    _rounded_bins(ax, (left, top, max(last - left + 1, 1), max(bottom - top + 1, 1)), size)
    places = (np.arange(2 * size) + 0.5) / (2 * size)
    px, py = np.meshgrid(x1 + places * (x2 - x1), y1 + places * (y2 - y1))
    ax.plot(px.ravel(), py.ravel(), "o", color=PALETTE["blue"], ms=3.5)
    styles = (ROUNDED, (PALETTE["blue"], "solid"))
    for (name, values_of), (color, line) in zip(answers.items(), styles, strict=True):
        right.plot(shifts, values_of, color=color, ls=line, lw=1.8, label=name)
    right.set_xlabel("box moved to the right, in cells", fontsize=8.5)
    right.set_ylabel("value of the upper left bin", fontsize=8.5)
    right.tick_params(labelsize=8)
    right.spines[["top", "right"]].set_visible(False)
    right.legend(fontsize=8, frameon=False)
    return fig


def _rounded_bins(ax: Axes, place: tuple[int, int, int, int], size: int) -> None:
    """The cells that each bin of ROI pooling takes, framed; bins share a cell where the sides do not divide."""
    left, top, wide, high = place
    for row in range(size):
        for column in range(size):
            x1, x2 = int(np.floor(column * wide / size)), int(np.ceil((column + 1) * wide / size))
            y1, y2 = int(np.floor(row * high / size)), int(np.ceil((row + 1) * high / size))
            inset = 0.06 + 0.05 * ((row + column) % 2)  # neighbours that share cells stay visible
            ax.add_patch(Rectangle((left + x1 - 0.5 + inset, top + y1 - 0.5 + inset), x2 - x1 - 2 * inset,
                                   y2 - y1 - 2 * inset, fill=False, edgecolor=ROUNDED[0], ls=ROUNDED[1],
                                   lw=1.5))  # fmt: skip


def rss_figure(chosen: Any, own: Sequence[int], pushes: Mapping[str, Any]) -> Figure:
    """Left: which classes each row's softmax holds.  Right: the push on every rival class, full and sampled.

    ``chosen`` (N, C) bool, the last column is background; ``own`` (N,) true classes; ``pushes`` name -> (C,) the
    gradient on the logits of one row, at most three.
    """
    chosen = np.asarray(chosen)
    rows, classes = chosen.shape
    fig, (left, right) = new_figure(7.2, 2.4, 1, 2, width_ratios=(1.25, 1))
    grid = np.where(chosen, 0.75, 1.0)
    left.imshow(grid, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    left.plot(own, range(rows), "o", color=PALETTE["green"], ms=6, label="own class")
    left.plot([classes - 1] * rows, range(rows), "s", color=PALETTE["blue"], ms=5, label="background")
    drawn = [(c, r) for r in range(rows) for c in np.flatnonzero(chosen[r]) if c not in (own[r], classes - 1)]
    left.plot(*np.array(drawn).T, "x", color=PALETTE["vermillion"], ms=5, mew=1.6, label="drawn at random")
    left.set_xlabel(f"{classes} classes", fontsize=8.5)
    left.set_yticks(range(rows), [f"row {r}" for r in range(rows)], fontsize=7.5)
    left.set_xticks([])
    left.legend(fontsize=7.5, ncols=3, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    styles = ((PALETTE["black"], "-"), (PALETTE["vermillion"], "--"), (PALETTE["blue"], ":"))
    order = np.argsort(-np.asarray(next(iter(pushes.values()))))
    if len(pushes) > len(styles):
        raise UserError(f"{len(pushes)} pushes cannot be told apart here: give at most {len(styles)}.")
    for (name, push), (color, line) in zip(pushes.items(), styles, strict=False):
        right.plot(np.asarray(push)[order], color=color, ls=line, lw=1.8, label=name)
    right.set_yscale("log")
    right.set_xlabel("rivals, the strongest first", fontsize=8.5)
    right.set_ylabel("push away (gradient)", fontsize=8.5)
    right.tick_params(labelsize=8)
    right.spines[["top", "right"]].set_visible(False)
    right.legend(fontsize=7.5, frameon=False)
    return fig
