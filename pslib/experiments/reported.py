"""The numbers the two papers print, read from ``data/reported``: one file a table, and what their prose says of them.

A number is *printed*, *derived* (worked out from other printed ones), *assumed* (printed, but its row is inferred) or
*missing*; :meth:`ReportedTable.origin` says which and why.  How they were transcribed stands in
``data/reported/README.md``.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pslib import paths
from pslib.errors import UserError, require_choice

__all__ = ["ReportedTable", "Statement", "Unplaced", "reported", "reported_names", "statements"]

PROSE = "prose"
Cell = tuple[str, str, str]  # row, set, column


@dataclass(frozen=True)
class Unplaced:
    """Printed values whose rows are lost: ``values`` in print order belong to some of ``rows``."""

    kind: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    reason: str


@dataclass(frozen=True)
class ReportedTable:
    """One table or figure of a paper; ``columns`` are those of each set, ``aliases`` name rows of ours by the paper's.

    ``elsewhere`` names rows of ours that stand in another table: its name, its row.  ``cells`` holds every (row, set,
    column): a number, a text (the GPU of a run time) or None.
    """

    name: str
    paper: str
    table: str
    title: str
    unit: str
    columns: Mapping[str, tuple[str, ...]]
    cells: Mapping[Cell, float | str | None] = field(repr=False)
    origins: Mapping[Cell, str] = field(repr=False)
    unplaced: tuple[Unplaced, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The sets the table reports on; "both" holds columns that belong to no set."""
        return tuple(self.columns)

    @property
    def source(self) -> str:
        """Paper and table in words, for a banner."""
        return f"{self.paper}, {self.table}"

    def rows(self, kind: str) -> list[str]:
        """Row labels of one set, in print order."""
        require_choice(f"set in {self.name}", kind, self.columns)
        return list(dict.fromkeys(row for row, where, _ in self.cells if where == kind))

    def value(self, row: str, kind: str, column: str) -> float | None:
        """The number, or None if the text does not carry it; raises UserError on an unknown row, set or column."""
        found = self.cell(row, kind, column)
        if isinstance(found, str):
            raise UserError(f"{self.name}, row {row!r}, column {column!r} is a text ({found!r}): read it with cell().")
        return found

    def cell(self, row: str, kind: str, column: str) -> float | str | None:
        """What stands in a cell, texts included."""
        if row in self.elsewhere:
            table, label = self.elsewhere[row]
            return reported(table).cell(label, kind, column)
        return self.cells[self._find(row, kind, column)]

    def origin(self, row: str, kind: str, column: str) -> str:
        """Where a number comes from: "printed", "derived: how", "assumed: how" or "missing: why"."""
        if row in self.elsewhere:
            table, label = self.elsewhere[row]
            return reported(table).origin(label, kind, column)
        return self.origins.get(self._find(row, kind, column), "printed")

    def contrast(self, factors: Mapping[str, float], kind: str, column: str) -> float | None:
        """Sum of rows times factors, as a claim states it; None if one of them is missing.

        >>> reported("alignps-table2").contrast({"all": 1, "none": -1}, "prw", "mAP")
        18.5
        """
        values = [self.value(row, kind, column) for row in factors]
        if None in values:
            return None
        return round(sum(f * v for f, v in zip(factors.values(), values, strict=True)), 6) + 0.0

    def contrast_origin(self, factors: Mapping[str, float], kind: str, column: str) -> str:
        """"printed" if all numbers of :meth:`contrast` are, else what else they are: "derived", "assumed" or both.

        >>> reported("alignps-fig6").contrast_origin({"all": 1, "scale+task": -1}, "prw", "mAP")
        'assumed, derived'
        """
        origins = {self.origin(row, kind, column).partition(":")[0] for row in factors}
        return ", ".join(sorted(origins - {"printed"})) or "printed"

    def as_text(self, kind: str) -> str:
        """The table of one set as aligned text: "~" marks derived and assumed numbers, "-" missing ones."""
        columns, rows = self.columns[require_choice(f"set in {self.name}", kind, self.columns)], self.rows(kind)
        shown = [[row, *(self._shown((row, kind, column)) for column in columns)] for row in rows]
        table = [["", *columns], *shown]
        widths = [max(len(line[place]) for line in table) for place in range(len(columns) + 1)]
        lines = [
            "  ".join(text.ljust(width) if place == 0 else text.rjust(width)
                      for place, (text, width) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in table
        ]  # fmt: skip
        return "\n".join(lines)

    def remarks(self, kind: str) -> list[str]:
        """Which numbers of one set are derived, assumed, missing or unplaced, and why; see also ``notes``."""
        told: dict[str, list[str]] = {}
        for (row, where, _), origin in self.origins.items():
            if where == kind and row not in told.setdefault(origin, []):
                told[origin].append(row)
        lines = [f"{', '.join(rows)}: {origin}" for origin, rows in told.items()]
        for group in self.unplaced:
            if group.kind == kind:
                values = ", ".join("/".join(f"{value:.1f}" for value in pair) for pair in group.values)
                lines.append(f"printed, but for which row is lost ({', '.join(group.rows)}): {values}")
        return lines

    def _shown(self, cell: Cell) -> str:
        found = self.cells[cell]
        mark = "" if self.origins.get(cell, "printed") == "printed" else "~"
        if found is None or isinstance(found, str):
            return found or "-"
        return mark + (f"{found:,}" if isinstance(found, int) else f"{found:.2f}".removesuffix("0"))

    def _find(self, row: str, kind: str, column: str) -> Cell:
        require_choice(f"set in {self.name}", kind, self.columns)
        require_choice(f"column in {self.name} on {kind}", column, self.columns[kind])
        known = require_choice(f"row in {self.name} on {kind}", self.aliases.get(row, row), self.rows(kind))
        return known, kind, column


@dataclass(frozen=True)
class Statement:
    """A sentence of a paper that its tables can be held against.

    ``terms`` are (factor, table, set, row, column); their sum, in per cent of ``share_of`` where that is given, should
    lie between ``low`` and ``high`` (None: open).
    """

    section: str
    says: str
    low: float | None
    high: float | None
    terms: tuple[tuple[float, str, str, str, str], ...]
    share_of: tuple[str, str, str, str] | None = None
    circular: bool = False

    @property
    def in_tables(self) -> float | None:
        """What the tables give; None if one of them lacks a number."""
        values = [reported(table).value(row, kind, column) for _, table, kind, row, column in self.terms]
        if None in values:
            return None
        total = sum(factor * value for (factor, *_), value in zip(self.terms, values, strict=True))
        if self.share_of:
            table, kind, row, column = self.share_of
            total = 100 * total / reported(table).value(row, kind, column)
        return round(total, 6) + 0.0

    @property
    def agrees(self) -> bool | None:
        """Whether prose and tables agree; None where the tables lack a number, or have it from this sentence."""
        found = self.in_tables
        if found is None or self.circular:
            return None
        return (self.low is None or found >= self.low) and (self.high is None or found <= self.high)


def reported_names() -> list[str]:
    """Names of all tables, as :func:`reported` takes them."""
    return sorted(path.stem for path in paths.reported_dir().glob("*.json") if path.stem != PROSE)


def reported(name: str) -> ReportedTable:
    """The table called ``name``, e.g. "alignps-table1"; a misspelt name is answered with the nearest one.

    >>> reported("alignps-table1").value("P3", "prw", "mAP")
    45.9
    """
    return _read(str(paths.reported_dir()), require_choice("reported table", name, reported_names()))


def statements() -> list[Statement]:
    """What the papers' prose says of their tables."""
    entries = _json(str(paths.reported_dir()), PROSE)
    try:
        return [
            Statement(entry["section"], entry["says"], entry["low"], entry["high"],
                      tuple((term[0], *term[1:]) for term in entry["terms"]),
                      tuple(entry["share_of"]) if entry["share_of"] else None, entry.get("circular", False))
            for entry in entries
        ]  # fmt: skip
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{PROSE}.json in {paths.reported_dir()} is damaged ({error}): restore it with git.") from None


def _json(folder: str, name: str) -> Any:
    path = Path(folder) / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): restore it with git.") from None


