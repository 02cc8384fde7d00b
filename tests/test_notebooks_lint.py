"""The committed notebooks pass every lint rule, and every rule is seen to fail on a planted notebook."""

import copy
import json
import re

import pytest

from pslib import paths
from pslib.cli import main
from pslib.errors import UserError
from pslib.experiments.ledger import ledger
from pslib.experiments.ledger_text import ledger_summary
from pslib.notebook import expected_time
from pslib.notebook_lint import (
    RULES,
    SERIES_RULES,
    WIDGET_STATE,
    WIDGET_VIEW,
    lint,
    lint_all,
    lint_text,
)
from pslib.notebook_page import code_hash, series, source_of

HTML = '<figure><img class="pslib" alt="a line that rises" src="data:image/png;base64,AA/tmp/x=="></figure>'

SOLUTION = "<details>\n\n```python\nx = 1\n```\n\n</details>\n<!-- wrong:\nx = 2\n-->"


def html(text):
    return {"output_type": "display_data", "metadata": {}, "data": {"text/html": text}}


def code(number, source, outputs=(), tags=()):
    return {"cell_type": "code", "id": f"c{number}", "metadata": {"tags": list(tags)}, "source": source,
            "execution_count": number, "outputs": list(outputs)}


def good():
    """A notebook of the series that obeys every rule."""
    def markdown(name, source, tags=()):
        return {"cell_type": "markdown", "id": name, "metadata": {"tags": list(tags)}, "source": source}

    cells = [
        markdown("title", "# Title\n![a street](street.png)\n```\n# no heading\n```"),
        code(1, 'PROFILE = "tiny"', tags=["parameters"]),
        code(2, "session = 1", tags=["setup"]),
        markdown("part", "## Part\n### Detail"),
        code(3, "%matplotlib inline\nshow()", [html(HTML)]),
    ]
    for number in (1, 2, 3):
        cells += [
            code(2 + 2 * number, "def exercise():\n    return None", tags=["exercise"]),
            code(3 + 2 * number, "check()", tags=["check"]),
            markdown(f"s{number}", SOLUTION, ["solution"]),
        ]
    cells.append(markdown("end", "## What could mislead you\n## References\n- `pslib/ops.py`"))
    return stamped({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def stamped(notebook):
    """The notebook as if its outputs were made by its present code."""
    notebook["metadata"]["pslib"] = {"code": code_hash(notebook)}
    return notebook


def changed(index, **values):
    def change(notebook):
        notebook["cells"][index].update(values)
    return change


def with_output(output, tags=()):
    return changed(4, outputs=[output], metadata={"tags": list(tags)})


def widget_then_nothing(notebook):
    view = {"output_type": "display_data", "metadata": {}, "data": {WIDGET_VIEW: {"model_id": "1"}}}
    with_output(view, ["widget-with-fallback"])(notebook)


def hidden_error(notebook):
    broken = {"outputs": [{"output_type": "error", "ename": "KeyError"}]}
    notebook["metadata"]["widgets"] = {WIDGET_STATE: {"state": {"1": {"state": broken}}}}


def stateless(notebook):
    notebook["metadata"]["widgets"] = {WIDGET_STATE: {}}


def unstamped(notebook):
    del notebook["metadata"]["pslib"]


def remove(*indices):
    def change(notebook):
        for index in sorted(indices, reverse=True):
            del notebook["cells"][index]
    return change


LONG = "\n".join(["x = 1"] * 26)
ERROR = {"output_type": "error", "ename": "ValueError", "evalue": "", "traceback": []}
VIEW = {"output_type": "display_data", "metadata": {}, "data": {WIDGET_VIEW: {"model_id": "1"}, "text/plain": "w"}}
PNG = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "AAAA"}}
STDERR = {"output_type": "stream", "name": "stderr", "text": "warning"}
BAR = {"output_type": "stream", "name": "stdout", "text": "train:  10%|#   | 1/10"}
PRINTED_PATH = {"output_type": "stream", "name": "stdout", "text": ["saved to /home/ann/x.png"]}

