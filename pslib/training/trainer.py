"""The training loop: one recipe, one seed, one model; killed at any moment, it goes on to the same numbers.

Nothing in a step depends on what ran before it except the weights: step ``i`` draws its images, sizes and flips
from a generator seeded by (seed, i), and what the model draws (dropout, sampled boxes and classes) comes from torch's
global generator, seeded alike.  So a resumed run sees what an undisturbed one sees.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pslib.data.annotations import PersonSearchSet
from pslib.errors import NotFiniteError, UserError
from pslib.models.families import backbones_of, build, without_download
from pslib.progress import progress
from pslib.training.batches import TrainingBatches
from pslib.training.checkpoints import load_checkpoint, save_checkpoint
from pslib.training.crops import CropBatches
from pslib.training.memory import keep_freed_memory
from pslib.training.recipe import Recipe, family_of
from pslib.training.schedule import build_optimizer, learning_rate_factor
from pslib.training.warm_start import apply_warm_start

__all__ = ["Curves", "DivergedError", "build_model", "train"]

AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DivergedError(NotFiniteError):
    """A loss stopped being a number; ``curves`` holds what was seen until then.

    ``start`` names the recipe it happened in where that is not the one asked for, but one that it starts from.
    """

    def __init__(self, message: str, curves: "Curves"):
        super().__init__(message)
        self.curves, self.start = curves, ""


@dataclass
class Curves:
    """What a run looked like on the way: every loss at every step, validation results at some."""

    losses: dict[str, list[float]] = field(default_factory=dict)
    validation: list[dict[str, float]] = field(default_factory=list)  # each with its "step"
    seconds: float = 0.0  # spent in steps, validation aside
    earlier_seconds: float = 0.0  # spent in the steps of the recipes that this one started from
    killed_seconds: float = 0.0  # spent, validation included, by processes that ended before the run did
    commit: str = ""  # of the code that trained, where somebody wrote it down
    earlier_commits: list[str] = field(default_factory=list)  # the same of the recipes before, the first one first

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self.losses.setdefault(name, []).append(round(float(value.detach()), 5))


def build_model(
    recipe: Recipe, num_identities: int, seed: int, initial: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """The recipe's model, initialised by ``seed`` without touching global randomness.

    ``initial`` are the weights that it begins with, if it has some; else its backbone gets the warm start.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # What is loaded below holds the whole backbone: downloaded weights would be fetched for nothing.
        model = build(recipe.model if initial is None else without_download(recipe.model), num_identities)
    if initial is None:
        for backbone, name in backbones_of(model):
            apply_warm_start(backbone, name, recipe.warm_start)
        # A branch with a copy of the backbone's last stage starts with the same weights.
        getattr(model, "follow_backbone", lambda: None)()
    else:
        try:
            model.load_state_dict(initial)
        except RuntimeError:  # tensors of other names or shapes
            raise UserError(
                f"the recipe {recipe.name} cannot go on from weights of another model: set the same switches in the "
                "recipe that it starts from, as in --set start.model.embedding_dim=32."
            ) from None
    return model.to(memory_format=torch.channels_last)


