"""The frame: one list of dependencies, one direction of imports, no machine's traces, errors of one sentence."""

import ast
import errno
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pslib import doctor, paths, progress
from pslib.cli import build_parser, main
from pslib.errors import UserError, require_choice

ROOT = paths.root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]

# Lower layers know nothing of higher ones; a module may import its own layer and those before it.
LAYERS = (
    {"errors", "paths", "progress", "__init__"},
    {"ops"},
    {"losses"},
    {"models", "data"},
    {"evaluation"},
    {"training"},
    {"experiments"},
    {"viz"},
    {"notebook", "notebooks", "notebook_lint", "notebook_page", "bench", "doctor", "search_page", "cli", "__main__"},
)

VOCABULARY = "pslib.data.annotations"  # what a label means: plain data classes that every layer may speak of


def tracked():
    """Files git knows, or would know."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


# ---- dependencies ----

def test_environment_yml_equals_pyproject():
    text = (ROOT / "environment.yml").read_text()
    in_pip = [item for item in re.findall(r"^ {6}- (.+)$", text, re.M) if not item.startswith("--")]
    assert in_pip == NEEDED
    assert f"- python{PROJECT['requires-python']}" in text
    assert "--editable ." in text


def test_lock_satisfies_pyproject():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    locked = dict(line.split("==") for line in lines)
    assert not [line for line in lines if "//" in line or "@" in line or line.startswith("-")]
    assert not [name for name in locked if name.startswith(("nvidia", "cuda", "triton"))]
    for requirement in map(Requirement, NEEDED):
        assert requirement.specifier.contains(locked[requirement.name]), requirement


def test_every_import_is_a_declared_dependency():
    distributions = {"sklearn": "scikit-learn", "PIL": "pillow", "IPython": "jupyterlab", "nbformat": "nbclient",
                     "packaging": "matplotlib", "traitlets": "ipywidgets"}  # the last four come with the package named
    declared = {Requirement(text).name for text in PROJECT["dependencies"]}
    for path in (ROOT / "pslib").rglob("*.py"):
        for module in imported(path):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top == "pslib":
                continue
            assert distributions.get(top, top) in declared, f"{path.name} imports {top}, which pyproject.toml lacks"


# ---- imports ----

def imported(path):
    """Every module a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            inside = {f"pslib.{alias.name}" for alias in node.names}  # from pslib import paths
            found |= inside if node.module == "pslib" else {node.module}
    return found


def layer_of(part):
    return next(index for index, layer in enumerate(LAYERS) if part in layer)


def upward_imports(name, modules):
    """Imports of the file in part ``name`` that point to a higher layer, or between models and data."""
    parts = {module.split(".")[1] for module in modules
             if module.startswith("pslib.") and not module.startswith(VOCABULARY)}
    sideways = {"models": {"data"}, "data": {"models", "losses", "ops"}}.get(name, set())
    return sorted(part for part in parts if layer_of(part) > layer_of(name) or part in sideways)


@pytest.mark.parametrize("path", sorted((ROOT / "pslib").rglob("*.py")), ids=lambda path: path.stem)
def test_imports_run_one_way(path):
    relative = path.relative_to(ROOT / "pslib")
    assert upward_imports(relative.parts[0].removesuffix(".py"), imported(path)) == []


def test_an_upward_import_is_seen():
    assert upward_imports("losses", {"pslib.models.fcos"}) == ["models"]
    assert upward_imports("models", {"pslib.data.prw", "pslib.errors"}) == ["data"]
    assert upward_imports("training", {"pslib.evaluation.search", "pslib.progress"}) == []


def test_importing_pslib_and_its_command_is_light():
    code = "import sys, pslib.cli; print([m for m in ('torch', 'matplotlib', 'pandas', 'IPython') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# ---- lint ----

def test_the_lint_looks_at_every_module():
    """Planted fault: an exclusion that means the folder data and leaves out pslib/data with it."""
    shown = subprocess.run([sys.executable, "-m", "ruff", "check", "--show-files", "."], cwd=ROOT, capture_output=True,
                           text=True, check=True).stdout
    assert {str(path) for path in (ROOT / "pslib").rglob("*.py")} <= set(shown.splitlines())


# ---- tracked files ----

