"""Pictures of ROI-AlignPS: shapes are those of the model, and every mark stands for a number that was handed over."""

import numpy as np
import pytest
import torch
from toy_sets import SMALL

from pslib.evaluation.statistics import Interval
from pslib.models.roi_alignps import RoiAlignPS, RoiAlignPSConfig
from pslib.models.roi_branch import RoiBranchConfig
from pslib.viz import roi_alignps as draw
from pslib.viz.roi_alignps_model import roi_alignps_figure, roi_alignps_shapes


def build(**switches):
    torch.manual_seed(0)
    return RoiAlignPS(RoiAlignPSConfig(dense=SMALL, roi=RoiBranchConfig(dim=20, queue_size=8), **switches), 6)


def texts(fig) -> str:
    return " | ".join(text.get_text() for ax in fig.axes for text in ax.texts)


def test_shapes_are_those_of_the_model_which_is_left_alone():
    model = build()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    shapes = roi_alignps_shapes(model, (64, 96), [(8, 8, 24, 56)] * 3)
    assert shapes["image"] == (3, 64, 96) and shapes["C4"][1:] == (8, 12)
    trunk, last = model.alignps.backbone.channels[-2:]
    assert shapes["regions"] == (3, trunk, 7, 7) and shapes["last stage"][:2] == (3, last)
    assert shapes["dense"] == (3, SMALL.channels) and shapes["roi"] == (3, 20)
    assert shapes["both"] == (3, SMALL.channels + 20)
    assert shapes["training regions"][0] <= model.config.roi.rois_per_image and shapes["proposals"][1] == 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and model.training


def test_architecture_draws_the_rpn_only_where_there_is_one():
    with_rpn, without = texts(roi_alignps_figure(build())), texts(roi_alignps_figure(build(rpn=False)))
    assert "RPN" in with_rpn and "RPN" not in without
    assert "the embeddings: P3 itself" in without and "which cell" in without  # they do not pass through the head
    assert f"2 x {SMALL.channels + 20}" in with_rpn


def test_energy_is_dark_where_it_lies():
    y, x = np.mgrid[:40, :60]
    energy = np.exp(-((y - 10) ** 2 + (x - 20) ** 2) / 8.0)
    picture, points = np.full((40, 60, 3), 200, np.uint8), {"roi": np.array([[16.0, 6.0]])}
    fig = draw.energy_figure(picture, (15, 5, 25, 30), {"dense": energy, "roi": energy}, points, margin=8)
    assert len(fig.axes) == 4
    shown = np.asarray(fig.axes[2].images[0].get_array()).sum(axis=2)
    assert np.argwhere(shown == shown.min()).mean(axis=0).tolist() == [10, 20]
    assert fig.axes[1].lines[0].get_xydata().tolist() == [[15.5, 5.5]]
    without = draw.energy_figure(np.zeros((40, 60, 3), np.uint8), (15, 5, 25, 30), {"dense": energy})
    assert len(without.axes) == 2


def test_branches_are_told_apart_by_color_mark_and_line():
    for place in range(3):
        assert len({style[place] for style in draw.BRANCHES.values()}) == 3
    row = {read: Interval(number, number - 1, number + 1) for number, read in enumerate(draw.BRANCHES)}
    fig = draw.branches_figure({"moved": {"a": row, "b": row}, "found": {"a": row, "b": row}})
    marks = [line for line in fig.axes[0].lines if line.get_marker() in ("o", "s", "^")]
    assert [line.get_xdata()[0] for line in marks] == [0, 1, 2, 0, 1, 2]
    assert len({float(line.get_ydata()[0]) for line in marks}) == 6
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == ["a", "b"]


def test_window_stays_in_the_picture():
    assert draw.window_around((200, 100, 224, 144), (144, 224)) == (172, 72, 224, 144)
    with pytest.raises(KeyError):
        draw.branches_figure({"moved": {"a": {"third branch": Interval(0, 0, 0)}}})
