"""Pictures of two branches: places are the numbers', filled is the dense branch, words say what is drawn."""

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from pslib.training.two_views import ViewsRun
from pslib.viz import branches as draw
from pslib.viz.embeddings import by_person


def test_correlated_pairs_and_their_place_on_the_curve():
    rng = np.random.default_rng(0)
    a, noise = rng.normal(size=(2, 30))
    left, right = draw.correlated_figure(0.6, a, noise).axes
    np.testing.assert_allclose(left.collections[0].get_offsets(), np.column_stack([a, 0.6 * a + 0.8 * noise]))
    (dot,) = [line for line in right.lines if len(line.get_xdata()) == 1]
    assert dot.get_xdata()[0] == 0.6 and dot.get_ydata()[0] == pytest.approx(-math.log(1 - 0.36) / 2)
    assert "0.22 nats" in right.get_title() and "±1.60 instead of ±2" in left.get_title()
    assert draw.correlated_alt(0.0).startswith("Correlation 0.00: 0.00 nats")


def test_reading_marks_the_best_scale_and_the_truth():
    scales, bounds = np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.19, 0.1])
    left, right = draw.reading_figure(scales, bounds, np.array([-0.2, 0.1]), 0.19).axes
    assert [tuple(line.get_xydata()[0]) for line in left.lines if line.get_marker() == "o"] == [(1.0, 0.19)]
    for ax in (left, right):
        assert any(set(np.atleast_1d(line.get_ydata())) == {0.19} for line in ax.lines)


def test_forces_point_where_they_push_and_a_still_panel_has_no_arrow():
    still = np.zeros((2, 2))
    push = np.array([[0.0, 2.0], [0, 0]])
    moved = draw.Forces(np.array([0.0, 1.5]), np.array([0.3, 1.8]), push, still, "cosine +0.1")
    quiet = draw.Forces(np.array([0.0]), np.array([0.3]), still[:1], still[:1])
    fig = draw.circle_figure({"information": moved, "nothing": quiet}, columns=2)
    first, second = fig.axes
    (arrow,) = first.texts
    np.testing.assert_allclose(np.subtract(arrow.xy, arrow.xyann), [0, 0.4])  # the longest is as long as asked
    assert not second.texts and first.get_title() == "information\ncosine +0.1"
    assert filled(first) == [True, True, False, False]
    joined = [line.get_xydata() for line in first.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(joined, [[[np.cos(a), np.sin(a)] for a in ends] for ends in ((0.0, 0.3), (1.5, 1.8))])


def filled(ax):
    """Of each group of points whether it is drawn filled."""
    return [tuple(dots.get_facecolor()[0][:3]) != to_rgb("white") for dots in ax.collections]


def test_fig9_draws_the_first_half_filled_and_each_person_alike_in_both_branches():
    people = by_person(np.array([5, 9, 5]))
    points = np.arange(12.0).reshape(6, 2)
    panels = {"none": draw.TwoBranches(points, people, "probe 0.90"), "mi": draw.TwoBranches(points, people)}
    (ax, other) = draw.branches_figure(panels).axes
    assert ax.get_title() == "none\nprobe 0.90" and other.get_title() == "mi"
    places = [dots.get_offsets().tolist() for dots in ax.collections]
    assert places == [[[0, 1], [4, 5]], [[2, 3]], [[6, 7], [10, 11]], [[8, 9]]]
    assert filled(ax) == [True, True, False, False]
    edges = [tuple(dots.get_edgecolor()[0]) for dots in ax.collections]
    assert edges[0] == edges[2] != edges[1] == edges[3]


def test_views_have_a_line_a_seed_and_their_mean():
    at = np.array([10, 20])
    runs = [ViewsRun(2 / 3, 3.0, at, np.array([0.5, end]), np.array([0.1, end - 1]), 7) for end in (2.0, 3.0)]
    (ax,) = draw.views_figure({"two of three": runs}).axes
    ends = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(ends["what the branches share"], [0.5, 2.5])
    np.testing.assert_allclose(ends["what T claims of it"], [0.1, 1.5])
    assert "7 steps" in ax.get_title()
    assert "share 2.50 nats and T claims 1.50" in draw.views_alt({"two of three": runs})
