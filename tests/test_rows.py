"""Rows as the records have them: a run that failed is named, in rows, pictures and the tables of two pages."""

import ast
import json
import textwrap
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from toy_sets import toy_recipe

from pslib import paths
from pslib.errors import UserError
from pslib.evaluation.statistics import Interval
from pslib.experiments import lookup, rows
from pslib.experiments.ledger import ledger
from pslib.experiments.lookup import LostRun, at_profile, failed, runs_of
from pslib.experiments.records import record_stem, write_record
from pslib.experiments.registry import Experiment
from pslib.experiments.tables import summary
from pslib.training.recipe import recipe_hash

PAGES = paths.root() / "notebooks"
VARIANTS = {f"toy-{name}": toy_recipe(name=f"toy-{name}", schedule__steps=steps)
            for name, steps in (("whole", 2), ("some", 3), ("diverged", 4), ("absent", 5))}  # fmt: skip
TABLE = Experiment("toy-table", "t", "s", {name.partition("-")[2]: name for name in VARIANTS}, (),
                   kinds=("cuhk-sysu",), variants=VARIANTS)  # fmt: skip
MAP = {"TestG100": {"map": 75.0}}
REASON = "the loss oim is not finite at step 3: lower schedule.learning_rate."


def write(recipe, seed, status):
    run_hash = recipe_hash(recipe, "f")
    info = {"recipe": asdict(recipe), "hash": run_hash, "seed": seed, "status": status, "device": "cpu",
            "date": "2026-01-01", "protocols": ["TestG100"], "data": {"fingerprint": "f"},
            "results": {"detection": {"recall": 91.0, "ap": 80.0}, "search": MAP, "ground_truth": MAP}}  # fmt: skip
    arrays = {"TestG100/people": np.array([1, 2])}
    for boxes in ("detected", "ground-truth"):
        arrays |= {f"TestG100/{boxes}/ap": np.array([1.0, 0.5]), f"TestG100/{boxes}/rank": np.array([1, 2])}
    if status == "diverged":
        info, arrays = info | {"reason": REASON, "protocols": [], "results": {}}, {}
    return write_record(record_stem(paths.results_dir(), recipe, run_hash, seed), info, arrays)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Two whole runs; two runs, one that diverged and one damaged record; one that diverged alone; none."""
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    for module in (rows, lookup):
        monkeypatch.setattr(module, "EXPERIMENTS", {TABLE.name: TABLE})
    monkeypatch.setattr(rows, "VARIANTS", VARIANTS)
    for name, runs in {"whole": "FF", "some": "FDF", "diverged": "D"}.items():
        for seed, status in enumerate(runs):
            write(VARIANTS[f"toy-{name}"], seed, {"F": "finished", "D": "diverged"}[status])
    write(VARIANTS["toy-some"], 3, "finished").write_text("{")


def test_rows_carry_the_runs_that_failed(recorded):
    found = {label: sets["cuhk-sysu"] for label, sets in rows.recorded_rows("toy-table").items()}
    assert {label: (row.seeds, failed(row.lost), row.absent) for label, row in found.items()} == {
        "whole": ((0, 1), "", ""),
        "some": ((0, 2), "failed: seed 1, a damaged record", ""),
        "diverged": ((), "failed: seed 0", "failed: seed 0"),
        "absent": ((), "", "not recorded yet"),
    }
    assert found["diverged"].lost == (LostRun(f"seed 0 failed: {REASON.rstrip('.')}", 0),)
    assert found["some"].value.mean == found["whole"].value.mean == 75
    recalls = {label: sets["cuhk-sysu"] for label, sets in rows.recorded_rows("toy-table", what="recall").items()}
    assert recalls["some"].value.mean == 91 and recalls["diverged"] == found["diverged"]


def test_gains_are_over_the_seeds_that_both_rows_have(recorded):
    found = {label: sets["cuhk-sysu"] for label, sets in rows.recorded_gains("toy-table", "whole").items()}
    assert {label: (row.seeds, failed(row.lost), row.absent) for label, row in found.items()} == {
        "some": ((0,), "failed: seed 1, a damaged record", ""),
        "diverged": ((), "failed: seed 0", "failed: seed 0"),
        "absent": ((), "", "not recorded yet"),
    }
    assert found["some"].value == Interval(0.0, 0.0, 0.0)
    with pytest.raises(UserError, match="nearest: whole"):
        rows.recorded_gains("toy-table", "hole")


def test_gains_are_the_differences_that_the_ledger_judges():
    names = ("mi > none", "kl > none", "dv > none")
    entries = [one for one in ledger("tiny", ["alignps-table7"]) if one.claim.name in names]
    assert len(entries) == 6
    gains = rows.recorded_gains("alignps-table7", "none")
    for one in entries:
        row = gains[one.claim.name.partition(" ")[0]][one.set]
        assert row.seeds == one.seeds and row.value == one.interval


def test_variants_carry_the_runs_that_failed(recorded):
    found = rows.recorded_variants("cuhk-sysu")
    assert {name: (len(group), failed(lost)) for name, (group, lost) in found.items()} == {
        "toy-whole": (2, ""), "toy-some": (2, "failed: seed 1, a damaged record"),
        "toy-diverged": (0, "failed: seed 0"), "toy-absent": (0, ""),
    }  # fmt: skip


def function_of(page, name, **given):
    """A function that a page defines, with what its cells have defined before."""
    for cell in json.loads((PAGES / page).read_text())["cells"]:
        if cell["cell_type"] == "code" and f"def {name}(" in "".join(cell["source"]):
            (node,) = [one for one in ast.parse("".join(cell["source"])).body if getattr(one, "name", "") == name]
            exec(compile(ast.Module([node], []), page, "exec"), given)
            return given[name]
    raise AssertionError(f"{page} has no function {name}")


def test_page_07_names_a_diverged_run(recorded, capsys):
    given = {"SETS": {"cuhk-sysu": "drawn"}, "PROFILE": "tiny", "np": np, "at_profile": at_profile, "failed": failed}
    function_of("07_task_alignment.ipynb", "table", runs_of=runs_of, summary=summary, **given)(TABLE)
    whole, some, diverged, absent = capsys.readouterr().out.splitlines()[1:]
    assert whole.endswith("]") and some.endswith("]  failed: seed 1, a damaged record")
    assert diverged.endswith("none  failed: seed 0") and absent.endswith("none  not recorded yet")
    panels = function_of("07_task_alignment.ipynb", "bars_of", recorded_rows=rows.recorded_rows, **given)(TABLE)
    told = function_of("07_task_alignment.ipynb", "bars_told")(panels)
    assert told == "drawn: whole 75, some 75, diverged failed: seed 0, absent not recorded yet"


def test_page_16_names_a_diverged_run(recorded):
    found = {("cuhk-sysu", name): both for name, both in rows.recorded_variants("cuhk-sysu").items()}
    runs, lost = ({key: both[0] for key, both in found.items()}, {key: failed(both[1]) for key, both in found.items()})
    given = {"runs": runs, "lost": lost, "Interval": Interval, "np": np, "summary": summary, "textwrap": textwrap}
    head, whole, some, diverged, absent = function_of("16_benchmark_and_ledger.ipynb", "results", **given)(
        "cuhk-sysu"
    ).splitlines()
    assert whole.endswith("]") and some.endswith("]  failed: seed 1, a damaged record")
    assert diverged.split(maxsplit=2) == ["toy-diverged", "0", "failed: seed 0"]
    assert absent == "not recorded yet: toy-absent" and "seeds" in head


def test_a_banner_says_how_many_runs_when_and_with_which_seeds():
    def run(seed, date, device="cpu"):
        return SimpleNamespace(info={"seed": seed, "date": date, "device": device})

    assert rows.source_of([]) == "no run yet"
    assert rows.source_of([run(0, "2026-01-02")]) == "1 run, cpu, 2026-01-02, seed 0"
    both = [run(2, "2026-01-05"), run(0, "2026-01-02", "NVIDIA")]
    assert rows.source_of(both) == "2 runs, NVIDIA, cpu, 2026-01-02 to 2026-01-05, seeds 0, 2"
    assert rows.source_of_rows("alignps-fig6").startswith("48 runs, cpu, 2026-11-21 to ")
