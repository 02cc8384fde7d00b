"""The query browser's controls and where they stand; ``browser_widget.py`` and ``browser_tabs.py`` use them."""

import ipywidgets as w

from pslib.evaluation.ranking import CAMERAS
from pslib.viz.browser_listing import MODES
from pslib.viz.browser_search import FACTORS
from pslib.viz.scene_picker import ScenePicker

__all__ = ["TABS", "Controls"]

TABS = ("ranking", "two models", "inside the network", "what if")


class Controls(w.VBox):
    """Every control as an attribute, laid out for a page about 850 px wide; ``shown`` holds a picture for each tab.

    A picture's widget has the class ``pslib-<name>``, so that a test finds it.
    """

    def __init__(self, sets: list[str], number: int = 0):
        wide = w.Layout(width="215px")
        self.set = w.Dropdown(options=sets, description="set", layout=wide)
        self.mode = w.Dropdown(options=MODES, value="hardest first", description="choose by", layout=wide)
        self.number = w.BoundedIntText(value=number, min=0, max=10**9, description="from",
                                       layout=w.Layout(width="160px"))
        self.back, self.more = (w.Button(description=text, layout=w.Layout(width="80px"))
                                for text in ("previous", "next"))
        self.choosing = w.HBox([self.set, self.mode, self.number, self.back, self.more])
        self.file = w.Text(description="image file", placeholder="path of a JPEG or PNG", continuous_update=False)
        self.upload = w.FileUpload(accept="image/*", description="upload (to 10 MB)",
                                   layout=w.Layout(width="200px"))
        self.own_row = w.HBox([self.file, self.upload])
        self.model = w.Dropdown(description="model", layout=wide)
        self.gallery = w.Dropdown(description="gallery", layout=wide)
        self.camera = w.Dropdown(options=CAMERAS, description="camera", layout=w.Layout(width="160px"))
        self.boxes = w.Dropdown(options=["annotated", "detected"], description="boxes", layout=w.Layout(width="190px"))
        self.threshold = w.FloatSlider(value=0.2, min=0, max=1, step=0.05, description="threshold",
                                       continuous_update=False, layout=w.Layout(width="260px"))
        self.filters = w.VBox([w.HBox([self.model, self.gallery, self.camera]), w.HBox([self.boxes, self.threshold])])
        self.note, self.told = w.HTML(), w.HTML(layout=w.Layout(width="330px", margin="0 0 0 10px"))
        self.note.add_class("pslib-note")
        self.told.add_class("pslib-told")
        self.picker = ScenePicker()
        self.box = w.Text(description="or a box", placeholder="x, y, width, height", continuous_update=False,
                          layout=w.Layout(width="300px"))
        self.box_row = w.HBox([self.box])
        self.length = w.IntSlider(value=10, min=1, max=100, description="list length", continuous_update=False)
        self.rival = w.Dropdown(description="beside", layout=wide)
        self.place = w.Dropdown(options=["the query's frame", *(f"rank {rank}" for rank in range(1, 11))],
                                description="frame")
        self.factor = w.Dropdown(options=FACTORS, value=FACTORS[1], description="change")
        self.shown = {name: w.HTML() for name in (*TABS, "growth")}
        for name, picture in self.shown.items():
            picture.add_class("pslib-" + name.replace(" ", "-"))
        self.tabs = w.Tab([w.VBox([self.shown["ranking"], w.HBox([self.length, self.shown["growth"]])]),
                           w.VBox([self.rival, self.shown["two models"]]),
                           w.VBox([self.place, self.shown["inside the network"]]),
                           w.VBox([self.factor, self.shown["what if"]])], titles=TABS)
        super().__init__([self.choosing, self.own_row, self.filters, self.note,
                          w.HBox([w.VBox([self.picker, self.box_row]), self.told]), self.tabs])
        self.add_class("pslib-browser")
