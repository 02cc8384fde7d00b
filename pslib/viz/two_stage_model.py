"""IAN Fig. 3 for any switch of :class:`pslib.models.two_stage.TwoStage`, from what one training step hands on."""

import copy
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from pslib.models.two_stage import TwoStage
from pslib.viz.architecture import DETECTION, REID, SHARED, draw_arrow, draw_block
from pslib.viz.figures import new_figure

__all__ = ["two_stage_figure", "two_stage_shapes"]


def two_stage_shapes(model: TwoStage, size: tuple[int, int], people: Sequence[Sequence[float]]) -> dict[str, tuple]:
    """Shapes of what one training step on a blank image of ``size`` (H, W) with ``people`` (N, 4 px) hands on.

    Keys: ``"image"``, ``"trunk"``, ``"objectness"`` (C, H, W each), ``"proposals"`` (P, 4), ``"true boxes"`` (N, 4),
    ``"ROIs"`` (R, C, s, s), ``"second stage"`` (R, ...), ``"feat"`` (R, D), ``"box"`` (R, 4) and, after RSS,
    ``"classes"`` (R, I + 1).  The model itself is left as it was.
    """
    seen: dict[str, tuple] = {}
    watched = copy.deepcopy(model).train()

    def keep(name: str):
        def hook(_: nn.Module, __: tuple, output: torch.Tensor) -> None:
            seen[name] = tuple(output.shape)

        return hook

    def keep_rpn(_: nn.Module, inputs: tuple, output: tuple) -> None:
        seen["image"] = tuple(inputs[0].tensors.shape[1:])
        seen["trunk"] = tuple(inputs[1]["trunk"].shape[1:])
        seen["proposals"] = tuple(output[0][0].shape)

    second = watched.backbone.last_stage if watched.fully_connected is None else watched.fully_connected
    watched.rpn.register_forward_hook(keep_rpn)
    watched.rpn.head.cls_logits.register_forward_hook(lambda _, __, out: seen.update(objectness=tuple(out.shape[1:])))
    watched.roi_layer.register_forward_hook(keep("ROIs"))
    second.register_forward_hook(keep("second stage"))
    watched.head.feat.register_forward_hook(keep("feat"))
    watched.head.box.register_forward_hook(keep("box"))
    if model.config.identity_loss == "rss":
        watched.classifier.register_forward_hook(keep("classes"))
    boxes = torch.tensor(people, dtype=torch.float32).reshape(-1, 4)
    labels = torch.arange(len(boxes)).clamp(max=model.num_identities - 1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        watched([torch.zeros(3, *size)], [{"boxes": boxes, "labels": labels}])
    return seen | {"true boxes": tuple(boxes.shape)}


def two_stage_figure(
    model: TwoStage,
    size: tuple[int, int] = (144, 224),
    people: Sequence[Sequence[float]] = ((40, 50, 56, 98), (120, 40, 138, 94)),
) -> Figure:
    """Draw ``model`` in training on one image with two people; the numbers are those of :func:`two_stage_shapes`."""
    shapes, config = two_stage_shapes(model, size, people), model.config
    fig, ax = new_figure(8.2, 3.6)
    ax.set(xlim=(-1.5, 100), ylim=(0, 50))
    ax.axis("off")
    _headings(ax)
    regions, truth = shapes["ROIs"][0], shapes["true boxes"][0]
    draw_block(ax, -1.3, 16, 12.5, 10, "image", shapes["image"], SHARED)
    draw_block(ax, 14, 16, 12, 10, "trunk's map", shapes["trunk"], SHARED)
    draw_block(ax, 14, 33, 12, 10, "RPN, score of\nevery anchor", shapes["objectness"], DETECTION)
    draw_block(ax, 30, 33, 12, 10, "proposals", shapes["proposals"], DETECTION)
    draw_block(ax, 30, 2, 12, 10, "true boxes\n(training only)", shapes["true boxes"], "white")
    name = {"pool": "ROI pooling", "align": "RoIAlign"}[config.roi_layer]
    draw_block(ax, 46, 16, 13, 10, name, shapes["ROIs"], SHARED)
    stage = "last stage" if model.fully_connected is None else "fc6, fc7"
    draw_block(ax, 62, 16, 14, 10, stage, shapes["second stage"], SHARED)
    draw_block(ax, 79, 24, 9, 9, "feat", shapes["feat"], REID)
    draw_block(ax, 79, 5, 9, 9, "box", shapes["box"], DETECTION)
    for start, end in (
        ((11.2, 21), (14, 21)), ((20, 26), (20, 33)), ((26, 38), (30, 38)), ((42, 38), (49, 26)), ((42, 7), (49, 16)),
        ((59, 21), (62, 21)), ((76, 23), (79, 28)), ((76, 19), (79, 10)),
    ):  # fmt: skip
        draw_arrow(ax, start, end)
    draw_arrow(ax, (26, 21), (46, 21), "the map itself")
    if model.fully_connected is None:
        ax.text(69, 14.5, "then averaged", fontsize=7.2, ha="center", va="top", color="#333333")
    if config.identity_loss == "rss":
        draw_block(ax, 79, 38, 9, 9, "classes", shapes["classes"], REID)
        draw_arrow(ax, (83.5, 33), (83.5, 38))
        rows = f"the {truth} true boxes" if config.center_boxes == "ground-truth" else "all regions on people"
        _loss(ax, 42.5, f"RSS\nall {regions} regions")
        _loss(ax, 28.5, f"center loss\n{rows}")
    else:
        _loss(ax, 28.5, f"OIM, and person\nor not: {regions} regions")
    _loss(ax, 9.5, "smooth L1\nregions on people")
    ax.text(20, 44.5, "person or not, smooth L1", fontsize=7.2, ha="center", style="italic")
    return fig


def _headings(ax: Axes) -> None:
    ax.text(20, 48, "first stage: where may people be?", fontsize=9, ha="center", weight="bold")
    ax.text(63, 48, "second stage: who, and where exactly?", fontsize=9, ha="center", weight="bold")
    ax.axvline(44, 0.02, 0.98, color="#AAAAAA", ls=(0, (4, 3)), lw=0.9, zorder=0)


def _loss(ax: Axes, y: float, text: str) -> None:
    ax.text(89, y, text, fontsize=7.2, va="center", style="italic")
