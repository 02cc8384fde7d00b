"""The bound of mutual information in pictures: how it rises, and when the number it gives is worth anything.

AlignPS, Sec. III-D, Eq. 6, on the Gaussians of :mod:`pslib.training.gaussians`, whose information is known.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pslib.training.gaussians import BoundRun
from pslib.viz.figures import PALETTE, new_figure, plain

__all__ = ["rise_alt", "rise_figure", "sizes_alt", "sizes_figure"]

# Colour, mark and line of the smallest, second, ... batch size.
_SIZES = ((PALETTE["vermillion"], "s", "--"), (PALETTE["blue"], "o", "-"), (PALETTE["green"], "^", "-."),
          (PALETTE["purple"], "D", (0, (5, 2, 1, 2))))  # fmt: skip
_MIDDLE = (0.1, 0.9)  # the share of the batches that a bar leaves out below and above


def rise_figure(runs: Sequence[BoundRun]) -> Figure:
    """One panel a run: the bound of every batch, that of a large fresh sample, the truth, and log(batch)."""
    fig, axes = new_figure(8.6, 3.1, 1, len(runs), squeeze=False)
    for ax, run in zip(axes.flat, runs, strict=True):
        ax.plot(np.arange(1, len(run.batches) + 1), run.batches, ".", color=PALETTE["sky"], ms=3, label="each batch")
        ax.plot(run.looks, run.fresh, "-o", color=PALETTE["blue"], ms=3, lw=1.8, label="large fresh sample")
        ax.axhline(run.nats, color="black", ls="--", lw=1.3, label="truth")
        ax.axhline(math.log(run.batch_size), color=PALETTE["vermillion"], ls=":", lw=1.6, label="log(batch)")
        ax.set_title(f"{_nats(run.nats)}, batches of {run.batch_size}", fontsize=9)
        ax.set_xlabel("step", fontsize=8.5)
        plain(ax)
    axes[0, 0].set_ylabel("bound, nats", fontsize=8.5)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return fig


def rise_alt(runs: Sequence[BoundRun]) -> str:
    """What :func:`rise_figure` shows, in words: where every panel ends.

    >>> one = np.ones(50)
    >>> rise_alt([BoundRun(2.0, 64, one, np.array([50]), np.array([1.9]), one)])
    'The bound over training steps. 2 nats, log(batch) 4.2: the last batches say 1.0 to 1.0, a large fresh sample 1.9.'
    """
    parts = []
    for run in runs:
        low, high = np.quantile(run.batches[-50:], _MIDDLE)
        parts.append(
            f"{_nats(run.nats)}, log(batch) {math.log(run.batch_size):.1f}: the last batches say {low:.1f} to "
            f"{high:.1f}, a large fresh sample {run.fresh[-1]:.1f}"
        )
    return f"The bound over training steps. {'; '.join(parts)}."


def sizes_figure(runs: Sequence[BoundRun]) -> Figure:
    """The trained bound against the truth, a line a batch size: read off batches (left), off a large sample (right).

    Left stands the mean over fresh batches of the size trained with, its bars hold eight of ten batches.  Thin
    verticals mark log(batch) of each size.  On the black diagonal the number would be right.
    """
    fig, (left, right) = new_figure(8.6, 3.6, 1, 2, sharex=True, sharey=True)
    top = max(run.nats for run in runs)
    for number, (size, group) in enumerate(_by_size(runs).items()):
        color, mark, line = _SIZES[number % len(_SIZES)]
        style = dict(color=color, marker=mark, ls=line, ms=5, lw=1.6, label=f"batches of {size}")
        truth, mean = [run.nats for run in group], np.array([run.small.mean() for run in group])
        low, high = np.quantile([run.small for run in group], _MIDDLE, axis=1)
        # Side by side, or the bars of different sizes hide each other.
        places = np.array(truth) + 0.012 * top * (number - 1)
        left.errorbar(places, mean, np.abs([mean - low, high - mean]), capsize=2.5, elinewidth=1, **style)
        right.plot(truth, [run.fresh[-1] for run in group], **style)
        for ax in (left, right):
            ax.axvline(math.log(size), color=color, ls=":", lw=1)
    for ax, title in ((left, "read off fresh batches of that size"), (right, "read off one large fresh sample")):
        ax.plot([0, top], [0, top], color="black", lw=1.1, label="truth")
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("true mutual information, nats", fontsize=8.5)
        plain(ax)
    left.set_ylabel("bound, nats", fontsize=8.5)
    handles = [*right.get_legend_handles_labels()[0], Line2D([], [], color="#555555", ls=":", lw=1, label="log(batch)")]
    fig.legend(handles=handles, loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    return fig


def sizes_alt(runs: Sequence[BoundRun]) -> str:
    """What :func:`sizes_figure` shows, in words: truth, reading of batches and of the large sample, by batch size."""
    parts = []
    for size, group in _by_size(runs).items():
        read = "; ".join(f"{run.nats:g}: {run.small.mean():.1f}, {run.fresh[-1]:.1f}" for run in group)
        parts.append(f"batches of {size} (log {math.log(size):.1f}), {read}")
    return f"Nats of truth: mean bound of small batches, bound of a large sample. {'. '.join(parts)}."


def _by_size(runs: Sequence[BoundRun]) -> dict[int, list[BoundRun]]:
    """Runs of each batch size, smallest size first, in the order of the truth."""
    sizes = sorted({run.batch_size for run in runs})
    return {size: sorted((r for r in runs if r.batch_size == size), key=lambda run: run.nats) for size in sizes}


def _nats(value: float) -> str:
    return f"{value:g} {'nat' if value == 1 else 'nats'}"
