"""Recipes: everything that decides what a run computes, as plain data with a hash.

A run is a recipe and a seed.  The hash covers the recipe (precision included), the fingerprint of the data and
the version of every component whose change would change results; two runs with one hash are one run, shared by
every table that shows it.
"""

import hashlib
import json
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace

from pslib.data.transforms import MULTI_SCALE, TEST_SCALE
from pslib.errors import UserError, require_choice
from pslib.models.alignps import AlignPSConfig

__all__ = ["COMPONENT_VERSIONS", "LossWeights", "Schedule", "Recipe", "RECIPES", "make_recipe", "recipe_hash"]

# Raise a number when a change moves results: records made before it are then shown as STALE.
COMPONENT_VERSIONS = {
    "ops": 1,
    "model": 1,
    "warm_start": 1,  # the committed file, or how one is made
    "detection_loss": 1,
    "oim_loss": 1,
    "triplet_loss": 1,
    "trainer": 1,
    "evaluator": 1,
}


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms in the total loss; 1 each in the paper."""

    classification: float = 1.0
    box: float = 1.0
    centerness: float = 1.0
    oim: float = 1.0
    triplet: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """How the weights move: optimiser, length, learning rate."""

    optimizer: str = "adamw"  # or "sgd", with momentum 0.9
    steps: int = 600
    batch_size: int = 8  # images
    learning_rate: float = 2e-3
    offset_rate: float = 0.1  # factor on the learning rate of the convolutions that predict sampling offsets
    weight_decay: float = 1e-4
    policy: str = "one-cycle"  # or "steps": divided by 10 at the fractions in `milestones`
    milestones: tuple[float, ...] = (16 / 24, 22 / 24)
    warmup_steps: int = 60
    clip_norm: float = 10.0
    precision: str = "float32"  # or "bfloat16", "float16": autocast of the forward pass

    def __post_init__(self) -> None:
        require_choice("optimizer", self.optimizer, ("adamw", "sgd"))
        require_choice("learning-rate policy", self.policy, ("one-cycle", "steps"))
        require_choice("precision", self.precision, ("float32", "bfloat16", "float16"))
        if self.steps < 1 or self.batch_size < 1:
            raise UserError(
                f"a schedule of {self.steps} steps of {self.batch_size} images trains nothing: give both at least 1."
            )


@dataclass(frozen=True)
class Recipe:
    """One model trained one way on one set; with a seed it determines a run."""

    name: str
    kind: str  # "cuhk-sysu" or "prw"
    profile: str = "tiny"
    model: AlignPSConfig = field(default_factory=AlignPSConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    schedule: Schedule = field(default_factory=Schedule)
    warm_start: str = "neutral"  # or "identity", "none"
    flip: bool = True
    image_sizes: tuple[tuple[int, int], ...] = ()  # (longer, shorter) px, one picked an image; empty: as stored
    test_size: tuple[int, int] | None = None
    workers: int = 0  # loader processes; results do not depend on it

    def with_(self, **changes: object) -> "Recipe":
        """A copy with fields changed; ``model__levels=...`` reaches into a part.

        >>> RECIPES["alignps"].with_(model__levels=("P4",), schedule__steps=10).model.levels
        ('P4',)
        """
        parts: dict[str, dict[str, object]] = {}
        top: dict[str, object] = {}
        for key, value in changes.items():
            part, _, name = key.partition("__")
            if name:
                parts.setdefault(part, {})[name] = value
            else:
                top[key] = value
        for part, values in parts.items():
            top[part] = replace(getattr(self, part), **values)
        return replace(self, **top)


# Chosen on the validation people of the CUHK-SYSU layout, seed 0: re-id weights 0.2 and 0.5, learning rates 1e-3 and
# 2e-3, with and without the norm on the embedding.
_ALIGNPS = Recipe(
    name="alignps",
    kind="cuhk-sysu",
    model=AlignPSConfig(embedding_norm="batch"),
    weights=LossWeights(oim=0.2, triplet=0.2),
    schedule=Schedule(steps=360),
)
# Sec. IV-C: FCOS on P3-P5 with a plain FPN and a re-id head in parallel to the detection head.  Its re-id tower starts
# from random weights and learns slowly, so it gets three times AlignPS's steps.  Its learning rate was
# picked from trials at 1e-3, 2e-3 and 4e-3, of differing length, on the same validation people.
_BASELINE = _ALIGNPS.with_(
    name="baseline",
    model__levels=("P3", "P4", "P5"),
    model__lateral="conv",
    model__output="conv",
    model__topdown="sum",
    model__structure="parallel",
    schedule__steps=1080,
    schedule__learning_rate=1e-3,
)
# Sec. IV-B, with the sizes of the released configuration.
_PAPER = _ALIGNPS.with_(
    name="alignps-paper",
    profile="paper",
    model__backbone="resnet50",
    model__backbone_weights="IMAGENET1K_V1",
    model__frozen_backbone=True,
    model__size_cuts=(128.0, 256.0),
    model__embedding_norm="none",
    model__channels=256,
    model__head_channels=256,
    model__head_depth=4,
    model__queue_size=5000,
    weights=LossWeights(),
    schedule__optimizer="sgd",
    schedule__steps=67236,  # 24 epochs of 11,206 images
    schedule__batch_size=4,
    schedule__learning_rate=1e-3,
    schedule__offset_rate=1.0,
    schedule__weight_decay=5e-4,
    schedule__policy="steps",
    schedule__warmup_steps=300,
    schedule__clip_norm=35.0,
    warm_start="none",
    image_sizes=MULTI_SCALE,
    test_size=TEST_SCALE,
    workers=4,
)
# AlignPS+: Table V's last row.
_PLUS = _PAPER.with_(name="alignps-plus-paper", model__deformable_stages=("res3", "res4", "res5"))
# What the released code of AlignPS sets where paper and code differ.  Not taken over: strides on the first
# convolution of a bottleneck with weights that fit them, P4 to P7 as further background of the classification, a
# doubled rate for biases, and a warm-up that begins at a third of the rate.
_RELEASED = _PAPER.with_(
    name="alignps-released",
    model__offset_init="xavier",
    model__head_deformable=True,
    model__box_activation="relu",
    model__queue_channels=64,
    model__normalize_table=False,
    model__oim_average="positives",
    model__loss_normalizer="released",
    schedule__weight_decay=1e-4,
    schedule__warmup_steps=500,
)
RECIPES = {recipe.name: recipe for recipe in (_ALIGNPS, _BASELINE, _PAPER, _PLUS, _RELEASED)}

# 24 epochs of PRW's 5,704 images, and the queue of its 483 identities.
_PAPER_ON_PRW = {"schedule__steps": 34_224, "model__queue_size": 500}
_ON_PRW: dict[str, dict[str, object]] = {
    "alignps-paper": _PAPER_ON_PRW,
    "alignps-plus-paper": _PAPER_ON_PRW,
    # The released configuration for PRW has no triplet term, although the paper's Table IV reports one.
    "alignps-released": _PAPER_ON_PRW
    | {
        "model__triplet": "none",
        "model__normalize_table": True,
        "model__temperature": 1 / 15,
        "model__queue_temperature": 1 / 10,
        "schedule__weight_decay": 1e-3,
    },
}


def make_recipe(name: str, kind: str) -> Recipe:
    """The recipe called ``name`` on the set ``kind``; a misspelt name is answered with the nearest ones.

    >>> [make_recipe("alignps-paper", kind).schedule.steps for kind in ("cuhk-sysu", "prw")]
    [67236, 34224]
    """
    require_choice("recipe", name, RECIPES)
    recipe = RECIPES[name].with_(kind=require_choice("set", kind, ("cuhk-sysu", "prw")))
    return recipe.with_(**_ON_PRW.get(name, {})) if kind == "prw" else recipe


def recipe_hash(recipe: Recipe, fingerprint: str) -> str:
    """Twelve hex digits over recipe, data fingerprint and component versions; the name and workers do not count.

    Only fields that differ from their default enter, so a switch added later (its default being what was done before)
    leaves older records valid.  A default therefore never changes without a new component version.

    >>> recipe_hash(RECIPES["alignps"], "x") == recipe_hash(RECIPES["alignps"].with_(workers=3), "x")
    True
    """
    content = _changed(recipe)
    for cosmetic in ("name", "workers"):
        content.pop(cosmetic, None)
    text = json.dumps([content, fingerprint, COMPONENT_VERSIONS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _changed(part: object) -> dict[str, object]:
    """Fields of a dataclass that are not at their default, parts within it likewise."""
    found: dict[str, object] = {}
    for item in fields(part):
        value = getattr(part, item.name)
        if is_dataclass(value):
            found |= {item.name: inner} if (inner := _changed(value)) else {}
        elif item.default is MISSING or value != item.default:
            found[item.name] = value
    return found
