"""Queries drawn again: who is chosen, who walks in where, and boxes that are wrong by a known amount."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from set_fixtures import MINI, mini_sets  # noqa: F401 - fixture
from toy_sets import SMALL

from pslib.data.loading import load
from pslib.data.people import sample_person
from pslib.errors import UserError
from pslib.evaluation import factors, redrawn
from pslib.models.roi_alignps import RoiAlignPS, RoiAlignPSConfig
from pslib.models.roi_branch import RoiBranchConfig


@pytest.fixture(scope="module")
def data(mini_sets):  # noqa: F811
    return load("cuhk-sysu", mini_sets / "cuhk-sysu", "test")


@pytest.fixture(scope="module")
def protocol(data):
    return next(name for name in data.protocols if name.startswith("TestG"))


@pytest.fixture(scope="module")
def chosen(data, protocol):
    return redrawn.choose_queries(data, protocol, 3, height=30, profile=MINI)


def test_queries_are_of_different_people_tall_and_visible(data, protocol, chosen):
    assert 1 <= len(chosen) <= 3 and len({one.person_id for one in chosen}) == len(chosen)
    views = redrawn.redraw(chosen)
    for one, box, visible in zip(chosen, views.boxes, views.visible, strict=True):
        query = data.protocols[protocol].queries[one.query]
        assert query.person_id == one.person_id == one.scene.placements[one.place].person_id
        assert np.abs(box.numpy() - query.box).max() <= 1 and query.box[3] - query.box[1] >= 30
        assert visible >= 0.9
    with pytest.raises(UserError, match="no query of 9000 px"):
        redrawn.choose_queries(data, protocol, 3, height=9000, profile=MINI)


def test_a_change_is_seen_and_the_box_stays(chosen):
    before = redrawn.redraw(chosen)
    after = redrawn.redraw(chosen, lambda scene, place: scene.with_(person=place, occluder=0.5))
    assert torch.equal(before.boxes, after.boxes) and (after.visible < before.visible - 0.2).all()
    for one, owner, image, box in zip(chosen, before.owners, before.images, before.boxes.int().tolist(), strict=True):
        ys, xs = np.nonzero(owner == one.place)
        assert owner.shape == tuple(image.shape[1:]) and len(ys)
        assert box[0] <= xs.min() and xs.max() < box[2] and box[1] <= ys.min() and ys.max() < box[3]
    with pytest.raises(UserError, match="not to be seen any more"):
        redrawn.redraw(chosen, lambda scene, place: scene.with_(person=place, position=(9.0, 0.9)))


@pytest.mark.parametrize("front", [False, True])
def test_somebody_walks_in_on_the_side_with_room(chosen, front):
    stranger = sample_person(np.random.default_rng(0))
    one = chosen[0]
    her = one.scene.placements[one.place]
    changed = redrawn.walk_in(stranger, 0.25, front)(one.scene, one.place)
    newcomer = changed.placements[-1]
    middle = one.scene.size[1] / one.scene.size[0] / 2
    assert changed.placements[:-1] == one.scene.placements
    assert abs(newcomer.x - her.x) == pytest.approx(0.25 * her.height) and (newcomer.x > her.x) == (her.x < middle)
    assert (newcomer.y > her.y) == front and newcomer.person == stranger
    hides = factors.with_neighbor(one.scene, stranger, 0.1, one.place, front)
    hidden = redrawn.redraw([replace(one, scene=hides)]).visible[0]
    assert (hidden < redrawn.redraw([one]).visible[0]) == front


def test_boxes_are_wrong_by_what_was_asked():
    boxes = torch.tensor([[10.0, 10.0, 20.0, 30.0], [0.0, 0.0, 4.0, 8.0]])
    assert torch.equal(redrawn.box_errors(boxes), boxes)
    both = redrawn.box_errors(boxes, shift=-0.5, scale=0.5)
    assert both.tolist() == [[7.5, 5.0, 12.5, 15.0], [-1.0, -2.0, 1.0, 2.0]]


def test_embeddings_stand_box_by_box_and_both_is_the_two_side_by_side(chosen):
    torch.manual_seed(0)
    model = RoiAlignPS(RoiAlignPSConfig(dense=SMALL, roi=RoiBranchConfig(dim=16, queue_size=8)), 6).eval()
    views = redrawn.redraw(chosen)
    boxes = [torch.stack([box, box + 3]) for box in views.boxes]
    found = redrawn.embed_branches(model, views.images, boxes, batch_size=2)
    alone = redrawn.embed_branches(model, views.images[-1:], [boxes[-1][1:]])
    assert found["roi"].shape == (len(chosen), 2, 16)
    for read, rows in found.items():
        np.testing.assert_allclose(np.linalg.norm(rows, axis=2), 1, atol=1e-5)
        np.testing.assert_allclose(rows[-1, 1], alone[read][0, 0], atol=1e-5)
    cosines = {read: rows[0, 0] @ rows[0, 1] for read, rows in found.items()}
    assert cosines["both"] == pytest.approx((cosines["dense"] + cosines["roi"]) / 2, abs=1e-5)


def test_a_protocol_is_cut_to_the_chosen_queries(data, protocol, chosen):
    cut = redrawn.cut_down(data.protocols[protocol], chosen)
    assert [query.person_id for query in cut.queries] == [one.person_id for one in chosen]
    assert len(cut.galleries) == len(chosen)