@cache
def _read(folder: str, name: str) -> ReportedTable:
    """Read and check one file: every None has a reason, every remark names cells that are there."""
    content = _json(folder, name)

    def damaged(what: str) -> UserError:
        return UserError(f"{name}.json in {folder} {what}: correct the file or restore it with git.")

    try:
        columns = {kind: tuple(names) for kind, names in content["columns"].items()}
        values = content["values"]
        if set(values) != set(columns):
            raise damaged("has values for other sets than it has columns for")
        cells: dict[Cell, float | str | None] = {}
        for kind, rows in values.items():
            for row, entries in rows.items():
                if len(entries) != len(columns[kind]):
                    raise damaged(f"has {len(entries)} values in row {row!r}, not {len(columns[kind])}")
                cells |= {(row, kind, column): value for column, value in zip(columns[kind], entries, strict=True)}
        origins: dict[Cell, str] = {}
        for mark, key in (("missing", "reason"), ("derived", "how"), ("assumed", "how")):
            for entry in content[mark]:
                for cell in _named(entry, values):
                    if cell not in cells or cell in origins or (cells[cell] is None) != (mark == "missing"):
                        raise damaged(f"marks {' / '.join(cell)} as {mark}, which it is not")
                    origins[cell] = f"{mark}: {entry[key]}"
        if unexplained := [cell for cell, value in cells.items() if value is None and cell not in origins]:
            raise damaged(f"has no number and no reason at {' / '.join(unexplained[0])}")
        unplaced = tuple(
            Unplaced(e["set"], tuple(e["rows"]), tuple(e["columns"]), tuple(map(tuple, e["values"])), e["reason"])
            for e in content["unplaced"]
        )
        named = (content["paper"], content["table"], content["title"], content["unit"])
        elsewhere = {row: (table, label) for row, (table, label) in content.get("elsewhere", {}).items()}
        return ReportedTable(name, *named, columns, cells, origins, unplaced, content["aliases"], elsewhere,
                             tuple(content["notes"]))  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(f"is damaged ({type(error).__name__}: {error})") from None


def _named(entry: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Cell]:
    """The cells an entry of the file speaks of; "*" for its rows means all of the set."""
    rows = list(values[entry["set"]]) if entry["rows"] == "*" else entry["rows"]
    return ((row, entry["set"], column) for row in rows for column in entry["columns"])
