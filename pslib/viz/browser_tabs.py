"""The query browser's tabs: what is drawn of the query, and when."""

from pslib.viz import browser as draw
from pslib.viz.browser_controls import TABS, Controls
from pslib.viz.browser_query import Query, Source
from pslib.viz.browser_search import Search, inside_of, what_if
from pslib.viz.figures import figure_html

__all__ = ["Tabs"]


class Tabs(Controls):
    """The controls with what the open tab shows of ``query`` among ``source``."""

    source: Source
    query: Query | None

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
            for name in (tab, "growth") if tab == "ranking" else (tab,):
                self.shown[name].value = drawn.get(name, "")

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
