"""Computes an experiment: every row, set and seed that is not recorded yet, one run after another.

A run belongs to whoever holds its lock, so any number of processes may work on one experiment, and each run is
computed once.  The lock goes with its process: a killed run is taken up from its checkpoint by the next call.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pslib import paths
from pslib.errors import UserError
from pslib.experiments.lookup import at_profile
from pslib.experiments.records import find_record, read_record, set_aside
from pslib.experiments.registry import Experiment
from pslib.experiments.run import RunData, run
from pslib.training.recipes import Recipe, recipe_hash

__all__ = ["Job", "jobs_of", "reproduce", "reproduce_in_parallel", "default_work"]


@dataclass(frozen=True)
class Job:
    """One run to compute."""

    label: str  # the row it stands in
    recipe: Recipe
    seed: int


def jobs_of(experiment: Experiment, profile: str, kinds: Sequence[str], seeds: int) -> list[Job]:
    """All runs of an experiment, every row of one seed before the next seed begins."""
    return [
        Job(label, at_profile(experiment.recipe(label, kind), profile), seed)
        for seed in range(seeds)
        for kind in kinds
        for label in experiment.rows
    ]


def reproduce(
    jobs: Sequence[Job], data: dict[str, RunData], *, records: Path, work: Path, device: str
) -> Iterator[str]:
    """Compute what is missing; yields a line for every job as it is settled.

    ``data`` holds the splits of each set.  A run that another process is computing is left to it until the others are
    done, then waited for.  A record that cannot be read is set aside and computed anew.
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
    name = f"{job.recipe.kind} {job.label}, seed {job.seed}"
    lock = FileLock(work / f"{run_hash}-s{job.seed}.lock")
    work.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    with lock:
        path = find_record(records, job.recipe, run_hash, job.seed)
        aside = ""
        if path.exists():
            try:
                return f"{name}: {_outcome(path)} (recorded)"
            except UserError as error:
                aside = f"; {error} Set aside as {set_aside(path).name}."
        weights = work / "weights" / f"{job.recipe.name}-{job.recipe.kind}.safetensors" if job.seed == 0 else None
        path = run(
            job.recipe, job.seed, data, records=records, work=work, device=device, weights=weights, inside=True
        )
        return f"{name}: {_outcome(path)}{aside}"


def _outcome(path: Path) -> str:
    info = read_record(path).info
    if info["status"] != "finished":
        return f"FAILED, {info['reason']}"
    first = next(name for name in ("TestG100", "regular", *info["protocols"]) if name in info["protocols"])
    results = info["results"]
    return (
        f"search mAP {results['search'][first]['map']:.1f}, with ground-truth boxes "
        f"{results['ground_truth'][first]['map']:.1f}"
    )


def reproduce_in_parallel(arguments: Sequence[str], workers: int, logs: Path) -> int:
    """Run ``pslib reproduce`` with ``arguments`` in ``workers`` processes; their output goes to files in ``logs``.

    Each process gets its share of the cores: two runs of one thread do a tenth more than one run of two.
    """
    logs.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PSLIB_PLAIN": "1"}
    command = [sys.executable, "-m", "pslib", "reproduce", *arguments]
    running = []
    for number in range(workers):
        log = logs / f"worker-{number}.log"
        with log.open("w") as stream:
            running.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=stream))
        print(f"worker {number}: {log}")
    try:
        return max(process.wait() for process in running)
    except KeyboardInterrupt:
        for process in running:
            process.terminate()
        raise


def default_work() -> Path:
    """Where unfinished runs and their locks lie."""
    return paths.build_dir() / "runs" / "work"

