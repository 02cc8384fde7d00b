"""Code shown in a notebook is the library's: cells tagged ``library:pslib.module.name`` are compared with it.

Comments, formatting and docstrings may differ (the page's prose stands for them); nothing else may.
"""

import ast
import importlib
import inspect
import json
import textwrap

import pytest

from pslib.notebook_page import series, source_of, tags_of


def definition(tree, name):
    """The class, function or constant called ``name`` at the top of a syntax tree, else None."""
    for node in tree.body:
        if getattr(node, "name", None) == name:
            return node
        if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == name for target in node.targets):
            return node
    return None


def normal_form(node):
    """A dump of the syntax tree without positions and docstrings."""
    for inner in ast.walk(node):
        if isinstance(inner, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(inner) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return ast.dump(node)


def library_definition(dotted):
    """The syntax tree of ``pslib.module.name`` or ``pslib.module.Class.method``."""
    parts = dotted.split(".")
    for split in range(len(parts) - 1, 1, -1):
        try:
            module = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        node = ast.parse(textwrap.dedent(inspect.getsource(module)))
        for name in parts[split:]:
            node = definition(node, name) if node is not None else None
        return node
    return None


def differences(notebook):
    """One sentence for each shown definition that is not the library's."""
    found = []
    for index, cell in enumerate(notebook["cells"]):
        for tag in tags_of(cell):
            if not tag.startswith("library:"):
                continue
            dotted = tag.removeprefix("library:")
            ours, shown = library_definition(dotted), definition(ast.parse(source_of(cell)), dotted.split(".")[-1])
            if ours is None or shown is None:
                found.append(f"cell {index}: {dotted} is not in the {'library' if ours is None else 'cell'}")
            elif normal_form(ours) != normal_form(shown):
                found.append(f"cell {index}: {dotted} differs from the library's")
    return found


@pytest.mark.parametrize("path", series(), ids=lambda path: path.name)
def test_shown_code_is_the_library_s(path):
    assert differences(json.loads(path.read_text(encoding="utf-8"))) == []


def notebook_showing(source, dotted):
    return {"cells": [{"cell_type": "code", "metadata": {"tags": [f"library:{dotted}"]}, "source": source}]}


def test_docstrings_comments_and_layout_may_differ():
    shown = """def live(full: Any, short: Any) -> Any:  # for CI
    return (short if os.environ.get("PSLIB_CI") == "1"
            else full)"""
    assert differences(notebook_showing(shown, "pslib.notebook.live")) == []


def test_a_changed_number_is_seen():
    from pslib.notebook import live

    source = inspect.getsource(live).replace('== "1"', '== "2"')
    assert "differs" in differences(notebook_showing(source, "pslib.notebook.live"))[0]


def test_methods_constants_and_missing_names():
    source = 'def set_postfix(self, **values: Any) -> None:\n    self.values.update(values)'
    assert differences(notebook_showing(source, "pslib.progress._PlainProgress.set_postfix")) == []
    assert differences(notebook_showing('PROFILES = ("tiny", "small", "paper")', "pslib.notebook.PROFILES")) == []
    assert "not in the library" in differences(notebook_showing("x = 1", "pslib.notebook.x"))[0]
    assert "not in the cell" in differences(notebook_showing("x = 1", "pslib.notebook.live"))[0]
    assert "not in the library" in differences(notebook_showing("x = 1", "pslib.no_such_module.x"))[0]
