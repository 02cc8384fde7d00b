"""Two branches in pictures: correlated numbers, a bound by hand, losses as forces, who learns when, and Fig. 9.

Of the two branches the dense one is always drawn filled and the ROI branch hollow, so that color and shape are free
for the person.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pslib.training.two_views import ViewsRun
from pslib.viz.embeddings import Groups, style_of
from pslib.viz.figures import PALETTE, new_figure, plain

__all__ = ["Forces", "TwoBranches", "branches_figure", "circle_figure", "correlated_alt", "correlated_figure",
           "reading_figure", "views_alt", "views_figure"]  # fmt: skip

# Attribute of a run, color, line and mark, words.
_SHARED = (("truth", "black", "-", "o", "what the branches share"),
           ("claimed", PALETTE["vermillion"], "--", "s", "what T claims of it"))  # fmt: skip


def correlated_figure(rho: float, a: np.ndarray, noise: np.ndarray) -> Figure:
    """Pairs a (N,) and rho a + sqrt(1 - rho^2) noise, their information in nats, and where rho stands on its curve."""
    fig, (left, right) = new_figure(7.4, 3.0, 1, 2, gridspec_kw={"width_ratios": (1, 1.25)})
    rest = math.sqrt(1 - rho**2)
    left.scatter(a, rho * a + rest * noise, s=9, color=PALETTE["blue"], alpha=0.55, lw=0)
    line = np.array([-3.2, 3.2])
    left.plot(line, rho * line, color=PALETTE["vermillion"], lw=1.8)
    for side in (-2, 2):
        left.plot(line, rho * line + side * rest, color=PALETTE["vermillion"], ls="--", lw=1.2)
    left.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
    left.set_xlabel("what the dense branch says", fontsize=8.5)
    left.set_ylabel("what the ROI branch says", fontsize=8.5)
    left.set_title(f"correlation {rho:.2f}: r is known\nto ±{2 * rest:.2f} instead of ±2", fontsize=9)
    at = np.linspace(-0.995, 0.995, 400)
    right.plot(at, _nats(at), color="black", lw=1.5)
    right.plot(rho, _nats(rho), "o", color=PALETTE["vermillion"], ms=9)
    right.set(xlim=(-1, 1), ylim=(0, 2.4))
    right.set_xlabel("correlation", fontsize=8.5)
    right.set_ylabel("mutual information, nats", fontsize=8.5)
    right.set_title(f"-½ log(1 - ρ²) = {_nats(rho):.2f} nats", fontsize=9)
    for ax in (left, right):
        plain(ax)
    return fig


def correlated_alt(rho: float) -> str:
    """What :func:`correlated_figure` shows, in words.

    >>> correlated_alt(0.8)
    'Correlation 0.80: 0.51 nats; knowing one number, the other is known to within 1.20 instead of 2.'
    """
    return (f"Correlation {rho:.2f}: {_nats(rho):.2f} nats; knowing one number, the other is known to within "
            f"{2 * math.sqrt(1 - rho**2):.2f} instead of 2.")  # fmt: skip


def _nats(rho: np.ndarray | float) -> np.ndarray | float:
    return -0.5 * np.log1p(-np.square(rho))


def reading_figure(scales: np.ndarray, bounds: np.ndarray, others: np.ndarray, truth: float) -> Figure:
    """The bound (S,) of one T enlarged by ``scales`` (S,), the bounds (M,) of other T, and the truth above them all."""
    fig, (left, right) = new_figure(7.6, 2.7, 1, 2, sharey=True, gridspec_kw={"width_ratios": (1.5, 1)})
    best = int(np.argmax(bounds))
    left.plot(scales, bounds, color=PALETTE["blue"], lw=1.8)
    left.plot(scales[best], bounds[best], "o", color=PALETTE["blue"], ms=8)
    left.set_xlabel("the best T, times this", fontsize=8.5)
    left.set_ylabel("bound, nats", fontsize=8.5)
    right.plot(np.linspace(0, 1, len(others)), others, ".", color=PALETTE["blue"], ms=4)
    right.set(xticks=[], xlim=(-0.03, 1.03), ylim=(max(bounds.min(), -0.6) - 0.03, truth + 0.12))
    right.set_xlabel(f"{len(others)} T at random (some below the frame)", fontsize=8.5)
    for ax in (left, right):
        ax.axhline(truth, color="black", ls="--", lw=1.3)
        plain(ax)
    left.text(scales[0], truth + 0.02, "mutual information", fontsize=8)
    return fig


@dataclass(frozen=True, eq=False)
class Forces:
    """People on a circle: angles (I,) of both branches, and the step (I, 2) that a loss asks of each point."""

    dense: np.ndarray
    roi: np.ndarray
    push_dense: np.ndarray
    push_roi: np.ndarray
    note: str = ""


def circle_figure(panels: Mapping[str, Forces], columns: int = 3, length: float = 0.4) -> Figure:
    """Where each loss moves each embedding: people by color and shape, dense filled, ROI hollow, arrows downhill.

    A dotted line joins the two embeddings of a person.  The longest arrow of a panel is ``length`` radii long, so
    arrows compare within a panel; a panel in which nothing is moved has none.
    """
    rows = -(-len(panels) // columns)
    fig, axes = new_figure(7.8, 2.6 * rows + 0.3, rows, columns, squeeze=False)
    circle = np.linspace(0, 2 * np.pi, 200)
    for ax, (title, forces) in zip(axes.flat, panels.items(), strict=False):
        ax.plot(np.cos(circle), np.sin(circle), color="#CCCCCC", lw=1)
        for person, ends in enumerate(zip(forces.dense, forces.roi, strict=True)):
            ax.plot(np.cos(ends), np.sin(ends), color=style_of(person)[0], ls=":", lw=1.2)
        longest = max(np.linalg.norm(np.concatenate([forces.push_dense, forces.push_roi]), axis=1).max(), 1e-3)
        for angles, pushes, hollow in ((forces.dense, forces.push_dense, False), (forces.roi, forces.push_roi, True)):
            for person, (angle, push) in enumerate(zip(angles, pushes, strict=True)):
                spot = np.array([np.cos(angle), np.sin(angle)])
                arrow = length * push / longest
                if np.linalg.norm(arrow) > 0.04:
                    ax.annotate("", spot + arrow, spot, zorder=3, arrowprops={
                        "arrowstyle": "-|>", "color": "#555555", "lw": 1.3, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
                _mark(ax, spot[None], person, hollow, 62)
        ax.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
        ax.set_title(f"{title}\n{forces.note}".strip(), fontsize=8.5)
    for ax in axes.flat:
        ax.axis("off")
    fig.legend(handles=_branch_handles(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return fig


def views_figure(runs: Mapping[str, Sequence[ViewsRun]]) -> Figure:
    """One panel a way to learn: information of the branches, and what the estimator claims; thin lines are seeds."""
    fig, axes = new_figure(8.4, 3.0, 1, len(runs), squeeze=False, sharey=True)
    for ax, (title, group) in zip(axes.flat, runs.items(), strict=True):
        for of, color, line, mark, label in _SHARED:
            values = np.array([getattr(run, of) for run in group])
            for one in values:
                ax.plot(group[0].looks, one, color=color, ls=line, lw=0.6, alpha=0.6)
            ax.plot(group[0].looks, values.mean(axis=0), color=color, ls=line, marker=mark, ms=3, lw=1.8, label=label)
        ax.axhline(group[0].nats, color="#777777", ls=":", lw=1.3, label="the most they can share")
        ax.set_title(f"{title}\nbranches learn in {np.mean([run.led for run in group]):.0f} steps", fontsize=9)
        ax.set_xlabel("step", fontsize=8.5)
        plain(ax)
    top = max(run.nats for group in runs.values() for run in group)
    axes[0, 0].set_ylim(-0.5, 1.08 * top)
    axes[0, 0].set_ylabel("nats", fontsize=8.5)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return fig


def views_alt(runs: Mapping[str, Sequence[ViewsRun]]) -> str:
    """Where each panel of :func:`views_figure` ends, in words.

    >>> run = ViewsRun(0.0, 3.0, np.array([9]), np.array([2.5]), np.array([1.0]), 9)
    >>> views_alt({"never detached": [run]})
    'Information over training steps. Never detached: in the end the branches share 2.50 nats and T claims 1.00.'
    """
    parts = []
    for title, group in runs.items():
        shared, claimed = (np.mean([getattr(run, of)[-1] for run in group]) for of in ("truth", "claimed"))
        words = f"in the end the branches share {shared:.2f} nats and T claims {claimed:.2f}"
        parts.append(f"{title[:1].upper()}{title[1:]}: {words}")
    return f"Information over training steps. {'; '.join(parts)}."


@dataclass(frozen=True, eq=False)
class TwoBranches:
    """One picture of both branches: ``points`` (2 N, 2), the dense branch's N first, and the ``people`` of the N."""

    points: np.ndarray
    people: Groups
    note: str = ""


