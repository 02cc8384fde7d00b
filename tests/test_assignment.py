"""FCOS target assignment against torchvision's FCOS, a plain loop and values worked by hand."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection import FCOS

import pslib.models.assignment
from pslib.models.assignment import assign_batch, assign_targets, positive_cells
from pslib.models.fcos import decode_ltrb, level_points

EVERYTHING = (0.0, float("inf"))


def make_levels(size, strides, cuts):
    """Points, strides and ranges of the cells of every level, the first level first."""
    lowers, uppers = (0.0, *cuts), (*cuts, float("inf"))
    points = [level_points(size[0] // stride, size[1] // stride, stride) for stride in strides]
    counts = torch.tensor([len(one) for one in points])
    repeat = lambda values: torch.tensor(values, dtype=torch.float32).repeat_interleave(counts)  # noqa: E731
    return torch.cat(points), repeat(strides), torch.stack([repeat(lowers), repeat(uppers)], dim=1)


def make_boxes(seed, count, size):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([size[1], size[0]])
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)


def naive_assign(points, strides, ranges, boxes, radius):
    matched, targets = [], []
    for (x, y), stride, (lower, upper) in zip(points.tolist(), strides.tolist(), ranges.tolist(), strict=True):
        best, best_area, target = -1, float("inf"), [0.0] * 4
        for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            square = (
                max(x1, (x1 + x2) / 2 - radius * stride),
                max(y1, (y1 + y2) / 2 - radius * stride),
                min(x2, (x1 + x2) / 2 + radius * stride),
                min(y2, (y1 + y2) / 2 + radius * stride),
            )
            ltrb = [x - x1, y - y1, x2 - x, y2 - y]
            suits = square[0] < x < square[2] and square[1] < y < square[3] and lower < max(ltrb) <= upper
            if suits and (x2 - x1) * (y2 - y1) < best_area:
                best, best_area, target = index, (x2 - x1) * (y2 - y1), [side / stride for side in ltrb]
        matched.append(best)
        targets.append(target)
    return torch.tensor(matched), torch.tensor(targets)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(0, 6), st.sampled_from([0.5, 1.5, 2.5, 100.0]))
def test_equals_plain_loops(seed, count, radius):
    levels = make_levels((64, 96), (8, 16), (24.0,))
    boxes = make_boxes(seed, count, (64, 96)).double()
    points, strides, ranges = (tensor.double() for tensor in levels)
    matched, target = assign_targets(points, strides, ranges, boxes, radius)
    naive_matched, naive_target = naive_assign(points, strides, ranges, boxes, radius)
    assert torch.equal(matched, naive_matched)
    torch.testing.assert_close(target, naive_target.double(), rtol=1e-6, atol=1e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.integers(0, 6), st.sampled_from([0.5, 1.5, 2.5, 100.0]))
def test_positive_cells_are_those_of_each_box_alone(seed, count, radius):
    points, strides, ranges = (tensor.double() for tensor in make_levels((64, 96), (8, 16), (24.0,)))
    boxes = make_boxes(seed, count, (64, 96)).double()
    positive = positive_cells(points, strides, ranges, boxes, radius)
    assert positive.shape == (count, len(points))
    for box, cells in zip(boxes, positive, strict=True):
        naive_matched, _ = naive_assign(points, strides, ranges, box[None], radius)
        assert torch.equal(cells, naive_matched == 0)


def torchvision_assign(size, strides, boxes):
    """What torchvision's FCOS matches, on anchors as large as the strides, centred on our points."""
    per_level = [level_points(size[0] // stride, size[1] // stride, stride) for stride in strides]
    anchors = torch.cat(
        [torch.cat([one - s / 2, one + s / 2], dim=1) for one, s in zip(per_level, strides, strict=True)]
    )
    found = []
    head = SimpleNamespace(compute_loss=lambda targets, outputs, anchors, matched: found.extend(matched))
    FCOS.compute_loss(
        SimpleNamespace(center_sampling_radius=1.5, head=head),
        [{"boxes": one} for one in boxes],
        {},
        [anchors] * len(boxes),
        [len(one) for one in per_level],
    )
    return torch.stack(found)


def check_against_torchvision():
    size, strides = (144, 224), (8, 16, 32)
    boxes = [make_boxes(seed, count, size) for seed, count in enumerate([1, 3, 0, 5, 9, 2, 7, 12])]
    # torchvision cuts level i at 4 and 8 times its stride; with doubling strides these are common borders.
    levels = make_levels(size, strides, (64.0, 128.0))
    matched, _ = assign_batch(*levels, boxes)
    assert torch.equal(matched, torchvision_assign(size, strides, boxes))
    assert int((matched >= 0).sum()) > 100
    return levels, boxes, matched


def test_equals_torchvisions_fcos():
    check_against_torchvision()


def test_targets_lead_back_to_the_boxes():
    (points, strides, ranges), boxes, matched = check_against_torchvision()
    _, target = assign_batch(points, strides, ranges, boxes)
    assert matched.shape == (8, len(points)) and target.shape == (8, len(points), 4)
    for image, one in enumerate(boxes):
        positive = matched[image] >= 0
        decoded = decode_ltrb(points, target[image], strides)[positive]
        torch.testing.assert_close(decoded, one[matched[image][positive]], rtol=1e-5, atol=1e-4)
        assert target[image][~positive].eq(0).all() and (target[image][positive] > 0).all()


def test_a_person_of_the_released_size_gets_at_most_nine_cells():
    points, strides, ranges = make_levels((128, 128), (8,), ())
    for x in range(40, 48):
        matched, _ = assign_targets(points, strides, ranges, torch.tensor([[x, 20.0, x + 40, 110.0]]))
        assert int((matched == 0).sum()) in (6, 9)


def test_square_is_open_and_cut_by_the_box():
    points = torch.tensor([[20.0, 20.0], [32.0, 20.0], [31.9, 20.0], [20.0, 26.0], [20.0, 25.9], [8.0, 20.0]])
    # Centre (20, 20): the square ends at 8 and 32, the box at 14 and 26 above and below.
    box = torch.tensor([[0.0, 14.0, 40.0, 26.0]])
    matched, _ = assign_targets(points, torch.full((6,), 8.0), torch.tensor(EVERYTHING).expand(6, 2), box)
    assert matched.tolist() == [0, -1, 0, -1, 0, -1]


def test_smallest_box_wins_and_the_first_of_equals():
    point, everything = torch.tensor([[20.0, 20.0]]), torch.tensor([EVERYTHING])
    boxes = torch.tensor([[0.0, 0, 40, 40], [10.0, 10, 30, 30], [12.0, 12, 28, 37], [10.0, 10, 30, 30]])
    matched, target = assign_targets(point, torch.tensor([8.0]), everything, boxes)
    assert matched.item() == 1 and target.tolist() == [[1.25, 1.25, 1.25, 1.25]]


@pytest.mark.parametrize("reach, level", [(15.0, 0), (16.0, 0), (16.5, 1), (32.0, 1), (33.0, 2)])
def test_the_farthest_side_chooses_the_level(reach, level):
    """One cell on each of three levels at one point; the box reaches `reach` px up from it and 10 elsewhere."""
    points = torch.tensor([[50.0, 50.0]] * 3)
    ranges = torch.tensor([[0.0, 16.0], [16.0, 32.0], [32.0, float("inf")]])
    box = torch.tensor([[40.0, 50.0 - reach, 60.0, 60.0]])
    matched, _ = assign_targets(points, torch.tensor([8.0, 16.0, 32.0]), ranges, box)
    assert (matched >= 0).nonzero().flatten().tolist() == [level]


def test_levels_with_nothing_to_do_are_background():
    """AlignPS's released code trains P4 to P7 with an empty range, as background only."""
    points, strides, _ = make_levels((64, 64), (8, 16), (1.0,))
    ranges = torch.where(strides.unsqueeze(1) == 8, torch.tensor(EVERYTHING), torch.tensor([-2.0, -1.0]))
    matched, _ = assign_targets(points, strides, ranges, torch.tensor([[10.0, 5, 50, 60]]))
    assert (matched[:64] >= 0).any() and (matched[64:] == -1).all()


def test_nobody_and_nothing():
    points, strides, ranges = make_levels((16, 16), (8,), ())
    matched, target = assign_targets(points, strides, ranges, torch.zeros(0, 4))
    assert matched.tolist() == [-1] * 4 and target.shape == (4, 4) and target.eq(0).all()
    matched, target = assign_targets(points[:0], strides[:0], ranges[:0], torch.tensor([[0.0, 0, 9, 9]]))
    assert matched.shape == (0,) and target.shape == (0, 4)
    flat = torch.tensor([[4.0, 0, 4, 16], [0.0, 0, 0, 0]])
    assert (assign_targets(points, strides, ranges, flat)[0] == -1).all(), "a box without area holds no cell"


@pytest.mark.parametrize(
    "name, fault",
    [
        ("minimum", lambda genuine: torch.maximum),
        ("maximum", lambda genuine: torch.minimum),
        ("minimum", lambda genuine: lambda a, b: -genuine(a, b)),
    ],
)
def test_planted_faults_are_caught(monkeypatch, name, fault):
    stand_in = SimpleNamespace(**{key: getattr(torch, key) for key in dir(torch) if not key.startswith("_")})
    setattr(stand_in, name, fault(getattr(torch, name)))
    monkeypatch.setattr(pslib.models.assignment, "torch", stand_in)
    with pytest.raises(AssertionError):
        check_against_torchvision()
