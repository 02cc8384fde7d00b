"""Pictures of a re-id loss with memory: OIM's table, queue and temperature, and the members of TOIM's triplets.

AlignPS, Sec. III-C, Eqs. 1 to 4 and Fig. 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from pslib.viz.figures import PALETTE, draw_boxes, new_figure, plain, to_array

__all__ = ["Snapshot", "circle_figure", "members_figure", "momentum_figure", "pull", "snapshots_figure", "sweep_figure"]

# Colour, mark and line of a person's own row, the other rows of the table, and the queue, the same in every picture.
OWN = (PALETTE["blue"], "o", "-", "own row")
OTHERS = (PALETTE["orange"], "s", "--", "other rows")
QUEUE = (PALETTE["green"], "^", ":", "queue")
OWN_FRAME = PALETTE["vermillion"]
# Colour and hatch of the first, second, ... person of a scene.
PEOPLE = [(PALETTE[name], hatch) for name, hatch in (("sky", ""), ("orange", "//"), ("green", ".."), ("purple", "xx"))]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Table and queue at one moment of a training, as cosines.

    ``grid`` (N, P + U'): N boxes of P people, those of one person together, against the P rows of these people, in
    the same order, and a few slots of the queue.  ``boxes`` (P,) says how many of the N are each person's.  ``own``,
    ``others`` and ``queue`` are any number of cosines of boxes with their own row, with other rows, and with slots of
    the queue.
    """

    grid: np.ndarray
    boxes: Sequence[int]
    own: np.ndarray
    others: np.ndarray
    queue: np.ndarray


