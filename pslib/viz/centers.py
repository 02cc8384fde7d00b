"""Center loss in pictures: one step by hand, two-dimensional features and their centers, search against lambda.

The drawings of notebook 08; IAN's Figs. 2, 4 and 5 are among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pslib.evaluation.statistics import Interval
from pslib.viz.figures import PALETTE, new_figure

__all__ = ["Cloud", "features_figure", "gallery_figure", "lambda_figure", "pull_figure", "rulers_figure", "step_figure"]

# Ten classes: colours far apart, and each class's number stands at its center.
_COLORS = (*(PALETTE[name] for name in ("blue", "orange", "green", "vermillion", "purple", "sky", "black")),
           "#8C6D31", "#888888", "#5254A3")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cloud:
    """Features (N, 2) with their classes (N,), and the center (I, 2) of every class."""

    features: np.ndarray
    labels: np.ndarray
    centers: np.ndarray

    @property
    def reach(self) -> float:
        """Half the side of a square about the origin that holds the features, a few far ones apart."""
        return 1.1 * float(np.quantile(np.abs(self.features), 0.995))


def step_figure(features: Any, old: Sequence[float], new: Sequence[float]) -> Figure:
    """One step of Eq. 4 for one class: its features (n, 2), the center before and after, the features' mean."""
    features = np.asarray(features, float)
    mean = features.mean(axis=0)
    fig, ax = new_figure(4.0, 2.7)
    for point in features:
        ax.annotate("", old, point, arrowprops={"arrowstyle": "<|-", "color": "#888888", "ls": ":", "lw": 1.1})
    ax.plot(*features.T, "o", color=PALETTE["blue"], ms=8, label="features")
    ax.plot(*mean, "+", color=PALETTE["green"], ms=13, mew=2.4, label="their mean")
    ax.annotate("", new, old, arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 2.2, "shrinkA": 0, "shrinkB": 0})
    ax.plot(*old, "s", color="white", mec="black", ms=10, mew=1.6, label="center before")
    ax.plot(*new, "s", color="black", ms=9, label="center after")
    ax.set(aspect="equal")
    ax.margins(0.18)
    ax.grid(color="#DDDDDD", lw=0.6)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(fontsize=8, frameon=False, loc="outside right upper")
    return fig


def pull_figure(clouds: Mapping[str, Cloud], classes: Sequence[int], count: int = 25) -> Figure:
    """IAN Fig. 2: ``count`` features of some classes, each tied to its center; each panel has its own ruler."""
    fig, axes = new_figure(6.6, 2.8, 1, len(clouds), squeeze=False)
    for ax, (title, cloud) in zip(axes.flat, clouds.items(), strict=True):
        shown = np.concatenate([np.flatnonzero(cloud.labels == one)[:count] for one in classes])
        for place in shown:
            center = cloud.centers[cloud.labels[place]]
            ax.plot(*np.stack([cloud.features[place], center]).T, color=_COLORS[cloud.labels[place]], lw=0.7, alpha=0.6)
        _scatter(ax, Cloud(cloud.features[shown], cloud.labels[shown], cloud.centers), classes, 14)
        ax.set(aspect="equal", xticks=[], yticks=[])
        ax.margins(0.08)
        ax.set_title(title, fontsize=9)
    return fig


def rulers_figure(cloud: Cloud, reach: float, title: str) -> Figure:
    """One moment twice: on a fixed ruler that reaches to ``reach``, and on a ruler of its own."""
    fig, axes = new_figure(7.0, 3.5, 1, 2)
    for ax, side, words in zip(axes, (reach, cloud.reach), ("fixed ruler", "its own ruler"), strict=True):
        _scatter(ax, cloud, np.unique(cloud.labels), 7)
        _square(ax, side)
        ax.set_title(f"{words}: axes from {-side:.1f} to {side:.1f}", fontsize=9)
    fig.suptitle(title, fontsize=10)
    return fig


