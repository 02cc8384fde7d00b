"""Pictures of misalignment show what they are given, and rows of experiments say what is missing."""

import numpy as np
import torch
from matplotlib.figure import Figure

from pslib.evaluation.statistics import Interval
from pslib.experiments.lookup import LostRun, find_experiment
from pslib.experiments.rows import RecordedRow, recorded_rows
from pslib.viz import alignment

IMAGE = np.full((48, 64, 3), 90, np.uint8)


def words(fig: Figure) -> list[str]:
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def dots(ax, count: int) -> list[np.ndarray]:
    return [np.column_stack(line.get_data()) for line in ax.lines if len(line.get_xdata()) == count]


def test_taps_are_drawn_where_the_offsets_put_them():
    offset = np.zeros((9, 2))
    offset[4] = (1.5, -0.5)  # the middle tap: down, left
    plain, moved = alignment.taps_figure({"plain": np.zeros((9, 2)), "moved": offset}).axes
    fixed, where = dots(moved, 9)
    assert fixed[4].tolist() == [0, 0] and where[4].tolist() == [-0.5, 1.5]
    assert np.array_equal(*dots(plain, 9))


def test_sampling_points_are_drawn_once_a_place_and_path():
    places = torch.tensor([[10.0, 20.0], [40.0, 30.0]])
    points = {path: torch.rand(2, 81, 2) * 40 for path in ("C3", "C4")}
    fig = alignment.sampling_figure(IMAGE, np.array([[5, 5, 20, 40]]), places, points)
    assert len(fig.axes) == 2
    for ax, where in zip(fig.axes, points.values(), strict=True):
        drawn = dots(ax, 81)
        assert len(drawn) == 2
        np.testing.assert_allclose(drawn[0], where[0].numpy() - 0.5, atol=1e-5)
        marks = {line.get_marker() for line in ax.lines if len(line.get_xdata()) == 81}
        assert len(marks) == 2  # told apart without colour
    cut = alignment.sampling_figure(IMAGE, np.zeros((0, 4)), places, points, window=(0, 0, 32, 24))
    assert cut.axes[0].get_xlim() == (-0.5, 31.5)


def test_sizes_figure_parts_levels_and_names_them():
    matrix = np.array([[1.0, 0.25, 0.0], [0.25, 1.0, 0.6], [0.0, 0.6, 1.0]])
    fig = alignment.sizes_figure({"one": matrix, "three": matrix}, (30, 60, 90),
                                 {"one": ["P3"] * 3, "three": ["P3", "P3", "P5"]})  # fmt: skip
    assert words(fig).count(".6") == 4 and words(fig).count("1") == 6
    one, three = fig.axes[:2]
    assert len(one.lines) == 0 and [line.get_xdata()[0] for line in three.lines][:1] == [1.5]
    assert three.get_xticklabels()[2].get_text() == "90\nP5"


def test_level_story_reads_three_maps_or_one():
    fig = alignment.level_story_figure([IMAGE] * 3, (28, 70, 120), {"P3": 4, "P4": 8, "P5": 16})
    several, single = ([text.get_text() for text in ax.texts if "stride" in text.get_text()] for ax in fig.axes)
    assert len(several) == 3 and len(single) == 1 and "P3" in single[0]


def test_rows_figure_says_what_is_missing():
    full, few = RecordedRow(Interval(40.0, 35.0, 45.0), (0, 1, 2)), RecordedRow(Interval(20.0, 15.0, 25.0), (0, 1))
    rows = {"a": {"cuhk-sysu": full, "prw": few}, "b": {"cuhk-sysu": RecordedRow(None), "prw": full}}
    fig = alignment.rows_figure(rows)
    assert {"40.0", "20.0 (2 seeds)", "not recorded yet"} == set(words(fig))
    nothing = alignment.rows_figure({"a": {"cuhk-sysu": RecordedRow(None)}})
    assert words(nothing) == ["not recorded yet"]


def test_a_percentage_ends_at_a_hundred_and_its_numbers_stay_inside():
    values = {"a": Interval(98.0, 97.0, 99.0), "b": Interval(80.0, 79.0, 81.0), "c": Interval(100.0, 100.0, 100.0)}
    rows = {name: {"prw": RecordedRow(value, (0, 1, 2))} for name, value in values.items()}
    (ax,) = alignment.rows_figure(rows, "detection recall, per cent").axes
    assert ax.get_xlim()[1] == 100
    ax.figure.canvas.draw()
    room = ax.get_window_extent()
    assert all(room.x0 <= text.get_window_extent().x0 and text.get_window_extent().x1 <= room.x1 for text in ax.texts)
    assert [text.get_ha() for text in ax.texts] == ["right", "left", "right"]
    (ax,) = alignment.rows_figure(rows, "milliseconds").axes
    assert ax.get_xlim()[1] > 100 and {text.get_ha() for text in ax.texts} == {"left"}


def test_gains_have_signs_and_a_line_at_nothing():
    values = {"a": Interval(-1.0, -2.0, 0.5), "b": Interval(0.75, 0.25, 1.5)}
    rows = {name: {"prw": RecordedRow(value, (0, 1, 2))} for name, value in values.items()}
    (ax,) = alignment.rows_figure(rows, "search mAP minus that of none, points of per cent", gains=True).axes
    assert words(ax.figure) == ["-1.0", "+0.8"]
    assert ax.get_xlim()[0] < -2 and 1.5 < ax.get_xlim()[1] < 5
    assert [0, 0] in [list(line.get_xdata()) for line in ax.lines]
    below = {"a": {"prw": RecordedRow(Interval(-3.0, -4.0, -2.0), (0,))}}
    (ax,) = alignment.rows_figure(below, gains=True).axes
    assert ax.get_xlim()[0] < -4 and ax.get_xlim()[1] > 0, "the line at 0 must be in the picture"


def test_rows_figure_names_what_failed():
    lost = (LostRun("seed 2 failed: the loss is not finite", 2),)
    some, full = (RecordedRow(Interval(40.0, 35.0, 45.0), seeds, lost=lost) for seeds in ((0, 1), (0, 1, 3)))
    rows = {"a": {"prw": some}, "b": {"prw": full}, "c": {"prw": RecordedRow(None, lost=lost)}}
    assert words(alignment.rows_figure(rows)) == ["40.0 (2 seeds; failed: seed 2)", "40.0 (failed: seed 2)",
                                                  "failed: seed 2"]  # fmt: skip


def test_recorded_rows_follow_the_experiment_and_need_no_records(tmp_path, monkeypatch):
    rows = recorded_rows("alignps-table2")
    experiment = find_experiment("alignps-table2")
    assert list(rows) == list(experiment.rows)
    for sets in rows.values():
        assert list(sets) == list(experiment.kinds)
        for row in sets.values():
            assert (row.value is None) == (not row.seeds)
            if row.value is not None:
                assert row.value.low <= row.value.mean <= row.value.high
    monkeypatch.setattr("pslib.experiments.rows.runs_of", lambda recipe, read: ([], []))
    empty = recorded_rows("alignps-table1", what="recall")
    assert all(row == RecordedRow(None) for sets in empty.values() for row in sets.values())
