"""Pictures of embeddings: places, marks, numbers in titles; the records they are drawn from."""

import numpy as np
import pytest

from pslib.errors import UserError
from pslib.experiments import pictured as records
from pslib.experiments.pictured import Pictured, Row
from pslib.experiments.records import Record
from pslib.viz import embeddings as draw
from pslib.viz.point_picker import PATHS


def clouds(count=3, times=12, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), times)
    return 8 * rng.normal(size=(count, dim))[labels] + rng.normal(size=(len(labels), dim)), labels


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
    panels = {name: draw.Panel(points, draw.by_person(labels), text) for name, text in (("one", note), ("two", ""))}
    fig = draw.panels_figure(panels, 4, legend=True)
    first, second = fig.axes
    assert first.get_title() == f"one\n{note}" and second.get_title() == "two"
    assert sum(len(one.get_offsets()) for one in first.collections) == len(labels)
    np.testing.assert_allclose(first.collections[1].get_offsets(), points[labels == 1])
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["person 1", "person 2", "person 3"]
    assert note in draw.panels_alt(panels) and draw.panels_alt(panels).endswith("; two")
    with pytest.raises(UserError, match="one legend cannot name different groups"):
        draw.panels_figure(panels | {"two": draw.Panel(points, draw.by_group(labels))}, legend=True)


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
