"""Recipes: everything that decides what a run computes, as plain data with a hash.

A run is a recipe and a seed.  The hash covers the recipe (precision included), the fingerprint of the data and
the version of every component whose change would change results; two runs with one hash are one run, shared by
every table that shows it.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace

from pslib.errors import UserError, require_choice
from pslib.models.alignps import AlignPSConfig
from pslib.models.families import Config, family_of_config

__all__ = [
    "COMPONENT_VERSIONS", "LossWeights", "Schedule", "Recipe", "component_versions", "family_of",
    "recipe_hash",
]  # fmt: skip

STAGES = ("scenes", "crops")
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
    "two_stage": 1,
    "rss_loss": 1,
    "center_loss": 1,
    "roi_branch": 1,
    "mutual_loss": 1,
}
# The components that a family's results depend on.
_ALL = ("ops", "warm_start", "oim_loss", "trainer", "evaluator")
_OF = {
    "alignps": (*_ALL, "model", "detection_loss", "triplet_loss"),
    "two-stage": (*_ALL, "two_stage", "rss_loss", "center_loss"),
    "nae": (*_ALL, "roi_branch"),
    "seqnet": (*_ALL, "roi_branch"),
    "roi-alignps": (*_ALL, "model", "detection_loss", "triplet_loss", "roi_branch", "mutual_loss"),
}


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms in the total loss; 1 each in the papers, but for the center loss (IAN, Eq. 2: lambda)."""

    classification: float = 1.0
    box: float = 1.0
    centerness: float = 1.0
    oim: float = 1.0
    triplet: float = 1.0
    rpn_class: float = 1.0
    rpn_box: float = 1.0
    person: float = 1.0
    rss: float = 1.0
    center: float = 0.0
    roi_class: float = 1.0
    roi_box: float = 1.0
    roi_oim: float = 1.0
    first_class: float = 1.0
    first_box: float = 1.0
    mutual_information: float = 0.2  # as ROI-AlignPS is released; the paper gives none for any of these three
    mutual_kl: float = 0.2
    mutual_diversity: float = 0.2

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"weights.{item.name}={value} weighs no loss: give a finite number, 0 or more.")


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
    first_step: int = 0  # place in the order of the images that the schedule begins at
    milestones: tuple[float, ...] = (16 / 24, 22 / 24)
    warmup_steps: int = 60
    clip_norm: float = 10.0
    precision: str = "float32"  # or "bfloat16", "float16": autocast of the forward pass

    def __post_init__(self) -> None:
        require_choice("optimizer", self.optimizer, ("adamw", "sgd"))
        require_choice("learning-rate policy", self.policy, ("one-cycle", "steps"))
        require_choice("precision", self.precision, ("float32", "bfloat16", "float16"))
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"schedule.{name}={getattr(self, name)} moves no weight downhill: give more than 0.")
        for name in ("offset_rate", "weight_decay", "warmup_steps", "first_step"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"schedule.{name}={getattr(self, name)} is out of range: give 0 or more.")
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
    model: Config = field(default_factory=AlignPSConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    schedule: Schedule = field(default_factory=Schedule)
    warm_start: str = "neutral"  # or "identity", "none"
    flip: bool = True
    image_sizes: tuple[tuple[int, int], ...] = ()  # (longer, shorter) px, one picked an image; empty: as stored
    test_size: tuple[int, int] | None = None
    search_threshold: float = 0.0  # search leaves out detections with a lower score; their recall and AP count all
    workers: int = 0  # loader processes; results do not depend on it
    stage: str = "scenes"  # or "crops": the classifier of crops that IAN's training begins with (Sec. IV-A, step 1)
    crop_size: tuple[int, int] = (64, 32)  # (height, width) px that crops are brought to; the paper: (224, 224)
    start: "Recipe | None" = None  # training goes on from the weights that this one ends with, same seed
    folds: int = 0  # cross-validation: the seed is the fold that is kept from training and tested on

    def __post_init__(self) -> None:
        if require_choice("stage", self.stage, STAGES) == "crops" and family_of(self) != "two-stage":
            raise UserError(f"the recipe {self.name} has no classifier of crops: leave stage at 'scenes'.")
        if not self.name or "/" in self.name:
            raise UserError(f"the name {self.name!r} of a recipe cannot name a file: give one without a slash.")
        if self.folds < 0 or self.folds == 1:
            raise UserError(f"folds={self.folds} leave nobody to train on: give 2 or more, or 0 for none.")
        if not 0 <= self.search_threshold < 1:
            raise UserError(
                f"search_threshold={self.search_threshold} is no score below which detections are left out: give 0 or "
                "more, below 1."
            )
        if self.workers < 0:
            raise UserError(f"workers={self.workers} load nothing: give 0, for the training process itself, or more.")
        sizes = (*self.image_sizes, *((self.test_size,) if self.test_size else ()))
        if any(len(size) != 2 or min(size) < 1 for size in sizes):
            raise UserError(
                f"image_sizes={self.image_sizes} and test_size={self.test_size} must be pairs (longer, shorter) of at "
                "least 1 px."
            )
        if min(self.crop_size) < 1:
            raise UserError(f"crop_size={self.crop_size} shows nothing: give a height and a width of at least 1 px.")

    def with_(self, **changes: object) -> "Recipe":
        """A copy with fields changed; ``model__levels=...`` reaches into a part, ``start__schedule__steps=...`` into
        the recipe that this one starts from.

        >>> Recipe("alignps", "prw").with_(model__levels=("P4",), schedule__steps=10).model.levels
        ('P4',)
        """
        top = _changes(self, changes)
        shared = {name: top[name] for name in ("kind", "profile", "folds") if name in top}
        if self.start is not None and shared and "start" not in changes:  # a chain of recipes works on one set
            top["start"] = top.get("start", self.start).with_(**shared)
        return replace(self, **top)


def _changes(whole: object, changes: Mapping[str, object]) -> dict[str, object]:
    """New values of the fields of ``whole``, a part of which is named by ``part__field``."""
    parts: dict[str, dict[str, object]] = {}
    top: dict[str, object] = {}
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            parts.setdefault(part, {})[name] = value
        else:
            top[key] = value
    for name, values in parts.items():
        part = top.get(name, getattr(whole, name))
        top[name] = part.with_(**values) if isinstance(part, Recipe) else replace(part, **_changes(part, values))
    return top


def recipe_hash(recipe: Recipe, fingerprint: str) -> str:
    """Twelve hex digits over recipe, data fingerprint and component versions; the name and workers do not count.

    Only fields that differ from their default enter, so a switch added later (its default being what was done before)
    leaves older records valid.  A default therefore never changes without a new component version.

    >>> recipe_hash(Recipe("one", "prw"), "x") == recipe_hash(Recipe("two", "prw", workers=3), "x")
    True
    """
    text = json.dumps([_content(recipe), fingerprint, component_versions(recipe)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def family_of(recipe: Recipe) -> str:
    """Which family of models (:data:`pslib.models.families.FAMILIES`) a recipe's belongs to."""
    return family_of_config(recipe.model)


def component_versions(recipe: Recipe) -> dict[str, int]:
    """Versions of the components that the results of ``recipe`` depend on."""
    return {name: COMPONENT_VERSIONS[name] for name in _OF[family_of(recipe)]}


def _content(recipe: Recipe) -> dict[str, object]:
    """What the hash of a recipe covers, the recipe it starts from included."""
    content = _changed(recipe)
    for apart in ("name", "workers", "start"):
        content.pop(apart, None)
    if family_of(recipe) != "alignps":
        content["family"] = family_of(recipe)
    if recipe.start is not None:
        content["start"] = _content(recipe.start)
    return content


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
