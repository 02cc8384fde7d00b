"""A picture of embeddings and the people in it: choose a point, see the crop and who is near, in the space and drawn.

Pure functions say where points stand, who is near and what is drawn; :class:`LinkedView` is the shell around them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as w
import numpy as np
from matplotlib.figure import Figure

from pslib.data.annotations import PersonSearchSet
from pslib.data.loading import read_image
from pslib.errors import UserError, require_choice
from pslib.evaluation.separation import distances, purity_range
from pslib.experiments.pictured import Known, Pictured
from pslib.viz import embeddings as draw
from pslib.viz.figures import PALETTE, figure_html, new_figure
from pslib.viz.guarded import Guarded
from pslib.viz.montage import Tile, crop_in_context, sheet
from pslib.viz.point_picker import PATHS, PointPicker

__all__ = ["COLORINGS", "Linked", "LinkedView", "cloud_alt", "cloud_figure", "cloud_numbers", "crops_figure",
           "groups_of", "nearest", "picked_points"]  # fmt: skip

COLORINGS = ("identity", "scale", "camera", "occlusion", "branch")
_SIDE, _EDGE = 400, 18  # px of the picture, and of its empty edge
_NEAR = 4  # neighbors shown


@dataclass(frozen=True, eq=False)
class Linked:
    """One model's picture: ``points`` (N, 2) drawn from ``pictured``, whose crops come from ``data``.

    ``branch`` names the branch of each point where a model has several, (N,).
    """

    points: np.ndarray
    pictured: Pictured
    known: Known
    data: PersonSearchSet
    branch: np.ndarray | None = None


def groups_of(linked: Linked, by: str) -> draw.Groups:
    """What the points are colored by, one of :data:`COLORINGS`; UserError where that is not known of them."""
    require_choice("coloring", by, COLORINGS)
    if by == "branch":
        if linked.branch is None:
            raise UserError("this model has one branch only: color by something else.")
        return draw.by_group(linked.branch)
    known = linked.known
    return {"identity": lambda: draw.by_person(linked.pictured.people), "scale": lambda: draw.by_height(known.height),
            "camera": lambda: draw.by_camera(known.camera),
            "occlusion": lambda: draw.by_visible(known.visible)}[by]()  # fmt: skip


def nearest(linked: Linked, index: int, count: int = _NEAR, drawn: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` points nearest to ``index`` in the space, or as ``drawn``, and their distances there."""
    if not 0 <= index < len(linked.points):
        raise UserError(f"point {index} is not in the picture: it has {len(linked.points)}, counted from 0.")
    far = distances(linked.points) if drawn else distances(linked.pictured.embeddings, linked.pictured.similarity)
    own = far[index]
    own[index] = np.inf
    near = np.argsort(own, kind="stable")[: min(count, len(own) - 1)]
    return near, own[near]


def crops_figure(linked: Linked, index: int) -> tuple[Figure, str]:
    """The chosen box, her nearest in the space, her nearest on the picture; and that in words."""
    in_space, far = nearest(linked, index)
    on_picture, far_drawn = nearest(linked, index, drawn=True)
    space_row = [_tile(linked, index, None, "chosen")]
    space_row += [_tile(linked, other, index, f"distance {gap:.2f}") for other, gap in zip(in_space, far, strict=True)]
    drawn_row = [_tile(linked, other, index, f"drawn at {gap:.1f}")
                 for other, gap in zip(on_picture, far_drawn, strict=True)]  # fmt: skip
    name = _name(linked, index)
    fig = sheet([(f"{name}, and her nearest in the space", space_row), ("nearest on the picture", drawn_row)],
                columns=_NEAR + 1)  # fmt: skip
    both = len(set(in_space.tolist()) & set(on_picture.tolist()))
    return fig, (f"Point {index}, {name}. Nearest in the space: {_verdicts(linked, index, in_space)}. "
                 f"Nearest on the picture: {_verdicts(linked, index, on_picture)}. "
                 f"{both} of {len(in_space)} are the same.")  # fmt: skip


