"""Notebook 14's controls, driven in a real browser: another model and another width draw other bars."""

from browser import needs_browser, series_page


@needs_browser
def test_model_and_width_redraw_the_bars(tmp_path):
    with series_page(tmp_path, "14") as page:
        page.run_all(seconds=400)
        (index,) = [place for place, alt in enumerate(page.alts()) if alt.startswith("AlignPS, 320 px wide:")]
        page.choose("model", "NAE")
        middle = page.wait_for_alt(lambda alt: alt.startswith("NAE, 320 px wide:"), index)
        page.page.locator(".widget-slider", has_text="width").locator(".noUi-handle").press("ArrowRight")
        wide = page.wait_for_alt(lambda alt: alt.startswith("NAE, 480 px wide:"), index)
        count = [float(alt.split(": ")[1].split(" GFLOPs")[0]) for alt in (middle, wide)]
        assert count[0] < count[1] < 2.25 * count[0]  # its proposals do not grow with the image
