"""Which pixels feed an embedding: the energy of its gradient, pixel by pixel, for both branches of ROI-AlignPS.

AlignPS, Sec. III-D: one branch lets a cell choose what it reads (implicit alignment), the other cuts a box out of a map
(explicit alignment).  What either of them *could* see follows from its layers; what it *does* see is a matter of its
weights, and a derivative tells: a pixel whose change does not change the embedding does not feed it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from pslib.errors import UserError
from pslib.models.batching import ImageBatch, batch_images
from pslib.models.roi_alignps import RoiAlignPS

__all__ = ["PARTS", "branch_embeddings", "energy_shares", "energy_within", "pixel_energy"]

PARTS = ("her pixels", "rest of her box", "other people", "street and things")


def branch_embeddings(model: RoiAlignPS, batch: ImageBatch, boxes: Sequence[Tensor]) -> dict[str, Tensor]:
    """Unit embeddings (N, D) of given ``boxes``, (n, 4) xyxy px an image, by branch: ``{"dense": ..., "roi": ...}``.

    N is the sum of all n.  The graph is kept, down to a batch that asks for it.  Raises UserError for a model whose
    branches have no common backbone, or that is in training, where images see each other.
    """
    if not model.config.shared:
        raise UserError("shared=False is two models without a common map: ask AlignPS and NAE apart from each other.")
    if model.training:
        raise UserError("the model is in training and would change while it is looked at: call its eval() before.")
    maps = model.alignps.backbone(batch.tensors)
    dense, trunk = model.alignps.dense_from(maps, batch), maps[-2].float()
    with torch.no_grad():
        cells = [model.alignps.best_cells(dense, image, people) for image, people in enumerate(boxes)]
    rows = torch.cat([dense.embeddings[image, own] for image, own in enumerate(cells)])
    return {"dense": model.alignps.normalize(rows), "roi": model.roi.read(trunk, list(boxes)).embeddings}


def pixel_energy(
    model: RoiAlignPS,
    images: Sequence[Tensor],
    boxes: Tensor,
    generator: torch.Generator,
    directions: int = 4,
    batch_size: int = 16,
) -> dict[str, list[np.ndarray]]:
    """Share of the gradient's energy at every pixel, a map (H, W) that sums to 1 for each image, by branch.

    ``boxes`` (N, 4) holds one person for each of the N ``images`` (3, H, W).  The energy of a pixel is the sum of the
    squared derivatives of all D numbers of the embedding by its three normalized colors.  Each backward pass gives one
    direction of the embedding, so ``directions`` orthonormal ones are drawn for all of them (Hutchinson's estimate,
    which is right on average, and exact where all D are taken).
    """
    found: dict[str, list[np.ndarray]] = {"dense": [], "roi": []}
    for start in range(0, len(images), batch_size):
        chosen = images[start : start + batch_size]
        batch = batch_images(chosen, multiple=model.alignps.backbone.strides[-1])
        pixels = batch.tensors.requires_grad_()
        for branch, rows in branch_embeddings(model, batch, boxes[start : start + batch_size].split(1)).items():
            energy = pixels.new_zeros(len(chosen), *pixels.shape[-2:])
            for direction in _orthonormal(rows.shape[1], directions, generator):
                # Images do not see each other in evaluation, so one pass serves all of them.
                (slope,) = torch.autograd.grad((rows @ direction.to(rows)).sum(), pixels, retain_graph=True)
                energy += slope.square().sum(dim=1)
            for one, image in zip(energy, chosen, strict=True):
                seen = one[: image.shape[-2], : image.shape[-1]]
                found[branch].append((seen / seen.sum().clamp(min=1e-30)).cpu().numpy())
    return found


def energy_shares(energy: np.ndarray, owner: np.ndarray, place: int, box: Sequence[float]) -> dict[str, float]:
    """Where the ``energy`` (H, W) lies, as shares of the four :data:`PARTS`, which together are the picture.

    ``owner`` (H, W) says whose each pixel is (negative: nobody's), ``place`` is the person, ``box`` xyxy px hers.
    Pixels on outlines belong to nobody.

    >>> owner = np.array([[3, -1, 5, -1]])
    >>> energy_shares(np.array([[0.4, 0.3, 0.2, 0.1]]), owner, 3, (0, 0, 2, 1))
    {'her pixels': 0.4, 'rest of her box': 0.3, 'other people': 0.2, 'street and things': 0.1}
    """
    inside, her = _outside(box, owner.shape) == 0, owner == place
    others = (owner >= 0) & ~her & ~inside
    masks = (her, inside & ~her, others, ~(her | inside | others))
    return {part: float(energy[mask].sum()) for part, mask in zip(PARTS, masks, strict=True)}


def energy_within(energy: np.ndarray, box: Sequence[float], reaches: Sequence[float]) -> np.ndarray:
    """Share of the ``energy`` (H, W) that lies at most r px outside ``box`` xyxy, for each r of ``reaches``: (R,).

    >>> energy_within(np.array([[0.5, 0.2, 0.2, 0.1]]), (0, 0, 1, 1), (0, 1, 9)).round(1).tolist()
    [0.5, 0.7, 1.0]
    """
    away = _outside(box, energy.shape)
    return np.array([energy[away <= reach].sum() for reach in reaches])


def _outside(box: Sequence[float], shape: tuple[int, ...]) -> np.ndarray:
    """Distance (H, W) in px of every pixel from the box; 0 inside."""
    left, top, right, bottom = (round(float(side)) for side in box)
    outside = np.ones(shape, bool)
    outside[max(0, top) : bottom, max(0, left) : right] = False
    if outside.all():
        raise UserError(f"the box {tuple(float(side) for side in box)} holds no pixel of a picture {shape}: mend it.")
    return distance_transform_edt(outside)


def _orthonormal(size: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` orthonormal directions (count, size)."""
    if not 1 <= count <= size:
        raise UserError(f"directions={count} of an embedding of {size} numbers: give 1 to {size}.")
    return torch.linalg.qr(torch.randn(size, count, generator=generator))[0].T
