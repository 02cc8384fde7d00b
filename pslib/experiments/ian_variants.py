"""The models that IAN's tables compare, as recipes: backbones, dropout, weights of the center loss, folds.

E2E-PS and IAN take the same steps (:mod:`pslib.training.ian_recipes`), so they differ in the weight of the center loss
alone.  :mod:`pslib.experiments.ian` says which of these are the rows of which table.
"""

from dataclasses import replace

from pslib.models.two_stage import TwoStageConfig
from pslib.training.ian_recipes import CENTER_WEIGHT, fine_tuned, three_steps
from pslib.training.recipe import Recipe, Schedule
from pslib.training.recipes import RECIPES

__all__ = ["VARIANTS", "VGG_DROPOUT"]

FOLDS = 5
CENTER_WEIGHTS = (0.0, 0.004, 0.008, 0.016, 0.032, 0.128)  # Fig. 4
CURVE = (0, 10_000, 20_000, 30_000, 40_000)  # iterations of Table III
FINE_WEIGHT = 0.0032  # lambda of Table III
# VGGNet at the tiny profile.  Fully connected layers learn slower than a residual stage, at a lower rate.  Dropout
# begins with step 2, and drops fewer units than the paper's half: its fc6 and fc7 come from ImageNet, while these have
# to learn from nothing, and with half of the units dropped they stayed at the plateau (trials on validation people: 0.5
# and 0.25 in step 1; 0.5 and 0.3 in step 2).
VGG_DROPOUT = 0.3
_VGG_CROPS = Schedule(steps=3000, batch_size=32, learning_rate=1e-3, warmup_steps=300)
_VGG_SCENES = Schedule(steps=2400, batch_size=4, learning_rate=1e-3, warmup_steps=240)
_VGG_FINE = Schedule(steps=400, batch_size=4, learning_rate=1e-4, policy="steps", milestones=(), warmup_steps=0)
# 10,000 of the paper's 120,000 iterations of step 2.
_LEG = Schedule(steps=200, batch_size=4, learning_rate=1e-4, policy="steps", milestones=(), warmup_steps=0)

_LONG = three_steps(TwoStageConfig(), "two-stage-long")
_SOFTMAX = three_steps(TwoStageConfig(rss_samples=None), "softmax-long")
_DEEP = three_steps(TwoStageConfig(backbone="tiny-deep"), "deep")
# VGGNet has dropout behind fc6, fc7 and feat, and a ReLU on feat.
_PLAIN = TwoStageConfig(backbone="tiny-vgg", feature_relu=True, fc_width=512, embedding_dim=128)
_VGG = three_steps(replace(_PLAIN, dropout=VGG_DROPOUT), "vgg", _VGG_CROPS, _VGG_SCENES, crops_dropout=0.0)
_BARE = three_steps(_PLAIN, "vgg-bare", _VGG_CROPS, _VGG_SCENES)
_FOLD = three_steps(TwoStageConfig(backbone="tiny-deep"), "fold", folds=FOLDS)


def _curve(start: Recipe, name: str, weight: float) -> dict[str, Recipe]:
    """Table III: fine-tuning leg by leg, each going on from the one before."""
    found = {}
    for iterations in CURVE[1:]:
        start = found[f"{name}-{iterations}"] = fine_tuned(start, f"{name}-{iterations}", _LEG, weight)
    return found


VARIANTS: dict[str, Recipe] = {
    # The short schedule, of the recipes that have a name; the other residual networks with RSS have the longer one.
    "e2e-ps": RECIPES["e2e-ps"],
    "ian": RECIPES["ian"],
    "e2e-ps-long": fine_tuned(_LONG, "e2e-ps-long"),
    "ian-long": fine_tuned(_LONG, "ian-long", center=CENTER_WEIGHT),
    "jdi-ps": RECIPES["jdi-ps"],
    "softmax-long": fine_tuned(_SOFTMAX, "softmax-long"),
    "e2e-deep": fine_tuned(_DEEP, "e2e-deep"),
    "ian-deep": fine_tuned(_DEEP, "ian-deep", center=CENTER_WEIGHT),
    "ian-all-boxes": fine_tuned(_DEEP, "ian-all-boxes", center=CENTER_WEIGHT, model__center_boxes="all"),
    # VGGNet: weights of the center loss, with dropout (attached behind and before it) and without.
    **{f"vgg-dropout-{weight:g}": fine_tuned(_VGG, f"vgg-dropout-{weight:g}", _VGG_FINE, center=weight)
       for weight in (0.0, FINE_WEIGHT, CENTER_WEIGHT, 0.3)},
    **{f"vgg-before-{weight:g}": fine_tuned(_VGG, f"vgg-before-{weight:g}", _VGG_FINE, center=weight,
                                            model__center_attach="before")
       for weight in (CENTER_WEIGHT, 0.3)},
    **{f"vgg-bare-{weight:g}": fine_tuned(_BARE, f"vgg-bare-{weight:g}", _VGG_FINE, center=weight)
       for weight in (0.0, FINE_WEIGHT, CENTER_WEIGHT, 0.3)},
    # Table III
    "vgg-scenes": _VGG,
    "vgg-bare-scenes": _BARE,
    **_curve(_VGG, "vgg-curve", FINE_WEIGHT),
    **_curve(_VGG, "vgg-control", 0.0),
    **_curve(_BARE, "vgg-bare-curve", FINE_WEIGHT),
    **_curve(_BARE, "vgg-bare-control", 0.0),
    # Fig. 4
    **{f"fold-{weight:g}": fine_tuned(_FOLD, f"fold-{weight:g}", center=weight) for weight in CENTER_WEIGHTS},
}  # fmt: skip
