"""How two embeddings are compared: by cosine, or by Euclidean distance as IAN does (Sec. IV-B)."""

import numpy as np

__all__ = ["SIMILARITIES", "as_dot_products"]

SIMILARITIES = ("cosine", "euclidean")


def as_dot_products(gallery: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gallery (M, D) and queries (Q, D) as (M, D+1) and (Q, D+1) whose dot products rank by Euclidean distance.

    ``q.g - |g|^2 / 2`` differs from ``-|q - g|^2 / 2`` by ``|q|^2 / 2``, which is the same for the whole gallery.  Both
    are first moved so that the gallery's mean is the origin: no distance changes, and less is lost to rounding.

    >>> gallery, queries = as_dot_products(np.array([[5.0, 1.0], [2.0, 0.0]]), np.array([[2.0, 1.0]]))
    >>> (queries @ gallery.T).argmax(axis=1).tolist()  # the first has the larger dot product, the second is nearer
    [1]
    """
    gallery, queries = np.asarray(gallery, np.float64), np.asarray(queries, np.float64)
    middle = gallery.mean(axis=0) if len(gallery) else np.zeros(gallery.shape[1])
    gallery, queries = gallery - middle, queries - middle
    half_squares = (gallery**2).sum(axis=1, keepdims=True) / 2
    rows = np.hstack([gallery, -half_squares]), np.hstack([queries, np.ones((len(queries), 1))])
    return rows[0].astype(np.float32), rows[1].astype(np.float32)
