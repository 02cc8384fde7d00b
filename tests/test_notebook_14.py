"""Notebook 14's controls, driven in a real browser: another model and another width draw the bars of their FLOPs."""

import pytest
from browser import needs_browser, series_page

from pslib.evaluation.cost import images_of
from pslib.experiments.cost import build_models

PEOPLE, PROPOSALS = 20, 60  # as on the page


def wait_for_count(page, index, name, width, seconds=20.0):
    """The picture must come to tell this model and width, with the FLOPs that are counted here; returns them."""
    alt = page.wait_for_alt(lambda alt: alt.startswith(f"{name}, {width} px wide: "), index, seconds)
    built = build_models((name,), images_of([(width, 3 * width // 5)])[0], PEOPLE, PROPOSALS, "tiny")[0]
    assert alt.split(": ")[1].split(" GFLOPs")[0] == f"{built.flops / 1e9:.2f}"
    return built.flops


def press(page, key):
    """Move the slider of the width by a key."""
    page.page.locator(".widget-slider", has_text="width").locator(".noUi-handle").press(key)


@needs_browser
def test_model_and_width_redraw_the_bars_and_planted_faults_are_seen(tmp_path):
    with series_page(tmp_path, "14") as page:
        page.run_all(seconds=400)
        (index,) = [place for place, alt in enumerate(page.alts()) if alt.startswith("AlignPS, 320 px wide:")]
        page.choose("model", "NAE")
        middle = wait_for_count(page, index, "NAE", 320)
        press(page, "ArrowRight")
        wide = wait_for_count(page, index, "NAE", 480)
        assert middle < wide < 2.25 * middle  # its proposals do not grow with the image
        page.run_code("kept, parts_at = parts_at, lambda name, width: kept(name, 480)")  # deaf to the slider
        press(page, "ArrowLeft")
        with pytest.raises(AssertionError, match="no such alt text"):
            wait_for_count(page, index, "NAE", 320, seconds=3)
        nae_always = "lambda name, width: (kept('NAE', width)[0], kept('NAE', width)[1].replace('NAE', name))"
        page.run_code(f"parts_at = {nae_always}")
        page.choose("model", "AlignPS")
        with pytest.raises(AssertionError, match="assert '.*' == '.*'"):
            wait_for_count(page, index, "AlignPS", 320)
        page.run_code("parts_at = kept")
        page.choose("model", "NAE")
        assert wait_for_count(page, index, "NAE", 320) == middle
