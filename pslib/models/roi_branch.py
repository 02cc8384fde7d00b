"""The ROI branch: explicit region alignment, one box cut out of the map and embedded on its own.

AlignPS, Sec. III-D: its architecture is that of NAE.  A box is cut out of the trunk's map C4 by ROI-Align; the maximum
over its cells is one vector, and the maximum after the network's last stage has gone over them another.  The norm-aware
head makes of both an embedding with a score, and a linear layer on the second moves the box.

The branch finds no boxes itself: proposals (NAE), the detections of another branch (ROI-AlignPS) or refined boxes
(SeqNet) are handed to it.  Facts about the released code are NAE's and ROI-AlignPS's.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder

from pslib.errors import UserError, require_choice
from pslib.losses.oim import OIMMemory, oim_loss, require_memory, require_temperature
from pslib.models.batching import Shapes
from pslib.models.norm_aware import FewRowsNorm, NormAwareHead, PixelNormAwareHead, covered_cells, person_scores
from pslib.models.proposals import RoiSample, require_counts, require_shares, sample_rois
from pslib.models.reid_heads import refined_detections, roi_layer

__all__ = ["RoiBranch", "RoiBranchConfig", "RoiOutput"]


@dataclass(frozen=True)
class RoiBranchConfig:
    """Every switch of the branch; the defaults suit the tiny profile, where people are about two by five cells."""

    roi_layer: str = "align"  # or "pool"
    roi_size: int = 7  # cells; released with 14
    sampling_ratio: int = 2  # points a part along each side; 0, as ROI-AlignPS is released: as many as it has cells
    roi_aligned: bool = True  # False, as torchvision's detectors and so NAE and SeqNet: no shift by half a cell
    pixels: bool = False  # NAE+: every cell embedded, weighted by how surely it shows the person
    dim: int = 48  # D of the embedding, as AlignPS's at tiny; 256 in the papers
    gamma_std: float | None = None  # start of the embedding's batch normalisations; see NormAwareHead
    weight_std: float | None = None  # start of its linear layers; released with 0.01
    # Batch normalisation of how boxes move, as released.  Its factor starts near 0, and Adam changes it by a learning
    # rate a step, while moves are of size one: a short schedule does well without.
    box_norm: bool = True
    box_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)  # of the box coder: x, y, width, height
    box_beta: float = 0.0  # where smooth L1 turns from a square into a line; 0 is L1, as ROI-AlignPS; 1: NAE, SeqNet
    # Do true boxes, which are regions too and have nowhere to move, count in the box loss?  Released so; but where they
    # are most of the few positive regions, their zeros are the median that L1 draws every move to.
    box_from_truth: bool = True
    rois_per_image: int = 12  # in training; 128 in the papers
    positive_fraction: float = 0.5
    positive_iou: float = 0.5  # overlap from which an ROI shows the person, with her identity
    negative_iou: float | None = 0.1  # background is below; what lies between is not learned from; None: nothing does
    temperature: float = 1 / 30  # of OIM
    oim_momentum: float = 0.5
    queue_size: int = 128
    score_threshold: float = 0.05  # these three where the branch's own boxes are the result
    nms_threshold: float = 0.4
    detections_per_image: int = 100  # 300 in NAE and SeqNet

    def __post_init__(self) -> None:
        require_choice("ROI layer", self.roi_layer, ("pool", "align"))
        require_counts(self, "dim", "rois_per_image", "detections_per_image")
        require_shares(self, "positive_fraction", "positive_iou", "nms_threshold", "score_threshold")
        if self.roi_size < 3:
            raise UserError(f"roi_size={self.roi_size} leaves the last stage no cells to look at: give at least 3.")
        if self.negative_iou is not None and not 0 <= self.negative_iou <= self.positive_iou:
            raise UserError(
                f"negative_iou={self.negative_iou} must lie between 0 and positive_iou={self.positive_iou}: an overlap "
                "cannot be both."
            )
        require_memory(self.queue_size, self.oim_momentum)
        for name in ("gamma_std", "weight_std"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} is no spread: give 0 or more, or None.")
        require_temperature(temperature=self.temperature)
        if len(self.box_weights) != 4 or min(self.box_weights) <= 0:
            raise UserError(f"box_weights={self.box_weights} must be four positive numbers: give (10, 10, 5, 5).")
        if self.sampling_ratio < 0 or self.box_beta < 0:
            raise UserError(
                f"sampling_ratio={self.sampling_ratio} and box_beta={self.box_beta} cannot be negative: give 0 or more."
            )


@dataclass(frozen=True)
class RoiOutput:
    """What the branch says about R regions, image by image."""

    embeddings: Tensor  # (R, D) of unit length
    logits: Tensor  # (R,) of "this is a person"; with pixels (R, h, w), of each cell
    norms: Tensor  # (R,) length of the embedding before it was made 1; with pixels (R, h, w)
    deltas: Tensor  # (R, 4) how to move the box, as torchvision's BoxCoder encodes it

    @property
    def scores(self) -> Tensor:
        """How surely each region shows a person, (R,) in 0..1."""
        return person_scores(self.logits)


class RoiBranch(nn.Module):
    """Embeds given boxes; with its own memory and losses.

    Args:
        config: the switches.
        backbone: whose trunk map it reads; its last stage is copied, so that the branch can learn one of its own.
        num_identities: I, rows of the lookup table.
        share_stage: use the backbone's last stage itself: right where nothing else does (NAE).

    A copy is made of the weights that the backbone has at that moment: call :meth:`copy_stage` after loading others
    into it.
    """

    def __init__(self, config: RoiBranchConfig, backbone: nn.Module, num_identities: int, share_stage: bool = False):
        super().__init__()
        if num_identities < 1:
            raise UserError(f"a model of {num_identities} identities has nobody to learn: give at least 1.")
        if backbone.last_stage is None:
            raise UserError("this backbone has no last stage to go over regions with: choose tiny or a ResNet.")
        self.config, self.num_identities = config, num_identities
        trunk, width = backbone.channels[-2:]
        self.roi_layer = roi_layer(
            config.roi_layer, config.roi_size, backbone.strides[-2], config.sampling_ratio, config.roi_aligned
        )
        # A shared stage stands in a tuple, which hides it from this module: it is saved and counted once, as the
        # backbone's.
        self._shared_stage = (backbone.last_stage,) if share_stage else ()
        self.own_stage = None if share_stage else deepcopy(backbone.last_stage)
        self.width = width
        norm_aware = PixelNormAwareHead if config.pixels else NormAwareHead
        self.head = norm_aware((trunk, width), config.dim, config.gamma_std, config.weight_std)
        # Nearly nothing moves at first, so that training starts from the boxes as they are given.
        box = nn.Linear(width, 4)
        nn.init.normal_(box.weight, std=0.001)
        nn.init.zeros_(box.bias)
        self.box = nn.Sequential(box, FewRowsNorm(4, gamma_std=0.001)) if config.box_norm else box
        self.box_coder = BoxCoder(config.box_weights)
        self.memory = OIMMemory(num_identities, config.queue_size, config.dim, config.oim_momentum)
        self._pending: tuple[Tensor, Tensor] | None = None

    @property
    def last_stage(self) -> nn.Module:
        """What goes over the regions, (R, C4, s, s) to (R, C5, s/2, s/2)."""
        return self._shared_stage[0] if self.own_stage is None else self.own_stage

    def copy_stage(self, backbone: nn.Module) -> None:
        """Give the branch's own last stage the weights that the backbone's has now; nothing where it is shared."""
        if self.own_stage is not None:
            self.own_stage.load_state_dict(backbone.last_stage.state_dict())

    def read(self, trunk: Tensor, boxes: Sequence[Tensor]) -> RoiOutput:
        """The branch on the ``boxes`` (R_i, 4) px of each image; ``trunk`` (B, C4, H, W), the map they are cut from."""
        trunk = trunk.float()
        rois = self.roi_layer(trunk, [image.to(trunk) for image in boxes])  # (R, C4, s, s)
        # The last stage's batch normalisation could not bear no region at all.
        deep = self.last_stage(rois) if len(rois) else rois.new_zeros(0, self.width, 1, 1)  # (R, C5, s/2, s/2)
        if self.config.pixels:
            head, whole = self.head([rois, deep]), deep.mean(dim=(2, 3))
        else:
            vectors = [maps.amax(dim=(2, 3)) for maps in (rois, deep)]
            head, whole = self.head(vectors), vectors[-1]
        with torch.autocast(trunk.device.type, enabled=False):
            deltas = self.box(whole.float())
        return RoiOutput(head.embeddings, head.logits, head.norms, deltas)

    def sample(self, proposals: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> list[RoiSample]:
        """The regions that a step learns from: of each image's ``proposals`` (P, 4) px and its ground-truth boxes."""
        config = self.config
        return [
            sample_rois(
                found,
                target["boxes"].to(found),
                target["labels"],
                self.num_identities,
                config.rois_per_image,
                config.positive_fraction,
                config.positive_iou,
                config.negative_iou,
            )
            for found, target in zip(proposals, targets, strict=True)
        ]

    def losses(self, output: RoiOutput, samples: Sequence[RoiSample]) -> dict[str, Tensor]:
        """The losses of :meth:`read` on the ``samples``' boxes, unweighted: {"roi_class", "roi_box", "roi_oim"}.

        Binary cross-entropy of "person" over all regions, or with pixels over all their cells; :meth:`box_loss`; OIM
        without the focal factor.
        """
        shown = self._is_person(samples).to(output.logits)  # (R,)
        if self.config.pixels:
            boxes, matched = _joined(samples, "boxes"), _joined(samples, "matched")
            shown = shown[:, None, None] * covered_cells(boxes, matched, output.logits.shape[1:])
        # A sum, since the mean of no rows is undefined.
        found = F.binary_cross_entropy_with_logits(output.logits, shown, reduction="sum") / max(1, shown.numel())
        people, labels = self.people(output, samples)
        oim, _ = oim_loss(people, labels, self.memory, self.config.temperature, focal_gamma=0.0)
        self._pending = (people.detach(), labels)
        return {"roi_class": found, "roi_box": self.box_loss(output.deltas, samples), "roi_oim": oim}

    def box_loss(self, deltas: Tensor, samples: Sequence[RoiSample]) -> Tensor:
        """L1, or smooth L1, of the people's moves among ``deltas`` (R, 4), divided by the number of all regions."""
        person = self._is_person(samples)
        moving = person if self.config.box_from_truth else person & ~_joined(samples, "truth")
        wanted = self.box_coder.encode_single(_joined(samples, "matched")[moving], _joined(samples, "boxes")[moving])
        moved = F.smooth_l1_loss(deltas[moving], wanted, beta=self.config.box_beta, reduction="sum")
        return moved / max(1, len(person))

    def people(self, output: RoiOutput, samples: Sequence[RoiSample]) -> tuple[Tensor, Tensor]:
        """Embeddings (P, D) of the regions that show people, and whose they are (P,): 0..I-1, or -1."""
        person = self._is_person(samples)
        return output.embeddings[person], _joined(samples, "labels")[person]

    def _is_person(self, samples: Sequence[RoiSample]) -> Tensor:
        return _joined(samples, "labels") != self.num_identities

    @torch.no_grad()
    def update_memory(self) -> None:
        """Write the last batch's people into table and queue; called after the optimiser's step."""
        if self._pending is not None:
            self.memory.update(*self._pending)
            self._pending = None

    def detect(
        self, proposals: Sequence[Tensor], output: RoiOutput, shapes: Shapes, scores: Tensor | None = None
    ) -> list[dict[str, Tensor]]:
        """Moved boxes, scores and embeddings of each image after thresholding and non-maximum suppression.

        An embedding is that of the proposal, the box moves on.  ``scores`` (R,) are somebody else's (SeqNet's first
        head); the branch's own if not given.
        """
        return refined_detections(
            proposals,
            output.deltas,
            output.scores if scores is None else scores,
            output.embeddings,
            shapes,
            self.box_coder,
            score_threshold=self.config.score_threshold,
            nms_threshold=self.config.nms_threshold,
            limit=self.config.detections_per_image,
        )


def _joined(samples: Sequence[RoiSample], name: str) -> Tensor:
    """The field ``name`` of all images' samples, R rows image by image."""
    return torch.cat([getattr(sample, name) for sample in samples])
