"""Center loss on a net small enough to watch: scikit-learn's digits, 1,797 real images of 8 x 8 pixels.

A net of one hidden layer, a feature layer and a classifier trains in seconds and shows what two-stage search does to
its features (IAN, Sec. III-A and III-B)::

    pixels 64 -> hidden, ReLU [dropout] -> feature of D numbers [dropout] -> classifier, 10 digits

The loss is softmax cross-entropy plus ``lam`` times center loss on the feature, before or after the feature's own
dropout.  Features may be two numbers, so that they can be drawn; retrieval over held-out images stands for search.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pslib.errors import NotFiniteError, UserError, require_choice
from pslib.evaluation.average_precision import average_precision
from pslib.evaluation.separation import checked, within_between
from pslib.losses.center import Centers, center_loss

__all__ = [
    "DROPOUT_LAYERS",
    "Digits",
    "DigitsNet",
    "DigitsRun",
    "load_digit_images",
    "retrieval_map",
    "train_digits",
    "within_between",
]

DROPOUT_LAYERS = ("hidden", "feature")
ATTACHED = ("after", "before", "expected")
HELD_OUT = 500  # of the 1,797 images
CLASSES = 10
RATE, MOMENTUM = 0.05, 0.9


@dataclass(frozen=True)
class Digits:
    """Pixels in 0..1, (N, 64) float32, and digits 0 to 9, (N,) int64, of the training and the held-out images."""

    pixels: Tensor
    labels: Tensor
    held_out_pixels: Tensor
    held_out_labels: Tensor


@cache
def load_digit_images() -> Digits:
    """scikit-learn's digits in one fixed split, the same for every seed: 1,297 training, 500 held-out images."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels / 16, labels, test_size=HELD_OUT, random_state=0, stratify=labels)
    pixels, held_out_pixels, labels, held_out_labels = (torch.from_numpy(np.asarray(part)) for part in parts)
    return Digits(pixels.float(), labels.long(), held_out_pixels.float(), held_out_labels.long())


class DigitsNet(nn.Module):
    """The net of the module's head; ``dropout`` is the probability of dropping, ``where`` the layers it acts on.

    ``normalize`` brings features to unit length behind each place where a loss reads them, so that center loss cannot
    win by shrinking them.
    """

    def __init__(
        self,
        feature_dim: int = 2,
        dropout: float = 0.0,
        where: Iterable[str] = DROPOUT_LAYERS,
        normalize: bool = False,
        hidden_dim: int = 64,
    ):
        super().__init__()
        where = (where,) if isinstance(where, str) else tuple(where)
        for layer in where:
            require_choice("dropout layer", layer, DROPOUT_LAYERS)
        if not 0 <= dropout < 1:
            raise UserError(f"dropout={dropout} must lie in [0, 1): it is the probability of dropping a unit.")
        if feature_dim < 1:
            raise UserError(f"feature_dim={feature_dim} must be at least 1.")
        self.hidden = nn.Linear(64, hidden_dim)
        self.feature = nn.Linear(hidden_dim, feature_dim)
        self.classifier = nn.Linear(feature_dim, CLASSES)
        self.drop_hidden = nn.Dropout(dropout if "hidden" in where else 0.0)
        self.drop_feature = nn.Dropout(dropout if "feature" in where else 0.0)
        self.normalize = normalize

    def activations(self, pixels: Tensor) -> Tensor:
        """Hidden activations (N, H) before their dropout."""
        return self.hidden(pixels).relu()

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) before and after their own dropout; the hidden layer's dropout acts on both."""
        before = self.feature(self.drop_hidden(self.activations(pixels)))
        after = self.drop_feature(before)
        return (F.normalize(before), F.normalize(after)) if self.normalize else (before, after)


@dataclass(frozen=True)
class DigitsRun:
    """What one training did: index 0 of every (E, ...) array is the untrained net, index e the net after epoch e.

    Features are those of the evaluated net: nothing is dropped.
    """

    features: np.ndarray  # (E, N, D) of the held-out images
    activations: np.ndarray  # (N, H) of the hidden layer, held-out images, after the last epoch
    labels: np.ndarray  # (N,)
    train_features: np.ndarray  # (E, M, D)
    train_labels: np.ndarray  # (M,)
    centers: np.ndarray  # (E, 10, D)
    accuracy: np.ndarray  # (E,) share of held-out images that the classifier gets right
    hidden_power: np.ndarray  # (E, H) mean square of every hidden activation over the training images
    feature_weights: np.ndarray  # (E, D, H): column k is what hidden unit k adds to the feature
    class_weights: np.ndarray  # (E, 10, D), the last layer
    softmax_loss: np.ndarray  # (E - 1,) mean over the steps of each epoch, as trained
    center_loss: np.ndarray  # (E - 1,) the same, before it is multiplied by lam

    @property
    def norms(self) -> np.ndarray:
        """Mean length of the held-out features, (E,)."""
        return np.linalg.norm(self.features, axis=2).mean(axis=1)


