"""The recipes of IAN and its rivals: E2E-PS and IAN in the three steps of Sec. IV-A, and JDI-PS in one.

Step 1 classifies crops of the training people and of as much background; step 2 trains the whole network on scenes
without center loss; step 3 goes on at a tenth of the rate, with center loss (IAN) or without (E2E-PS).  The paper's
E2E-PS ends after step 2; here both take all steps, so that IAN is not ahead by training longer.
"""

from dataclasses import replace

from pslib.models.two_stage import TwoStageConfig
from pslib.training.recipe import Recipe, Schedule

__all__ = ["CENTER_WEIGHT", "IAN_ON_PRW", "IAN_RECIPES", "fine_tuned", "three_steps"]

CENTER_WEIGHT = 0.032  # lambda of the paper (Sec. V-A), found there by cross-validation

# Steps 1 to 3 of the tiny profile.  The paper has 20,000 of 8 crops, 120,000 and 20,000 of 2 images.
# Chosen on the validation people of the CUHK-SYSU layout, seed 0, without center loss: rates from 1e-3 to 1e-2, batches
# of 2, 4 and 8 images with 12, 16 and 32 boxes each, of 32 and 64 crops, crops of 56 x 56 and 64 x 32 px, sampled and
# full softmax.  The tables compare models of this schedule.
_CROPS = Schedule(steps=1200, batch_size=32, learning_rate=3e-3, warmup_steps=120)
_SCENES = Schedule(steps=1800, batch_size=4, learning_rate=3e-3, warmup_steps=180)
# A shorter one, for a run of two and a half minutes on two cores.  One step of 32 crops costs half as much as one of 4
# images, and names 16 people where those name a few.  Over three seeds it costs the small network some five points on
# validation people, and the deeper one learns hardly enough (data/trials.json).
_MORE_CROPS = Schedule(steps=1600, batch_size=32, learning_rate=3e-3, warmup_steps=160)
_FEWER_SCENES = Schedule(steps=750, batch_size=4, learning_rate=3e-3, warmup_steps=75)
_FINE = Schedule(steps=300, batch_size=4, learning_rate=3e-4, policy="steps", milestones=(), warmup_steps=0)


def three_steps(
    model: TwoStageConfig,
    name: str,
    crops: Schedule = _CROPS,
    scenes: Schedule = _SCENES,
    crops_dropout: float | None = None,
    **shared: object,
) -> Recipe:
    """Steps 1 and 2: a recipe of scenes that starts from one of crops; ``shared`` fields hold for both.

    ``crops_dropout`` is the dropout of step 1 where it differs from the model's.
    """
    first = Recipe(f"{name}-crops", "cuhk-sysu", model=model, stage="crops", schedule=crops, **shared)
    if crops_dropout is not None:
        first = first.with_(model__dropout=crops_dropout)
    return first.with_(name=f"{name}-scenes", stage="scenes", model=model, schedule=scenes, start=first)


def fine_tuned(start: Recipe, name: str, schedule: Schedule = _FINE, center: float = 0.0, **changes: object) -> Recipe:
    """Step 3: ``start`` trained on, from the image where it ended, with center loss of weight ``center``."""
    seen = start.schedule.first_step + start.schedule.steps
    recipe = start.with_(name=name, schedule=schedule, schedule__first_step=seen, start=start)
    return recipe.with_(weights__center=center, **changes)


_TINY = three_steps(TwoStageConfig(), "two-stage", _MORE_CROPS, _FEWER_SCENES)
_E2E = fine_tuned(_TINY, "e2e-ps")
_IAN = fine_tuned(_TINY, "ian", center=CENTER_WEIGHT)
# JDI-PS, which the AlignPS paper calls OIM: OIM loss, cosine, all steps at once and no crops.  It pools 14 x 14 cells,
# and so does the paper's recipe below; of the tiny profile's people, two by five cells large, 7 x 7 miss nothing.
# Learning rate and weight of OIM were chosen like the others', on validation people, seed 0 (data/trials.json).
_JDI = Recipe(
    "jdi-ps",
    "cuhk-sysu",
    model=TwoStageConfig(identity_loss="oim"),
    schedule=Schedule(steps=_SCENES.steps + _FINE.steps, batch_size=4, learning_rate=1e-3, warmup_steps=180),
)

# Sec. IV-A and V; what the paper does not name is the released E2E-PS's: sizes, proposals and their thresholds, boxes
# per image, decay.
_PAPER_MODEL = TwoStageConfig(
    backbone="resnet101",
    backbone_weights="IMAGENET1K_V1",
    frozen_backbone=True,
    embedding_dim=256,
    rss_samples=100,
    rss_average="rows",
    center_reduction="sum",  # Eq. 1 as printed, which the paper's lambda belongs to
    anchor_sizes=(128.0, 256.0, 512.0),
    anchor_ratios=(0.5, 1.0, 2.0),
    rpn_positive_iou=0.7,
    rpn_nms_threshold=0.7,
    rpn_samples=256,
    rpn_before_nms=(12000, 6000),
    rpn_after_nms=(2000, 300),
    rois_per_image=128,
    positive_fraction=0.25,
    score_threshold=0.5,
    queue_size=5000,
)
_SGD = Schedule(
    optimizer="sgd",
    steps=120_000,
    batch_size=2,
    learning_rate=1e-3,
    weight_decay=5e-4,
    policy="steps",
    milestones=(100 / 120,),
    warmup_steps=0,
    clip_norm=35.0,
)


def _paper_start(model: TwoStageConfig, name: str) -> Recipe:
    """Steps 1 and 2 at the paper's sizes."""
    return three_steps(
        model,
        name,
        crops=replace(_SGD, steps=20_000, batch_size=8, milestones=()),
        scenes=_SGD,
        profile="paper",
        warm_start="none",
        image_sizes=((1000, 600),),
        test_size=(1000, 600),
        crop_size=(224, 224),
        workers=4,
    )


_PAPER_START = _paper_start(_PAPER_MODEL, "ian-paper")
_LAST = replace(_SGD, steps=20_000, learning_rate=1e-4, milestones=())
_E2E_PAPER = fine_tuned(_PAPER_START, "e2e-ps-paper", _LAST)
_IAN_PAPER = fine_tuned(_PAPER_START, "ian-paper", _LAST, CENTER_WEIGHT)
# Tables III and IV: VGGNet with dropout behind fc6, fc7 and feat; and with none, where center loss helps.
_VGG = replace(_PAPER_MODEL, backbone="vgg16", fc_width=4096, feature_relu=True)
_E2E_VGG_PAPER = fine_tuned(_paper_start(replace(_VGG, dropout=0.5), "vgg-paper"), "e2e-ps-vgg-paper", _LAST)
_IAN_VGG_PAPER = fine_tuned(_paper_start(_VGG, "vgg-bare-paper"), "ian-vgg-paper", _LAST, CENTER_WEIGHT)
_JDI_PAPER = _PAPER_START.with_(
    name="jdi-ps-paper",
    start=None,
    model__backbone="resnet50",
    model__identity_loss="oim",
    model__roi_size=14,
    schedule__steps=50_000,
    schedule__milestones=(0.8,),
)
IAN_RECIPES = (_E2E, _IAN, _JDI, _E2E_PAPER, _IAN_PAPER, _JDI_PAPER, _E2E_VGG_PAPER, _IAN_VGG_PAPER)
# The released queue of PRW; the paper gives no other schedule for it.
IAN_ON_PRW: dict[str, dict[str, object]] = {"jdi-ps-paper": {"model__queue_size": 500}}