def test_no_machine_paths_or_registry_addresses_in_tracked_files():
    # Built from pieces, so that this file does not hold what it looks for.
    forbidden = [re.compile("|".join(parts)) for parts in (
        [f"/{name}/" + r"\w" for name in ("home", "Users", "root", "work")],
        [r"pypi\." + "org", r"\." + "pythonhosted", r"download\." + r"pytorch", "conda" + r"\.anaconda\."],
    )]
    # Planted in the lint's own test and in its pattern, where they are the subject.
    about_paths = {"tests/test_notebooks_lint.py", "pslib/notebook_lint.py"}
    for path in tracked():
        if path.suffix in {".safetensors", ".npz", ".png", ".jpg"} or str(path.relative_to(ROOT)) in about_paths:
            continue
        text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8"))
        for pattern in forbidden:
            assert not pattern.search(text), f"{path.relative_to(ROOT)}: {pattern.search(text)[0]}"


def test_generated_folders_are_ignored():
    ignored = ["build/x", ".venv/x", "data/synthetic/tiny/x", "pslib/__pycache__/x"]
    out = subprocess.run(["git", "check-ignore", *ignored], cwd=ROOT, capture_output=True, text=True).stdout
    assert out.split() == ignored


# ---- command line ----

@pytest.mark.parametrize("arguments", [
    [], ["no-such-command"], ["train"], ["train", "alignps", "--profile", "tyni"], ["bench", "everything"],
    ["data", "make", "--workers", "0"], ["data", "make", "--profile", "tyni"], ["notebooks", "run", "99"],
    ["notebooks", "lint", "no-such-folder"],
], ids=" ".join)
def test_mistakes_end_in_one_sentence_and_code_2(arguments, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"pslib: [^\n]+[.]\n", captured.err), captured.err


def run_that(raises):
    def run(options):
        raise raises
    return run


