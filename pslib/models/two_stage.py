"""Two-stage person search, as one model with switches: E2E-PS, IAN and JDI-PS (OIM).

*IAN: The Individual Aggregation Network for Person Search*, Sec. III: Faster R-CNN with an identity loss.  The trunk of
a backbone makes a map of the whole image, a region proposal network marks where people may stand, and a second stage
looks at each of these regions: who is it, and how must the box move?  What the losses are tells the models apart:

    E2E-PS   identity_loss="rss", center loss with weight 0
    IAN      identity_loss="rss", center loss with a weight (lambda) of its own
    JDI-PS   identity_loss="oim", with a classifier of its own for person or not

RSS classifies identities and *background*, so 1 - P(background) is the score of a box.
"""

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder

from pslib.errors import UserError
from pslib.losses.center import Centers, center_loss
from pslib.losses.oim import OIMMemory, oim_loss
from pslib.losses.rss import random_sampling_softmax
from pslib.models.backbones import build_backbone
from pslib.models.batching import ImageBatch, Shapes, batch_images
from pslib.models.proposals import build_rpn, propose, sample_rois
from pslib.models.reid_heads import (
    FullyConnected,
    HeadOutput,
    LinearHead,
    average_stage,
    refined_detections,
    roi_layer,
)
from pslib.models.two_stage_config import TwoStageConfig

__all__ = ["TwoStageConfig", "TwoStage"]


