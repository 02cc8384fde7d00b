"""Pictures of the bound: readings, truth and log(batch) are where the numbers say."""

import math

import numpy as np
import pytest

from pslib.training.gaussians import BoundRun
from pslib.viz import mutual as pictures


def run(nats, size, offset=0.0):
    """A run of 60 steps whose batches read the truth and ``offset`` more, spread by one nat to either side."""
    small = nats + offset + np.linspace(-1, 1, 101)
    return BoundRun(
        nats, size, np.linspace(0, nats, 60), np.array([20, 40, 60]), nats - np.array([3.0, 2.0, 1.0]), small
    )


def lines_of(ax):
    return {line.get_label(): np.asarray(line.get_xydata()) for line in ax.lines}


def test_rise_draws_batches_and_large_sample_against_truth_and_log_batch():
    runs = [run(1.0, 64), run(2.0, 64), run(8.0, 32)]
    fig = pictures.rise_figure(runs)
    assert len(fig.axes) == 3
    for ax, one in zip(fig.axes, runs, strict=True):
        drawn = lines_of(ax)
        np.testing.assert_allclose(drawn["each batch"], np.column_stack([np.arange(1, 61), one.batches]))
        np.testing.assert_allclose(drawn["large fresh sample"], np.column_stack([one.looks, one.fresh]))
        assert set(drawn["truth"][:, 1]) == {one.nats}
        assert set(drawn["log(batch)"][:, 1]) == {math.log(one.batch_size)}
        assert f"{one.nats:g} nat" in ax.get_title() and str(one.batch_size) in ax.get_title()
        assert len({(line.get_linestyle(), line.get_marker()) for line in ax.lines}) == 4  # told apart without colour
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "each batch",
        "large fresh sample",
        "truth",
        "log(batch)",
    ]


def test_sizes_have_a_line_each_with_bars_left_and_the_large_sample_right():
    runs = [run(nats, size, offset) for size, offset in ((64, 0.5), (16, 2.0)) for nats in (8.0, 1.0, 4.0)]
    fig = pictures.sizes_figure(runs)
    left, right = fig.axes
    assert [bars.get_label() for bars in left.containers] == ["batches of 16", "batches of 64"]
    for bars, offset in zip(left.containers, (2.0, 0.5), strict=True):
        line, _, (segments,) = bars.lines
        np.testing.assert_allclose(line.get_ydata(), np.array([1, 4, 8]) + offset)
        np.testing.assert_allclose(line.get_xdata(), [1, 4, 8], atol=0.2)
        lengths = [segment[1, 1] - segment[0, 1] for segment in segments.get_segments()]
        assert lengths == pytest.approx([1.6] * 3)  # eight tenths of two nats
    drawn = lines_of(right)
    for size in (16, 64):
        np.testing.assert_allclose(drawn[f"batches of {size}"], [[1, 0], [4, 3], [8, 7]])
        for ax in (left, right):
            assert any(set(line.get_xdata()) == {math.log(size)} for line in ax.lines)
    for ax in (left, right):
        assert any(np.array_equal(line.get_xydata(), [[0, 0], [8, 8]]) for line in ax.lines)
    assert {text.get_text() for text in fig.legends[0].get_texts()} == {
        "batches of 16", "batches of 64", "truth", "log(batch)"
    }  # fmt: skip
    styles = {(line.get_linestyle(), line.get_marker()) for line in right.lines if "batches" in line.get_label()}
    assert len(styles) == 2


def test_alt_texts_say_what_the_numbers_are():
    runs = [run(1.0, 64), run(8.0, 16, 2.0)]
    rise, sizes = pictures.rise_alt(runs), pictures.sizes_alt(runs)
    low, high = np.quantile(runs[1].batches[-50:], (0.1, 0.9))
    assert f"8 nats, log(batch) 2.8: the last batches say {low:.1f} to {high:.1f}, a large fresh sample 7.0" in rise
    assert "1 nat, log(batch) 4.2" in rise
    assert "batches of 16 (log 2.8), 8: 10.0, 7.0" in sizes and "batches of 64 (log 4.2), 1: 1.0, 0.0" in sizes
