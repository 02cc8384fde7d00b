"""A cloud of points that answers to the mouse and to the keyboard: click one, or go through them with the arrow keys.

As in :mod:`pslib.viz.scene_picker` the code below is all that runs in the page, it is sent by the kernel, and it
decides nothing: places, colors, marks, words and the order of the keys come from Python; a choice is told by number.
"""

from collections.abc import Callable, Sequence
from typing import Any

import anywidget
import traitlets

__all__ = ["PATHS", "PointPicker"]

# The marks of matplotlib as SVG paths about the origin, all of about the same area.
PATHS = {
    "o": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0",
    "s": "M-4.5,-4.5h9v9h-9z",
    "^": "M0,-6L5.6,4H-5.6z",
    "D": "M0,-6.2L6.2,0L0,6.2L-6.2,0z",
    "v": "M0,6L5.6,-4H-5.6z",
    "X": "M-5,-5h3l2,2.5l2,-2.5h3l-3,5l3,5h-3l-2,-2.5l-2,2.5h-3l3,-5z",
}

_SCRIPT = """
const SVG = "http://www.w3.org/2000/svg";

function element(tag, name, parent) {
  const made = document.createElement(tag);
  made.className = name;
  parent.appendChild(made);
  return made;
}

function shape(tag, attributes, parent) {
  const made = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  parent.appendChild(made);
  return made;
}

function render({ model, el }) {
  // Without this JupyterLab takes arrow keys and Enter for itself.
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  const cloud = element("div", "pslib-cloud", el);
  cloud.tabIndex = 0;
  cloud.setAttribute("role", "application");
  const picture = shape("svg", { viewBox: "0 0 400 400" }, cloud);
  const links = shape("g", {}, picture), dots = shape("g", {}, picture), ring = shape("g", {}, picture);
  const legend = element("div", "pslib-legend", el);
  const spoken = element("div", "pslib-spoken", el);
  spoken.setAttribute("aria-live", "polite");
  let looked = -1;

  const at = () => looked >= 0 ? looked : model.get("chosen");
  const place = (point) => `translate(${point.x},${point.y})`;

  function draw() {
    const points = model.get("points");
    cloud.setAttribute("aria-label", model.get("alt"));
    dots.replaceChildren();
    points.forEach((point, index) => {
      const dot = shape("path", { d: point.path, transform: place(point), fill: point.color }, dots);
      dot.setAttribute("class", "pslib-point");
      shape("title", {}, dot).textContent = point.name;
      dot.addEventListener("click", () => {
        cloud.focus({ preventScroll: true });
        model.send({ kind: "point", index });
      });
    });
    legend.replaceChildren();
    model.get("legend").forEach((entry) => {
      const item = element("span", "", legend);
      const small = shape("svg", { viewBox: "-8 -8 16 16", width: 14, height: 14, "aria-hidden": "true" }, item);
      shape("path", { d: entry.path, fill: entry.color }, small);
      item.appendChild(document.createTextNode(entry.name));
    });
    mark();
  }

  function mark() {
    const points = model.get("points"), chosen = model.get("chosen");
    links.replaceChildren(); ring.replaceChildren();
    if (chosen >= 0 && chosen < points.length) {
      const own = points[chosen];
      model.get("links").forEach((index) => shape("line",
        { x1: own.x, y1: own.y, x2: points[index].x, y2: points[index].y }, links));
      shape("circle", { r: 11, transform: place(own), class: "chosen" }, ring);
    }
    if (looked >= 0 && looked < points.length && looked !== chosen)
      shape("circle", { r: 11, transform: place(points[looked]), class: "looked" }, ring);
    const number = at(), order = model.get("order");
    const told = number >= 0 && number < points.length;
    const mine = told && number === chosen ? " (chosen)" : "";
    spoken.textContent = told ? `${order.indexOf(number) + 1} of ${points.length}: ${points[number].name}${mine}`
      : `${points.length} points`;
  }

  cloud.addEventListener("keydown", (event) => {
    const order = model.get("order"), count = order.length, now = order.indexOf(at());
    const on = ["ArrowRight", "ArrowDown"].includes(event.key), back = ["ArrowLeft", "ArrowUp"].includes(event.key);
    if (count && on) looked = order[(now + 1) % count];
    else if (count && back) looked = order[(Math.max(now, 0) + count - 1) % count];
    else if (event.key === "Enter" && at() >= 0) model.send({ kind: "point", index: at() });
    else return;
    event.preventDefault(); event.stopPropagation();
    mark();
  });

  model.on("change:points change:legend", () => { looked = -1; draw(); });
  model.on("change:alt", () => cloud.setAttribute("aria-label", model.get("alt")));
  model.on("change:chosen change:links", () => { looked = -1; mark(); });
  draw();
}

export default { render };
"""

_STYLE = """
.pslib-cloud { width: 400px; max-width: 100%; margin: 3px; border: 1px solid #bbb; background: white; }
.pslib-cloud:focus-visible { outline: 3px solid #D55E00; outline-offset: 1px; }
.pslib-cloud svg { display: block; width: 100%; }
.pslib-point { cursor: pointer; stroke: white; stroke-width: 0.6px; }
.pslib-cloud line { stroke: #666; stroke-width: 1px; stroke-dasharray: 3 2; }
.pslib-cloud circle { fill: none; stroke: #D55E00; stroke-width: 3px; pointer-events: none; }
.pslib-cloud circle.looked { stroke: #111; stroke-width: 2px; stroke-dasharray: 3 2; }
.pslib-legend { display: flex; flex-wrap: wrap; gap: 2px 10px; max-width: 400px; font: 11px sans-serif;
  color: var(--jp-ui-font-color1, #111); }
.pslib-legend span { display: inline-flex; align-items: center; gap: 3px; }
.pslib-spoken { font: 12px sans-serif; color: var(--jp-ui-font-color1, #111); min-height: 16px; }
"""


class PointPicker(anywidget.AnyWidget):
    """Points of a picture and their legend.

    ``points`` holds ``{"x", "y", "path", "color", "name"}`` with places in 0..400 px from the upper left, ``legend``
    ``{"path", "color", "name"}``; ``chosen`` is a point's number or -1, ``links`` the points it is tied to, ``order``
    the points as the arrow keys go through them.

    Handlers given to :meth:`on_pick` get ``{"kind": "point", "index"}``, by mouse and keyboard alike.
    """

    _esm = _SCRIPT
    _css = _STYLE

    alt = traitlets.Unicode("no points yet").tag(sync=True)
    points = traitlets.List(traitlets.Dict()).tag(sync=True)
    legend = traitlets.List(traitlets.Dict()).tag(sync=True)
    order = traitlets.List(traitlets.Int()).tag(sync=True)
    links = traitlets.List(traitlets.Int()).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)

    def on_pick(self, handler: Callable[[dict[str, Any]], None]) -> None:
        """Call ``handler(event)`` at every click or Enter."""
        self.on_msg(lambda widget, event, buffers: handler(event))

    def show_points(self, points: Sequence[dict[str, Any]], legend: Sequence[dict[str, Any]], order: Sequence[int],
                    alt: str) -> None:  # fmt: skip
        """Show other points, with none chosen; all traits change in one message."""
        with self.hold_sync():
            self.chosen, self.links = -1, []
            self.order, self.alt, self.legend, self.points = list(order), alt, list(legend), list(points)
