"""Experiments: a table or figure of a paper as variants to compute and claims to test.

An experiment names the *rows* of the table and, for each, a variant: a recipe that any experiment may share.  A
*claim* is what the paper concludes from the rows, as a difference between some of them with a direction and a margin.
Claims are written down before their first record exists.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pslib.errors import UserError, require_choice
from pslib.evaluation.statistics import CLAIM_KINDS
from pslib.training.recipe import Recipe

__all__ = ["KINDS", "MEASURES", "Claim", "Experiment", "better"]

KINDS = ("cuhk-sysu", "prw")
# What a claim compares, each a value for every query (or person), in per cent where it is a share.
MEASURES = {
    "map": "search mAP",
    "top1": "search top-1",
    "ground-truth map": "mAP with ground-truth boxes",
    "recall": "detection recall",
    "gallery growth": "search mAP in the largest gallery minus that in the smallest",
    "spread": "radius of the 81 sampling points, C4's path minus C3's, in per cent of the box height",
    "branch probe": "share of embeddings whose branch a linear probe tells, above chance",
    "identity purity": "share of an embedding's five nearest that show the same person",
    "inside": "share of the 81 sampling points inside the box, C3's path minus C4's",
}


@dataclass(frozen=True)
class Claim:
    """One conclusion of a paper: a sum of rows with signs is above zero, as good as zero, or not above it by much.

    ``contrast`` gives each row's factor: ``{"all": 1, "none": -1}`` claims that *all* is better than *none*.
    ``margin`` is the smallest difference that would matter, in the unit of ``measure``.  ``column`` names the
    reported column that the same contrast is read from, if the paper prints one.  ``holds_untrained`` marks what is
    true of any network, before it has learned: no record can speak against it.
    """

    name: str
    text: str
    contrast: Mapping[str, float]
    measure: str = "map"
    kind: str = "difference"  # or another of CLAIM_KINDS
    margin: float = 2.0
    column: str | None = "mAP"
    source: str = ""
    holds_untrained: bool = False

    def __post_init__(self) -> None:
        require_choice("measure", self.measure, MEASURES)
        require_choice("kind of claim", self.kind, CLAIM_KINDS)


def better(first: str, second: str, text: str, **fields: Any) -> Claim:
    """The commonest claim: row ``first`` is above row ``second``."""
    return Claim(f"{first} > {second}", text, {first: 1, second: -1}, **fields)


@dataclass(frozen=True)
class Experiment:
    """One table or figure: ``rows`` maps the paper's row names to names of variants, in the paper's order.

    Where a model has several embeddings of a person, ``variant@read`` names one: ``"roi-alignps@dense"``.  All reads of
    a variant are one run.
    """

    name: str
    title: str
    source: str
    rows: Mapping[str, str]
    claims: tuple[Claim, ...]
    reported: str | None = None  # file of data/reported, without suffix
    kinds: tuple[str, ...] = KINDS
    note: str = ""
    variants: Mapping[str, Recipe] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for label, variant in self.rows.items():
            if variant.partition("@")[0] not in self.variants:
                raise UserError(f"row {label!r} of {self.name} names no variant: {variant!r} is unknown.")
        for claim in self.claims:
            if unknown := set(claim.contrast) - set(self.rows):
                raise UserError(f"claim {claim.name!r} of {self.name} names no row: {sorted(unknown)[0]!r} is unknown.")

    def recipe(self, label: str, kind: str) -> Recipe:
        """The recipe of row ``label`` on the set ``kind``, tiny profile.  Raises UserError if there is no such row."""
        return self.variants[self._row(label)[0]].with_(kind=kind)

    def read(self, label: str) -> str:
        """Which of the model's embeddings row ``label`` is about; empty for the one that its configuration names."""
        return self._row(label)[2]

    def _row(self, label: str) -> tuple[str, str, str]:
        return self.rows[require_choice("row", label, self.rows)].partition("@")
