"""Computes an experiment: every row, set and seed that is not recorded yet, one run after another.

A run belongs to whoever holds its lock, so any number of processes may work on one experiment, and each run is
computed once.  The lock goes with its process: a killed run is taken up from its checkpoint by the next call.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from pslib import paths
from pslib.errors import UserError, require_choice
from pslib.experiments.lookup import at_profile
from pslib.experiments.records import find_record, main_protocol_name, read_record, record_stem, set_aside
from pslib.experiments.registry import KINDS, Experiment
from pslib.experiments.run import RunData, run
from pslib.experiments.stages import checkpoint_of, run_lock, stands_alone
from pslib.training.checkpoints import load_checkpoint
from pslib.training.recipe import Recipe, recipe_hash

__all__ = ["Job", "default_work", "jobs_of", "kinds_of", "reproduce", "start_workers", "watch"]

Work = Iterator[str]

MOST_SEEDS = 1000  # far more than anybody waits for; the runs of a billion fill the memory before the first begins
# The command ``pslib``, for a worker: it ends with its watcher, however that ends.
WORKER = "import pslib.cli, pslib.data.workers as workers; workers.end_with_starter(); pslib.cli.entry()"


@dataclass(frozen=True)
class Job:
    """One run to compute."""

    label: str  # the row it stands in
    recipe: Recipe
    seed: int

    @property
    def name(self) -> str:
        """Set, row and seed in words."""
        return f"{self.recipe.kind} {self.label}, seed {self.seed}"


def kinds_of(experiment: Experiment, kind: str) -> tuple[str, ...]:
    """The sets that ``kind`` asks for, "both" or one of the experiment's.  Raises UserError if it is neither."""
    if require_choice("set", kind, (*KINDS, "both")) == "both":
        return experiment.kinds
    return (require_choice(f"set of {experiment.name}", kind, experiment.kinds),)


def jobs_of(experiment: Experiment, profile: str, kinds: Sequence[str], seeds: int) -> list[Job]:
    """All runs of an experiment, every row of one seed before the next seed begins.

    Cross-validated rows have a run for each fold, whatever ``seeds`` says.  Raises UserError if ``seeds`` is below 1 or
    above :data:`MOST_SEEDS`, or there is no such profile.
    """
    if seeds < 1:
        raise UserError(f"{seeds} seeds are no runs of {experiment.name}: give --seeds at least 1.")
    if seeds > MOST_SEEDS:
        raise UserError(f"{seeds} seeds are too many runs of {experiment.name}: give --seeds at most {MOST_SEEDS}.")
    rows = [(label, kind) for kind in kinds for label in experiment.rows]
    recipes = [(label, at_profile(experiment.recipe(label, kind), profile)) for label, kind in rows]
    return [
        Job(label, recipe, seed)
        for seed in range(max([seeds, *(recipe.folds for _, recipe in recipes)]))
        for label, recipe in recipes
        if seed < (recipe.folds or seeds)
    ]


def reproduce(jobs: Sequence[Job], data: Mapping[str, RunData], *, records: Path, work: Path, device: str) -> Work:
    """Compute what is missing; yields a line for every job as it is settled.

    ``data`` holds the splits of each set.  A run that another process is computing is left to it until the others are
    done, then waited for.  A record that cannot be read is set aside and computed anew, and so is an unfinished run
    whose checkpoint cannot be read.
    """
    busy = []
    for job in jobs:
        line = _settle(job, data[job.recipe.kind], records, work, device, wait=False)
        if line is None:
            busy.append(job)
        else:
            yield line
    for job in busy:
        yield str(_settle(job, data[job.recipe.kind], records, work, device, wait=True))


