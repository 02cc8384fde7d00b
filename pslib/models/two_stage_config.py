"""The switches of the two-stage models; see :mod:`pslib.models.two_stage` for what they switch."""

from dataclasses import dataclass

from pslib.errors import UserError, require_choice
from pslib.losses.oim import require_memory, require_temperature
from pslib.models.proposals import ProposalConfig, require_counts, require_shares

__all__ = ["TwoStageConfig"]


@dataclass(frozen=True)
class TwoStageConfig(ProposalConfig):
    """Every switch of the model; the defaults are E2E-PS and IAN at the tiny profile."""

    backbone: str = "tiny"
    backbone_weights: str | None = None  # torchvision's name of a set of weights
    frozen_backbone: bool = False  # the first layers and batch normalisations constant
    dropout: float = 0.0  # probability of *dropping* a unit of feat, and of VGG's fc6 and fc7 (the papers' p keeps)
    feature_relu: bool = False  # a ReLU on feat, as E2E-PS's released network
    embedding_dim: int = 64  # D
    fc_width: int = 256  # of VGG's fc6 and fc7; 4096 in VGG16
    roi_layer: str = "pool"  # or "align"
    roi_size: int = 7  # cells; 14 in JDI-PS
    rois_per_image: int = 12  # in training
    positive_fraction: float = 0.5
    positive_iou: float = 0.5  # overlap from which an ROI shows the person, with her identity
    identity_loss: str = "rss"  # or "oim"
    rss_samples: int | None = 64  # classes a row; None: the full softmax
    rss_average: str = "labelled"  # over the regions that have a label; or "rows", over all, as released
    center_boxes: str = "ground-truth"  # what center loss reads; or "all", all positive ROIs (Table II)
    center_attach: str = "after"  # the dropout of feat; or "before"
    center_alpha: float = 0.5  # the centers' learning rate
    center_start: str = "first"  # a center starts at its first features; or "zeros"
    center_reduction: str = "mean"  # over the boxes that count; or "sum", as printed
    queue_size: int = 128  # of OIM
    oim_momentum: float = 0.5
    temperature: float = 0.1  # of OIM
    score_threshold: float = 0.05
    nms_threshold: float = 0.4
    detections_per_image: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("average", self.rss_average, ("labelled", "rows"))
        require_choice("identity loss", self.identity_loss, ("rss", "oim"))
        require_choice("boxes of center loss", self.center_boxes, ("ground-truth", "all"))
        require_choice("attachment of center loss", self.center_attach, ("before", "after"))
        require_choice("reduction", self.center_reduction, ("mean", "sum"))
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout={self.dropout} must lie in [0, 1): it is the probability of dropping a unit.")
        if self.rois_per_image < 1 or self.roi_size < 1:
            raise UserError(
                f"rois_per_image={self.rois_per_image} of roi_size={self.roi_size} show nothing: give both at least 1."
            )
        if self.rss_samples is not None and self.rss_samples < 2:
            raise UserError(
                f"rss_samples={self.rss_samples} leaves no room for the true class and background: give 2 or more, or "
                "None for the full softmax."
            )
        if not 0 <= self.center_alpha <= 1:
            raise UserError(f"center_alpha={self.center_alpha} must lie in [0, 1]: it is the centers' learning rate.")
        require_memory(self.queue_size, self.oim_momentum)
        require_temperature(temperature=self.temperature)
        require_counts(self, "embedding_dim", "fc_width", "detections_per_image")
        require_shares(self, "positive_fraction", "positive_iou", "nms_threshold")
