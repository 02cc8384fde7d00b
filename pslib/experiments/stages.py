"""Training a chain of recipes: IAN's three steps, a fine-tuning curve leg by leg.

Where a recipe has a ``start``, the start is trained first, same seed.  What a recipe of a chain ends with is kept,
since several others go on from it: E2E-PS and every weight of the center loss share steps 1 and 2.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock
from torch import nn

from pslib.data.annotations import PersonSearchSet
from pslib.experiments.records import code_commit
from pslib.training.checkpoints import load_checkpoint, save_checkpoint
from pslib.training.recipe import Recipe, family_of, recipe_hash
from pslib.training.trainer import Curves, DivergedError, build_model, train

__all__ = ["checkpoint_of", "run_lock", "stands_alone", "state_of", "train_chain"]

Validate = Callable[[nn.Module], dict[str, float]]


def checkpoint_of(work: Path, run_hash: str, seed: int) -> Path:
    """Where an unfinished run is kept, in a folder named as the run is."""
    return work / f"{run_hash}-s{seed}" / "checkpoint.pt"


def state_of(work: Path, run_hash: str, seed: int) -> Path:
    """Where the weights that a recipe of a chain ended with are kept."""
    return work / "states" / f"{run_hash}-s{seed}.pt"


def run_lock(work: Path, run_hash: str, seed: int) -> FileLock:
    """The lock of a run, to be held by whoever computes it; it goes with the process that holds it."""
    work.mkdir(parents=True, exist_ok=True)
    return FileLock(work / f"{run_hash}-s{seed}.lock")


def stands_alone(recipe: Recipe) -> bool:
    """True if a recipe neither goes on from another nor can be gone on from: its weights are not kept."""
    return family_of(recipe) == "alignps" and recipe.start is None


def train_chain(
    recipe: Recipe,
    data: PersonSearchSet,
    fingerprint: str,
    seed: int,
    *,
    work: Path,
    device: str = "cpu",
    validate: Validate | None = None,
    validate_at: tuple[int, ...] = (),
) -> tuple[nn.Module, Curves]:
    """Train ``recipe``, and before it whatever it starts from; what is kept already is not trained again.

    Args:
        data: the training split that ``fingerprint`` stands for.
        work: folder of checkpoints and kept weights; a killed run goes on from there.
        validate, validate_at: as in :func:`pslib.training.trainer.train`, for ``recipe`` itself.  Where its weights
            were kept without validation, they are validated once, as they are.

    Raises DivergedError if a step of the chain diverges.
    """
    run_hash = recipe_hash(recipe, fingerprint)
    run, checkpoint = f"{run_hash}-s{seed}", checkpoint_of(work, run_hash, seed)
    settings = {"device": device, "run": run, "checkpoint": checkpoint}
    if stands_alone(recipe):
        return train(recipe, data, seed, validate=validate, validate_at=validate_at, **settings)
    kept = state_of(work, run_hash, seed)
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Of two processes that need the same start, one trains it and the other waits.
    with FileLock(kept.with_suffix(".lock")):
        state = load_checkpoint(kept, run)
        if state is None:
            initial, before, commits = None, 0.0, []
            if recipe.start is not None:
                try:
                    model, curves = train_chain(recipe.start, data, fingerprint, seed, work=work, device=device)
                except DivergedError as error:
                    error.start = error.start or recipe.start.name
                    raise
                initial, before = model.state_dict(), curves.seconds + curves.earlier_seconds
                commits = [*curves.earlier_commits, curves.commit]
            model, curves = train(
                recipe, data, seed, validate=validate, validate_at=validate_at, initial=initial, **settings
            )
            curves.earlier_seconds, curves.earlier_commits, curves.commit = before, commits, code_commit()
            state = {"run": run, "model": model.state_dict(), "curves": asdict(curves)}
            save_checkpoint(kept, state)
        shutil.rmtree(checkpoint.parent, ignore_errors=True)  # left also by a kill right after the weights were kept
    model = build_model(recipe, len(data.person_ids), seed, state["model"]).to(device).eval()
    curves = Curves(**state["curves"])
    if validate is not None and not curves.validation:
        curves.validation = [{"step": recipe.schedule.steps, **validate(model)}]
    return model, curves
