"""Executes each notebook of the series once for all tests, and probes its exercises in the same live kernel."""

import functools
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from pslib.notebook_page import exercises
from pslib.notebooks import execute, prepared

__all__ = ["NotebookRun", "run_notebook"]

CELL_TIMEOUT = 300


@dataclass
class NotebookRun:
    """What happened: the error that stopped the notebook, and for each exercise what its check said."""

    seconds: float = 0.0
    error: str | None = None
    untouched: list[str] = field(default_factory=list)  # text printed by stub + check
    solved: list[str] = field(default_factory=list)  # text printed by solution + check
    wrong: list[list[str]] = field(default_factory=list)  # error name raised by each wrong answer + check


@functools.cache
def run_notebook(path: Path) -> NotebookRun:
    """Run ``path`` at tiny with ``PSLIB_CI=1`` and then, in the same namespace, its exercises.

    ``path`` may lie anywhere; the kernel's working directory is its folder.
    """
    run, notebook = NotebookRun(), prepared(path)
    start = time.perf_counter()

    def probe(client) -> None:
        run.seconds = time.perf_counter() - start

        def say(*sources: str) -> tuple[str, str]:
            """(printed text, error name) of running these sources after the notebook's own cells."""
            printed = ""
            for source in sources:
                cell = nbformat.v4.new_code_cell(source)
                notebook.cells.append(cell)
                try:
                    client.execute_cell(cell, len(notebook.cells) - 1, store_history=False)
                except CellExecutionError as error:
                    return printed, error.ename
                printed += "".join(output.get("text", "") for output in cell.outputs)
            return printed, ""

        for exercise in exercises(notebook):
            run.untouched.append(" ".join(say(exercise.stub, exercise.check)))
            run.solved.append(" ".join(say(exercise.solution, exercise.check)))
            run.wrong.append([say(exercise.stub, wrong, exercise.check)[1] for wrong in exercise.wrong])

    try:
        execute(notebook, path.parent, CELL_TIMEOUT, {"PSLIB_CI": "1", "OMP_NUM_THREADS": _threads()}, probe)
    except (CellExecutionError, CellTimeoutError) as error:
        run.error = str(error)
        run.seconds = time.perf_counter() - start
    return run


def _threads() -> str:
    return os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1))
