"""Where the deformable neck looks, against points laid out by hand; strides 4 (C3 and P3) and 8 (C4)."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toy_sets import toy_model

from pslib.data.annotations import Frame, PersonSearchSet
from pslib.errors import UserError
from pslib.evaluation.sampling import sampling_points, sampling_spread

# The centre (22, 18) is that of the cell (5, 4) of stride 4; the box is 10 px wide and 22 px high.
BOX = [17.0, 7.0, 27.0, 29.0]
# The 9 columns (or rows) of the 81 points, px from the centre: three taps 4 px apart, from each of which three more.
C3 = [-8, -4, 0, -4, 0, 4, 0, 4, 8]
# The taps at x = 18, 22, 26 lie in C4's cells 2, 2, 3, whose centres are 20, 20, 28; from each three taps 8 px apart.
C4_COLUMNS = [-10, -2, 6, -10, -2, 6, -2, 6, 14]
# The taps at y = 14, 18, 22 lie in C4's cells 1, 2, 2, whose centres are 12, 20, 20.
C4_ROWS = [-14, -6, 2, -6, 2, 10, -6, 2, 10]


@pytest.fixture
def one_person(tmp_path):
    """A set of one frame, 96 x 64 px, that shows one person; its colours do not matter."""
    path = tmp_path / "one.png"
    Image.new("RGB", (96, 64), (90, 120, 60)).save(path)
    frame = Frame(path.name, path, np.array([BOX], np.float32), np.array([1], np.int64))
    return PersonSearchSet("cuhk-sysu", "test", tmp_path, [frame])


def model_with(output=(0.0, 0.0), laterals=(0.0, 0.0)):
    """A model whose P3 and lateral convolutions read all taps displaced by these constants, (y, x) in cells."""
    model = toy_model().eval()
    for layer, offset in [(model.neck.output["P3"], output), *((layer, laterals) for layer in model.neck.lateral)]:
        nn.init.zeros_(layer.conv_offset.weight)
        layer.conv_offset.bias.data = torch.tensor(offset).repeat(layer.taps)
    return model


def radius_of(columns, rows):
    """Mean distance of the 9 x 9 points, in heights of the box."""
    return sum(math.hypot(x, y) for x in columns for y in rows) / 81 / 22


def moved(places, by):
    return [place + by for place in places]


def check(found, radius, inside):
    for path in ("C3", "C4"):
        assert found[path].radius.tolist() == pytest.approx([radius[path]], abs=1e-5)
        assert found[path].inside.tolist() == pytest.approx([inside[path]], abs=1e-6)


def test_without_offsets_the_points_are_those_of_two_ordinary_convolutions(one_person):
    # C3: at multiples of 4 px, as many as 1, 2, 3, 2, 1 in either direction; the sum of their distances by hand.
    distance = 4 * (24 * 1 + 16 * math.sqrt(2) + 12 * 2 + 16 * math.sqrt(5) + 4 * math.sqrt(8)) / 81
    assert distance == pytest.approx(5.8132, abs=1e-4)
    # 7 of 9 columns lie within 5 px and every row within 11; of C4's 3 of 9 columns and 8 of 9 rows.
    check(sampling_spread(model_with(), one_person, [0]),
          {"C3": distance / 22, "C4": radius_of(C4_COLUMNS, C4_ROWS)},
          {"C3": 63 / 81, "C4": 24 / 81})  # fmt: skip


def test_one_cell_to_the_right_in_the_output_convolution(one_person):
    # Taps at x = 22, 26, 30: with C3 everything 4 px further, and C4's cells are 2, 3, 3.
    columns = [-10, -2, 6, -2, 6, 14, -2, 6, 14]
    check(sampling_spread(model_with(output=(0.0, 1.0)), one_person, [0]),
          {"C3": radius_of(moved(C3, 4), C3), "C4": radius_of(columns, C4_ROWS)},
          {"C3": 6 * 9 / 81, "C4": 24 / 81})  # fmt: skip


def test_half_a_cell_down_in_the_lateral_convolutions(one_person):
    # 2 px of C3, 4 px of C4: rows up to 10 px below the centre stay inside, and of C4's those up to 6 px.
    check(sampling_spread(model_with(laterals=(0.5, 0.0)), one_person, [0]),
          {"C3": radius_of(C3, moved(C3, 2)), "C4": radius_of(C4_COLUMNS, moved(C4_ROWS, 4))},
          {"C3": 63 / 81, "C4": 3 * 7 / 81})  # fmt: skip
    assert [row for row in moved(C4_ROWS, 4) if abs(row) <= 11] == [-10, -2, 6, -2, 6, -2, 6]


def test_in_an_image_three_times_as_large_they_reach_a_third_as_far(one_person):
    # (66, 54) is a cell's centre, too; the same 81 points of C3 in a person three times as high, all of them inside.
    found = sampling_spread(model_with(), one_person, [0], test_size=(288, 192))["C3"]
    assert found.radius.tolist() == pytest.approx([radius_of(C3, C3) / 3], abs=1e-5) and found.inside.tolist() == [1]


def test_ordinary_convolutions_have_no_points(one_person):
    with pytest.raises(UserError, match="need deformable ones"):
        sampling_spread(toy_model(lateral="conv").eval(), one_person, [0])


def test_paths_may_be_asked_for_by_name():
    # The taps at x = 18, 22, 26 lie in one cell of C5, stride 16, whose centre is 24; those at y = 14, 18, 22 in two.
    image, place = torch.zeros(3, 64, 96), torch.tensor([[22.0, 18.0]])
    columns, rows = 3 * [-14, 2, 18], [-26, -10, 6, -10, 6, 22, -10, 6, 22]
    found = sampling_points(model_with(), image, place, paths=("C5",))
    assert list(found) == ["C5"] and found["C5"].shape == (1, 81, 2)
    assert sorted(map(tuple, (found["C5"][0] - place).tolist())) == sorted((x, y) for x in columns for y in rows)
    assert list(sampling_points(model_with(), image, place)) == ["C3", "C4"]
    with pytest.raises(KeyError, match="C6"):
        sampling_points(model_with(), image, place, paths=("C6",))
