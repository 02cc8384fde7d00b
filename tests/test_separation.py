"""Numbers beside pictures of embeddings: against naive loops, against scikit-learn, and where they must refuse."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from pslib.errors import UserError
from pslib.evaluation import separation as numbers


def people(count=6, times=5, dim=8, spread=1.0, seed=0):
    """Features (N, D) about ``count`` centers, and labels (N,) in a mixed order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(count), times))
    return 2 * rng.normal(size=(count, dim))[labels] + spread * rng.normal(size=(len(labels), dim)), labels


def naive_purity(features, labels, k, distance):
    shares = []
    for row, label in enumerate(labels):
        others = [other for other in range(len(labels)) if other != row]
        if not any(labels[other] == label for other in others):
            continue
        nearest = sorted(others, key=lambda other: distance(features[row], features[other]))[:k]
        shares.append(np.mean([labels[other] == label for other in nearest]))
    return np.mean(shares)


def cosine_distance(a, b):
    return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def euclidean_distance(a, b):
    return np.linalg.norm(a - b)


DISTANCES = {"euclidean": euclidean_distance, "cosine": cosine_distance}


@pytest.mark.parametrize("similarity", DISTANCES)
@pytest.mark.parametrize("k", [1, 3, 29])
def test_purity_is_the_naive_loop(similarity, k):
    features, labels = people(spread=1.5)
    labels[0] = 99  # somebody seen once: no neighbor of hers exists, so she is not asked
    wanted = naive_purity(features, labels, k, DISTANCES[similarity])
    assert numbers.neighbor_purity(features, labels, k, similarity) == pytest.approx(wanted)


def test_purity_of_one_neighbor_is_the_leave_one_out_score_of_a_classifier():
    features, labels = people(spread=2.0)
    right = [KNeighborsClassifier(1).fit(np.delete(features, row, 0), np.delete(labels, row))
             .predict(features[[row]])[0] == labels[row] for row in range(len(labels))]  # fmt: skip
    assert numbers.neighbor_purity(features, labels, 1) == pytest.approx(np.mean(right))


def test_points_that_coincide_give_chance_in_any_order():
    _, labels = people()
    chance, best = numbers.purity_range(labels, 5)
    assert numbers.neighbor_purity(np.ones((len(labels), 3)), labels, 5) == pytest.approx(chance)
    assert chance == pytest.approx(4 / 29) and best == pytest.approx(4 / 5)
    perfect = np.eye(6)[labels]
    assert numbers.neighbor_purity(perfect, labels, 5) == pytest.approx(best)


def test_ties_at_the_last_place_are_shared():
    features = np.array([[0.0], [1.0], [-1.0], [5.0]])
    labels = np.array([0, 0, 1, 1])  # the first has one of hers and one other at distance 1
    # row 0: 1/2 of one place; row 1: the nearest is row 0, hers; row 2: row 0, not hers; row 3: row 1, not hers
    assert numbers.neighbor_purity(features, labels, 1) == pytest.approx((0.5 + 1 + 0 + 0) / 4)


def test_random_features_are_at_chance():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 30)
    chance, _ = numbers.purity_range(labels, 5)
    found = [numbers.neighbor_purity(rng.normal(size=(300, 6)), labels, 5) for _ in range(20)]
    assert np.mean(found) == pytest.approx(chance, abs=0.008)


@pytest.mark.parametrize("similarity", DISTANCES)
def test_silhouette_is_scikit_learn_s_and_a_loop_s(similarity):
    features, labels = people()
    got = numbers.silhouette(features, labels, similarity)
    assert got == pytest.approx(silhouette_score(features, labels, metric=similarity))
    values = []
    for row, label in enumerate(labels):
        far = np.array([DISTANCES[similarity](features[row], other) for other in features])
        own = far[(labels == label) & (np.arange(len(labels)) != row)].mean()
        other = min(far[labels == rival].mean() for rival in set(labels) - {label})
        values.append((other - own) / max(own, other))
    assert got == pytest.approx(np.mean(values))


@pytest.mark.parametrize("similarity", DISTANCES)
def test_distances_are_the_pairs(similarity):
    features, _ = people(count=3, times=2)
    wanted = [[DISTANCES[similarity](a, b) for b in features] for a in features]
    np.testing.assert_allclose(numbers.distances(features, similarity), wanted, atol=1e-9)


def test_separation_holds_the_three_numbers_and_compares_as_told():
    features, labels = people()
    scaled = features * np.linspace(0.1, 5, len(features))[:, None]  # lengths say nothing by cosine
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    by_cosine = numbers.separation(scaled, labels, "cosine")
    assert by_cosine.within_between == pytest.approx(numbers.within_between(unit, labels))
    assert by_cosine.purity == pytest.approx(numbers.neighbor_purity(unit, labels))
    assert by_cosine.silhouette == pytest.approx(numbers.silhouette(unit, labels, "cosine"))
    assert numbers.separation(scaled, labels).purity < by_cosine.purity
    assert "purity of 5 neighbors" in str(by_cosine)


