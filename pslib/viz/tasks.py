"""Pictures of two tasks in one network: who comes first, where identity fades, how rows of a table compare."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from pslib.evaluation.statistics import Interval
from pslib.experiments.lookup import failed
from pslib.experiments.rows import RecordedRow
from pslib.models.alignps import AlignPS
from pslib.viz.architecture import DETECTION, REID, SHARED
from pslib.viz.figures import PALETTE, new_figure

__all__ = ["Readout", "Structure", "bars_figure", "fading_figure", "structure_of", "structures_figure"]

# Line and mark of each path behind the neck; the words in the legend say the same.
_PATHS = {
    "class": (PALETTE["vermillion"], "--", "s"),
    "box": (PALETTE["orange"], "-.", "^"),
    "re-id": (PALETTE["blue"], "-", "o"),
    "random": (PALETTE["black"], ":", "d"),
}


@dataclass(frozen=True)
class Readout:
    """Re-id by the features of each layer; ``reader`` is the path the embedding leaves from."""

    # "neck", "class 1", "box 1", "re-id 1", "random 1" (an untrained tower) ... and "embedding", in per cent
    values: Mapping[str, Interval]
    reader: str  # "neck", "class", "box" or "re-id"


@dataclass(frozen=True)
class Structure:
    """Which module feeds which, found by watching a forward pass; shapes are (C, H, W)."""

    shapes: Mapping[str, tuple[int, ...]]  # "neck", "class tower", "box tower", "re-id tower", "embedding"
    depths: Mapping[str, int]  # convolutions in each tower
    reader: str  # the module whose output the embedding is read from: a key of ``shapes``
    centred: bool  # detection is handed the neck's map with its mean subtracted, not the map as it is


@torch.no_grad()
def structure_of(model: AlignPS, size: tuple[int, int] = (144, 224)) -> Structure:
    """Run ``model`` on a blank image of ``size`` (H, W) and note what each module was handed (finest level).

    >>> from pslib.models.alignps import AlignPSConfig
    >>> structure_of(AlignPS(AlignPSConfig(structure="box"), 2), (32, 48)).reader
    'box tower'
    """
    towers = {"class tower": model.head.class_tower, "box tower": model.head.box_tower}
    if len(list(model.reid_tower.children())):
        towers["re-id tower"] = model.reid_tower
    outputs: dict[str, Tensor] = {}
    inputs_of: dict[str, object] = {}
    handed: list[Tensor] = []

    def keep(name: str):
        def hook(_module: nn.Module, inputs: tuple, output: Tensor | list[Tensor]) -> None:
            outputs.setdefault(name, output[0] if isinstance(output, list) else output)
            inputs_of.setdefault(name, inputs[0])

        return hook

    def keep_readout(_module: nn.Module, inputs: tuple, output: Tensor) -> None:
        handed.extend((inputs[0], output))

    handles = [module.register_forward_hook(keep(name)) for name, module in ({"neck": model.neck} | towers).items()]
    handles.append(model.reid_readout.register_forward_hook(keep_readout))
    training = model.training
    try:
        model.eval()([torch.zeros(3, *size)])
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    shapes = {name: tuple(output.shape[1:]) for name, output in outputs.items()}
    # Without a read-out the embedding is the neck's own map.
    reader = next((name for name, output in outputs.items() if handed and output is handed[0]), "neck")
    shapes["embedding"] = tuple(handed[1].shape[1:]) if handed else shapes["neck"]
    depths = {name: sum(isinstance(m, nn.Conv2d) for m in tower.modules()) for name, tower in towers.items()}
    return Structure(shapes, depths, reader, inputs_of["class tower"] is not outputs["neck"])


def structures_figure(models: Mapping[str, AlignPS], size: tuple[int, int] = (144, 224)) -> Figure:
    """One panel a model: neck below, towers above it, and where the embedding leaves (AlignPS, Fig. 8)."""
    fig, axes = new_figure(8.8, 3.9, 1, len(models), squeeze=False)
    for ax, (title, model) in zip(axes.flat, models.items(), strict=True):
        _draw_structure(ax, structure_of(model, size))
        ax.set_title(title, fontsize=9)
    return fig


def _draw_structure(ax: Axes, structure: Structure) -> None:
    ax.set(xlim=(0, 100), ylim=(0, 100))
    ax.axis("off")
    towers = [name for name in ("class tower", "re-id tower", "box tower") if name in structure.depths]
    step = 100 / len(towers)
    channels, *cells = structure.shapes["neck"]
    _box(ax, 50, 7, 92, 13, f"backbone and neck: P3\n{channels} x {cells[0]} x {cells[1]}", SHARED)
    words, foot = f"embedding, {structure.shapes['embedding'][0]}", 13.5
    if structure.reader == "neck":
        # Detection reads what re-id has shaped: the embedding lies below the towers, not beside them.
        _box(ax, 50, 24, 92, 10, f"{words} = P3{' - its mean' if structure.centred else ' itself'}", REID)
        _arrow(ax, (50, foot), (50, 19))
        foot = 29
    # Where it stands says which arrows it is about: those into the towers.
    ax.text(50, 0.5 * (foot + 43), f"detection reads {'P3 - its mean' if structure.centred else 'P3 as it is'}",
            fontsize=7.4, style="italic", ha="center", va="center", zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    for number, name in enumerate(towers):
        middle, task = step * (number + 0.5), name.split()[0]
        color = REID if task == "re-id" else DETECTION
        width = structure.shapes[name][0]
        _box(ax, middle, 52, step - 5, 18, f"{task}\n{structure.depths[name]} conv\nof {width}", color)
        _arrow(ax, (middle, foot), (middle, 43))
        if task == "re-id":
            continue
        _box(ax, middle, 91, step - 5, 12, {"class": "person?", "box": "l, t, r, b"}[task], DETECTION)
        _arrow(ax, (middle, 61), (middle, 85))
    if structure.reader == "neck":
        return
    _box(ax, 50, 74, 46, 10, words, REID)
    start = step * (towers.index(structure.reader) + 0.5)
    _arrow(ax, (start, 61), (50 + 0.35 * (start - 50), 69))


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, color: str) -> None:
    """A rounded box of that size around (x, y) with ``text`` in it."""
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=2", facecolor=color,
                                edgecolor="#333333", linewidth=1))  # fmt: skip
    ax.text(x, y, text, fontsize=7.4, ha="center", va="center")


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 1})


def fading_figure(panels: Mapping[str, Readout], ylabel: str = "re-id mAP") -> Figure:
    """One panel a model: re-id by the features of every layer, along each path behind P3; a star is the embedding."""
    fig, axes = new_figure(8.4, 2.9, 1, len(panels), squeeze=False, sharey=True)
    for ax, (title, readout) in zip(axes.flat, panels.items(), strict=True):
        depth = 0
        for path, (color, style, mark) in _PATHS.items():
            layers = sorted(name for name in readout.values if name.startswith(f"{path} "))
            if not layers:
                continue
            depth = len(layers)
            _path(ax, range(depth + 1), [readout.values[name] for name in ("neck", *layers)], color, style, mark, path)
        end = readout.values["embedding"]
        before = readout.values["neck" if readout.reader == "neck" else f"{readout.reader} {depth}"]
        place = (0, 0) if readout.reader == "neck" else (depth, depth + 1)
        color = _PATHS.get(readout.reader, _PATHS["re-id"])[0]
        ax.plot(place, [before.mean, end.mean], color=color, lw=1.2, ls=":")
        ax.plot(place[1], end.mean, "*", color=PALETTE["black"], ms=10, label="embedding")
        ax.set_title(title, fontsize=9)
        ax.set_xticks(range(depth + 2), ["P3", *(f"layer {k + 1}" for k in range(depth)), "read-out"], fontsize=7.5)
        ax.set_xlim(-0.3, depth + 1.3)
        ax.tick_params(axis="y", labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#DDDDDD", lw=0.6)
        ax.legend(fontsize=7, frameon=False)
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].set_ylabel(ylabel, fontsize=8.5)
    return fig


def _path(ax: Axes, places: range, values: list[Interval], color: str, style: str, mark: str, name: str) -> None:
    means = [value.mean for value in values]
    ends = [[max(0.0, v.mean - v.low) for v in values], [max(0.0, v.high - v.mean) for v in values]]
    label = f"{name} tower"
    ax.errorbar(places, means, ends, color=color, ls=style, marker=mark, ms=4.5, lw=1.7, capsize=2, elinewidth=0.8,
                label=label)  # fmt: skip


def bars_figure(
    panels: Mapping[str, Mapping[str, RecordedRow]], xlabel: str = "search mAP", marked: str = ""
) -> Figure:
    """One panel a set, one bar with its interval a row; rows without a value say why, those with failed runs which.

    A row stands at one height in all panels, and one that a panel has not is empty there.

    The row ``marked`` has a hatched bar and, through its end, a dashed line to compare the others with.
    """
    rows = list(dict.fromkeys(label for values in panels.values() for label in values))
    fig, axes = new_figure(8.4, 0.34 * len(rows) + 0.8, 1, len(panels), squeeze=False, sharey=True)
    for ax, (title, values) in zip(axes.flat, panels.items(), strict=True):
        known = [one.value.high for one in values.values() if one.value]
        for label, one in values.items():
            row, value = rows.index(label), one.value
            if value is None:
                ax.text(0, row, f" {one.absent}", fontsize=7.5, va="center", color="#555555")
                continue
            ends = [[value.mean - value.low], [value.high - value.mean]]
            ax.barh(row, value.mean, 0.62, color=PALETTE["sky"], edgecolor="#333333", lw=0.8, xerr=ends,
                    hatch="//" if label == marked else None,
                    error_kw={"capsize": 2.5, "elinewidth": 1.1, "ecolor": "black"})  # fmt: skip
            notes = f" ({failed(one.lost)})" if one.lost else ""
            ax.text(value.high, row, f"  {value.mean:.1f}{notes}", fontsize=8, va="center")
        if marked in values and values[marked].value:
            ax.axvline(values[marked].value.mean, color="#555555", ls="--", lw=0.9)
        ax.set_yticks(range(len(rows)), rows, fontsize=8.5)
        ax.set_xlim(0, 1.18 * max(known, default=1.0))
        ax.set_xlabel(xlabel, fontsize=8.5)
        ax.set_title(title, fontsize=9)
        ax.tick_params(axis="x", labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)  # a last row without a bar would be cut off
    return fig
