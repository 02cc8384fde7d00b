"""``pslib trial``: a recipe with some settings changed, trained and measured on validation people only.

What a recipe's settings were chosen from stands in ``data/trials.json``, a trial each.  No trial sees test people.
"""

import json
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from torch import nn

from pslib import paths
from pslib.data.annotations import PersonSearchSet
from pslib.errors import UserError
from pslib.experiments.commands import apply_overrides, device, open_run_data, require_validation
from pslib.experiments.lookup import find_recipe
from pslib.experiments.records import provenance, write_json
from pslib.experiments.run import RunData, validation_scores, validation_steps
from pslib.experiments.stages import checkpoint_of, run_lock, train_chain
from pslib.models.families import backbone_names
from pslib.progress import say
from pslib.training.recipe import Recipe, recipe_hash
from pslib.training.trainer import DivergedError
from pslib.training.warm_up import ensure_warm_start

__all__ = ["add_trial", "read_trials", "run_trial", "trial", "trial_lines", "trials_path"]

PARTS = 6  # of a training, each with the mean of its losses
FIELDS = {"recipe": str, "settings": dict, "seed": int, "set": str}  # what every trial has, whatever came of it


def trials_path() -> Path:
    """Where the trials are kept."""
    return paths.results_dir().with_name("trials.json")


def read_trials(path: Path | None = None) -> list[dict[str, Any]]:
    """All trials, the oldest first; none where there is no such file."""
    path = path or trials_path()
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        found = None
    if not isinstance(found, list) or not all(map(_is_trial, found)):
        raise UserError(f"the trials in {path} cannot be read: git restores what was committed.")
    return found


def _is_trial(one: Any) -> bool:
    return isinstance(one, dict) and all(isinstance(one.get(name), kind) for name, kind in FIELDS.items())


def add_trial(entry: Mapping[str, Any], path: Path | None = None) -> None:
    """Append ``entry``; of several processes none overwrites another's, and a kill leaves the file whole."""
    path = path or trials_path()
    lock = paths.build_dir() / "trials" / "notes.lock"  # not beside the file: it stays, and the checkout is to be clean
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        write_json(path, [*read_trials(path), dict(entry)])


def run_trial(recipe: Recipe, seed: int, data: RunData, work: Path, device: str = "cpu") -> dict[str, Any]:
    """Train ``recipe`` and measure it on the validation people on the way; a killed trial goes on from ``work``.

    Returns what a trial holds of the training: under ``validation`` an entry for each step and each of the model's
    reads, in per cent; under ``losses`` the mean of every loss in each of :data:`PARTS` parts.  A training that
    diverges has ``diverged``, the reason, as well.
    """
    run_hash, validation, reason = recipe_hash(recipe, data.fingerprint), data.validation, ""
    if validation is None:
        raise UserError(f"the set in {data.train.root} has no validation people: a trial must not look at test people.")
    try:
        _, curves = train_chain(
            recipe,
            data.train,
            data.fingerprint,
            seed,
            work=work,
            device=device,
            validate=_validator(recipe, validation, device),
            validate_at=validation_steps(recipe.schedule.steps, recipe.start is not None),
        )
    except DivergedError as error:
        curves, reason = error.curves, str(error)
    shutil.rmtree(checkpoint_of(work, run_hash, seed).parent, ignore_errors=True)
    points = [
        {"step": point["step"], **({"read": read} if read else {}), **found}
        for point in curves.validation
        for read, found in point["reads"].items()
    ]
    losses = {
        f"{name}, mean of each sixth": [round(float(part.mean()), 4) for part in np.array_split(values, PARTS)]
        for name, values in curves.losses.items()
        if len(values) >= PARTS
    }
    return {"hash": run_hash, "validation": points, "losses": losses} | ({"diverged": reason} if reason else {})


def trial(options: Namespace) -> None:
    """Make one trial, unless it was made before, and print it beside those of the same recipe."""
    recipe = find_recipe(options.recipe, options.kind)
    changed = apply_overrides(recipe, options.overrides)
    data = open_run_data(changed.kind, changed.profile, options.data_root, options.bad_boxes)
    require_validation(data)
    for backbone in backbone_names(changed.model):
        ensure_warm_start(backbone, changed.warm_start, device())
    work = paths.build_dir() / "trials"
    run_hash = recipe_hash(changed, data.fingerprint)
    with run_lock(work, run_hash, options.seed):
        if not any((one.get("hash"), one["seed"]) == (run_hash, options.seed) for one in read_trials()):
            made = provenance(device(), changed)
            entry = {
                "recipe": options.recipe,
                "settings": dict(override.partition("=")[::2] for override in options.overrides),
                **({"note": options.note} if options.note else {}),
                "seed": options.seed,
                "set": changed.kind,
                "profile": changed.profile,
                "device": device(),
                "date": made["date"],
                "commit": made["commit"],
            }
            add_trial(entry | run_trial(changed, options.seed, data, work, device()))
        else:
            say("this trial was made before.")
    print("\n".join(trial_lines([one for one in read_trials() if one["recipe"] == options.recipe])))


def trial_lines(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every trial and read: its settings, and search mAP on validation people at each step measured."""
    lines = []
    for one in trials:
        settings = ", ".join(f"{name} {value}" for name, value in one["settings"].items()) or "as it is"
        where = f"{one['recipe']}, {settings}; {one['set']}, seed {one['seed']}"
        points = one.get("validation", [])
        for read in dict.fromkeys(point.get("read", "") for point in points):
            own = [point for point in points if point.get("read", "") == read]
            curve = " ".join(f"{point['map']:.1f}" for point in own)
            lines.append(f"{where}{f' ({read})' if read else ''}: mAP {curve} (after {own[-1]['step']} steps)")
        if not points:
            lines.append(f"{where}: not measured" + (f", {one['diverged']}" if "diverged" in one else ""))
    return lines


def _validator(recipe: Recipe, data: PersonSearchSet, device: str) -> Callable[[nn.Module], dict[str, Any]]:
    """A function of the model that measures every read of it on ``data``; its name is "" where there is but one."""

    def measured(model: nn.Module) -> dict[str, float]:
        return {name: round(value, 2) for name, value in validation_scores(model, recipe, data, device).items()}

    def validate(model: nn.Module) -> dict[str, Any]:
        reads = getattr(model, "reads", ("",))
        return {"reads": {read: measured(model.reading(read) if read else model) for read in reads}}

    return validate