def test_stored_features_say_how_they_are_compared():
    features, _ = people()
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float16)
    assert numbers.compared_as(unit) == "cosine" and numbers.compared_as(features) == "euclidean"


def test_probe_tells_what_a_hyperplane_can_and_nothing_else():
    rng = np.random.default_rng(0)
    features, owners = people(count=10, times=6, spread=0.5)
    groups = rng.integers(0, 2, len(features))
    shifted = features + 30 * groups[:, None] * np.eye(8)[0]
    assert numbers.linear_probe(shifted, groups).accuracy == 1
    nothing = numbers.linear_probe(features, groups, owners)
    assert nothing.accuracy == pytest.approx(0.5, abs=0.2)
    assert nothing.chance == pytest.approx(max(groups.mean(), 1 - groups.mean()))
    ring = np.r_[rng.normal(size=(100, 2)), 9 * numbers.as_compared(rng.normal(size=(100, 2)), "cosine")]
    assert numbers.linear_probe(ring, np.repeat([0, 1], 100)).accuracy < 0.75  # apart, but by no line


def test_probe_keeps_a_person_on_one_side():
    """Groups that follow people are no property of the space: unseen people show it."""
    features, owners = people(count=20, times=8, dim=4, spread=0.2)
    groups = np.random.default_rng(1).permutation(np.repeat([0, 1], 10))[owners]
    leaky = numbers.linear_probe(np.c_[features, np.eye(20)[owners]], groups).accuracy
    fair = numbers.linear_probe(np.c_[features, np.eye(20)[owners]], groups, owners).accuracy
    assert leaky == 1 and fair < 0.8


def test_neighbors_kept_is_the_overlap_of_two_lists():
    line = np.arange(6.0)[:, None]
    assert numbers.neighbors_kept(line, np.c_[line, 0 * line], 2) == 1
    folded = np.c_[np.array([0.0, 1, 2, 2.1, 1.1, 0.1]), np.zeros(6)]  # both ends beside each other
    far = np.abs(folded[:, :1] - folded[:, :1].T)
    np.fill_diagonal(far, np.inf)
    naive = [len(set(np.argsort(np.where(np.arange(6) == i, np.inf, np.abs(line[:, 0] - i)), kind="stable")[:2])
                 & set(np.argsort(far[i], kind="stable")[:2])) for i in range(6)]  # fmt: skip
    assert numbers.neighbors_kept(line, folded, 2) == pytest.approx(np.mean(naive) / 2)


def test_arrangements_are_compared_by_the_order_of_their_distances():
    labels = np.array([7, 7, 7, 8, 9])
    first = np.array([[0.0, 0], [0, 0], [9, 9], [1, 0], [3, 0]])  # medians at 0, 1 and 3: distances 1, 3, 2
    second = np.array([[0.0, 0], [0, 0], [-5, 2], [2, 0], [3, 0]])  # at 0, 2 and 3: distances 2, 3, 1
    assert numbers.same_arrangement(first, second, labels) == pytest.approx(1 - 6 * (1 + 0 + 1) / (3 * 8))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    many, people_of = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) // 4
    assert numbers.same_arrangement(many, many, people_of) == 1
    medians = np.stack([np.median(many[people_of == one], axis=0) for one in range(10)])
    assert numbers.same_arrangement(medians, 3 * medians * (1, -1) @ turn, np.arange(10)) == 1
    with pytest.raises(UserError, match="three or more"):
        numbers.same_arrangement(many, many, people_of % 2)


def test_what_cannot_be_answered_is_said():
    features, labels = people()
    with pytest.raises(UserError, match="k=0 must lie in 1..29"):
        numbers.neighbor_purity(features, labels, 0)
    with pytest.raises(UserError, match="k=30"):
        numbers.neighbor_purity(features, labels, 30)
    with pytest.raises(UserError, match="no label occurs twice"):
        numbers.neighbor_purity(features, np.arange(30))
    for bad in (np.zeros(30), np.arange(30)):
        with pytest.raises(UserError, match="silhouette needs"):
            numbers.silhouette(features, bad)
    with pytest.raises(UserError, match="two classes"):
        numbers.within_between(features, np.zeros(30))
    with pytest.raises(UserError, match="tells two groups apart, got 6"):
        numbers.linear_probe(features, labels)
    with pytest.raises(UserError, match="5 folds need"):
        numbers.linear_probe(features, np.arange(30) < 3)
    with pytest.raises(UserError, match="Euclidean|euclidean"):
        numbers.separation(features * (labels > 0)[:, None], labels, "cosine")
    with pytest.raises(UserError, match="similarity"):
        numbers.separation(features, labels, "manhattan")
    with pytest.raises(UserError, match="feature 2 holds"):
        numbers.separation(np.where(np.arange(30)[:, None] == 2, np.nan, features), labels)
    with pytest.raises(UserError, match="must be"):
        numbers.separation(features, labels[:-1])
    with pytest.raises(UserError, match="one point each"):
        numbers.neighbors_kept(features, features[:10, :2])