class TwoStage(nn.Module):
    """Finds people by proposals and embeds each; follows torchvision's contract for detectors.

    Args:
        config: the switches.
        num_identities: I; class I of the classifier is background.

    In training ``model(images, targets)`` returns a dict of scalar losses: rpn_class, rpn_box, box, and rss and center,
    or person and oim.  ``images`` is a list of (3, H, W) tensors (uint8, or floats in 0..1), a target is
    ``{"boxes": (N, 4) xyxy px, "labels": (N,) in 0..I-1 or -1}``.  After the optimiser's step the trainer calls
    :meth:`update_memory`.  In evaluation ``model(images)`` returns one dict an image: ``boxes`` (N, 4) px, ``scores``
    (N,), ``embeddings`` (N, D), to be compared by ``similarity``.

    A detection's embedding is that of its *proposal*, the box moves on by the regression (IAN, Sec. IV-B: one pass
    over the candidates).
    """

    def __init__(self, config: TwoStageConfig, num_identities: int):
        super().__init__()
        if num_identities < 1:
            raise UserError(f"a model of {num_identities} identities has nobody to learn: give at least 1.")
        self.config, self.num_identities = config, num_identities
        self.backbone = build_backbone(config.backbone, config.backbone_weights, config.frozen_backbone)
        level = -1 if self.backbone.last_stage is None else -2  # of the trunk
        channels, width = self.backbone.channels[level], self.backbone.channels[-1]
        self.rpn = build_rpn(channels, config)
        self.roi_layer = roi_layer(config.roi_layer, config.roi_size, self.backbone.strides[level])
        self.fully_connected = None
        if self.backbone.last_stage is None:
            width = config.fc_width
            self.fully_connected = FullyConnected(channels, config.roi_size, width, config.dropout)
            if config.backbone == "vgg16" and config.backbone_weights:
                vgg = torchvision.models.get_model("vgg16", weights=config.backbone_weights)
                self.fully_connected.load_classifier(vgg.classifier)
        self.width = width  # of the vectors that the head reads
        dim, oim = config.embedding_dim, config.identity_loss == "oim"
        self.head = LinearHead(width, dim, config.feature_relu, config.dropout, person=oim)
        if oim:
            self.memory = OIMMemory(num_identities, config.queue_size, dim, config.oim_momentum)
        else:
            self.classifier = nn.Linear(dim, num_identities + 1)
            self.centers = Centers(num_identities, dim, config.center_alpha, config.center_start)
        self.box_coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        self._pending: tuple[Tensor, Tensor] | None = None
        # Curves worth keeping that are no losses: RSS over people alone, as background is told apart at once.
        self.monitored: dict[str, Tensor] = {}

    @property
    def similarity(self) -> str:
        """How embeddings are compared: "euclidean" after RSS, "cosine" after OIM, which has them at unit length."""
        return "euclidean" if self.config.identity_loss == "rss" else "cosine"

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        batch = batch_images(images, multiple=self.backbone.strides[-1])
        trunk = self.trunk(batch.tensors)
        if self.training:
            return self.losses(batch, trunk, targets)
        proposals, _ = self.propose(batch, trunk)
        return self.detect(proposals, self.read(trunk, proposals), batch.shapes)

    def trunk(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to the map (B, C, h, w) that both stages read; float32 also under autocast."""
        return self.backbone.trunk(images).float()

    def propose(
        self, batch: ImageBatch, trunk: Tensor, targets: Sequence[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals (P, 4) px of each image, without gradient, and in training the RPN's two losses."""
        return propose(self.rpn, batch, trunk, targets)

    def read(self, trunk: Tensor, boxes: Sequence[Tensor]) -> HeadOutput:
        """The second stage on the ``boxes`` (R_i, 4) px of each image: R rows, image by image."""
        return self.read_rois(self.roi_layer(trunk, list(boxes)))

    def read_rois(self, rois: Tensor) -> HeadOutput:
        """The second stage on what was cut out of the map, (R, C, roi_size, roi_size)."""
        if len(rois) == 0:  # which batch normalisation could not bear
            return self.head(rois.new_zeros(0, self.width))
        if self.fully_connected is not None:
            return self.head(self.fully_connected(rois))
        return self.head(average_stage(self.backbone.last_stage, rois))

    def classify(self, features: Tensor) -> Tensor:
        """Logits (R, I + 1) of feat (R, D), background last; float32 also under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier(features.float())

    def losses(self, batch: ImageBatch, trunk: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """All terms of Eq. 2, unweighted."""
        config, background = self.config, self.num_identities
        proposals, losses = self.propose(batch, trunk, targets)
        samples = [
            sample_rois(
                found,
                target["boxes"].to(found.dtype),
                target["labels"],
                background,
                config.rois_per_image,
                config.positive_fraction,
                config.positive_iou,
            )
            for found, target in zip(proposals, targets, strict=True)
        ]
        output = self.read(trunk, [sample.boxes for sample in samples])
        boxes, matched = (torch.cat([getattr(s, name) for s in samples]) for name in ("boxes", "matched"))  # (R, 4)
        labels, truth = (torch.cat([getattr(s, name) for s in samples]) for name in ("labels", "truth"))  # (R,)
        person = labels != background
        wanted = self.box_coder.encode_single(matched[person], boxes[person])
        box = F.smooth_l1_loss(output.deltas[person].float(), wanted, beta=1 / 9, reduction="sum")
        losses["box"] = box / max(1, len(labels))  # as Fast R-CNN: background counts in the mean
        if config.identity_loss == "oim":
            return losses | self._oim_losses(output, labels, person)
        losses["rss"], per_row = random_sampling_softmax(
            self.classify(output.dropped), labels, config.rss_samples, average=config.rss_average
        )
        known = person & (labels >= 0)
        self.monitored = {"rss_people": per_row[known].detach().mean()}  # nan where nobody is labelled: no zero
        rows = truth if config.center_boxes == "ground-truth" else person
        features = (output.features if config.center_attach == "before" else output.dropped)[rows]
        losses["center"] = center_loss(
            features, labels[rows], self.centers.centers, self.centers.seen, config.center_reduction
        )
        self._pending = (features.detach(), labels[rows])
        return losses

    def _oim_losses(self, output: HeadOutput, labels: Tensor, person: Tensor) -> dict[str, Tensor]:
        people = F.normalize(output.dropped[person].float())
        oim, _ = oim_loss(people, labels[person], self.memory, self.config.temperature, focal_gamma=0.0)
        self._pending = (people.detach(), labels[person])
        # A sum, since the mean of no rows is undefined.
        found = F.cross_entropy(output.person_logits.float(), person.long(), reduction="sum")
        return {"person": found / max(1, len(labels)), "oim": oim}

    def crop_losses(self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Step 1 of the schedule (IAN, Sec. IV-A): name whom a crop shows, or background; {"rss": scalar}.

        ``images`` are B crops (3, h, w) of one size, a target is ``{"labels": (1,) in 0..I}``.  The trunk's map of the
        whole crop is max-pooled to the size of an ROI: for crops of 224 px and stride 16 the paper's 2x2 pooling.  The
        softmax is full.
        """
        if self.config.identity_loss != "rss":
            raise UserError("only identity_loss='rss' has a classifier of crops: set it, or leave this step out.")
        trunk = self.trunk(batch_images(images, multiple=self.backbone.strides[-1]).tensors)
        output = self.read_rois(F.adaptive_max_pool2d(trunk, self.config.roi_size))
        labels = torch.cat([target["labels"] for target in targets])  # (B,)
        loss, _ = random_sampling_softmax(self.classify(output.dropped), labels, samples=None)
        return {"rss": loss}

    @torch.no_grad()
    def update_memory(self) -> None:
        """Move the centers, or OIM's table and queue, by the last batch; called after the optimiser's step."""
        if self._pending is not None:
            memory = self.centers if self.config.identity_loss == "rss" else self.memory
            memory.update(*self._pending)
            self._pending = None

    def scores(self, output: HeadOutput) -> Tensor:
        """How surely each region shows a person, (R,) in 0..1: 1 - P(background), or the person classifier's word."""
        if output.person_logits is not None:
            return output.person_logits.float().softmax(dim=1)[:, 1]
        logits = self.classify(output.features)
        # The same number as 1 - P(background), without the cancellation where background is nearly sure.
        return torch.sigmoid(logits[:, :-1].logsumexp(dim=1) - logits[:, -1])

    def embed(self, output: HeadOutput) -> Tensor:
        """Embeddings (R, D) as they are compared: feat itself for Euclidean, of unit length for cosine."""
        features = output.features.float()
        return features if self.similarity == "euclidean" else F.normalize(features)

    def detect(self, proposals: Sequence[Tensor], output: HeadOutput, shapes: Shapes) -> list[dict[str, Tensor]]:
        """Boxes, scores and embeddings of each image after thresholding and non-maximum suppression."""
        return refined_detections(
            proposals,
            output.deltas,
            self.scores(output),
            self.embed(output),
            shapes,
            self.box_coder,
            score_threshold=self.config.score_threshold,
            nms_threshold=self.config.nms_threshold,
            limit=self.config.detections_per_image,
        )

    def detect_and_embed(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor]
    ) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
        """One pass for both: the detections of each image, and embeddings (N, D) of its given ``boxes`` (N, 4) px.

        A given box (ground truth, a query) takes the place of a proposal and stays where it is (IAN, Sec. IV-B).
        """
        batch = batch_images(images, multiple=self.backbone.strides[-1])
        trunk = self.trunk(batch.tensors)
        proposals, _ = self.propose(batch, trunk)
        detected = self.detect(proposals, self.read(trunk, proposals), batch.shapes)
        given = [people.to(trunk) for people in boxes]
        embedded = self.embed(self.read(trunk, given)).split([len(people) for people in given])
        return detected, list(embedded)
