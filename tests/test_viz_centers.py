"""Pictures of center loss: points, centers and rulers are where the numbers say."""

import numpy as np
import pytest

from pslib.evaluation.statistics import Interval
from pslib.viz import centers as pictures


def cloud(scale: float = 1.0) -> pictures.Cloud:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    centers = 5 * scale * np.array([[1, 0], [0, 1], [-1, 0], [0, -1.0]])
    return pictures.Cloud(centers[labels] + scale * rng.normal(size=(120, 2)), labels, centers)


def test_reach_grows_with_the_features_and_ignores_a_single_far_one():
    assert cloud(3.0).reach == pytest.approx(3 * cloud(1.0).reach)
    far = cloud()
    far.features[0, 0] = 1000
    assert far.reach < 500


def test_step_moves_from_the_old_center_to_the_new_one():
    (ax,) = pictures.step_figure([(2, 0), (0, 2), (2, 2)], (0, 0), (0.5, 0.5)).axes
    places = {line.get_label(): np.asarray(line.get_xydata()) for line in ax.lines}
    np.testing.assert_allclose(places["their mean"], [[4 / 3, 4 / 3]])
    np.testing.assert_allclose(places["center after"], [[0.5, 0.5]])
    assert len(places["features"]) == 3


def test_pull_ties_every_feature_to_the_center_of_its_own_class():
    one = cloud()
    fig = pictures.pull_figure({"without": one, "with": cloud(0.5)}, classes=(0, 2), count=10)
    lines = fig.axes[0].lines
    assert len(lines) == 20
    for line in lines:
        start, end = line.get_xydata()
        place = int(np.flatnonzero((one.features == start).all(axis=1))[0])
        np.testing.assert_allclose(end, one.centers[one.labels[place]])
        assert one.labels[place] in (0, 2)
    assert [text.get_text() for text in fig.axes[0].texts] == ["0", "2"]


def test_one_ruler_for_all_above_and_each_its_own_below():
    clouds = {"wide": cloud(4.0), "narrow": cloud(1.0)}
    axes = pictures.features_figure(clouds).axes
    reaches = [ax.get_xlim()[1] for ax in axes]
    wide, narrow = (one.reach for one in clouds.values())
    assert reaches == pytest.approx([wide, wide, wide, narrow])
    assert [len(ax.collections[0].get_offsets()) for ax in axes] == [120] * 4


def test_rulers_of_one_moment_say_how_far_they_reach():
    one = cloud()
    left, right = pictures.rulers_figure(one, 40.0, "lambda 1, epoch 3").axes
    assert left.get_xlim() == (-40, 40) and right.get_xlim()[1] == pytest.approx(one.reach)
    assert "-40.0 to 40.0" in left.get_title()


def test_lambda_curve_has_weights_in_order_with_their_intervals_and_folds():
    values = {0.032: Interval(30.0, 28.0, 31.0), 0.0: Interval(20.0, 19.0, 22.0)}
    fig = pictures.lambda_figure(values, {0.032: [29.0, 31.0]}, chosen=0.032)
    (ax,) = fig.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "0.032"]
    assert list(ax.containers[0].lines[0].get_ydata()) == [20.0, 30.0]
    folds = next(line for line in ax.lines if line.get_label() == "one fold")
    assert list(folds.get_ydata()) == [29.0, 31.0]
    assert any(line.get_label() == "the paper's choice" for line in ax.lines)


def test_gallery_curves_differ_in_line_or_mark_and_stand_at_their_sizes():
    (ax,) = pictures.gallery_figure([50, 100, 500], {f"model {k}": [30.0 - k, 20.0, 10.0] for k in range(6)}).axes
    assert len({(line.get_linestyle(), line.get_marker(), line.get_color()) for line in ax.lines}) == 6
    assert list(ax.lines[5].get_ydata()) == [25.0, 20.0, 10.0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["50", "100", "500"]
