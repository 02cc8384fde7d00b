"""Euclidean comparison: ranks as distances do, at any offset and scale, in search and in the browser's ranking."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pslib.data.annotations import Frame, Gallery, Protocol, Query
from pslib.errors import UserError
from pslib.evaluation.detections import Detections
from pslib.evaluation.gallery import GalleryEmbeddings, similarity_of
from pslib.evaluation.nearest import as_dot_products
from pslib.evaluation.ranking import hardest, rank
from pslib.evaluation.search import search

BOX = np.array([0, 0, 20, 40], np.float32)


@given(seed=st.integers(0, 1000), offset=st.floats(-1e4, 1e4), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_the_order_is_that_of_the_distances(seed, offset, scale):
    rng = np.random.default_rng(seed)
    gallery, queries = scale * rng.normal(size=(30, 5)) + offset, scale * rng.normal(size=(4, 5)) + offset
    rows, asked = as_dot_products(gallery, queries)
    assert rows.shape == (30, 6) and asked.shape == (4, 6) and rows.dtype == np.float32
    distance = np.linalg.norm(queries[:, None] - gallery[None], axis=2)
    np.testing.assert_array_equal(np.argsort(-(asked @ rows.T), axis=1)[:, :3], np.argsort(distance, axis=1)[:, :3])


def toy():
    """The query's right match lies nearest, but another points more in her direction."""
    embeddings = np.array([[10.0, 10.0], [1.0, 0.0]], np.float32)
    found = Detections([1, 1], [BOX + 60, BOX], np.ones(2), embeddings)
    protocol = Protocol("toy", [Query(0, BOX, 7)], [Gallery(np.array([1]), np.array([1]), BOX[None])])
    return found, protocol, np.array([[1.0, 1.0]])


def test_search_by_distance_and_by_dot_product_differ():
    found, protocol, query = toy()
    near = search(protocol, found, query, num_frames=2, similarity="euclidean")
    assert (near.mean_ap, int(near.rank[0])) == (1.0, 1)
    assert int(search(protocol, found, query, num_frames=2).rank[0]) == 2
    with pytest.raises(UserError, match="nearest: euclidean"):
        search(protocol, found, query, num_frames=2, similarity="euclidian")


def test_the_browsers_ranking_follows_the_model():
    found, _, query = toy()
    frames = [Frame("a", None, BOX[None], np.array([7])), Frame("b", None, BOX[None], np.array([7]))]
    gallery = GalleryEmbeddings(found, found, np.array([7, 7]), similarity="euclidean")
    ranking = rank(gallery, query[0], frames=frames, person_id=7, query_frame=0)
    assert ranking.verdict == ["right", "wrong"] and ranking.ap == 1.0
    np.testing.assert_allclose(ranking.similarity, [-1.0, -np.sqrt(162)], rtol=1e-6)
    other = rank(replace(gallery, similarity="cosine"), query[0], frames=frames, person_id=7, query_frame=0)
    assert other.verdict == ["wrong", "right"]


def test_the_browsers_worst_queries_follow_the_model():
    found, protocol, query = toy()
    own = Detections([0, 1], np.stack([BOX, BOX]), np.ones(2), np.concatenate([query, found.embeddings[:1]]))
    gallery = GalleryEmbeddings(found, own, np.array([7, 7]), similarity="euclidean")
    assert hardest(protocol, gallery, num_frames=2) == [(0, 1.0)]
    assert hardest(protocol, replace(gallery, similarity="cosine"), num_frames=2) == [(0, 0.5)]


def test_a_model_says_how_it_compares():
    class Distant:
        similarity = "euclidean"

    assert similarity_of(Distant()) == "euclidean" and similarity_of(object()) == "cosine"