def _settle(job: Job, data: RunData, records: Path, work: Path, device: str, wait: bool) -> str | None:
    """Compute or find one run and say which; None where another process holds it and ``wait`` is False."""
    run_hash = recipe_hash(job.recipe, data.fingerprint)
    try:
        held = run_lock(work, run_hash, job.seed).acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    with held:
        path, checkpoint = find_record(records, job.recipe, run_hash, job.seed), checkpoint_of(work, run_hash, job.seed)
        aside = ""
        if path.exists():
            try:
                line = f"{job.name}: {_outcome(path)} (recorded)"
            except UserError as error:
                aside = f"; {error} Set aside as {set_aside(path).name}."
            else:
                # Left by a kill right after the record.  Of a chain it may be another's, who trains this as his start.
                if stands_alone(job.recipe):
                    shutil.rmtree(checkpoint.parent, ignore_errors=True)
                return line
        _clear(record_stem(records, job.recipe, run_hash, job.seed), checkpoint)
        profile = "" if job.recipe.profile == "tiny" else f"-{job.recipe.profile}"
        file = f"{job.recipe.name}-{job.recipe.kind}{profile}.safetensors"
        weights = work / "weights" / file if job.seed == 0 else None
        path = run(job.recipe, job.seed, data, records=records, work=work, device=device, weights=weights, inside=True)
        return f"{job.name}: {_outcome(path)}{aside}"


def _clear(stem: Path, checkpoint: Path) -> None:
    """Remove what a killed run can leave that no other uses: half-written files, a checkpoint that cannot be read.

    Only the holder of the run's lock may do so.
    """
    for left in stem.parent.glob(f"{stem.name}.*.partial"):
        left.unlink(missing_ok=True)
    try:
        load_checkpoint(checkpoint, checkpoint.parent.name)
    except UserError:
        shutil.rmtree(checkpoint.parent, ignore_errors=True)


def _outcome(path: Path) -> str:
    info = read_record(path).info
    if info["status"] != "finished":
        return f"FAILED, {info['reason']}"
    try:
        first, results = main_protocol_name(info["protocols"]), info["results"]
        found, given = (results[boxes][first]["map"] for boxes in ("search", "ground_truth"))
    except (KeyError, TypeError, UserError):
        raise UserError(f"the record {path} lacks a result of its main protocol.") from None
    return f"search mAP {found:.1f}, with ground-truth boxes {given:.1f}"


def start_workers(arguments: Sequence[str], workers: int, logs: Path) -> list[subprocess.Popen]:
    """Start ``pslib reproduce`` with ``arguments`` in ``workers`` processes; their output goes to files in ``logs``.

    They end with this process, killed or not: then nobody holds the other end of their standard input any more.

    Each process gets its share of the cores: two runs of one thread do a tenth more than one run of two.
    """
    logs.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PSLIB_PLAIN": "1"}
    command = [sys.executable, "-c", WORKER, "reproduce", *arguments]
    running = []
    for number in range(workers):
        log = logs / f"worker-{number}.log"
        with log.open("w") as stream:
            running.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=stream, stderr=stream)
            )
    return running


def watch(
    jobs: Sequence[Job],
    fingerprints: Mapping[str, str],
    records: Path,
    workers: Sequence[subprocess.Popen],
    failed: Callable[[int], UserError],
    pause: float = 0.5,
) -> Work:
    """Lines of the jobs as the ``workers`` settle them; raises ``failed(number)`` if a worker ends with a mistake.

    The workers go with the watcher: when it is interrupted, asked to end or closed, they are ended, their runs to be
    taken up later.
    """
    waiting = {job: recipe_hash(job.recipe, fingerprints[job.recipe.kind]) for job in jobs}
    try:
        with _stopped_by_signals():
            running = True
            while running:
                running = any(process.poll() is None for process in workers)
                for job, run_hash in list(waiting.items()):
                    path = find_record(records, job.recipe, run_hash, job.seed)
                    if path.exists():
                        try:
                            line = f"{job.name}: {_outcome(path)}"
                        except UserError:  # a worker is about to set it aside
                            continue
                        del waiting[job]
                        yield line
                if running:
                    time.sleep(pause)
        for number, process in enumerate(workers):
            if process.returncode != 0:
                raise failed(number)
    finally:
        for process in workers:
            with process:  # which waits for its end
                process.terminate()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP are what Ctrl-C is; one that is ignored (nohup) or handled already stays as it is."""

    def stop(*_) -> None:
        raise KeyboardInterrupt

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    taken = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def default_work() -> Path:
    """Where unfinished runs and their locks lie."""
    return paths.build_dir() / "runs" / "work"
