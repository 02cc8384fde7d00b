"""Every switch of AlignPS; :mod:`pslib.models.alignps` says which of them make which row of the paper."""

import math
from dataclasses import dataclass

from pslib.errors import UserError, require_choice
from pslib.losses.oim import require_memory, require_temperature
from pslib.models.backbones import STAGES
from pslib.models.neck import LEVELS
from pslib.models.proposals import require_counts

__all__ = ["STRUCTURES", "AlignPSConfig"]

STRUCTURES = ("reid-first", "parallel", "box", "class")


@dataclass(frozen=True)
class AlignPSConfig:
    """Every switch of the model; the defaults are AlignPS at the tiny profile."""

    backbone: str = "tiny"
    backbone_weights: str | None = None  # torchvision's name of a set of weights
    frozen_backbone: bool = False  # stem, layer1 and batch normalisations constant, as in the released code
    deformable_stages: tuple[str, ...] = ()  # of res3, res4, res5 (Table V); all three is AlignPS+
    levels: tuple[str, ...] = ("P3",)
    # Coarser levels on which nobody is looked for: all their cells are background to the classification, as on the
    # released code's P4 to P7 (it makes P6 and P7 of P5 by further convolutions; here there is none beyond P5).
    background_levels: tuple[str, ...] = ()
    # px, largest of l, t, r, b at which P3|P4 and P4|P5 part: 8 strides as in FCOS, then where large people begin
    size_cuts: tuple[float, ...] = (32.0, 48.0)
    lateral: str = "deformable"
    output: str = "deformable"
    topdown: str = "concat"
    offset_init: str = "zero"  # of the neck; or "xavier", random offsets, as in the released code
    structure: str = "reid-first"
    channels: int = 48  # of the neck, and so the embedding's dimension D
    head_channels: int = 32
    head_depth: int = 2
    head_deformable: bool = False  # the last convolution of both towers, as in the released code
    box_activation: str = "exp"
    mean_subtraction: bool = True  # subtract the spatial mean of the embedding map (released code, not the paper)
    embedding_norm: str = "none"  # or "batch": a BatchNorm without affine part over the people's embeddings
    center_radius: float = 1.5  # strides
    queue_size: int = 128
    queue_channels: int | None = None
    oim_momentum: float = 0.5
    normalize_table: bool = True
    temperature: float = 0.1
    queue_temperature: float | None = None  # None: the same
    focal_gamma: float = 2.0
    oim_average: str = "labelled"  # or "positives", unlabelled people too, as in the released code
    loss_normalizer: str = "positives"  # of the detection losses; or "released"
    triplet: str = "table"  # "none", "plain" (TOIM without table rows) or "table" (with)
    triplet_margin: float = 0.3
    class_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections_per_image: int = 100

    def __post_init__(self) -> None:
        order = [LEVELS.index(require_choice("pyramid level", level, LEVELS)) for level in self.levels]
        if not order or order != sorted(set(order)):
            raise UserError(f"levels={self.levels} names no levels from fine to coarse: give e.g. levels=('P3', 'P4').")
        every = [LEVELS.index(require_choice("pyramid level", level, LEVELS)) for level in self.all_levels]
        if every != sorted(set(every)):
            raise UserError(
                f"background_levels={self.background_levels} are not coarser than levels={self.levels}, from fine to "
                "coarse: give e.g. ('P4', 'P5') beside ('P3',)."
            )
        order = [STAGES.index(require_choice("backbone stage", stage, STAGES)) for stage in self.deformable_stages]
        if order != sorted(set(order)):
            raise UserError(
                f"deformable_stages={self.deformable_stages} are not from fine to coarse, each once: "
                "give e.g. ('res4', 'res5')."
            )
        require_memory(self.queue_size, self.oim_momentum)
        require_counts(self, "channels", "detections_per_image")
        if self.head_depth < 0:
            raise UserError(f"head_depth={self.head_depth} is no number of layers: give 0 or more.")
        require_temperature(temperature=self.temperature, queue_temperature=self.queue_temperature)
        if self.focal_gamma != 0 and not 1 <= self.focal_gamma < math.inf:
            raise UserError(
                f"focal_gamma={self.focal_gamma} has no gradient where a person is recognized for sure: give 0, or 1 "
                "or more."
            )
        groups = max(1, self.head_channels // 8)
        if self.head_channels < 1 or self.head_channels % groups:
            raise UserError(
                f"head_channels={self.head_channels} do not fall into groups of eight: give a multiple of 8, or fewer."
            )
        numbers = all(isinstance(cut, int | float) for cut in self.size_cuts)
        if not numbers or len(self.size_cuts) != len(LEVELS) - 1 or list(self.size_cuts) != sorted(self.size_cuts):
            raise UserError(f"size_cuts={self.size_cuts} are not two rising sizes in px: give e.g. (24.0, 40.0).")
        require_choice("structure", self.structure, STRUCTURES)
        require_choice("triplet term", self.triplet, ("none", "plain", "table"))
        require_choice("embedding norm", self.embedding_norm, ("none", "batch"))
        require_choice("start of the offsets", self.offset_init, ("zero", "xavier"))
        require_choice("average", self.oim_average, ("labelled", "positives"))
        require_choice("loss normalizer", self.loss_normalizer, ("positives", "released"))

    @property
    def all_levels(self) -> tuple[str, ...]:
        """The levels that the network computes, those with people first.

        >>> AlignPSConfig(background_levels=("P4", "P5")).all_levels
        ('P3', 'P4', 'P5')
        """
        return self.levels + self.background_levels
