"""Drawn again: the scene behind a stored frame is the very scene, and one factor changes nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from set_fixtures import MINI, mini_sets, odd_sets  # noqa: F401 - fixtures
from toy_sets import toy_split

from pslib.data.drawing import jpeg
from pslib.data.loading import load
from pslib.data.redraw import placement_of, query_with, scene_of, what_ifs
from pslib.data.scenes import render
from pslib.errors import UserError

PLACES = [("cuhk-sysu", "train"), ("cuhk-sysu", "test"), ("cuhk-sysu-val", "test"), ("prw", "test"),
          ("prw-val", "test")]  # fmt: skip


@pytest.mark.parametrize("name, split", PLACES)
def test_pixels_are_those_of_the_stored_frame(mini_sets, name, split):  # noqa: F811
    data = load(name.removesuffix("-val"), mini_sets / name, split)
    for frame in (0, len(data.frames) // 2, len(data.frames) - 1):
        drawn = render(scene_of(data, frame, MINI))
        stored = data.frames[frame].path.read_bytes()
        assert jpeg(drawn.image) == stored, "the same pixels, encoded, are the same file"
        pixels = np.asarray(Image.open(data.frames[frame].path)).astype(int)
        assert np.abs(pixels - drawn.image).mean() < 6
        inside = data.frames[frame].boxes
        assert len(drawn.boxes) == len(inside) and np.abs(drawn.boxes - inside).max(initial=0) <= 1
        assert drawn.person_ids.tolist() == data.frames[frame].person_ids.tolist()


def test_another_frame_is_another_scene(mini_sets):  # noqa: F811
    data = load("prw", mini_sets / "prw", "test")
    assert jpeg(render(scene_of(data, 0, MINI)).image) != data.frames[1].path.read_bytes()


def test_odd_corners_are_no_obstacle(odd_sets):  # noqa: F811
    data = load("prw", odd_sets / "prw", "test")
    drawn = render(scene_of(data, 3, MINI))
    assert jpeg(drawn.image) == data.frames[3].path.read_bytes()


def someone(data):
    """A labelled person with nobody before or behind her, and not the first of her scene: frame and row."""
    for number, frame in enumerate(data.frames):
        for row, (box, person) in enumerate(zip(frame.boxes, frame.person_ids, strict=True)):
            beside = (frame.boxes[:, 2] < box[0]) | (frame.boxes[:, 0] > box[2])
            if row and person >= 0 and beside.sum() == len(beside) - 1 and 40 < box[3] - box[1] and box[3] < 140:
                scene = scene_of(data, number, MINI)
                if render(scene).visible[row] == 1 and not any(abs(one.x - (box[0] + box[2]) / 2 / scene.size[0]) < 0.2
                                                       for one in scene.occluders):  # fmt: skip
                    return number, row
    raise AssertionError("no such person in the drawn set")


def test_without_a_change_it_is_the_query_herself(mini_sets):  # noqa: F811
    data = load("cuhk-sysu", mini_sets / "cuhk-sysu", "test")
    frame, row = someone(data)
    again = query_with(data, frame, row, MINI)
    assert np.abs(np.array(again.box) - data.frames[frame].boxes[row]).max() <= 1
    assert jpeg(again.image) == data.frames[frame].path.read_bytes()
    person = placement_of(render(again.scene), data.frames[frame].boxes[row])
    assert again.scene.placements[person].person_id == data.frames[frame].person_ids[row]


def test_every_what_if_changes_one_factor_of_the_right_person(mini_sets):  # noqa: F811
    data = load("cuhk-sysu", mini_sets / "cuhk-sysu", "test")
    frame, row = someone(data)
    before = query_with(data, frame, row, MINI)
    person = placement_of(render(before.scene), data.frames[frame].boxes[row])
    offers = what_ifs(before.scene, person)
    assert list(offers)[0] == "as drawn" and len(offers) >= 10
    standing = before.scene.with_(person=person)
    standing = replace(standing, placements=tuple(replace(one, stride=0.0) for one in standing.placements))
    assert set(offers) - set(what_ifs(standing, person)) <= {"half a step on"}
    for name, changes in offers.items():
        after = query_with(data, frame, row, MINI, **changes)
        same = np.array_equal(before.image, after.image)
        assert same == (name == "as drawn"), name
        pairs = list(zip(before.scene.placements, after.scene.placements, strict=True))
        assert all(a == b for index, (a, b) in enumerate(pairs) if index != person), name
        changed = [part for part in ("background", "lighting", "placements", "occluders")
                   if getattr(before.scene, part) != getattr(after.scene, part)]  # fmt: skip
        assert len(changed) == (name != "as drawn"), (name, changed)
    half = query_with(data, frame, row, MINI, scale=0.5)
    assert half.box[3] - half.box[1] == pytest.approx((before.box[3] - before.box[1]) / 2, abs=3)
    hidden = query_with(data, frame, row, MINI, occluder=0.5)
    assert hidden.visible < before.visible and hidden.box == before.box


def test_bad_input_is_one_sentence(mini_sets, tmp_path):  # noqa: F811
    data = load("cuhk-sysu", mini_sets / "cuhk-sysu", "test")
    frame, row = someone(data)
    with pytest.raises(UserError, match="none at place 99"):
        query_with(data, frame, 99, MINI)
    with pytest.raises(UserError, match="with occluder=1.0 less than 8% of her is to be seen"):
        query_with(data, frame, row, MINI, occluder=1.0)
    with pytest.raises(UserError, match="unknown view 'above'"):
        query_with(data, frame, row, MINI, view="above")
    with pytest.raises(UserError, match="only drawn people can be drawn again"):
        scene_of(toy_split("test"), 0)
    with pytest.raises(UserError, match="unknown profile 'mini'"):
        scene_of(data, 0)
    with pytest.raises(UserError, match="another version of the generator"):
        scene_of(data, 0, replace(MINI, seed=99))
    empty = replace(scene_of(data, frame, MINI), placements=())
    with pytest.raises(UserError, match="nobody has a box"):
        placement_of(render(empty), np.zeros(4))


def test_a_damaged_manifest_is_named(tmp_path, mini_sets):  # noqa: F811
    data = load("cuhk-sysu", mini_sets / "cuhk-sysu", "test")
    for content in ("{", json.dumps({"set": "prw"}), "[]"):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(UserError, match="no manifest of a drawn set"):
            scene_of(replace(data, root=tmp_path), 0, MINI)
