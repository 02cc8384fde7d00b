"""Pictures of notebook 09: what they write beside a cloud is its expected difference, and nothing is cut away."""

import numpy as np
import pytest

from pslib.viz import dropout as pictures


def cloud(keep: float) -> pictures.Cloud:
    """All eight masks of three units, two features."""
    rng = np.random.default_rng(0)
    weights, y = rng.normal(size=(2, 3)), rng.uniform(1, 2, 3)
    masks = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, 8).T
    chance = np.prod(np.where(masks == 1, keep, 1 - keep), axis=1)
    return pictures.Cloud((masks * y) @ weights.T, chance, keep * weights @ y)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_difference_of_a_cloud_is_the_formula(keep):
    rng = np.random.default_rng(0)
    weights, y = rng.normal(size=(2, 3)), rng.uniform(1, 2, 3)
    wanted = 2 * keep * (1 - keep) * np.sum(y**2 * np.square(weights).sum(axis=0))
    assert cloud(keep).difference == pytest.approx(wanted)


def test_clouds_share_axes_and_say_their_difference():
    panels = {"one": cloud(0.5), "two": cloud(0.9)}
    fig = pictures.clouds_figure(panels, [np.ones((3, 2)), np.zeros((1, 2))])
    assert fig.axes[0].get_xlim() == fig.axes[1].get_xlim()
    assert fig.axes[1].get_title() == f"two\nexpected difference {panels['two'].difference:.2f}"


def test_measured_values_get_logarithmic_axes_where_they_span_decades():
    x = np.array([1.0, 10.0, 100.0])
    flat = pictures.Measured(x, np.array([1.0, 1.1, 1.0]), 0.1 * np.ones(3), (x, np.ones(3)), "flat")
    fig = pictures.measured_figure({"left": [flat], "right": [flat, flat]}, ["K", "K"], "y")
    assert [ax.get_xscale() for ax in fig.axes] == ["log", "log"]
    assert [ax.get_yscale() for ax in fig.axes] == ["linear", "linear"]


def test_arms_have_every_measure_and_seed():
    lams = (0, 0.1, 1)
    arms = {name: pictures.Arm({"mAP": np.ones((2, 3)), "length": np.full((2, 3), 0.1), "ratio": np.ones((2, 3))})
            for name in list(pictures.ARM_STYLES)[:3]}  # fmt: skip
    fig = pictures.arms_figure(arms, lams, logarithmic=("length",))
    assert [ax.get_title() for ax in fig.axes[:3]] == ["mAP", "length", "ratio"]
    assert fig.axes[1].get_yscale() == "log" and not fig.axes[3].axison
    assert len(fig.axes[0].lines) == 3 * (2 + 1)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == list(arms)


def test_columns_are_sorted_by_the_last_epoch_and_share_a_scale():
    values = np.array([[1.0, 1.0, 1.0], [0.2, 3.0, 1.0]])
    fig = pictures.columns_figure({"a": values, "b": values / 3})
    first, second = (ax.images[0] for ax in fig.axes[:2])
    np.testing.assert_array_equal(np.asarray(first.get_array())[:, -1], [3.0, 1.0, 0.2])
    assert first.get_clim() == second.get_clim() == (0, 3)


def test_moments_have_common_axes_above_and_their_own_below():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 10

    def moment(size: float) -> pictures.Moment:
        return pictures.Moment(size * rng.normal(size=(60, 2)), labels, size * rng.normal(size=(2, 5, 2)), 0.3, 0.5,
                               80.0, 70.0, 0.1)  # fmt: skip

    moments = {"large": moment(10.0), "small": moment(0.01)}
    fig = pictures.moment_figure(moments, limit=20)
    above, below = fig.axes[:2], fig.axes[2:]
    assert {ax.get_xlim() for ax in above} == {(-20, 20)}
    assert below[1].get_xlim()[1] < 0.05 < below[0].get_xlim()[1]
    assert sorted(text.get_text() for text in below[0].texts) == [str(digit) for digit in range(10)]
    words = pictures.moment_alt(moments["small"])
    assert words.startswith("λ 0.3, dropout 0.5: mean length 0.01") and "80 Euclidean" in words
