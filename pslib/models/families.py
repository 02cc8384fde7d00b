"""The families of models: each a configuration, and the model that is built from it."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

from torch import nn

from pslib.models.alignps import AlignPS, AlignPSConfig
from pslib.models.nae import NAE, NAEConfig
from pslib.models.roi_alignps import RoiAlignPS, RoiAlignPSConfig
from pslib.models.seqnet import SeqNet, SeqNetConfig
from pslib.models.two_stage import TwoStage, TwoStageConfig

__all__ = [
    "FAMILIES", "Config", "backbone_names", "backbones_of", "build", "config_from_dict", "family_of_config",
    "identities_of", "without_download",
]  # fmt: skip

Config = AlignPSConfig | TwoStageConfig | NAEConfig | SeqNetConfig | RoiAlignPSConfig
FAMILIES: dict[str, tuple[type, type[nn.Module]]] = {
    "alignps": (AlignPSConfig, AlignPS),
    "two-stage": (TwoStageConfig, TwoStage),
    "nae": (NAEConfig, NAE),
    "seqnet": (SeqNetConfig, SeqNet),
    "roi-alignps": (RoiAlignPSConfig, RoiAlignPS),
}


def family_of_config(config: Config) -> str:
    """Name of the family whose configuration ``config`` is."""
    return next(name for name, (kind, _) in FAMILIES.items() if type(config) is kind)


def build(config: Config, num_identities: int) -> nn.Module:
    """The model of ``config`` for I identities, randomly initialised (but for weights that the backbone downloads)."""
    return FAMILIES[family_of_config(config)][1](config, num_identities)


def identities_of(model: nn.Module) -> int:
    """I, how many identities a model was built for."""
    return getattr(model, "num_identities", None) or len(model.memory.table)


def backbones_of(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """The backbones of a model, each once, with their names.

    >>> [name for _, name in backbones_of(AlignPS(AlignPSConfig(), 5))]
    ['tiny']
    """
    parts = [part for part in model.modules() if isinstance(getattr(part, "backbone", None), nn.Module)]
    found = {id(part.backbone): (part.backbone, part.config.backbone) for part in parts}
    return list(found.values())


def backbone_names(config: Any) -> tuple[str, ...]:
    """Names of the backbones that a configuration asks for.

    >>> backbone_names(TwoStageConfig(backbone="vgg16"))
    ('vgg16',)
    """
    values = [(item.name, getattr(config, item.name)) for item in fields(config)]
    own = [value for name, value in values if name == "backbone"]
    return (*own, *(name for _, value in values if is_dataclass(value) for name in backbone_names(value)))


def without_download(config: Any) -> Any:
    """The same configuration with a backbone that begins with random weights, for a model that is loaded whole.

    >>> without_download(TwoStageConfig(backbone_weights="IMAGENET1K_V1")).backbone_weights is None
    True
    """
    changes: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            changes[item.name] = without_download(value)
        elif item.name == "backbone_weights":
            changes[item.name] = None
    return replace(config, **changes)


def config_from_dict(content: Mapping[str, Any]) -> Config | None:
    """A configuration from its whole JSON form: of the first family that has all its fields; None if none has."""
    for kind, _ in FAMILIES.values():
        if set(content) <= {item.name for item in fields(kind)}:
            return _filled(kind, content)
    return None


def _filled(kind: type, content: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    return kind(**{
        name: _filled(hints[name], value) if is_dataclass(hints[name]) else _tuples(value)
        for name, value in content.items()
    })  # fmt: skip


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
