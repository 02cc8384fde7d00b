"""Notebook 15 in a real browser: people are clicked, filters change, models are compared, mistakes are said.

One page serves all steps, since opening it takes longer than they do.  At the end each step that draws is repeated with
a fault planted in its callback, and must then fail.
"""

import numpy as np
import pytest
from browser import needs_browser, series_page
from PIL import Image

WIDGET = "pslib.viz.browser_widget.QueryBrowser"


def choose_thumbnail(page, index, seconds=60.0):
    """Choose another frame: scene and ranking must both change."""
    scene, ranking = page.picture("scene-picture"), page.picture("ranking")
    page.page.locator(".pslib-item").nth(index).click()
    new = page.wait_for_picture("ranking", lambda alt: alt != ranking[0], seconds)
    assert new[1] != ranking[1]
    assert page.wait_for_picture("scene-picture", lambda alt: alt != scene[0], seconds)[1] != scene[1]


def click_person(page, index, seconds=60.0):
    """Click a detected person: somebody else's ranking must appear."""
    before = page.picture("ranking")
    page.click_person(index)
    assert page.wait_for_picture("ranking", lambda alt: "box as detected" in alt and alt != before[0], seconds)
    assert page.picture("ranking")[1] != before[1]


def change_gallery(page, gallery, seconds=60.0):
    before = page.picture("ranking")
    page.choose("gallery", gallery)
    assert page.wait_for_picture("ranking", lambda alt: f"gallery {gallery}" in alt, seconds)[1] != before[1]


def compare_models(page, seconds=60.0):
    page.open_tab("two models")
    page.wait_for_picture("two-models", lambda alt: "by 2 models. alignps; ranks 1 to 5: " in alt
                          and "baseline; ranks 1 to 5: " in alt, seconds)  # fmt: skip


@needs_browser
def test_search_filters_models_mistakes_and_planted_faults(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (144, 224, 3), np.uint8)).save(tmp_path / "own.png")
    Image.new("L", (10_000, 5_000)).save(tmp_path / "huge.png")
    (tmp_path / "notes.txt").write_text("no picture")
    with series_page(tmp_path, "15") as page:
        page.run_all(seconds=900)
        page.wait_for_picture("ranking", lambda alt: "ranks 1 to 10: " in alt and "average precision" in alt)
        choose_thumbnail(page, 1)
        page.choose("boxes", "detected")
        page.wait_for_picture("scene-picture", lambda alt: "detected boxes" in alt)
        click_person(page, 0)
        change_gallery(page, "TestG50")
        growth = page.picture("growth")
        page.set_slider("list length", 3)
        page.wait_for_picture("growth", lambda alt: alt != growth[0] or alt.startswith("No curve"))
        compare_models(page)
        network(page)
        what_if_and_keys(page)
        mistakes(page, tmp_path)
        faults(page)


def network(page):
    """Where the network sees the query, in her own frame and in that of rank 1."""
    page.open_tab("inside the network")
    own = page.wait_for_picture("inside-the-network", lambda alt: "similarity to the query" in alt)
    page.choose("frame", "rank 1")
    assert page.wait_for_picture("inside-the-network", lambda alt: alt.startswith("rank 1 "))[1] != own[1]


def what_if_and_keys(page):
    """A detected box cannot be drawn again; an annotated person, chosen by arrow key and Enter, can."""
    page.open_tab("what if")
    page.wait_for_note("can be drawn again")
    page.choose("boxes", "annotated")
    page.wait_for_picture("scene-picture", lambda alt: "annotated boxes" in alt)
    page.key("ArrowRight", "Enter")
    page.wait_for_picture("what-if", lambda alt: "as she is; ranks 1 to 4: " in alt)
    page.open_tab("ranking")


def mistakes(page, folder):
    """Every mistake is one sentence."""
    page.click_scene(0.01, 0.99)
    page.wait_for_note("nobody is boxed at")
    page.set_slider("threshold", 1)
    page.choose("boxes", "detected")
    page.wait_for_picture("scene-picture", lambda alt: "with 0 detected boxes" in alt)
    page.click_scene(0.5, 0.5)
    page.wait_for_note("no box to click")
    page.set_slider("threshold", 0.2)
    page.type_text("or a box", "900, 900, 20, 40")
    page.wait_for_note("covers less than")
    page.choose("camera", "same")
    page.wait_for_note("does not know its cameras")
    page.choose("camera", "all")
    # The mistake had emptied the ranking; a callback still under way would take away the next sentence.
    page.wait_for_picture("ranking", lambda alt: "camera" not in alt)
    page.choose("choose by", "own image")
    page.wait_for_note("no image of your own")
    page.type_text("image file", str(folder / "notes.txt"))
    page.wait_for_note("is no image that can be read")
    page.type_text("image file", str(folder / "huge.png"))
    page.wait_for_note("50 megapixels")
    page.type_text("image file", str(folder / "own.png"))
    page.wait_for_picture("scene-picture", lambda alt: alt.startswith("own.png"))
    page.drag_box((0.2, 0.2), (0.4, 0.9))
    page.wait_for_picture("ranking", lambda alt: "a box in own.png" in alt and "nobody knows who this is" in alt)
    page.choose("choose by", "hardest first")
    page.wait_for_picture("ranking", lambda alt: "average precision" in alt)


def faults(page):
    """Each step fails once its callback does, and the widget says so."""
    page.choose("boxes", "detected")
    page.wait_for_picture("scene-picture", lambda alt: "detected boxes" in alt)
    steps = {"_choose": lambda: choose_thumbnail(page, 2, seconds=3), "_ask": lambda: click_person(page, 1, seconds=3),
             "_show_frame": lambda: change_gallery(page, "TestG200", seconds=3),
             "_draw": lambda: compare_models(page, seconds=3)}
    for name, step in steps.items():
        with page.fault(WIDGET, name):
            with pytest.raises(AssertionError, match="no such alt text"):
                step()
            assert "RuntimeError: planted" in page.wait_for_note("the browser failed")
    page.open_tab("ranking")
    compare_models(page)
