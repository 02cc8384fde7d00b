"""Two embeddings side by side: cosines are averaged, and d', correlations and counts are those of naive loops."""

import numpy as np
import pytest

from pslib.data.annotations import Frame
from pslib.errors import UserError
from pslib.evaluation import complement
from pslib.evaluation.detections import Detections
from pslib.evaluation.gallery import GalleryEmbeddings


def unit(rng, count, size):
    rows = rng.normal(size=(count, size))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_mixed_cosine_is_the_weighted_mean(weight):
    rng = np.random.default_rng(0)
    first, second = unit(rng, 6, 4), unit(rng, 6, 7)
    rows = complement.mixed(first, second, weight)
    np.testing.assert_allclose(rows @ rows.T, (1 - weight) * first @ first.T + weight * second @ second.T, atol=1e-12)


def test_parts_of_what_lies_side_by_side_come_back():
    rng = np.random.default_rng(1)
    first, second = unit(rng, 5, 3), unit(rng, 5, 2)
    boxes = np.tile(np.array([0, 0, 4, 8], np.float32), (5, 1))
    found = Detections(np.arange(5), boxes, np.ones(5), complement.mixed(first, second, 0.5))
    both = GalleryEmbeddings(found, found, np.arange(5))
    for part, want in ((complement.part_of(both, 3), first), (complement.part_of(both, 3, second=True), second)):
        np.testing.assert_allclose(part.detections.embeddings, want, atol=1e-6)
        np.testing.assert_allclose(part.ground_truth.embeddings, want, atol=1e-6)


def test_pairs_are_all_of_one_person_across_frames_and_strangers():
    rng = np.random.default_rng(2)
    first, second = unit(rng, 8, 4), unit(rng, 8, 4)
    people, frames = np.array([1, 1, 1, 2, 2, -1, 3, 3]), np.array([0, 0, 1, 0, 2, 1, 4, 4])
    pairs = complement.pair_scores(first, second, people, frames, rng)
    want = [(a, b) for a in range(8) for b in range(a + 1, 8)
            if -1 not in (people[a], people[b]) and frames[a] != frames[b]]  # fmt: skip
    same = [(a, b) for a, b in want if people[a] == people[b]]
    assert pairs.same.sum() == len(same) == 3 and len(pairs.same) == len(want)
    np.testing.assert_allclose(np.sort(pairs.first[pairs.same]), np.sort([first[a] @ first[b] for a, b in same]))
    different = [second[a] @ second[b] for a, b in want if people[a] != people[b]]
    np.testing.assert_allclose(np.sort(pairs.second[~pairs.same]), np.sort(different))
    few = complement.pair_scores(first, second, people, frames, rng, others=4)
    assert few.same.sum() == 3 and len(few.same) == 7
    with pytest.raises(UserError, match="no two people"):
        complement.pair_scores(first, second, np.full(8, 1), frames, rng)


def test_dprime_of_the_mean_follows_from_the_correlation():
    rng = np.random.default_rng(3)
    same = np.arange(4000) < 1500
    noise = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 4000)
    scores = noise + np.where(same[:, None], (2.0, 1.5), 0.0)
    pairs = complement.PairScores(scores[:, 0], scores[:, 1], same)
    assert complement.averaged_dprime(pairs) == pytest.approx(complement.dprime(scores.mean(axis=1), same), rel=1e-6)
    assert complement.averaged_dprime(pairs) == pytest.approx(1.75 / np.sqrt((2 + 1.2) / 4), abs=0.08)
    assert complement.averaged_dprime(pairs, independent=True) == pytest.approx(1.75 / np.sqrt(0.5), abs=0.1)


def test_agreement_needs_ranks_of_the_same_queries():
    with pytest.raises(UserError, match="ranks of 2, 3 and 2"):
        complement.agreement(np.ones(2), np.ones(3), np.ones(2))
    with pytest.raises(UserError, match="of 0, 0 and 0"):
        complement.agreement(*[np.ones(0)] * 3)
    with pytest.raises(UserError, match="weight=1.2"):
        complement.mixed(np.eye(2), np.eye(2), 1.2)


def test_kinds_of_boxes():
    frame = Frame("a", "a.jpg", np.array([[0, 0, 20, 40], [60, 0, 80, 40]], np.float32), np.array([7, -1]))
    empty = Frame("b", "b.jpg", np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    boxes = [[0, 0, 20, 38], [0, 0, 20, 30], [10, 10, 30, 50], [90, 90, 99, 99], [60, 0, 80, 40], [0, 0, 20, 40]]
    found = Detections([0, 0, 0, 0, 0, 1], boxes, np.linspace(0.9, 0.4, 6), np.zeros((6, 1)))
    assert complement.kinds_of_boxes([frame, empty], found).tolist() == [0, 1, 1, 2, 0, 2]
    assert complement.kinds_of_boxes([frame], found.select(np.arange(0))).tolist() == []
