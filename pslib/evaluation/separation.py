"""How well do embeddings keep people apart?  Numbers to stand beside a picture of them.

Every number takes ``features`` (N, D), one label each, and ``similarity``: "euclidean", or "cosine", for which features
are first brought to unit length (among unit vectors both order neighbors alike).
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist, pdist

from pslib.errors import UserError, require_choice
from pslib.evaluation.nearest import SIMILARITIES

__all__ = [
    "Probe", "Separation", "as_compared", "checked", "compared_as", "distances", "linear_probe", "neighbor_purity",
    "neighbors_kept", "own_neighbors", "probe_answers", "purity_range", "same_arrangement", "separation", "silhouette",
    "within_between",
]  # fmt: skip

UNIT = 0.01  # how far from 1 a length may be that was stored with half precision


@dataclass(frozen=True)
class Separation:
    """What :func:`separation` finds; ``k`` neighbors were asked."""

    within_between: float
    purity: float
    silhouette: float
    k: int
    similarity: str

    def __str__(self) -> str:
        return (f"within/between {self.within_between:.2f}, purity of {self.k} neighbors {self.purity:.2f}, "
                f"silhouette {self.silhouette:.2f}")  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """Share of held-out points whose group a linear classifier tells, and the share of the larger group."""

    accuracy: float
    chance: float


def separation(features: np.ndarray, labels: np.ndarray, similarity: str = "euclidean", k: int = 5) -> Separation:
    """The three numbers at once; labels seen once count where they are counted at all (see each)."""
    compared = as_compared(features, similarity)
    return Separation(within_between(compared, labels), neighbor_purity(features, labels, k, similarity),
                      silhouette(features, labels, similarity), k, similarity)  # fmt: skip


def compared_as(features: np.ndarray) -> str:
    """The similarity that fits stored ``features``: a model that compares by cosine stores unit vectors."""
    lengths = np.linalg.norm(np.asarray(features, np.float64), axis=1)
    return "cosine" if len(lengths) and np.abs(lengths - 1).max() <= UNIT else "euclidean"


def distances(features: np.ndarray, similarity: str = "euclidean") -> np.ndarray:
    """Euclidean distances, or 1 - cosine, of all pairs, (N, N).

    >>> corner = np.array([[3.0, 0.0], [0.0, 4.0]])
    >>> float(distances(corner)[0, 1]), round(float(distances(corner, "cosine")[0, 1]), 6)
    (5.0, 1.0)
    """
    compared = as_compared(features, similarity)
    far = cdist(compared, compared)
    return far**2 / 2 if similarity == "cosine" else far


def within_between(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance to the class mean / mean squared distance of the class means to their mean.

    ``features`` (N, D), ``labels`` (N,).  The ratio does not change when all features shrink by one factor; it is
    infinite if all class means coincide while features spread, nan if all features coincide.

    >>> within_between(np.array([[0.0], [2.0], [10.0], [12.0]]), np.array([0, 0, 1, 1]))
    0.04
    """
    features, labels = checked(features, labels)
    classes, own = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"a within/between ratio needs two classes, got {len(classes)}.")
    means = np.stack([features[own == index].mean(axis=0) for index in range(len(classes))])  # (I, D)
    within = np.square(features - means[own]).sum(axis=1).mean()
    between = np.square(means - means.mean(axis=0)).sum(axis=1).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(within, between))


def neighbor_purity(features: np.ndarray, labels: np.ndarray, k: int = 5, similarity: str = "euclidean") -> float:
    """Mean of :func:`own_neighbors` over the points that can have any.

    :func:`purity_range` says what chance and perfection would give.

    >>> neighbor_purity(np.array([[0.0], [1.0], [5.0], [6.5], [9.0]]), np.array([0, 0, 1, 1, 1]), k=1)
    1.0
    """
    labels = np.asarray(labels)
    return float(own_neighbors(features, labels, k, similarity)[_repeated(labels, k)].mean())


def own_neighbors(features: np.ndarray, labels: np.ndarray, k: int = 5, similarity: str = "euclidean") -> np.ndarray:
    """Of each point, (N,), the share of its ``k`` nearest others that have its label.

    Points equally far share the last places evenly, so features that all coincide give chance, whatever their order.
    """
    features, labels = checked(features, labels)
    _repeated(labels, k)
    far = distances(features, similarity)
    np.fill_diagonal(far, np.inf)
    kth = np.partition(far, k - 1, axis=1)[:, [k - 1]]  # (N, 1)
    same = labels[:, None] == labels
    level = np.isclose(far, kth, rtol=1e-9, atol=1e-12)
    nearer = (far < kth) & ~level
    left = k - nearer.sum(axis=1)
    hits = (nearer & same).sum(axis=1) + left * (level & same).sum(axis=1) / level.sum(axis=1)
    return hits / k


def purity_range(labels: np.ndarray, k: int = 5) -> tuple[float, float]:
    """What :func:`neighbor_purity` gives features that know nothing, on average, and features that know all.

    >>> purity_range(np.array([0, 0, 1, 1, 1]), k=2)  # people seen twice have only one other picture
    (0.4, 0.8)
    """
    labels = np.asarray(labels)
    counted = _repeated(labels, k)
    others = (labels[:, None] == labels).sum(axis=1)[counted] - 1
    return float((others / (len(labels) - 1)).mean()), float((np.minimum(others, k) / k).mean())


