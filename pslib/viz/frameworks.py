"""The four frameworks of AlignPS Fig. 1 as a drawing, with the shapes of a real model written in."""

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from pslib.models.alignps import AlignPS
from pslib.models.batching import batch_images
from pslib.models.neck import LEVELS
from pslib.viz.figures import PALETTE, new_figure

__all__ = ["FRAMEWORKS_ALT", "draw_frameworks", "model_shapes"]

FRAMEWORKS_ALT = (
    "Four flow charts. a, two steps: image, detector, crops, then a second network for re-id, embeddings. "
    "b, one step with two stages: image, backbone, RPN, ROI-Align, which cuts the RPN's boxes out of the backbone's "
    "map, then two heads side by side, detection and re-id. "
    "c, AlignPS: image, backbone, AFA, a map of embeddings, and only after it the detection head. "
    "d, ROI-AlignPS: as c, and ROI-Align cuts the detected boxes out of the backbone's map for a second embedding, "
    "which is fused with the first."
)

# Kind of step -> (colour, hatch): a second channel beside colour for those who cannot tell the colours apart.
KINDS = {"data": ("#DDDDDD", ""), "features": (PALETTE["sky"], ""), "detection": (PALETTE["orange"], "//"),
         "re-id": (PALETTE["green"], ".."), "region": (PALETTE["purple"], "xx")}

# Each chart: title, boxes (name, kind, column, line), arrows (from, to), arrows that pass below what stands between.
# Line 0 is the middle, 1 above, -1 below.
CHARTS = (
    ("a  two steps",
     (("image", "data", 0, 0), ("detector", "detection", 1, 0), ("crops", "region", 2, 0),
      ("re-id network", "re-id", 3, 0), ("embeddings", "re-id", 4, 0)),
     (("image", "detector"), ("detector", "crops"), ("crops", "re-id network"), ("re-id network", "embeddings")), ()),
    ("b  one step,\n    two stages",
     (("image", "data", 0, 0), ("backbone", "features", 1, 0), ("RPN", "detection", 2, 0),
      ("ROI-Align", "region", 3, 0), ("detection head", "detection", 4, 0.62), ("re-id head", "re-id", 4, -0.62)),
     (("image", "backbone"), ("backbone", "RPN"), ("RPN", "ROI-Align"), ("ROI-Align", "detection head"),
      ("ROI-Align", "re-id head")), (("backbone", "ROI-Align"),)),
    ("c  one step,\n    one stage:\n    AlignPS",
     (("image", "data", 0, 0), ("backbone", "features", 1, 0), ("AFA", "features", 2, 0),
      ("embeddings", "re-id", 3, 0), ("detection head", "detection", 4, 0)),
     (("image", "backbone"), ("backbone", "AFA"), ("AFA", "embeddings"), ("embeddings", "detection head")), ()),
    ("d  ROI-AlignPS:\n    two embeddings,\n    fused",
     (("image", "data", 0, 0), ("backbone", "features", 1, 0), ("AFA", "features", 2, 0),
      ("embeddings", "re-id", 3, 0.62), ("detection head", "detection", 4, 0.62), ("ROI-Align", "region", 3, -0.62),
      ("second embeddings", "re-id", 4, -0.62), ("fused", "re-id", 5, 0)),
     (("image", "backbone"), ("backbone", "AFA"), ("AFA", "embeddings"), ("embeddings", "detection head"),
      ("detection head", "ROI-Align"), ("ROI-Align", "second embeddings"), ("second embeddings", "fused")),
     (("backbone", "ROI-Align"), ("embeddings", "fused"))),
)

WIDTH, HEIGHT, STEP = 1.28, 0.62, 1.75


