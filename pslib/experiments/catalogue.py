"""All experiments and their variants, those of both papers."""

from pslib.experiments import alignps, ian, roi_alignps
from pslib.experiments.registry import Experiment
from pslib.training.recipe import Recipe

__all__ = ["EXPERIMENTS", "VARIANTS"]

VARIANTS: dict[str, Recipe] = alignps.VARIANTS | roi_alignps.VARIANTS | ian.VARIANTS
EXPERIMENTS: dict[str, Experiment] = alignps.EXPERIMENTS | roi_alignps.EXPERIMENTS | ian.EXPERIMENTS