def silhouette(features: np.ndarray, labels: np.ndarray, similarity: str = "euclidean") -> float:
    """Mean silhouette, -1..1: how much nearer a point is to its own class than to the nearest other one.

    For a point with mean distance a to its class and b to the nearest other class it is (b - a) / max(a, b); 0 for a
    class of one, and where all points coincide.
    """
    from sklearn.metrics import silhouette_score

    features, labels = checked(features, labels)
    if not 2 <= (count := len(np.unique(labels))) < len(labels):
        raise UserError(f"a silhouette needs at least two classes and one with two points; got {count} classes of "
                        f"{len(labels)} points.")  # fmt: skip
    far = distances(features, similarity)
    np.fill_diagonal(far, 0)
    return float(silhouette_score(far, labels, metric="precomputed"))


def linear_probe(
    features: np.ndarray, groups: np.ndarray, people: np.ndarray | None = None, similarity: str = "euclidean",
    folds: int = 5, seed: int = 0,
) -> Probe:  # fmt: skip
    """Can a hyperplane tell two groups of features apart?  Share of points that :func:`probe_answers` gets right."""
    answers = probe_answers(features, groups, people, similarity, folds, seed)
    _, counts = np.unique(groups, return_counts=True)
    return Probe(float((answers == np.asarray(groups)).mean()), float(counts.max() / counts.sum()))


def probe_answers(
    features: np.ndarray, groups: np.ndarray, people: np.ndarray | None = None, similarity: str = "euclidean",
    folds: int = 5, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """The group (N,) that logistic regression gives each point of ``features`` (N, D) while it is held out.

    ``groups`` (N,) has two values (two branches, two seeds).  With ``people`` (N,) nobody is in the training and the
    held-out part at once: her features are near each other whatever the groups.  Each dimension is standardized by
    the training part.  Raises UserError unless each group has ``folds`` points (and there are ``folds`` people).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, groups = checked(features, groups)
    _, counts = np.unique(groups, return_counts=True)
    if len(counts) != 2:
        raise UserError(f"a linear probe tells two groups apart, got {len(counts)}.")
    if folds < 2 or counts.min() < folds or (people is not None and len(np.unique(people)) < folds):
        raise UserError(f"{folds} folds need at least two folds, {folds} points in each group and {folds} people: "
                        "choose fewer folds or give more points.")  # fmt: skip
    split = (StratifiedKFold if people is None else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return cross_val_predict(model, as_compared(features, similarity), groups, groups=people, cv=split)


def neighbors_kept(features: np.ndarray, picture: np.ndarray, k: int = 5, similarity: str = "euclidean") -> float:
    """Share of each point's ``k`` nearest points in the space that are among its ``k`` nearest in the ``picture``.

    ``features`` (N, D), ``picture`` (N, 2); chance is k / (N - 1).  No label is asked: this judges the drawing.
    """
    near = []
    for values, how in ((features, similarity), (picture, "euclidean")):
        far = distances(values, how)
        if not 1 <= k < len(far):
            raise UserError(f"k={k} must lie in 1..{len(far) - 1}: each of {len(far)} points has so many others.")
        np.fill_diagonal(far, np.inf)
        near.append(np.argsort(far, axis=1, kind="stable")[:, :k])
    if len(near[0]) != len(near[1]):
        raise UserError(f"{len(near[0])} features and {len(near[1])} points of the picture: one point each is needed.")
    return float((near[0][:, :, None] == near[1][:, None]).any(axis=2).mean())


def same_arrangement(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """Do two pictures of the same points arrange their groups alike, whatever their turn, their mirror and their scale?

    Spearman's rank correlation, -1 to 1, of the distances between all pairs of groups in the one picture and in the
    other.  A group stands at the median of its points, coordinate by coordinate (a turn moves that a little where the
    group is torn).  ``first`` and ``second`` (N, 2), ``labels`` (N,) of three groups or more.

    >>> corner = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    >>> same_arrangement(corner, 2 * corner[:, ::-1] + 5, np.array([4, 5, 6]))
    1.0
    """
    from scipy.stats import spearmanr

    apart = []
    for picture in (first, second):
        picture, labels = checked(picture, labels)
        groups = np.unique(labels)
        apart.append(pdist(np.stack([np.median(picture[labels == group], axis=0) for group in groups])))
    if len(groups) < 3:
        raise UserError(f"{len(groups)} groups have no arrangement: give three or more.")
    return round(float(spearmanr(*apart).statistic), 12)


def checked(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features as float64 (N, D) and labels (N,); UserError where shapes do not fit or a number is not finite."""
    features, labels = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise UserError(f"features {features.shape} and labels {labels.shape} must be (N, D) and (N,).")
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise UserError(f"feature {row} holds a number that is not finite: the model diverged.")
    return features, labels


def as_compared(features: np.ndarray, similarity: str) -> np.ndarray:
    """Features as they are compared: of unit length for cosine."""
    require_choice("similarity", similarity, SIMILARITIES)
    features, _ = checked(features, np.zeros(len(features)))
    if similarity == "euclidean":
        return features
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise UserError(f"feature {int(lengths.argmin())} has length zero and no direction: compare by 'euclidean'.")
    return features / lengths


def _repeated(labels: np.ndarray, k: int) -> np.ndarray:
    """Which points (N,) bool share their label with another; UserError if none does or k is out of range."""
    if not 1 <= k < len(labels):
        raise UserError(f"k={k} must lie in 1..{len(labels) - 1}: each of {len(labels)} points has so many others.")
    counted = (labels[:, None] == labels).sum(axis=1) > 1
    if not counted.any():
        raise UserError("no label occurs twice: nobody has a neighbor of her own.")
    return counted
