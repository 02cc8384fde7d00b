"""A picture of a scene that answers to the mouse and to the keyboard: click a person, or draw a box.

ipywidgets' own Image reports no clicks.  The code below is all that runs in the page; it is sent by the kernel, so
nothing is fetched.  It decides nothing: a click is told as a point in pixels of the stored image, and Python says who
stands there (:func:`pslib.viz.browser_input.person_at`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import anywidget
import traitlets

__all__ = ["ScenePicker"]

_SCRIPT = """
const SVG = "http://www.w3.org/2000/svg";

function element(tag, name, parent) {
  const made = document.createElement(tag);
  made.className = name;
  parent.appendChild(made);
  return made;
}

function render({ model, el }) {
  // Without this JupyterLab takes arrow keys and Enter for itself.
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  const strip = element("div", "pslib-strip", el);
  strip.setAttribute("role", "group");
  strip.setAttribute("aria-label", "frames to choose from");
  const scene = element("div", "pslib-scene", el);
  scene.tabIndex = 0;
  scene.setAttribute("role", "application");
  scene.setAttribute("aria-label", "the frame: arrow keys go from person to person, Enter searches");
  const picture = element("img", "pslib pslib-scene-picture", scene);
  picture.draggable = false;
  const overlay = document.createElementNS(SVG, "svg");
  scene.appendChild(overlay);
  const spoken = element("div", "pslib-spoken", el);
  spoken.setAttribute("aria-live", "polite");
  let looked = -1, start = null, dragged = null;

  function frame(box, kind) {
    const rect = document.createElementNS(SVG, "rect");
    const [x1, y1, x2, y2] = box;
    Object.entries({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 }).forEach(([k, v]) => rect.setAttribute(k, v));
    rect.setAttribute("class", kind);
    overlay.appendChild(rect);
  }

  function draw() {
    const people = model.get("people"), chosen = model.get("chosen"), drawn = dragged || model.get("drawn");
    overlay.setAttribute("viewBox", `0 0 ${model.get("width")} ${model.get("height")}`);
    overlay.replaceChildren();
    people.forEach((person, index) => {
      frame(person.box, "halo");
      frame(person.box, person.kind + (index === chosen ? " chosen" : "") + (index === looked ? " looked" : ""));
    });
    if (drawn.length) { frame(drawn, "halo"); frame(drawn, "drawn chosen"); }
  }

  function say() {
    const people = model.get("people"), at = looked >= 0 ? looked : model.get("chosen");
    spoken.textContent = at >= 0 && at < people.length
      ? `${at + 1} of ${people.length}: ${people[at].name}${at === model.get("chosen") ? " (the query)" : ""}`
      : `${people.length} boxes to choose from`;
  }

  function show() {
    picture.src = model.get("image");
    picture.alt = model.get("alt");
    scene.style.width = `${model.get("shown_width")}px`;
    looked = -1;
    draw(); say();
  }

  function showItems() {
    strip.replaceChildren();
    model.get("items").forEach((item, index) => {
      const button = element("button", "pslib-item" + (index === model.get("item") ? " chosen" : ""), strip);
      if (index === model.get("item")) button.setAttribute("aria-current", "true");
      const small = element("img", "", button);
      small.src = item.image; small.alt = item.alt;
      element("span", "", button).textContent = item.name;
      button.addEventListener("click", () => model.send({ kind: "item", index }));
    });
  }

  function place(event) {
    const seen = picture.getBoundingClientRect();
    return [(event.clientX - seen.left) / seen.width * model.get("width"),
            (event.clientY - seen.top) / seen.height * model.get("height")];
  }

  scene.addEventListener("pointerdown", (event) => {
    scene.focus({ preventScroll: true });
    start = [...place(event), event.clientX, event.clientY];
    scene.setPointerCapture(event.pointerId);
  });
  scene.addEventListener("pointermove", (event) => {
    if (!start || Math.hypot(event.clientX - start[2], event.clientY - start[3]) < 5) return;
    const [x, y] = place(event);
    dragged = [Math.min(x, start[0]), Math.min(y, start[1]), Math.max(x, start[0]), Math.max(y, start[1])];
    draw();
  });
  scene.addEventListener("pointerup", () => {
    if (!start) return;
    if (dragged) model.send({ kind: "box", box: dragged });
    else model.send({ kind: "point", x: start[0], y: start[1] });
    start = dragged = null;
    draw();
  });
  scene.addEventListener("pointercancel", () => { start = dragged = null; draw(); });
  scene.addEventListener("keydown", (event) => {
    const count = model.get("people").length, at = looked >= 0 ? looked : model.get("chosen");
    if (count && ["ArrowRight", "ArrowDown"].includes(event.key)) looked = (at + 1) % count;
    else if (count && ["ArrowLeft", "ArrowUp"].includes(event.key)) looked = (Math.max(at, 0) + count - 1) % count;
    else if (event.key === "Enter" && at >= 0) model.send({ kind: "person", index: at });
    else return;
    event.preventDefault(); event.stopPropagation();
    draw(); say();
  });

  model.on("change:image change:people", show);
  model.on("change:alt", () => { picture.alt = model.get("alt"); });
  model.on("change:chosen change:drawn", () => { looked = -1; draw(); say(); });
  model.on("change:items change:item", showItems);
  show(); showItems();
}

