"""The ledger as pictures: what is drawn is what the entries say."""

import numpy as np
import pytest

from pslib.evaluation.statistics import Interval, Verdict
from pslib.experiments.ledger import NOT_RECORDED, Entry
from pslib.experiments.registry import Claim
from pslib.viz.figures import figure_html
from pslib.viz.forest import ROW, VERDICT_STYLES, effect_in_words, forest_alt, forest_figure, tally, tally_figure

TITLES = {"cuhk-sysu": "left", "prw": "right"}


def entry(name, kind, word, interval=None, effect=None, experiment="alignps-fig6", measure="map"):
    claim = Claim(name, f"{name} holds.", {"a": 1, "b": -1}, measure=measure)
    return Entry(experiment, claim, kind, "tiny", Verdict(word, "because"), interval=interval, effect=effect)


@pytest.fixture
def entries():
    return [
        entry("one", "cuhk-sysu", "reproduced", Interval(5, 3, 7), 12.0),
        entry("one", "prw", NOT_RECORDED),
        entry("two", "cuhk-sysu", "not reproduced", Interval(-6, -9, -3), -0.5, "alignps-table1"),
        entry("two", "prw", "undecided", Interval(1, -2, 4), None, "alignps-table1"),
    ]


def test_tally_counts_by_experiment(entries):
    counts = tally(entries)
    assert list(counts) == ["alignps-fig6", "alignps-table1"]
    assert counts["alignps-fig6"] == {"reproduced": 1, NOT_RECORDED: 1}
    fig = tally_figure(entries)
    assert [text.get_text() for text in fig.axes[0].texts] == ["1"] * 4
    assert "alt" in figure_html(fig, "bars")


def test_forest_draws_intervals_margins_and_words(entries):
    fig = forest_figure(entries, TITLES)
    left, right = fig.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["alignps-fig6", "one", "alignps-table1", "two"]
    drawn = {tuple(line.get_xdata()) for line in left.lines}
    assert {(3, 7), (-9, -3)} <= drawn and (-2, 4) in {tuple(line.get_xdata()) for line in right.lines}
    assert all(patch.get_width() == 4 for patch in left.patches)  # margin 2 on both sides
    words = [text.get_text() for text in left.texts]
    assert "large" in words and "small, against" in words and "12" not in " ".join(words)
    assert NOT_RECORDED in [text.get_text() for text in right.texts]
    low, high = left.get_xlim()
    assert low < -9 and high > 7


def test_no_mark_reaches_the_words_at_the_right_end():
    """On a logarithmic axis a few per cent of room are no room: 34 points of 37 would touch the word beside them."""
    fig = forest_figure([entry("one", kind, "reproduced", Interval(34, 33.5, 34), 12.0) for kind in TITLES], TITLES)
    fig.draw_without_rendering()
    for ax in fig.axes:
        (word,) = [text for text in ax.texts if text.get_text() == "large"]
        mark = ax.lines[-1]
        radius = (mark.get_markersize() / 2 + mark.get_markeredgewidth()) * fig.dpi / 72
        end = ax.transData.transform((mark.get_xdata()[0], 0))[0] + radius
        assert end < word.get_window_extent().x0 - 2


def test_a_row_can_be_read_off_wherever_the_plot_is_cut(entries):
    fig = forest_figure(entries, TITLES)
    fig.draw_without_rendering()
    for ax in fig.axes:
        low, high = ax.get_xlim()
        shown = [f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in ax.get_xticks() if low <= tick <= high]
        assert len(shown) >= 3
        ticks = ax.xaxis.get_major_ticks()
        assert all(tick.label1.get_visible() and tick.label2.get_visible() for tick in ticks)  # below and above
        lines = [tick.gridline for tick in (*ticks, *ax.xaxis.get_minor_ticks())]
        assert len(lines) > len(ticks) and all(line.get_visible() for line in lines)
        assert ax.get_axisbelow() is True  # behind the marks
        numbers = {place: [text.get_text() for text in ax.texts if text.get_position()[1] == place
                           and text.get_position()[0] < high] for place in (0, 2)}  # fmt: skip
        assert numbers == {0: shown, 2: shown}  # both experiments' heading rows


def test_rows_are_whole_pixels_high_so_that_they_pack_well(entries):
    many = [entry(f"claim {number}", kind, "reproduced", Interval(5, 3, 7), 12.0) for number in range(25)
            for kind in TITLES]  # fmt: skip
    for some in (entries, many):
        fig = forest_figure(some, TITLES)
        fig.draw_without_rendering()
        places = fig.axes[0].transData.transform([(0, row) for row in range(4)])[:, 1]
        assert -np.diff(places) == pytest.approx([ROW] * 3, abs=1e-6) and ROW == round(ROW)
    packed = figure_html(fig, "rows")
    stretched = forest_figure(many, TITLES)
    stretched.set_size_inches(9.0, stretched.get_size_inches()[1] + 0.2)
    assert len(packed) < 0.9 * len(figure_html(stretched, "rows"))


def test_forest_of_nothing_recorded():
    nothing = [entry("one", kind, NOT_RECORDED) for kind in TITLES]
    assert figure_html(forest_figure(nothing, TITLES), forest_alt(nothing, TITLES))


def test_alt_text_names_the_claims(entries):
    alt = forest_alt(entries, TITLES)
    assert "left, reproduced (1): one" in alt and "right, undecided (1): two" in alt
    assert f"right, {NOT_RECORDED} (1)." in alt


def test_rows_say_what_they_are_points_of():
    grows = [entry("lead grows", "prw", "reproduced", Interval(5, 3, 7), measure="gallery growth")]
    fig = forest_figure(grows, {"prw": "right"})
    assert fig.axes[0].get_yticklabels()[1].get_text() == "lead grows (growth)"
    assert "points of per cent" in fig.axes[0].get_xlabel() and "lead grows (growth)" in forest_alt(grows, {"prw": ""})


def test_verdicts_differ_without_colour():
    marks = [(mark, hatch) for _, mark, hatch in VERDICT_STYLES.values()]
    assert len(set(marks)) == len(marks) == 4
    assert effect_in_words(2.999) == "medium"