PLANTED = [
    ("size", changed(0, source="# Title\n" + "x" * 300_001), "at most 300"),
    ("order", changed(4, execution_count=9), "not run 1..n"),
    ("order", changed(4, execution_count=None), "not run 1..n"),
    ("ids", changed(4, id="title"), "two with the same"),
    ("parses", changed(4, source="%matplotlib inline\nfor x in range(3) print(x)"), "does not parse"),
    ("lengths", changed(4, source=LONG), "26 lines"),
    ("lengths", changed(4, source=LONG + "\n" + LONG + "\n" + LONG, metadata={"tags": ["library:x"]}), "78 lines"),
    ("headings", changed(3, source="### Part"), "jumps from level 1 to 3"),
    ("headings", changed(3, source="# Part"), "one # heading"),
    ("alt_text", changed(0, source="# Title\n![](street.png)"), "without alt text"),
    ("alt_text", changed(0, source="# Title\n<img src='street.png'>"), "<img> without alt"),
    ("alt_text", with_output(html("<img src='data:image/png;base64,AAAA'>")), "<img> without alt"),
    ("alt_text", with_output(html("<img alt=' ' src='x'>")), "<img> without alt"),
    ("raw_pictures", with_output(PNG), "raw picture output"),
    ("errors", with_output(ERROR), "error ValueError"),
    ("streams", with_output(STDERR), "stderr"),
    ("streams", with_output(BAR), "dead progress bar"),
    ("widgets", with_output(VIEW), "without the tag"),
    ("widgets", widget_then_nothing, "static figure"),
    ("widgets", hidden_error, "hidden widget error: KeyError"),
    ("widgets", stateless, "without state"),
    ("machine_paths", changed(4, source="open('/home/ann/x')"), "machine path /home/ann"),
    ("machine_paths", with_output(PRINTED_PATH), "machine path /home/ann"),
    ("machine_paths", changed(3, source=r"## in C:\Users\ann"), "machine path C:"),
    ("template", changed(1, metadata={"tags": []}), "tagged parameters"),
    ("template", changed(14, source="## References"), "What could mislead you"),
    ("same_code", changed(4, source="show()"), "changed since its outputs were made: run `pslib notebooks publish 07`"),
    ("same_code", changed(4, source="%matplotlib inline\nshow() "), "changed since its outputs"),
    ("same_code", remove(5, 6, 7), "changed since its outputs"),
    ("same_code", unstamped, "no hash says which code its outputs are of: run `pslib notebooks publish 07`"),
    ("code_paths", changed(14, source="## References\n- `pslib/models/neck.py`, `gradients.py`"), "gradients.py, but"),
    ("code_paths", changed(14, source="## References\n- `pslib/nothing/neck.py`"), "pslib/nothing/neck.py, but"),
    ("code_paths", changed(14, source="## References\n- `pslib.modles.neck`"), "pslib.modles.neck, but"),
    ("exercise_groups", remove(5, 6, 7), "2 exercises, 3 wanted"),
    ("exercise_groups", remove(7), "followed by its check"),
    ("exercise_groups", changed(7, source="<details>\n```python\nx = 1\n```"), "planted wrong answer"),
]


@pytest.mark.parametrize("path", series(), ids=lambda path: path.name)
def test_series_is_clean(path):
    assert lint(path) == []


def test_good_notebook_passes():
    assert lint_text(json.dumps(good()), "07_good.ipynb") == []


@pytest.mark.parametrize(("rule", "change", "complaint"), PLANTED, ids=[f"{p[0]}-{p[2]}" for p in PLANTED])
def test_rule_fails_on_a_planted_notebook(rule, change, complaint):
    notebook = copy.deepcopy(good())
    change(notebook)
    found = lint_text(json.dumps(notebook), "07_bad.ipynb")
    assert any(complaint in text for text in found), found


def test_every_rule_has_a_planted_notebook():
    assert {rule.__name__ for rule in RULES + SERIES_RULES} == {rule for rule, _, _ in PLANTED}