def train_digits(
    lam: float = 0.0,
    *,
    dropout: float = 0.0,
    feature_dim: int = 2,
    attach: str = "after",
    where: Iterable[str] = DROPOUT_LAYERS,
    normalize: bool = False,
    epochs: int = 30,
    seed: int = 0,
    alpha: float = 0.5,
    reduction: str = "mean",
    start: str = "first",
    center_from: int = 0,
    batch_size: int = 64,
) -> DigitsRun:
    """Train a :class:`DigitsNet` with softmax + ``lam`` x center loss; the same seed gives the same numbers.

    ``attach`` is the side of the feature's dropout that center loss reads: "after" (the dropped feature) or "before";
    "expected" reads before and adds what dropping would cost on average, dropout / (1 - dropout) x ||feature||^2 / 2.
    With dropout on the hidden layer a feature is random on either side.  Center loss counts from epoch
    ``center_from`` on (fine-tuning, Sec. IV-A); the centers follow from the first.  ``alpha`` and ``start`` are those
    of :class:`pslib.losses.center.Centers`, ``reduction`` that of :func:`pslib.losses.center.center_loss`.

    Raises UserError for values out of range, NotFiniteError if the training diverges.
    """
    require_choice("side of the dropout", attach, ATTACHED)
    if not (math.isfinite(lam) and lam >= 0):
        raise UserError(f"lam={lam} must be a finite number, 0 or more: the weight of center loss.")
    if epochs < 1 or batch_size < 1:
        raise UserError(f"epochs={epochs} and batch_size={batch_size} must be at least 1.")
    digits = load_digit_images()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # weights, order of the images and dropout
        net = DigitsNet(feature_dim, dropout, where, normalize)
        centers = Centers(CLASSES, feature_dim, alpha=alpha, start=start)
        optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
        moments = [_look(net, centers, digits)]
        losses = []
        dropped = net.drop_feature.p / (1 - net.drop_feature.p) if attach == "expected" else 0.0
        for epoch in range(epochs):
            net.train()
            parts = []
            for batch in torch.randperm(len(digits.labels)).split(batch_size):
                labels = digits.labels[batch]
                before, after = net.features(digits.pixels[batch])
                read = after if attach == "after" else before
                softmax = F.cross_entropy(net.classifier(after), labels)
                center = center_loss(read, labels, centers.centers, centers.seen, reduction)
                center = center + dropped * _half_squares(before, reduction)
                optimizer.zero_grad()
                (softmax + lam * center if epoch >= center_from else softmax).backward()
                optimizer.step()
                centers.update(read.detach(), labels)
                parts.append(torch.stack([softmax.detach(), center.detach()]))
            losses.append(torch.stack(parts).mean(dim=0))
            if not losses[-1].isfinite().all():
                raise NotFiniteError(f"training diverged at lam={lam}, reduction={reduction!r}: choose a smaller lam.")
            moments.append(_look(net, centers, digits))
    softmax, center = torch.stack(losses).T.numpy()
    with torch.no_grad():
        activations = net.activations(digits.held_out_pixels).numpy()
    series = {name: np.stack([moment[name] for moment in moments]) for name in moments[0]}
    return DigitsRun(
        labels=digits.held_out_labels.numpy(),
        train_labels=digits.labels.numpy(),
        activations=activations,
        softmax_loss=softmax,
        center_loss=center,
        **series,
    )


def _half_squares(features: Tensor, reduction: str) -> Tensor:
    """Half the squared lengths of features (N, D), summed or averaged over the rows as center loss is."""
    return features.square().sum() / 2 / (len(features) if reduction == "mean" else 1)


@torch.no_grad()
def _look(net: DigitsNet, centers: Centers, digits: Digits) -> dict[str, np.ndarray]:
    """One moment of a run, by the names of :class:`DigitsRun`."""
    net.eval()
    held_out, _ = net.features(digits.held_out_pixels)
    right = net.classifier(held_out).argmax(dim=1) == digits.held_out_labels
    values = {
        "features": held_out,
        "train_features": net.features(digits.pixels)[0],
        "centers": centers.centers.clone(),
        "accuracy": right.float().mean(),
        "hidden_power": net.activations(digits.pixels).square().mean(dim=0),
        "feature_weights": net.feature.weight.clone(),
        "class_weights": net.classifier.weight.clone(),
    }
    return {name: value.numpy() for name, value in values.items()}


def retrieval_map(features: np.ndarray, labels: np.ndarray, similarity: str = "euclidean") -> float:
    """mAP in per cent when every image (N, D) searches all others; ``similarity`` is "euclidean" or "cosine".

    Ties share one rank, as scikit-learn has it: features that all coincide find nobody.

    >>> retrieval_map(np.array([[0.0], [1.0], [5.0], [6.5]]), np.array([0, 0, 1, 1]))
    100.0
    """
    require_choice("similarity", similarity, ("euclidean", "cosine"))
    features, labels = checked(features, labels)
    if similarity == "cosine":
        unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(min=1e-12)
        scores = unit @ unit.T
    else:
        squares = np.square(features).sum(axis=1)
        scores = 2 * features @ features.T - squares - squares[:, None]  # minus the squared distances
    others = ~np.eye(len(labels), dtype=bool)
    right = (labels[:, None] == labels) & others
    precisions = [
        average_precision(scores[query, right[query]], scores[query, others[query]], int(right[query].sum()))
        for query in np.flatnonzero(right.any(axis=1))
    ]
    return 100 * float(np.mean(precisions))
