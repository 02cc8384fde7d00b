"""From an experiment to its records: which are there, which are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pslib import paths
from pslib.errors import UserError, require_choice
from pslib.experiments.catalogue import EXPERIMENTS, VARIANTS
from pslib.experiments.reading import contents
from pslib.experiments.records import DamagedRecordError, Record, read_record
from pslib.experiments.registry import KINDS, Experiment
from pslib.training.recipe import Recipe, family_of, recipe_hash
from pslib.training.recipes import RECIPES, make_recipe

__all__ = [
    "LostRun", "UnknownSetError", "find_experiment", "find_recipe", "at_profile", "failed", "known_fingerprint",
    "records_of", "runs_if_any", "runs_of",
]  # fmt: skip

# What the larger profiles change in every variant of AlignPS.  The backbone's strides and the frames double, and with
# them what depends on pixels; there are nearly four times as many people and scenes, so table, queue and schedule grow.
PROFILE_CHANGES: dict[str, dict[str, object]] = {
    "tiny": {},
    "small": {
        "model__backbone": "resnet18",
        "model__size_cuts": (64.0, 96.0),
        "model__channels": 128,
        "model__head_channels": 64,
        "model__queue_size": 512,
    },
}
# An image is seen nearly as often as at the tiny profile.
STEPS_FACTOR = {"small": 3}
# The same for the two-stage models.
TWO_STAGE_CHANGES: dict[str, dict[str, object]] = {
    "small": {
        "model__embedding_dim": 128,
        "model__queue_size": 512,
        "model__rss_samples": 256,
    }
}
# The same for the models with an ROI branch: the dense branch changes as AlignPS does.
ROI_CHANGES: dict[str, dict[str, object]] = {
    "small": {
        "model__roi__dim": 128,
        "model__roi__queue_size": 512,
    }
}
# Processes that read ahead while a GPU learns; results do not depend on them.
LOADERS = {"small": 2}
SMALL_BACKBONES = {"tiny": "resnet18", "tiny-deep": "resnet34", "tiny-vgg": "vgg11"}


def find_experiment(name: str) -> Experiment:
    """The experiment called ``name``; a misspelt name is answered with the nearest ones."""
    return EXPERIMENTS[require_choice("experiment", name, EXPERIMENTS)]


def find_recipe(name: str, kind: str) -> Recipe:
    """The recipe called ``name``, or the variant of a table, on the set ``kind``; a misspelt name gets the nearest one.

    >>> find_recipe("p4", "prw").model.levels, find_recipe("alignps-paper", "prw").profile
    (('P4',), 'paper')
    """
    if require_choice("recipe or variant", name, dict.fromkeys((*RECIPES, *VARIANTS))) in RECIPES:
        return make_recipe(name, kind)
    return VARIANTS[name].with_(kind=require_choice("set", kind, KINDS))


def at_profile(recipe: Recipe, profile: str) -> Recipe:
    """A variant, defined at the tiny profile, at another one.  Raises UserError if there is no such profile."""
    changes = dict(PROFILE_CHANGES[require_choice("profile", profile, PROFILE_CHANGES)])
    if profile == "tiny":
        return recipe.with_(profile=profile)
    recipe = recipe.with_(workers=LOADERS[profile])
    if family_of(recipe) == "two-stage":
        return _two_stage_at(recipe, profile)
    if family_of(recipe) != "alignps":
        return _roi_at(recipe, profile)
    if recipe.image_sizes:
        changes["image_sizes"] = tuple((2 * longer, 2 * shorter) for longer, shorter in recipe.image_sizes)
    if recipe.model.queue_channels is not None:  # the same share of the embedding
        wider = recipe.with_(**changes).model.channels
        changes["model__queue_channels"] = recipe.model.queue_channels * wider // recipe.model.channels
    changes["schedule__steps"] = STEPS_FACTOR[profile] * recipe.schedule.steps
    changes["schedule__warmup_steps"] = STEPS_FACTOR[profile] * recipe.schedule.warmup_steps
    return recipe.with_(profile=profile, **changes)


def _two_stage_at(recipe: Recipe, profile: str) -> Recipe:
    """The same for a chain of recipes of a two-stage model, part by part: frames and strides double."""
    factor, changes = STEPS_FACTOR[profile], dict(TWO_STAGE_CHANGES[profile])
    if recipe.model.rss_samples is None:  # a full softmax stays one
        del changes["model__rss_samples"]
    return recipe.with_(
        profile=profile,
        start=at_profile(recipe.start, profile) if recipe.start else None,
        model__backbone=SMALL_BACKBONES[recipe.model.backbone],
        model__anchor_sizes=tuple(2 * size for size in recipe.model.anchor_sizes),
        crop_size=tuple(2 * side for side in recipe.crop_size),
        schedule__steps=factor * recipe.schedule.steps,
        schedule__first_step=factor * recipe.schedule.first_step,
        schedule__warmup_steps=factor * recipe.schedule.warmup_steps,
        **changes,
    )


def _roi_at(recipe: Recipe, profile: str) -> Recipe:
    """The same for a model with an ROI branch."""
    factor, changes = STEPS_FACTOR[profile], dict(ROI_CHANGES[profile])
    dense = "dense__" if family_of(recipe) == "roi-alignps" else ""
    for name, value in PROFILE_CHANGES[profile].items():
        part, _, field = name.partition("__")
        if dense or field == "backbone":
            changes[f"{part}__{dense}{field}"] = value
    return recipe.with_(
        profile=profile,
        model__anchor_sizes=tuple(2 * size for size in recipe.model.anchor_sizes),
        schedule__steps=factor * recipe.schedule.steps,
        schedule__warmup_steps=factor * recipe.schedule.warmup_steps,
        **changes,
    )


class UnknownSetError(UserError):
    """A set that is neither drawn nor recorded, so that no record can be of it."""


def known_fingerprint(kind: str, profile: str) -> str:
    """Fingerprint of a drawn set: of the one on disk, else of the one that the committed records were computed on.

    Raises UnknownSetError where there is neither; UserError where the drawn set is damaged or records are unreadable.
    """
    found = _fingerprint(paths.synthetic_dir(profile) / kind, paths.results_dir() / profile / kind)
    if found is None:
        _fingerprint.cache_clear()  # it may be drawn later
        raise UnknownSetError(f"there is no drawn {kind} set of the profile {profile}: make it with pslib data make.")
    return found


@cache
def _fingerprint(drawn: Path, recorded: Path) -> str | None:
    if (drawn / "manifest.json").is_file():
        from pslib.data.loading import fingerprint

        return fingerprint(drawn)
    for path in contents(recorded, "*.json"):
        try:
            return read_record(path).info["data"]["fingerprint"]
        except DamagedRecordError:
            continue
    return None


def records_of(recipe: Recipe, read: str = "") -> list[Record]:
    """Finished records of ``recipe``, seeds in order; a recipe recorded under another name counts.

    ``read`` names one of several embeddings that its model has of a person (:meth:`Record.reading`).
    """
    return runs_of(recipe, read)[0]


@dataclass(frozen=True)
class LostRun:
    """A run that cannot be compared: ``why`` in words, and its seed where it was computed and failed."""

    why: str
    seed: int | None = None


def failed(lost: Sequence[LostRun]) -> str:
    """Which runs are of no use, in a few words for a table or picture; empty if there are none.

    >>> failed([LostRun("seed 2 failed: not finite", 2), LostRun("seed 0 failed: not finite", 0)])
    'failed: seeds 0, 2'
    >>> failed([LostRun("the record x.json cannot be read"), LostRun("seed 1 failed: not finite", 1)])
    'failed: seed 1, a damaged record'
    """
    seeds = sorted({run.seed for run in lost if run.seed is not None})
    damaged = sum(run.seed is None for run in lost)
    words = [f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"] if seeds else []
    if damaged:
        words.append("a damaged record" if damaged == 1 else f"{damaged} damaged records")
    return f"failed: {', '.join(words)}" if words else ""


def runs_of(recipe: Recipe, read: str = "") -> tuple[list[Record], list[LostRun]]:
    """:func:`records_of`, and every other run of ``recipe``: one that failed, a record that is damaged."""
    run_hash = recipe_hash(recipe, known_fingerprint(recipe.kind, recipe.profile))
    folder = paths.results_dir() / recipe.profile / recipe.kind
    finished: dict[int, Record] = {}
    others = []
    for path in contents(folder, f"*-{run_hash}-s*.json"):
        try:
            record = read_record(path)
        except DamagedRecordError as error:
            others.append(LostRun(str(error).rstrip(".")))
            continue
        seed = record.info["seed"]
        if record.info["status"] == "finished":
            finished.setdefault(seed, record)
        else:
            others.append(LostRun(f"seed {seed} failed: {str(record.info['reason']).rstrip('.')}", seed))
    return [finished[seed].reading(read) for seed in sorted(finished)], others


def runs_if_any(recipe: Recipe, read: str = "") -> tuple[list[Record], list[LostRun]]:
    """:func:`runs_of`, and nothing at all where the recipe's set is neither drawn nor recorded."""
    try:
        known_fingerprint(recipe.kind, recipe.profile)
    except UnknownSetError:
        return [], []
    return runs_of(recipe, read)
