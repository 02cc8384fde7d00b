"""ROI-AlignPS: AlignPS augmented with explicit region alignment, two branches on one backbone.

AlignPS, Sec. III-D and Fig. 5.  The *dense branch* is AlignPS: its neck reads C3 to C5, and every cell is embedded
where its deformable convolutions look (implicit alignment).  The *ROI branch* is NAE's second stage: boxes are cut out
of C4 and embedded one by one (explicit alignment).  In training an RPN proposes the boxes that the ROI branch learns
from; in inference there is none, and only AlignPS's few detections are cut out.  A person then has two embeddings, to
be read apart or side by side.  Every row of Table VI is a setting:

    separate training              shared=False            AlignPS and NAE, without a common weight
    joint training without RPN     rpn=False               the ROI branch learns from AlignPS's own detections
    ROI-Align*                     dense_reid=False        AlignPS only detects
    joint training with RPN        the defaults

each read as ``"dense"`` (the paper's row AlignPS), ``"roi"`` (ROI-Align) or ``"both"`` (Concatenation), and every row
of Table VII is a setting of ``mutual``.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from pslib.errors import UserError, require_choice
from pslib.losses.mutual import (
    MARGINALS,
    MutualInformationEstimator,
    branch_pairs,
    diversity,
    features_detached,
    kl_consensus,
    mutual_information_bound,
)
from pslib.losses.oim import memory_logits
from pslib.models.alignps import AlignPS, AlignPSConfig, DenseOutput
from pslib.models.batching import ImageBatch, batch_images
from pslib.models.nae import NAE, NAEConfig
from pslib.models.proposals import ProposalConfig, build_rpn, propose, require_counts, require_shares
from pslib.models.roi_branch import RoiBranch, RoiBranchConfig

__all__ = ["MUTUAL", "READS", "RoiAlignPS", "RoiAlignPSConfig"]

MUTUAL = ("information", "kl", "diversity")
READS = ("dense", "roi", "both")

Found = tuple[list[dict[str, Tensor]], list[Tensor]]  # the detections, and the embeddings of given boxes


@dataclass(frozen=True)
class RoiAlignPSConfig(ProposalConfig):
    """Every switch of the model; the defaults are ROI-AlignPS without mutual learning at the tiny profile.

    ``dense`` names the backbone, also of the ROI branch; ``roi`` has the thresholds of NAE's own boxes, which only
    ``shared=False`` reads.
    """

    dense: AlignPSConfig = AlignPSConfig()
    roi: RoiBranchConfig = RoiBranchConfig()
    shared: bool = True
    rpn: bool = True
    dense_reid: bool = True
    mutual: tuple[str, ...] = ()
    mutual_detached: float = 2 / 3  # share of the steps in which the estimator of information learns alone
    mutual_marginal: str = "permutation"  # whom a person is paired with as a stranger; released with "replacement"
    mutual_hidden: int = 256  # width of the estimator, as released
    kl_literal: bool = False  # Eq. 8 as printed, over posteriors that do not sum to one
    read: str = "both"
    matching: str = "pool"  # whose NAE embedding joins an AlignPS detection where nothing is shared; or "iou"

    def __post_init__(self) -> None:
        super().__post_init__()
        for term in self.mutual:
            require_choice("strategy of mutual learning", term, MUTUAL)
        if len(set(self.mutual)) < len(self.mutual):
            raise UserError(f"mutual={self.mutual} names a strategy twice: name each once.")
        require_choice("read", self.read, READS)
        require_choice("matching", self.matching, ("pool", "iou"))
        require_choice("marginal", self.mutual_marginal, MARGINALS)
        require_shares(self, "mutual_detached")
        require_counts(self, "mutual_hidden")
        if not self.shared and (self.mutual or not self.rpn or not self.dense_reid):
            raise UserError(
                "shared=False trains AlignPS and NAE as they are, apart from each other: leave rpn and dense_reid at "
                "True and mutual empty."
            )
        if not self.dense_reid and (self.mutual or self.read != "roi"):
            raise UserError(
                "dense_reid=False leaves the dense branch without embeddings worth reading: set read='roi' and leave "
                "mutual empty."
            )
        if "diversity" in self.mutual and self.dense.channels != self.roi.dim:
            raise UserError(
                f"diversity compares embeddings of dense.channels={self.dense.channels} and roi.dim={self.roi.dim} "
                "numbers: make the two equal, or leave it out."
            )

    @property
    def reads(self) -> tuple[str, ...]:
        """The embeddings that the model has of a person."""
        return READS if self.dense_reid else ("roi",)


class RoiAlignPS(nn.Module):
    """Detects people as AlignPS does and embeds them twice; follows torchvision's contract for detectors.

    Args:
        config: the switches.
        num_identities: I, rows of both lookup tables.

    In training ``model(images, targets)`` returns a dict of scalar losses, unweighted, as far as they are switched on:
    classification, box, centerness, oim and triplet of the dense branch; rpn_class and rpn_box; roi_class, roi_box and
    roi_oim; mutual_information, mutual_kl and mutual_diversity.  ``images`` is a list of (3, H, W) tensors (uint8, or
    floats in 0..1), a target is ``{"boxes": (N, 4) xyxy px, "labels": (N,) in 0..I-1 or -1}``.  After the optimiser's
    step the trainer calls :meth:`update_memory`.  In evaluation ``model(images)`` returns one dict an image: ``boxes``
    (N, 4) px and ``scores`` (N,), AlignPS's but for NAE's own, and unit ``embeddings`` (N, D) as ``config.read`` says.

    A backbone's warm start reaches the ROI branch's own last stage by :meth:`follow_backbone`.
    """

    similarity = "cosine"

    def __init__(self, config: RoiAlignPSConfig, num_identities: int):
        super().__init__()
        self.config, self.num_identities = config, num_identities
        self.alignps = AlignPS(config.dense, num_identities)
        self.nae = self.roi = self.rpn = self.estimator = None
        if not config.shared:
            proposals = {item.name: getattr(config, item.name) for item in fields(ProposalConfig)}
            backbone = {
                name: getattr(config.dense, name) for name in ("backbone", "backbone_weights", "frozen_backbone")
            }
            self.nae = NAE(NAEConfig(**proposals, **backbone, roi=config.roi), num_identities)
            return
        self.roi = RoiBranch(config.roi, self.alignps.backbone, num_identities)
        if config.rpn:
            self.rpn = build_rpn(self.alignps.backbone.channels[-2], config)
        if "information" in config.mutual:
            self.estimator = MutualInformationEstimator(config.dense.channels, config.roi.dim, config.mutual_hidden)

    @property
    def reads(self) -> tuple[str, ...]:
        """The embeddings of a person that these weights can be evaluated with."""
        return self.config.reads

    def reading(self, read: str, matching: str | None = None) -> "RoiAlignPS":
        """The same weights, not a copy, read another way."""
        require_choice("read", read, self.reads)
        view = copy(self)
        view.config = replace(self.config, read=read, matching=matching or self.config.matching)
        return view

    def follow_backbone(self) -> None:
        """Start the ROI branch's own last stage where the backbone's is now: after other weights were loaded there."""
        if self.config.shared:
            self.roi.copy_stage(self.alignps.backbone)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        if not self.training:
            return self.detect_and_embed(images, [torch.zeros(0, 4, device=image.device) for image in images])[0]
        if not self.config.shared:
            return self.alignps(images, targets) | self.nae(images, targets)
        return self.losses(*self.look(images), targets)

    def look(self, images: Sequence[Tensor]) -> tuple[ImageBatch, DenseOutput, Tensor]:
        """The images as a batch, what the dense branch says of it, and the map (B, C4, h, w) that ROIs are cut from."""
        backbone = self.alignps.backbone
        batch = batch_images(images, multiple=backbone.strides[-1])
        maps = backbone(batch.tensors)
        return batch, self.alignps.dense_from(maps, batch), maps[-2].float()

    def losses(
        self, batch: ImageBatch, dense: DenseOutput, trunk: Tensor, targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The losses of both branches on one backbone, and those between them."""
        losses, match = self.alignps.detection_losses(dense, targets)
        if self.config.dense_reid:
            dense_people = self.alignps.people(dense, match, targets)
            losses |= self.alignps.reid_losses(*dense_people)
        if self.rpn is not None:
            proposals, more = propose(self.rpn, batch, trunk, targets)
            losses |= more
        else:
            with torch.no_grad():
                proposals = [found["boxes"] for found in self.alignps.find(dense, batch.sizes)]
        samples = self.roi.sample(proposals, targets)
        output = self.roi.read(trunk, [sample.boxes for sample in samples])
        losses |= self.roi.losses(output, samples)
        if self.config.mutual:
            losses |= self.mutual_losses(*branch_pairs(*dense_people, *self.roi.people(output, samples)))
        return losses

    def mutual_losses(self, dense: Tensor, roi: Tensor) -> dict[str, Tensor]:
        """The losses between the branches, of one unit mean a branch and person: (K, D_dense) and (K, D_roi).

        Sec. III-D.  The posteriors that KL compares are each branch's own: its memory's, at its temperature.
        """
        config, losses = self.config, {}
        if "information" in config.mutual:
            pair = (dense.detach(), roi.detach()) if features_detached(config.mutual_detached) else (dense, roi)
            bound = mutual_information_bound(self.estimator, *pair, marginal=config.mutual_marginal)
            losses["mutual_information"] = -bound
        if "kl" in config.mutual:
            own = config.dense
            with torch.autocast(dense.device.type, enabled=False):
                dense_logits = memory_logits(dense, self.alignps.memory, own.temperature, own.queue_temperature)
                roi_logits = memory_logits(roi, self.roi.memory, config.roi.temperature)
            losses["mutual_kl"] = kl_consensus(dense_logits, roi_logits, self.num_identities, config.kl_literal)
        if "diversity" in config.mutual:
            losses["mutual_diversity"] = diversity(dense, roi)
        return losses

    def update_memory(self) -> None:
        """Write the last batch's people into both branches' memories; called after the optimiser's step."""
        for part in (self.alignps, self.nae, self.roi):
            if part is not None:
                part.update_memory()

    def detect_and_embed(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> Found:
        """One pass for both: the detections of each image, and unit embeddings (N, D) of its given ``boxes`` (N, 4) px.

        ``config.read`` says which embedding; the ROI branch runs only where it is read, and an RPN never, but for NAE
        on its own (``shared=False``).
        """
        if not self.config.shared and self.config.read == "roi":
            return self.nae.detect_and_embed(images, boxes)
        batch, dense, trunk = self.look(images)
        given = [self.alignps.best_cells(dense, image, people) for image, people in enumerate(boxes)]
        rows = [self.alignps.normalize(dense.embeddings[image, cells]) for image, cells in enumerate(given)]
        found = self.alignps.detect(dense, batch.sizes)
        if self.config.read == "dense":
            return found, rows
        if self.config.shared:
            regions, given_regions = self._read_rois(self.roi, trunk, found, boxes)
        else:
            regions, given_regions = self._ask_nae(images, found, boxes)
        for result, region in zip(found, regions, strict=True):
            result["embeddings"] = self._combine(result["embeddings"], region)
        return found, [self._combine(*pair) for pair in zip(rows, given_regions, strict=True)]

    def _read_rois(
        self, branch: RoiBranch, trunk: Tensor, found: list[dict[str, Tensor]], boxes: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The ROI branch's embeddings of the detections and of the given boxes, image by image, in one run."""
        counts = [(len(result["boxes"]), len(people)) for result, people in zip(found, boxes, strict=True)]
        every = [torch.cat([result["boxes"], people.to(trunk)]) for result, people in zip(found, boxes, strict=True)]
        rows = branch.read(trunk, every).embeddings.split([sum(pair) for pair in counts])
        own, given = zip(*(image.split(pair) for image, pair in zip(rows, counts, strict=True)), strict=True)
        return list(own), list(given)

    def _ask_nae(
        self, images: Sequence[Tensor], found: list[dict[str, Tensor]], boxes: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """NAE's embeddings for AlignPS's detections and for given boxes, from a backbone of its own.

        With ``matching="pool"`` NAE reads AlignPS's boxes.  With ``"iou"`` it detects for itself, and a detection of
        AlignPS takes the embedding of the one that overlaps it most, or zero where none does at all.
        """
        batch, trunk = self.nae.look(images)
        if self.config.matching == "pool":
            return self._read_rois(self.nae.roi, trunk, found, boxes)
        matched = []
        for result, other in zip(found, self.nae.detect(batch, trunk), strict=True):
            rows = result["embeddings"].new_zeros(len(result["boxes"]), self.config.roi.dim)
            if len(rows) and len(other["boxes"]):
                overlap, best = box_iou(result["boxes"], other["boxes"]).max(dim=1)
                rows = torch.where((overlap > 0).unsqueeze(1), other["embeddings"][best], 0.0)
            matched.append(rows)
        return matched, self.nae.embed(trunk, boxes)

    def _combine(self, dense: Tensor, region: Tensor) -> Tensor:
        """The embedding that is asked for, of the two branches' (N, D_dense) and (N, D_roi), both of unit length."""
        return region if self.config.read == "roi" else F.normalize(torch.cat([dense, region], dim=1), dim=1)
