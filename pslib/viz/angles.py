"""Pictures of how two tasks' gradients meet while a network learns (:mod:`pslib.training.gradients`)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from pslib.viz.figures import PALETTE, name_columns, new_figure, plain

__all__ = ["meeting_figure", "meeting_text"]

Points = Sequence[Mapping[str, float]]
TASK_LINES = {"detection": (PALETTE["green"], ":"), "re-id": (PALETTE["vermillion"], "--")}


def meeting_figure(panels: Mapping[str, Points], columns: int = 3) -> Figure:
    """One panel a title: the cosine between the tasks at each step, in the room that noise leaves it (gray).

    A point has ``step`` and what :func:`pslib.training.gradients.meeting_of` says of one part, and may have ``single``:
    the cosine between the tasks on single batches, dash-dotted.  Bars are two standard errors over batches.

    >>> point = {"step": 4, "between": -0.1, "error": 0.02, "detection": 0.6, "re-id": 0.2, "room": 0.3}
    >>> [ax.get_title() for ax in meeting_figure({"T1: neck": [point]}).axes]
    ['T1: neck']
    """
    rows = -(-len(panels) // columns)
    fig, axes = new_figure(7.8, 0.7 + 1.9 * rows, rows, min(columns, len(panels)), squeeze=False, sharey=True)
    for ax, (title, points) in zip(axes.flat, panels.items(), strict=False):
        steps = [point["step"] for point in points]
        values = {name: np.array([point[name] for point in points]) for name in ("between", "error", "room")}
        ax.axhline(0, color="#777777", lw=0.9)
        ax.fill_between(steps, -values["room"], values["room"], color="#CCCCCC", alpha=0.5, lw=0, label="the room")
        for task, (color, style) in TASK_LINES.items():
            ax.plot(steps, [point[task] for point in points], style, color=color, lw=1.1, label=f"{task} with itself")
        if any("single" in point for point in points):
            single = [point["single"] for point in points]
            ax.plot(steps, single, "-.", color=PALETTE["purple"], lw=1.1, label="detection with re-id, single batches")
        ax.errorbar(steps, values["between"], 2 * values["error"], fmt="o-", color=PALETTE["blue"], ms=3.5, lw=1.8,
                    capsize=2.5, label="detection with re-id")  # fmt: skip
        ax.set(xscale="log", ylim=(-1.05, 1.05))
        ax.xaxis.set_minor_locator(NullLocator())
        shown = steps if len(steps) < 5 else [step for step in (4, 40, 360, 1080) if step in steps] or steps[::3]
        ax.set_xticks(shown, [f"{step:,}" for step in shown])
        ax.set_title(title, fontsize=9)
        plain(ax)
    name_columns(axes, len(panels), "step")
    for ax in axes[:, 0]:
        ax.set_ylabel("cosine", fontsize=8.5)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    drawn = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in axes.flat[: len(panels)]]
    named = {label: handle for lines in drawn for handle, label in lines}
    fig.legend(list(named.values()), list(named), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return fig


def meeting_text(panels: Mapping[str, Points]) -> str:
    """The same in words, for alt text: the cosine between the tasks at the first and the last step, and its room there.

    >>> meeting_text({"T1: neck": [{"step": 4, "between": -0.1, "room": 0.3}]})
    'T1: neck: -0.10 (room 0.30) at step 4'
    """
    said = {}
    for title, points in panels.items():
        ends = [points[place] for place in dict.fromkeys((0, len(points) - 1))]
        said[title] = ", ".join(f"{one['between']:.2f} (room {one['room']:.2f}) at step {one['step']}" for one in ends)
    return "; ".join(f"{title}: {words}" for title, words in said.items())
