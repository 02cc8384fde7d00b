"""Figures of several panels: what has one name has one look, one row and a place in the legend; axes are named."""

import numpy as np
import pytest

from pslib.evaluation.statistics import Interval
from pslib.experiments.rows import RecordedRow
from pslib.viz import branches, curves, dropout, tasks
from pslib.viz.angles import meeting_figure


def lines(*labels, **options):
    return [curves.Line([0, 1], [place, place], label, **options) for place, label in enumerate(labels)]


def looks(fig):
    """One dict a panel, (colour, dashes) of each line by its label."""
    return [{line.get_label(): (line.get_color(), str(line.get_linestyle())) for line in ax.lines} for ax in fig.axes]


def words(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_a_label_keeps_its_look_over_panels():
    """As in notebook 04: the second panel leaves out the first line and has one of its own."""
    first = [*lines("OIM", "TOIM"), *lines("guessing", dim=True)]
    fig = curves.lines_figure({"OIM loss": first, "triplet loss": [*lines("TOIM"), *lines("margin", dim=True)]}, "step")
    left, right = looks(fig)
    assert right["TOIM"] == left["TOIM"] and len({*left.values(), *right.values()}) == 4
    (own,) = looks(curves.lines_figure({"OIM loss": first}, "step"))
    assert left == own  # the first panel looks as it does alone


def test_a_label_of_another_panel_takes_no_look_from_those_beside_it():
    """b and c have the look of their places, which are free there, until a panel shows them together with a."""
    apart = looks(curves.lines_figure({"1": lines("a", "x"), "2": lines("b", "y")}, "step"))
    assert list(apart[0].values()) == list(apart[1].values())
    for panels in (["a", "b", "ab"], ["ab", "bc", "ca"], ["b", "ca", "abc"]):
        shown = looks(curves.lines_figure({str(place): lines(*one) for place, one in enumerate(panels)}, "step"))
        for one, drawn in zip(panels, shown, strict=False):
            assert set(drawn) == set(one) and len(set(drawn.values())) == len(one)
            assert all(drawn[label] == other[label] for other in shown for label in one if label in other)


def test_lines_without_a_label_and_of_a_model_keep_theirs():
    """Unlabelled lines repeat those of the panel before, place by place; a model looks as it does everywhere."""
    fig = curves.lines_figure({"1": lines("a", "b", "c"), "2": lines("", "", "")}, "step")
    first, second = ([line.get_color() for line in ax.lines] for ax in fig.axes)
    assert first == second and len(set(first)) == 3
    model = lines("AlignPS", model="alignps")
    mixed = looks(curves.lines_figure({"1": [*model, *lines("a", "b")[1:]], "2": [*lines("b"), *model]}, "step"))
    assert mixed[0]["b"] == mixed[1]["b"] and mixed[0]["AlignPS"] == mixed[1]["AlignPS"]
    assert mixed[0]["AlignPS"][0] == curves.MODEL_STYLES["alignps"][0]


def test_one_legend_for_all_panels_only_where_it_tells_the_lines_apart():
    shared = curves.lines_figure({"1": lines("a"), "2": lines("b")}, "step")  # alike, and never beside each other
    assert not shared.legends and [words(ax.get_legend()) for ax in shared.axes] == [["a"], ["b"]]
    apart = curves.lines_figure({"1": lines("a", "b"), "2": lines("b")}, "step")
    assert words(apart.legends[0]) == ["a", "b"]


def test_measurements_of_one_label_keep_their_look_and_none_is_left_out():
    x = np.array([1.0, 2.0])
    one = {label: dropout.Measured(x, x, 0.1 * x, (x, x), label) for label in "abcde"}
    fig = dropout.measured_figure({"1": [one["a"], one["b"]], "2": [one["b"]]}, ["K", "K"], "y")
    left, right = looks(fig)
    assert right["b: formula"] == left["b: formula"] != left["a: formula"]
    crowded = dropout.measured_figure({"1": list(one.values())}, ["K"], "y")
    assert len(crowded.axes[0].get_legend().get_texts()) == 2 * 5


def points(**more):
    return [{"step": step, "between": 0.1, "error": 0.1, "detection": 0.5, "re-id": 0.2, "room": 0.3, **more}
            for step in (4, 40)]  # fmt: skip


def test_the_lowest_panel_of_every_column_names_its_axis():
    arm = dropout.Arm({name: np.ones((1, 2)) for name in "abc"})
    figures = {
        "step": curves.lines_figure({name: lines(name) for name in "abc"}, "step"),
        "cosine": meeting_figure({name: points() for name in "abcd"}),
        "weight": dropout.arms_figure({"no dropout": arm}, (0, 1)),
    }
    wanted = {"step": [False, True, True, False], "cosine": [False, True, True, True, False, False],
              "weight": [False, True, True, False]}  # fmt: skip
    for name, fig in figures.items():
        assert [bool(ax.get_xlabel()) for ax in fig.axes] == wanted[name]
    full = curves.lines_figure({name: lines(name) for name in "abcd"}, "step")
    assert [ax.get_xlabel() for ax in full.axes] == ["", "", "step", "step"]


def test_the_legend_of_the_gradients_names_what_only_a_later_panel_has():
    fig = meeting_figure({"1": points(), "2": points(single=0.0)})
    assert "detection with re-id, single batches" in words(fig.legends[0])


def test_rows_stand_at_one_height_and_under_their_names():
    value, none = Interval(40.0, 35.0, 45.0), RecordedRow(None)
    bar = RecordedRow(value, (0, 1, 2))
    fig = tasks.bars_figure({"1": {"a": bar, "b": none, "c": bar}, "2": {"c": bar}})
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == ["a", "b", "c"]
    assert [bar.get_y() + bar.get_height() / 2 for bar in fig.axes[1].patches] == pytest.approx([2])
    assert fig.axes[0].get_ylim() == (2.5, -0.5)
    measures = {"1": {"recall": {"baseline": value}}, "2": {"mAP": {"alignps": value}, "recall": {"alignps": value}}}
    fig = curves.intervals_figure(measures)
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == ["recall", "mAP"]
    assert [line.get_ydata()[0] for line in fig.axes[1].lines] == [1, 1, 0, 0]  # an interval and its dot each
    assert words(fig.axes[0].get_legend()) == ["baseline", "AlignPS"]


def test_circles_without_a_panel_are_no_empty_frames():
    still = branches.Forces(np.zeros(1), np.ones(1), np.zeros((1, 2)), np.zeros((1, 2)))
    assert not any(ax.axison for ax in branches.circle_figure({"one": still}, columns=3).axes)
