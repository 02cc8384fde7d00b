"""Notebook 02's slider, driven in a real browser."""

from browser import needs_browser, series_page


@needs_browser
def test_slider_walks_down_the_ranked_list(tmp_path):
    with series_page(tmp_path, "02") as page:
        page.run_all()
        (index,) = [place for place, alt in enumerate(page.alts()) if alt.startswith("After 5 ranks")]
        page.set_slider("first k", 1)
        first = page.wait_for_alt(lambda alt: alt.startswith("After 1 ranks"), index)
        assert "precision 0.00" in first or "precision 1.00" in first
        page.set_slider("first k", 12)
        twelve = page.wait_for_alt(lambda alt: alt.startswith("After 12 ranks"), index)
        assert twelve.split("AP so far ")[1] >= first.split("AP so far ")[1]  # AP only grows down the list