def cloud_numbers(linked: Linked, by: str) -> str:
    """What stands beside a picture: how well space and picture keep the groups it is colored by, and what chance gives.

    The numbers are those of :func:`pslib.viz.embeddings.described`; UserError as :func:`groups_of`.
    """
    of = groups_of(linked, by).of
    if len(np.unique(of)) < 2:
        return f"{by}: one group only, so there is nothing to keep apart"
    told = draw.described(linked.pictured.embeddings, of, linked.points, linked.pictured.similarity)
    return f"{by}: {told}; purity by chance {purity_range(of)[0]:.2f}"


def cloud_figure(linked: Linked, by: str, index: int = -1) -> Figure:
    """The picture as in the widget, without a kernel: numbers, marks, legend, the chosen point and her ties."""
    groups = groups_of(linked, by)
    fig, ax = new_figure(5.6, 3.9)
    if index >= 0:
        for other in nearest(linked, index)[0]:
            ax.plot(*linked.points[[index, other]].T, color="#666666", ls="--", lw=0.9, zorder=0)
        ax.plot(*linked.points[index], "o", ms=12, mfc="none", mec=PALETTE["vermillion"], mew=2)
    draw.draw_points(ax, linked.points, groups, 26)
    ax.set_title(cloud_numbers(linked, by), fontsize=8.5)
    fig.legend(handles=draw.legend_handles(groups.names), loc="outside right upper", fontsize=7.5, frameon=False)
    return fig


def cloud_alt(linked: Linked, title: str, by: str) -> str:
    """Model, coloring, the size of each group, and the numbers."""
    groups = groups_of(linked, by)
    sizes = np.bincount(groups.of, minlength=len(groups.names))
    told = ", ".join(f"{name} ({size})" for name, size in zip(groups.names, sizes, strict=True))
    return f"{title}, colored by {by}: {told}; numbers by {cloud_numbers(linked, by)}"


def picked_points(linked: Linked, by: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[int]]:
    """Points, legend and order of the keys for a :class:`PointPicker`."""
    groups = groups_of(linked, by)
    low, high = linked.points.min(axis=0), linked.points.max(axis=0)
    scale = (_SIDE - 2 * _EDGE) / max(float((high - low).max()), 1e-9)
    places = _SIDE / 2 + scale * (linked.points - (low + high) / 2) * (1, -1)  # a page counts from the top

    def style(group: int) -> dict[str, Any]:
        color, mark = draw.style_of(group)
        return {"color": color, "path": PATHS[mark]}

    points = [{"x": round(float(x), 1), "y": round(float(y), 1), "name": _name(linked, row), **style(group)}
              for row, ((x, y), group) in enumerate(zip(places, groups.of.tolist(), strict=True))]  # fmt: skip
    legend = [{"name": name, **style(group)} for group, name in enumerate(groups.names)]
    return points, legend, np.lexsort((linked.pictured.frames, linked.pictured.people)).tolist()


