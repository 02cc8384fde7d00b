"""Recipes of the models with an ROI branch: ROI-AlignPS, and NAE, the rival of AlignPS's Table IX."""

from pslib.models.alignps import AlignPSConfig
from pslib.models.nae import NAEConfig
from pslib.models.roi_alignps import RoiAlignPSConfig
from pslib.training.recipe import LossWeights, Recipe, Schedule

__all__ = ["ROI_RECIPES"]

_ROI_ALIGNPS = Recipe(
    "roi-alignps",
    "cuhk-sysu",
    # Separately trained models detect for themselves, and their detections have to be matched (Sec. IV-D).
    model=RoiAlignPSConfig(dense=AlignPSConfig(embedding_norm="batch"), mutual=("information",), matching="iou"),
    weights=LossWeights(oim=0.2, triplet=0.2),
    schedule=Schedule(steps=1080, learning_rate=1e-3),
)
_NAE = Recipe(
    "nae",
    "cuhk-sysu",
    model=NAEConfig(),
    schedule=Schedule(steps=2100, batch_size=4, learning_rate=1e-3, warmup_steps=180),
)
ROI_RECIPES = (_ROI_ALIGNPS, _NAE)
