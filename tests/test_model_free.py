"""Embeddings that learn nothing, on frames painted here: each must see exactly what it can see."""

import types
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pslib.data.annotations import Frame, Gallery, PersonSearchSet, Protocol, Query
from pslib.errors import UserError
from pslib.evaluation import model_free
from pslib.evaluation.model_free import (
    difficulty,
    difficulty_table,
    histogram_search,
    mean_color,
    measure,
    stripe_histogram,
    widest_protocol,
)

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def painted_set(folder, outfits, frames=8, noise=0):
    """Everybody, in ``outfits`` of two colors (top, trousers), side by side in every frame."""
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(frames):
        image = np.full((60, 30 * len(outfits), 3), 120, np.int64)
        boxes = []
        for person, (top, trousers) in enumerate(outfits):
            x1, x2 = 30 * person + 5, 30 * person + 25
            image[6:30, x1:x2], image[30:54, x1:x2] = top, trousers
            boxes.append([x1, 6, x2, 54])
        image = (image + rng.normal(0, noise, image.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
        drawn.append(Frame(f"{number}.png", folder / f"{number}.png", np.array(boxes, np.float32),
                           np.arange(len(outfits))))
    queries, galleries = [], []
    for person in range(len(outfits)):
        queries.append(Query(0, drawn[0].boxes[person], person))
        others = np.arange(1, frames, dtype=np.int32)
        galleries.append(Gallery(others, others, np.stack([drawn[frame].boxes[person] for frame in others])))
    protocol = Protocol("regular", queries, galleries)
    return PersonSearchSet("prw", "test", folder, drawn, {"regular": protocol})


def test_each_embedding_sees_what_it_can_see(tmp_path):
    # The first two wear the same colors the other way round: their means are equal, their stripes are not.
    outfits = [(RED, BLUE), (BLUE, RED), (GREEN, GREEN), (RED, RED)]
    found = measure(painted_set(tmp_path, outfits, noise=2), "regular")
    assert found["histogram"] > 99
    assert 60 < found["mean color"] < 95
    assert 20 < found["random"] < 45  # a quarter of all boxes is right
    assert found == measure(painted_set(tmp_path, outfits, noise=2), "regular")


def test_histogram_search_tells_every_query(tmp_path):
    # Two people dressed alike, in 7 frames of 3 boxes each: their 14 boxes tie, half of them right, so AP is 1/2.
    data = painted_set(tmp_path, [(RED, BLUE), (RED, BLUE), (GREEN, GREEN)])
    found = histogram_search(data, "regular")
    assert found.ap == pytest.approx([0.5, 0.5, 1.0]) and found.person_ids.tolist() == [0, 1, 2]
    assert measure(data, "regular")["histogram"] == pytest.approx(100 * found.mean_ap)
    with pytest.raises(UserError, match="protocol"):
        histogram_search(data, "TestG50")


def test_brightness_counts_in_the_mean_colour(tmp_path):
    grey = [((60,) * 3,) * 2, ((120,) * 3,) * 2, ((240,) * 3,) * 2]
    assert measure(painted_set(tmp_path, grey), "regular")["mean color"] == 100


def test_identical_people_cannot_be_told_apart(tmp_path):
    found = measure(painted_set(tmp_path, [(RED, BLUE)] * 5), "regular")
    for name in ("mean color", "histogram"):
        assert found[name] == pytest.approx(20, abs=1e-6)  # all tied: one in five is right


def test_histogram_of_a_hand_painted_crop():
    crop = np.zeros((12, 2, 3), np.uint8)  # black: hue, saturation and value in the first cell of each stripe
    crop[2:4] = 255  # second stripe white: hue 0, saturation 0, value in the last of four cells
    root = stripe_histogram(crop)
    cells = np.flatnonzero(root)
    assert cells.tolist() == [0, 128 + 3, 256, 384, 512, 640] and root[cells] == pytest.approx(np.full(6, 6**-0.5))
    assert np.isfinite(stripe_histogram(crop[:3])).all()  # fewer rows than stripes
    assert mean_color(crop) == pytest.approx(np.full(3, 1 / 6))


def test_boxes_over_the_edge_are_cut_to_whole_pixels():
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    assert (model_free._crop(image, np.array([-3, -2, 2.4, 1.2])) == image[:2, :3]).all()
    assert model_free._crop(image, np.array([4.9, 3.9, 9, 9])).shape == (1, 1, 3)
    assert model_free._crop(image, np.array([7, 8, 9, 9])).shape == (1, 1, 3)


def test_table_marks_what_is_outside_its_band():
    table = difficulty_table({"a": {"random": 2.0, "mean color": 16.0, "histogram": 14.9},
                              "b": {"random": 3.0, "mean color": 0.0, "histogram": 45.0}})
    _, first, second = table.splitlines()
    assert first.count("OUT") == 2 and second.count("OUT") == 0 and second.count(" in ") == 3


def test_difficulty_prints_both_validation_sets(tmp_path, monkeypatch, capsys):
    data = painted_set(tmp_path, [(RED, BLUE), (BLUE, RED)])
    asked = []
    monkeypatch.setattr(model_free, "load", lambda *call: asked.append(call) or data)
    difficulty(types.SimpleNamespace(profile="tiny", data_root=tmp_path, split="validation"))
    printed = capsys.readouterr().out
    assert asked == [("cuhk-sysu", tmp_path / "cuhk-sysu-val", "test"), ("prw", tmp_path / "prw-val", "test")]
    assert "prw-val, regular" in printed and "2 queries of 2 people, 7 gallery images each" in printed


def test_the_widest_protocol_is_measured(tmp_path):
    data = painted_set(tmp_path, [(RED, BLUE)], frames=2)
    assert widest_protocol(data) == "regular"
    named = dict.fromkeys(("TestG50", "TestG200", "TestG100", "Occlusion"), data.protocols["regular"])
    assert widest_protocol(replace(data, protocols=named)) == "TestG200"
    with pytest.raises(UserError, match="no protocol regular or TestG"):
        widest_protocol(replace(data, protocols={}))


def test_bad_input(tmp_path):
    data = painted_set(tmp_path, [(RED, BLUE)], frames=2)
    with pytest.raises(UserError, match="unknown protocol 'TestG50'"):
        measure(data, "TestG50")
    (tmp_path / "1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="does not decode"):
        measure(data, "regular")
