"""Exercises, probed in the live notebook: the untouched stub is "not done yet", the folded solution is
correct, and each planted wrong answer is rejected (a check that accepts everything checks nothing)."""

import nbformat
import pytest
from notebook_runs import run_notebook

from pslib.notebook_page import exercises, series


@pytest.mark.notebooks
@pytest.mark.parametrize("path", series(), ids=lambda path: path.name)
def test_exercises_of_the_series(path):
    run = run_notebook(path)
    assert run.error is None, run.error
    assert len(run.untouched) == 3
    for number, (untouched, solved, wrong) in enumerate(zip(run.untouched, run.solved, run.wrong, strict=True), 1):
        assert "not done yet" in untouched, f"exercise {number}: the untouched stub says {untouched!r}"
        assert solved.strip().endswith("correct"), f"exercise {number}: the solution says {solved!r}"
        assert set(wrong) == {"AssertionError"}, f"exercise {number}: wrong answers end in {wrong}"


VERIFY = "def verify_1(answer):\n    same(answer(3), 9, 'square it')\n\ncheck('Exercise 1', exercise_1, verify_1)"
SOLUTION = """<details><summary>Solution 1</summary>

```python
def exercise_1(x):
    return {right}
```

</details>
"""


def planted(folder, right="x * x", wrong="x + 1", check=VERIFY):
    """A notebook with one exercise, its solution and a wrong answer."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    def tagged(source, tag):
        return new_code_cell(source, metadata={"tags": [tag]})

    answer = SOLUTION.format(right=right) + f"<!-- wrong:\ndef exercise_1(x):\n    return {wrong}\n-->"
    cells = [
        tagged('PROFILE = "tiny"', "parameters"),
        tagged("from pslib.notebook import check, same", "setup"),
        tagged("def exercise_1(x):\n    return None", "exercise"),
        tagged(check, "check"),
        new_markdown_cell(answer, metadata={"tags": ["solution"]}),
    ]
    path = folder / "planted.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_probe_tells_right_from_wrong(tmp_path):
    run = run_notebook(planted(tmp_path))
    assert run.error is None
    assert run.untouched == ["Exercise 1: not done yet\n "]
    assert run.solved == ["Exercise 1: correct\n "]
    assert run.wrong == [["AssertionError"]]


def test_probe_sees_a_broken_solution_and_a_check_that_accepts_everything(tmp_path):
    lazy = "check('Exercise 1', exercise_1, lambda answer: answer(3))"
    (tmp_path / "lazy").mkdir()
    assert run_notebook(planted(tmp_path / "lazy", check=lazy)).wrong == [[""]]
    broken = run_notebook(planted(tmp_path, right="x * x * x"))
    assert "AssertionError" in broken.solved[0]


def test_groups_must_be_complete(tmp_path):
    notebook = nbformat.read(planted(tmp_path), as_version=4)
    assert len(exercises(notebook)) == 1
    notebook.cells[4].source = SOLUTION.format(right="x * x")
    with pytest.raises(ValueError, match="planted wrong answer"):
        exercises(notebook)
    del notebook.cells[3]
    with pytest.raises(ValueError, match="followed by its check cell"):
        exercises(notebook)
