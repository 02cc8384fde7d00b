"""Deformable convolution against torchvision's, a plain loop, finite differences and values worked by hand."""

import itertools
import math

import pytest
import torch
import torchvision.ops
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stand_in_device import NEEDS_GPU

import pslib.ops
from pslib.bench import bench_deform_conv, run
from pslib.ops import DeformableConv2d, deform_conv2d

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-8}


def make_case(
    seed,
    batch,
    channels,
    size,
    out_channels,
    kernel,
    stride,
    padding,
    dilation,
    groups,
    offset_groups,
    modulated,
    dtype,
):
    """Arguments of one call.  A fifth of the offsets are whole numbers, a twentieth lie far outside the map."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    taps = kernel[0] * kernel[1]
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    if min(out) < 1:
        return None
    offset = 3 * normal(batch, 2 * offset_groups * taps, *out)
    kind = torch.rand(offset.shape, generator=generator)
    offset = torch.where(kind < 0.2, offset.round(), torch.where(kind > 0.95, 30 * offset, offset))
    mask = normal(batch, offset_groups * taps, *out).sigmoid() if modulated else None
    tensors = {
        "input": normal(batch, channels, *size),
        "offset": offset,
        "weight": normal(out_channels, channels // groups, *kernel) / math.sqrt(taps * channels / groups),
        "bias": normal(out_channels),
        "mask": mask,
    }
    return tensors, {"stride": stride, "padding": padding, "dilation": dilation}, normal(batch, out_channels, *out)


def values_and_gradients(operator, tensors, geometry, upstream):
    leaves = {name: None if t is None else t.clone().requires_grad_() for name, t in tensors.items()}
    out = operator(**leaves, **geometry)
    out.backward(upstream)
    return {"out": out.detach(), **{name: leaf.grad for name, leaf in leaves.items() if leaf is not None}}


def assert_same(ours, rival, tolerance):
    assert ours.keys() == rival.keys()
    for name in ours:
        assert ours[name].shape == rival[name].shape and ours[name].dtype == rival[name].dtype, name
        torch.testing.assert_close(ours[name], rival[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: n + m)


def differs_from_torchvision(case, dtype=torch.float64):
    try:
        assert_same(
            values_and_gradients(deform_conv2d, *case),
            values_and_gradients(torchvision.ops.deform_conv2d, *case),
            TOLERANCE[dtype],
        )
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("modulated", [False, True])
def test_equals_torchvision_over_the_grid_of_options(modulated, dtype):
    options = itertools.product(
        [(1, 1), (2, 1)], [(0, 0), (2, 1)], [(1, 1), (2, 2)], [1, 2], [1, 2, 4], [(3, 3), (1, 2)]
    )
    checked = 0
    for seed, (stride, padding, dilation, groups, offset_groups, kernel) in enumerate(options):
        case = make_case(
            seed, 2, 8, (5, 7), 4, kernel, stride, padding, dilation, groups, offset_groups, modulated, dtype
        )
        assert not differs_from_torchvision(case, dtype), (stride, padding, dilation, groups, offset_groups, kernel)
        checked += 1
    assert checked == 96


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_equals_torchvision_on_drawn_cases(data):
    draw = data.draw
    pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    groups, offset_groups = draw(st.sampled_from([1, 1, 2, 3])), draw(st.sampled_from([1, 1, 2, 3]))
    case = make_case(
        draw(st.integers(0, 2**31)),
        draw(st.integers(1, 3)),
        6 * draw(st.integers(1, 2)),
        draw(pair(1, 9)),
        6 * draw(st.integers(1, 3)),
        draw(pair(1, 4)),
        draw(pair(1, 3)),
        draw(pair(0, 3)),
        draw(pair(1, 2)),
        groups,
        offset_groups,
        draw(st.booleans()),
        torch.float64,
    )
    assume(case is not None)
    assert not differs_from_torchvision(case)


@pytest.mark.parametrize("offset_groups", [1, 2])
def test_batch_of_none_has_zero_gradients(offset_groups):
    case = make_case(0, 0, 4, (5, 4), 3, (3, 3), (1, 1), (1, 1), (1, 1), 1, offset_groups, True, torch.float32)
    ours = values_and_gradients(deform_conv2d, *case)
    assert ours["out"].shape == (0, 3, 5, 4)
    assert (
        ours["weight"].eq(0).all()
        and ours["bias"].eq(0).all()
        and ours["offset"].shape == (0, 18 * offset_groups, 5, 4)
    )


@pytest.mark.parametrize("out_channels", [2, 8], ids=["project first", "gather first"])
def test_gradients_are_those_of_finite_differences(out_channels):
    tensors, geometry, _ = make_case(
        3, 2, 4, (4, 5), out_channels, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True, torch.float64
    )
    # Away from whole numbers, where the interpolation has a corner and no derivative to compare with.
    tensors["offset"] = (
        tensors["offset"].clamp(-6, 6).floor()
        + 0.2
        + 0.6 * torch.rand(tensors["offset"].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    leaves = [tensors[name].requires_grad_() for name in ("input", "offset", "weight", "bias", "mask")]

    def operator(image, offset, weight, bias, mask):
        return deform_conv2d(image, offset, weight, bias, mask=mask, **geometry)

    assert torch.autograd.gradcheck(operator, leaves)


def naive_deform_conv2d(image, offset, weight, stride, padding, dilation, mask):
    """The definition, value by value: one group, one offset group, no bias."""
    batch, channels, height, width = image.shape
    out_channels, _, tall, wide = weight.shape
    out = torch.zeros(batch, out_channels, *offset.shape[-2:], dtype=image.dtype)

    def read(b, c, y, x):
        value = 0.0
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    value += (1 - abs(y - row)) * (1 - abs(x - column)) * image[b, c, row, column].item()
        return value

    for b, o, i, j, c, u, v in itertools.product(
        *map(range, (batch, out_channels, *offset.shape[-2:], channels, tall, wide))
    ):
        tap = u * wide + v
        y = i * stride[0] - padding[0] + u * dilation[0] + offset[b, 2 * tap, i, j].item()
        x = j * stride[1] - padding[1] + v * dilation[1] + offset[b, 2 * tap + 1, i, j].item()
        out[b, o, i, j] += weight[o, c, u, v] * mask[b, tap, i, j] * read(b, c, y, x)
    return out


@pytest.mark.parametrize("stride, out_channels", [((1, 1), 2), ((2, 1), 3)])
def test_equals_the_definition_written_as_loops(stride, out_channels):
    tensors, geometry, _ = make_case(
        5, 2, 2, (4, 3), out_channels, (3, 2), stride, (1, 0), (1, 2), 1, 1, True, torch.float64
    )
    ours = deform_conv2d(tensors["input"], tensors["offset"], tensors["weight"], mask=tensors["mask"], **geometry)
    naive = naive_deform_conv2d(
        tensors["input"], tensors["offset"], tensors["weight"], *geometry.values(), tensors["mask"]
    )
    torch.testing.assert_close(ours, naive)


def test_zero_offsets_make_an_ordinary_convolution():
    image, weight = torch.randn(2, 6, 9, 5), torch.randn(4, 3, 3, 3)
    ours = deform_conv2d(image, torch.zeros(2, 18, 5, 3), weight, stride=2, padding=1)
    torch.testing.assert_close(ours, torch.conv2d(image, weight, stride=2, padding=1, groups=2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "offset, value",
    [(-1.0, 0.0), (-0.75, 0.25), (0.0, 1.0), (0.5, 1.5), (1.0, 2.0), (1.75, 0.5), (2.0, 0.0), (7.0, 0.0), (-1e30, 0.0)],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_border_convention_by_hand(axis, offset, value):
    """A map of two cells, 1 and 2, read at `offset` cells from the first: it fades to zero one cell outside."""
    image = torch.tensor([1.0, 2.0]).reshape(1, 1, *((2, 1), (1, 2))[axis])
    move = torch.zeros(1, 2, *image.shape[-2:])
    move[0, axis] = offset
    assert deform_conv2d(image, move, torch.ones(1, 1, 1, 1))[0, 0, 0, 0] == value


def test_a_diverged_offset_gives_nan_and_no_crash():
    offset = torch.zeros(1, 18, 4, 4)
    offset[0, 0, 0, 0] = float("nan")
    out = deform_conv2d(torch.ones(1, 2, 4, 4), offset, torch.ones(2, 2, 3, 3), padding=1)
    assert out[0, :, 0, 0].isnan().all() and int(out.isnan().sum()) == 2


def test_half_precision_and_autocast_compute_in_float32():
    tensors, geometry, _ = make_case(1, 1, 4, (6, 6), 3, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True, torch.float32)
    exact = deform_conv2d(**tensors, **geometry)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(deform_conv2d(**tensors, **geometry), exact)
    half = deform_conv2d(**{**tensors, "input": tensors["input"].bfloat16()}, **geometry)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"offset": torch.zeros(1, 18, 3, 4)}, "offset is"),
        ({"offset": torch.zeros(1, 8, 4, 4)}, "offset channels"),
        ({"mask": torch.zeros(1, 8, 4, 4)}, "mask is"),
        ({"weight": torch.zeros(2, 3, 3, 3)}, "does not fit an input of 4 channels"),
        ({"padding": 0, "dilation": 3}, "output would be of size"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    arguments = {
        "input": torch.zeros(1, 4, 4, 4),
        "offset": torch.zeros(1, 18, 4, 4),
        "weight": torch.zeros(2, 4, 3, 3),
    }
    with pytest.raises(ValueError, match=message):
        deform_conv2d(**{**arguments, "padding": 1, **change})


def swapped_axes(genuine):
    def corners(offset, groups, *rest):
        swapped = offset.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)
        return genuine(swapped, groups, *rest)

    return corners


def wrong_sign(genuine):
    return lambda offset, *rest: genuine(-offset, *rest)


def lost_corner(genuine):
    def corners(*arguments):
        index, share = genuine(*arguments)
        return index, share * torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=share.dtype)

    return corners


def constant_weights(genuine):
    def corners(*arguments):
        index, share = genuine(*arguments)
        return index, share.detach() + 0 * share

    return corners


@pytest.mark.parametrize("fault", [swapped_axes, wrong_sign, lost_corner, constant_weights])
def test_planted_faults_are_caught(monkeypatch, fault):
    case = make_case(7, 1, 4, (5, 6), 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, False, torch.float64)
    assert not differs_from_torchvision(case)
    monkeypatch.setattr(pslib.ops, "_corners", fault(pslib.ops._corners))
    assert differs_from_torchvision(case)


CASE = (11, 2, 6, (5, 7), 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, True, torch.float64)


def test_gradients_of_any_subset_of_the_inputs():
    tensors, geometry, upstream = make_case(*CASE)
    whole = values_and_gradients(deform_conv2d, tensors, geometry, upstream)
    for wanted in itertools.chain.from_iterable(itertools.combinations(tensors, n) for n in (1, 2)):
        leaves = {name: t.clone().requires_grad_(name in wanted) for name, t in tensors.items()}
        deform_conv2d(**leaves, **geometry).backward(upstream)
        for name, leaf in leaves.items():
            assert (leaf.grad is None) is (name not in wanted)
            if name in wanted:
                torch.testing.assert_close(leaf.grad, whole[name])


def test_backward_may_be_asked_for_twice_but_not_through_itself():
    tensors, geometry, upstream = make_case(*CASE)
    leaves = {name: t.clone().requires_grad_() for name, t in tensors.items()}
    out = deform_conv2d(**leaves, **geometry)
    first = torch.autograd.grad(out, leaves["offset"], upstream, retain_graph=True)
    second = torch.autograd.grad(out, leaves["offset"], upstream, retain_graph=True)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    (again,) = torch.autograd.grad(out, leaves["input"], upstream.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        again.sum().backward()


@settings(deadline=None)
@given(st.data())
def test_sampled_products_need_no_order_and_no_different_columns(data):
    """PyTorch promises its sampled product for sorted, different columns only; ours are neither."""
    outputs, entries, rows, width = (data.draw(st.integers(1, 6)) for _ in range(4))
    index = data.draw(st.lists(st.integers(0, rows - 1), min_size=outputs * entries, max_size=outputs * entries))
    kind = data.draw(st.sampled_from((torch.int32, torch.int64)))
    index, bounds = torch.tensor(index, dtype=kind), torch.arange(0, outputs * entries + 1, entries, dtype=kind)
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, width, generator=generator, dtype=torch.float64) for n in (outputs, rows))
    found = pslib.ops._sampled_products(left, right, index, bounds)
    expected = [float(left[n // entries] @ right[row]) for n, row in enumerate(index.tolist())]
    assert found.tolist() == pytest.approx(expected)


def test_wide_indices_compute_the_same(monkeypatch):
    case = make_case(*CASE)
    narrow = values_and_gradients(deform_conv2d, *case)
    monkeypatch.setattr(pslib.ops, "_index_dtype", lambda count: torch.int64)
    assert_same(values_and_gradients(deform_conv2d, *case), narrow, 0)
    monkeypatch.undo()
    assert pslib.ops._index_dtype(2**31 - 1) == torch.int32 and pslib.ops._index_dtype(2**31) == torch.int64


@pytest.mark.parametrize("modulated", [False, True])
def test_layer_starts_as_an_ordinary_convolution(modulated):
    torch.manual_seed(0)
    layer, image = DeformableConv2d(4, 3, modulated=modulated, bias=True), torch.randn(2, 4, 7, 6)
    plain = torch.conv2d(image, layer.weight * (0.5 if modulated else 1.0), layer.bias, padding=1)
    torch.testing.assert_close(layer(image), plain, rtol=1e-5, atol=1e-5)
    layer(image).square().sum().backward()
    assert layer.conv_offset.weight.grad.abs().sum() > 0, "the offsets must be able to leave zero"


def test_layer_stride_random_offsets_and_autocast():
    torch.manual_seed(0)
    layer, image = DeformableConv2d(4, 3, stride=2, offset_init="xavier"), torch.randn(2, 4, 7, 6)
    offset, mask = layer.predict_offsets(image)
    assert mask is None and offset.abs().max() > 0
    out = layer(image)
    assert out.shape == (2, 3, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(image), out)
    with pytest.raises(ValueError, match="offset_init"):
        DeformableConv2d(4, 3, offset_init="random")


@NEEDS_GPU
@pytest.mark.parametrize("modulated", [False, True])
def test_cpu_and_gpu_agree(modulated):
    tensors, geometry, upstream = make_case(
        2, 2, 8, (9, 7), 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, 1, modulated, torch.float32
    )
    ours = values_and_gradients(deform_conv2d, tensors, geometry, upstream)
    on_gpu = {name: None if t is None else t.cuda() for name, t in tensors.items()}
    rival = values_and_gradients(deform_conv2d, on_gpu, geometry, upstream.cuda())
    assert_same(ours, {name: t.cpu() for name, t in rival.items()}, 1e-3)


def test_bench_is_faster_and_prints_ratios(monkeypatch, capsys):
    small = bench_deform_conv(input_shape=(2, 96, 12, 16), out_channels=32, repeats=2)
    # The bar (10 times) is for the bench itself, at its size, on a quiet machine.
    assert small.both_ratio > 2
    monkeypatch.setattr("pslib.bench.bench_deform_conv", lambda: small)
    monkeypatch.setattr("pslib.evaluation.benchmark.benchmark_evaluator", lambda: print("evaluator too"))
    monkeypatch.setattr("pslib.evaluation.benchmark.benchmark_scenes", lambda: print("scenes too"))
    monkeypatch.setattr("pslib.bench._print_center_loss", lambda: print("center loss too"))
    run("all")
    printed = capsys.readouterr().out
    assert all(what in printed for what in ("evaluator too", "scenes too", "center loss too"))
    assert "forward + backward" in printed and "torchvision" in printed
