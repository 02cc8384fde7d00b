"""The query browser: a thin shell of controls around ``rank``, ``explain`` and the drawing functions.

    browse({"cuhk-sysu": Source(data, models, galleries)})

Every mistake of the user is one sentence in the browser.  An error of the browser itself is shown there too and raised
again, so that neither the page nor the kernel's log keeps silent about it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np

from pslib.data.loading import read_image
from pslib.errors import UserError
from pslib.evaluation.ranking import gallery_names
from pslib.viz import browser as draw
from pslib.viz.browser_controls import TABS, Controls
from pslib.viz.browser_input import data_uri, open_picture, parse_box, person_at
from pslib.viz.browser_listing import listed
from pslib.viz.browser_query import Item, Query, Source, item_of, people_in, people_of, query_in_frame, query_in_picture
from pslib.viz.browser_search import Search, inside_of, what_if
from pslib.viz.figures import figure_html
from pslib.viz.guarded import Guarded

__all__ = ["QueryBrowser", "browse"]

_STRIP = 7  # thumbnails at once: what a row holds


def browse(sources: Mapping[str, Source], *, seed: int = 0, number: int = 0) -> "QueryBrowser":
    """The browser over one or several sets; it opens with the hardest query ``number`` of the first one."""
    return QueryBrowser(sources, seed=seed, number=number)


class QueryBrowser(Guarded, Controls):
    """Controls above, the picture that answers to clicks below them, the results in tabs at the bottom."""

    _name = "browser"

    def __init__(self, sources: Mapping[str, Source], *, seed: int = 0, number: int = 0):
        self.sources, self.seed = dict(sources), seed
        self.items: list[Item] = []
        self.frame, self.query, self.own = -1, None, None
        super().__init__(list(sources), number)
        self._connect()
        self._guarded(self._refill)

    def _connect(self) -> None:
        """Every control calls one method; ``_guarded`` turns mistakes into sentences."""
        def on(controls: list[w.Widget], call: Callable[[], None], trait: str = "value") -> None:
            for control in controls:
                control.observe(lambda change: self._guarded(call), names=trait)

        on([self.set], self._refill)
        on([self.mode, self.number], self._list)
        on([self.model, self.gallery, self.camera, self.threshold, self.boxes], self._filtered)
        on([self.rival, self.length, self.place, self.factor], self._show_tab)
        on([self.tabs], self._show_tab, "selected_index")
        on([self.file], self._open_file)
        on([self.upload], self._open_upload)
        on([self.box], lambda: self._pick({"kind": "box", "box": parse_box(self.box.value)}))
        self.back.on_click(lambda button: self._guarded(lambda: self._page(-1)))
        self.more.on_click(lambda button: self._guarded(lambda: self._page(1)))
        self.picker.on_pick(lambda event: self._guarded(lambda: self._pick(event)))

    @property
    def source(self) -> Source:
        return self.sources[self.set.value]

    def _refill(self) -> None:
        """Another set: its models, galleries and first thumbnails."""
        names = list(self.source.models)

        def fill() -> None:
            self.model.options, self.model.value = names, names[0]
            self.rival.options, self.rival.value = names, names[-1]
            self.gallery.options = names_of_galleries = gallery_names(self.source.data)
            self.gallery.value = "TestG100" if "TestG100" in names_of_galleries else names_of_galleries[0]
            self.number.value = 0 if self.frame >= 0 else self.number.value

        self._silently(fill)
        self._list()

    def _page(self, step: int) -> None:
        self.number.value = max(0, self.number.value + step * _STRIP)

    def _list(self) -> None:
        """Fill the strip; queries are searched at once, frames only shown."""
        own = self.mode.value == "own image"
        self.own_row.layout.display = "" if own else "none"
        self.boxes.disabled = own
        if own:
            self.picker.items = []
            if self.own is None:
                raise UserError("no image of your own is open yet: type the path of a file, or upload one.")
            return
        self.items = listed(self.source, self.mode.value, self.number.value, _STRIP, seed=self.seed,
                            search=self._search(), model=self.model.value)
        self.picker.items = [item_of(self.source.data, item) for item in self.items]
        self._choose(0)

    def _choose(self, index: int) -> None:
        """One thumbnail was chosen."""
        item = self.items[index]
        self.picker.item = index
        self._show_frame(item.frame)
        if item.row >= 0:
            frame = self.source.data.frames[item.frame]
            self._ask(query_in_frame(self.source.data, item.frame, frame.boxes[item.row].tolist(), item.row))

    def _show_frame(self, index: int) -> None:
        frame = self.source.data.frames[index]
        image = read_image(frame.path)
        people = people_of(self.source, index, self.model.value, self.boxes.value, self.threshold.value)
        self.frame, self.own = index, None
        camera = f", camera {frame.camera}" if frame.camera else ""
        self.picker.show_frame(data_uri(image), tuple(image.shape[-2:]), people,
                               f"frame {frame.name}{camera} with {len(people)} {self.boxes.value} boxes to choose from")

    def _open_file(self) -> None:
        if self.file.value.strip():
            self._show_own(open_picture(self.file.value), Path(self.file.value.strip()).name)

    def _open_upload(self) -> None:
        for one in self.upload.value:
            self._show_own(open_picture(bytes(one["content"]), one["name"]), one["name"])

    def _show_own(self, image: np.ndarray, name: str) -> None:
        self.own, self.frame, self.own_name, self.query = image, -1, name, None
        people = people_in(image, self.source, self.model.value, self.threshold.value)
        self.picker.show_frame(data_uri(image, width=900), image.shape[:2], people,
                               f"{name} with {len(people)} detected boxes to choose from; or drag a box")
        self._show_tab()
        if not people:
            raise UserError(f"{self.model.value} detects nobody in {name} at threshold {self.threshold.value:.2f}: "
                            "drag a box around a person, or lower the threshold.")

    def _pick(self, event: dict[str, Any]) -> None:
        """What the picture reports: a thumbnail, a person, a point or a box."""
        if event["kind"] == "item":
            self._choose(event["index"])
            return
        people = self.picker.people
        if event["kind"] == "box":
            self._ask(self._query_of(event["box"]))
            return
        index = event["index"] if event["kind"] == "person" else person_at(
            [person["box"] for person in people], event["x"], event["y"])
        annotated = people[index]["kind"] == "annotated"
        self._ask(self._query_of(people[index]["box"], index if annotated else -1))

    def _query_of(self, box: list[float], row: int = -1) -> Query:
        if self.own is not None:
            return query_in_picture(self.own, box, self.own_name)
        return query_in_frame(self.source.data, self.frame, box, row)

    def _ask(self, query: Query) -> None:
        """Search this query and show what the open tab shows of it."""
        self.query = query
        boxes = [person["box"] for person in self.picker.people]
        same = [index for index, box in enumerate(boxes) if np.allclose(box, query.box, atol=0.5)]
        with self.picker.hold_sync():
            self.picker.chosen = same[0] if same else -1
            self.picker.drawn = [] if same else list(query.box)
            self.picker.alt = f"{self.picker.alt.split('; the query is ')[0]}; the query is {query.name}"
        self._show_tab()

    def _filtered(self) -> None:
        """A filter or the model changed: the same query again."""
        if self.own is None and self.frame >= 0:
            query = self.query
            self._show_frame(self.frame)
            if query is not None and query.frame == self.frame:
                self._ask(query)
                return
        self._show_tab()

    def _search(self) -> Search:
        return Search(self.source, self.gallery.value, self.camera.value, self.threshold.value)

    def _show_tab(self) -> None:
        """Draw the open tab for the query; the others are drawn when they are opened."""
        if self.query is None:
            for picture in self.shown.values():
                picture.value = ""
            self.told.value = "<p>Click a person to search, or drag a box.</p>"
            return
        tab, search, model = TABS[self.tabs.selected_index or 0], self._search(), self.model.value
        # After a mistake no picture of another query may stay.
        self.told.value, drawn = "", {}
        try:
            drawn = self._draw(tab, search, model)
        finally:
            self.shown[tab].value = drawn.get(tab, "")
            if "growth" in drawn:
                self.shown["growth"].value = drawn["growth"]

    def _draw(self, tab: str, search: Search, model: str) -> dict[str, str]:
        """The figures of a tab as HTML, by the name of the picture they belong in."""
        name = f"query: {self.query.name}, model {model}, {search}"
        ranking = search.rank(self.query, model)
        self.told.value = search.summary(self.query, ranking, model)
        detections = search.detections
        if tab == "ranking":
            growth = figure_html(*draw.ap_figure(ranking, self.length.value))
            figure = draw.gallery_figure(ranking, detections(model), self.source.data, query=name)
            return {tab: figure_html(*figure), "growth": growth}
        if tab == "two models":
            both = list(dict.fromkeys([model, self.rival.value]))
            rankings = {one: search.rank(self.query, one) for one in both}
            figure = draw.comparison_figure(rankings, {one: detections(one) for one in both}, self.source.data,
                                            query=f"query: {self.query.name}, {search}")
        elif tab == "inside the network":
            figure = inside_of(search, self.query, model, self.place.index)
        else:
            figure = what_if(search, self.query, model, self.factor.value)
        return {tab: figure_html(*figure)}