@torch.no_grad()
def model_shapes(model: AlignPS, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """Name of each intermediate result -> its shape, from a forward pass over one black image (3, height, width).

    Names are those of the drawing and the papers: image, C3 to C5, the neck's levels, class, box, centerness,
    embeddings.
    """
    was_training = model.training
    model.eval()
    batch = batch_images([torch.zeros(3, height, width)], multiple=model.backbone.strides[-1])
    backbone = model.backbone(batch.tensors)
    levels = model.neck(backbone)
    dense = model.dense(batch)
    model.train(was_training)
    shapes = {"image": tuple(batch.tensors.shape)}
    shapes |= {f"C{level[1]}": tuple(x.shape) for level, x in zip(LEVELS, backbone, strict=True)}
    shapes |= {level: tuple(x.shape) for level, x in zip(model.config.all_levels, levels, strict=True)}
    shapes |= {"class": tuple(dense.class_logits.shape), "box": tuple(dense.ltrb.shape),
               "centerness": tuple(dense.centerness_logits.shape), "embeddings": tuple(dense.embeddings.shape)}
    return shapes


def draw_frameworks(shapes: Mapping[str, tuple[int, ...]] | None = None) -> Figure:
    """The four charts below each other; ``shapes`` (:func:`model_shapes`) are written under AlignPS's boxes.

    >>> len(draw_frameworks().axes)
    4
    """
    fig, axes = new_figure(9.0, 5.2, len(CHARTS), 1)
    for ax, (title, boxes, arrows, below) in zip(axes, CHARTS, strict=True):
        ax.set(xlim=(-2.9, 5 * STEP + 0.75), ylim=(-1.05, 1.05))
        ax.axis("off")
        ax.text(-2.85, 0, title, fontsize=9.5, va="center", weight="bold")
        where = {name: (column * STEP, line) for name, _, column, line in boxes}
        for name, kind, _, _ in boxes:
            _draw_step(ax, name, kind, where[name], _shape_text(name, shapes or {}) if title.startswith("c") else "")
        for start, end in arrows:
            _draw_arrow(ax, where[start], where[end])
        for start, end in below:
            _draw_arrow(ax, where[start], where[end], below=True)
    handles = [FancyBboxPatch((0, 0), 1, 1, facecolor=color, hatch=hatch, edgecolor="black", label=kind)
               for kind, (color, hatch) in KINDS.items()]
    fig.legend(handles=handles, ncol=len(KINDS), loc="outside lower center", fontsize=8, frameon=False)
    return fig


def _shape_text(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The shape written under a box of that name, without the batch axis."""
    key = {"image": "image", "backbone": "C3", "AFA": "P3", "embeddings": "embeddings"}.get(name)
    return "" if key not in shapes else f"{key} " + "×".join(map(str, shapes[key][1:]))


def _draw_step(ax: Axes, name: str, kind: str, center: tuple[float, float], below: str) -> None:
    color, hatch = KINDS[kind]
    x, y = center
    corner, rounded = (x - WIDTH / 2, y - HEIGHT / 2), "round,pad=0.02,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, boxstyle=rounded, facecolor=color, edgecolor="black",
                                linewidth=0.8, hatch=hatch, alpha=0.55))
    ax.text(x, y, name.replace(" ", "\n") if len(name) > 11 else name, ha="center", va="center", fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8})
    if below:
        ax.text(x, y - HEIGHT / 2 - 0.08, below, ha="center", va="top", fontsize=7)


def _draw_arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], below: bool = False) -> None:
    style = "arc3"
    left_edge = end[0] - WIDTH / 2, end[1]
    if below:
        points = (start[0], start[1] - HEIGHT / 2), left_edge
        if start[1] == end[1]:  # around the steps between
            points, style = (points[0], (end[0], end[1] - HEIGHT / 2)), "arc3,rad=0.2"
    elif end[0] > start[0]:
        points = (start[0] + WIDTH / 2, start[1]), left_edge
    else:  # back to the left: from the lower edge to the upper one
        points = (start[0] - WIDTH / 4, start[1] - HEIGHT / 2), (end[0] + WIDTH / 4, end[1] + HEIGHT / 2)
    ax.add_patch(FancyArrowPatch(*points, connectionstyle=style, arrowstyle="-|>", mutation_scale=10, linewidth=1,
                                 color="black"))
