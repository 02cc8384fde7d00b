"""Notebook 06's sliders, driven in a real browser: another cell of P3 reads other places."""

from browser import needs_browser, series_page


@needs_browser
def test_sliders_move_over_the_picture(tmp_path):
    with series_page(tmp_path, "06", {"PSLIB_CI": "1"}) as page:
        page.run_all()
        (index,) = [place for place, alt in enumerate(page.alts()) if alt.startswith("Cell column")][:1]
        middle = page.wait_for_alt(lambda alt: "in the box of person" in alt, index)
        assert "of 81 in her box" in middle
        page.set_slider("column", 1)
        left = page.wait_for_alt(lambda alt: alt.startswith("Cell column 1, "), index)
        page.set_slider("row", 1)
        corner = page.wait_for_alt(lambda alt: alt.startswith("Cell column 1, row 1 "), index)
        assert "on the street" in corner and left != corner