@pytest.mark.parametrize(("error", "code", "text"), [
    (KeyboardInterrupt(), 130, "interrupted"),
    (OSError(errno.ENOSPC, "No space left on device", "x.jpg"), 2, "x.jpg: No space left on device: free some space"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"), 2, "x: Not a directory: choose a folder, not a file"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), 2, "x: Is a directory: choose a file, not a folder"),
    (PermissionError(errno.EACCES, "Permission denied"), 2, "Permission denied: choose a folder you may write to"),
    (UserError("unknown set 'x': choose prw."), 2, "pslib: unknown set 'x': choose prw."),
])
def test_exit_codes(error, code, text, capsys, monkeypatch):
    monkeypatch.setattr("pslib.cli._doctor", run_that(error))
    assert main(["doctor"]) == code
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("defect", [ZeroDivisionError(), FileNotFoundError(errno.ENOENT, "No such file", "x")])
def test_defects_are_not_hidden(monkeypatch, defect):
    monkeypatch.setattr("pslib.cli._doctor", run_that(defect))
    with pytest.raises(type(defect)):
        main(["doctor"])


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m pslib doctor | head -n 1"
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in ended.stderr and ended.stdout.startswith("[ok]   python")


def test_help_of_every_command(capsys):
    for arguments in (["--help"], ["data", "make", "--help"], ["train", "--help"], ["notebooks", "run", "--help"]):
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args(arguments)
        assert ended.value.code == 0
    assert "default: tiny" in capsys.readouterr().out


def test_notebooks_without_part_runs_the_series():
    options = build_parser().parse_args(["notebooks"])
    assert (options.run.__name__, options.profile, options.only) == ("_notebooks_run", "tiny", [])


@pytest.mark.parametrize(("arguments", "work"), [
    (["data", "make", "--only", "prw"], "pslib.data.commands.make"),
    (["data", "describe", "--kind", "prw"], "pslib.data.commands.describe"),
    (["data", "difficulty"], "pslib.evaluation.model_free.difficulty"),
    (["warm-start"], "pslib.experiments.commands.warm_start"),
    (["train", "alignps", "--set", "schedule.steps=9"], "pslib.experiments.commands.train"),
    (["evaluate", "weights.safetensors"], "pslib.experiments.commands.evaluate"),
    (["reproduce", "alignps-table1", "--workers", "2"], "pslib.experiments.record_commands.reproduce"),
    (["records", "--json"], "pslib.experiments.record_commands.records"),
    (["records", "list"], "pslib.experiments.record_commands.records"),
    (["records", "stale"], "pslib.experiments.record_commands.stale_records"),
    (["records", "drop", "--stale"], "pslib.experiments.record_commands.drop"),
    (["ledger", "--json"], "pslib.experiments.record_commands.ledger"),
    (["bench", "evaluator"], "pslib.bench.run"),
    (["bench", "cost"], "pslib.experiments.cost.bench_cost"),
    (["search", "--query", "q.jpg", "--box", "1,2,3,4", "--gallery", "g", "--weights", "w", "--out", "o.html"],
     "pslib.search_page.search_folder"),
    (["notebooks", "run"], "pslib.notebooks.run_series"),
    (["notebooks", "publish", "03"], "pslib.notebooks.publish"),
], ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_each_command_reaches_its_work(arguments, work, monkeypatch):
    calls = []
    monkeypatch.setattr(work, lambda *given, **named: calls.append((given, named)))
    assert main(arguments) == 0
    assert len(calls) == 1


def test_require_choice():
    with pytest.raises(UserError, match="nearest: tiny"):
        require_choice("profile", "tinny", ["tiny", "small"])


# ---- doctor ----

def test_doctor_reports_one_line_a_check(capsys):
    code = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert all(re.match(r"\[(ok|warn|fail)\] ", line) for line in lines)
    text = "\n".join(lines)
    for word in ("python", "torch ", "torch device", "cores", "GiB free", "data tiny", "weights", "records", "browser"):
        assert word in text, word
    assert code == int("[fail]" in text)


def test_doctor_says_how_to_make_missing_data(tmp_path, monkeypatch):
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    lines = dict(reversed(line) for line in doctor.checks())
    missing = next(text for text in lines if text.startswith("data tiny"))
    assert lines[missing] == "warn" and "pslib data make --profile tiny" in missing
    assert lines["weights: none in data/weights"] == "warn"


def test_doctor_survives_a_broken_check_and_a_torn_record(tmp_path, monkeypatch):
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "data" / "results" / "torn.json").write_text("{")
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(doctor, "CHECKS", (run_broken, doctor._records))
    states = doctor.checks()
    assert states[0] == ("fail", "run_broken: RuntimeError: no cores")
    assert states[1][0] == "fail" and "torn.json" in states[1][1]


def run_broken():
    raise RuntimeError("no cores")


def test_doctor_names_packages_outside_their_range(monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=99", "no-such-package", "numpy"])
    states = [state for state, _ in doctor._packages()]
    assert states == ["fail", "fail", "ok"]


def test_browser_path_can_be_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PSLIB_BROWSER", str(tmp_path / "none"))
    assert doctor.browser_path() is None
    state, words = doctor._browser()[0]
    assert state == "warn" and f"{tmp_path / 'none'} is no program" in words
    monkeypatch.setenv("PSLIB_BROWSER", str(tmp_path))
    assert doctor.browser_path() is None, "a folder is no browser"
    monkeypatch.setenv("PSLIB_BROWSER", sys.executable)
    assert doctor.browser_path() == sys.executable
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setenv("PSLIB_BROWSER", Path(sys.executable).name)
    assert Path(doctor.browser_path()) == Path(sys.executable)


# ---- paths and progress ----

def test_root_is_found_or_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("PSLIB_ROOT", raising=False)
    assert paths.root() == ROOT
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "a" / "b" / "paths.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="change into the repository"):
        paths.root()


def test_plain_progress(monkeypatch, capsys):
    monkeypatch.setenv("PSLIB_PLAIN", "1")
    steps = progress.progress(range(10), "train")
    for step in steps:
        steps.set_postfix(loss=step / 3)
    assert capsys.readouterr().out.splitlines() == [
        "train: 25 % (3 of 10): loss 0.6667", "train: 50 % (5 of 10): loss 1.333",
        "train: 75 % (8 of 10): loss 2.333", "train: 100 % (10 of 10): loss 3"]
    assert list(progress.progress(iter("ab"))) == ["a", "b"]
    assert list(progress.progress([])) == []
    assert capsys.readouterr().out == "progress: 2 done\n"


def test_bar_where_people_look(monkeypatch, capsys):
    monkeypatch.delenv("PSLIB_PLAIN", raising=False)
    bar = progress.progress([1, 2], "draw", total=2)
    assert list(bar) == [1, 2] and bar.total == 2
    bar.set_postfix(loss=1.0)
    capsys.readouterr()


# ---- skipping ----

def test_skips_fail_under_ci_unless_registered(monkeypatch):
    from conftest import unexpected_skip

    monkeypatch.setenv("CI", "true")
    assert unexpected_skip("Skipped: no browser")
    assert not unexpected_skip("Skipped: needs a GPU")
    monkeypatch.setenv("CI", "")
    assert not unexpected_skip("Skipped: no browser")


def test_a_skipped_test_fails_a_ci_run(tmp_path):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_x.py").write_text("import pytest\ndef test_x():\n    pytest.skip('just so')\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "CI": "true"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1 and "unregistered reason (Skipped: just so)" in ended.stdout
    environment["CI"] = "false"
    assert subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode == 0