export default { render };
"""

_STYLE = """
.pslib-strip { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 4px; }
.pslib-item { border: 2px solid #ccc; border-radius: 3px; background: white; color: #111; padding: 1px; cursor: pointer;
  font: 11px sans-serif; width: 72px; overflow: hidden; }
.pslib-item img { display: block; width: 100%; height: 44px; object-fit: cover; }
.pslib-item span { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.pslib-item.chosen { border-color: #0072B2; background: #E8F2F9; font-weight: bold; }
.pslib-item:focus-visible, .pslib-scene:focus-visible { outline: 3px solid #D55E00; outline-offset: 1px; }
.pslib-scene { position: relative; max-width: calc(100% - 6px); margin: 3px; cursor: crosshair;
  touch-action: none; user-select: none; }
.pslib-scene img { display: block; width: 100%; image-rendering: auto; }
.pslib-scene svg { position: absolute; inset: 0; width: 100%; height: 100%; pointer-events: none; }
.pslib-scene rect { fill: none; vector-effect: non-scaling-stroke; stroke-width: 2px; }
.pslib-scene rect.halo { stroke: white; stroke-width: 4px; opacity: 0.7; }
.pslib-scene rect.annotated { stroke: #0072B2; }
.pslib-scene rect.detected { stroke: #D55E00; stroke-dasharray: 5 3; }
.pslib-scene rect.drawn { stroke: #000; }
.pslib-scene rect.chosen { stroke-width: 4px; }
.pslib-scene rect.looked { stroke-width: 4px; fill: rgba(255, 255, 255, 0.35); }
.pslib-spoken { font: 12px sans-serif; color: var(--jp-ui-font-color1, #111); min-height: 16px; }
"""


class ScenePicker(anywidget.AnyWidget):
    """The frame, its boxes and a strip of thumbnails.

    ``image`` and the items' images are data URIs; ``width``, ``height`` are pixels of the stored image, and so are all
    boxes (xyxy).  ``people`` holds ``{"box", "name", "kind"}`` with kind ``"annotated"`` (solid) or ``"detected"``
    (dashed); ``chosen`` is the query's place in it or -1, ``drawn`` a free box or empty.  ``items`` holds
    ``{"image", "alt", "name"}``.

    Handlers given to :meth:`on_pick` get a dict: ``{"kind": "point", "x", "y"}``, ``{"kind": "person", "index"}``
    (keyboard), ``{"kind": "box", "box"}`` (dragged) or ``{"kind": "item", "index"}``.
    """

    _esm = _SCRIPT
    _css = _STYLE

    image = traitlets.Unicode("").tag(sync=True)
    alt = traitlets.Unicode("no frame chosen yet").tag(sync=True)
    width = traitlets.Int(1).tag(sync=True)
    height = traitlets.Int(1).tag(sync=True)
    shown_width = traitlets.Int(440).tag(sync=True)
    people = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    drawn = traitlets.List(traitlets.Float()).tag(sync=True)
    items = traitlets.List(traitlets.Dict()).tag(sync=True)
    item = traitlets.Int(-1).tag(sync=True)

    def on_pick(self, handler: Callable[[dict[str, Any]], None]) -> None:
        """Call ``handler(event)`` at every click, choice or drawn box."""
        self.on_msg(lambda widget, event, buffers: handler(event))

    def show_frame(self, image: str, size: tuple[int, int], people: Sequence[dict[str, Any]], alt: str) -> None:
        """Show another frame, of ``size`` (height, width) px, with nobody chosen; all traits change in one message."""
        with self.hold_sync():
            self.height, self.width = size
            self.chosen, self.drawn = -1, []
            self.people, self.alt, self.image = list(people), alt, image