def test_allowed_exceptions():
    notebook = good()
    changed(4, source=LONG, metadata={"tags": ["library:pslib.ops.f"]})(notebook)
    assert lint_text(json.dumps(stamped(notebook)), "07_x.ipynb") == []
    notebook = good()
    with_output(ERROR, ["raises-exception"])(notebook)
    assert lint_text(json.dumps(notebook), "07_x.ipynb") == []
    notebook = good()
    with_output(VIEW, ["widget-with-fallback"])(notebook)
    notebook["cells"][5]["outputs"] = [html(HTML)]
    assert lint_text(json.dumps(notebook), "07_x.ipynb") == []


def test_only_code_with_outputs_needs_the_hash_of_its_sources():
    notebook = good()
    changed(0, source="# Another title\n![a street](street.png)")(notebook)
    assert lint_text(json.dumps(notebook), "07_x.ipynb") == []  # prose may change without a run
    del notebook["cells"][4]["outputs"][:]
    unstamped(notebook)
    assert lint_text(json.dumps(notebook), "07_x.ipynb") == []
    notebook["cells"][4]["source"] = notebook["cells"][4]["source"].splitlines(keepends=True)  # as a file holds it
    assert code_hash(notebook) == code_hash(good())
    notebook["cells"][1], notebook["cells"][2] = notebook["cells"][2], notebook["cells"][1]
    assert code_hash(notebook) != code_hash(good())


def test_lint_command(tmp_path, capsys):
    (tmp_path / "07_bad.ipynb").write_text("{")
    assert lint_all([tmp_path]) == 1
    assert "07_bad.ipynb: not JSON" in capsys.readouterr().out
    with pytest.raises(UserError, match="no notebook or folder"):
        lint_all([tmp_path / "missing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no notebooks in .*empty"):
        lint_all([tmp_path / "empty"])
    assert lint_text("[]") == lint_text("{}") == ["no notebook: it has no list of cells"]
    (tmp_path / "latin.ipynb").write_bytes("é".encode("latin-1"))
    assert lint(tmp_path / "latin.ipynb")[0].startswith("not JSON")
    (tmp_path / "good.ipynb").write_text(json.dumps(good()))
    assert main(["notebooks", "lint", str(tmp_path / "good.ipynb")]) == 0


def relative_links(path):
    """Targets of the relative links in a Markdown file or in a notebook's Markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join(source_of(cell) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    return [target for target in found if "://" not in target]


@pytest.mark.parametrize("path", [*sorted(paths.notebooks_dir().rglob("*.md")), *series(), paths.root() / "README.md"],
                         ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    missing = [target for target in relative_links(path) if not (path.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("path", series(), ids=lambda path: path.name)
def test_every_notebook_is_listed_and_has_a_page_for_teachers(path):
    assert f"({path.name})" in (paths.notebooks_dir() / "README.md").read_text()
    assert (paths.notebooks_dir() / "teacher" / f"{path.name[:2]}.md").is_file()


def test_page_16_counts_the_verdicts_of_todays_ledger():
    notebook = json.loads((paths.notebooks_dir() / "16_benchmark_and_ledger.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] if cell["cell_type"] == "code" for output in cell["outputs"]]
    printed = "".join("".join(output.get("text", "")) for output in outputs)
    said = ledger_summary(ledger("tiny"))
    assert said in printed, f"the page is older than the records, which now come to: {said}. Run make publish."


@pytest.mark.parametrize("path", series(), ids=lambda path: path.stem)
def test_a_published_page_took_less_than_three_minutes_and_300_kilobytes(path):
    times = json.loads((paths.results_dir() / "notebook-times.json").read_text())
    assert 0 < times[f"{path.stem[:2]}/tiny"]["seconds"] <= 180
    assert json.dumps(expected_time(path.stem[:2], "tiny"))[1:-1] in path.read_text(encoding="utf-8")
    assert path.stat().st_size <= 300_000
