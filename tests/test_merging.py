"""A convolution that enlarges products computes what one that multiplies enlarged maps does, gradients included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pslib.models import merging
from pslib.models.merging import MergingConv2d, concatenated, enlarged, fold_taps, project_concatenated
from pslib.models.neck import AlignedFeatureAggregation
from pslib.ops import DeformableConv2d, deform_conv2d, project_taps

# Twice the next, and not: 7 cells from 4.
SIZES = (((16, 24), (8, 12), (4, 6)), ((14, 7), (7, 4), (4, 2)), ((3, 5), (3, 5), (1, 1)))


def busy(module: nn.Module, seed: int = 0) -> nn.Module:
    """Offsets and kernels that matter, instead of a start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return module


def drawn_maps(sizes, widths=(3, 4, 2), dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(2, width, *size, generator=generator, dtype=dtype).requires_grad_()
        for width, size in zip(widths, sizes, strict=False)
    ]


def test_enlarging_copies_the_nearest_cell_by_hand():
    row = torch.tensor([[[[1.0, 2.0]]]])
    assert enlarged(row, (2, 4))[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
    assert enlarged(row, (1, 3))[0, 0].tolist() == [[1, 1, 2]]
    assert enlarged(row, (1, 2)) is row
    fine = torch.tensor([[[[5.0, 6.0, 7.0, 8.0]]]])
    assert concatenated([fine, row])[0, :, 0].tolist() == [[5, 6, 7, 8], [1, 1, 2, 2]]
    assert concatenated([row]) is row


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_products_of_parts_are_those_of_the_whole(data):
    count = data.draw(st.integers(1, 3))
    sizes = [(data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))) for _ in range(count)]
    maps = drawn_maps(sizes)
    whole = concatenated(maps)
    weight = torch.randn(5, whole.shape[1], 3, 3, dtype=torch.float64)
    rows = whole.permute(0, 2, 3, 1).reshape(-1, whole.shape[1])
    found = project_concatenated(maps, weight)
    assert found.shape == (2, *sizes[0], 45)
    torch.testing.assert_close(found.reshape(-1, 45), project_taps(rows, weight))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 3), (1, 3)])
def test_folded_products_are_an_ordinary_convolution(kernel):
    (x,) = drawn_maps(((6, 7),))
    weight = torch.randn(4, 3, *kernel, dtype=torch.float64, requires_grad=True)
    projected = project_taps(x.permute(0, 2, 3, 1).reshape(-1, 3), weight).reshape(2, 6, 7, -1)
    found = fold_taps(projected, kernel)
    whole = F.conv2d(x, weight, padding=(kernel[0] // 2, kernel[1] // 2))
    torch.testing.assert_close(found, whole)
    upstream = torch.randn_like(whole)
    for ours, theirs in zip(*(torch.autograd.grad(out, (x, weight), upstream) for out in (found, whole)), strict=True):
        torch.testing.assert_close(ours, theirs)


def values_and_gradients(compute, maps, layer):
    out = compute(*maps)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=out.dtype)
    inputs = [*maps, *layer.parameters()]
    return [out, *torch.autograd.grad(out, inputs, upstream)]


def by_the_whole(layer: DeformableConv2d):
    def compute(*maps):
        whole = concatenated(maps)
        offset, mask = layer.predict_offsets(whole)
        return deform_conv2d(whole, offset, layer.weight, padding=1, mask=mask)

    return compute


@pytest.mark.parametrize("sizes", SIZES)
def test_values_and_gradients_are_those_of_the_concatenated_maps(sizes):
    layer = busy(MergingConv2d(9, 5).double())
    maps = drawn_maps(sizes)
    pairs = zip(values_and_gradients(layer, maps, layer),
                values_and_gradients(by_the_whole(layer), maps, layer), strict=True)  # fmt: skip
    for ours, whole in pairs:
        torch.testing.assert_close(ours, whole)


@pytest.mark.parametrize("fault", [
    lambda right: lambda maps, weight: right(maps, weight).roll(1, dims=2),
    lambda right: lambda maps, weight: right(maps, weight.roll(1, dims=1)),
    lambda right: lambda maps, weight: right([2 * x - x.detach() for x in maps], weight),
])  # fmt: skip
def test_planted_faults_are_caught(monkeypatch, fault):
    monkeypatch.setattr(merging, "project_concatenated", fault(merging.project_concatenated))
    with pytest.raises(AssertionError):
        test_values_and_gradients_are_those_of_the_concatenated_maps(SIZES[0])


@pytest.mark.parametrize("levels", [("P3",), ("P4", "P5"), ("P3", "P4", "P5")])
@pytest.mark.parametrize("sizes", SIZES[:2])
def test_the_neck_reads_the_maps_that_merge_tells_of(levels, sizes):
    neck = busy(AlignedFeatureAggregation((3, 4, 2), 6, levels))
    maps = drawn_maps(sizes, dtype=torch.float32)
    merged = neck.merge(maps)
    for level, found in zip(levels, neck(maps), strict=True):
        torch.testing.assert_close(found, by_the_whole(neck.output[level])(merged[level]), rtol=1e-4, atol=1e-5)


def test_autocast_and_dtype_as_in_the_operator():
    layer = busy(MergingConv2d(9, 5))
    maps = drawn_maps(SIZES[0], dtype=torch.float32)
    plain = layer(*maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(*maps), plain)
        half = [x.bfloat16() for x in maps]
        out = layer(*half)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, by_the_whole(layer)(*half), rtol=0.02, atol=0.05)


