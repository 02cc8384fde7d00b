"""Pictures of a dense detector, plots that compare models, and re-id by pyramid level."""

from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from pslib.data.annotations import UNLABELLED
from pslib.evaluation.levels import BoxEmbeddings, embed_boxes, retrieval_by_level
from pslib.evaluation.statistics import Interval
from pslib.models.alignps import STRUCTURES, AlignPS, AlignPSConfig
from pslib.models.assignment import assign_targets
from pslib.models.fcos import level_points
from pslib.training.recipes import RECIPES
from pslib.viz import curves, dense
from pslib.viz.architecture import architecture_figure, watched_shapes
from pslib.viz.figures import RIGHT, WRONG

STRIDES = {"P3": 4, "P4": 8, "P5": 16}
IMAGE = np.full((32, 48, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def baseline():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AlignPS(RECIPES["baseline"].model, num_identities=3).eval()


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for ax in fig.findobj(match=lambda item: hasattr(item, "get_xlim")) for text in ax.texts]


def test_points_are_drawn_where_the_cells_are():
    fig = dense.points_figure((32, 48), torch.tensor([[2.0, 2.0, 16.0, 30.0]]), STRIDES)
    for ax, stride in zip(fig.axes, STRIDES.values(), strict=True):
        drawn = np.asarray(ax.collections[0].get_offsets())
        np.testing.assert_allclose(drawn + 0.5, level_points(32 // stride, 48 // stride, stride).numpy())
    assert fig.axes[1].get_title() == "P4: stride 8 px, 4 x 6 cells"


def test_assignment_figure_fills_each_positive_cell_once():
    boxes = torch.tensor([[2.0, 2.0, 16.0, 30.0], [30.0, 10.0, 40.0, 24.0]])
    points = torch.cat([level_points(32 // stride, 48 // stride, stride) for stride in STRIDES.values()])
    counts = [32 // stride * (48 // stride) for stride in STRIDES.values()]
    strides = torch.tensor([4.0, 8.0, 16.0]).repeat_interleave(torch.tensor(counts))
    ranges = torch.tensor([[0.0, 10.0], [10.0, 40.0], [40.0, torch.inf]]).repeat_interleave(torch.tensor(counts), 0)
    matched, _ = assign_targets(points, strides, ranges, boxes)
    fig = dense.assignment_figure(IMAGE, boxes, points, strides, matched, STRIDES)
    for ax, stride in zip(fig.axes, STRIDES.values(), strict=True):
        here = (strides == stride) & (matched >= 0)
        filled = [patch for patch in ax.patches if patch.get_fill()]
        assert len(filled) == int(here.sum())
        assert {patch.get_width() for patch in filled} <= {stride}
        assert f"{len(filled)} positive of {int((strides == stride).sum())}" in ax.get_title()
    # Each box is solid where it has cells and dotted where it has none.
    for ax, stride in zip(fig.axes, STRIDES.values(), strict=True):
        outlines = [patch.get_linestyle() for patch in ax.patches if not patch.get_fill()]
        answered = [bool(((strides == stride) & (matched == person)).any()) for person in range(2)]
        assert outlines == ["solid" if one else "dotted" for one in answered for _ in range(2)]  # her color on black
    drawn = {to_hex(patch.get_facecolor()) for patch in fig.axes[1].patches if patch.get_fill()}
    assert drawn <= {to_hex(patch.get_edgecolor()) for patch in fig.axes[1].patches if not patch.get_fill()}


def test_cell_figure_names_the_four_distances():
    fig = dense.cell_figure(IMAGE, torch.tensor([8.0, 4.0, 24.0, 30.0]), torch.tensor([12.0, 12.0]), stride=8)
    assert {"l = 4 px", "t = 8 px", "r = 12 px", "b = 18 px"} <= set(texts(fig))
    # centres inside the box: x 12, 20; y 4 lies on the side, 12, 20, 28 inside
    numbers = [float(text) for text in texts(fig) if text[:1].isdigit()]
    assert len(numbers) == 6 and max(numbers) <= 1
    assert f"{np.sqrt(4 / 12 * 8 / 18):.2f}" in texts(fig)


def test_detections_are_told_hit_from_miss_by_more_than_colour():
    truth = [np.array([[5, 5, 15, 30], [30, 5, 40, 30]], np.float32)]
    found = [{"boxes": torch.tensor([[5.0, 6.0, 15.0, 30.0], [20.0, 0.0, 25.0, 9.0], [30.0, 5.0, 40.0, 30.0]]),
              "scores": torch.tensor([0.9, 0.5, 0.1])}]  # fmt: skip
    fig = dense.detections_figure([IMAGE], truth, found, min_score=0.3)
    assert fig.axes[0].get_title() == "1 of 2 people found, 1 false"
    assert f"{RIGHT[2]} 0.90" in texts(fig) and f"{WRONG[2]} 0.50" in texts(fig)


def test_scores_of_neighbors_do_not_cover_each_other():
    """Two people side by side and one at the right edge: the labels stand apart, none is cut."""
    image = np.zeros((144, 224, 3), np.uint8)
    boxes = torch.tensor([[50.0, 40, 62, 80], [58.0, 42, 70, 80], [214.0, 40, 223, 80]])
    fig = dense.detections_figure([image] * 2, [boxes] * 2, [{"boxes": boxes, "scores": torch.full((3,), 0.9)}] * 2)
    fig.draw_without_rendering()
    for ax in fig.axes:
        frames = [text.get_window_extent() for text in ax.texts]
        assert len(frames) == 3 and not any(one.overlaps(other) for one, other in combinations(frames, 2))
        assert all(ax.bbox.x0 <= one.x0 and one.x1 <= ax.bbox.x1 + 1 for one in frames)


@pytest.mark.parametrize("boxes", [np.zeros((0, 4), np.float32), np.array([[5, 5, 15, 30]], np.float32)])
def test_detections_figure_without_people_or_without_detections(boxes):
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
    fig = dense.detections_figure([IMAGE], [boxes], [nothing])
    assert fig.axes[0].get_title() == f"0 of {len(boxes)} people found, 0 false"


def test_loss_shapes():
    left, right = dense.loss_shapes_figure().axes
    entropy, focal, _ = (np.asarray(line.get_ydata()) for line in left.lines)
    assert (focal < entropy).all()
    iou, giou = (np.asarray(line.get_ydata()) for line in right.lines)
    assert iou[-1] == 1 and giou[-1] > 1  # without overlap only GIoU still tells near from far


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("levels", [("P3",), ("P3", "P4", "P5")])
def test_architecture_is_drawn_from_real_shapes(structure, levels):
    model = AlignPS(AlignPSConfig(structure=structure, levels=levels, lateral="conv", output="conv"), 3).train()
    shapes = watched_shapes(model, (33, 50))  # padded to 48 x 64
    assert model.training  # left as it was
    assert shapes["image"] == (3, 48, 64) and shapes["C5"] == (128, 3, 4) and shapes["embedding"] == (48, 12, 16)
    assert ("P5" in shapes) == ("P5" in levels)
    shown = "\n".join(texts(architecture_figure(model, (33, 50))))
    assert "48 x 12 x 16" in shown
    assert ("(P5 not made)" in shown) == ("P5" not in levels)
    assert ("re-id tower" in shown) == (structure == "parallel")


def test_lines_intervals_and_matrices_show_their_values():
    line = curves.Line([0, 1], [2.0, 3.0], "baseline", "baseline", spread=[[1, 2], [3, 4]])
    pair = [curves.Line([0], [1], "x"), curves.Line([0], [1], "y")]
    fig = curves.lines_figure({"a": [line], "b": pair, "c": []}, "step", "mAP")
    assert [ax.get_title() for ax in fig.axes] == ["a", "b", "c", ""]
    styles = [(drawn.get_color(), drawn.get_linestyle()) for drawn in fig.axes[1].lines]
    assert len({color for color, _ in styles}) == len({dash for _, dash in styles}) == 2
    value = Interval(40.0, 35.0, 45.0)
    fig = curves.intervals_figure({"set": {"mAP": {"baseline": value, "alignps": value}}})
    assert texts(fig).count("40.0") == 2
    few = np.full((2, 2), 7)
    fig = curves.matrix_figure({"m": np.array([[1.0, np.nan], [3.0, 4.0]])}, ("P3", "P4"), "query", "gallery", few)
    assert {"1\n(7)", "too few", "3\n(7)", "4\n(7)"} <= set(texts(fig))
    assert fig.axes[-1].get_ylabel() == "mAP, per cent"  # the scale says of what
    curves.matrix_figure({"m": np.full((2, 2), np.nan)}, ("P3", "P4"), "query", "gallery", few)
    fig = curves.matrix_figure(
        {"m": np.array([[1.0, 0.256], [0.3, 1.0]])}, ("P3", "P4"), "from", "from", form=".2f", label="cosine"
    )
    assert fig.axes[-1].get_ylabel() == "cosine"
    assert [text.get_text() for text in fig.axes[0].texts] == ["1.00", "0.26", "0.30", "1.00"]
    fig = curves.lines_figure({"a": [line]}, "height", marks=[0.25])
    assert fig.axes[0].lines[-1].get_xdata() == [0.25, 0.25]


def test_embed_boxes_reads_what_the_evaluation_reads(baseline):
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, 144, 224, generator=generator), torch.rand(3, 128, 192, generator=generator)]
    small, large = [20.0, 30.0, 32.0, 60.0], [60.0, 10.0, 100.0, 120.0]
    boxes = [torch.tensor([small, large]), torch.zeros(0, 4)]
    embeddings, strides = embed_boxes(baseline, images, boxes)
    with torch.no_grad():
        _, wanted = baseline.detect_and_embed(images, boxes)
    np.testing.assert_allclose(embeddings, torch.cat(wanted).numpy(), atol=1e-6)
    assert strides.tolist() == [4, 16]


def slow_retrieval(found: BoxEmbeddings, groups: np.ndarray, distractors: int) -> dict[tuple[int, int], list[float]]:
    """AP of every query by (query's group, gallery's group), by sorting, with the same draws."""
    rng, values = np.random.default_rng(0), {}
    for query in range(len(groups)):
        if found.people[query] == UNLABELLED:
            continue
        for column in range(3):
            pool = [box for box in range(len(groups))
                    if groups[box] == column and found.frames[box] != found.frames[query]]  # fmt: skip
            others = [box for box in pool if found.people[box] != found.people[query]]
            hers = [box for box in pool if found.people[box] == found.people[query]]
            if not hers or len(others) < distractors:
                continue
            gallery = hers + list(rng.choice(others, distractors, replace=False))
            gallery.sort(key=lambda box: -float(found.embeddings[box] @ found.embeddings[query]))
            right = [box in hers for box in gallery]
            precisions = [sum(right[: at + 1]) / (at + 1) for at, hit in enumerate(right) if hit]
            values.setdefault((groups[query], column), []).append(np.mean(precisions))
    return values


def drawn_boxes(seed: int, count: int = 60) -> tuple[BoxEmbeddings, np.ndarray]:
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(count, 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    groups = rng.integers(0, 3, count)
    found = BoxEmbeddings(embeddings, np.array([4, 8, 16])[groups], np.zeros((count, 4), np.float32),
                          rng.integers(-1, 6, count), rng.integers(0, 20, count))  # fmt: skip
    return found, groups


@pytest.mark.parametrize("seed", range(3))
def test_retrieval_by_level_against_sorting(seed):
    found, groups = drawn_boxes(seed)
    result = retrieval_by_level(found, groups, np.random.default_rng(0), distractors=12)
    slow = slow_retrieval(found, groups, 12)
    for row in range(3):
        for column in range(3):
            values = slow.get((row, column), [])
            assert result.queries[row, column] == len(values)
            assert result.ap[row, column] == pytest.approx(np.mean(values) if values else np.nan, nan_ok=True)
    assert 0 < result.queries.sum() < (found.people != UNLABELLED).sum() * 3


def test_a_small_group_does_not_look_easier():
    """Embeddings of chance, two boxes a person in each group: 40 boxes are as hard as 400, or are left out."""
    people = np.concatenate([np.arange(400) // 2, np.arange(40) // 2, np.arange(40) // 2])
    groups = np.repeat([0, 1, 2], [400, 40, 40])
    embeddings = np.random.default_rng(0).normal(size=(480, 16)).astype(np.float32)
    found = BoxEmbeddings(embeddings, np.full(480, 4), np.zeros((480, 4)), people, np.arange(480))
    few = retrieval_by_level(found, groups, np.random.default_rng(0), distractors=30)
    assert few.queries[2, :2].tolist() == [40, 40] and few.ap[2, 0] == pytest.approx(few.ap[2, 1], abs=0.05)
    many = retrieval_by_level(found, groups, np.random.default_rng(0), distractors=300)
    assert many.queries[2].tolist() == [40, 0, 0] and np.isnan(many.ap[2, 1:]).all()


def test_retrieval_sees_planted_misalignment():
    """Embeddings turned by another map on one level: within levels all is well, across levels nothing is."""
    rng = np.random.default_rng(0)
    people = np.tile(np.arange(12), 4)
    groups = np.repeat([0, 0, 1, 1], 12)
    axes = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    embeddings = np.where(groups[:, None] == 0, np.eye(12)[people], axes[people]).astype(np.float32)
    found = BoxEmbeddings(embeddings, 4 + 4 * groups, np.zeros((48, 4)), people, np.arange(48))
    result = retrieval_by_level(found, groups, rng, distractors=11)
    assert np.diag(result.ap).tolist() == [1.0, 1.0] and np.diag(result.same) == pytest.approx(1.0)
    assert result.ap[0, 1] < 0.5 and result.ap[1, 0] < 0.5
    assert (result.queries == 24).all()


def test_retrieval_without_a_pair_is_nan():
    found, groups = drawn_boxes(0, 20)
    alone = BoxEmbeddings(found.embeddings, found.strides, found.boxes, np.arange(20), found.frames)
    result = retrieval_by_level(alone, groups, np.random.default_rng(0))
    assert np.isnan(result.ap).all() and (result.queries == 0).all()


def test_panels_of_the_same_lines_share_a_legend_and_others_keep_their_own():
    def panels(*labels):
        return {str(place): [curves.Line([0, 1], [0, 1], label, "baseline")] for place, label in enumerate(labels)}

    same, other = curves.lines_figure(panels("a", "a"), "x"), curves.lines_figure(panels("a", "b", "c"), "x")
    assert [text.get_text() for text in same.legends[0].get_texts()] == ["a"]
    assert not other.legends and [ax.get_legend() is not None for ax in other.axes] == [True, True, True, False]
    one = curves.lines_figure(panels("a"), "x")  # a single panel has room for "best"
    assert not one.legends and one.axes[0].get_legend() is not None
    # The same label in two looks is two lines: a legend of one would name the wrong one.
    mixed = curves.lines_figure({"0": panels("a")["0"], "1": [curves.Line([0, 1], [0, 1], "a", "alignps")]}, "x")
    assert not mixed.legends
