"""The linked view: who is near whom, what is drawn of it, and the widget driven by the events that a page sends."""

from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from PIL import Image

from pslib.data.annotations import Frame, PersonSearchSet
from pslib.errors import UserError
from pslib.evaluation.separation import within_between
from pslib.experiments.pictured import Known, Pictured
from pslib.viz import linked_view as view
from pslib.viz.embeddings import pca
from pslib.viz.legible import illegible


@pytest.fixture
def linked(tmp_path):
    """Six boxes of two people in six frames; the picture swaps who is near: places 0..5 stand in another order."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (60, 90, 3), np.uint8)).save(path)
        box = np.array([[30.0, 10, 44, 50]], np.float32)
        frames.append(Frame(path.name, path, box, np.array([7 + number // 3]), 0))
    data = PersonSearchSet("cuhk-sysu", "test", tmp_path, frames)
    embeddings = np.array([[0.0, 0], [1, 0], [2.5, 0], [10, 0], [11, 0], [12.5, 0]])
    boxes = np.repeat([[30.0, 10, 44, 50]], 6, axis=0)
    people = Pictured(embeddings, np.repeat([7, 8], 3), np.arange(6), boxes, seed=0, retrieval=50.0)
    known = Known(np.array([40.0, 42, 50, 60, 61, 90]), np.zeros(6, int), np.array([1.0, 0.9, 0.4, 1, 1, 1]))
    points = np.array([[0.0, 0], [9, 0], [5, 0], [1, 0], [2, 0], [8, 0]])
    return view.Linked(points, people, known, data)


def test_nearest_in_the_space_and_as_drawn_differ_where_they_must(linked):
    near, far = view.nearest(linked, 0, 2)
    assert near.tolist() == [1, 2] and far.tolist() == [1, 2.5]
    near, far = view.nearest(linked, 0, 2, drawn=True)
    assert near.tolist() == [3, 4] and far.tolist() == [1, 2]
    with pytest.raises(UserError, match="point 6 is not in the picture"):
        view.nearest(linked, 6)


def test_crops_say_who_is_near_where(linked):
    fig, words = view.crops_figure(linked, 0)
    told = [text.get_text() for text in fig.axes[0].texts]
    assert "person 1, and her nearest in the space" in told and "nearest on the picture" in told
    assert "person 1, distance 1.00" in told and "person 2, drawn at 1.0" in told
    assert "40 px, 100 % visible" in told
    same, other = "same person", "other person"
    assert words == (f"Point 0, person 1. Nearest in the space: {same}, {same}, {other}, {other}. "
                     f"Nearest on the picture: {other}, {other}, {same}, {other}. 3 of 4 are the same.")  # fmt: skip


@pytest.mark.parametrize("camera", [0, 6])
def test_what_stands_below_a_crop_is_no_wider_than_it(linked, camera):
    """With all that a box may have: a branch of the longest name, a camera, a part hidden, a distance."""
    known = replace(linked.known, camera=np.full(6, camera), visible=np.full(6, 0.47), height=np.full(6, 128.0))
    both = replace(linked, known=known, branch=np.array(["ROI-AlignPS, dense branch"] * 6))
    fig, words = view.crops_figure(both, 0)
    assert words.startswith("Point 0, person 1 (ROI-AlignPS, dense branch). ")
    assert illegible(fig) == []
    below = [text for text in fig.axes[0].texts if text.get_fontsize() < 8]
    assert "ROI-AlignPS, dense branch" in [text.get_text() for text in below]
    for text in below:
        assert text.get_window_extent().width < 158, text.get_text()  # px from one crop to the next


def test_picker_gets_places_marks_and_an_order_by_person(linked):
    points, legend, order = view.picked_points(linked, "identity")
    assert [entry["name"] for entry in legend] == ["person 1", "person 2"] and order == [0, 1, 2, 3, 4, 5]
    assert all(0 < point[axis] < 400 for point in points for axis in "xy")
    assert points[1]["x"] - points[0]["x"] == pytest.approx(9 / 9 * (400 - 36))
    assert {point["color"] for point in points[:3]} == {legend[0]["color"]} != {points[3]["color"]}
    higher = replace(linked, points=linked.points[:, ::-1])
    above = view.picked_points(higher, "identity")[0]
    assert above[1]["y"] < above[0]["y"]  # up on the picture is a smaller y in a page


def test_colorings_that_are_not_known_are_said(linked):
    assert view.groups_of(linked, "scale").of.tolist() == [0, 0, 1, 1, 2, 2]
    assert "hidden by half or more (1)" in view.cloud_alt(linked, "a model", "occlusion")
    with pytest.raises(UserError, match="camera"):
        view.groups_of(linked, "camera")
    with pytest.raises(UserError, match="one branch only"):
        view.groups_of(linked, "branch")
    with pytest.raises(UserError, match="coloring"):
        view.groups_of(linked, "hue")
    branches = replace(linked, branch=np.array(["dense", "ROI"] * 3))
    assert view.groups_of(branches, "branch").names == ("ROI", "dense")


def test_numbers_beside_a_picture_are_those_of_its_coloring(linked):
    """Purity of five neighbors among six points: each sees all others, two of her own person (0.4) or one of her size
    (0.2), in the space as on the picture; so chance is the same."""
    told = view.cloud_numbers(linked, "identity")
    ratio = within_between(linked.pictured.embeddings, linked.pictured.people)
    assert told == f"identity: purity 0.40, drawn 0.40, w/b {ratio:.2f}; purity by chance 0.40"
    assert "purity 0.20, drawn 0.20" in view.cloud_numbers(linked, "scale")
    assert told in view.cloud_alt(linked, "a model", "identity")
    assert view.cloud_figure(linked, "identity").axes[0].get_title() == told
    whole = replace(linked, known=replace(linked.known, visible=np.ones(6)))
    assert view.cloud_numbers(whole, "occlusion") == "occlusion: one group only, so there is nothing to keep apart"
    with pytest.raises(UserError, match="camera"):
        view.cloud_numbers(linked, "camera")
    rng, people = np.random.default_rng(0), np.repeat(np.arange(3), 12)  # well apart: 11 of 35 others are one's own
    features = 8 * rng.normal(size=(3, 6))[people] + rng.normal(size=(36, 6))
    many = replace(
        linked, points=pca(features), pictured=replace(linked.pictured, embeddings=features, people=people)
    )
    assert "identity: purity 1.00" in (told := view.cloud_numbers(many, "identity")) and told.endswith("chance 0.31")


def test_shell_chooses_colors_and_says_mistakes(linked):
    shell = view.LinkedView({"one": linked, "two": linked}, 2)
    assert shell.numbers.value == f"one, by {view.cloud_numbers(linked, 'identity')}"
    assert shell.picker.chosen == 2 and "Point 2" in shell.crops.value
    shell.picker._handle_custom_msg({"kind": "point", "index": 4}, [])
    assert shell.picker.chosen == 4 and "Point 4" in shell.crops.value and shell.picker.links[0] == 3
    shell.by.value = "scale"
    assert shell.picker.chosen == 4 and "colored by scale" in shell.picker.alt
    assert shell.numbers.value == f"one, by {view.cloud_numbers(linked, 'scale')}"
    shell.by.value = "camera"
    assert shell.numbers.value.startswith("one, by scale: ")  # those of the picture that is still there
    assert "does not say which camera" in shell.note.value and "colored by scale" in shell.picker.alt
    shell.model.value, shell.by.value = "two", "identity"
    assert shell.picker.alt.startswith("two, colored by identity") and shell.note.value == ""
    assert shell.numbers.value.startswith("two, by identity: ")
    with pytest.raises(UserError, match="no model to show"):
        view.LinkedView({})


def test_a_coloring_that_the_next_model_has_not_leaves_picture_and_controls_agreed(linked):
    """The points of another model are never shown under the old picture, and the reason stays till it is acted on."""
    cameras = replace(linked, known=replace(linked.known, camera=np.array([2, 4] * 3)), branch=np.array(["a", "b"] * 3))
    shell = view.LinkedView({"cameras": cameras, "none": replace(linked, points=linked.points[::-1])}, 2)
    for by, words in (("camera", "does not say which camera"), ("branch", "one branch only")):
        shell.model.value, shell.by.value = "cameras", by
        assert shell.picker.alt.startswith(f"cameras, colored by {by}") and shell.note.value == ""
        before = shell.picker.points
        shell.model.value = "none"
        assert "none is colored by identity, since this" in shell.note.value and words in shell.note.value
        assert shell.by.value == "identity" and shell.picker.alt.startswith("none, colored by identity")
        assert shell.numbers.value.startswith("none, by identity: ") and shell.picker.points != before
        shell.picker._handle_custom_msg({"kind": "point", "index": 4}, [])
        assert figure_words(shell) == view.crops_figure(shell.models["none"], 4)[1] and shell.note.value == ""
        shell.by.value = by
        assert words in shell.note.value and shell.by.value == "identity"  # what is drawn


def figure_words(shell):
    return unescape(shell.crops.value.split('alt="')[1].split('"')[0])


def test_a_redrawing_that_fails_leaves_the_old_picture_and_its_people(linked, monkeypatch):
    shell = view.LinkedView({"one": linked, "two": replace(linked, points=linked.points[::-1])})
    before, known = shell.picker.points, view.crops_figure
    monkeypatch.setattr(view, "crops_figure", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shell.model.value = "two"
    monkeypatch.setattr(view, "crops_figure", known)
    assert shell.picker.points == before and shell.picker.alt.startswith("one, ")
    shell.picker._handle_custom_msg({"kind": "point", "index": 1}, [])
    assert figure_words(shell) == view.crops_figure(linked, 1)[1]


def test_a_broken_callback_is_said_and_raised(linked, monkeypatch):
    shell = view.LinkedView({"one": linked})
    monkeypatch.setattr(view, "crops_figure", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shell._guarded(lambda: shell._choose(1))
    assert "the linked view failed (ZeroDivisionError" in shell.note.value


def test_static_picture_rings_the_chosen_point_and_ties_her(linked):
    fig = view.cloud_figure(linked, "identity", 0)
    ties = [line for line in fig.axes[0].lines if len(line.get_xydata()) == 2]
    assert len(ties) == 4
    np.testing.assert_allclose(ties[0].get_xydata(), linked.points[[0, 1]])
