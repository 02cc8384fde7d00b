"""Notebook 11's slider, driven in a real browser: another correlation redraws pairs and information."""

from browser import needs_browser, series_page


@needs_browser
def test_slider_moves_pairs_and_information(tmp_path):
    with series_page(tmp_path, "11") as page:
        page.run_all(seconds=600)
        (index,) = [place for place, alt in enumerate(page.alts()) if alt.startswith("Correlation 0.80")]
        page.set_slider("rho", 0)
        assert "0.00 nats" in page.wait_for_alt(lambda alt: alt.startswith("Correlation 0.00"), index)
        page.set_slider("rho", 0.95)
        assert "1.16 nats" in page.wait_for_alt(lambda alt: alt.startswith("Correlation 0.95"), index)
