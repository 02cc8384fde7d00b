"""Pictures of ROI-AlignPS's two branches: what each reads, what moves each, and where each is right."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from pslib.evaluation.complement import Agreement
from pslib.evaluation.statistics import Interval
from pslib.viz.figures import PALETTE, draw_boxes, new_figure, plain, to_array

__all__ = ["BRANCHES", "agreement_figure", "branches_figure", "energy_figure", "window_around"]

# Color, mark and line of each read, and what it is called.
BRANCHES = {
    "dense": (PALETTE["blue"], "o", "-", "dense branch"),
    "roi": (PALETTE["vermillion"], "s", "--", "ROI branch"),
    "both": (PALETTE["green"], "^", "-.", "both side by side"),
}


def window_around(box: Sequence[float], shape: Sequence[int], margin: float = 28) -> tuple[int, int, int, int]:
    """The part xyxy px of a picture (H, W, ...) that shows ``box`` with ``margin`` px around it.

    >>> window_around((10, 40, 30, 90), (144, 224))
    (0, 12, 58, 118)
    """
    height, width = shape[:2]
    return (
        max(0, round(box[0] - margin)),
        max(0, round(box[1] - margin)),
        min(width, round(box[2] + margin)),
        min(height, round(box[3] + margin)),
    )


def energy_figure(
    image: Any,
    box: Sequence[float],
    energies: Mapping[str, np.ndarray],
    points: Mapping[str, np.ndarray] | None = None,
    titles: Mapping[str, str] | None = None,
    margin: float = 28,
) -> Figure:
    """The picture about ``box`` xyxy px, and beside it where the gradient's energy (H, W) of each read lies.

    ``points`` maps a read to places (K, 2) xy px, which have a panel of their own.  The maps are smoothed by about a
    pixel and drawn over the gray picture, their roots as opacity, each scaled to its own 99.5th percentile.
    """
    picture = to_array(image)
    x1, y1, x2, y2 = window_around(box, picture.shape, margin)
    count, wide = 1 + bool(points) + len(energies), 2.0
    fig, axes = new_figure(wide * count, wide * (y2 - y1) / (x2 - x1) + 0.3, 1, count, squeeze=False)
    axes = axes[0]
    axes[0].imshow(picture, interpolation="nearest")
    axes[0].set_title("the picture", fontsize=9)
    if points:
        axes[1].imshow((picture * 0.5 + 255 * 0.5).astype(np.uint8), interpolation="nearest")
        axes[1].set_title("places read on the maps", fontsize=9)
        for read, places in points.items():
            color, mark, _, _ = BRANCHES[read]
            axes[1].plot(*(places.T - 0.5), mark, color=color, ms=2.2, mew=0)
    gray = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2) * 0.55 + 255 * 0.4
    for ax, (read, energy) in zip(axes[-len(energies) :], energies.items(), strict=True):
        strength = np.sqrt(gaussian_filter(energy, 0.8))
        strength = np.clip(strength / max(np.quantile(strength, 0.995), 1e-12), 0, 1)[..., None]
        # One hue that darkens: strong places stand out in gray as well.
        dark = np.array([int(BRANCHES[read][0][place : place + 2], 16) for place in (1, 3, 5)]) * 0.55
        ax.imshow((gray * (1 - strength) + dark * strength).astype(np.uint8), interpolation="nearest")
        ax.set_title((titles or {}).get(read, f"{BRANCHES[read][3]}: energy"), fontsize=9)
    for ax in axes:
        draw_boxes(ax, [box], color="white", linewidth=2.4)
        draw_boxes(ax, [box], color="black", linewidth=1.1)
        ax.set(xlim=(x1 - 0.5, x2 - 0.5), ylim=(y2 - 0.5, y1 - 0.5), xticks=[], yticks=[])
    return fig


def branches_figure(panels: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> Figure:
    """One panel a measure; in it a row a change, and in the row a dot with its interval for each read.

    ``panels[measure][change][read]``; all panels have the same changes.
    """
    changes = list(next(iter(panels.values())))
    fig, axes = new_figure(8.4, 0.42 * len(changes) + 0.95, 1, len(panels), squeeze=False, sharey=True)
    for ax, (measure, rows) in zip(axes.flat, panels.items(), strict=True):
        for row, change in enumerate(changes):
            reads = rows[change]
            for place, (read, value) in enumerate(reads.items()):
                color, mark, line, name = BRANCHES[read]
                y = row + 0.24 * (place - (len(reads) - 1) / 2)
                ax.plot([value.low, value.high], [y, y], color=color, ls=line, lw=1.8)
                ax.plot(value.mean, y, mark, color=color, ms=5.5, label=name if row == 0 else None)
            if row:
                ax.axhline(row - 0.5, color="#DDDDDD", lw=0.6)
        ax.set_title(measure, fontsize=9)
        plain(ax, "x")
    axes[0, 0].set_yticks(range(len(changes)), changes, fontsize=8)
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return fig


def agreement_figure(panels: Mapping[str, Agreement]) -> Figure:
    """One square a panel: queries that each branch gets right or wrong, and of these how many both together get right.

    >>> found = Agreement(np.array([[4, 1], [2, 3]]), np.array([[0, 1], [1, 3]]))
    >>> [ax.texts[3].get_text() for ax in agreement_figure({"toy": found}).axes]
    ['3\\nboth: 3']
    """
    fig, axes = new_figure(3.4 * len(panels) + 0.4, 2.9, 1, len(panels), squeeze=False, sharey=True)
    for ax, (title, found) in zip(axes.flat, panels.items(), strict=True):
        total = found.queries.sum()
        ax.imshow(found.queries / total, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(found.queries):
            text = f"{count}\nboth: {found.together[row, column]}"
            ax.text(column, row, text, ha="center", va="center", fontsize=9,
                    color="white" if count > 0.55 * total else "black")  # fmt: skip
        ax.set_xticks((0, 1), ("wrong", "right"), fontsize=8.5)
        ax.set_yticks((0, 1), ("wrong", "right"), fontsize=8.5)
        ax.set_xlabel(BRANCHES["roi"][3], fontsize=9)
        ax.set_title(title, fontsize=9)
        ax.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
    axes[0, 0].set_ylabel(BRANCHES["dense"][3], fontsize=9)
    return fig
