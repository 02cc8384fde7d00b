"""The shape of a record's JSON: whatever reads records relies on it, so it is checked once, as each one is read."""

from collections.abc import Mapping
from typing import Any

__all__ = ["misshapen"]

# What a record may hold and of which type: ``json`` makes just these.  What it must hold is said where it is read.
_SHAPES = {
    "recipe": dict, "data": dict, "hash": str, "seed": int, "components": dict, "results": dict, "protocols": list,
    "validation": list, "reason": str, "device": str, "date": str,
}  # fmt: skip
_RECIPE = {"name": str, "kind": str, "profile": str, "stage": str, "model": dict, "weights": dict, "schedule": dict}


def misshapen(info: Mapping[str, Any]) -> str:
    """The first part of a record, one that holds all it needs, that is not as its readers rely on; empty if none is.

    >>> misshapen({"recipe": {"name": "a", "kind": "prw"}, "seed": "1", "data": {"fingerprint": "f"}})
    'seed'
    """
    if wrong := _of_another_type(info, _SHAPES):
        return wrong
    recipe: Any = info["recipe"]
    while recipe is not None:  # a recipe may start from another
        if not isinstance(recipe, dict) or not {"name", "kind"} <= recipe.keys() or _of_another_type(recipe, _RECIPE):
            return "recipe"
        recipe = recipe.get("start")
    if not isinstance(info["data"].get("fingerprint"), str):
        return "data"
    if not all(isinstance(name, str) for name in info.get("protocols", [])):
        return "protocols"
    if not all(isinstance(entry, dict) for entry in info.get("validation", [])):
        return "validation"
    # A run that was not tested has no protocols, one that diverged no results either.
    tested = info.get("status") == "finished" and info["protocols"]
    return "" if not tested or _hold(info["results"], info["protocols"]) else "results"


def _of_another_type(content: Mapping[str, Any], shapes: Mapping[str, type]) -> str:
    """The first of the values that is there and not exactly of its type: True is no seed.  Empty if there is none."""
    return next((name for name, shape in shapes.items() if name in content and type(content[name]) is not shape), "")


def _hold(results: Mapping[str, Any], protocols: list[str]) -> bool:
    """True if results, and those of every other reading, have the recall and each protocol's mAP."""
    reads = results.get("reads", {})
    if not isinstance(reads, dict):
        return False
    try:
        numbers = [one["detection"]["recall"] for one in (results, *reads.values())]
        for one in (results, *reads.values()):
            numbers += [one[boxes][name]["map"] for boxes in ("search", "ground_truth") for name in protocols]
    except (KeyError, TypeError):
        return False
    return all(type(number) in (int, float) for number in numbers)
