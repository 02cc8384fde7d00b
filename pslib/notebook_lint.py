"""What a committed notebook must be: small, run in order, readable on a static page and without eyes.

Each rule is a generator of complaints about one :class:`Page`; ``notebooks/README.md`` tells authors the rules.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pslib import paths
from pslib.errors import UserError
from pslib.notebook_page import Page, code_hash, exercises, joined, series, source_of, without_data

__all__ = ["lint", "lint_all", "lint_text"]

MAX_BYTES = 300_000
MAX_LINES = 25
MAX_LINES_LIBRARY = 60  # once a notebook, for the assembled class
NUM_EXERCISES = 3

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
MACHINE_PATH = re.compile(
    r"(?<![\w.:/<])/(?:home|Users|root|tmp|work|workspace|mnt|builds)/[\w.-]+|[A-Z]:\\+Users\\+\w+"
)
FENCE = re.compile(r"^(```|~~~)")
REFERENCES = re.compile(r"^#+ [^\n]*References[ ]*$(.*)", re.M | re.S)
CODE = re.compile(r"`([\w/]+\.py|pslib(?:\.\w+)+)`")
PACKAGE = Path(__file__).parent


def lint_all(targets: Sequence[Path] = ()) -> int:
    """Lint notebooks or folders (default: the series), print the complaints; 1 if there are any."""
    files: list[Path] = []
    for target in map(Path, targets):
        if not target.exists():
            raise UserError(f"no notebook or folder {target}: name one that exists.")
        files += sorted(target.glob("*.ipynb")) if target.is_dir() else [target]
    files = files if targets else series()
    if not files:
        where = ", ".join(map(str, targets)) or paths.notebooks_dir()
        raise UserError(f"no notebooks in {where}: name a folder or a file that has some.")
    complaints = [f"{path.name}: {complaint}" for path in files for complaint in lint(path)]
    print("\n".join(complaints) if complaints else f"{len(files)} notebooks, nothing to complain about")
    return int(bool(complaints))


def lint(path: Path) -> list[str]:
    """All complaints about one notebook file."""
    return lint_text(path.read_bytes().decode("utf-8", errors="replace"), path.name)


def lint_text(text: str, name: str = "notebook.ipynb") -> list[str]:
    """All complaints about a notebook given as JSON text.

    >>> lint_text('{"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# T\\\\n![](x.png)"}]}')
    ['cell 0: picture without alt text: ![](x.png)']
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        return [f"not JSON: {error}"]
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        return ["no notebook: it has no list of cells"]
    page = Page(name, len(text.encode()), content)
    rules = RULES + (SERIES_RULES if re.match(r"\d\d_", name) else ())
    return [complaint for rule in rules for complaint in rule(page)]


def size(page: Page) -> Iterator[str]:
    if page.num_bytes > MAX_BYTES:
        yield f"{page.num_bytes / 1000:.0f} kB, at most {MAX_BYTES // 1000}: fewer or smaller figures"


def order(page: Page) -> Iterator[str]:
    counts = [cell.get("execution_count") for _, cell, _, _ in page.code()]
    if counts != list(range(1, len(counts) + 1)):
        yield "not run 1..n in one session: run `pslib notebooks publish`"


def ids(page: Page) -> Iterator[str]:
    found = [cell.get("id") for cell in page.cells]
    if None in found or len(set(found)) != len(found):
        yield "cells without an id, or two with the same"


def parses(page: Page) -> Iterator[str]:
    from IPython.core.inputtransformer2 import TransformerManager

    for index, _, source, _ in page.code():
        try:
            ast.parse(TransformerManager().transform_cell(source))
        except SyntaxError as error:
            yield f"cell {index}: does not parse: {error.msg} in line {error.lineno}"


def lengths(page: Page) -> Iterator[str]:
    long_allowed = 1
    for index, _, source, tags in page.code():
        lines = len(source.strip().splitlines())
        if lines <= MAX_LINES:
            continue
        if lines <= MAX_LINES_LIBRARY and long_allowed and any(tag.startswith("library:") for tag in tags):
            long_allowed -= 1
        else:
            yield f"cell {index}: {lines} lines, at most {MAX_LINES} (one library cell of {MAX_LINES_LIBRARY})"


def headings(page: Page) -> Iterator[str]:
    levels, fenced = [], False
    for index, cell in enumerate(page.cells):
        for line in source_of(cell).splitlines() if cell["cell_type"] == "markdown" else ():
            fenced ^= bool(FENCE.match(line.strip()))
            found = re.match(r"(#{1,6})\s+\S", line)
            if found and not fenced:
                levels.append((len(found[1]), index))
    if [level for level, _ in levels].count(1) != 1 or levels[0][0] != 1:
        yield "a notebook begins with its one # heading"
    for (before, _), (level, index) in zip(levels, levels[1:], strict=False):
        if level > before + 1:
            yield f"cell {index}: heading jumps from level {before} to {level}"


