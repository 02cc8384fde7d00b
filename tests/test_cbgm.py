"""Context bipartite graph matching against loops over all matchings, by hand, and where it must change nothing."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from evaluation_cases import draw_case
from scipy.optimize import linear_sum_assignment

from pslib.data.annotations import Gallery, Protocol, Query
from pslib.errors import UserError
from pslib.evaluation import cbgm as cbgm_module
from pslib.evaluation import search as search_module
from pslib.evaluation.cbgm import RELEASED, ContextMatching, most_similar, rematcher
from pslib.evaluation.detections import Detections
from pslib.evaluation.reference import box_iou, reference_query
from pslib.evaluation.search import in_frame_order, search

BOX = np.array([0, 0, 20, 40], np.float32)


# --- against loops over all matchings -------------------------------------------------------------------------------


def best_matching(table):
    """(value, pairs) of the one-to-one matching with the largest sum, by trying every one."""
    people, partners = len(table), len(table[0])
    if people <= partners:
        every = [list(enumerate(chosen)) for chosen in itertools.permutations(range(partners), people)]
    else:
        every = [[(who, place) for place, who in enumerate(chosen)]
                 for chosen in itertools.permutations(range(people), partners)]  # fmt: skip
    return max(((sum(table[i][j] for i, j in pairs), pairs) for pairs in every), key=lambda found: found[0])


def reference_similarities(query, gallery_frames, detections, embedding, k1, k2, combine, threshold):
    """The similarity of every detection to the query after the matching, one detection at a time."""
    kept = [row for row in range(len(detections)) if detections.scores[row] >= threshold]
    new = [float(row @ embedding) for row in detections.embeddings]
    old = list(new)
    pool = sorted((row for row in kept if detections.frame[row] in set(gallery_frames)), key=lambda row: -old[row])
    others = [row for row in kept if detections.frame[row] == query.frame
              and box_iou(detections.boxes[row].tolist(), query.box.tolist()) <= 0.5]  # fmt: skip
    others = sorted(others, key=lambda row: -detections.scores[row])[: k2 - 1]
    units = [detections.embeddings[row] / np.sqrt((detections.embeddings[row] ** 2).sum()) for row in others]
    for frame in {int(detections.frame[row]) for row in pool[:k1]}:
        here = [row for row in kept if detections.frame[row] == frame]
        table = [[float(one @ detections.embeddings[row]) for row in here] for one in [embedding, *units]]
        total, pairs = best_matching(table)
        for person, place in pairs:
            if person == 0:
                largest = max(table[i][j] for i, j in pairs)
                value = {"sum": total, "largest": largest, "average": (old[here[place]] + largest) / 2}[combine]
                new[here[place]] = value
    return new


def check_against_reference(case, settings, **switches):
    protocol, detections, queries, num_frames = case
    fast = search(protocol, detections, queries, num_frames=num_frames, cbgm=settings, **switches)
    changed = 0
    for number, (query, gallery) in enumerate(zip(protocol.queries, protocol.galleries, strict=True)):
        frames = [frame for frame in gallery.frames.tolist()
                  if switches.get("query_in_gallery") != "drop" or frame != query.frame]  # fmt: skip
        similarities = reference_similarities(query, frames, detections, queries[number], settings.k1, settings.k2,
                                              settings.combine, switches.get("score_threshold", 0.0))  # fmt: skip
        changed += not np.allclose(similarities, detections.embeddings @ queries[number], atol=1e-5)
        rows_of = {frame: np.flatnonzero(detections.frame == frame).tolist() for frame in range(num_frames)}
        # One number a detection, whose product with 1 is the similarity that the loops gave it.
        as_rows = replace(detections, embeddings=np.array(similarities)[:, None])
        slow = reference_query(query, gallery, rows_of, as_rows, np.array([1.0], np.float32), **switches)
        assert fast.ap[number] == pytest.approx(slow["ap"], abs=1e-9), (number, settings, switches)
        assert (fast.rank[number], fast.found[number]) == (slow["rank"], slow["found"])
    return changed


@pytest.mark.parametrize("combine", cbgm_module.COMBINE)
@pytest.mark.parametrize(("k1", "k2"), [(1, 2), (2, 3), (50, 4)])
def test_equals_loops_over_all_matchings(combine, k1, k2):
    switches = [{}, {"score_threshold": 0.3}, {"duplicates": "twice"}, {"query_in_gallery": "drop"}]
    settings = ContextMatching(k1, k2, combine)
    changed = [check_against_reference(draw_case(seed, ties=False), settings, **switches[seed % 4])
               for seed in range(24)]  # fmt: skip
    assert sum(changed) > 8  # the cases do put it to the test


@pytest.mark.parametrize("cost", [0, 1e9])
def test_both_ways_to_similarities_are_revised(cost, monkeypatch):
    monkeypatch.setattr(search_module, "GATHER_COST", cost)
    monkeypatch.setattr(search_module, "CHUNK_BYTES", 100)
    for seed in range(24, 40):
        check_against_reference(draw_case(seed, ties=False), ContextMatching(3, 3))


@pytest.mark.parametrize("fault", ["negated", "companions as they are", "the query's own detection kept"])
def test_planted_faults_are_found(fault, monkeypatch):
    if fault == "negated":
        monkeypatch.setattr(cbgm_module, "linear_sum_assignment", lambda table, maximize: linear_sum_assignment(table))
    elif fault == "companions as they are":
        monkeypatch.setattr(cbgm_module, "normalize", lambda rows: rows)
    else:
        monkeypatch.setattr(cbgm_module, "SAME_PERSON_IOU", 1.0)
    with pytest.raises(AssertionError):
        for seed in range(60):
            protocol, *rest = draw_case(seed, ties=False)
            if fault.startswith("the query's") and len(rest[0]):
                # Each query stands where its frame's first detection is, or stays without one.
                boxes = {int(frame): box for frame, box in zip(rest[0].frame, rest[0].boxes, strict=True)}
                queries = [replace(query, box=boxes.get(query.frame, query.box)) for query in protocol.queries]
                protocol = replace(protocol, queries=queries)
            check_against_reference((protocol, *rest), ContextMatching(4, 3))


# --- by hand --------------------------------------------------------------------------------------------------------


def cosine(degrees):
    return float(np.cos(np.radians(degrees)))


def direction(degrees):
    return [cosine(degrees), cosine(degrees - 90)]


def scene(gallery, *, companions=((200, 0.9),), query_box=BOX):
    """The query at 0 degrees in frame 0 beside ``companions`` (degrees, score); ``gallery[f]`` are the degrees of the
    detections of frame f + 1, the first of each stands where the query would.  She is in frame 2."""
    rows = [(0, place + 1, degrees, score) for place, (degrees, score) in enumerate(companions)]
    rows += [(frame, place, angle, 1.0) for frame, here in enumerate(gallery, 1) for place, angle in enumerate(here)]
    detections = Detections(
        [row[0] for row in rows], np.array([BOX + 100 * row[1] for row in rows]).reshape(-1, 4),
        [row[3] for row in rows], np.array([direction(row[2]) for row in rows]).reshape(-1, 2),
    )  # fmt: skip
    frames = np.arange(1, len(gallery) + 1)
    protocol = Protocol("by hand", [Query(0, query_box, 7)], [Gallery(frames, np.array([2]), BOX[None])])
    return protocol, detections, np.array([direction(0)], np.float32), len(gallery) + 1


def revised(case, settings):
    """Similarities of all detections, in order of frames, before and after."""
    protocol, detections, queries, num_frames = case
    kept, offsets, _ = in_frame_order(detections, num_frames, 0.0)
    before = kept.embeddings @ queries[0]
    after = before.copy()
    rows = np.flatnonzero(np.isin(kept.frame, protocol.galleries[0].frames))
    rematcher(settings, protocol, queries, kept, offsets)(0, after, rows)
    return before, after


# Alone in frame 1 a stranger who looks more like the query (35 degrees) than she does herself in frame 2 (40), where
# her companion (200 degrees; there 210) is with her.
FRIENDS = [[35, 100], [40, 210]]


def test_a_companion_found_again_puts_her_first():
    case = scene(FRIENDS)
    plain = search(case[0], case[1], case[2], num_frames=3)
    assert plain.rank[0] == 2 and plain.ap[0] == pytest.approx(1 / 2)
    for combine in cbgm_module.COMBINE:
        result = search(case[0], case[1], case[2], num_frames=3, cbgm=ContextMatching(10, 3, combine))
        assert result.rank[0] == 1 and result.ap[0] == pytest.approx(1)


@pytest.mark.parametrize(("combine", "stranger", "she"), [
    ("sum", cosine(35) + cosine(100), cosine(40) + cosine(10)),
    ("largest", cosine(35), cosine(10)),
    ("average", cosine(35), (cosine(40) + cosine(10)) / 2),
])  # fmt: skip
def test_new_similarities_by_hand(combine, stranger, she):
    before, after = revised(scene(FRIENDS), ContextMatching(10, 2, combine))
    assert after[[1, 3]] == pytest.approx([stranger, she], abs=1e-6)
    assert np.array_equal(after[[0, 2, 4]], before[[0, 2, 4]])  # everybody else keeps hers


def test_the_matching_may_take_from_the_query_what_is_most_like_her():
    # The detection at 20 degrees is the best for both; the companion (30) would lose more with the other one (-40).
    before, after = revised(scene([[20, -40], [90]], companions=[(30, 0.9)]), ContextMatching(1, 2, "sum"))
    assert after[1] == before[1]
    assert after[2] == pytest.approx(cosine(40) + cosine(10), abs=1e-6)


def test_a_single_detection_that_the_companion_gets_changes_nothing():
    before, after = revised(scene([[180], [170]]), ContextMatching(10, 2, "sum"))  # nearer to the companion at 200
    assert np.array_equal(before, after)


def test_only_the_images_of_the_k1_most_similar_detections_are_matched():
    before, after = revised(scene(FRIENDS), ContextMatching(1, 2, "sum"))
    assert after[1] != before[1] and np.array_equal(after[2:], before[2:])
    # Two detections of one image use up both places.
    before, after = revised(scene([[20, 30], [40, 210]]), ContextMatching(2, 2, "sum"))
    assert np.array_equal(after[3:], before[3:])


def test_the_surest_others_are_the_context_and_the_query_herself_is_not():
    companions = [(300, 0.2), (200, 0.9), (250, 0.9), (100, 0.5)]
    _, two = revised(scene(FRIENDS, companions=companions), ContextMatching(10, 2, "sum"))
    _, only = revised(scene(FRIENDS, companions=[(200, 0.9)]), ContextMatching(10, 2, "sum"))
    assert two[4:] == pytest.approx(only[1:])  # of two equally sure ones the first
    # A detection on the query's own box, however sure, is her, not company.
    protocol, detections, queries, frames = scene(FRIENDS)
    own = Detections([0], BOX[None] + 1, [1.0], [direction(5)])
    with_own = (protocol, Detections.concatenate([own, detections]), queries, frames)
    _, without = revised(scene(FRIENDS), ContextMatching(10, 2, "sum"))
    assert revised(with_own, ContextMatching(10, 2, "sum"))[1][1:] == pytest.approx(without)


def test_galleries_weighted_by_their_scores_meet_a_context_of_unit_length():
    # NAE and SeqNet multiply a gallery's embeddings by their scores, but not those of the query's frame.
    protocol, detections, queries, frames = scene(FRIENDS)
    weights = np.array([0.3, 0.9, 0.8, 0.7, 0.6], np.float32)
    weighted = (protocol, replace(detections, embeddings=detections.embeddings * weights[:, None]), queries, frames)
    after = revised(weighted, ContextMatching(10, 2, "sum"))[1]
    assert after[3] == pytest.approx(0.7 * cosine(40) + 0.6 * cosine(10), abs=1e-6)


# --- where it changes nothing ---------------------------------------------------------------------------------------


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("ap", "rank", "found"))


@pytest.mark.parametrize("combine", cbgm_module.COMBINE)
@pytest.mark.parametrize("ties", [True, False])
def test_without_context_nothing_changes(combine, ties):
    for seed in range(30):
        protocol, detections, queries, frames = draw_case(seed, ties=ties)
        plain = search(protocol, detections, queries, num_frames=frames)
        alone = ContextMatching(10, 1, combine)
        assert same(plain, search(protocol, detections, queries, num_frames=frames, cbgm=alone))
        elsewhere = detections.select(~np.isin(detections.frame, [query.frame for query in protocol.queries]))
        plain = search(protocol, elsewhere, queries, num_frames=frames)
        nobody = ContextMatching(10, 3, combine)  # no detection in any query's frame
        assert same(plain, search(protocol, elsewhere, queries, num_frames=frames, cbgm=nobody))


def test_at_most_one_detection_of_each_matched_image_changes():
    for seed in range(30):
        case = draw_case(seed, ties=False)
        before, after = revised(case, ContextMatching(3, 3))
        kept, _, _ = in_frame_order(case[1], case[3], 0.0)
        changed = np.flatnonzero(before != after)
        assert len(changed) <= 3 and len(np.unique(kept.frame[changed])) == len(changed)


def test_a_gallery_smaller_than_k1_is_matched_whole():
    for seed in range(20):
        case = draw_case(seed, ties=False)
        assert np.array_equal(revised(case, ContextMatching(len(case[1]) + 1, 3))[1],
                              revised(case, ContextMatching(10**6, 3))[1])  # fmt: skip
    empty = draw_case(0, ties=False)
    nothing = search(empty[0], Detections.empty(3), empty[2], num_frames=empty[3], cbgm=ContextMatching())
    assert (nothing.found == 0).all() and (nothing.ap == 0).all()


def test_a_missed_query_counts_as_nothing_with_it_too():
    protocol, detections, queries, frames = scene(FRIENDS)
    result = search(protocol, detections, queries, num_frames=frames, missed=[True], cbgm=ContextMatching())
    assert result.ap[0] == 0 and result.rank[0] == 0


# --- ties, and the order of rows ------------------------------------------------------------------------------------


def test_of_equal_similarities_the_first_rows_are_taken():
    drawn = np.random.default_rng(0).integers(0, 5, (200, 12)).astype(np.float32)
    for values in drawn:
        for count in (1, 4, 11, 12, 20):
            expected = sorted(range(len(values)), key=lambda place: (-values[place], place))[:count]
            assert sorted(most_similar(values, count).tolist()) == sorted(expected)
    assert len(most_similar(np.empty(0), 3)) == 0


def test_equal_embeddings_raise_one_of_them_and_a_tie_counts_against_us():
    case = scene([[0, 0], [0, 0]])
    before, after = revised(case, ContextMatching(10, 2, "sum"))
    assert before[1:] == pytest.approx([1] * 4, abs=1e-6)
    raised = 1 + cosine(200)
    for image in (after[1:3], after[3:5]):
        assert sorted(image) == pytest.approx(sorted([1, raised]), abs=1e-6)
    assert same(*(search(case[0], case[1], case[2], num_frames=3, cbgm=ContextMatching()) for _ in range(2)))
    result = search(*scene([[0], [0]], companions=[])[:3], num_frames=3, cbgm=ContextMatching())
    assert result.rank[0] == 2


def test_the_order_of_the_rows_does_not_matter_without_ties():
    for seed in range(20):
        protocol, detections, queries, frames = draw_case(seed, ties=False)
        drawn = np.random.default_rng(seed)
        scores = drawn.permutation(len(detections)) / max(1, len(detections))  # no two equally sure
        detections = replace(detections, scores=scores)
        shuffled = detections.select(drawn.permutation(len(detections)))
        one, other = (search(protocol, rows, queries, num_frames=frames, cbgm=ContextMatching(3, 3))
                      for rows in (detections, shuffled))  # fmt: skip
        assert one.ap == pytest.approx(other.ap) and np.array_equal(one.rank, other.rank)


# --- settings -------------------------------------------------------------------------------------------------------


def test_released_settings():
    assert RELEASED["cuhk-sysu"] == ContextMatching(10, 3, "largest") == ContextMatching()
    assert RELEASED["prw"] == ContextMatching(30, 4, "largest")


@pytest.mark.parametrize("wrong", [{"k1": 0}, {"k2": 0}, {"combine": "mean"}])
def test_a_wrong_setting_is_one_sentence(wrong):
    with pytest.raises(UserError) as error:
        ContextMatching(**wrong)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_distances_are_refused():
    protocol, detections, queries, frames = scene(FRIENDS)
    with pytest.raises(UserError, match="euclidean.*cosine"):
        search(protocol, detections, queries, num_frames=frames, similarity="euclidean", cbgm=ContextMatching())