def test_whoever_looks_at_operators_sees_the_one_that_the_layer_is():
    class Seen(TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.functions = []

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.functions.append(function)
            return function(*args, **(kwargs or {}))

    layer, maps = busy(MergingConv2d(9, 5).double()), drawn_maps(SIZES[0])
    with Seen() as seen:
        watched = layer(*maps)
    assert deform_conv2d in seen.functions
    torch.testing.assert_close(watched, layer(*maps))


def test_without_gradients_it_is_the_layer_as_defined(monkeypatch):
    """What prepared models are held against must not share their short cut."""
    layer, maps = busy(MergingConv2d(9, 5)), drawn_maps(SIZES[0], dtype=torch.float32)
    monkeypatch.setattr(merging, "project_concatenated", lambda maps, weight: pytest.fail("a short cut"))
    with torch.no_grad():
        assert torch.equal(layer(*maps), DeformableConv2d.forward(layer, concatenated(maps)))


def test_precision_is_that_of_the_maps():
    layer, maps = busy(MergingConv2d(9, 5)), drawn_maps(SIZES[0])
    out = layer(*maps)
    assert out.dtype == torch.float64
    whole = concatenated(maps)
    offset = F.conv2d(whole, layer.conv_offset.weight.double(), layer.conv_offset.bias.double(), padding=1)
    torch.testing.assert_close(out, deform_conv2d(whole, offset, layer.weight.double(), padding=1))


def test_an_empty_batch_and_channels_that_do_not_fit():
    layer = MergingConv2d(9, 5)
    none = [torch.zeros(0, width, *size) for width, size in zip((3, 4, 2), SIZES[1], strict=True)]
    out = layer(*none)
    assert out.shape == (0, 5, 14, 7)
    out.sum().backward()
    assert layer.weight.grad.eq(0).all() and layer.conv_offset.weight.grad.eq(0).all()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), pytest.raises(ValueError, match=r"maps of \[3, 4\] channels do not"):
            layer(*drawn_maps(SIZES[0])[:2])


def test_one_map_is_an_ordinary_deformable_convolution():
    layer = busy(MergingConv2d(3, 5).double())
    (only,) = drawn_maps(((4, 6),))
    assert torch.equal(layer(only), DeformableConv2d.forward(layer, only))
    assert F.mse_loss(layer(only), by_the_whole(layer)(only)) == 0
