"""pslib reproduce: killed at any moment, in company, with damaged records and runs that diverge, it ends the same."""

import json
import multiprocessing
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_experiment
from toy_experiment import TOY, VARIANTS, make_root

import pslib
from pslib import paths
from pslib.cli import main
from pslib.experiments.catalogue import EXPERIMENTS
from pslib.experiments.records import find_record, read_record, read_records, set_aside
from pslib.experiments.reproduce import Job, jobs_of, reproduce
from pslib.experiments.upkeep import record_files
from pslib.training.recipe import recipe_hash

# Where and when a run was computed and how long it took; everything else is the run's own.
OF_THE_HOST = ("cost", "date", "device", "machine", "python", "packages", "commit", "changed_files")
PATIENCE = 600  # seconds: a busy machine may take long to import


@pytest.fixture(scope="module")
def processes():
    """Real processes that start in an instant: their server has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy_experiment", "pslib.experiments.record_commands"])
    return context


@pytest.fixture
def start(processes, monkeypatch):
    """Start one ``pslib`` command; all processes that the test leaves are ended."""
    # Sums over several threads differ in the last bits; the variable is read when the server starts.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    started = []

    def command(root, *arguments):
        process = processes.Process(target=toy_experiment.pslib, args=(root, root / "log", *arguments))
        process.start()
        started.append(process)
        return process

    yield command
    for process in started:
        process.kill()
        process.join()


def finish(process) -> int:
    process.join(PATIENCE)
    return process.exitcode


def wait_for(condition, process=None) -> bool:
    """True once ``condition()`` holds; False if the process ends first."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if (process is not None and process.exitcode is not None) or time.monotonic() > end:
            return condition()
        time.sleep(0.005)
    return True


def contents(root) -> dict[str, tuple[dict, dict]]:
    """What the records under a root say, time and host aside."""
    found = {}
    for record in read_records(root / "data" / "results"):
        info = {name: value for name, value in record.info.items() if name not in OF_THE_HOST}
        found[record.path.name] = info, record.arrays
    return found


def assert_same(one, other, told=""):
    """Two roots' contents are equal; ``told`` is what a failure adds, such as the random seed."""
    assert one.keys() == other.keys(), told
    for name, (info, arrays) in one.items():
        assert info == other[name][0], (name, told)
        assert arrays.keys() == other[name][1].keys(), (name, told)
        for part, values in arrays.items():
            assert np.array_equal(values, other[name][1][part]), (name, part, told)


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory):
    """What an undisturbed ``pslib reproduce toy --seeds 1`` records."""
    root = make_root(tmp_path_factory.mktemp("undisturbed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        process = processes.Process(target=toy_experiment.pslib, args=(root, root / "log", "reproduce", "toy",
                                                                       "--seeds", "1"))  # fmt: skip
        process.start()
    assert finish(process) == 0, (root / "log").read_text()
    said = (root / "log").read_text()
    assert "[1 of 2] cuhk-sysu first, seed 0: search mAP" in said and "toy: 100 % (2 of 2)" in said
    return contents(root)


def killed(folder, start, command, rng, kills, span) -> Path:
    """A root where ``command`` was killed ``kills`` times, each within ``span`` seconds after its work began."""
    root, done = make_root(folder / f"within-{span}"), 0
    while done < kills:
        process = start(root, *command)
        wait_for((root / "build" / "runs" / "work").exists, process)
        time.sleep(rng.uniform(0, span))
        process.kill()
        if finish(process) == -signal.SIGKILL:
            done += 1
        else:  # It ended before its moment came: begin anew, with earlier moments.
            span, done = span / 2, 0
            root = make_root(folder / f"within-{span}")
    return root


def ends_the_same(root, start, command, undisturbed, told):
    """Started once more, ``command`` ends with the ``undisturbed`` records and leaves nothing else behind."""
    assert finish(start(root, *command)) == 0, (told, (root / "log").read_text())
    assert_same(contents(root), undisturbed, told)
    left = [path for path in (root / "build" / "runs" / "work").rglob("*") if path.suffix in (".pt", ".partial")]
    left += (root / "data" / "results").rglob("*.partial")
    assert not left, told


def test_killed_at_random_moments_it_ends_with_the_same_records(tmp_path, start, undisturbed):
    command, seed = ("reproduce", "toy", "--seeds", "1"), random.randrange(10**6)
    root = killed(tmp_path, start, command, random.Random(seed), kills=4, span=2.0)
    ends_the_same(root, start, command, undisturbed, f"random seed {seed}")


