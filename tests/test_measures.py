"""Measures of claims on records made by hand: purity and probe against loops and scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from pslib.experiments.measures import NEIGHBORS, values_of
from pslib.experiments.records import Record

PEOPLE = np.repeat(np.arange(6), 7)


def record(**arrays):
    stored = {name.replace("__", "/").replace("_OF_", ":"): values for name, values in arrays.items()}
    return Record(None, {"protocols": ["TestG100"]}, {"pictured/people": PEOPLE, **stored})


def cloud(seed, scatter, shift=0.0, dim=8):
    """Unit embeddings around one direction a person, half precision as records keep them."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).normal(size=(6, dim))
    points = centers[PEOPLE] + scatter * rng.normal(size=(len(PEOPLE), dim))
    points[:, 0] += shift
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("scatter", [0.05, 1.0, 5.0])
def test_purity_is_that_of_nearest_neighbors(scatter):
    features = cloud(1, scatter)
    values, groups = values_of(record(pictured__embeddings=features), "identity purity")
    search = NearestNeighbors(n_neighbors=NEIGHBORS + 1, metric="cosine").fit(features.astype(np.float64))
    expected = []
    for place, near in enumerate(search.kneighbors(features.astype(np.float64), return_distance=False)):
        others = [other for other in near if other != place][:NEIGHBORS]
        expected.append(100 * np.mean([PEOPLE[other] == PEOPLE[place] for other in others]))
    assert values.tolist() == pytest.approx(expected) and groups is PEOPLE
    assert bool(values.mean() > 99) is (scatter == 0.05)


def test_a_probe_tells_shifted_branches_apart_and_not_equal_ones():
    apart = record(dense_OF_pictured__embeddings=cloud(1, 0.3), roi_OF_pictured__embeddings=cloud(2, 0.3, shift=5))
    values, groups = values_of(apart, "branch probe")
    assert len(values) == len(groups) == 2 * len(PEOPLE) and values.mean() > 35
    alike = record(dense_OF_pictured__embeddings=cloud(1, 0.3), roi_OF_pictured__embeddings=cloud(2, 0.3))
    assert abs(values_of(alike, "branch probe")[0].mean()) < 20
    assert set(np.unique(values)) <= {-50.0, 50.0}


def test_a_probe_needs_both_branches():
    with pytest.raises(KeyError, match="roi:pictured"):
        values_of(record(dense_OF_pictured__embeddings=cloud(1, 0.3)), "branch probe")
