"""All named recipes; each family's stand in a file of their own."""

from pslib.errors import require_choice
from pslib.training.alignps_recipes import ALIGNPS_ON_PRW, ALIGNPS_RECIPES
from pslib.training.ian_recipes import IAN_ON_PRW, IAN_RECIPES
from pslib.training.recipe import Recipe
from pslib.training.roi_recipes import ROI_ON_PRW, ROI_RECIPES

__all__ = ["RECIPES", "make_recipe"]

RECIPES = {recipe.name: recipe for recipe in (*ALIGNPS_RECIPES, *IAN_RECIPES, *ROI_RECIPES)}
_ON_PRW: dict[str, dict[str, object]] = ALIGNPS_ON_PRW | IAN_ON_PRW | ROI_ON_PRW


def make_recipe(name: str, kind: str) -> Recipe:
    """The recipe called ``name`` on the set ``kind``; a misspelt name is answered with the nearest ones.

    >>> [make_recipe("alignps-paper", kind).schedule.steps for kind in ("cuhk-sysu", "prw")]
    [67236, 34224]
    """
    require_choice("recipe", name, RECIPES)
    recipe = RECIPES[name].with_(kind=require_choice("set", kind, ("cuhk-sysu", "prw")))
    return recipe.with_(**_ON_PRW.get(name, {})) if kind == "prw" else recipe