def alt_text(page: Page) -> Iterator[str]:
    for index, cell in enumerate(page.cells):
        texts = [source_of(cell)] if cell["cell_type"] == "markdown" else []
        for output in cell.get("outputs", []):
            data = output.get("data") or {}
            texts += [joined(data[kind]) for kind in ("text/html", "text/markdown") if kind in data]
        for text in map(without_data, texts):
            for picture in re.findall(r"!\[\s*\]\([^)]*\)", text):
                yield f"cell {index}: picture without alt text: {picture}"
            for tag in re.findall(r"<img\b[^>]*>", text, re.I):
                if not re.search(r"\balt\s*=\s*(\"\s*[^\s\"]|'\s*[^\s'])", tag):
                    yield f"cell {index}: <img> without alt text"


def raw_pictures(page: Page) -> Iterator[str]:
    for index, _, output in page.outputs():
        if any(kind.startswith("image/") for kind in output.get("data") or {}):
            yield f"cell {index}: raw picture output without alt text: use pslib.viz.figures.show"


def errors(page: Page) -> Iterator[str]:
    for index, tags, output in page.outputs():
        if output["output_type"] == "error" and "raises-exception" not in tags:
            yield f"cell {index}: error {output.get('ename')} without the tag raises-exception"


def streams(page: Page) -> Iterator[str]:
    for index, _, output in page.outputs():
        text = joined(output.get("text", ""))
        if output.get("name") == "stderr":
            yield f"cell {index}: text on stderr: {text.strip()[:60]!r}"
        elif re.search(r"\r|\d%\|", text):
            yield f"cell {index}: a dead progress bar: run with PSLIB_PLAIN=1"


def widgets(page: Page) -> Iterator[str]:
    metadata = page.notebook.get("metadata", {}).get("widgets")
    state = (metadata or {}).get(WIDGET_STATE, metadata or {}).get("state")
    if metadata is not None and state is None:
        yield "metadata.widgets without state: GitHub calls such a notebook invalid"
    # An Output widget swallows exceptions: they show nowhere but in its state.
    for model in (state or {}).values():
        for output in model.get("state", {}).get("outputs") or []:
            if output.get("output_type") == "error":
                yield f"hidden widget error: {output.get('ename')}"
    for index, tags, output in page.outputs():
        data = output.get("data") or {}
        if WIDGET_VIEW not in data or "text/html" in data:
            continue
        following = next((cell for later, cell, _, _ in page.code() if later > index), {})
        if "widget-with-fallback" not in tags:
            yield f"cell {index}: widget without the tag widget-with-fallback and a static figure after it"
        elif "<img" not in json.dumps(following.get("outputs", [])):
            yield f"cell {index}: the cell after a widget must show the same as a static figure"


def machine_paths(page: Page) -> Iterator[str]:
    for index, cell in enumerate(page.cells):
        everything = source_of(cell) + "\n" + without_data(json.dumps(cell.get("outputs", [])))
        for found in sorted(set(MACHINE_PATH.findall(everything))):
            yield f"cell {index}: machine path {found}"


def template(page: Page) -> Iterator[str]:
    tags = [tag for _, _, _, cell_tags in page.code() for tag in cell_tags]
    for wanted in ("parameters", "setup"):
        if tags.count(wanted) != 1:
            yield f"{tags.count(wanted)} cells tagged {wanted}, one wanted"
    prose = "\n".join(source_of(cell) for cell in page.cells if cell["cell_type"] == "markdown")
    for wanted in ("What could mislead you", "References"):
        if not re.search(rf"^#+ .*{wanted}", prose, re.M):
            yield f"no heading with {wanted!r}"


def same_code(page: Page) -> Iterator[str]:
    stored = page.notebook.get("metadata", {}).get("pslib", {}).get("code")
    if next(page.outputs(), None) is None or stored == code_hash(page.notebook):
        return
    changed = "its code cells have changed since its outputs were made"
    what = changed if stored else "no hash says which code its outputs are of"
    yield f"{what}: run `pslib notebooks publish {page.name[:2]}`"


def code_paths(page: Page) -> Iterator[str]:
    for index, cell in enumerate(page.cells):
        found = REFERENCES.search(source_of(cell)) if cell["cell_type"] == "markdown" else None
        for name in unknown_code(found[1]) if found else ():
            yield f"cell {index}: the References name {name}, but there is no such file"


def unknown_code(text: str) -> Iterator[str]:
    """The code that ``text`` names and that is not in this package.

    Code is named as ``pslib/folder/file.py``, after which ``other.py`` is of that folder, or as ``pslib.folder.file``.

    >>> list(unknown_code("`pslib/models/neck.py`, `fcos.py`, `oim.py`; `pslib.models`; `losses/oim.py`"))
    ['oim.py']
    """
    folder = PACKAGE
    for name in CODE.findall(text):
        if name.endswith(".py"):
            path = PACKAGE / name.removeprefix("pslib/") if "/" in name else folder / name
            folder = path.parent
        else:
            path = PACKAGE.joinpath(*name.split(".")[1:])
            path = path if path.is_dir() else path.with_suffix(".py")
        if not path.exists():
            yield name


def exercise_groups(page: Page) -> Iterator[str]:
    try:
        found = len(exercises(page.notebook))
    except ValueError as error:
        yield str(error)
        return
    if found != NUM_EXERCISES:
        yield f"{found} exercises, {NUM_EXERCISES} wanted"


RULES = (size, order, ids, parses, lengths, headings, alt_text, raw_pictures, errors, streams, widgets, machine_paths)
SERIES_RULES = (template, same_code, code_paths, exercise_groups)  # for notebooks of the series: NN_name.ipynb
