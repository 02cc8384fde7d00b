"""Notebook 09's controls, driven in a real browser: another weight and another dropout redraw the features."""

from browser import needs_browser, series_page


@needs_browser
def test_weight_and_dropout_redraw_the_features(tmp_path):
    with series_page(tmp_path, "09") as page:
        page.run_all(seconds=400)
        index = [place for place, alt in enumerate(page.alts()) if alt.startswith("λ ")][0]
        strong = page.wait_for_alt(lambda alt: alt.startswith("λ 1, dropout 0.5: mean length"), index)
        page.choose("dropout", "none")
        page.wait_for_alt(lambda alt: alt.startswith("λ 1, no dropout: mean length"), index)
        page.page.locator(".widget-slider", has_text="lambda").locator(".noUi-handle").press("ArrowLeft")
        page.wait_for_alt(lambda alt: alt.startswith("λ 0, no dropout: mean length"), index)
        page.choose("dropout", "0.5")
        free = page.wait_for_alt(lambda alt: alt.startswith("λ 0, dropout 0.5: mean length"), index)
        length = [float(alt.split("mean length ")[1].split(",")[0]) for alt in (strong, free)]
        assert length[0] < length[1]  # dropout and center loss together have shrunk the features
