"""A notebook file, taken apart: its cells and outputs, its exercises, and a hash of its code."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pslib import paths

__all__ = ["Exercise", "Page", "code_hash", "exercises", "joined", "series", "source_of", "tags_of", "without_data"]

DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\\n]+")
WRONG = re.compile(r"<!--\s*wrong:(.*?)-->", re.S)
SOLUTION = re.compile(r"```python\n(.*?)```", re.S)


@dataclass(frozen=True)
class Page:
    """One notebook, parsed."""

    name: str
    num_bytes: int
    notebook: dict

    @property
    def cells(self) -> list[dict]:
        return self.notebook.get("cells", [])

    def code(self) -> Iterator[tuple[int, dict, str, list[str]]]:
        """(index, cell, source, tags) of every code cell that is not empty."""
        for index, cell in enumerate(self.cells):
            if cell["cell_type"] == "code" and source_of(cell).strip():
                yield index, cell, source_of(cell), tags_of(cell)

    def outputs(self) -> Iterator[tuple[int, list[str], dict]]:
        """(cell index, tags, output) of every output."""
        for index, cell, _, tags in self.code():
            for output in cell.get("outputs", []):
                yield index, tags, output


@dataclass(frozen=True)
class Exercise:
    """One exercise: the stub a student edits, its check, the folded solution, planted wrong answers."""

    stub: str
    check: str
    solution: str
    wrong: tuple[str, ...]


def series() -> list[Path]:
    """The committed notebooks in order."""
    return sorted(paths.notebooks_dir().glob("[0-9][0-9]_*.ipynb"))


def exercises(notebook: dict) -> list[Exercise]:
    """The exercise groups of a notebook; ValueError if a group lacks a cell, a solution or a wrong answer."""
    cells, found = notebook["cells"], []
    for index, cell in enumerate(cells):
        if cell["cell_type"] != "code" or "exercise" not in tags_of(cell):
            continue
        check, answer = (cells[index + 1 : index + 3] + [{}, {}])[:2]
        if "check" not in tags_of(check) or "solution" not in tags_of(answer):
            raise ValueError(f"cell {index}: an exercise is followed by its check cell and its solution cell")
        text = source_of(answer)
        solutions, wrong = SOLUTION.findall(WRONG.sub("", text)), WRONG.findall(text)
        if len(solutions) != 1 or not wrong or "<details>" not in text:
            raise ValueError(f"cell {index + 2}: a solution is one folded python block and a planted wrong answer")
        found.append(Exercise(source_of(cell), source_of(check), solutions[0], tuple(text.strip() for text in wrong)))
    return found


def code_hash(notebook: dict) -> str:
    """Twelve hex digits over the sources of all code cells in order, each exactly as the file holds it.

    Publishing stores it in the metadata as ``pslib.code``: what the outputs beside the sources were made from.
    """
    sources = [source_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:12]


def source_of(cell: dict) -> str:
    return joined(cell.get("source", ""))


def tags_of(cell: dict) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def without_data(text: str) -> str:
    """``text`` without the bytes of embedded pictures, which may hold anything by chance."""
    return DATA_URI.sub("data:", text)
