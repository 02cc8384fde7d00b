"""What claims compare: each measure of a record as values to be drawn anew, one a query, a person or a frame."""

from collections.abc import Sequence

import numpy as np

from pslib.experiments.records import READ, Record
from pslib.experiments.tables import main_protocol_of

__all__ = ["NEIGHBORS", "values_of"]

NEIGHBORS = 5  # that identity purity asks
CHANCE = 50.0  # per cent of two branches


def values_of(record: Record, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """What a claim compares, (Q,) in per cent, and the groups (Q,) that its bootstrap draws: query people or frames.

    Raises KeyError with the name of an array that the record does not have.
    """
    arrays = record.arrays
    if measure == "recall":
        return 100.0 * arrays["detection/found"], arrays["detection/frame"]
    if measure == "spread":
        wide, close = (arrays[f"sampling/{path}/radius"].astype(np.float64) for path in ("C4", "C3"))
        return 100 * (wide - close), arrays["sampling/frame"]
    if measure == "inside":
        close, wide = (arrays[f"sampling/{path}/inside"].astype(np.float64) for path in ("C3", "C4"))
        return 100 * (close - wide), arrays["sampling/frame"]
    if measure == "identity purity":
        people = arrays["pictured/people"]
        return _purity(arrays["pictured/embeddings"], people), people
    if measure == "branch probe":
        branches = [arrays[f"{branch}{READ}pictured/embeddings"] for branch in ("dense", "roi")]
        return _probe(branches, arrays["pictured/people"])
    protocol = main_protocol_of(record)
    if measure == "gallery growth":
        sizes = sorted((name for name in record.info["protocols"] if name.startswith("TestG")), key=_gallery_size)
        return 100 * (record.ap(sizes[-1]) - record.ap(sizes[0])), record.people(sizes[0])
    if measure == "top1":
        return 100.0 * (record.rank(protocol) == 1), record.people(protocol)
    boxes = "ground-truth" if measure == "ground-truth map" else "detected"
    return 100 * record.ap(protocol, boxes), record.people(protocol)


def _purity(embeddings: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Of each embedding (N, D) the share of its nearest others, by cosine, that show the same of ``people`` (N,)."""
    unit = embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True).clip(1e-12)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :NEIGHBORS]  # (N, k)
    return 100.0 * (people[nearest] == people[:, None]).mean(axis=1)


def _probe(branches: Sequence[np.ndarray], people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every embedding of two branches, (N, D) each, whether a hyperplane tells its branch: per cent above chance.

    Logistic regression, cross-validated so that nobody is in the training and the held-out part at once.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, owners = np.concatenate(branches).astype(np.float64), np.tile(people, 2)
    branch = np.repeat([0, 1], len(people))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = GroupKFold(min(5, len(np.unique(people))))
    said = cross_val_predict(model, features, branch, groups=owners, cv=folds)
    return 100.0 * (said == branch) - CHANCE, owners


def _gallery_size(protocol: str) -> int:
    return int(protocol.removeprefix("TestG"))