class LinkedView(Guarded, w.VBox):
    """Controls, the numbers of the picture, its points, and the crops of the chosen one and of those near her."""

    _name = "linked view"

    def __init__(self, models: Mapping[str, Linked], index: int = 0):
        if not models:
            raise UserError("no model to show: record a run first, pslib reproduce ian-table1.")
        self.models = dict(models)
        self.shown = (next(iter(self.models)), COLORINGS[0])  # model and coloring of what is drawn
        self.model = w.Dropdown(options=list(self.models), description="model", layout=w.Layout(width="320px"))
        self.by = w.Dropdown(options=COLORINGS, description="color by", layout=w.Layout(width="220px"))
        self.note, self.numbers, self.crops, self.picker = w.HTML(), w.HTML(), w.HTML(), PointPicker()
        self.numbers.add_class("pslib-linked-numbers")
        self.crops.add_class("pslib-linked-crops")
        super().__init__([w.HBox([self.model, self.by]), self.note, self.numbers, self.picker, self.crops])
        for control in (self.model, self.by):
            control.observe(lambda change: self._guarded(self._redraw), names="value")
        self.picker.on_pick(lambda event: self._guarded(lambda: self._choose(event["index"])))
        self._guarded(self._redraw)
        self._guarded(lambda: self._choose(index))

    def _redraw(self) -> None:
        """Another model or coloring: the chosen person stays chosen where the same boxes are shown.

        A coloring that is not known of the model gives way to the one that is drawn, and where the model is another one
        to identity, so that picture and controls always agree; UserError then says why.
        """
        title, by, refused = self.model.value, self.by.value, None
        linked, chosen = self.models[title], self.picker.chosen
        try:
            groups_of(linked, by)
        except UserError as error:
            same = title == self.shown[0]
            by = self.shown[1] if same else COLORINGS[0]
            refused = error if same else UserError(f"{title} is colored by {by}, since {error}")
        numbers = f"{title}, by {cloud_numbers(linked, by)}"
        points, alt = picked_points(linked, by), cloud_alt(linked, title, by)
        index = chosen if 0 <= chosen < len(linked.points) else 0
        crops = _crops(linked, index)  # all is made before any of it is shown: what fails leaves the old picture whole
        self.shown = (title, by)
        self._silently(lambda: self.by.set_trait("value", by))
        self.picker.show_points(*points, alt)
        self.numbers.value = escape(numbers)
        self._ring(index, *crops)
        if refused is not None:
            raise refused

    def _choose(self, index: int) -> None:
        """One of the points that are drawn, whatever the controls say."""
        self._ring(index, *_crops(self.models[self.shown[0]], index))

    def _ring(self, index: int, html: str, near: list[int]) -> None:
        with self.picker.hold_sync():
            self.picker.chosen, self.picker.links = index, near
        self.crops.value = html


def _crops(linked: Linked, index: int) -> tuple[str, list[int]]:
    """:func:`crops_figure` as HTML, and the points that the chosen one is tied to."""
    return figure_html(*crops_figure(linked, index)), nearest(linked, index)[0].tolist()


def _tile(linked: Linked, index: int, chosen: int | None, line: str) -> Tile:
    pictured, known = linked.pictured, linked.known
    image = read_image(linked.data.frames[pictured.frames[index]].path)
    crop, box = crop_in_context(image, pictured.boxes[index])
    verdict = "query" if chosen is None else "right" if _same(linked, index, chosen) else "wrong"
    hidden = f", {100 * known.visible[index]:.0f} % visible" if np.isfinite(known.visible[index]) else ""
    camera = f", camera {known.camera[index]}" if known.camera[index] else ""
    who = f"person {_number(linked, index)}"
    branch = [str(linked.branch[index])] if linked.branch is not None else []
    lines = [f"{who}, {line}" if chosen is not None else who, *branch, f"{known.height[index]:.0f} px{hidden}{camera}"]
    return Tile(crop, box, verdict, tuple(lines))


def _same(linked: Linked, first: int, second: int) -> bool:
    return bool(linked.pictured.people[first] == linked.pictured.people[second])


def _verdicts(linked: Linked, index: int, others: np.ndarray) -> str:
    return ", ".join("same person" if _same(linked, index, other) else "other person" for other in others)


def _name(linked: Linked, index: int) -> str:
    """Who it is, and by which branch where there are two."""
    branch = f" ({linked.branch[index]})" if linked.branch is not None else ""
    return f"person {_number(linked, index)}{branch}"


def _number(linked: Linked, index: int) -> int:
    """1, 2 ... in the order of the ids."""
    return int(np.searchsorted(np.unique(linked.pictured.people), linked.pictured.people[index])) + 1