def branches_figure(
    panels: Mapping[str, TwoBranches], columns: int = 2, width: float = 7.6, size: float = 15.0
) -> Figure:
    """Fig. 9: people by color and shape, the dense branch filled, the ROI branch hollow; each panel its own ruler."""
    rows = max(1, -(-len(panels) // columns))
    fig, axes = new_figure(width, rows * 3.1 + 0.2, rows, columns, squeeze=False)
    for ax, (title, panel) in zip(axes.flat, panels.items(), strict=False):
        half = len(panel.points) // 2
        for points, hollow in ((panel.points[:half], False), (panel.points[half:], True)):
            for person in range(len(panel.people.names)):
                _mark(ax, points[panel.people.of == person], person, hollow, size)
        ax.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
        ax.margins(0.05)
        for spine in ax.spines.values():
            spine.set_color("#BBBBBB")
        ax.set_title(f"{title}\n{panel.note}".strip(), fontsize=8.5)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    fig.legend(handles=_branch_handles(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return fig


def _mark(ax: Axes, points: np.ndarray, person: int, hollow: bool, size: float) -> None:
    """Points (N, 2) of one person in one branch."""
    color, mark = style_of(person)
    inside = "white" if hollow else color
    ax.scatter(*points.T, s=size, marker=mark, facecolors=inside, edgecolors=color, lw=1.0, zorder=4)


def _branch_handles() -> list[Line2D]:
    style = dict(ls="", marker="o", ms=6, mec="#333333")
    return [Line2D([], [], mfc="#333333", label="dense branch: filled", **style),
            Line2D([], [], mfc="white", label="ROI branch: hollow", **style)]  # fmt: skip