def test_table2_killed_at_a_random_moment_ends_with_the_same_records(tmp_path, start):
    """The table's own recipes, eight steps each: nothing that they need may be missing from a checkpoint."""
    command, seed = ("reproduce", "alignps-table2", "--profile", "tiny", "--seeds", "1"), random.randrange(10**6)
    whole = make_root(tmp_path / "whole")
    process = start(whole, *command)
    wait_for((whole / "build" / "runs" / "work").exists, process)
    began = time.monotonic()
    assert finish(process) == 0, (whole / "log").read_text()
    span, undisturbed = time.monotonic() - began, contents(whole)
    assert len(undisturbed) == len(toy_experiment.TABLE2.rows)
    root = killed(tmp_path, start, command, random.Random(seed), kills=1, span=span)
    ends_the_same(root, start, command, undisturbed, f"random seed {seed}")


def test_killed_after_a_checkpoint_it_goes_on_from_there(tmp_path, start, undisturbed):
    root = make_root(tmp_path)
    work = root / "build" / "runs" / "work"
    process = start(root, "reproduce", "toy", "--seeds", "1")
    assert wait_for(lambda: list(work.glob("*/checkpoint.pt")), process), (root / "log").read_text()
    process.kill()
    assert finish(process) == -signal.SIGKILL and list(work.glob("*/checkpoint.pt"))
    assert finish(start(root, "reproduce", "toy", "--seeds", "1")) == 0
    assert_same(contents(root), undisturbed)


def test_two_processes_lose_and_double_nothing(tmp_path, start, undisturbed):
    root = make_root(tmp_path)
    both = [start(root, "reproduce", "toy", "--seeds", "2") for _ in range(2)]
    assert [finish(process) for process in both] == [0, 0], (root / "log").read_text()
    assert len(contents(root)) == len(record_files(root / "data" / "results")) == 4
    assert_same({name: found for name, found in contents(root).items() if name in undisturbed}, undisturbed)
    said = (root / "log").read_text().splitlines()
    computed = [line for line in said if "search mAP" in line and not line.endswith("(recorded)")]
    assert len(computed) == 4  # each run by one of the two


def with_site(root, text) -> dict[str, str]:
    """The environment of a process under ``root`` that runs ``text`` at its start, and so do those that it starts."""
    site = root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(text)
    sources = [site, Path(__file__).parent, Path(pslib.__path__[0]).parent]
    return os.environ | {"PSLIB_ROOT": str(root), "PSLIB_PLAIN": "1", "OMP_NUM_THREADS": "1",
                         "PYTHONPATH": os.pathsep.join(map(str, sources))}  # fmt: skip


SHARED = [sys.executable, "-m", "pslib", "reproduce", "toy", "--seeds", "1", "--workers", "2"]


def test_workers_share_the_work(tmp_path, undisturbed):
    root = make_root(tmp_path)
    environment = with_site(root, "import toy_experiment\ntoy_experiment.install()\n")
    done = subprocess.run(SHARED, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2 of 2]" in done.stdout and done.stdout.count("search mAP") == 2
    # With more threads each, sums differ in the last bits: the same runs, not the same bits.
    assert set(contents(root)) == set(undisturbed)


