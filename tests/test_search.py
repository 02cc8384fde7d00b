"""The vectorised search metric against the readable loop, scikit-learn, hand-worked rankings and planted faults."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from evaluation_cases import draw_case, hand_case
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from pslib.data.annotations import Gallery, Protocol, Query
from pslib.errors import UserError
from pslib.evaluation import average_precision as precision_module
from pslib.evaluation import search as search_module
from pslib.evaluation.average_precision import average_precision
from pslib.evaluation.benchmark import benchmark_evaluator, drawn_protocol
from pslib.evaluation.detections import Detections, normalize
from pslib.evaluation.embed import best_iou_queries, ground_truth_queries
from pslib.evaluation.explain import explain
from pslib.evaluation.galleries import resolve
from pslib.evaluation.ragged import first_equal, paired_iou, ranges, segment_argmax
from pslib.evaluation.reference import box_iou, reference_search
from pslib.evaluation.search import search

SWITCHES = [dict(duplicates=duplicates, query_in_gallery=own, score_threshold=threshold)
            for duplicates, own, threshold in itertools.product(
                ("official", "twice", "drop"), ("keep", "drop"), (0.0, 0.3))]


def assert_same(case, switches):
    protocol, detections, queries, num_frames = case
    fast = search(protocol, detections, queries, num_frames=num_frames, **switches)
    for number, slow in enumerate(reference_search(protocol, detections, queries, **switches)):
        assert fast.ap[number] == pytest.approx(slow["ap"], abs=1e-12), (number, switches)
        for name in ("rank", "found", "positives"):
            assert getattr(fast, name)[number] == slow[name], (number, name, switches)
    return fast


# --- against the loop version ---------------------------------------------------------------------------------------

@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SWITCHES), st.booleans())
def test_equals_the_loop_version(seed, switches, ties):
    assert_same(draw_case(seed, ties=ties), switches)


@pytest.mark.parametrize("cost", [0, 1e9])
@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("different", [1, 3, 250])
def test_equal_embeddings_tie_wherever_they_stand(different, count, cost, monkeypatch):
    """A matrix product sums its last rows in another order: equal rows came out one bit apart."""
    monkeypatch.setattr(search_module, "GATHER_COST", cost)
    rows = 1001
    box = np.array([0, 0, 20, 40], np.float32)
    everywhere = Gallery(np.arange(1, rows + 1), np.array([rows]), box[None])
    for seed in range(6):
        drawn = np.random.default_rng(seed)
        kinds = normalize(drawn.normal(size=(different, 128)).astype(np.float32))
        of = drawn.integers(different, size=rows)
        queries = normalize(drawn.normal(size=(8, 128)).astype(np.float32))
        detections = Detections(np.arange(1, rows + 1), np.tile(box, (rows, 1)), np.ones(rows), kinds[of])
        protocol = Protocol("one of many", [Query(0, box, 7)] * count, [everywhere] * count)
        found = search(protocol, detections, queries[:count], num_frames=rows + 1)
        likeness = (kinds.astype(np.float64) @ queries.T)[of]  # (rows, 8)
        for number in range(count):
            place = int((likeness[:, number] >= likeness[-1, number]).sum())
            assert found.rank[number] == place
            told = explain(protocol, number, detections, queries[number], num_frames=rows + 1)
            assert told.rank == place and told.ap == found.ap[number]
            expected = average_precision_score(np.arange(rows) == rows - 1, likeness[:, number])
            assert found.ap[number] == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(1, 6))
def test_first_equal_is_what_a_search_row_by_row_finds(seed, count, width):
    rows = np.random.default_rng(seed).integers(-1, 2, size=(count, width)).astype(np.float32)
    slow = [next(other for other in range(count) if (rows[other] == rows[number]).all()) for number in range(count)]
    fast = first_equal(rows)
    assert slow == (list(range(count)) if fast is None else fast.tolist())


@pytest.mark.parametrize("cost", [0, 1e9])
@pytest.mark.parametrize("switches", SWITCHES)
def test_both_ways_to_similarities_equal_the_loop_version(cost, switches, monkeypatch):
    monkeypatch.setattr(search_module, "GATHER_COST", cost)
    monkeypatch.setattr(search_module, "CHUNK_BYTES", 100)  # several blocks even here
    for seed in range(40):
        assert_same(draw_case(seed), switches)


def test_equals_the_loop_version_on_a_larger_set():
    protocol, detections, queries = drawn_protocol(40, 60, 200, dim=16, positives=4)
    assert_same((protocol, detections, queries, 200), {})


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SWITCHES))
def test_explanation_agrees_with_the_metric(seed, switches):
    protocol, detections, queries, num_frames = draw_case(seed)
    result = search(protocol, detections, queries, num_frames=num_frames, **switches)
    for number in range(len(queries)):
        told = explain(protocol, number, detections, queries[number], num_frames=num_frames, **switches)
        assert told.ap == pytest.approx(result.ap[number]) and told.rank == result.rank[number]
        found = [one for one in told.appearances if one.outcome == "found"]
        assert len(found) == result.found[number] == told.right.sum()
        for one in told.appearances:
            if one.outcome == "found":
                assert told.right[one.rank - 1] and told.detection[one.rank - 1] == one.detection
                assert detections.frame[one.detection] == one.frame and one.iou >= one.required_iou
                assert box_iou(detections.boxes[one.detection].tolist(), one.box) == pytest.approx(one.iou)
            else:
                assert (one.iou >= one.required_iou) == (one.outcome == "under threshold")
        assert (np.diff(told.similarity) <= 0).all()


# --- by hand --------------------------------------------------------------------------------------------------------

def scored(*case, **switches):
    protocol, detections, queries, num_frames = hand_case(*case)
    return search(protocol, detections, queries, num_frames=num_frames, **switches)


def test_hand_worked_ranking():
    # Ranking: .9 right, .8 wrong, .7 right, .2 wrong; a third appearance was not detected.
    result = scored([[0.9, 0.2], [0.7], [0.8]], [1, 2, 3], [1, 2])
    assert result.ap[0] == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert (result.rank[0], result.found[0], result.positives[0]) == (1, 2, 3)
    assert result.recall[0] == pytest.approx(2 / 3)


def test_a_second_detection_on_the_person_is_wrong():
    protocol, detections, queries, num_frames = hand_case([[0.9, 0.8], [0.7]], [1, 2], [1, 2])
    double = replace(detections, boxes=np.tile(detections.boxes[0], (3, 1)))
    result = search(protocol, double, queries, num_frames=num_frames)
    assert result.ap[0] == pytest.approx((1 + 2 / 3) / 2)


def test_the_most_similar_overlapping_detection_is_the_right_one():
    protocol, detections, queries, num_frames = hand_case([[0.3, 0.9], [0.6]], [1], [1])
    both = detections.boxes.copy()
    both[1] = both[0] + 2  # less overlap than row 0, still enough, and more similar
    result = search(protocol, replace(detections, boxes=both), queries, num_frames=num_frames)
    assert result.rank[0] == 1 and result.ap[0] == 1


def test_ties_count_against_us_in_rank_and_share_a_threshold_in_ap():
    result = scored([[0.5], [0.5], [0.5]], [2], [2])
    assert result.rank[0] == 3 and result.ap[0] == pytest.approx(1 / 3)
    assert (result.top(2), result.top(3)) == (0, 1)
    # Two right ones tied at the top with one wrong one: place 2, and both have precision 2/3.
    result = scored([[0.5], [0.5], [0.5]], [1, 2], [1, 2])
    assert result.rank[0] == 2 and result.ap[0] == pytest.approx(2 / 3)


def test_equal_detections_in_one_image_the_first_row_wins():
    protocol, detections, queries, num_frames = hand_case([[0.5, 0.5]], [1], [1])
    both = replace(detections, boxes=np.tile(detections.boxes[0], (2, 1)))
    told = explain(protocol, 0, both, queries[0], num_frames=num_frames)
    assert told.appearances[0].detection == 0 and told.appearances[0].rank == 2


def test_small_boxes_need_less_overlap():
    # 10 x 20 asks for 200 / (20 * 30) = 1/3; a box shifted by 4 of 10 has IoU 6/14 = 0.43.
    box = np.array([0, 0, 10, 20], np.float32)
    protocol = Protocol("small", [Query(0, box, 1)], [Gallery(np.array([1]), np.array([1]), box[None])])
    for shift, found in ((4, 1), (6, 0)):
        detections = Detections([1], [box + [shift, 0, shift, 0]], [1.0], [[1.0]])
        assert search(protocol, detections, np.ones((1, 1)), num_frames=2).found[0] == found
    tall = box * 10  # the same shapes ten times as large: 0.43 is under the 0.5 that large boxes need
    protocol = Protocol("large", [Query(0, tall, 1)], [Gallery(np.array([1]), np.array([1]), tall[None])])
    detections = Detections([1], [tall + [40, 0, 40, 0]], [1.0], [[1.0]])
    assert search(protocol, detections, np.ones((1, 1)), num_frames=2).found[0] == 0


def test_thresholds_include_their_own_value():
    box = np.array([0, 0, 40, 80], np.float32)
    protocol = Protocol("edge", [Query(0, box, 1)], [Gallery(np.array([1]), np.array([1]), box[None])])
    half = Detections([1], [[0, 0, 40, 40]], [0.5], [[1.0]])  # IoU exactly 0.5, score exactly 0.5
    assert search(protocol, half, np.ones((1, 1)), num_frames=2, score_threshold=0.5).found[0] == 1
    own = Detections([0], [[0, 0, 40, 40]], [0.5], [[1.0]])
    assert not best_iou_queries(protocol, own, iou=0.5, score_threshold=0.5)[1].any()
    assert paired_iou(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [0]


def test_switch_duplicates():
    protocol, detections, queries, num_frames = hand_case([[0.9, 0.8], [0.7]], [1, 2], [1, 2])
    gallery = protocol.galleries[0]
    repeated = Gallery(np.array([1, 1, 2]), np.array([1, 1, 2]), gallery.positive_boxes[[0, 0, 1]])
    protocol = replace(protocol, galleries=[repeated])
    ap = {way: search(protocol, detections, queries, num_frames=num_frames, duplicates=way)
          for way in ("official", "twice", "drop")}
    assert ap["drop"].ap[0] == pytest.approx((1 + 2 / 3) / 2)
    assert ap["official"].ap[0] == pytest.approx((1 + 2 / 3) / 3) and ap["official"].positives[0] == 3
    assert ap["twice"].ap[0] == pytest.approx((1 + 1 + 3 / 5) / 3)  # .9 .9 right, .8 .8 wrong, .7 right
    told = explain(protocol, 0, detections, queries[0], num_frames=num_frames, duplicates="twice")
    assert [one.rank for one in told.appearances] == [1, 2, 5] and told.right.sum() == 3


def test_switch_query_in_gallery():
    protocol, detections, queries, num_frames = hand_case([[0.9], [0.5], [0.7]], [1, 2], [1, 2])
    protocol = replace(protocol, queries=[replace(protocol.queries[0], frame=1)])
    assert search(protocol, detections, queries, num_frames=num_frames).ap[0] == pytest.approx((1 + 2 / 3) / 2)
    dropped = search(protocol, detections, queries, num_frames=num_frames, query_in_gallery="drop")
    assert dropped.ap[0] == pytest.approx(1 / 2) and dropped.positives[0] == 1


def test_switch_score_threshold():
    case = ([[0.9, 0.2], [0.7], [0.8]], [1, 2], [1, 2], [0.1, 0.9, 0.9, 0.4])
    assert scored(*case).ap[0] == pytest.approx((1 + 2 / 3) / 2)
    cut = scored(*case, score_threshold=0.5)  # her detection in frame 1 and the stranger at .8 are gone
    assert cut.ap[0] == pytest.approx(1 / 2) and cut.rank[0] == 1
    protocol, detections, queries, num_frames = hand_case(*case)
    told = explain(protocol, 0, detections, queries[0], num_frames=num_frames, score_threshold=0.5)
    assert [one.outcome for one in told.appearances] == ["under threshold", "found"]
    assert "score is under the threshold" in str(told.appearances[0]) and told.appearances[1].rank == 1


def test_switches_for_queries_without_positives_and_missed_queries():
    one = hand_case([[0.9], [0.5]], [1], [1])
    protocol, detections, queries, num_frames = one
    nobody = Gallery(np.array([2]), np.empty(0, np.int32), np.empty((0, 4), np.float32))
    protocol = Protocol("two", protocol.queries * 2, [*protocol.galleries, nobody])
    queries = np.repeat(queries, 2, axis=0)
    result = search(protocol, detections, queries, num_frames=num_frames)
    assert result.mean_ap == 1 and result.top(1) == 1 and result.counted.tolist() == [True, False]
    assert (result.ap[1], result.rank[1], result.recall[1]) == (0, 0, 0)
    zero = search(protocol, detections, queries, num_frames=num_frames, without_positives="zero")
    assert zero.mean_ap == 0.5 and zero.top(1) == 0.5
    missed = search(protocol, detections, queries, num_frames=num_frames, missed=[True, False])
    assert missed.mean_ap == 0 and missed.found.tolist() == [0, 0]
    skipped = search(protocol, detections, queries, num_frames=num_frames, missed=[True, False], missed_queries="skip",
                     without_positives="zero")
    assert skipped.counted.tolist() == [False, True]


def test_two_boxes_of_one_person_in_an_image_the_first_counts():
    boxes = np.array([[0, 0, 40, 80], [100, 0, 140, 80]], np.float32)
    gallery = Gallery(np.array([1, 2]), np.array([1, 1]), boxes)
    assert resolve(gallery, 0).positives == 1 and (resolve(gallery, 0).positive_boxes == boxes[:1]).all()
    # The image repeated: its entries take one box each (quirk 1), or the first box once, counted twice (quirk 2).
    repeated = Gallery(np.array([1, 1]), np.array([1, 1]), boxes)
    assert (resolve(repeated, 0, "twice").positive_boxes == boxes).all()
    assert (resolve(repeated, 0).positive_boxes == boxes[:1]).all() and resolve(repeated, 0).positives == 2


# --- properties -----------------------------------------------------------------------------------------------------

def perfect_case(seed):
    rng = np.random.default_rng(seed)
    protocol, detections, queries = drawn_protocol(12, 30, 60, dim=8, positives=4, seed=seed)
    return protocol, detections, queries, rng


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_perfect_ranking_is_one_and_its_reverse_is_worst(seed):
    protocol, detections, _, _ = perfect_case(seed)
    boxes = detections.boxes
    for number, gallery in enumerate(protocol.galleries):
        hers = np.zeros(len(detections), bool)
        for frame, box in zip(gallery.positive_frames, gallery.positive_boxes, strict=True):
            hers |= (detections.frame == frame) & (boxes == box).all(axis=1)
        one = Protocol("one", [protocol.queries[number]], [gallery])
        right = replace(detections, embeddings=np.where(hers, 1, -1).astype(np.float32)[:, None])
        best = search(one, right, np.ones((1, 1)), num_frames=60)
        assert best.ap[0] == 1 and best.rank[0] == 1 and best.mean_ap == best.top(1) == 1
        apart = np.where(hers[:, None], boxes, boxes + 5000)  # nobody else may overlap her by chance
        worst = search(one, replace(right, boxes=apart), -np.ones((1, 1)), num_frames=60)
        others = int(np.isin(detections.frame, gallery.frames).sum() - hers.sum())
        assert worst.rank[0] == others + 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_order_of_gallery_and_of_detections_does_not_matter_without_ties(seed):
    protocol, detections, queries, rng = perfect_case(seed)
    before = search(protocol, detections, queries, num_frames=60)
    galleries = []
    for gallery in protocol.galleries:
        order = rng.permutation(len(gallery.positive_frames))
        galleries.append(Gallery(rng.permutation(gallery.frames), gallery.positive_frames[order],
                                 gallery.positive_boxes[order]))
    shuffled = detections.select(rng.permutation(len(detections)))
    after = search(replace(protocol, galleries=galleries), shuffled, queries, num_frames=60)
    assert after.ap == pytest.approx(before.ap) and (after.rank == before.rank).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_distractor_never_raises_ap(seed):
    protocol, detections, queries, num_frames = draw_case(seed, repeats=False)
    rng = np.random.default_rng(seed)
    before = search(protocol, detections, queries, num_frames=num_frames)
    stranger = Detections([num_frames], [[0, 0, 20, 40]], [1.0], rng.integers(-2, 3, (1, 3)))
    galleries = [replace(gallery, frames=np.append(gallery.frames, num_frames).astype(np.int32))
                 for gallery in protocol.galleries]
    after = search(replace(protocol, galleries=galleries), Detections.concatenate([detections, stranger]), queries,
                   num_frames=num_frames + 1)
    assert (after.ap <= before.ap + 1e-12).all()
    assert ((after.rank >= before.rank) | (before.rank == 0)).all() and (after.found == before.found).all()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30), st.integers(0, 3))
def test_average_precision_is_sklearn_times_recall(pairs, unfound):
    scores, labels = np.array([pair[0] for pair in pairs], float), np.array([pair[1] for pair in pairs])
    positives = int(labels.sum()) + unfound
    expected = average_precision_score(labels, scores) * labels.sum() / positives if labels.any() else 0.0
    assert average_precision(scores[labels], scores, positives) == pytest.approx(expected)


def test_average_precision_of_nothing_is_zero():
    assert average_precision(np.empty(0), np.array([1.0]), 3) == 0 == average_precision(np.empty(0), np.empty(0), 0)


# --- empty things ---------------------------------------------------------------------------------------------------

def test_gallery_without_detections():
    result = scored([[], []], [1], [])
    assert result.ap[0] == 0 and result.rank[0] == 0 and result.mean_ap == 0 and result.top(10) == 0
    protocol, _, queries, num_frames = hand_case([[], []], [1], [])
    told = explain(protocol, 0, Detections.empty(2), queries[0], num_frames=num_frames)
    assert told.appearances[0].outcome == "not detected" and len(told.detection) == 0


def test_protocol_without_queries():
    result = search(Protocol("none", [], []), Detections.empty(4), np.empty((0, 4)), num_frames=3)
    assert result.mean_ap == 0 and result.top(1) == 0 and len(result.ap) == 0


def test_gallery_emptied_by_a_switch_is_defined():
    protocol, detections, queries, num_frames = hand_case([[0.5]], [1], [1])
    protocol = replace(protocol, queries=[replace(protocol.queries[0], frame=1)])
    result = search(protocol, detections, queries, num_frames=num_frames, query_in_gallery="drop")
    assert result.positives[0] == 0 and result.ap[0] == 0 and not result.counted[0]


# --- bad input: one sentence ----------------------------------------------------------------------------------------

def test_bad_input():
    protocol, detections, queries, num_frames = hand_case([[0.5], [0.4]], [1], [1])

    def fails(words, changed=protocol, found=detections, embeddings=queries, frames=num_frames, **switches):
        with pytest.raises(UserError, match=words) as caught:
            search(changed, found, embeddings, num_frames=frames, **switches)
        assert "\n" not in str(caught.value)

    gallery = protocol.galleries[0]
    fails("have 3 numbers and those of the detections 2", embeddings=np.ones((1, 3)))
    fails("1 queries but the query embeddings have shape", embeddings=np.ones((2, 2)))
    fails("query 0 of protocol by hand is not finite", embeddings=np.array([[np.nan, 1]]))
    fails("names frame 2 but the set has 2", frames=2, found=detections.select(detections.frame < 2))
    fails("detection lies in frame 2 but the set has 2", frames=2,
          changed=replace(protocol, galleries=[replace(gallery, frames=np.array([1]))]))
    fails("names frame -1", changed=replace(protocol, galleries=[replace(gallery, frames=np.array([-1, 1]))]))
    fails("names frame 9", changed=replace(protocol, queries=[replace(protocol.queries[0], frame=9)]))
    fails("empty gallery", changed=replace(protocol, galleries=[replace(gallery, frames=np.empty(0, np.int32))]))
    fails("not in its gallery", changed=replace(protocol, galleries=[replace(gallery, frames=np.array([2]))]))
    fails("not in its gallery", changed=replace(protocol, galleries=[replace(gallery, positive_frames=np.array([7]))]))
    fails("1 queries but 0 galleries", changed=replace(protocol, galleries=[]))
    fails("unknown duplicates 'once'", duplicates="once")
    fails("unknown query_in_gallery", query_in_gallery="no")
    fails("unknown without_positives", without_positives="nan")
    fails("unknown missed_queries", missed_queries="no")
    fails("missed of shape", missed=[True, False])
    fails("best_iou_queries", missed=np.zeros(len(protocol.queries), np.int64))
    with pytest.raises(UserError, match="has no query 4"):
        explain(protocol, 4, detections, queries[0], num_frames=num_frames)
    with pytest.raises(UserError, match="detection 1 has a value in embeddings"):
        Detections([0, 1], np.zeros((2, 4)), np.ones(2), [[0, 1], [np.inf, 0]])
    with pytest.raises(UserError, match="detection 0 has a value in boxes"):
        Detections([0], [[0, 0, np.nan, 1]], np.ones(1), [[0, 1]])
    with pytest.raises(UserError, match="2 frame numbers but 1 scores"):
        Detections([0, 1], np.zeros((2, 4)), np.ones(1), np.zeros((2, 3)))
    with pytest.raises(UserError, match="2 frame numbers but 3 embeddings"):
        Detections([0, 1], np.zeros((2, 4)), np.ones(2), [1.0, 2.0, 3.0])
    with pytest.raises(UserError, match="scores of detections have the shape"):
        Detections([0, 1], np.zeros((2, 4)), np.ones((2, 1)), np.zeros((2, 3)))
    with pytest.raises(UserError, match="embeddings of detections have the shape"):
        Detections([0], np.zeros((1, 4)), np.ones(1), np.zeros((1, 2, 3)))
    assert Detections([], [], [], []).embeddings.shape == (0, 1)
    with pytest.raises(UserError, match="lies in frame -1"):
        Detections([-1], np.zeros((1, 4)), np.ones(1), np.zeros((1, 3)))


# --- query features -------------------------------------------------------------------------------------------------

def test_query_features():
    boxes = np.array([[0, 0, 40, 80], [4, 0, 44, 80], [100, 0, 140, 80]], np.float32)
    detections = Detections([3, 1, 1], boxes[[0, 1, 2]], [0.9, 0.2, 0.9], np.eye(3))
    queries = [Query(1, boxes[0], 5), Query(2, boxes[0], 6), Query(3, boxes[2], 7)]
    protocol = Protocol("toy", queries, [])
    embeddings, missed = best_iou_queries(protocol, detections)
    assert missed.tolist() == [False, True, True] and embeddings[0].tolist() == [0, 1, 0]
    assert not embeddings[1:].any()
    assert best_iou_queries(protocol, detections, score_threshold=0.5)[1].all()
    assert best_iou_queries(protocol, detections, iou=0.9)[1].all()
    with pytest.raises(UserError, match="query 1 .person 6. .* is not annotated in frame 2"):
        ground_truth_queries(protocol, detections)
    assert ground_truth_queries(Protocol("toy", queries[:1], []), detections).tolist() == [[0, 1, 0]]
    # Half an IoU is forgiven and no more: a third of it may be a neighbor's box.
    for offset, allowed in ((13.0, True), (20.0, False)):  # IoU 27 / 53 and 20 / 60
        beside = Detections([1], [[offset, 0, 40 + offset, 80]], [1.0], [[1.0]])
        if allowed:
            assert ground_truth_queries(Protocol("toy", queries[:1], []), beside).tolist() == [[1.0]]
        else:
            with pytest.raises(UserError, match="query 0 .person 5. .* is not annotated in frame 1"):
                ground_truth_queries(Protocol("toy", queries[:1], []), beside)


def test_normalise_and_ragged_helpers():
    rows = normalize(np.random.default_rng(0).standard_normal((5, 7)) * 1e3)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert len(ranges(np.empty(0, int), np.empty(0, int))) == 0
    assert segment_argmax(np.array([1.0, 3, 3]), np.array([1, 0, 0])).tolist() == [1, 0]


# --- planted faults: the comparison with the loop version must notice -----------------------------------------------

def caught(monkeypatch, target, name, fault) -> bool:
    monkeypatch.setattr(target, name, fault)
    try:
        for seed in range(40):
            for switches in SWITCHES[:5:2]:
                assert_same(draw_case(seed), switches)
    except AssertionError:
        return True
    return False


def test_the_comparison_notices_planted_faults(monkeypatch):
    right_resolve, right_counts = search_module.resolve, precision_module.counts_at

    def double_counting(gallery, frame, duplicates, own):  # a repeated image ranked twice, whatever the switch says
        return replace(right_resolve(gallery, frame, duplicates, own), frames=gallery.frames)

    def off_by_one(right, every):  # "> s" where ">= s" belongs
        found, above = right_counts(right, every)
        return found, np.maximum(above - 1, 1)

    faults = [(search_module, "resolve", double_counting), (precision_module, "counts_at", off_by_one),
              (search_module, "box_iou_threshold", lambda boxes: np.full(len(boxes), 0.5)),
              (search_module, "resolve", lambda gallery, frame, duplicates, own:
                  right_resolve(gallery, frame, "drop", own))]
    for fault in faults:
        with monkeypatch.context() as patch:
            assert caught(patch, *fault), fault
    with monkeypatch.context() as patch:
        assert not caught(patch, search_module, "CHUNK_BYTES", 128)  # no fault, no alarm


def test_benchmark_prints_its_ratios(capsys):
    measured = benchmark_evaluator(scale=0.01)
    printed = capsys.readouterr().out
    assert "times as long (bar 10)" in printed and "PRW regular" in printed and measured["peak GB"] > 0
    # 29 queries cannot show the full ratio; the loop must at least lose.
    assert measured["ratio"] > 1
