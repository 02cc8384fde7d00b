"""AlignPS Fig. 5 from the model's own shapes: what one training step and one inference hand from part to part."""

import copy
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from pslib.models.roi_alignps import RoiAlignPS
from pslib.viz.architecture import DETECTION, REID, SHARED, draw_arrow, draw_block
from pslib.viz.figures import new_figure

__all__ = ["roi_alignps_figure", "roi_alignps_shapes"]

PEOPLE = ((40, 50, 56, 98), (120, 40, 138, 94))


def roi_alignps_shapes(
    model: RoiAlignPS, size: tuple[int, int] = (144, 224), people: Sequence[Sequence[float]] = PEOPLE
) -> dict[str, tuple[int, ...]]:
    """Shapes of what passes on a blank image of ``size`` (H, W) with ``people`` (N, 4 px), taken for AlignPS's boxes.

    Keys: ``"image"``, ``"C3"``, ``"C4"``, ``"C5"``, ``"neck"`` (C, H, W each), ``"dense"`` (N, D), ``"regions"``
    (N, C4, s, s), ``"last stage"`` (N, C5, ...), ``"vectors"`` (two widths), ``"roi"`` (N, D), ``"both"``
    (N, 2 D); of a training step, where the model has an RPN, ``"proposals"`` (P, 4) and ``"training regions"``
    (R, C4, s, s).  The model itself is left as it was.
    """
    seen: dict[str, tuple[int, ...]] = {}
    watched = copy.deepcopy(model).eval()

    def keep(name: str, choose=lambda output: output):
        def hook(_: nn.Module, __: tuple, output) -> None:
            seen[name] = tuple(choose(output).shape)

        return hook

    def keep_maps(_: nn.Module, inputs: tuple, outputs: Sequence[torch.Tensor]) -> None:
        seen["image"] = tuple(inputs[0].shape[1:])
        seen.update({f"C{3 + place}": tuple(one.shape[1:]) for place, one in enumerate(outputs)})

    handles = [
        watched.alignps.backbone.register_forward_hook(keep_maps),
        watched.alignps.neck.register_forward_hook(keep("neck", lambda maps: maps[0][0])),
        watched.roi.roi_layer.register_forward_hook(keep("regions")),
        watched.roi.last_stage.register_forward_hook(keep("last stage")),
        watched.roi.head.register_forward_hook(keep("roi", lambda output: output.embeddings)),
    ]
    blank, boxes = [torch.zeros(3, *size)], torch.tensor(people, dtype=torch.float32).reshape(-1, 4)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        batch, dense, trunk = watched.look(blank)
        cells = watched.alignps.best_cells(dense, 0, boxes)
        rows = watched.alignps.normalize(dense.embeddings[0, cells])
        regions = watched.roi.read(trunk, [boxes]).embeddings
        seen["dense"] = tuple(rows.shape)
        seen["both"] = tuple(F.normalize(torch.cat([rows, regions], dim=1), dim=1).shape)
        seen["vectors"] = (seen["regions"][1], seen["last stage"][1])
        for handle in handles:
            handle.remove()
        if watched.rpn is not None:
            watched.rpn.register_forward_hook(keep("proposals", lambda output: output[0][0]))
            watched.roi.roi_layer.register_forward_hook(keep("training regions"))
            labels = torch.arange(len(boxes)).clamp(max=model.num_identities - 1)
            watched.train()(blank, [{"boxes": boxes, "labels": labels}])
    return seen


def roi_alignps_figure(model: RoiAlignPS, size: tuple[int, int] = (144, 224)) -> Figure:
    """Draw ``model`` with two people; numbers are those of :func:`roi_alignps_shapes`, what only trains is dashed."""
    shapes = roi_alignps_shapes(model, size)
    fig, ax = new_figure(8.6, 4.1)
    ax.set(xlim=(0, 103), ylim=(-2, 54))
    ax.axis("off")
    ax.text(61, 51.5, "ROI branch: explicit alignment", fontsize=9, ha="center", weight="bold")
    ax.text(61, -0.8, "dense branch: implicit alignment (AlignPS)", fontsize=9, ha="center", weight="bold")
    draw_block(ax, 0, 21, 12, 10, "image", shapes["image"], SHARED)
    for name, y in (("C3", 8), ("C4", 21), ("C5", 34)):
        draw_block(ax, 15, y, 11, 9.5, name, shapes[name], SHARED)
    draw_arrow(ax, (12, 23), (15, 14))
    draw_arrow(ax, (20.5, 17.5), (20.5, 21))
    draw_arrow(ax, (20.5, 30.5), (20.5, 34))
    ax.text(20.5, 45.5, "one backbone", fontsize=8, ha="center")
    draw_block(ax, 33, 8, 12, 9.5, "neck (AFA), P3", shapes["neck"], SHARED)
    for y in (12, 25, 37):
        draw_arrow(ax, (26, y), (33, 13))
    draw_block(ax, 51, 8, 13, 9.5, "head: boxes", (shapes["dense"][0], 4), DETECTION)
    draw_arrow(ax, (45, 12.7), (51, 12.7))
    draw_block(ax, 76, 8, 12, 9.5, "one cell each", shapes["dense"], REID)
    draw_arrow(ax, (64, 12.7), (76, 12.7), "which cell")
    # The embeddings are the neck's map ("re-id first"); the head, which reads it too, only says where to take them.
    ax.plot([39, 39, 82], [8, 5.2, 5.2], color="#555555", lw=0.9)
    draw_arrow(ax, (82, 5.1), (82, 8))
    ax.text(60.5, 4.6, "the embeddings: P3 itself", fontsize=7, color="#333333", ha="center", va="top")
    draw_block(ax, 51, 27, 13, 10, "RoIAlign", shapes["regions"], SHARED)
    draw_arrow(ax, (26, 27), (51, 31), "the map C4")
    draw_arrow(ax, (57.5, 17.5), (57.5, 27), "the boxes found", beside=True)
    draw_block(ax, 67, 36.5, 13.5, 10, "last stage,\nof its own", shapes["last stage"], SHARED)
    draw_arrow(ax, (64, 34), (67, 39))
    draw_block(ax, 83, 27, 11, 10, "NAE head", shapes["roi"], REID)
    draw_arrow(ax, (80.5, 40), (85, 37), "max", beside=True)
    draw_arrow(ax, (64, 31), (83, 31), f"max: {shapes['vectors'][0]} numbers")
    draw_block(ax, 92, 15, 11, 9, "side by side", shapes["both"], REID)
    draw_arrow(ax, (88, 14), (93, 15.5))
    draw_arrow(ax, (92, 27), (97, 24))
    if "proposals" in shapes:
        words = "RPN: proposals,\nonly in training"
        draw_block(ax, 33, 40, 13, 9.5, words, shapes["proposals"], DETECTION, dashed=True)
        draw_arrow(ax, (26, 29), (33, 42))
        ax.annotate("", (54, 37), (46, 43), arrowprops={"arrowstyle": "-|>", "color": "#555555", "ls": "--"})
        ax.text(50.5, 43.5, f"{shapes['training regions'][0]} regions, sampled", fontsize=7, ha="left", color="#333333")
    return fig