ENDLESS = """
import os, signal, time, toy_experiment
from pslib.experiments import reproduce
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # whatever ran these tests may ignore them
toy_experiment.install()
alive = os.open(os.environ["ALIVE"], os.O_WRONLY)
def run(*_, **__):
    os.write(alive, b"x")
    time.sleep(90)  # longer than the test waits
reproduce.run = run
"""


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 130), ("SIGHUP", 130), ("SIGKILL", -signal.SIGKILL)])
def test_the_workers_end_with_their_watcher(tmp_path, number, code):
    """Planted fault: they go on for days, and nobody knows."""
    os.mkfifo(tmp_path / "alive")
    ended = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    environment = with_site(make_root(tmp_path / "root"), ENDLESS) | {"ALIVE": str(tmp_path / "alive")}
    watcher = subprocess.Popen(SHARED, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(2):
        assert select.select([ended], [], [], PATIENCE)[0] and os.read(ended, 1) == b"x"
    watcher.send_signal(getattr(signal, number))
    assert watcher.wait(60) == code
    assert select.select([ended], [], [], 60)[0] and os.read(ended, 1) == b"", "a worker still holds the other end"
    os.close(ended)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The toy experiments in this process, under a root of their own."""
    root = make_root(tmp_path)
    monkeypatch.setenv("PSLIB_ROOT", str(root))
    monkeypatch.setenv("PSLIB_PLAIN", "1")
    for experiment in (TOY, toy_experiment.WITH_FAILURE):
        monkeypatch.setitem(EXPERIMENTS, experiment.name, experiment)
    return root


def test_a_run_that_diverges_is_recorded_shown_and_leaves_the_others_alone(here, capsys):
    assert main(["reproduce", "toy-wild", "--seeds", "1"]) == 1
    said = capsys.readouterr().out
    assert "wild, seed 0: FAILED, training diverged" in said and "1 of 3 runs failed" in said
    assert said.count("search mAP") == 2
    failed = next(record for record in map(read_record, paths.results_dir().rglob("*.json"))
                  if record.info["status"] == "diverged")  # fmt: skip
    assert failed.info["recipe"]["name"] == "toy-wild" and len(failed.arrays["loss/oim"]) >= 1
    assert main(["records"]) == 0
    table = capsys.readouterr().out
    assert "FAILED cuhk-sysu toy-wild, seed 0" in table and "diverged" in table
    assert len([line for line in table.splitlines() if line.startswith("cuhk-sysu")]) == 2
    assert main(["reproduce", "toy-wild", "--seeds", "1"]) == 1  # and it is not tried again
    assert capsys.readouterr().out.count("(recorded)") == 3
    assert main(["ledger", "--experiment", "toy-wild"]) == 0
    table = capsys.readouterr().out
    (line,) = [line for line in table.splitlines() if line.split()[:3] == ["first", ">", "wild"]]
    assert line.endswith("not recorded")
    assert "not recorded yet: 'wild'; wild: seed 0 failed: training diverged" in " ".join(table.split())


@pytest.mark.parametrize("damage", ["cut", "no arrays", {"record_version": 99}, {"results": {}}, {"protocols": []}])
def test_a_record_of_no_use_is_set_aside_named_and_computed_again(here, capsys, damage):
    assert main(["reproduce", "toy", "--seeds", "1"]) == 0
    before = contents(here)
    path = next(paths.results_dir().rglob("toy-concat-*.json"))
    if damage == "cut":
        path.write_text(path.read_text()[:200])
    elif damage == "no arrays":
        path.with_suffix(".npz").unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    capsys.readouterr()
    assert main(["records"]) == 0
    assert "records that cannot be used: 1;" in capsys.readouterr().out
    assert main(["reproduce", "toy", "--seeds", "1"]) == 0
    said = capsys.readouterr().out
    assert f"Set aside as {path.name}.set-aside" in said and str(path) in said
    assert ("version 99" in said) is (damage == {"record_version": 99})
    assert said.count("(recorded)") == 1  # the other one was left as it was
    assert path.with_name(path.name + ".set-aside").exists()
    assert_same(contents(here), before)


def test_set_aside_files_are_no_records(here):
    job = jobs_of(TOY, "tiny", ["cuhk-sysu"], 1)[0]
    run_hash = recipe_hash(job.recipe, "toy")
    path = find_record(paths.results_dir(), job.recipe, run_hash, 0)
    path.parent.mkdir(parents=True)
    path.write_text("half a rec")
    aside = set_aside(path)
    assert aside.read_text() == "half a rec" and find_record(paths.results_dir(), job.recipe, run_hash, 0) == path
    assert not path.exists() and read_records(paths.results_dir()) == []


def test_a_checkpoint_that_cannot_be_read_does_not_stop_the_experiment(here, capsys):
    recipe = TOY.recipe("first", "cuhk-sysu")
    checkpoint = here / "build/runs/work" / f"{recipe_hash(recipe, 'toy')}-s0" / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("half a checkpoint")
    assert main(["reproduce", "toy", "--seeds", "1"]) == 0
    assert capsys.readouterr().out.count("search mAP") == 2 and not checkpoint.exists()


def test_a_row_under_another_name_is_the_same_run(here, capsys):
    from pslib.experiments.commands import open_run_data

    options = {"data": {"cuhk-sysu": open_run_data("cuhk-sysu", "tiny", None)}, "records": paths.results_dir(),
               "work": here / "work", "device": "cpu"}  # fmt: skip
    again = VARIANTS["toy"].with_(name="another", schedule__steps=2)
    lines = list(reproduce([Job("a", VARIANTS["toy"].with_(schedule__steps=2), 0), Job("b", again, 0)], **options))
    assert lines[1].endswith("(recorded)") and len(read_records(paths.results_dir())) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alignps-tabel1"], "nearest: alignps-table1"),
        (["toy", "--profile", "tniy"], "nearest: tiny"),
        (["toy", "--kind", "pwr"], "nearest: prw"),
        (["toy", "--kind", "prw"], "unknown set of toy 'prw': choose cuhk-sysu"),
        (["toy", "--seeds", "0"], "give --seeds at least 1"),
        (["toy", "--seeds", "-1"], "-1 seeds"),
        (["toy", "--seeds", "1000000000"], "give --seeds at most 1000"),
        (["toy", "--workers", "0"], "give --workers at least 1"),
        (["toy", "--seeds", "two"], "two"),
    ],
)
def test_mistakes_end_in_one_sentence_and_exit_code_2(here, capsys, arguments, said):
    assert main(["reproduce", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and error.startswith("pslib: ") and "\n" not in error
    assert not paths.results_dir().exists()
