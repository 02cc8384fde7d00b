"""Checkpoints: what a killed run needs to go on to the same numbers, and trained weights to share.

A *checkpoint* holds model, memory, optimiser, step and loss curves of an unfinished run.  *Weights* are the model
alone, as safetensors with the recipe in the header.  Neither can run code when loaded.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from pslib.errors import UserError, remedy
from pslib.models.families import build, config_from_dict, family_of_config, identities_of, without_download

__all__ = ["compact", "save_checkpoint", "load_checkpoint", "save_weights", "load_weights", "load_model", "stored_run"]

# Suffix of the tensor that holds the scales of an 8-bit one.
SCALE = ".scale-of-8-bits"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` whole or not at all, so that a kill leaves the previous checkpoint in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        torch.save(dict(state), partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write the checkpoint {path} ({error}): {remedy(error)} and start again.") from None


def load_checkpoint(path: Path, run: str) -> dict[str, Any] | None:
    """The state stored at ``path``, or None if there is none; refuses a checkpoint of another run."""
    if not path.exists():
        return None
    try:
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
        found = state["run"]
    except (RuntimeError, EOFError, OSError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"the checkpoint {path} cannot be read ({type(error).__name__}): delete it.") from None
    except Exception as error:  # unpickling refuses foreign content with exceptions of its own
        raise UserError(f"{path} is not a checkpoint of pslib ({type(error).__name__}): delete it.") from None
    if found != run:
        raise UserError(
            f"the checkpoint {path} belongs to run {found}, not to {run}: delete it, or go back to its recipe and seed."
        )
    return state


def compact(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as they are stored: kernels with 8 bits a weight and a scale per output channel, the rest with 16.

    What 16 bits cannot hold (65,504 and more, as a variance may be) keeps its 32.
    """
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 4:
            scale = tensor.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
            stored[name] = (tensor / scale).round().to(torch.int8).contiguous()
            stored[name + SCALE] = scale.contiguous()
        else:
            narrow = tensor.half() if tensor.is_floating_point() else tensor
            stored[name] = (tensor if torch.isinf(narrow).any() else narrow).contiguous()
    return stored


def save_weights(path: Path, model: nn.Module, note: Mapping[str, str] | None = None) -> None:
    """Write the model with its configuration, about one kilobyte per thousand weights (see :func:`compact`)."""
    tensors = compact({name: tensor for name, tensor in model.state_dict().items() if not _is_queue(name)})
    header = {
        "config": json.dumps(asdict(model.config)),
        "family": family_of_config(model.config),
        "identities": str(identities_of(model)),
        **(note or {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, partial, metadata=header)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        partial.unlink(missing_ok=True)
        raise UserError(f"cannot write the weights {path} ({error}): {remedy(error)} and start again.") from None


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (floats as float32) and header of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            header = dict(file.metadata() or {})
    except FileNotFoundError:
        raise UserError(f"there are no weights at {path}: train them with pslib train, or name another file.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"the weights {path} cannot be read ({error}): fetch or train them again.") from None
    scales = {name.removesuffix(SCALE): tensors.pop(name) for name in list(tensors) if name.endswith(SCALE)}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8 and name not in scales:
            raise UserError(f"the weights {path} lack the scale of {name}: fetch or train them again.")
    tensors = {name: t.float() * scales[name] if name in scales else t for name, t in tensors.items()}
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, header


def stored_run(path: Path) -> str:
    """Name of the run that left the weights at ``path``; empty where there are none to read."""
    try:
        return load_weights(path)[1].get("run", "")
    except UserError:
        return ""


def load_model(path: Path) -> nn.Module:
    """The model stored at ``path``, ready for inference."""
    tensors, header = load_weights(path)
    try:
        content = json.loads(header.get("config", ""))
    except ValueError:
        content = None
    # Older weights of AlignPS say neither family nor identities.
    identities = header.get("identities") or len(tensors.get("memory.table", ()))
    config = config_from_dict(content) if isinstance(content, dict) else None
    if config is None or family_of_config(config) != header.get("family", "alignps") or not identities:
        raise UserError(f"{path} holds no person-search model of this version: train one with pslib train.")
    model = build(without_download(config), num_identities=int(identities))
    _load(model, tensors, path)
    return model.eval()


def _load(model: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    try:
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except RuntimeError:  # tensors of other shapes
        raise UserError(f"the weights {path} do not fit their own configuration: train them again.") from None
    wrong = [name for name in missing if not _is_queue(name)] + unexpected
    if wrong:
        raise UserError(f"the weights {path} do not fit the model (first difference: {wrong[0]}): train them again.")


def _is_queue(name: str) -> bool:
    """True of OIM's queue, which only training reads."""
    return name.endswith(("memory.queue", "memory.pointer"))