def pull(embedding: Tensor, own: int, rows: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Probabilities (I + U,) of Eq. 1 and the downhill direction (D,) of -log p_own at ``embedding`` (D,).

    ``rows`` (I + U, D) holds the table and, below it, the queue.  The direction is
    ``(v_own - sum_j p_j m_j) / temperature``: towards the own row, away from the mean of all rows, each weighted by the
    probability it takes.  A row that takes none pushes nobody.

    >>> p, direction = pull(torch.tensor([1.0, 0.0]), 0, torch.tensor([[0.0, 1.0], [1.0, 0.0]]), temperature=1.0)
    >>> p, direction
    (tensor([0.2689, 0.7311]), tensor([-0.7311,  0.7311]))
    """
    p = (rows @ embedding / temperature).softmax(dim=0)
    return p, (rows[own] - p @ rows) / temperature


def circle_figure(embedding: Tensor, own: int, table: Tensor, queue: Tensor, temperatures: Sequence[float]) -> Figure:
    """Eq. 1 in two dimensions, one column a temperature: who takes which probability, and where that pulls.

    ``embedding`` (2,) belongs to identity ``own``; ``table`` (I, 2) and ``queue`` (U, 2), all of unit length.  Marks
    grow with the probability that a row takes; the arrow is the pull without its factor 1 / temperature.
    """
    fig, axes = new_figure(2.65 * len(temperatures), 4.3, 2, len(temperatures), squeeze=False, height_ratios=(1.7, 1))
    rows = torch.cat([table, queue])
    styles = [OWN if place == own else OTHERS if place < len(table) else QUEUE for place in range(len(rows))]
    names = [f"v{place + 1}" for place in range(len(table))] + [f"u{place + 1}" for place in range(len(queue))]
    for (top, bottom), temperature in zip(axes.T, temperatures, strict=True):
        p, direction = pull(embedding, own, rows, temperature)
        top.add_patch(Circle((0, 0), 1, fill=False, edgecolor="#AAAAAA", lw=0.8))
        for row, name, (color, mark, _, _), share in zip(rows.tolist(), names, styles, p.tolist(), strict=True):
            top.plot(*row, mark, color=color, ms=5 + 13 * share, mec="black", mew=0.6)
            top.text(1.28 * row[0], 1.28 * row[1], name, fontsize=8.5, ha="center", va="center")
        top.plot(*embedding, "*", color="black", ms=11)
        end = embedding + 0.75 * temperature * direction
        top.annotate("", end.tolist(), embedding.tolist(), arrowprops={"arrowstyle": "-|>", "lw": 2, "color": "black"})
        top.set(xlim=(-1.45, 1.45), ylim=(-1.4, 1.4), aspect="equal", xticks=[], yticks=[])
        top.spines[:].set_visible(False)
        top.set_title(f"temperature {temperature:g}\nloss {-float(p[own].log()):.2f}, "
                      f"pull {float(direction.norm()):.2f}", fontsize=9)  # fmt: skip
        bars = bottom.bar(names, p.tolist(), color=[style[0] for style in styles], edgecolor="black", linewidth=0.6)
        bottom.bar_label(bars, fmt="%.2f", fontsize=7.5)
        bottom.set(ylim=(0, 1.15), yticks=[0, 0.5, 1])
        plain(bottom)
    axes[1, 0].set_ylabel("probability", fontsize=8.5)
    return fig


def momentum_figure(paths: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """One panel a title: how the embedding (T, 2) and its row (T, 2) of the table walk on the circle, step by step.

    The first places are the largest marks; a thin line joins embedding and row of one step.
    """
    fig, axes = new_figure(2.65 * len(paths), 2.75, 1, len(paths), squeeze=False)
    for ax, (title, (embeddings, rows)) in zip(axes.flat, paths.items(), strict=True):
        ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor="#CCCCCC", lw=0.8))
        sizes = np.linspace(70, 14, len(embeddings))
        for one, other in zip(embeddings, rows, strict=True):
            ax.plot([one[0], other[0]], [one[1], other[1]], color="#BBBBBB", lw=0.7, zorder=1)
        ax.scatter(*embeddings.T, s=sizes, marker="*", color="black", zorder=3, label="embedding")
        ax.scatter(*rows.T, s=sizes, marker=OWN[1], color=OWN[0], edgecolor="black", lw=0.5, zorder=2, label="row")
        ax.set(xlim=(-0.25, 1.15), ylim=(-0.1, 1.15), aspect="equal", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(title, fontsize=9)
    axes[0, 0].legend(fontsize=8, frameon=False, loc="lower left")
    return fig


def snapshots_figure(snapshots: Mapping[str, Snapshot]) -> Figure:
    """One column a moment: boxes against the rows of their people and the queue; below, all cosines as shares.

    People are numbered and parted by lines; a frame is around the boxes of each at her own row.  A single moment has
    the two side by side.
    """
    if len(snapshots) == 1:
        fig, axes = new_figure(7.2, 2.9, 1, 2, squeeze=False)
        axes = axes.T
    else:
        fig, axes = new_figure(2.15 * len(snapshots), 4.1, 2, len(snapshots), squeeze=False, sharey="row",
                               height_ratios=(1.4, 1))  # fmt: skip
    edges = np.linspace(-1, 1, 41)
    # Few steps of colour: the page's pictures have a small palette, in which the lines below need their places.
    steps = colormaps["cividis"].resampled(9)
    for (top, bottom), (title, snapshot) in zip(axes.T, snapshots.items(), strict=True):
        shown = top.imshow(snapshot.grid, cmap=steps, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        people, slots = len(snapshot.boxes), snapshot.grid.shape[1] - len(snapshot.boxes)
        borders = np.cumsum([0, *snapshot.boxes]) - 0.5
        for person, (start, count) in enumerate(zip(borders, snapshot.boxes, strict=False)):
            top.axhline(start, color="white", lw=0.7)
            top.add_patch(Rectangle((person - 0.5, start), 1, count, fill=False, edgecolor=OWN_FRAME, lw=1.6, zorder=3))
        top.axvline(people - 0.5, color="white", lw=2)
        top.set_xticks([(people - 1) / 2, people + (slots - 1) / 2], [f"rows 1 to {people}", "queue"], fontsize=8)
        top.set_yticks((borders[1:] + borders[:-1]) / 2, [str(person + 1) for person in range(people)], fontsize=7)
        top.tick_params(length=0)
        top.set_title(title, fontsize=9)
        for values, (color, _, line, name) in zip((snapshot.others, snapshot.queue, snapshot.own),
                                                  (OTHERS, QUEUE, OWN), strict=True):  # fmt: skip
            if len(values):
                share = np.histogram(values, edges)[0] / len(values)
                bottom.plot((edges[1:] + edges[:-1]) / 2, 100 * share, color=color, ls=line, lw=2.2, label=name)
        bottom.set(xlim=(-1, 1), ylim=(0, 40), xticks=[-1, 0, 1])
        bottom.set_xlabel("cosine", fontsize=8.5)
        plain(bottom)
    axes[0, 0].set_ylabel("boxes of person", fontsize=8.5)
    axes[1, 0].set_ylabel("per cent of pairs", fontsize=8.5)
    axes[1, -1].legend(fontsize=7.5, frameon=False, loc="upper left")  # the first moment may have a peak there
    fig.colorbar(shown, ax=list(axes[0]), shrink=0.8, label="cosine")
    return fig


def sweep_figure(panels: Mapping[str, Mapping[str, Sequence[float]]], chosen: Mapping[str, str], ylabel: str) -> Figure:
    """One panel a constant: results of its settings, a dot a seed, a line through the means.

    ``panels[title][setting]`` holds the seeds' results; ``chosen[title]`` is the setting that the models use.
    """
    fig, axes = new_figure(2.75 * len(panels), 2.6, 1, len(panels), squeeze=False, sharey=True)
    for ax, (title, settings) in zip(axes.flat, panels.items(), strict=True):
        names = list(settings)
        ax.plot(range(len(names)), [np.mean(values) for values in settings.values()], color=PALETTE["blue"], lw=1.4)
        for place, values in enumerate(settings.values()):
            ax.plot([place] * len(values), values, "o", color=PALETTE["blue"], ms=4)
        if chosen.get(title) in names:
            ax.axvline(names.index(chosen[title]), color="#777777", ls=(0, (4, 3)), lw=0.9)
        ax.set_xticks(range(len(names)), names, fontsize=8)
        ax.set_title(title, fontsize=9)
        plain(ax)
    axes[0, 0].set_ylabel(ylabel, fontsize=8.5)
    return fig


def members_figure(
    image: Any, boxes: Tensor, cells: Sequence[Tensor], stride: int, distance: Tensor, owner: Tensor, is_row: Tensor
) -> Figure:
    """AlignPS's Fig. 4: the cells of each person that enter the triplets, and the distances between all members.

    ``boxes`` (N, 4) and ``cells``, one (n, 2) tensor of centres a person, in px.  ``distance`` (M, M) is between the
    members, ``owner`` (M,) says whose each is (a place in ``boxes``), ``is_row`` (M,) which are rows of the table.
    Every anchor (a line of the matrix) has its farthest positive marked "+" and its nearest negative "x".
    """
    picture, order = to_array(image), torch.argsort(owner * 2 + is_row.long(), stable=True)
    distance, owner, is_row = distance[order][:, order], owner[order], is_row[order]
    fig, (left, right) = new_figure(6.8, 2.9, 1, 2, width_ratios=(1.25, 1))
    left.imshow((picture * 0.6 + 255 * 0.4).astype(np.uint8))
    for person, points in enumerate(cells):
        color, hatch = PEOPLE[person % len(PEOPLE)]
        for x, y in points.tolist():
            corner = (x - stride / 2 - 0.5, y - stride / 2 - 0.5)
            left.add_patch(Rectangle(corner, stride, stride, facecolor=color, hatch=hatch, edgecolor="black", lw=0.5))
    draw_boxes(left, boxes, [f"person {place}" for place in range(len(boxes))], color="black", linewidth=1.2)
    left.set(xticks=[], yticks=[])
    same = owner[:, None] == owner[None, :]
    shown = right.imshow(distance.numpy(), cmap="cividis", vmin=0)
    farthest = distance.masked_fill(~same, -torch.inf).argmax(dim=1).tolist()
    nearest = distance.masked_fill(same, torch.inf).argmin(dim=1).tolist()
    right.plot(farthest, range(len(owner)), "+", color="white", ms=6, mew=1.6)
    right.plot(nearest, range(len(owner)), "x", color=PALETTE["vermillion"], ms=5, mew=1.6)
    for start in [place for place in range(1, len(owner)) if owner[place] != owner[place - 1]]:
        right.axvline(start - 0.5, color="white", lw=2)
        right.axhline(start - 0.5, color="white", lw=2)
    names = [f"row {o}" if row else "" for o, row in zip(owner.tolist(), is_row.tolist(), strict=True)]
    right.set_yticks(range(len(names)), names, fontsize=7.5)
    right.set_xticks([float(torch.nonzero(owner == o).float().mean()) for o in owner.unique()],
                     [f"person {o}" for o in owner.unique().tolist()], fontsize=7.5)  # fmt: skip
    right.tick_params(length=0)
    fig.colorbar(shown, ax=right, shrink=0.8, label="Euclidean distance")
    return fig
