"""Widgets in a real browser: the alt text of the figure is the oracle, and a planted fault is seen."""

import nbformat
import pytest
from browser import needs_browser, notebook_page
from nbformat.v4 import new_code_cell, new_notebook

WIDGETS = """
import ipywidgets
from pslib.viz.figures import figure_html, new_figure

def draw(height, view, mirrored):
    fig, ax = new_figure(3, 2)
    ax.bar([0], [height])
    return figure_html(fig, alt=f"a bar {height} px high, seen from the {view}{', mirrored' if mirrored else ''}")

height = ipywidgets.IntSlider(value=10, min=0, max=50, description="height")
view = ipywidgets.Dropdown(options=["front", "back"], description="view")
mirrored = ipywidgets.Checkbox(value=False, description="mirrored")
again = ipywidgets.Button(description="again")
picture = ipywidgets.HTML(draw(10, "front", False))

def redraw(change):
    PLANTED
    picture.value = draw(height.value, view.value, mirrored.value)

for control in (height, view, mirrored):
    control.observe(redraw, names="value")
again.on_click(lambda button: setattr(picture, "value", draw(0, "side", False)))
ipywidgets.VBox([height, view, mirrored, again, picture])
"""


def write(folder, planted):
    notebook = new_notebook(cells=[new_code_cell(WIDGETS.replace("PLANTED", planted)), new_code_cell("1 + 1")])
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(notebook, folder / "widgets.ipynb")


@needs_browser
def test_every_kind_of_control_redraws(tmp_path):
    write(tmp_path, "pass")
    with notebook_page(tmp_path, "widgets.ipynb") as page:
        page.run_all()
        assert page.wait_for_alt(lambda alt: True) == "a bar 10 px high, seen from the front"
        page.set_slider("height", 36)
        page.wait_for_alt(lambda alt: alt == "a bar 36 px high, seen from the front")
        page.choose("view", "back")
        page.wait_for_alt(lambda alt: alt == "a bar 36 px high, seen from the back")
        page.toggle("mirrored")
        page.wait_for_alt(lambda alt: alt.endswith("back, mirrored"))
        page.press("again")
        page.wait_for_alt(lambda alt: alt == "a bar 0 px high, seen from the side")


@needs_browser
def test_a_fault_in_a_callback_is_seen(tmp_path):
    write(tmp_path, "raise RuntimeError('planted')")
    with notebook_page(tmp_path, "widgets.ipynb") as page:
        page.run_all()
        before = page.wait_for_alt(lambda alt: True)
        page.set_slider("height", 36)
        with pytest.raises(AssertionError, match="no such alt text"):
            page.wait_for_alt(lambda alt: alt != before, seconds=4)


@needs_browser
def test_an_error_on_the_page_is_seen(tmp_path):
    write(tmp_path, "pass")
    with pytest.raises(AssertionError, match="planted on the page"):
        with notebook_page(tmp_path, "widgets.ipynb") as page:
            page.page.evaluate("() => console.error('planted on the page')")
            page.page.wait_for_timeout(200)
