"""Dropout against center loss in pictures: clouds of passes, formula and measurement, features that shrink."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from pslib.viz.curves import numbers_of
from pslib.viz.figures import PALETTE, name_columns, new_figure, plain

__all__ = ["ARM_STYLES", "Arm", "Cloud", "Measured", "Moment", "arms_figure", "clouds_figure", "columns_figure",
           "measured_figure", "moment_alt", "moment_figure"]  # fmt: skip

# Each arm of the comparison has a colour AND a line AND a mark.
ARM_STYLES = {
    "no dropout": (PALETTE["blue"], "-", "o"),
    "dropout, loss before it": (PALETTE["green"], "-.", "^"),
    "dropout, loss after it": (PALETTE["vermillion"], "--", "s"),
    "expected cost instead": (PALETTE["black"], ":", "D"),
}
DIGIT_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D00", "#555555", "#7A3E9D",
                "#A80036")  # fmt: skip
CLOUD_COLOR = PALETTE["black"]


@dataclass(frozen=True)
class Cloud:
    """One image's feature in many passes: ``points`` (M, 2) with ``weights`` (M,), and its ``mean`` (2,)."""

    points: np.ndarray
    weights: np.ndarray
    mean: np.ndarray

    @property
    def difference(self) -> float:
        """Expected squared difference of two independent passes."""
        share = self.weights / self.weights.sum()
        return float(2 * (share @ np.square(self.points - share @ self.points).sum(axis=1)))


