"""Training batches as functions of seed and step: order, targets, flips, sizes, loader processes."""

import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_sets import toy_recipe, toy_root, toy_split

from pslib.data.annotations import UNLABELLED, PersonSearchSet
from pslib.data.loading import load, read_image
from pslib.data.transforms import TrainTransform
from pslib.errors import UserError
from pslib.training.batches import TrainingBatches
from pslib.training.crops import CropBatches


def test_batches_follow_from_seed_and_step_alone():
    recipe = toy_recipe(image_sizes=((96, 64), (120, 80)))
    first, second = (TrainingBatches(recipe, toy_split("train"), seed=3) for _ in range(2))
    late = second[5]  # before anything else
    for step in range(6):
        images, targets = first[step]
        again, targets_again = late if step == 5 else second[step]
        assert all(torch.equal(a, b) for a, b in zip(images, again, strict=True))
        assert all(torch.equal(a[k], b[k]) for a, b in zip(targets, targets_again, strict=True) for k in a)
    other = TrainingBatches(recipe, toy_split("train"), seed=4)
    assert [other.example_indices(step) for step in range(3)] != [first.example_indices(step) for step in range(3)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 5))
def test_an_epoch_shows_every_frame_once(batch_size, seed):
    batches = TrainingBatches(toy_recipe(schedule__batch_size=batch_size), toy_split("train"), seed)
    steps = math.ceil(36 / batch_size)
    shown = [index for step in range(steps) for index in batches.example_indices(step)]
    epochs = [shown[start : start + 12] for start in (0, 12, 24)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_targets_are_the_annotations_with_labels_from_zero():
    batches = TrainingBatches(toy_recipe(flip=False), toy_split("train"), seed=0)
    rank = {person: label for label, person in enumerate([11, 12, 15, 19, 20, 23])}
    seen = set()
    for step in range(3):
        images, targets = batches[step]
        for index, image, target in zip(batches.example_indices(step), images, targets, strict=True):
            frame = toy_split("train").frames[index]
            assert torch.equal(image, read_image(frame.path)) and image.dtype == torch.uint8
            assert np.array_equal(target["boxes"].numpy(), frame.boxes) and target["boxes"].dtype == torch.float32
            expected = [rank.get(person, UNLABELLED) for person in frame.person_ids.tolist()]
            assert target["labels"].tolist() == expected and target["labels"].dtype == torch.int64
            seen |= set(expected)
    assert seen == {UNLABELLED, 0, 1, 2, 3, 4, 5}


boxes_in_image = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(1, 17), st.integers(1, 11)), max_size=4
)


@settings(max_examples=40, deadline=None)
@given(boxes_in_image, st.integers(0, 1000))
def test_a_flip_mirrors_image_and_boxes_exactly(found, seed):
    image = torch.arange(3 * 32 * 48, dtype=torch.int32).reshape(3, 32, 48)
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in found], dtype=torch.float32).reshape(-1, 4)
    before = boxes.clone()
    result, target = TrainTransform()(image, {"boxes": boxes}, torch.Generator().manual_seed(seed))
    moved = target["boxes"]
    assert type(moved) is torch.Tensor and torch.equal(boxes, before)
    if not torch.equal(result, image):
        assert torch.equal(result, image.flip(-1))
        expected = torch.stack([48 - boxes[:, 2], boxes[:, 1], 48 - boxes[:, 0], boxes[:, 3]], dim=1)
        assert torch.equal(moved, expected)
        for (x, y, w, h), box in zip(found, moved.long(), strict=True):
            crop = result[:, box[1] : box[3], box[0] : box[2]]
            assert torch.equal(crop.flip(-1), image[:, y : y + h, x : x + w])
    else:
        assert torch.equal(moved, boxes)


def test_every_second_image_is_flipped_and_none_without():
    image, boxes = torch.arange(12).reshape(1, 3, 4), torch.zeros(0, 4)
    generator = torch.Generator().manual_seed(0)
    flips = [not torch.equal(TrainTransform()(image, {"boxes": boxes}, generator)[0], image) for _ in range(400)]
    assert 160 < sum(flips) < 240
    never = TrainTransform(flip=0.0)
    assert all(torch.equal(never(image, {"boxes": boxes}, generator)[0], image) for _ in range(50))


def test_sizes_are_the_six_of_the_recipe_with_the_ratio_kept():
    sizes = ((96, 64), (48, 40), (200, 100))
    image = torch.zeros(3, 60, 90, dtype=torch.uint8)
    boxes = torch.tensor([[9.0, 6.0, 45.0, 54.0]])
    generator, seen = torch.Generator().manual_seed(0), {}
    for _ in range(60):
        result, target = TrainTransform(sizes, flip=0.0)(image, {"boxes": boxes}, generator)
        seen.setdefault(tuple(result.shape[-2:]), target["boxes"])
    assert set(seen) == {(64, 96), (32, 48), (100, 150)}
    for (height, width), moved in seen.items():
        scale = torch.tensor([width / 90, height / 60, width / 90, height / 60])
        assert torch.allclose(moved, boxes * scale, atol=1e-4)


def test_loader_processes_change_nothing():
    here = TrainingBatches(toy_recipe(), toy_split("train"), seed=1).loader(1, 5)
    there = TrainingBatches(toy_recipe(workers=2), toy_split("train"), seed=1).loader(1, 5)
    for (images, targets), (images_there, targets_there) in zip(here, there, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(images, images_there, strict=True))
        assert all(torch.equal(a[k], b[k]) for a, b in zip(targets, targets_there, strict=True) for k in a)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("shown", [TrainingBatches, CropBatches])
def test_a_damaged_image_is_one_sentence_from_whatever_process(tmp_path, shown, workers):
    data = load("cuhk-sysu", shutil.copytree(toy_root(), tmp_path / "set"), "train")
    for frame in data.frames:
        frame.path.write_bytes(frame.path.read_bytes()[:200])
    with pytest.raises(UserError) as error:
        next(shown(toy_recipe(workers=workers), data, seed=0).loader(0, 2))
    said = str(error.value)
    assert str(tmp_path) in said and "\n" not in said and said.endswith(".")


def test_images_are_decoded_once_while_they_fit(monkeypatch):
    import pslib.training.batches as module

    reads = []
    monkeypatch.setattr(module, "read_image", lambda path: reads.append(path) or read_image(path))
    batches = TrainingBatches(toy_recipe(), toy_split("train"), seed=0)
    [batches[step] for step in range(6)]
    assert len(reads) == 12 and batches.cached_bytes == 12 * 3 * 64 * 96
    monkeypatch.setattr(module, "CACHE_BYTES", 3 * 64 * 96)
    reads.clear()
    small = TrainingBatches(toy_recipe(), toy_split("train"), seed=0)
    [small[step] for step in range(6)]
    assert len(small.cache) == 1 and len(reads) > 12
    # Each of two loader processes has a cache of its own, half as large.
    shared = TrainingBatches(toy_recipe(workers=2), toy_split("train"), seed=0)
    [shared[step] for step in range(6)]
    assert not shared.cache


def test_a_split_without_frames_is_refused(tmp_path):
    with pytest.raises(UserError, match="no frames"):
        TrainingBatches(toy_recipe(), PersonSearchSet("prw", "train", tmp_path, []), seed=0)
