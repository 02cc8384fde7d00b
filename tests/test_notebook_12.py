"""Notebook 12's linked view in a real browser: a point clicked or reached by keys shows its crop, mistakes are said.

At the end each step that draws is repeated with a fault planted in its callback, and must then fail.
"""

import re

import pytest
from browser import needs_browser, series_page

WIDGET = "pslib.viz.linked_view.LinkedView"


def click_point(page, index, seconds=40.0):
    """Click a point: its crops must appear, and only its."""
    before = page.picture("linked-crops")
    page.page.locator(".pslib-point").nth(index).click(force=True)
    now = page.wait_for_picture("linked-crops", lambda alt: alt.startswith(f"Point {index}, person"), seconds)
    assert now[1] != before[1]
    page.page.locator("circle.chosen").wait_for(timeout=1000 * seconds)
    assert page.page.locator(".pslib-cloud line").count() == 4


def color_by(page, by, seconds=40.0):
    """Another coloring: the cloud must say so, and its points change."""
    fills = page.page.eval_on_selector_all(".pslib-point", "points => points.map(p => p.getAttribute('fill'))")
    page.choose("color by", by)
    page.page.locator(f".pslib-cloud[aria-label*='colored by {by}:']").wait_for(timeout=1000 * seconds)
    now = page.page.eval_on_selector_all(".pslib-point", "points => points.map(p => p.getAttribute('fill'))")
    assert len(now) == len(fills) and now != fills
    numbers_by(page, by, seconds)


def numbers_by(page, by, seconds=40.0, title=""):
    """The line beside the picture names model and coloring and holds its numbers, which the alt text tells, too."""
    line = page.page.locator(".pslib-linked-numbers", has_text=re.compile(rf"{re.escape(title)}, by {by}: "))
    line.wait_for(timeout=1000 * seconds)
    number = r"\d+\.\d\d"
    (told,) = re.findall(f"purity {number}, drawn {number}, w/b {number}; purity by chance {number}", line.inner_text())
    assert told in page.page.locator(".pslib-cloud").get_attribute("aria-label")


@needs_browser
def test_points_crops_colors_keys_mistakes_and_planted_faults(tmp_path):
    with series_page(tmp_path, "12") as page:
        page.run_all(seconds=600)
        first = page.wait_for_picture("linked-crops", lambda alt: alt.startswith("Point "))
        numbers_by(page, "identity", title="AlignPS, all three")
        other = 40 if not first[0].startswith("Point 40,") else 41
        click_point(page, other)
        color_by(page, "scale")
        page.wait_for_picture("linked-crops", lambda alt: alt.startswith(f"Point {other},"))  # who is chosen stays so
        color_by(page, "occlusion")
        page.choose("color by", "camera")
        page.wait_for_note("does not say which camera")
        color_by_keys(page)
        other_models(page)
        faults(page)


def color_by_keys(page):
    """Arrow keys go through the points of a person, spoken aloud; Enter chooses."""
    page.choose("color by", "identity")
    page.page.locator(".pslib-cloud[aria-label*='colored by identity:']").wait_for()
    cloud, spoken = page.page.locator(".pslib-cloud"), page.page.locator(".pslib-cloud ~ .pslib-spoken")
    page.page.locator(".pslib-cloud ~ .pslib-spoken", has_text="(chosen)").wait_for()
    first = spoken.inner_text()
    cloud.press("ArrowRight")
    assert spoken.inner_text() != first
    before = page.picture("linked-crops")
    cloud.press("Enter")
    page.wait_for_picture("linked-crops", lambda alt: alt != before[0])


def other_models(page):
    """Another model has other points; the PRW layout knows its cameras."""
    places = page.page.eval_on_selector_all(".pslib-point", "points => points.map(p => p.getAttribute('transform'))")
    options = page._widget("model", "widget-dropdown").locator("option").all_inner_texts()
    titles = [option.replace("\xa0", " ") for option in options]  # ipywidgets shows spaces that do not break
    assert {"ROI-AlignPS, ROI branch", "two-stage, RSS (E2E-PS)", "VGG, dropout, λ 0.032"} <= set(titles)
    page.choose("model", titles[1])
    page.page.locator(f".pslib-cloud[aria-label^='{titles[1]}, colored']").wait_for()
    numbers_by(page, "identity", title=titles[1])
    moved = page.page.eval_on_selector_all(".pslib-point", "points => points.map(p => p.getAttribute('transform'))")
    assert moved != places
    branches = next(title for title in titles if "a point for each branch" in title)
    page.choose("model", branches)
    page.page.locator(f".pslib-cloud[aria-label^='{branches}, colored']").wait_for()
    assert page.page.locator(".pslib-point").count() == 2 * len(moved)  # the one before has a point a box
    color_by(page, "branch")
    click_point(page, len(moved))  # the first point of the other branch
    page.choose("color by", "scale")
    prw = next(title for title in titles if "PRW" in title)
    page.choose("model", prw)
    page.page.locator(f".pslib-cloud[aria-label^='{prw}, colored']").wait_for()
    color_by(page, "camera")


def faults(page):
    """Each step fails once its callback does, and the widget says so."""
    steps = {"_choose": lambda: click_point(page, 3, seconds=3), "_redraw": lambda: color_by(page, "scale", seconds=3)}
    for name, step in steps.items():
        with page.fault(WIDGET, name):
            with pytest.raises(Exception, match="no such alt text|Timeout"):
                step()
            assert "RuntimeError: planted" in page.wait_for_note("the linked view failed")
    with page.fault("pslib.viz.linked_view", "cloud_numbers"):
        with pytest.raises(Exception, match="Timeout"):
            color_by(page, "occlusion", seconds=3)
        assert "RuntimeError: planted" in page.wait_for_note("the linked view failed")
    page.run_code(
        "from pslib.viz import linked_view\nkept = linked_view.cloud_numbers\n"
        "linked_view.cloud_numbers = lambda linked, by: kept(linked, 'identity')"
    )  # deaf to the coloring
    page.choose("color by", "identity")
    with pytest.raises(Exception, match="Timeout"):
        color_by(page, "scale", seconds=3)
    page.run_code("linked_view.cloud_numbers = kept")
    click_point(page, 4)
