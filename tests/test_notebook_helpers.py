"""pslib.notebook, pslib.viz.figures and pslib.notebooks: what students see, and running the series."""

import base64
import io
import json
import os
import re
import signal
import threading
import time

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from pslib import notebook, notebooks, paths
from pslib.cli import main
from pslib.errors import UserError
from pslib.notebook_lint import lint
from pslib.notebook_page import code_hash
from pslib.viz import figures


@pytest.fixture
def shown(monkeypatch):
    """The bundles that were displayed."""
    found = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: found.append(bundle))
    return found


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout: data made, one notebook."""
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    for name in notebook.DATA_SETS:
        folder = tmp_path / "data" / "synthetic" / "tiny" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"fingerprint": "0123456789abcdef"}))
    (tmp_path / "notebooks").mkdir()
    return tmp_path


# ---- start ----

def test_start_says_what_is_there(checkout, capsys):
    session = notebook.start("tiny", 3, notebook="07")
    text = capsys.readouterr().out
    for words in ("torch", "profile tiny, seed 3, device:", "not recorded yet", "data prw: made, fingerprint 012345"):
        assert words in text
    assert session.rng.integers(1000) == np.random.default_rng(3).integers(1000)
    assert torch.rand(1, generator=session.generator) == torch.rand(1, generator=torch.Generator().manual_seed(3))
    assert session.data == checkout / "data" / "synthetic" / "tiny"


def test_start_names_recorded_time(checkout, capsys):
    (checkout / "data" / "results").mkdir()
    times = {"07/tiny": {"seconds": 130.0, "date": "2026-01-02", "device": "2 CPU cores"},
             "08/tiny": {"seconds": 20.0, "date": "2026-01-02", "device": "2 CPU cores"}}
    (checkout / "data" / "results" / "notebook-times.json").write_text(json.dumps(times))
    notebook.start(notebook="07")
    notebook.start(notebook="08")
    text = capsys.readouterr().out
    assert "expected time: 2.2 minutes (RECORDED 2026-01-02 on 2 CPU cores)" in text
    assert "expected time: 20 seconds" in text


def test_start_draws_quick_data_and_refuses_slow(checkout, capsys, monkeypatch):
    import sys
    import types

    calls = []
    module = types.ModuleType("pslib.data.synthetic")
    module.make = lambda profile, out: calls.append((profile, out))
    monkeypatch.setitem(sys.modules, "pslib.data.synthetic", module)
    (checkout / "data" / "synthetic" / "tiny" / "prw" / "manifest.json").unlink()
    notebook.start()
    assert calls == [("tiny", checkout / "data" / "synthetic")]
    assert "drawing the missing sets (prw)" in capsys.readouterr().out
    with pytest.raises(UserError, match="pslib data make --profile small"):
        notebook.start("small")
    with pytest.raises(UserError, match="nearest: tiny"):
        notebook.start("tyni")


# ---- expect, predict, check ----

def test_expect_names_both_shapes():
    assert notebook.expect(torch.zeros(2, 3, 4), "B", 3, "N", B=2) == {"B": 2, "N": 4}
    for dims, names in ((("B", 3), {}), (("B", 4, "N"), {}), (("B", "B", "N"), {}), (("B", 3, "N"), {"B": 5})):
        with pytest.raises(AssertionError, match=r"\(2, 3, 4\)"):
            notebook.expect(torch.zeros(2, 3, 4), *dims, **names)


def test_predict_with_tolerance(capsys):
    notebook.predict("mAP?", 50.0, 52, tolerance=0.1)
    notebook.predict("mAP?", 50.0, 60, tolerance=0.1)
    notebook.predict("which?", "P3", "P4")
    endings = [line.rsplit(": ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert endings == ["that matches.", "why?", "why?"]


def test_check_of_values_and_of_functions(capsys):
    def verify(answer):
        notebook.same(answer, 3, "count")

    notebook.check("Exercise 1", None, verify)
    notebook.check("Exercise 1", 3, verify)
    assert capsys.readouterr().out == "Exercise 1: not done yet\nExercise 1: correct\n"
    with pytest.raises(AssertionError, match="Exercise 1: got 4, wanted 3: count"):
        notebook.check("Exercise 1", 4, verify)

    def bare(answer):
        assert answer == 1

    with pytest.raises(AssertionError, match="Exercise 1"):
        notebook.check("Exercise 1", 2, bare)


@pytest.mark.parametrize(("got", "want"), [
    (1.0, 1), ([1, 2], [1.0, 2.0]), (torch.ones(3), np.ones(3)), ("a", "a"), (True, True), (["a", "b"], ["a", "b"]),
])
def test_same_accepts(got, want):
    notebook.same(got, want, "look")


@pytest.mark.parametrize(("got", "want"), [
    (1.1, 1), ([1, 2], [1, 2, 3]), (torch.ones(3), np.zeros(3)), ("a", "b"), (["a"], ["b"]), ("1", 1),
    (float("nan"), 1.0), ([[1], [1, 2]], [[1, 2], [3, 4]]),
])
def test_same_rejects(got, want):
    with pytest.raises(AssertionError, match="look"):
        notebook.same(got, want, "look")


def test_live_is_short_in_ci(monkeypatch):
    monkeypatch.setenv("PSLIB_CI", "1")
    assert notebook.live(600, 8) == 8
    monkeypatch.delenv("PSLIB_CI")
    assert notebook.live(600, 8) == 600


def test_provenance_in_words(shown):
    notebook.computed_now("tiny, seed 0")
    notebook.recorded("3 seeds <CPU>")
    notebook.reported("AlignPS, Table I")
    assert [bundle["text/plain"] for bundle in shown] == [
        "COMPUTED NOW: tiny, seed 0", "RECORDED: 3 seeds <CPU>", "REPORTED: AlignPS, Table I"]
    assert "<b>RECORDED</b>: 3 seeds &lt;CPU&gt;" in shown[1]["text/html"]


# ---- figures ----

def test_show_carries_alt_text_and_caption(shown):
    fig, ax = figures.new_figure(4, 2)
    ax.plot([0, 1], [0, 1])
    figures.show(fig, alt='a line "rising"', caption="x < y")
    markup = shown[0]["text/html"]
    assert 'alt="a line &quot;rising&quot;"' in markup and "<figcaption>x &lt; y</figcaption>" in markup
    assert "data:image/png;base64," in markup
    assert shown[0]["text/plain"] == '[figure: a line "rising"]'


def test_pictures_become_jpeg_and_stay_small():
    shades = np.linspace(0, 255, 40 * 20 * 3).reshape(40, 20, 3).astype(np.uint8)
    markup = figures.figure_html(figures.image_grid([shades] * 4), "four shaded fields")
    assert "data:image/jpeg" in markup and len(markup) < 60_000
    assert len(figures.figure_html(figures.image_grid([shades] * 4), "the same", quality=20)) < len(markup)


def test_large_drawings_are_packed_closer_without_loss(monkeypatch):
    def drawn():
        fig, ax = figures.new_figure(9, 24)
        rng = np.random.default_rng(0)
        for row in range(110):
            ax.plot(rng.random(3), [row] * 3, "o-", lw=1)
            ax.text(1.1, row, f"a claim, number {rng.integers(10**9)}", fontsize=7)
        return fig

    def pixels(markup):
        kind, payload = markup.split('src="data:')[1].split('"')[0].split(";base64,")
        return kind, len(payload), np.asarray(Image.open(io.BytesIO(base64.b64decode(payload))).convert("RGB"))

    kind, size, found = pixels(figures.figure_html(drawn(), "many rows"))
    monkeypatch.setattr(figures, "LARGE_PNG", 10**9)
    plain, before, expected = pixels(figures.figure_html(drawn(), "many rows"))
    assert (kind, plain) == ("image/webp", "image/png") and size < 0.9 * before
    np.testing.assert_array_equal(found, expected)


def test_empty_alt_text_is_refused():
    with pytest.raises(ValueError, match="alt text"):
        figures.figure_html(figures.new_figure()[0], " ")


def test_wide_figures_are_limited():
    import base64
    import io

    from PIL import Image

    markup = figures.figure_html(figures.new_figure(40, 2)[0], "wide")
    payload = base64.b64decode(re.search(r"base64,([^\"]+)", markup)[1])
    assert Image.open(io.BytesIO(payload)).width <= 900


def test_right_and_wrong_differ_by_more_than_colour():
    differing = [first != second for first, second in zip(figures.RIGHT, figures.WRONG, strict=True)]
    assert differing == [True] * 4
    fig, ax = figures.new_figure()
    verdicts = [True, False, "second", None]
    figures.draw_boxes(ax, [[0, 0, 4, 8], [5, 0, 9, 8], [1, 1, 2, 2], [3, 3, 4, 4]], list("abcd"), right=verdicts)
    assert [text.get_text() for text in ax.texts] == ["✓ a", "✗ b", "✗ c", "d"]
    assert len({patch.get_linestyle() for patch in ax.patches}) == 4
    grid = figures.image_grid([np.zeros((4, 3, 3), np.uint8)] * 4, list("abcd"), right=verdicts)
    words = [ax.get_title().split("\n")[-1] for ax in grid.axes]
    assert words == ["same person", "other person", "second box", "d"]
    figures.draw_boxes(ax, np.zeros((0, 4)))


def test_to_array_takes_what_readers_and_models_give():
    image = np.zeros((5, 6, 3), np.uint8)
    for value in (image, torch.zeros(3, 5, 6), torch.zeros(3, 5, 6, dtype=torch.uint8)):
        assert figures.to_array(value).shape == (5, 6, 3)
        assert figures.to_array(value).dtype == np.uint8
    with pytest.raises(ValueError, match=r"\(5, 6\)"):
        figures.to_array(np.zeros((5, 6)))


def test_grid_of_nothing():
    assert figures.image_grid([], title="none").axes


# ---- running the series ----

def write(folder, name, *sources, tags=()):
    cells = [new_markdown_cell("# T"), new_code_cell('PROFILE = "tiny"', metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source, metadata={"tags": list(tags)}) for source in sources]
    nbformat.write(new_notebook(cells=cells), folder / name)
    return folder / name


def test_run_leaves_the_series_as_it_was(checkout, capsys, monkeypatch):
    monkeypatch.setattr(notebooks, "_print_results", lambda profile: print(f"results table, {profile}"))
    path = write(checkout / "notebooks", "00_x.ipynb", "import os; print(PROFILE, os.environ['PSLIB_PLAIN'])")
    write(checkout / "notebooks", "01_y.ipynb", "1 / 0")
    before = path.read_bytes()
    assert main(["notebooks", "run", "0"]) == 0
    assert path.read_bytes() == before
    text = capsys.readouterr().out
    assert re.search(r"00_x.ipynb: \d+ s\n", text)
    assert re.search(r"1 notebooks in \d+ s, \d at a time; .* in build/notebooks\n\nresults table, tiny", text)
    copy = nbformat.read(checkout / "build" / "notebooks" / "00_x.ipynb", as_version=4)
    assert copy.cells[2].outputs[0]["text"] == "tiny 1\n"
    assert main(["notebooks", "run"]) == 1
    assert "01_y.ipynb: failed" in (text := capsys.readouterr().out) and "ZeroDivisionError" in text


def test_notebooks_run_side_by_side_and_share_the_cores(checkout, capsys, monkeypatch):
    """Each of two waits for the other's file: one after the other, the first would wait for ever."""
    monkeypatch.setattr(notebooks, "_print_results", lambda profile: None)
    monkeypatch.setattr(notebooks.os, "cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    meet = """
import os, pathlib, time
pathlib.Path("{mine}").touch()
while not pathlib.Path("{other}").exists():
    time.sleep(0.05)
print(os.environ["OMP_NUM_THREADS"])
"""
    write(checkout / "notebooks", "00_x.ipynb", meet.format(mine="a", other="b"))
    write(checkout / "notebooks", "01_y.ipynb", meet.format(mine="b", other="a"))

    def threads(name):
        copy = nbformat.read(checkout / "build" / "notebooks" / f"{name}.ipynb", as_version=4)
        return int(copy.cells[2].outputs[0]["text"])

    assert main(["notebooks", "run", "--jobs", "2", "--timeout", "60"]) == 0
    assert threads("00_x") == threads("01_y") == 3
    assert "2 notebooks in" in capsys.readouterr().out
    assert main(["notebooks", "run", "0"]) == 0
    assert threads("00_x") == 6, "one notebook alone has all cores"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert main(["notebooks", "run", "0"]) == 0
    assert threads("00_x") == 2, "what the user has set stands"
    with pytest.raises(UserError, match="--jobs 0: at least one"):
        notebooks.run_series(jobs=0)


def test_no_notebook_is_started_after_one_that_failed(checkout, capsys):
    write(checkout / "notebooks", "00_x.ipynb", "1 / 0")
    write(checkout / "notebooks", "01_y.ipynb")
    assert main(["notebooks", "run", "--jobs", "1"]) == 1
    text = capsys.readouterr().out
    assert "00_x.ipynb: failed" in text and "01_y" not in text
    assert not (checkout / "build" / "notebooks" / "01_y.ipynb").exists()


@pytest.fixture
def heeds_ctrl_c():
    """A shell lets what it starts in the background ignore Ctrl-C, and so would these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_an_interrupt_ends_the_kernels(checkout, capsys):
    waits = "import os, pathlib, time\npathlib.Path('{}').write_text(str(os.getpid()))\ntime.sleep(90)"
    for number, name in enumerate("ab"):
        write(checkout / "notebooks", f"0{number}_x.ipynb", waits.format(name))
    began = [checkout / "notebooks" / name for name in "ab"]

    def interrupt():
        while not all(path.exists() and path.read_text() for path in began):
            time.sleep(0.05)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    sent = []
    threading.Thread(target=interrupt, daemon=True).start()
    assert main(["notebooks", "run", "--jobs", "2"]) == 130
    assert time.monotonic() - sent[0] < 45, "it waited for the cells"
    assert "interrupted" in capsys.readouterr().err
    for path in began:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
    late = notebooks._Kernels()
    late.end()
    with pytest.raises(KeyboardInterrupt):  # of a kernel that was about to start
        late.add(None)


@pytest.mark.parametrize("text", ["", '{"cells": [', "[]", "{}", '{"cells": [3], "nbformat": 4, "metadata": {}}'])
def test_a_damaged_notebook_is_one_sentence_before_the_others_run(checkout, capsys, text):
    write(checkout / "notebooks", "00_x.ipynb", "1 / 0")
    damaged = checkout / "notebooks" / "01_y.ipynb"
    damaged.write_text(text)
    for arguments in (["run"], ["publish", "1"]):
        assert main(["notebooks", *arguments]) == 2
        said = capsys.readouterr()
        assert f"the notebook {damaged} cannot be read" in said.err and "git restores" in said.err and not said.out
    assert damaged.read_text() == text


def test_publish_writes_back_clean_and_records_time(checkout, capsys):
    path = write(checkout / "notebooks", "00_x.ipynb", "print(PROFILE)")
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    main(["notebooks", "publish", "00", "--profile", "small"])
    published = nbformat.read(path, as_version=4)
    assert [cell.id for cell in published.cells] == ids
    assert published.cells[1].source == 'PROFILE = "tiny"' and published.cells[2].outputs[0]["text"] == "small\n"
    assert [cell.get("execution_count") for cell in published.cells] == [None, 1, 2]
    assert not any("execution" in cell.metadata for cell in published.cells)
    assert set(published.metadata) == {"kernelspec", "language_info", "pslib"}
    # Of the sources that are committed, not of the parameters cell that was executed.
    assert published.metadata["pslib"]["code"] == code_hash(json.loads(path.read_text()))
    assert not any("publish 00" in complaint for complaint in lint(path))
    path.write_text(path.read_text().replace("print(PROFILE)", "print(SEED)"))
    assert any("changed since its outputs were made: run `pslib notebooks publish 00`" in text for text in lint(path))
    times = json.loads((paths.results_dir() / "notebook-times.json").read_text())
    assert times["00/small"]["seconds"] > 0
    assert "published" in capsys.readouterr().out


def test_a_published_page_prints_the_time_that_it_took_itself(checkout):
    told = "expected time: 7.9 minutes (RECORDED long ago on a slow machine)"
    path = write(checkout / "notebooks", "00_x.ipynb", f"print('first\\n{told}\\nlast')")
    main(["notebooks", "publish", "00"])
    text = nbformat.read(path, as_version=4).cells[2].outputs[0]["text"]
    assert text == f"first\n{notebook.expected_time('00', 'tiny')}\nlast\n" and "long ago" not in text


def test_a_failing_notebook_is_not_published(checkout, capsys):
    path = write(checkout / "notebooks", "00_x.ipynb", "raise ValueError('no')")
    before = path.read_bytes()
    assert main(["notebooks", "publish"]) == 1
    assert path.read_bytes() == before and "ValueError: no" in capsys.readouterr().out


def test_what_an_author_saves_while_a_page_runs_is_not_overwritten(checkout, capsys):
    saves = "from pathlib import Path\np = Path('00_x.ipynb')\np.write_text(p.read_text().replace('Path', 'MINE'))"
    path = write(checkout / "notebooks", "00_x.ipynb", saves)
    assert main(["notebooks", "publish"]) == 1
    assert "was changed while it ran" in capsys.readouterr().out
    assert "MINE" in path.read_text() and "Path" not in path.read_text()
    assert not (paths.results_dir() / "notebook-times.json").exists()


def test_a_hanging_cell_ends(checkout, capsys):
    write(checkout / "notebooks", "00_x.ipynb", "import time\ntime.sleep(60)")
    assert main(["notebooks", "run", "--timeout", "2"]) == 1
    told = capsys.readouterr().out
    assert re.search(r"failed after \d+ s: .*(timed out|timeout).*2 second", told, re.I), told


def test_unknown_numbers_and_empty_series(checkout):
    with pytest.raises(UserError, match="in a checkout of pslib"):
        notebooks.chosen()
    write(checkout / "notebooks", "00_x.ipynb")
    with pytest.raises(UserError, match="no notebook 42: choose from 00"):
        notebooks.chosen(["42"])
    for name in ("0", "00", "00_x", "00_x.ipynb", "notebooks/00_x.ipynb"):
        assert [path.name for path in notebooks.chosen([name])] == ["00_x.ipynb"]
    for name in ("001", "000", "00_", "0x"):
        with pytest.raises(UserError, match="no notebook"):
            notebooks.chosen([name])


# ---- the four frameworks ----

def test_shapes_are_those_of_the_model_and_stand_in_the_drawing():
    from pslib.models.alignps import AlignPS, AlignPSConfig
    from pslib.viz.frameworks import draw_frameworks, model_shapes

    model = AlignPS(AlignPSConfig(), num_identities=3).train()
    shapes = model_shapes(model, 48, 64)
    assert model.training  # left as it was
    assert (shapes["C3"], shapes["C5"], shapes["P3"]) == ((1, 32, 12, 16), (1, 128, 3, 4), (1, 48, 12, 16))
    assert shapes["embeddings"] == (1, 12 * 16, 48)
    texts = {text.get_text() for ax in draw_frameworks(shapes).axes for text in ax.texts}
    assert {"C3 32×12×16", "P3 48×12×16", "embeddings 192×48"} <= texts
    assert not any("×" in text.get_text() for ax in draw_frameworks().axes for text in ax.texts)
