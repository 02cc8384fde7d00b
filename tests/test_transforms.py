"""Image and boxes stay together; validation is carved by people and scenes; the data commands print."""

import hashlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from set_fixtures import hand_made_prw, mini_sets  # noqa: F401 (fixture)

from pslib import paths
from pslib.data import commands
from pslib.data.annotations import UNLABELLED, Frame, PersonSearchSet
from pslib.data.loading import load
from pslib.data.transforms import MULTI_SCALE, TEST_SCALE, TestTransform, TrainTransform, fit_scale, resize
from pslib.data.validation import carve_fold, carve_validation
from pslib.errors import UserError


def painted(height=60, width=100, box=(20, 10, 50, 40)):
    """A black image with one white box, and that box."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    x1, y1, x2, y2 = box
    image[:, y1:y2, x1:x2] = 255
    return image, {"boxes": torch.tensor([box], dtype=torch.float32), "labels": torch.tensor([4])}


def white_box(image):
    rows, columns = torch.where(image[0] > 127)
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_flip_moves_pixels_and_boxes_alike():
    image, target = painted()
    flipped, moved = TrainTransform(flip=1.0)(image, target, generator())
    assert moved["boxes"].tolist() == [[50, 10, 80, 40]] == [white_box(flipped)]
    assert moved["labels"].tolist() == [4] and target["boxes"].tolist() == [[20, 10, 50, 40]]  # the input is kept
    again, back = TrainTransform(flip=1.0)(flipped, moved, generator())
    assert torch.equal(again, image) and torch.equal(back["boxes"], target["boxes"])
    same, _ = TrainTransform(flip=0.0)(image, target, generator())
    assert torch.equal(same, image)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(20, 90), width=st.integers(20, 90), longer=st.integers(30, 150), shorter=st.integers(20, 120))
def test_resize_keeps_the_ratio_and_stays_within_the_pair(height, width, longer, shorter):
    pair = (max(longer, shorter), min(longer, shorter))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    boxes = torch.tensor([[1.0, 2.0, width - 1.0, height - 2.0]])
    out, moved, factor = resize(image, boxes, pair)
    new_height, new_width = out.shape[-2:]
    assert max(new_height, new_width) <= pair[0] + 0.5 and min(new_height, new_width) <= pair[1] + 0.5
    assert abs(new_height - height * factor) <= 0.51 and abs(new_width - width * factor) <= 0.51
    scale = torch.tensor([new_width / width, new_height / height] * 2)
    torch.testing.assert_close(moved, boxes * scale)


def test_resized_boxes_fit_resized_pixels():
    image, target = painted()
    out, boxes, factor = resize(image, target["boxes"], (200, 120))
    assert factor == 2.0 and boxes.tolist() == [[40, 20, 100, 80]]
    assert np.abs(np.array(white_box(out)) - boxes[0].numpy()).max() <= 1
    assert type(out) is torch.Tensor and type(boxes) is torch.Tensor


def test_resizing_does_not_antialias():
    """As the released code: a quarter of the size is read off two pixels in four, and lines between them are lost."""
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    image[:, :, ::4] = 255  # bilinear sampling at 4 i + 1.5 sees columns 4 i + 1 and 4 i + 2 alone
    out, _, factor = resize(image, torch.zeros(0, 4), (20, 10))
    assert factor == 0.25 and out.shape == (3, 10, 20) and not out.any()


def test_the_papers_pairs():
    assert len(MULTI_SCALE) == 6 and MULTI_SCALE[0] == (667, 400) and MULTI_SCALE[-1] == (2000, 1200)
    assert fit_scale(1080, 1920, TEST_SCALE) == 1500 / 1920  # PRW: the longer side decides
    assert fit_scale(576, 720, TEST_SCALE) == 900 / 576  # its camera 6: the shorter side decides


def test_scales_are_drawn_for_each_image_from_the_generator():
    image, target = painted()
    transform = TrainTransform(pairs=((50, 30), (100, 60), (150, 90)))
    one, two = generator(1), generator(1)
    sizes = [tuple(transform(image, target, one)[0].shape) for _ in range(20)]
    assert sizes == [tuple(transform(image, target, two)[0].shape) for _ in range(20)]
    assert len(set(sizes)) == 3


def test_an_image_without_people():
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    out, target = TrainTransform(pairs=((30, 20),), flip=1.0)(image, empty, generator())
    assert out.shape == (3, 20, 30) and target["boxes"].shape == (0, 4)
    assert TestTransform()(image) == (image, 1.0)


# ------------------------------------------------------------------------------- validation


def street(name, people, camera=0):
    boxes = np.tile(np.float32([[0, 0, 5, 9]]), (len(people), 1))
    return Frame(name, Path(name), boxes, np.array(people, np.int64), camera)


def test_validation_people_and_their_scenes_leave_training():
    frames = [street(f"s{i}.jpg", [i // 3, UNLABELLED]) for i in range(60)]  # 20 people, three scenes each
    whole = PersonSearchSet("cuhk-sysu", "train", Path(), frames)
    train, validation = carve_validation(whole, 5, np.random.default_rng(0))
    assert len(validation.person_ids) == 5 and not set(validation.person_ids) & set(train.person_ids)
    assert len(train.frames) + len(validation.frames) == 60
    assert not {f.name for f in train.frames} & {f.name for f in validation.frames}
    protocol = validation.protocols["validation"]
    assert len(protocol.queries) == 10  # two a person
    for query, gallery in zip(protocol.queries, protocol.galleries, strict=True):
        assert query.frame not in gallery.frames and len(gallery.frames) == 14 and len(gallery.positive_frames) == 2


def test_validation_of_one_connected_crowd_keeps_people_disjoint():
    """As in PRW, where nearly every frame hangs together with every other."""
    frames = [street(f"c1s1_{i:06d}.jpg", [i % 10, (i + 1) % 10], 1) for i in range(60)]
    train, validation = carve_validation(PersonSearchSet("prw", "train", Path(), frames), 2, np.random.default_rng(0))
    assert len(validation.person_ids) == 2 and not set(validation.person_ids) & set(train.person_ids)
    assert len(validation.frames) and len(train.frames) and len(train.frames) + len(validation.frames) == 60
    assert any(UNLABELLED in f.person_ids for f in validation.frames)  # the others keep their boxes


def test_validation_of_a_drawn_set(mini_sets):  # noqa: F811
    whole = load("prw", mini_sets / "prw", "train")
    train, validation = carve_validation(whole, 3, np.random.default_rng(0))
    assert len(validation.person_ids) >= 3 and not set(validation.person_ids) & set(train.person_ids)
    with pytest.raises(UserError, match="too few"):
        carve_validation(whole, 99, np.random.default_rng(0))


@pytest.mark.parametrize("kind, people, frames, digest", [
    ("cuhk-sysu", 100, 669, "e85787e73880a5a0"),
    ("prw", 100, 726, "b81c7774bdeded4c"),
    ("prw", 3, 26, "2764ed8b053835cd"),
])  # fmt: skip
def test_the_people_set_aside_from_the_tiny_sets_stay_the_same(kind, people, frames, digest):
    """Results on validation people are compared over months."""
    train = load(kind, paths.synthetic_dir("tiny") / kind, "train")
    rest, held = carve_validation(train, people, np.random.default_rng(0))
    found = hashlib.sha256()
    for one in held.frames:
        found.update(f"{one.name} {one.person_ids.tolist()}".encode())
    for query in held.protocols["validation"].queries:
        found.update(f"{query.frame} {query.person_id}".encode())
    assert (len(held.frames), len(rest.frames), found.hexdigest()[:16]) == (frames, 1920 - frames, digest)


def held_of(frames, people, seed=0):
    train, held = carve_validation(PersonSearchSet("prw", "train", Path(), frames), people, np.random.default_rng(seed))
    assert held.protocols["validation"].queries and len(train.person_ids)
    return {one.name for one in held.frames}


def test_frames_of_one_minute_of_one_camera_stay_together():
    """Planted faults: no group by camera and moment, and moments of less than a second."""
    # Ten moments of three people each, two frames of each person; nobody is in two moments or beside another.
    frames = [street(f"c{1 + moment % 2}s1_{3000 * moment + 400 * place:06d}.jpg", [3 * moment + place // 2], 1)
              for moment in range(1, 11) for place in range(4)]  # fmt: skip
    for seed in range(5):
        held = held_of(frames, 2, seed)
        minutes = {(name[1], int(name[5:11]) // 1500) for name in held}
        assert len(held) == 4 * len(minutes), "a moment was torn apart"
        assert len(minutes) == 1, "moments apart were taken together"


def test_people_seen_once_are_not_counted_for_validation():
    frames = [street(f"s{i}.jpg", [i]) for i in range(30)]  # nobody twice
    frames += [street(f"s{30 + i}.jpg", [100 + i // 2]) for i in range(8)]  # four people twice
    for seed in range(5):
        assert sum(int(name[1:-4]) >= 30 for name in held_of(frames, 3, seed)) >= 6
    with pytest.raises(UserError, match="34 training people, 4 of them in two frames or more, too few to take 5"):
        held_of(frames, 5)
    # One crowd, where people are chosen one by one: only those who are seen again.
    crowd = [street(f"s{i}.jpg", [1, 10 + i]) for i in range(12)] + [street(f"s{20 + i}.jpg", [1, 2]) for i in range(2)]
    assert {int(name[1:-4]) >= 20 for name in held_of([*crowd, *frames[30:32]], 1)} == {True}


@pytest.mark.parametrize("people", [0, -3])
def test_a_validation_split_needs_people(people):
    with pytest.raises(UserError, match=f"of {people} people measures nothing"):
        held_of([street(f"s{i}.jpg", [i // 2]) for i in range(20)], people)


def test_a_training_split_needs_people_too():
    frames = [street(f"s{i}.jpg", [1, 2, 3]) for i in range(6)] + [street("s9.jpg", [UNLABELLED])]
    with pytest.raises(UserError, match="leaves nobody to train on"):
        held_of(frames, 1)
    for few in (frames, [street("s1.jpg", [1]), street("s2.jpg", [2]), street("s3.jpg", [3])]):
        with pytest.raises(UserError, match="fold 0 of 3 .* leaves nobody to train on, or keeps nobody out"):
            carve_fold(PersonSearchSet("cuhk-sysu", "train", Path(), few), 3, 0)


@pytest.mark.parametrize("name", ["c1a.jpg", "c1s1_now.jpg", "c1s1_.jpg"])
def test_camera_frames_that_do_not_say_when_they_were_taken(name):
    frames = [street(f"c1s1_{i:06d}.jpg", [i // 2], 1) for i in range(20)]
    with pytest.raises(UserError, match=f"the frame {name} does not say when .*: name it like"):
        held_of([*frames, street(name, [1], 1)], 2)


# ------------------------------------------------------------------------------- pslib data


def test_data_commands(tmp_path, capsys, mini_sets):  # noqa: F811
    options = Namespace(profile="paper-layout", out=tmp_path, workers=0, only=["prw"])
    with pytest.raises(UserError, match="--workers 0"):
        commands.make(options)
    commands.describe(Namespace(kind="prw", data_root=mini_sets / "prw", profile="tiny", bad_boxes="raise"))
    assert "prw at" in capsys.readouterr().out
    commands.describe(Namespace(kind="prw", data_root=mini_sets / "prw-val", profile="tiny", bad_boxes="raise"))
    assert "train" not in capsys.readouterr().out
    with pytest.raises(UserError, match="no cuhk-sysu root|holds a prw set"):
        root = hand_made_prw(tmp_path / "p")
        commands.describe(Namespace(kind="cuhk-sysu", data_root=root, profile="tiny", bad_boxes="raise"))


def test_make_command_prints_what_it_drew(tmp_path, capsys, monkeypatch):
    test = {"images": 1, "boxes": 2, "people": 1, "queries": 1}
    counts = {"train": {"images": 3, "boxes": 9, "people": 2}, "test": test}
    monkeypatch.setattr(commands, "make_sets", lambda *arguments: {"prw": {"counts": counts}})
    commands.make(Namespace(profile="tiny", out=tmp_path, workers=None, only=None))
    out = capsys.readouterr().out
    assert "prw: train 3 images, 9 boxes, 2 people; test 1 images" in out and "ready after" in out
