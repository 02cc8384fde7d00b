"""Warm starts: what stands in for ImageNet weights, which the tiny backbone does not have.

ImageNet teaches a backbone edges, textures, parts and objects, and no one's identity.  The stand-in must be as
neutral: a classifier of drawn crops by labels that are *not* identity.  A second one, learned from identities, shows
what of a comparison hangs on that choice.  See :mod:`pslib.training.warm_up`, which trains them; this module only
loads the result.
"""

from pathlib import Path

from torch import nn

from pslib.errors import UserError, require_choice
from pslib.models.deformable import load_ordinary
from pslib.paths import build_dir, weights_dir
from pslib.training.checkpoints import load_weights

__all__ = ["WARM_STARTS", "warm_start_path", "apply_warm_start"]

WARM_STARTS = ("neutral", "identity", "none")


def warm_start_path(backbone: str, kind: str = "neutral") -> Path:
    """Where the warm start of a backbone lies: committed for the tiny ones, else made once and kept under ``build``."""
    folder = weights_dir() if backbone.startswith("tiny") else build_dir() / "weights"
    return folder / f"warm-start-{backbone}-{kind}.safetensors"


def apply_warm_start(backbone: nn.Module, name: str, kind: str) -> None:
    """Load the warm start ``kind`` into ``backbone``; ``"none"`` leaves it as initialised."""
    require_choice("warm start", kind, WARM_STARTS)
    if kind == "none":
        return
    path = warm_start_path(name, kind)
    if not path.exists():
        raise UserError(
            f"the warm start {path} is missing: make it with pslib warm-start --backbone {name} --kind {kind}, "
            "or set warm_start to none."
        )
    tensors, _ = load_weights(path)
    try:
        load_ordinary(backbone, tensors)
    except RuntimeError:
        raise UserError(f"the warm start {path} fits another backbone than {name}: make it again.") from None
