"""Notebook 10's widget in a real browser: another change, another person, and the picture says what moved."""

import re

import pytest
from browser import needs_browser, series_page

CHANGED = (r"Person (\d+), (.*?)\. Moved: dense branch (-?\d+) %, ROI branch (-?\d+) %, "
           r"both side by side (-?\d+) %\. Energy: ")  # fmt: skip


@needs_browser
def test_changes_and_people_are_looked_at_and_a_planted_fault_is_seen(tmp_path):
    with series_page(tmp_path, "10", {"PSLIB_CI": "1"}) as page:
        page.run_all(seconds=400)
        (index,) = [place for place, alt in enumerate(page.alts()) if re.match(CHANGED, alt)][:1]
        first = re.match(CHANGED, page.wait_for_alt(lambda alt: "as she was" in alt, index))
        assert [abs(int(number)) for number in first.groups()[2:]] == [0, 0, 0]
        page.choose("change", "half hidden")
        hidden = re.match(CHANGED, page.wait_for_alt(lambda alt: "half hidden" in alt, index))
        dense, roi, both = map(int, hidden.groups()[2:])
        assert hidden[1] == first[1] and min(dense, roi) > 0 and min(dense, roi) <= both <= max(dense, roi)
        other = (int(first[1]) + 1) % 3
        page.set_slider("person", other)
        page.wait_for_alt(lambda alt: alt.startswith(f"Person {other}, half hidden"), index)
        page.run_code("kept, look_at = look_at, lambda place, change: kept(FIRST, 'as she was')")
        page.choose("change", "another street")
        with pytest.raises(Exception, match="no such alt text"):
            page.wait_for_alt(lambda alt: "another street" in alt, index, seconds=3)
