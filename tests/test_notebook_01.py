"""Notebook 01's controls, driven in a real browser: another factor and another amount redraw the person."""

from browser import needs_browser, series_page


def similarity(alt: str) -> float:
    return float(alt.split("similarity ")[1].split(" ")[0])


@needs_browser
def test_factor_and_amount_redraw_the_person(tmp_path):
    with series_page(tmp_path, "01") as page:
        page.run_all()
        (index,) = [place for place, alt in enumerate(page.alts()) if alt.startswith("evening light turned to 0.5")]
        page.choose("factor", "walking")
        walking = page.wait_for_alt(lambda alt: alt.startswith("walking turned to 0.5"), index)
        page.choose("factor", "size")
        page.wait_for_alt(lambda alt: alt.startswith("size turned to 0.5"), index)
        page.set_slider("turned by", 0)
        untouched = page.wait_for_alt(lambda alt: alt.startswith("size turned to 0.0"), index)
        assert similarity(untouched) == 1.0 >= similarity(walking)  # nothing changed, nothing lost
