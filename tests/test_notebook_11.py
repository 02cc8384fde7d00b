"""Notebook 11's slider, driven in a real browser: another correlation redraws pairs and information."""

import pytest
from browser import needs_browser, series_page


def move_slider(page, index, rho, nats, seconds=20.0):
    """Another correlation: the figure must tell it and its information."""
    page.set_slider("rho", rho)
    alt = page.wait_for_alt(lambda alt: alt.startswith(f"Correlation {rho:.2f}: "), index, seconds)
    assert f"{nats} nats" in alt


@needs_browser
def test_slider_moves_pairs_and_information_and_planted_faults_are_seen(tmp_path):
    with series_page(tmp_path, "11") as page:
        page.run_all(seconds=600)
        (index,) = [place for place, alt in enumerate(page.alts()) if alt.startswith("Correlation 0.80")]
        move_slider(page, index, 0, "0.00")
        move_slider(page, index, 0.95, "1.16")
        page.run_code("kept, correlated = correlated, lambda rho: kept(0.95)")  # deaf to the slider
        with pytest.raises(AssertionError, match="no such alt text"):
            move_slider(page, index, 0.5, "0.14", seconds=3)
        page.run_code("correlated = lambda rho: (kept(rho)[0], kept(rho)[1].replace('0.22 nats', '0.51 nats'))")
        with pytest.raises(AssertionError, match="'0.22 nats' in "):
            move_slider(page, index, 0.6, "0.22")
        page.run_code("correlated = kept")
        move_slider(page, index, 0.5, "0.14")
