"""``pslib gradients``: how the gradients of detection and of re-id meet over a whole training, recorded.

Notebook 07 follows them live over the first steps only.  A record is a training as :func:`pslib.training.trainer.train`
makes it, stopped now and then to measure (:func:`pslib.training.gradients.both_ways`) on the same batches of training
scenes; measuring changes nothing in the training.
"""

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

from torch import nn

from pslib import paths
from pslib.errors import UserError
from pslib.experiments.commands import device, open_run_data
from pslib.experiments.lookup import at_profile, find_recipe, known_fingerprint
from pslib.experiments.records import provenance, write_json
from pslib.experiments.run import RunData
from pslib.experiments.stages import checkpoint_of, run_lock
from pslib.progress import progress, say
from pslib.training.batches import TrainingBatches
from pslib.training.gradients import both_ways
from pslib.training.recipe import Recipe, family_of, recipe_hash
from pslib.training.trainer import train
from pslib.training.warm_up import ensure_warm_start

__all__ = ["angle_record", "angles", "angles_path", "is_stale", "measure_angles", "measuring_steps"]

BATCHES, HALVINGS = 16, 100  # training scenes that gradients are taken on, and ways to halve them
EARLY = (4, 16, 40, 90)  # steps, beside the sixths of the schedule
NAMES = ("recipe", "set", "profile", "hash")  # what a record says of the training it is of


def measuring_steps(steps: int) -> tuple[int, ...]:
    """Steps after which gradients are measured: some early ones, and every sixth of the schedule.

    >>> measuring_steps(1080), measuring_steps(12)
    ((4, 16, 40, 90, 180, 360, 540, 720, 900, 1080), (2, 4, 6, 8, 10, 12))
    """
    sixths = {max(1, steps * part // 6) for part in range(1, 7)}
    return tuple(sorted(sixths | {step for step in EARLY if step < steps}))


def measure_angles(
    recipe: Recipe,
    seed: int,
    data: RunData,
    work: Path,
    device: str,
    batches: int,
    halvings: int,
) -> dict[str, Any]:
    """Train ``recipe`` and return what a record holds; a killed training goes on from ``work``.

    Under ``points`` an entry for each step measured: ``step``, and for "single" batches and "summed" halves of them
    what :func:`pslib.training.gradients.meeting_of` says of each shared part.
    """
    _require_shared_neck(recipe)
    shown = TrainingBatches(recipe, data.train, seed=seed + 1)  # other scenes, sizes and flips than the training's
    probe = [shown[number] for number in range(batches)]

    def measured(model: nn.Module) -> dict[str, Any]:
        examples = progress(probe, "gradients")
        return both_ways(model, examples, recipe.weights, halvings)

    checkpoint = checkpoint_of(work, recipe_hash(recipe, data.fingerprint), seed)
    _, curves = train(
        recipe,
        data.train,
        seed,
        device=device,
        run=checkpoint.parent.name,
        checkpoint=checkpoint,
        validate=measured,
        validate_at=measuring_steps(recipe.schedule.steps),
    )
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    return {"batches": batches, "halvings": halvings, "points": _rounded(curves.validation)}


def _require_shared_neck(recipe: Recipe) -> None:
    if family_of(recipe) != "alignps":
        raise UserError(f"{recipe.name} is no AlignPS: its losses do not meet in one neck; give alignps, t1, t2 ...")


def angles_path(name: str, kind: str, seed: int, folder: Path | None = None) -> Path:
    """Where the record of a recipe is kept."""
    return (folder or paths.results_dir()) / "gradients" / f"{name}-{kind}-s{seed}.json"


def angle_record(
    name: str, kind: str = "cuhk-sysu", seed: int = 0, folder: Path | None = None
) -> dict[str, Any] | None:
    """The committed record of a recipe, None where there is none."""
    path = angles_path(name, kind, seed, folder)
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = None
    if not _is_record(found):
        command = f"pslib gradients {name} --kind {kind} --seed {seed}"
        raise UserError(f"the record {path} cannot be read: delete it and run `{command}`.")
    return found


def _is_record(content: Any) -> bool:
    if not isinstance(content, dict) or not all(isinstance(content.get(name), str) for name in NAMES):
        return False
    points = content.get("points")
    return isinstance(points, list) and bool(points) and all(map(_is_point, points))


def _is_point(content: Any) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("step"), int):
        return False
    ways = [content.get(way) for way in ("single", "summed")]
    return all(isinstance(way, dict) and all(map(_is_meeting, way.values())) for way in ways)


def _is_meeting(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(name), float) for name in ("between", "room"))


def is_stale(record: dict[str, Any]) -> bool:
    """True where the recipe, its data or the code that trains it are others today than when it was made."""
    recipe = at_profile(find_recipe(record["recipe"], record["set"]), record["profile"])
    return record["hash"] != recipe_hash(recipe, known_fingerprint(recipe.kind, recipe.profile))


def angles(options: Namespace) -> None:
    """Make the records that are asked for and not there yet; raises UserError before the first if one cannot be."""
    recipes = {name: find_recipe(name, options.kind) for name in options.recipes}
    for recipe in recipes.values():
        _require_shared_neck(recipe)
    for name, recipe in recipes.items():
        path = angles_path(name, recipe.kind, options.seed)
        work = paths.build_dir() / "gradients"
        data = open_run_data(recipe.kind, recipe.profile, None)
        with run_lock(work, recipe_hash(recipe, data.fingerprint), options.seed):
            found = angle_record(name, recipe.kind, options.seed)
            if found is None or is_stale(found):
                ensure_warm_start(recipe.model.backbone, recipe.warm_start, device())
                head = {
                    "recipe": name,
                    "set": recipe.kind,
                    "profile": recipe.profile,
                    "seed": options.seed,
                    "hash": recipe_hash(recipe, data.fingerprint),
                    "provenance": provenance(device(), recipe),
                }
                found = head | measure_angles(recipe, options.seed, data, work, device(), BATCHES, HALVINGS)
                write_json(path, found)
        last = found["points"][-1]
        parts = last["summed"].items()
        meeting = ", ".join(f"{part} {one['between']:+.2f} (room {one['room']:.2f})" for part, one in parts)
        say(f"{name}, {recipe.kind}, seed {options.seed}, after {last['step']} steps: {meeting}; {path}")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
