"""The variants of AlignPS in the rows of Fig. 6 and Tables I to V, each a change of one of two recipes."""

from pslib.training.recipe import Recipe
from pslib.training.recipes import RECIPES

__all__ = ["VARIANTS"]

_ALIGNPS, _BASELINE = RECIPES["alignps"], RECIPES["baseline"]
_LONG = _BASELINE.schedule
_SCALE = {"model__levels": ("P3",)}
_REGION = {"model__lateral": "deformable", "model__output": "deformable", "model__topdown": "concat"}
_TASK = {"model__structure": "reid-first"}
_PLAIN_NECK = {"model__lateral": "conv", "model__output": "conv", "model__topdown": "sum"}
_IDENTITY = {"warm_start": "identity", "schedule": _LONG}
# Longer and shorter side in px around the stored 224 x 144: four fifths to five quarters, where people stay visible.
_SIZES = ((179, 115), (201, 130), (224, 144), (252, 162), (280, 180))

_CHANGES: dict[str, tuple[Recipe, dict[str, object]]] = {
    "alignps": (_ALIGNPS, {}),
    "alignps-long": (_ALIGNPS, {"schedule": _LONG}),
    "baseline": (_BASELINE, {}),
    # Fig. 6
    "scale": (_BASELINE, _SCALE),
    "region": (_BASELINE, _REGION),
    "task": (_BASELINE, _TASK),
    "scale-region": (_BASELINE, _SCALE | _REGION),  # also T3 of Table III
    "scale-task-long": (_ALIGNPS, _PLAIN_NECK | {"schedule": _LONG}),
    "region-task": (_BASELINE, _REGION | _TASK),  # also P3, P4, P5 of Table I
    # Table I
    "p4": (_ALIGNPS, {"model__levels": ("P4",), "schedule": _LONG}),
    "p5": (_ALIGNPS, {"model__levels": ("P5",), "schedule": _LONG}),
    "p3-p4": (_ALIGNPS, {"model__levels": ("P3", "P4"), "schedule": _LONG}),
    "p3-multiscale": (_ALIGNPS, {"image_sizes": _SIZES, "schedule": _LONG}),
    "p3-p4-p5-multiscale": (_BASELINE, _REGION | _TASK | {"image_sizes": _SIZES}),
    # Table II
    "scale-task": (_ALIGNPS, _PLAIN_NECK),  # its "none"
    "lateral": (_ALIGNPS, _PLAIN_NECK | {"model__lateral": "deformable"}),
    "output": (_ALIGNPS, _PLAIN_NECK | {"model__output": "deformable"}),
    "concat": (_ALIGNPS, _PLAIN_NECK | {"model__topdown": "concat"}),
    "lateral-output": (_ALIGNPS, {"model__topdown": "sum"}),
    "lateral-concat": (_ALIGNPS, {"model__output": "conv"}),
    "output-concat": (_ALIGNPS, {"model__lateral": "conv"}),
    # Table III
    "t1": (_ALIGNPS, {"model__structure": "box", "schedule": _LONG}),
    "t2": (_ALIGNPS, {"model__structure": "class", "schedule": _LONG}),
    "alignps-identity": (_ALIGNPS, _IDENTITY),
    "t1-identity": (_ALIGNPS, _IDENTITY | {"model__structure": "box"}),
    "t2-identity": (_ALIGNPS, _IDENTITY | {"model__structure": "class"}),
    "t3-identity": (_BASELINE, _SCALE | _REGION | _IDENTITY),
    # Table IV
    "oim": (_ALIGNPS, {"model__triplet": "none"}),
    "toim-without-table": (_ALIGNPS, {"model__triplet": "plain"}),
    # Table V
    "res3": (_ALIGNPS, {"model__deformable_stages": ("res3",)}),
    "res3-4": (_ALIGNPS, {"model__deformable_stages": ("res3", "res4")}),
    "res3-5": (_ALIGNPS, {"model__deformable_stages": ("res3", "res4", "res5")}),
    # Not in the paper
    "no-mean-subtraction": (_ALIGNPS, {"model__mean_subtraction": False}),
    "quarter-queue": (_ALIGNPS, {"model__queue_channels": 12}),
    "unnormalized-table": (_ALIGNPS, {"model__normalize_table": False}),
    "half-reid-weight": (_ALIGNPS, {"weights__oim": 0.1, "weights__triplet": 0.1}),
    "double-reid-weight": (_ALIGNPS, {"weights__oim": 0.4, "weights__triplet": 0.4}),
    "cold": (_ALIGNPS, {"model__temperature": 1 / 15}),
}
VARIANTS: dict[str, Recipe] = {
    name: recipe.with_(name=name, **changes) for name, (recipe, changes) in _CHANGES.items()
}
