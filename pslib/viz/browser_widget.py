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
from pslib.viz.browser_input import data_uri, open_picture, parse_box, person_at
from pslib.viz.browser_listing import listed, places
from pslib.viz.browser_query import (
    Item,
    OwnPicture,
    Query,
    Source,
    item_of,
    people_in,
    people_of,
    query_in_frame,
    query_in_picture,
)
from pslib.viz.browser_tabs import Tabs
from pslib.viz.guarded import Guarded

__all__ = ["QueryBrowser", "browse"]

_STRIP = 7  # thumbnails at once: what a row holds


def browse(sources: Mapping[str, Source], *, seed: int = 0, number: int = 0) -> "QueryBrowser":
    """The browser over one or several sets; it opens with the hardest query ``number`` of the first one."""
    return QueryBrowser(sources, seed=seed, number=number)


class QueryBrowser(Guarded, Tabs):
    """Controls above, the picture that answers to clicks below them, the results in tabs at the bottom."""

    _name = "browser"

    def __init__(self, sources: Mapping[str, Source], *, seed: int = 0, number: int = 0):
        self.sources, self.seed = dict(sources), seed
        self.items: list[Item] = []
        self.item: Item | None = None  # the thumbnail whose frame is shown, in the strip or not
        self.frame, self.query = -1, None
        self.own = self.opened = None  # the picture of one's own that is shown, and the one last opened
        super().__init__(list(sources), number)
        self._connect()
        self._guarded(lambda: self._refill(number))

    def _connect(self) -> None:
        """Every control calls one method; ``_guarded`` turns mistakes into sentences."""
        def on(controls: list[w.Widget], call: Callable[[], None], trait: str = "value") -> None:
            for control in controls:
                control.observe(lambda change: self._guarded(call), names=trait)

        on([self.set], self._refill)
        on([self.mode, self.number], self._list)
        on([self.model, self.gallery, self.threshold], self._filtered)
        on([self.camera, self.boxes], self._again)
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

    def _refill(self, number: int = 0) -> None:
        """Another set: its models, galleries and thumbnails from ``number`` on; nothing of the set before may stay."""
        names = list(self.source.models)

        def fill() -> None:
            self.model.options, self.model.value = names, names[0]
            self.rival.options, self.rival.value = names, names[-1]
            self.gallery.options = names_of_galleries = gallery_names(self.source.data)
            self.gallery.value = "TestG100" if "TestG100" in names_of_galleries else names_of_galleries[0]
            self.number.value = number

        self._silently(fill)
        self.items, self.item, self.frame, self.own, self.query = [], None, -1, None, None
        self.picker.items, self.picker.item = [], -1
        self.picker.show_frame("", (1, 1), [], "no frame chosen yet")
        self._show_tab()
        self._list()

    def _page(self, step: int) -> None:
        """One strip on or back, one person where they are counted; past the end nothing changes."""
        mode = self.mode.value
        total = places(self.source, mode, search=self._search(), model=self.model.value)
        number = min(self.number.value, total) + step * (1 if mode == "identity" else _STRIP)
        if step > 0 and number >= total:
            raise UserError(f"the list ends here: it has {total} in all, counted from 0.")
        self.number.value = max(0, number)

    def _list(self) -> None:
        """Fill the strip; queries are searched at once, frames only shown."""
        own = self.mode.value == "own image"
        self.own_row.layout.display = "" if own else "none"
        for control in (self.boxes, self.number, self.back, self.more):
            control.disabled = own
        if own:
            self.items, self.picker.items, self.picker.item = [], [], -1
            if self.opened is None:
                raise UserError("no image of your own is open yet: type the path of a file, or upload one.")
            self._show_own(self.opened)
            return
        self._fill()
        self._choose(0)

    def _fill(self) -> None:
        """The thumbnails of the chosen list; where it is refused there are none, for those of another list would lie.

        The thumbnail that was chosen is marked wherever it now stands.
        """
        self.items = []
        try:
            self.items = listed(self.source, self.mode.value, self.number.value, _STRIP, seed=self.seed,
                                search=self._search(), model=self.model.value)
        finally:
            with self.picker.hold_sync():
                self.picker.items = [item_of(self.source.data, item) for item in self.items]
                self.picker.item = self._place()

    def _place(self) -> int:
        """Where the chosen thumbnail stands in the strip, whatever its AP now is; -1 where it does not."""
        chosen = self.item
        at = [place for place, item in enumerate(self.items)
              if chosen is not None and (item.frame, item.row) == (chosen.frame, chosen.row)]  # fmt: skip
        return at[0] if at else -1

    def _choose(self, index: int) -> None:
        """One thumbnail was chosen."""
        item = self.items[index]
        self._show_frame(item.frame)
        self.item, self.picker.item = item, index
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
            own = OwnPicture(open_picture(self.file.value), Path(self.file.value.strip()).name)
            self._silently(lambda: self.upload.set_trait("value", ()))  # or the same file could not be uploaded again
            self._show_own(own)

    def _open_upload(self) -> None:
        for one in self.upload.value:
            own = OwnPicture(open_picture(bytes(one["content"]), one["name"]), one["name"])
            self._silently(lambda: self.file.set_trait("value", ""))  # a path that stays could not be entered again
            self._show_own(own)

    def _show_own(self, own: OwnPicture) -> None:
        """A picture of one's own, the people that the model detects in it, and what was asked in it before."""
        people = people_in(own.image, self.source, self.model.value, self.threshold.value)
        self.own = self.opened = own
        self.item, self.frame, self.query = None, -1, own.asked
        self.picker.show_frame(data_uri(own.image, width=900), own.image.shape[:2], people,
                               f"{own.name} with {len(people)} detected boxes to choose from; or drag a box")
        if own.asked is not None:
            self._ask(own.asked)
            return
        self._show_tab()
        if not people:
            raise UserError(f"{self.model.value} detects nobody in {own.name} at threshold {self.threshold.value:.2f}: "
                            "drag a box around a person, or lower the threshold.")

    def _pick(self, event: dict[str, Any]) -> None:
        """What the picture reports: a thumbnail, a person, a point or a box."""
        if event["kind"] == "item":
            self._choose(event["index"])
            return
        if self.own is None and self.frame < 0:
            raise UserError("no picture is open to choose a person in: choose a frame, or open an image of your own.")
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
            return query_in_picture(self.own.image, box, self.own.name)
        return query_in_frame(self.source.data, self.frame, box, row)

    def _ask(self, query: Query) -> None:
        """Search this query and show what the open tab shows of it."""
        self.query = query
        if self.own is not None:
            self.own.asked = query
        boxes = [person["box"] for person in self.picker.people]
        same = [index for index, box in enumerate(boxes) if np.allclose(box, query.box, atol=0.5)]
        with self.picker.hold_sync():
            self.picker.chosen = same[0] if same else -1
            self.picker.drawn = [] if same else list(query.box)
            self.picker.alt = f"{self.picker.alt.split('; the query is ')[0]}; the query is {query.name}"
        self._show_tab()

    def _filtered(self) -> None:
        """Model, gallery or threshold changed: the same query again, and the strip, whose order depends on them."""
        if self.mode.value == "hardest first":
            try:
                self._fill()
            except UserError as error:  # a gallery without queries of its own can be searched all the same
                self._say(str(error))
        self._again()

    def _again(self) -> None:
        """The same picture with the boxes that are now to be chosen from, and the same query."""
        query = self.query
        if self.own is not None:
            self._show_own(self.own)
            return
        if self.frame >= 0:
            self._show_frame(self.frame)
            if query is not None and query.frame == self.frame:
                self._ask(query)
                return
        self._show_tab()
