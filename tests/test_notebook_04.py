"""Notebook 04's controls, driven in a real browser: another moment and another temperature redraw table and queue."""

from browser import needs_browser, series_page


@needs_browser
def test_moment_and_temperature_redraw_table_and_queue(tmp_path):
    with series_page(tmp_path, "04") as page:
        page.run_all(seconds=300)
        (index,) = [place for place, alt in enumerate(page.alts()) if alt.startswith("Temperature 0.1, step")]
        page.set_slider("moment", 0)
        empty = page.wait_for_alt(lambda alt: alt.startswith("Temperature 0.1, step 0:"), index)
        assert "own row 0.00" in empty  # nothing has been written yet
        page.set_slider("moment", 1)
        page.wait_for_alt(lambda alt: alt.startswith("Temperature 0.1, step 10:") and "own row 0.00" not in alt, index)
        page.choose("temperature", "0.5")
        page.wait_for_alt(lambda alt: alt.startswith("Temperature 0.5, step 10:"), index)
