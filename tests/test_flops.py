"""FLOPs: layers counted by hand, one number for every way to compute a deformable convolution, nothing left out."""

import pytest
import torch
import torchvision
from stand_in_device import NEEDS_GPU
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torchvision.ops import RoIAlign, RoIPool

from pslib.errors import UserError
from pslib.evaluation.flops import _OneOperator, count_flops
from pslib.models.alignps import AlignPS, AlignPSConfig
from pslib.ops import DeformableConv2d, deform_conv2d


class One(nn.Module):
    """A layer with its other arguments, called as a model is: on a list of images."""

    def __init__(self, layer, *others):
        super().__init__()
        self.layer, self.others = layer, others

    def forward(self, images):
        return self.layer(torch.stack(list(images)), *self.others)


def total(layer, shape, *others):
    return count_flops(One(layer, *others), torch.zeros(shape)).total


def test_a_convolution_by_hand():
    """8 channels from 3, 3 x 3 taps, 10 x 12 cells, a multiply-add each."""
    assert total(nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 12)) == 2 * 10 * 12 * 3 * 9 * 8
    assert total(nn.Linear(7, 5), (4, 7)) == 2 * 4 * 7 * 5


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("modulated", [False, True])
def test_a_deformable_convolution_by_hand(stride, modulated):
    """An ordinary convolution for the offsets; then 8 FLOPs a tap and channel to interpolate, and the products."""
    layer = DeformableConv2d(4, 6, stride=stride, modulated=modulated)
    cells = 35 if stride == 1 else 3 * 4
    offsets = 2 * cells * 4 * 9 * (27 if modulated else 18)
    taps = 9 * cells
    assert total(layer, (1, 4, 5, 7)) == offsets + taps * (8 * 4 + 2 * 4 * 6)


DEVICES = ["meta", pytest.param("cuda", marks=NEEDS_GPU)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("channels", "out", "stride"), [(6, 4, 1), (4, 6, 1), (6, 4, 2)])
def test_the_cpu_counts_what_another_device_counts(device, channels, out, stride):
    """On the CPU pslib computes it in two other ways; off it, torchvision's operator runs and is counted."""
    cells = (2, 6 // stride, 8 // stride)
    given = [torch.rand(2, channels, 6, 8), torch.rand(cells[0], 18, *cells[1:]), torch.rand(out, channels, 3, 3)]

    def call(images):
        return deform_conv2d(torch.stack(list(images)), *(x.to(images[0].device) for x in given[1:]), None, stride, 1)

    own = count_flops(call, list(given[0])).total
    with FlopCounterMode(display=False) as counter:
        call(list(given[0].to(device)))
    assert own == counter.get_total_flops() == 9 * 2 * (48 // stride**2) * channels * (8 + 2 * out)


def test_roi_align_by_hand():
    """Two samples along each side of a bin, four corners each, and a division for the mean."""
    boxes = [torch.tensor([[0.0, 0, 9, 9], [1, 2, 5, 8], [3, 3, 9, 9]])]
    layer = RoIAlign(7, 0.5, sampling_ratio=2, aligned=True)
    assert total(layer, (1, 5, 10, 10), boxes) == 3 * 7 * 7 * 5 * (4 * 8 + 1)
    # As many samples as a bin has cells: 14 x 7 cells in 7 x 7 bins are 2 x 1.
    layer, boxes = RoIAlign(7, 0.5, sampling_ratio=0, aligned=True), [torch.tensor([[0.0, 0, 28, 14]])]
    assert total(layer, (1, 5, 20, 20), boxes) == 7 * 7 * 5 * (2 * 8 + 1)


def test_bilinear_resizing_by_hand():
    layer = nn.Upsample((4, 6), mode="bilinear")
    assert total(layer, (2, 3, 8, 8)) == 8 * 2 * 3 * 4 * 6


def test_roi_pooling_compares_each_cell_of_each_bin():
    boxes = torch.tensor([[0.0, 0, 30, 18], [10, 4, 44, 40], [3, 3, 4, 4]])
    want = 0
    for x1, y1, x2, y2 in (boxes / 4).round().int().tolist():
        for row in range(3):
            for column in range(3):
                tall, wide = (max(y2 - y1 + 1, 1)) / 3, (max(x2 - x1 + 1, 1)) / 3
                ys = range(y1 + int(row * tall), y1 + int(-(-(row + 1) * tall // 1)))
                xs = range(x1 + int(column * wide), x1 + int(-(-(column + 1) * wide // 1)))
                want += 2 * len([y for y in ys if y < 12]) * len([x for x in xs if x < 12])
    assert total(RoIPool(3, 0.25), (1, 2, 12, 12), [boxes]) == want


def test_a_missing_formula_is_caught(monkeypatch):
    """An operator without a formula would count as nothing: of another library, or ROIAlign with its own taken away."""
    boxes = [torch.tensor([[0.0, 0, 9, 9]])]
    with pytest.raises(UserError, match="ps_roi_align has no FLOP formula"):
        total(torchvision.ops.PSRoIAlign(1, 1.0, 1), (1, 4, 10, 10), boxes)
    monkeypatch.delitem(flop_registry, torch.ops.torchvision.roi_align)
    with pytest.raises(UserError, match="roi_align has no FLOP formula"):
        total(RoIAlign(7, 1.0, 2), (1, 4, 10, 10), boxes)
    with pytest.raises(UserError, match="embedding_bag has no FLOP formula"):
        count_flops(nn.EmbeddingBag(5, 3), torch.zeros(2, 4, dtype=torch.int64))


def test_zeros_of_the_right_shape_count_like_the_real_thing():
    """The same model counted while it really computes; and its parts make up the whole."""
    model, images = AlignPS(AlignPSConfig(), 7).eval(), [torch.rand(3, 64, 96)]
    counted = count_flops(model, images)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, _OneOperator():
        model(images)
    assert counted.total == counter.get_total_flops() == counted.by_module["AlignPS"]
    parts = ("AlignPS.backbone", "AlignPS.neck", "AlignPS.head")
    assert sum(counted.by_module[name] for name in parts) == counted.total
    assert set(counted.by_operator) == {"aten.convolution", "torchvision.deform_conv2d"}
