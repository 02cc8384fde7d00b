"""Pictures of embeddings: places, marks, numbers in titles; what the linked view shows as pure functions."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pslib.data.annotations import Frame, PersonSearchSet
from pslib.errors import UserError
from pslib.evaluation.separation import within_between
from pslib.experiments import pictured as records
from pslib.experiments.pictured import Known, Pictured, Row
from pslib.experiments.records import Record
from pslib.viz import embeddings as draw
from pslib.viz import linked_view as view
from pslib.viz.legible import illegible
from pslib.viz.point_picker import PATHS


def clouds(count=3, times=12, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), times)
    return 8 * rng.normal(size=(count, dim))[labels] + rng.normal(size=(len(labels), dim)), labels


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


def test_tsne_is_seeded_and_separates_clouds():
    features, labels = clouds()
    points = draw.tsne(features, perplexity=5, seed=1, start="random")
    np.testing.assert_array_equal(points, draw.tsne(features, perplexity=5, seed=1, start="random"))
    assert not np.array_equal(points, draw.tsne(features, perplexity=5, seed=2, start="random"))
    far = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(far, np.inf)
    assert np.mean(labels[far.argmin(axis=1)] == labels) > 0.9


def test_started_at_pca_the_seed_changes_nothing_and_cosine_ignores_lengths():
    features, _ = clouds()
    first = draw.tsne(features, "cosine", perplexity=5, seed=0)
    np.testing.assert_array_equal(first, draw.tsne(features, "cosine", perplexity=5, seed=3))
    stretched = features * np.linspace(0.5, 4, len(features))[:, None]
    np.testing.assert_allclose(draw.pca(stretched, "cosine"), draw.pca(features, "cosine"), atol=1e-9)


def test_pca_is_scikit_learn_s_up_to_signs():
    from sklearn.decomposition import PCA

    features, _ = clouds()
    np.testing.assert_allclose(np.abs(draw.pca(features)), np.abs(PCA(2).fit_transform(features)), atol=1e-9)
    np.testing.assert_allclose(draw.pca(-features), -draw.pca(features), atol=1e-9)


def test_what_cannot_be_drawn_is_said():
    features, _ = clouds()
    for bad in (0.5, 36):
        with pytest.raises(UserError, match="perplexity=.* between 1 and 36"):
            draw.tsne(features, perplexity=bad)
    with pytest.raises(UserError, match="all features coincide"):
        draw.tsne(np.ones((20, 4)), perplexity=3)
    with pytest.raises(UserError, match="one direction only"):
        draw.pca(np.arange(5.0)[:, None])
    with pytest.raises(UserError, match="start"):
        draw.tsne(features, perplexity=5, start="somewhere")
    with pytest.raises(UserError, match="not finite"):
        draw.pca(np.where(features > 1, np.nan, features))


def test_fifteen_people_have_fifteen_styles_and_each_a_path():
    assert len({draw.style_of(group) for group in range(15)}) == 15
    assert len({draw.style_of(group) for group in range(30)}) == 30
    few = [draw.style_of(group) for group in range(5)]
    assert len({color for color, _ in few}) == len({mark for _, mark in few}) == 5
    assert set(PATHS) == set(draw.MARKS)


def test_groups_of_height_camera_and_hiding():
    assert np.bincount(draw.by_height(np.arange(30.0)).of).tolist() == [10, 10, 10]
    assert draw.by_visible(np.array([1.0, 0.8, 0.5, 0.2])).of.tolist() == [0, 1, 2, 2]
    cameras = draw.by_camera(np.array([4, 2, 4]))
    assert cameras.names == ("camera 2", "camera 4") and cameras.of.tolist() == [1, 0, 1]
    with pytest.raises(UserError, match="does not say which camera"):
        draw.by_camera(np.zeros(3, int))
    with pytest.raises(UserError, match="known_of"):
        draw.by_visible(np.array([1.0, np.nan]))


def test_panels_hold_every_point_once_and_the_numbers_in_their_titles():
    features, labels = clouds()
    points = draw.pca(features)
    note = draw.described(features, labels, points, "euclidean", 3)
    panels = {"one": draw.Panel(points, draw.by_person(labels), note), "two": draw.Panel(points, draw.by_group(labels))}
    fig = draw.panels_figure(panels, 4, legend=True)
    first, second = fig.axes
    assert first.get_title() == f"one\n{note}" and second.get_title() == "two"
    assert sum(len(one.get_offsets()) for one in first.collections) == len(labels)
    np.testing.assert_allclose(first.collections[1].get_offsets(), points[labels == 1])
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["person 1", "person 2", "person 3"]
    assert note in draw.panels_alt(panels) and draw.panels_alt(panels).endswith("; two")


def test_no_title_runs_into_the_next_panels():
    """Eight small panels whose line of numbers is too wide at the usual size; a short title keeps that size."""
    features, labels = clouds()
    points = draw.pca(features)
    panel = draw.Panel(points, draw.by_person(labels), "purity 0.57, drawn 0.60, w/b 0.50")
    fig = draw.panels_figure({f"model {number}": panel for number in range(8)}, 4, width=8.0)
    fig.draw_without_rendering()
    for ax in fig.axes:
        title, frame = ax.title.get_window_extent(), ax.get_window_extent()
        assert frame.x0 - 1 <= title.x0 and title.x1 <= frame.x1 + 1
    sizes = {ax.title.get_fontsize() for ax in fig.axes}
    assert len(sizes) == 1 and 6 < sizes.pop() < 8.5
    (ax,) = draw.panels_figure({"one": draw.Panel(points, draw.by_person(labels))}, 4).axes
    assert ax.title.get_fontsize() == 8.5


def test_numbers_stand_where_they_are_and_the_rank_correlation_is_told():
    worth = {"a": 10.0, "b": 20.0, "c": 30.0}
    fig = draw.numbers_figure({"good": {"a": 1, "b": 2, "c": 9}, "bad": {"a": 3, "b": 2, "c": 1}}, worth, "mAP")
    assert "rank correlation +1.00" in fig.axes[0].get_title() and "-1.00" in fig.axes[1].get_title()
    assert [tuple(line.get_xydata()[0]) for line in fig.axes[0].lines] == [(1, 10), (2, 20), (9, 30)]
    assert [text.get_text() for text in fig.axes[0].texts] == ["1", "2", "3"]


def test_numbers_of_models_that_nearly_coincide_can_be_read():
    """Five models in one spot and one far off: no number covers another number or another model's point."""
    places = {"a": 0.5, "b": 0.501, "c": 0.5, "d": 0.502, "e": 0.499, "f": 0.9}
    worth = {"a": 40.0, "b": 40.3, "c": 39.6, "d": 39.9, "e": 40.2, "f": 60.0}
    family = {name: "one" if name < "d" else "two" for name in worth}
    fig = draw.numbers_figure({"x": places, "y": worth}, worth, "mAP", family)
    fig.draw_without_rendering()
    for ax in fig.axes:
        boxes = [text.get_window_extent().padded(-1) for text in ax.texts]
        spots = ax.transData.transform([line.get_xydata()[0] for line in ax.lines])
        for row, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:row])
            assert not any(box.contains(*spot) for spot in spots)
            assert ax.get_window_extent().contains(*box.get_points().mean(axis=0))
            others = np.linalg.norm(spots - box.get_points().mean(axis=0), axis=1)
            assert others[row] < 15  # px: she stands by her own point
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["one", "two"]
    looks = [(line.get_color(), line.get_marker()) for line in fig.axes[0].lines]
    assert looks[0] == looks[1] == looks[2] and looks[3] == looks[5] and looks[0] != looks[3]


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
    features, people = clouds()  # three people of twelve boxes, well apart: 11 of 35 others are one's own
    many = replace(
        linked, points=draw.pca(features), pictured=replace(linked.pictured, embeddings=features, people=people)
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


def pictured(embeddings, frames=(0, 1, 2, 3)):
    return Pictured(np.asarray(embeddings), np.array([4, 4, 6, 6]), np.array(frames), np.ones((4, 4)), 0, 50.0)


def test_a_record_gives_its_people_and_rows_that_are_not_there_are_named(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"pictured/embeddings": rng.normal(size=(4, 3)).astype(np.float16), "pictured/people": np.arange(4),
              "pictured/frames": np.arange(4), "pictured/boxes": np.ones((4, 4), np.float16),
              "TestG100/ground-truth/ap": np.array([0.25, 0.75], np.float32)}  # fmt: skip
    info = {"seed": 3, "protocols": ["TestG50", "TestG100"]}
    found = records.pictured_of(Record(tmp_path / "x.json", info, arrays))
    assert found.retrieval == 50 and found.similarity == "euclidean" and found.seed == 3
    assert pictured(np.eye(4)).similarity == "cosine"
    with pytest.raises(UserError, match="holds no pictured people"):
        records.pictured_of(Record(tmp_path / "x.json", info, {"pictured/embeddings": np.eye(4)}))
    rows = [Row("no experiment", "no-such-table", "row"), Row("no row", "ian-table1", "no such row")]
    assert records.recorded_sets(rows) == ({}, ["no experiment", "no row"])


def test_stacked_sets_keep_boxes_in_order_and_refuse_others():
    both, part = records.stacked({"dense": pictured(np.eye(4)), "ROI": pictured(2 * np.eye(4))})
    assert part.tolist() == ["dense"] * 4 + ["ROI"] * 4 and both.people.tolist() == [4, 4, 6, 6] * 2
    np.testing.assert_array_equal(both.embeddings[4:], 2 * np.eye(4))
    for other in (pictured(np.eye(4)[:, :3]), pictured(np.eye(4), (0, 1, 2, 9))):
        with pytest.raises(UserError, match="dense and ROI picture different boxes"):
            records.stacked({"dense": pictured(np.eye(4)), "ROI": other})
