"""One factor changed about the same person: which pixels change, how far an embedding moves, which level is read."""

import numpy as np
import pytest
import torch
from toy_sets import toy_model

from pslib.data.people import sample_person
from pslib.errors import UserError
from pslib.evaluation import factors


@pytest.fixture(scope="module")
def scenes():
    return factors.drawn_people(3, np.random.default_rng(0), height=60)


def test_height_is_the_only_thing_that_changes(scenes):
    views = factors.draw_views([factors.at_height(scenes[0], height) for height in (30, 60, 90)])
    heights = (views.boxes[:, 3] - views.boxes[:, 1]).tolist()
    assert heights == pytest.approx([30, 60, 90], rel=0.12)  # of the standing figure; a stride makes it lower
    feet = views.boxes[:, 3].tolist()
    assert max(feet) - min(feet) <= 4
    small, large = views.images[0], views.images[2]
    assert torch.equal(small[:, :30, :60], large[:, :30, :60])


def test_street_is_swapped_only_beyond_the_reach(scenes):
    before = factors.draw_views(scenes)
    everywhere = factors.street_swapped_beyond(scenes, 99, 0)
    ring = factors.street_swapped_beyond(scenes, 99, 10)
    for old, new, part, mask in zip(before.images, everywhere.images, ring.images, before.masks, strict=True):
        hers = torch.from_numpy(mask)
        assert mask.any() and torch.equal(old[:, hers], new[:, hers]) and not torch.equal(old, new)
        changed = (old != part).any(0).numpy()
        ys, xs = np.nonzero(mask)
        for y, x in np.argwhere(changed)[::97]:
            assert np.hypot(ys - y, xs - x).min() > 10
        far = (part == new).all(0) | (part == old).all(0)
        assert far.all()
    assert torch.equal(ring.boxes, before.boxes)
    unchanged = factors.street_swapped_beyond(scenes, 99, 1000)
    assert all(torch.equal(a, b) for a, b in zip(unchanged.images, before.images, strict=True))


def test_neighbour_comes_nearer_without_touching_the_person(scenes):
    other = sample_person(np.random.default_rng(9))
    before = factors.draw_views(scenes[:1])
    overlap = []
    for gap in (0.3, 0.6, 0.9):
        after = factors.draw_views([factors.with_neighbor(scenes[0], other, gap)])
        assert torch.equal(after.boxes, before.boxes)
        core = torch.from_numpy(before.masks[0] & after.masks[0])
        assert torch.equal(after.images[0][:, core], before.images[0][:, core])
        x1, y1, x2, y2 = before.boxes[0].int().tolist()
        overlap.append(int((after.images[0] != before.images[0]).any(0)[y1:y2, x1:x2].sum()))
    assert overlap[0] > overlap[1] >= overlap[2]


def test_somebody_out_of_the_picture_is_named(scenes):
    gone = scenes[0].with_(position=(9.0, 0.9))
    with pytest.raises(UserError, match="person 0 of scene 0"):
        factors.draw_views([gone])


def test_likeness_against_loops():
    rng = np.random.default_rng(1)
    first, second = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in rng.normal(size=(2, 5, 4)))
    found = factors.likeness(first, second)
    for one in range(5):
        cosines = [float(second[one] @ first[other]) for other in range(5)]
        assert found.own[one] == pytest.approx(cosines[one])
        assert found.others[one] == pytest.approx(np.mean([c for other, c in enumerate(cosines) if other != one]))
        assert found.nearest[one] == (max(cosines) == cosines[one])
    same = factors.likeness(first, first)
    np.testing.assert_allclose(same.moved, 0, atol=1e-6)


def test_embedding_in_parts_and_at_levels(scenes):
    model = toy_model(levels=("P3", "P4", "P5")).eval()
    views = factors.draw_views(scenes)
    whole, strides = factors.embed_views(model, views)
    parts, _ = factors.embed_views(model, views, batch_size=2)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    levels, points = factors.embed_at_levels(model, views)
    assert levels.shape == (3, 3, whole.shape[1])
    np.testing.assert_allclose(np.linalg.norm(levels, axis=2), 1, atol=1e-5)
    assert set(strides.tolist()) <= {4, 8, 16}
    assert not np.allclose(levels[0], levels[1])
    middles = (views.boxes[:, :2] + views.boxes[:, 2:]) / 2
    for stride, where in zip((4, 8, 16), points, strict=True):
        assert (where % stride == stride / 2).all() and ((where - middles).abs() <= stride / 2).all()
    places = torch.tensor([[19.0, 27.0], [21.0, 29.0]])[:, None].expand(2, 3, 2)  # two places, the same in three scenes
    moved, near = factors.embed_at_levels(model, views, places)
    assert moved.shape == (3, 2, 3, whole.shape[1])
    assert near[0, :, 0].tolist() == [[18, 26], [22, 30]]  # on P3 two cells, on P4 and P5 the same one
    assert near[1:, :, 0].tolist() == [[[20, 28]] * 2, [[24, 24]] * 2]
    np.testing.assert_allclose(moved[1:, 0], moved[1:, 1], atol=1e-5)
    assert not np.allclose(moved[0, 0], moved[0, 1])