def features_figure(clouds: Mapping[str, Cloud]) -> Figure:
    """One column a run: above all runs on the ruler of the widest one, below each on a ruler of its own."""
    reach = max(cloud.reach for cloud in clouds.values())
    count = len(clouds)
    fig, axes = new_figure(1.9 * count + 0.2, 4.3, 2, count, squeeze=False)
    for (top, bottom), (title, cloud) in zip(axes.T, clouds.items(), strict=True):
        for ax, side in ((top, reach), (bottom, cloud.reach)):
            _scatter(ax, cloud, np.unique(cloud.labels) if ax is bottom else (), 4)
            _square(ax, side)
        top.set_title(title, fontsize=9)
        bottom.set_xlabel(f"-{cloud.reach:.1f} to {cloud.reach:.1f}", fontsize=8)
        top.set_xlabel(f"-{reach:.1f} to {reach:.1f}", fontsize=8)
    axes[0, 0].set_ylabel("one ruler for all", fontsize=9)
    axes[1, 0].set_ylabel("each its own ruler", fontsize=9)
    return fig


def lambda_figure(values: Mapping[float, Interval], folds: Mapping[float, Sequence[float]], chosen: float) -> Figure:
    """IAN Fig. 4: search against the weight of center loss; bars are intervals, thin marks the single folds.

    Weights stand side by side, evenly, as each but the first doubles the last (0 has no place on such an axis
    otherwise).  ``chosen`` is marked.
    """
    fig, ax = new_figure(6.4, 3.0)
    places = dict(zip(sorted(values), range(len(values)), strict=True))
    means = [values[lam].mean for lam in places]
    ends = [[max(0.0, values[lam].mean - values[lam].low) for lam in places],
            [max(0.0, values[lam].high - values[lam].mean) for lam in places]]  # fmt: skip
    ax.errorbar(range(len(places)), means, ends, color=PALETTE["blue"], marker="o", ms=6, lw=1.6, capsize=3,
                label="mean, 95 % interval")  # fmt: skip
    marks = [(place + 0.12, value) for lam, place in places.items() for value in folds.get(lam, ())]
    if marks:
        ax.plot(*np.array(marks).T, "_", color="#555555", ms=9, mew=1.4, label="one fold")
    if chosen in places:
        ax.axvline(places[chosen], color="#777777", ls=(0, (4, 3)), lw=0.9, label="the paper's choice")
    ax.set_xticks(range(len(places)), [f"{lam:g}" for lam in places], fontsize=8.5)
    ax.set_xlabel("lambda, weight of center loss", fontsize=8.5)
    ax.set_ylabel("search mAP", fontsize=8.5)
    ax.tick_params(axis="y", labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#DDDDDD", lw=0.6)
    fig.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return fig


def gallery_figure(sizes: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """IAN Fig. 5: search mAP of each model against the frames in the gallery, a logarithmic axis of ``sizes``."""
    fig, ax = new_figure(7.0, 2.6)
    marks = ("o", "s", "^", "D", "v", "P")
    for number, (label, values) in enumerate(curves.items()):
        ax.plot(sizes, values, ("-", "--", "-.", ":")[number % 4], marker=marks[number % len(marks)], ms=5, lw=1.6,
                color=_COLORS[number % len(_COLORS)], label=label)  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks(sizes, [str(size) for size in sizes], fontsize=8)
    ax.minorticks_off()
    ax.set_xlabel("frames in the gallery", fontsize=8.5)
    ax.set_ylabel("search mAP", fontsize=8.5)
    ax.tick_params(axis="y", labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(fontsize=8, frameon=False, loc="outside right upper")
    return fig


def _scatter(ax: Axes, cloud: Cloud, named: Sequence[int], size: float) -> None:
    """Features as dots by class; the centers of the classes ``named`` as their numbers in a ring."""
    ax.scatter(*cloud.features.T, s=size, c=[_COLORS[label % len(_COLORS)] for label in cloud.labels], lw=0)
    for one in named:
        ax.text(*cloud.centers[one], str(one), fontsize=8, weight="bold", ha="center", va="center", zorder=5,
                clip_on=True, bbox={"boxstyle": "circle,pad=0.18", "facecolor": "white", "lw": 1,
                                    "edgecolor": _COLORS[one % len(_COLORS)]})  # fmt: skip


def _square(ax: Axes, reach: float) -> None:
    ax.axhline(0, color="#CCCCCC", lw=0.7, zorder=0)
    ax.axvline(0, color="#CCCCCC", lw=0.7, zorder=0)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
