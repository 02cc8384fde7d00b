"""Center loss: features of one identity should lie close to that identity's mean feature, its *center*.

Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition" (2016); IAN, Sec. III-A::

    L_c = 1/2 sum_i ||x_i - c_{y_i}||^2                                                          (Eq. 1)
    dL_c / dx_i = x_i - c_{y_i}                                                                  (Eq. 3)
    delta c_j = sum_i [y_i = j] (c_j - x_i) / (1 + sum_i [y_i = j]),    c_j <- c_j - alpha delta c_j    (Eq. 4)

The 1 in Eq. 4's denominator makes the step of a class that shows up once half as long.  Eq. 4 is no gradient of Eq. 1,
and centers are no parameters: they change only in :meth:`Centers.update`, called after the optimizer's step.

Neither function looks at more of the table than the classes of the batch, so a step costs the same with a thousand
identities as with a million.
"""

import torch
from torch import Tensor, nn

from pslib.data.annotations import UNLABELLED
from pslib.errors import NotFiniteError, UserError, require_choice

__all__ = ["Centers", "center_loss"]


def center_loss(
    features: Tensor, labels: Tensor, centers: Tensor, seen: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Center loss, Eq. 1, of features (N, D) with labels (N,) and centers (I, D); a scalar.

    Rows count if their label is an identity, 0..I-1; UNLABELLED people and background, I, are left out, and so are
    classes that ``seen`` (I,) bool says have no center yet.  ``reduction="sum"`` is Eq. 1 as printed, ``"mean"``
    divides by the number of rows that count, so that its weight means the same for batches of every size.

    No gradient reaches the centers.  With no row that counts the loss is a zero with a graph.  Computed in float32
    or wider, whatever the autocast state.

    >>> features, centers = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.zeros(2, 2)
    >>> center_loss(features, torch.tensor([1, UNLABELLED]), centers)  # (9 + 16) / 2
    tensor(12.5000)
    """
    require_choice("reduction", reduction, ("mean", "sum"))
    _check(features, labels, centers)
    with torch.autocast(features.device.type, enabled=False):
        row = _counting(labels, len(centers))
        if seen is not None:
            row = row[seen[labels[row]]]
        dtype = _wide(features, centers)
        distance = features[row].to(dtype) - centers.detach()[labels[row]].to(dtype)
        total = distance.square().sum() / 2
        return total / max(1, len(row)) if reduction == "mean" else total


class Centers(nn.Module):
    """The centers (I, D) of I identities and which of them have been ``seen`` (I,), both buffers.

    ``alpha`` in [0, 1] is the centers' learning rate; IAN names none (0.5 is Wen et al.'s).  Neither paper says where
    centers start.  ``start="first"``: a class that shows up for the first time gets the mean of its features.
    ``start="zeros"``: at the origin, and Eq. 4 from there on, which at first pulls all features to the origin too.

    >>> centers = Centers(num_identities=3, dim=2, alpha=0.5)
    >>> centers.update(torch.tensor([[0.0, 2.0], [4.0, 2.0]]), torch.tensor([1, 1]))
    >>> centers.update(torch.tensor([[6.0, 2.0]]), torch.tensor([1]))  # from 2 towards 6: 4 * 0.5 / (1 + 1)
    >>> centers.centers[1], centers.seen
    (tensor([3., 2.]), tensor([False,  True, False]))
    """

    def __init__(self, num_identities: int, dim: int, alpha: float = 0.5, start: str = "first"):
        super().__init__()
        require_choice("start", start, ("first", "zeros"))
        if not 0 <= alpha <= 1:
            raise UserError(f"alpha={alpha} must lie in [0, 1]: it is the centers' learning rate, 0.5 for most uses.")
        self.alpha, self.start = alpha, start
        self.register_buffer("centers", torch.zeros(num_identities, dim))
        self.register_buffer("seen", torch.full((num_identities,), start == "zeros"))
        self.register_load_state_dict_post_hook(_keep_start)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Move the centers of the classes in the batch, Eq. 4; features (N, D), labels (N,) as for the loss.

        Writes nothing and raises :class:`NotFiniteError` where a new center would not be finite.
        """
        _check(features, labels, self.centers)
        with torch.autocast(features.device.type, enabled=False):
            row = _counting(labels, len(self.centers))
            classes, member, count = labels[row].unique(return_inverse=True, return_counts=True)
            dtype = _wide(features, self.centers)
            old, count = self.centers[classes].to(dtype), count.to(dtype)
            pull = torch.zeros_like(old).index_add_(0, member, features[row].to(dtype) - old[member])
            # A class without center stands at the origin: the sum of its pulls, over n, is the mean of its features.
            rate = torch.where(self.seen[classes], self.alpha / (1 + count), 1 / count)
            new = (old + rate.unsqueeze(1) * pull).to(self.centers.dtype)
            finite = new.isfinite().all(dim=1)
            if not finite.all():
                raise NotFiniteError(
                    f"the features of identity {int(classes[~finite][0])} in this batch give a center that is not "
                    "finite, so no center was changed: lower the learning rate or the center loss's weight."
                )
            self.centers[classes] = new
            self.seen[classes] = True


def _keep_start(module: Centers, incompatible_keys: object) -> None:
    # A state saved with the other start, or before center loss was on, has classes not seen; at the origin all are.
    if module.start == "zeros":
        module.seen.fill_(True)


def _counting(labels: Tensor, num_identities: int) -> Tensor:
    """Indices of the rows whose label is an identity."""
    return ((labels >= 0) & (labels < num_identities)).nonzero().squeeze(1)


def _wide(features: Tensor, centers: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(features.dtype, centers.dtype), torch.float32)


def _check(features: Tensor, labels: Tensor, centers: Tensor) -> None:
    if features.ndim != 2 or features.shape[1:] != centers.shape[1:] or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features of shape {tuple(features.shape)}, labels of shape {tuple(labels.shape)} and centers of shape "
            f"{tuple(centers.shape)} do not fit: give (N, D), (N,) and (I, D)."
        )
    background = len(centers)
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if low < UNLABELLED or high > background:
        raise ValueError(
            f"labels from {low} to {high} do not fit a table of {background} identities: use 0..{background - 1}, "
            f"{background} for background, or {UNLABELLED} for people without identity."
        )
