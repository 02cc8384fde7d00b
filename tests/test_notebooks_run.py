"""Every notebook of the series runs from top to bottom at tiny, live cells shortened by PSLIB_CI=1."""

import pytest
from notebook_runs import run_notebook

from pslib.notebook_page import series

pytestmark = pytest.mark.notebooks


@pytest.mark.parametrize("path", series(), ids=lambda path: path.name)
def test_notebook_runs_top_to_bottom(path):
    run = run_notebook(path)
    assert run.error is None, run.error
    assert run.seconds < 180, f"{path.name} took {run.seconds:.0f} s; with shortened live cells at most 180 are allowed"
