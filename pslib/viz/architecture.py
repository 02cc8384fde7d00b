"""A model drawn from its own shapes: one forward pass is watched, and what passed is what is drawn.

AlignPS Fig. 2 for any switch of :class:`pslib.models.alignps.AlignPS`: backbone maps, neck maps, the head that all
levels share, and where the embedding leaves.
"""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch
from torch import nn

from pslib.models.alignps import AlignPS
from pslib.models.batching import batch_images
from pslib.ops import DeformableConv2d
from pslib.viz.figures import new_figure

__all__ = ["DETECTION", "REID", "SHARED", "architecture_figure", "draw_arrow", "draw_block", "watched_shapes"]

# Fill of each part; the words in the boxes say the same, so colour is not needed to read the picture.
SHARED, DETECTION, REID = "#E3E8EE", "#D3E9F7", "#FBE3C2"


@torch.no_grad()
def watched_shapes(model: AlignPS, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Shapes (C, H, W) of every map in one forward pass over a blank image of ``size`` (H, W).

    Keys: ``"C3"`` .. ``"C5"``, the model's levels (``"P3"`` ...), and ``"embedding"``, ``"person"``, ``"ltrb"``,
    ``"centerness"``, ``"tower"`` of the finest level, ``"reid tower"`` where the model has one.

    >>> from pslib.models.alignps import AlignPSConfig
    >>> shapes = watched_shapes(AlignPS(AlignPSConfig(), 2), (32, 48))
    >>> shapes["C3"], shapes["P3"], shapes["embedding"]
    ((32, 8, 12), (48, 8, 12), (48, 8, 12))
    """
    seen: dict[str, tuple[int, ...]] = {}

    def keep(name: str):
        def hook(_: nn.Module, __: tuple, output: torch.Tensor) -> None:
            seen.setdefault(name, tuple(output.shape[1:]))

        return hook

    def keep_all(names: Sequence[str]):
        def hook(_: nn.Module, __: tuple, outputs: list[torch.Tensor]) -> None:
            seen.update({name: tuple(output.shape[1:]) for name, output in zip(names, outputs, strict=True)})

        return hook

    head = model.head
    handles = [
        model.backbone.register_forward_hook(keep_all(("C3", "C4", "C5"))),
        model.neck.register_forward_hook(keep_all(model.neck.levels)),
        head.classify.register_forward_hook(keep("person")),
        head.regress.register_forward_hook(keep("ltrb")),
        head.centerness.register_forward_hook(keep("centerness")),
        head.class_tower.register_forward_hook(keep("tower")),
        model.reid_tower.register_forward_hook(keep("reid tower")),
        model.reid_readout.register_forward_hook(keep("embedding")),
    ]
    was_training = model.training
    blank = [torch.zeros(3, *size)]
    seen["image"] = tuple(batch_images(blank, model.backbone.strides[-1]).tensors.shape[1:])
    try:
        model.eval()(blank)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    seen.setdefault("embedding", seen[model.neck.levels[0]])
    return seen


def architecture_figure(model: AlignPS, size: tuple[int, int] = (144, 224), title: str = "") -> Figure:
    """Draw ``model`` for an image of ``size``; every number in the picture is measured by :func:`watched_shapes`."""
    shapes, config = watched_shapes(model, size), model.config
    fig, ax = new_figure(8.4, 3.7)
    ax.set(xlim=(0, 100), ylim=(0, 50))
    ax.axis("off")
    rows = {"3": 6.0, "4": 20.5, "5": 35.0}
    draw_block(ax, 0, 4.0, 10, 13, "image", shapes["image"], SHARED)
    draw_arrow(ax, (10, 10.5), (12.5, 10.5))
    ax.text(0, 0.5, f"channels x height x width; in the head as on {config.levels[0]}", fontsize=7.5, color="#333333")
    ax.text(18.5, 48, "backbone", fontsize=9, ha="center", weight="bold")
    ax.text(41, 48, f"neck ({_neck_words(config)})", fontsize=9, ha="center", weight="bold")
    for number, y in rows.items():
        draw_block(ax, 12.5, y, 12, 9, f"C{number}, stride {model.backbone.strides[int(number) - 3]}",
               shapes[f"C{number}"], SHARED)  # fmt: skip
        if number != "3":
            draw_arrow(ax, (18.5, y - 5.5), (18.5, y))
        _draw_neck_row(ax, model, shapes, number, y + 4.5)
    _draw_head(ax, model, shapes, rows)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def _draw_neck_row(ax: Axes, model: AlignPS, shapes: dict[str, tuple[int, ...]], number: str, y: float) -> None:
    """Lateral convolution, a ring where the coarser map joins, and the output convolution of a level that is read."""
    config, middle, radius = model.config, 33.7, 1.1
    draw_arrow(ax, (24.5, y), (middle - radius, y), _convolution(model.neck.lateral[int(number) - 3]))
    ax.add_patch(Circle((middle, y), radius, facecolor=SHARED, edgecolor="#333333", linewidth=1))
    if number != "3":
        draw_arrow(ax, (middle, y - radius), (middle, y - 14.5 + radius), f"x2, {config.topdown}", beside=True)
    used = f"P{number}" in config.levels
    if used:
        draw_arrow(ax, (middle + radius, y), (42.5, y), _convolution(model.neck.output[f"P{number}"]))
    draw_block(ax, 42.5, y - 4.5, 11, 9, f"P{number}" if used else f"(P{number} not made)",
               shapes.get(f"P{number}"), SHARED if used else "white")  # fmt: skip


def _draw_head(ax: Axes, model: AlignPS, shapes: dict[str, tuple[int, ...]], rows: dict[str, float]) -> None:
    """Towers and predictions on the right; they are drawn once because all levels share their weights."""
    config, head = model.config, model.head
    reid_first = config.structure == "reid-first"
    shared = "one head, the same weights on every level" if len(config.levels) > 1 else "head, on one level"
    ax.text(77, 48, shared, fontsize=9, ha="center", weight="bold")
    tops = {"class": 34.0, "box": 18.5, "reid": 2.0}
    words = f"{config.head_depth} x (3x3 conv, GN, ReLU)"
    for name, tower in (("class", head.class_tower), ("box", head.box_tower)):
        label = f"{name} tower\n{words}" if len(tower) else f"{name} tower"
        draw_block(ax, 58, tops[name], 19, 10, label, shapes["tower"], DETECTION)
    outputs = {
        "person or not": ("person", 36.5, "class"),
        "l, t, r, b": ("ltrb", 25.0, "box"),
        "centerness": ("centerness", 16.0, "box"),
    }
    for label, (key, y, source) in outputs.items():
        draw_block(ax, 85, y, 15, 7, label, shapes[key], DETECTION)
        draw_arrow(ax, (77, tops[source] + 5), (85, y + 3.5))
    if config.structure == "parallel":
        draw_block(ax, 58, tops["reid"], 19, 10, f"re-id tower\n{words}", shapes["reid tower"], REID)
        draw_arrow(ax, (77, 7), (85, 7))
    draw_block(ax, 85, 2.5, 15, 9, "embedding", shapes["embedding"], REID)
    for level in config.levels:
        y = rows[level[1]] + 4.5
        for name, top in tops.items():
            if name != "reid" or config.structure == "parallel":
                draw_arrow(ax, (53.5, y), (58, top + 5))
    if reid_first:
        draw_arrow(ax, (53.5, 8), (85, 7), "the map itself, spatial mean subtracted")
    elif config.structure != "parallel":
        draw_arrow(ax, (67.5, tops[config.structure]), (85, 7))


def _neck_words(config) -> str:
    return "AFA" if config.topdown == "concat" and config.lateral == config.output == "deformable" else "FPN"


def _convolution(layer: nn.Module) -> str:
    """What a convolution of the neck is, in a word."""
    if isinstance(layer, DeformableConv2d):
        return "3x3 deform."
    return f"{layer.kernel_size[0]}x{layer.kernel_size[1]} conv"


def draw_block(
    ax: Axes, x: float, y: float, width: float, height: float, name: str, shape, color: str, dashed: bool = False
) -> None:
    """A box with a name and, below it, channels x height x width; pale and dashed without a ``shape``."""
    edge, style = "#333333" if shape else "#999999", "dashed" if dashed or not shape else "solid"
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.8", facecolor=color,
                                edgecolor=edge, linestyle=style, linewidth=1))  # fmt: skip
    text = name + ("\n" + " x ".join(map(str, shape)) if shape else "")
    ax.text(x + width / 2, y + height / 2, text, fontsize=7.6, ha="center", va="center",
            color="black" if shape else "#777777")  # fmt: skip


def draw_arrow(ax: Axes, start: Sequence[float], end: Sequence[float], text: str = "", beside: bool = False) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 0.9})
    if text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        ax.text(x + (1 if beside else 0), y + (0 if beside else 0.8), text, fontsize=7, color="#333333",
                ha="left" if beside else "center", va="center" if beside else "bottom")  # fmt: skip