def clouds_figure(panels: Mapping[str, Cloud], columns: Sequence[np.ndarray]) -> Figure:
    """Clouds side by side on common axes, marks sized by probability; ``columns`` are arrows from 0 in each panel.

    >>> cloud = Cloud(np.eye(2), np.ones(2), np.array([0.5, 0.5]))
    >>> fig = clouds_figure({"two passes": cloud}, [np.eye(2)])
    >>> fig.axes[0].get_title()
    'two passes\\nexpected difference 1.00'
    """
    fig, axes = new_figure(9.0, 3.3, 1, len(panels), squeeze=False, sharex=True, sharey=True)
    for ax, (title, cloud), arrows in zip(axes.flat, panels.items(), columns, strict=True):
        for arrow in np.atleast_2d(arrows):
            ax.annotate("", arrow, (0, 0), arrowprops={"arrowstyle": "-|>", "color": "#999999", "lw": 1.1})
        size = 260 * cloud.weights / cloud.weights.max() if len(cloud.points) <= 64 else np.full(len(cloud.points), 9)
        ax.scatter(*cloud.points.T, s=size, color="#BFE1F6", edgecolor=PALETTE["blue"], lw=0.6)
        ax.plot(*cloud.mean, "*", color=PALETTE["vermillion"], ms=13, mec="black", mew=0.6)
        ax.axhline(0, color="#CCCCCC", lw=0.7, zorder=0)
        ax.axvline(0, color="#CCCCCC", lw=0.7, zorder=0)
        ax.set_title(f"{title}\nexpected difference {cloud.difference:.2f}", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.set_aspect("equal")
        ax.spines[["top", "right"]].set_visible(False)
    every = np.concatenate([[(0.0, 0.0)], *(cloud.points for cloud in panels.values())])
    margin = 0.12 * np.ptp(every)
    low, high = every.min(axis=0) - margin, every.max(axis=0) + margin
    axes[0, 0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return fig


@dataclass(frozen=True)
class Measured:
    """Means ``y`` at ``x`` with twice their standard ``error`` (all (N,)), and the ``formula`` as (x, y) of a line."""

    x: np.ndarray
    y: np.ndarray
    error: np.ndarray
    formula: tuple[np.ndarray, np.ndarray]
    label: str


def measured_figure(panels: Mapping[str, Sequence[Measured]], xlabels: Sequence[str], ylabel: str) -> Figure:
    """Formula as lines, measurements as marks with error bars; axes logarithmic where values span decades.

    What has one label looks the same in all panels.
    """
    fig, axes = new_figure(7.8, 3.0, 1, len(panels), squeeze=False)
    styles = list(ARM_STYLES.values())
    numbers = numbers_of([[one.label for one in series] for series in panels.values()], len(styles))
    for ax, (title, series), own, xlabel in zip(axes.flat, panels.items(), numbers, xlabels, strict=True):
        for number, one in zip(own, series, strict=True):
            color, line, mark = styles[number]
            ax.plot(*one.formula, color=color, ls=line, lw=1.4, label=f"{one.label}: formula")
            ax.errorbar(
                one.x, one.y, yerr=one.error, fmt=mark, color=color, ms=5, capsize=3, label=f"{one.label}: measured"
            )
        for scale, values in ((ax.set_xscale, [v for one in series for v in one.x]),
                              (ax.set_yscale, [v for one in series for v in one.y])):  # fmt: skip
            if min(values) > 0 and max(values) > 30 * min(values):
                scale("log")
        ax.set_title(title, fontsize=9)
        ax.set_xlabel(xlabel, fontsize=8.5)
        ax.legend(fontsize=7.5, frameon=False)
        plain(ax)
    axes[0, 0].set_ylabel(ylabel, fontsize=8.5)
    return fig


@dataclass(frozen=True)
class Arm:
    """One arm over the weights of center loss: each measure's values (S, L), seeds by weights; nan: not run."""

    measures: Mapping[str, np.ndarray]


def arms_figure(arms: Mapping[str, Arm], lams: Sequence[float], logarithmic: Sequence[str] = ()) -> Figure:
    """One panel a measure, weights evenly spaced; a line through the seeds' means and a small mark a seed."""
    measures = list(next(iter(arms.values())).measures)
    rows = -(-len(measures) // 2)
    fig, axes = new_figure(7.8, 2.15 * rows + 0.35, rows, 2, squeeze=False)
    places = np.arange(len(lams))
    for ax, measure in zip(axes.flat, measures, strict=False):
        for name, arm in arms.items():
            color, line, mark = ARM_STYLES[name]
            values = np.asarray(arm.measures[measure])
            for seed in values:
                ax.plot(places, seed, mark, color=color, ms=3.5, mfc="white", mew=0.8)
            ax.plot(places, values.mean(axis=0), color=color, ls=line, marker=mark, ms=6, lw=1.8, label=name)
        if measure in logarithmic:
            ax.set_yscale("log")
            ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            for set_formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
                set_formatter("{x:g}")
            ax.tick_params(which="minor", labelsize=8)
        ax.set_xticks(places, [f"{lam:g}" for lam in lams])
        ax.set_title(measure, fontsize=9.5)
        plain(ax)
    name_columns(axes, len(measures), "weight λ of center loss")
    for ax in axes.flat[len(measures) :]:
        ax.axis("off")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(arms), fontsize=8.5, frameon=False)
    return fig


def columns_figure(panels: Mapping[str, np.ndarray], label: str = "") -> Figure:
    """What each hidden unit adds to the feature over the epochs: panels of (E, H), one colour scale, units sorted."""
    fig, axes = new_figure(7.8, 2.8, 1, len(panels), squeeze=False, sharey=True)
    top = max(float(values.max()) for values in panels.values())
    for ax, (title, values) in zip(axes.flat, panels.items(), strict=True):
        order = np.argsort(-values[-1])
        shown = ax.imshow(values[:, order].T, aspect="auto", cmap="cividis", vmin=0, vmax=top, origin="lower",
                          extent=(0, len(values) - 1, 0, values.shape[1]))  # fmt: skip
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("epoch", fontsize=8.5)
        ax.tick_params(labelsize=8)
    axes[0, 0].set_ylabel("hidden units, largest below", fontsize=8.5)
    bar = fig.colorbar(shown, ax=list(axes.flat), shrink=0.9)
    bar.ax.tick_params(labelsize=8)
    bar.set_label(label, fontsize=8.5)
    return fig


@dataclass(frozen=True)
class Moment:
    """Two-dimensional features (N, 2) of digits (N,), and ``passes`` (M, T, 2): M images in T passes each."""

    features: np.ndarray
    labels: np.ndarray
    passes: np.ndarray
    lam: float
    dropout: float
    euclidean: float
    cosine: float
    ratio: float

    @property
    def length(self) -> float:
        """Mean length of the features."""
        return float(np.linalg.norm(self.features, axis=1).mean())


def moment_figure(moments: Mapping[str, Moment], limit: float) -> Figure:
    """A column a moment: above on axes up to +-``limit``, the same for all; below as near as its own features go.

    Below, the passes of a few images are drawn as clouds, and every digit stands at its mean.
    """
    width = min(2.9, 8.0 / len(moments))
    fig, axes = new_figure(width * len(moments) + 0.2, 2 * width + 0.5, 2, len(moments), squeeze=False)
    for column, (title, moment) in zip(axes.T, moments.items(), strict=True):
        own = 1.05 * float(np.quantile(np.abs(moment.features), 0.995)) + 1e-9
        for ax, edge, near in ((column[0], limit, False), (column[1], own, True)):
            _digits(ax, moment, near)
            ax.set(xlim=(-edge, edge), ylim=(-edge, edge))
            ax.set_aspect("equal")
            ax.tick_params(labelsize=7.5)
        column[0].set_title(title, fontsize=9)
        column[1].set_title(f"near by: mean length {moment.length:.2g}\nmAP {moment.euclidean:.0f} Euclidean, "
                            f"{moment.cosine:.0f} cosine", fontsize=8)  # fmt: skip
    return fig


def moment_alt(moment: Moment) -> str:
    """What a moment shows, in words."""
    dropped = f"dropout {moment.dropout:g}" if moment.dropout else "no dropout"
    return (
        f"λ {moment.lam:g}, {dropped}: mean length {moment.length:.2g}, within/between {moment.ratio:.2f}, "
        f"mAP {moment.euclidean:.0f} Euclidean and {moment.cosine:.0f} cosine."
    )


def _digits(ax: Axes, moment: Moment, near: bool) -> None:
    ax.scatter(*moment.features.T, s=5, c=[DIGIT_COLORS[label] for label in moment.labels], lw=0)
    ax.plot(0, 0, "+", color="black", ms=8)
    if not near:
        return
    for cloud in moment.passes:
        ax.scatter(*cloud.T, s=3, color=CLOUD_COLOR, lw=0)
    for digit in np.unique(moment.labels):
        ax.text(*moment.features[moment.labels == digit].mean(axis=0), str(digit), fontsize=9, ha="center", va="center",
                bbox={"facecolor": "white", "edgecolor": DIGIT_COLORS[digit], "pad": 1.2, "lw": 0.8})  # fmt: skip
