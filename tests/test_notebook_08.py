"""Notebook 08's controls, driven in a real browser: another epoch and another lambda redraw features and centers."""

from browser import needs_browser, series_page


@needs_browser
def test_epoch_and_lambda_redraw_the_features(tmp_path):
    with series_page(tmp_path, "08") as page:
        page.run_all(seconds=300)
        (index,) = [place for place, alt in enumerate(page.alts()) if alt.startswith("Lambda 1, epoch")]
        page.set_slider("epoch", 0)
        untrained = page.wait_for_alt(lambda alt: alt.startswith("Lambda 1, epoch 0:"), index)
        page.set_slider("epoch", 1)
        page.wait_for_alt(lambda alt: alt.startswith("Lambda 1, epoch 1:") and alt[18:] != untrained[18:], index)
        page.choose("lambda", "10")
        page.wait_for_alt(lambda alt: alt.startswith("Lambda 10, epoch 1:"), index)
