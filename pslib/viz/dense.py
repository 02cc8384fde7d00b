"""Pictures of a dense detector: its points, who answers for whom, one cell's targets, its losses, what it finds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from pslib.losses.detection import centerness_targets
from pslib.models.fcos import level_points
from pslib.viz.figures import OTHER, PALETTE, draw_boxes, new_figure, to_array

__all__ = [
    "LEVEL_STYLES", "assignment_figure", "cell_figure", "detections_figure", "loss_shapes_figure", "points_figure",
]  # fmt: skip

# One colour AND one mark a level, the same in every picture of the series.
LEVEL_STYLES = {"P3": (PALETTE["sky"], "o"), "P4": (PALETTE["orange"], "s"), "P5": (PALETTE["purple"], "^")}
_PEOPLE = [PALETTE[name] for name in ("orange", "sky", "yellow", "purple", "green", "vermillion")]


def points_figure(size: tuple[int, int], boxes: Tensor, strides: dict[str, int]) -> Figure:
    """One panel a level with the centre of every cell as a dot, and the outlines of ``boxes`` (N, 4).

    ``size`` is the image's (H, W); ``strides`` maps level names to pixels.
    """
    fig, axes = _panels(size, len(strides))
    for ax, (level, stride) in zip(axes, strides.items(), strict=True):
        height, width = (-(-side // stride) for side in size)
        points = level_points(height, width, stride).numpy()
        ax.scatter(points[:, 0] - 0.5, points[:, 1] - 0.5, s=0.12 * stride**1.6, color=PALETTE["blue"], linewidths=0)
        draw_boxes(ax, boxes, color=PALETTE["vermillion"], linewidth=1.3)
        ax.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5), aspect="equal")
        ax.set_title(f"{level}: stride {stride} px, {height} x {width} cells", fontsize=9)
    return fig


def assignment_figure(
    image: Any, boxes: Tensor, points: Tensor, strides: Tensor, matched: Tensor, levels: dict[str, int]
) -> Figure:
    """One panel a level: its positive cells as filled squares in the colour of the person they answer for.

    ``boxes`` (N, 4); ``points`` (A, 2), ``strides`` (A,), ``matched`` (A,) as ``assign_targets`` takes and gives them.
    A box has her colour, too, and is solid on levels that have cells for it and dotted elsewhere.
    """
    picture = to_array(image)
    fig, axes = _panels(picture.shape[:2], len(levels))
    for ax, (level, stride) in zip(axes, levels.items(), strict=True):
        _lay(ax, picture, 0.4)
        here = (strides == stride) & (matched >= 0)
        for (x, y), person in zip(points[here].tolist(), matched[here].tolist(), strict=True):
            corner = (x - stride / 2 - 0.5, y - stride / 2 - 0.5)
            ax.add_patch(Rectangle(corner, stride, stride, facecolor=_PEOPLE[person % 6], edgecolor="black", lw=0.4))
        answered = set(matched[here].tolist())
        for person, box in enumerate(boxes):
            style = "solid" if person in answered else "dotted"
            draw_boxes(ax, box[None], color="black", linestyle=style, linewidth=2.2)
            draw_boxes(ax, box[None], color=_PEOPLE[person % 6], linestyle=style, linewidth=1.4)
            ax.text(float(box[0]) + 0.5, float(box[3]) - 1, str(person), fontsize=7, color="black",
                    bbox={"facecolor": _PEOPLE[person % 6], "edgecolor": "black", "lw": 0.4, "pad": 0.8})  # fmt: skip
        ax.set_title(f"{level} (stride {stride}): {int(here.sum())} positive of {int((strides == stride).sum())}",
                     fontsize=9)  # fmt: skip
    return fig


def cell_figure(image: Any, box: Tensor, point: Tensor, stride: int) -> Figure:
    """Left: the distances l, t, r, b of one cell.  Right: the centerness of every cell centre inside the box."""
    picture, (x1, y1, x2, y2), (x, y) = to_array(image), box.tolist(), point.tolist()
    fig, (left, right) = new_figure(5.6, 3.1, 1, 2)
    for ax in (left, right):
        _lay(ax, picture, 0.25 if ax is left else 0.75)
        draw_boxes(ax, box[None], color=PALETTE["black"], linewidth=1.6)
        ax.set(xlim=(x1 - 14, x2 + 14), ylim=(y2 + 5, y1 - 7), xticks=[], yticks=[])
    ends = {"l": (x1, y), "r": (x2, y), "t": (x, y1), "b": (x, y2)}
    for name, (end_x, end_y) in ends.items():
        distance = abs(end_x - x) + abs(end_y - y)
        left.annotate("", (end_x - 0.5, end_y - 0.5), (x - 0.5, y - 0.5),
                      arrowprops={"arrowstyle": "-|>", "color": PALETTE["vermillion"], "lw": 2})  # fmt: skip
        outside = {"l": (x1 - 1.5, y), "r": (x2 + 1, y), "t": (x, y1 - 1.5), "b": (x, y2 + 1.5)}[name]
        left.text(*outside, f"{name} = {distance:g} px", fontsize=8.5, va="center",
                  ha={"l": "right", "r": "left"}.get(name, "center"),
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0})  # fmt: skip
    left.plot(x - 0.5, y - 0.5, "o", color="black", ms=5)
    left.set_title(f"cell ({x:g}, {y:g}) of stride {stride}: its four distances", fontsize=9)
    _centerness_cells(right, box, stride, picture.shape[:2])
    right.set_title("centerness of each cell centre in the box", fontsize=9)
    return fig


def loss_shapes_figure(gamma: float = 2.0, alpha: float = 0.25) -> Figure:
    """Cross-entropy beside focal loss over p, and IoU beside GIoU while a box slides away from its target."""
    fig, (left, right) = new_figure(7.4, 2.4, 1, 2)
    p = np.linspace(0.01, 0.999, 200)
    left.plot(p, -np.log(p), color=PALETTE["black"], ls="--", label="cross-entropy")
    left.plot(p, -alpha * (1 - p) ** gamma * np.log(p), color=PALETTE["blue"], label="focal, a person cell")
    left.plot(p, -(1 - alpha) * (1 - p) ** gamma * np.log(p), color=PALETTE["vermillion"], ls="-.",
              label="focal, a background cell")  # fmt: skip
    left.set(xlabel="probability given to the right answer", ylabel="loss", ylim=(0, 3))
    shift = torch.linspace(0, 3, 121)
    target = torch.tensor([[0.0, 0.0, 1.0, 2.0]])
    moved = target + shift[:, None] * torch.tensor([1.0, 0.0, 1.0, 0.0])
    for values, color, style, name in (
        (box_iou(moved, target), PALETTE["black"], "--", "1 - IoU"),
        (generalized_box_iou(moved, target), PALETTE["blue"], "-", "1 - GIoU"),
    ):
        right.plot(shift, 1 - values[:, 0], color=color, ls=style, label=name)
    right.set(xlabel="shift in box widths", ylabel="loss", ylim=(0, 2))
    for ax in (left, right):
        ax.legend(fontsize=8, frameon=False)
        ax.spines[["top", "right"]].set_visible(False)
    return fig


def detections_figure(
    images: Sequence[Any], truth: Sequence[Any], found: Sequence[dict[str, Tensor]], min_score: float = 0.3
) -> Figure:
    """Scenes with their annotated boxes (dotted) and the detections scored at least ``min_score``.

    A detection that overlaps an annotated box by half is a hit (green, solid, tick), else a false one (dashed, cross).
    """
    pictures = [to_array(image) for image in images]
    columns = len(pictures)
    width = min(2.9 * columns, 8.2)
    height = width / columns * max(picture.shape[0] / picture.shape[1] for picture in pictures)
    fig, axes = new_figure(width, height + 0.3, 1, columns, squeeze=False)
    for ax, picture, boxes, result in zip(axes.flat, pictures, truth, found, strict=True):
        boxes = torch.as_tensor(np.asarray(boxes, np.float32)).reshape(-1, 4)
        sure = result["scores"] >= min_score
        overlap = box_iou(result["boxes"][sure], boxes)
        hit = (overlap >= 0.5).any(dim=1) if len(boxes) else torch.zeros(int(sure.sum()), dtype=torch.bool)
        reached = int((overlap >= 0.5).any(dim=0).sum()) if len(overlap) else 0
        _lay(ax, picture)
        draw_boxes(ax, boxes, color=OTHER[0], linestyle=OTHER[1], linewidth=1.4)
        scores = [f"{score:.2f}" for score in result["scores"][sure].tolist()]
        room = picture.shape[1] / (72 * width / columns)  # px of the picture to a point of a letter
        draw_boxes(ax, result["boxes"][sure], scores, right=hit.tolist(), linewidth=1.2, fontsize=5.5,
                   below=_crowded(result["boxes"][sure], 26 * room, 9 * room))  # fmt: skip
        ax.set_title(f"{reached} of {len(boxes)} people found, {int((~hit).sum())} false", fontsize=9)
        ax.set(xticks=[], yticks=[], xlim=(-0.5, picture.shape[1] - 0.5), ylim=(picture.shape[0] - 0.5, -0.5))
    return fig


def _crowded(boxes: Tensor, wide: float, high: float) -> list[bool]:
    """Which labels of ``wide`` x ``high`` px at the upper left corners of ``boxes`` would cover one before them."""
    corners: list[tuple[float, float]] = []
    crowded = []
    for x, y in boxes[:, :2].tolist():
        crowded.append(any(abs(x - left) < wide and abs(y - top) < high for left, top in corners))
        corners += [] if crowded[-1] else [(x, y)]
    return crowded


def _panels(size: tuple[int, int], count: int) -> tuple[Figure, Sequence[Axes]]:
    """``count`` axes in a row with the shape of an image of ``size`` (H, W), without ticks."""
    width = 7.0
    fig, axes = new_figure(width, width / count * size[0] / size[1] + 0.3, 1, count, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return fig, axes.flat


def _lay(ax: Axes, picture: np.ndarray, white: float = 0.0) -> None:
    """Show the picture mixed with white, so that what is drawn over it stands out."""
    # Smooth enlargement: sharp pixel edges would double the bytes of the page's JPEG.
    ax.imshow((picture * (1 - white) + 255 * white).astype(np.uint8), interpolation="bicubic")


def _centerness_cells(ax: Axes, box: Tensor, stride: int, size: tuple[int, int]) -> None:
    """Fill the cells whose centre lies inside ``box`` by their centerness, with the number in each."""
    points = level_points(-(-size[0] // stride), -(-size[1] // stride), stride)
    ltrb = torch.cat([points - box[:2], box[2:] - points], dim=1)
    inside = ltrb.min(dim=1).values > 0
    shades = _colormap()
    for (x, y), value in zip(points[inside].tolist(), centerness_targets(ltrb[inside]).tolist(), strict=True):
        corner = (x - stride / 2 - 0.5, y - stride / 2 - 0.5)
        ax.add_patch(Rectangle(corner, stride, stride, facecolor=shades(value), edgecolor="white", lw=0.6))
        ax.text(x - 0.5, y - 0.5, f"{value:.2f}", fontsize=7, ha="center", va="center",
                color="black" if value > 0.5 else "white")  # fmt: skip


def _colormap():
    import matplotlib

    return matplotlib.colormaps["cividis"]
