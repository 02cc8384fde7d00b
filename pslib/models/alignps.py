"""AlignPS and the baseline it starts from, as one model with switches.

*Efficient Person Search: An Anchor-Free Approach*, Sec. III.  An FCOS detector finds people at the cells of one or
more pyramid levels, and every cell also carries an embedding.  Each alignment of the paper is an argument:

    scale alignment    levels=("P3",)                            instead of ("P3", "P4", "P5")
    region alignment   lateral, output="deformable", topdown="concat"   instead of "conv", "conv", "sum"
    task alignment     structure="reid-first"                    instead of "parallel" (T3), "box" (T1), "class" (T2)

With none of the three it is the paper's baseline: FCOS and a re-id head in parallel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from pslib.losses.detection import fcos_losses
from pslib.losses.oim import OIMMemory, oim_loss
from pslib.losses.triplet import triplet_loss
from pslib.models.alignps_config import STRUCTURES, AlignPSConfig
from pslib.models.assignment import assign_batch, positive_cells
from pslib.models.backbones import build_backbone
from pslib.models.batching import ImageBatch, batch_images
from pslib.models.deformable import deform_last, random_offsets
from pslib.models.fcos import FCOSHead, decode_ltrb, level_points, tower
from pslib.models.neck import LEVELS, AlignedFeatureAggregation

__all__ = ["STRUCTURES", "AlignPSConfig", "DenseOutput", "AlignPS", "rows_of_cells"]


@dataclass(frozen=True)
class DenseOutput:
    """Everything the network says about a batch, cells of all levels in one row of A = sum of H*W."""

    class_logits: Tensor  # (B, A)
    centerness_logits: Tensor  # (B, A)
    ltrb: Tensor  # (B, A, 4) in strides
    embeddings: Tensor  # (B, A, D) before normalisation
    points: Tensor  # (A, 2) px
    strides: Tensor  # (A,) px
    ranges: Tensor  # (A, 2) px, the sizes each cell's level answers for

    @property
    def scores(self) -> Tensor:
        """Class probability times centerness, (B, A)."""
        return self.class_logits.sigmoid() * self.centerness_logits.sigmoid()


class AlignPS(nn.Module):
    """Detects people and embeds them in one pass; follows torchvision's contract for detectors.

    Args:
        config: the switches.
        num_identities: I, rows of the lookup table.

    In training ``model(images, targets)`` returns a dict of scalar losses; ``images`` is a list of (3, H, W)
    tensors (uint8, or floats in 0..1), a target is ``{"boxes": (N, 4) xyxy px, "labels": (N,) in 0..I-1 or -1}``.
    After the optimiser's step the trainer calls :meth:`update_memory`.  In evaluation ``model(images)`` returns one
    dict an image: ``boxes`` (N, 4) px, ``scores`` (N,), ``embeddings`` (N, D) of unit length.
    """

    def __init__(self, config: AlignPSConfig, num_identities: int):
        super().__init__()
        self.config = config
        self.backbone = build_backbone(
            config.backbone, config.backbone_weights, config.frozen_backbone, config.deformable_stages
        )
        self.neck = AlignedFeatureAggregation(
            self.backbone.channels, config.channels, config.all_levels, config.lateral, config.output, config.topdown
        )
        if config.offset_init == "xavier":
            random_offsets(self.neck)
        self.head = FCOSHead(
            config.channels, config.head_channels, config.head_depth, len(config.all_levels), config.box_activation
        )
        if config.head_deformable:
            for layers in (self.head.class_tower, self.head.box_tower):
                deform_last(layers)
        # T1 to T3 have the same depth: a tower, their own or a shared one, then one linear 3x3 convolution.
        self.reid_tower = nn.Identity()
        self.reid_readout = nn.Identity()
        if config.structure == "parallel":
            self.reid_tower = tower(config.channels, config.head_channels, config.head_depth)
        if config.structure != "reid-first":
            self.reid_readout = nn.Conv2d(config.head_channels, config.channels, 3, padding=1, bias=False)
        self.embedding_norm = nn.Identity()
        if config.embedding_norm == "batch":
            self.embedding_norm = nn.BatchNorm1d(config.channels, affine=False)
        self.memory = OIMMemory(
            num_identities,
            config.queue_size,
            config.channels,
            config.oim_momentum,
            config.normalize_table,
            config.queue_channels,
        )
        self._pending: tuple[Tensor, Tensor] | None = None

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """B images (3, H, W) of any sizes, in training with a target each, to the losses or, in evaluation, to B dicts.

        Losses are scalars, unweighted.  A dict holds the detections of an image: ``boxes`` (N, 4) xyxy px, ``scores``
        (N,) in 0..1 and ``embeddings`` (N, D) of unit length.
        """
        batch = batch_images(images, multiple=self.backbone.strides[-1])
        dense = self.dense(batch)
        if self.training:
            return self.losses(dense, targets)
        return self.detect(dense, batch.sizes)

    def dense(self, batch: ImageBatch) -> DenseOutput:
        """Run the network: the predictions and the embedding of every cell of every level."""
        return self.dense_from(self.backbone(batch.tensors), batch)

    def dense_from(self, maps: Sequence[Tensor], batch: ImageBatch) -> DenseOutput:
        """:meth:`dense` from the backbone's ``maps`` of the ``batch``, where others read them too."""
        features = self.neck(maps)  # list of (B, D, H, W)
        strides = [self.backbone.strides[LEVELS.index(level)] for level in self.config.all_levels]
        if self.config.structure == "reid-first":
            # The embeddings are the neck's output itself, and detection reads what re-id has shaped.
            features = embeddings = [self._centre(x, batch.valid(s)) for x, s in zip(features, strides, strict=True)]
            heads = self.head(features)
        else:
            heads = self.head(features)
            sources = {
                "box": [head.box_tower for head in heads],
                "class": [head.class_tower for head in heads],
                "parallel": [self.reid_tower(x) for x in features] if self.config.structure == "parallel" else [],
            }[self.config.structure]
            readouts = [self.reid_readout(x) for x in sources]
            embeddings = [self._centre(x, batch.valid(s)) for x, s in zip(readouts, strides, strict=True)]
        # Nobody is looked for on background levels: they serve training alone.
        count = len(self.config.all_levels if self.training else self.config.levels)
        return self._flatten(heads[:count], embeddings[:count], strides[:count])

    def _centre(self, maps: Tensor, valid: Tensor) -> Tensor:
        """Subtract from each channel its mean over the cells that are image, not padding."""
        if not self.config.mean_subtraction:
            return maps
        total = (maps * valid).sum(dim=(2, 3), keepdim=True)  # (B, D, 1, 1)
        return maps - total / valid.sum(dim=(2, 3), keepdim=True).clamp(min=1)

    def _flatten(self, heads: Sequence, embeddings: Sequence[Tensor], strides: Sequence[int]) -> DenseOutput:
        # A level takes over from the finer one before it at the cut below it: P4 alone with P5 part at P4|P5.
        below = [self.config.size_cuts[LEVELS.index(level) - 1] for level in self.config.levels[1:]]
        cuts = (0.0, *below, float("inf"))
        bounds = list(pairwise(cuts)) + [(float("inf"),) * 2 for _ in self.config.background_levels]  # nobody so large
        device = embeddings[0].device
        sizes = [tuple(x.shape[-2:]) for x in embeddings]
        ranges = [_at_cells(ends, sizes, device) for ends in zip(*bounds[: len(sizes)], strict=True)]
        return DenseOutput(
            class_logits=rows_of_cells([head.class_logits for head in heads]).squeeze(-1),
            centerness_logits=rows_of_cells([head.centerness_logits for head in heads]).squeeze(-1),
            ltrb=rows_of_cells([head.ltrb for head in heads]),
            embeddings=rows_of_cells(embeddings),
            points=torch.cat([level_points(h, w, s, device) for (h, w), s in zip(sizes, strides, strict=True)]),
            strides=_at_cells([float(stride) for stride in strides], sizes, device),
            ranges=torch.stack(ranges, dim=1),
        )

    def losses(self, dense: DenseOutput, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Detection losses (FCOS) and the re-id loss (TOIM, Eqs. 1 to 4) of one batch, unweighted."""
        losses, match = self.detection_losses(dense, targets)
        return losses | self.reid_losses(*self.people(dense, match, targets))

    def detection_losses(
        self, dense: DenseOutput, targets: Sequence[dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The detection losses, and which box of its image each cell stands for: (B, A), -1 for background."""
        match, target_ltrb = assign_batch(
            dense.points,
            dense.strides,
            dense.ranges,
            [target["boxes"] for target in targets],
            self.config.center_radius,
        )
        losses = fcos_losses(
            dense.class_logits,
            dense.ltrb,
            dense.centerness_logits,
            match,
            target_ltrb,
            self.config.loss_normalizer,
        )
        return losses, match

    def people(self, dense: DenseOutput, match: Tensor, targets: Sequence[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """Unit embeddings (P, D) of the cells that ``match`` (B, A) assigns to people, and whose they are (P,)."""
        labels = [target["labels"] for target in targets]
        before = torch.tensor([0, *accumulate(map(len, labels[:-1]))], device=match.device)  # labels of other images
        image, cell = (match >= 0).nonzero(as_tuple=True)
        return self.normalize(dense.embeddings[image, cell]), torch.cat(labels)[match[image, cell] + before[image]]

    def reid_losses(self, people: Tensor, identity: Tensor) -> dict[str, Tensor]:
        """The re-id losses of embeddings (P, D) of people (P,), which enter the memory at :meth:`update_memory`."""
        oim, _ = oim_loss(
            people,
            identity,
            self.memory,
            self.config.temperature,
            self.config.queue_temperature,
            focal_gamma=self.config.focal_gamma,
            average=self.config.oim_average,
        )
        losses = {"oim": oim}
        if self.config.triplet != "none":
            table = self.memory.table if self.config.triplet == "table" else None
            losses["triplet"] = triplet_loss(people, identity, table, self.config.triplet_margin)
        self._pending = (people.detach(), identity)
        return losses

    def normalize(self, embeddings: Tensor) -> Tensor:
        """Embeddings (P, D) as they are compared: normed over the batch if so configured, and of unit length."""
        # Batch statistics of fewer than two people are undefined; the running ones stand in.
        if self.training and len(embeddings) < 2 and self.config.embedding_norm == "batch":
            norm = self.embedding_norm
            embeddings = F.batch_norm(embeddings, norm.running_mean, norm.running_var, eps=norm.eps)
        else:
            embeddings = self.embedding_norm(embeddings)
        return F.normalize(embeddings, dim=-1)

    @torch.no_grad()
    def update_memory(self) -> None:
        """Write the last batch's people into table and queue; the trainer calls it after the optimiser's step."""
        if self._pending is not None:
            self.memory.update(*self._pending)
            self._pending = None

    def detect(self, dense: DenseOutput, sizes: Tensor) -> list[dict[str, Tensor]]:
        """Boxes, scores and unit embeddings of each image after thresholding and non-maximum suppression."""
        found = self.find(dense, sizes)
        for image, result in enumerate(found):
            result["embeddings"] = self.normalize(dense.embeddings[image, result.pop("cells")])
        return found

    def find(self, dense: DenseOutput, sizes: Tensor) -> list[dict[str, Tensor]]:
        """:meth:`detect` without the embeddings, with the ``cells`` (N,) that they would be read from."""
        results = []
        all_scores, above = dense.scores, dense.class_logits.sigmoid() > self.config.class_threshold
        above &= dense.ranges[:, 0].isfinite()  # a background level, seen in training alone, answers for nobody
        for image, size in enumerate(sizes):
            cells = above[image].nonzero().squeeze(1)
            scores = all_scores[image, cells]
            best = scores.topk(min(1000, len(cells))).indices
            cells, scores = cells[best], scores[best]
            # Only the kept cells are decoded, and the size stays on its device: asking for it would make a GPU wait.
            boxes = decode_ltrb(dense.points[cells], dense.ltrb[image, cells], dense.strides[cells])  # (N, 4)
            candidates = torch.minimum(boxes.clamp(min=0), size.flip(0).repeat(2).to(boxes))
            keep = nms(candidates, scores, self.config.nms_threshold)
            keep = keep[: self.config.detections_per_image]
            results.append({"boxes": candidates[keep], "scores": scores[keep], "cells": cells[keep]})
        return results

    def detect_and_embed(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor]
    ) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
        """One pass for both: the detections of each image, and unit embeddings (N, D) of its given ``boxes`` (N, 4).

        A given box (ground truth, a query) is read at the centre-sampled cell of its assigned level with the highest
        class x centerness; where the box is so small that no cell qualifies, at the nearest cell of the level its
        size belongs to.
        """
        batch = batch_images(images, multiple=self.backbone.strides[-1])
        dense = self.dense(batch)
        embedded = []
        for image, people in enumerate(boxes):
            cells = self.best_cells(dense, image, people)
            embedded.append(self.normalize(dense.embeddings[image, cells]))
        return self.detect(dense, batch.sizes), embedded

    def best_cells(self, dense: DenseOutput, image: int, boxes: Tensor) -> Tensor:
        """The cells of ``image`` that given ``boxes`` (N, 4) are embedded from: indices (N,) into all A cells."""
        points, ranges = dense.points, dense.ranges
        if len(boxes) == 0:
            return torch.zeros(0, dtype=torch.int64, device=points.device)
        # Of each box alone, since people who overlap do not compete here.
        positive = positive_cells(points, dense.strides, ranges, boxes, self.config.center_radius)  # (N, A)
        best = torch.where(positive, dense.scores[image], -1.0).argmax(dim=1)
        reach = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True).clamp(min=1e-6) / 2  # (N, 1)
        own_level = (ranges[:, 0] < reach) & (reach <= ranges[:, 1])  # lower < reach <= upper, as in the assignment
        centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        distance = (points - centres).square().sum(dim=2)  # (N, A)
        nearest = distance.masked_fill(~own_level, torch.inf).argmin(dim=1)
        return torch.where(positive.any(dim=1), best, nearest)


def _at_cells(values: Sequence[float], sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """A value of each level at all its cells, (A,).  Filled in, not repeated by counts, for which a GPU would wait."""
    return torch.cat([torch.full((h * w,), x, device=device) for (h, w), x in zip(sizes, values, strict=True)])


def rows_of_cells(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C, H, W) of all levels as rows of cells: (B, A, C)."""
    return torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1)
