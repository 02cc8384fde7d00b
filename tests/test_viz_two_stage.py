"""Pictures of two-stage search: what they draw is what anchors, ROI layers and the model compute."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import roi_pool

from pslib.errors import UserError
from pslib.models.two_stage import TwoStage, TwoStageConfig
from pslib.viz import two_stage as pictures
from pslib.viz.two_stage_model import two_stage_figure, two_stage_shapes

IMAGE = np.full((32, 48, 3), 120, np.uint8)


def texts(fig) -> str:
    return " | ".join(text.get_text() for ax in fig.axes for text in ax.texts)


def test_ranked_frames_tell_right_from_wrong_by_mark_and_word():
    box = (4, 4, 12, 28)
    fig = pictures.ranked_frames_figure(IMAGE, box, [(IMAGE, box, True, ", distance 1.0"), (IMAGE, box, False, "")])
    titles = [ax.get_title() for ax in fig.axes]
    assert titles == ["query", "✓ rank 1, distance 1.0\nsame person", "✗ rank 2\nother person"]
    assert [len(ax.patches) for ax in fig.axes] == [1, 1, 1]


def test_anchors_count_their_labels_and_draw_the_positive_ones():
    anchors = torch.tensor([[0.0, 0, 8, 16], [0, 0, 16, 32]]).expand(4, 6, 2, 4)
    labels = torch.zeros(4, 6, 2, dtype=torch.int64)
    labels[1, 2, 0], labels[3, 3, 1], labels[3, 3, 0] = 1, 1, -1
    fig = pictures.anchors_figure(IMAGE, anchors, labels, torch.tensor([[4.0, 4, 12, 28]]), (2, 3), 8)
    (ax,) = fig.axes
    assert len(ax.patches) == 5  # two positive anchors, the true box, the two anchors of the one cell
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["person: 2", "background (no mark): 45", "ignored: 1"]
    drawn = {line.get_label().split(":")[0]: len(line.get_xdata()) for line in ax.lines}
    assert drawn == {"person": 2, "background (no mark)": 0, "ignored": 0}  # a cell is drawn once, as its best anchor
    twice = anchors.repeat(1, 1, 2, 1), labels.repeat(1, 1, 2)
    fig = pictures.anchors_figure(IMAGE, *twice, torch.ones(1, 4), (2, 3), 8)
    assert len(fig.axes[0].patches) == 4 + 1 + 4


def test_objectness_has_a_panel_a_map_and_one_for_the_proposals():
    maps = {"before": np.zeros((4, 6)), "after": np.ones((4, 6))}
    boxes = torch.tensor([[4.0, 4, 12, 28], [20, 4, 30, 28]])
    fig = pictures.objectness_figure(IMAGE, maps, 8, boxes[:1], boxes)
    assert [ax.get_title() for ax in fig.axes[:3]] == ["before", "after", "dashed: the 2 best after NMS"]
    assert [len(ax.patches) for ax in fig.axes[:3]] == [1, 1, 3]


@pytest.mark.parametrize("roi", [(1.4, 0.7, 6.3, 6.2), (2.0, 2.0, 2.0, 3.0), (0.6, 1.2, 5.4, 3.9)])
def test_drawn_bins_hold_the_cells_that_roi_pooling_reads(roi):
    values = torch.randn(9, 10, generator=torch.Generator().manual_seed(0))
    size, shifts = 2, [0.0, 1.0]
    fig = pictures.roi_figure(values, roi, size, shifts, {"ROI pooling": [1, 2], "RoIAlign": [1, 2]})
    pooled = roi_pool(values[None, None], torch.tensor([[0.0, *roi]]), size)[0, 0]
    bins = fig.axes[0].patches[1:]
    assert len(bins) == size**2
    for patch, want in zip(bins, pooled.flatten(), strict=True):
        (x1, y1), (x2, y2) = (
            np.round(corner).astype(int)
            for corner in (
                np.array(patch.get_xy()) + 0.4,
                np.array(patch.get_xy()) + (patch.get_width(), patch.get_height()) - 0.4,
            )
        )
        assert values[y1 : y2 + 1, x1 : x2 + 1].max() == want


def test_rss_shows_own_class_background_and_drawn_classes_apart():
    chosen = np.zeros((2, 8), bool)
    chosen[0, [1, 4, 7]] = chosen[1, [0, 2, 7]] = True
    fig = pictures.rss_figure(chosen, [1, 2], {"full": np.full(6, 0.1), "sampled": np.full(6, 0.2)})
    own, background, drawn = fig.axes[0].lines
    assert list(own.get_xdata()) == [1, 2] and list(background.get_xdata()) == [7, 7]
    assert sorted(drawn.get_xdata()) == [0, 4]
    assert [line.get_label() for line in fig.axes[1].lines] == ["full", "sampled"]
    with pytest.raises(UserError, match="4 pushes cannot be told apart"):
        pictures.rss_figure(chosen, [1, 2], {name: np.full(6, 0.1) for name in "abcd"})


def test_shapes_are_those_of_one_training_step_and_the_model_stays_as_it_was():
    model = TwoStage(replace(TwoStageConfig(), rois_per_image=8), num_identities=5).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shapes = two_stage_shapes(model, (48, 64), [(8, 4, 20, 40)])
    size, dim = model.config.roi_size, model.config.embedding_dim
    assert shapes["image"] == (3, 48, 64) and shapes["trunk"][1:] == (6, 8)
    anchors = len(model.config.anchor_sizes) * len(model.config.anchor_ratios)
    assert shapes["objectness"] == (anchors, 6, 8)
    assert shapes["ROIs"] == (8, shapes["trunk"][0], size, size)
    assert shapes["feat"] == (8, dim) and shapes["classes"] == (8, 6) and shapes["true boxes"] == (1, 4)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_drawing_says_which_rows_each_loss_reads():
    config = TwoStageConfig()
    told = texts(two_stage_figure(TwoStage(config, 5)))
    assert (
        f"RSS\nall {config.rois_per_image} regions" in told
        and "center loss\nthe 2 true boxes" in told
        and "then averaged" in told
    )
    everything = texts(two_stage_figure(TwoStage(replace(config, center_boxes="all"), 5)))
    assert "center loss\nall regions on people" in everything
    vgg = texts(two_stage_figure(TwoStage(replace(config, backbone="tiny-vgg", identity_loss="oim"), 5)))
    assert "fc6, fc7" in vgg and "OIM" in vgg and "classes" not in vgg and "averaged" not in vgg