def train(
    recipe: Recipe,
    data: PersonSearchSet,
    seed: int,
    *,
    device: str | torch.device = "cpu",
    run: str = "",
    checkpoint: Path | None = None,
    checkpoint_every: int = 100,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    validate_at: tuple[int, ...] = (),
    stop_after: int | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> tuple[nn.Module, Curves]:
    """Train ``recipe`` on ``data`` and return the model with its curves.

    Args:
        data: the training split; its labelled people become labels 0..I-1.
        run: the run's name, checked against the one stored in the checkpoint.
        checkpoint: where an unfinished run is kept, written every ``checkpoint_every`` steps.
        validate: called with the model (in evaluation mode) after each of the steps ``validate_at``.
        stop_after: end early after this many steps (the schedule stays that of the whole run).
        initial: weights to begin with; a recipe with a ``start`` needs those that its start ended with.

    Raises DivergedError if a loss or a weight is not finite.
    """
    if family_of(recipe) == "two-stage" and not len(data.person_ids):
        raise UserError(
            f"the training split in {data.root} labels nobody, and {recipe.name} classifies people: give a set with "
            "identities."
        )
    keep_freed_memory()
    begun = time.perf_counter()
    model = build_model(recipe, len(data.person_ids), seed, initial).to(device)
    optimizer = build_optimizer(model, recipe.schedule)
    dtype = AUTOCAST[recipe.schedule.precision]
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=dtype == torch.float16)
    curves, first = Curves(), 0
    state = load_checkpoint(checkpoint, run) if checkpoint else None
    if state:
        try:
            curves, first = _restore(state, model, optimizer, scaler)
        except torch.OutOfMemoryError:  # no fault of the checkpoint's
            raise
        except (KeyError, TypeError, RuntimeError, ValueError, AttributeError) as error:
            reason = type(error).__name__
            raise UserError(f"the checkpoint {checkpoint} cannot be read ({reason}): delete it.") from None
    last = min(recipe.schedule.steps, stop_after or recipe.schedule.steps)
    seen, shown = recipe.schedule.first_step, CropBatches if recipe.stage == "crops" else TrainingBatches
    batches = shown(recipe, data, seed).loader(seen + first, seen + last)
    compute = model.crop_losses if recipe.stage == "crops" else model
    bar = progress(enumerate(batches, start=first), desc=f"train {recipe.name}", total=last - first)
    model.train()
    for step, (images, targets) in bar:
        started = time.perf_counter()
        factor = learning_rate_factor(step, recipe.schedule)
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        with (
            _seeded(seed, seen + step, device),
            torch.autocast(torch.device(device).type, dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            losses = compute(*_to_device(images, targets, device))
        total = sum(getattr(recipe.weights, name) * value for name, value in losses.items())
        curves.add({**losses, **getattr(model, "monitored", {})})
        if not math.isfinite(float(total.detach())):
            raise _diverged(step, run or recipe.name, losses, curves)
        _optimize(model, optimizer, scaler, total, recipe.schedule.clip_norm)
        try:
            model.update_memory()
        except NotFiniteError:  # the step has made numbers that the memory refuses
            raise _diverged(step, run or recipe.name, losses, curves) from None
        curves.seconds += time.perf_counter() - started
        if (step + 1) % 10 == 0:
            bar.set_postfix(**{name: float(value.detach()) for name, value in losses.items()})
        validating = validate is not None and step + 1 in validate_at
        # The loss shows broken weights only in the next step, which validation and the last step do not wait for.
        if (validating or step + 1 == last) and not all(t.isfinite().all() for t in model.state_dict().values()):
            raise _diverged(step, run or recipe.name, losses, curves)
        if validating:
            model.eval()
            try:
                curves.validation.append({"step": step + 1, **validate(model)})
            except NotFiniteError:  # finite weights can be so large that what they compute is not
                raise _diverged(step, run or recipe.name, losses, curves) from None
            model.train()
        if checkpoint and (step + 1) % checkpoint_every == 0 and step + 1 < last:
            save_checkpoint(
                checkpoint,
                {
                    "run": run,
                    "step": step + 1,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict(),
                    # Whoever goes on from here spends what was spent until now.
                    "curves": asdict(curves)
                    | {"killed_seconds": curves.killed_seconds + time.perf_counter() - begun},
                },
            )
    return model.eval(), curves


def _restore(
    state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> tuple[Curves, int]:
    """Bring a checkpoint's ``state`` back; its curves, and the step to go on with.

    Contents that are not of today's model and code raise whatever they are taken for.
    """
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    return Curves(**state["curves"]), int(state["step"])


@contextmanager
def _seeded(seed: int, step: int, device: str | torch.device) -> Iterator[None]:
    """Torch's global generators as a function of seed and step within, as they were afterwards."""
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(seed * 1_000_003 + 700_000_000 + step)
        yield


def _diverged(step: int, run: str, losses: dict[str, Tensor], curves: Curves) -> DivergedError:
    values = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items())
    return DivergedError(
        f"training diverged at step {step + 1} of run {run} ({values}): lower schedule.learning_rate or raise "
        "schedule.warmup_steps.",
        curves,
    )


def _to_device(
    images: list[Tensor], targets: list[dict[str, Tensor]], device: str | torch.device
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    moved = [{name: value.to(device) for name, value in target.items()} for target in targets]
    return [image.to(device) for image in images], moved


def _optimize(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    total: Tensor,
    clip_norm: float,
) -> None:
    """One step of the optimiser on the gradient of ``total``, its norm cut at ``clip_norm``."""
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(total).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm, foreach=True)  # one call for all, on a CPU as well
    scaler.step(optimizer)
    scaler.update()
