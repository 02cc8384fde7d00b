"""Executing the series: copies under ``build/`` for a reader, in place to publish."""

import asyncio
import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event, Lock

from pslib import paths
from pslib.errors import UserError
from pslib.notebook import expected_time
from pslib.notebook_lint import lint
from pslib.notebook_page import code_hash, series, tags_of
from pslib.progress import progress, say

__all__ = ["chosen", "execute", "prepared", "publish", "run_series"]

CELL_TIMEOUT = 600  # seconds; a cell that hangs must not hold the series


def run_series(
    only: Sequence[str] = (), profile: str = "tiny", timeout: int | None = None, jobs: int | None = None
) -> int:
    """Execute copies under ``build/notebooks``, print each one's time as it ends, end in results and ledger.

    ``jobs`` notebooks run side by side (None: two, or one on a single core), each kernel with its share of the
    cores as threads, unless ``OMP_NUM_THREADS`` is set: the models at tiny are too small to keep two cores busy
    from one process.  Returns 1 if a notebook failed (its copy shows where; none is started after it), else 0.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: at least one notebook has to run at a time.")
    wanted, cores = chosen(only), os.cpu_count() or 1
    jobs = min(jobs or min(2, cores), len(wanted))
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // jobs)))
    target = paths.build_dir() / "notebooks"
    target.mkdir(parents=True, exist_ok=True)
    for path in wanted:  # one that cannot be read is told before the others have run
        prepared(path, profile)
    start = time.perf_counter()
    stop, kernels = Event(), _Kernels()

    def run_one(path: Path) -> str:
        """How it went, in words; none if the series was stopped before this notebook's turn."""
        if stop.is_set():
            return ""
        copy = target / path.name
        seconds, failure = _execute_file(path, copy, profile, timeout, {"OMP_NUM_THREADS": threads}, kernels.add)
        if failure is None:
            return f"{path.name}: {seconds:.0f} s"
        stop.set()
        return f"{path.name}: failed after {seconds:.0f} s: {failure}\n  its executed copy: {_shown(copy)}"

    with ThreadPoolExecutor(jobs) as pool:
        try:
            runs = [pool.submit(run_one, path) for path in wanted]
            for run in progress(as_completed(runs), "notebooks", total=len(runs)):
                if words := run.result():
                    say(words)
        except BaseException:  # an interrupt among them: what has not begun does not begin, what runs is ended
            stop.set()
            kernels.end()
            raise
    if stop.is_set():
        return 1
    print(f"{len(runs)} notebooks in {time.perf_counter() - start:.0f} s, {jobs} at a time; "
          f"executed copies in {_shown(target)}\n", flush=True)
    _print_results(profile)
    return 0


def publish(only: Sequence[str] = (), profile: str = "tiny", timeout: int | None = None) -> int:
    """Execute notebooks and write them back in place, with their times.

    A failure leaves the file as it was, and so does a change that was saved while the cells ran, minutes perhaps.
    """
    times_path = paths.results_dir() / "notebook-times.json"
    problems = 0
    for path in chosen(only):
        draft = paths.build_dir() / "publish" / path.name
        draft.parent.mkdir(parents=True, exist_ok=True)
        begun = path.read_bytes()
        seconds, failure = _execute_file(path, draft, profile, timeout)
        if failure is None and path.read_bytes() != begun:
            failure = f"was changed while it ran and stays as it is (the executed copy: {_shown(draft)}): run it again"
        complaints = [failure] if failure is not None else lint(draft)
        for complaint in complaints:
            print(f"{path.name}: {complaint}", flush=True)
        problems += bool(complaints)
        if failure is None:
            times = json.loads(times_path.read_text()) if times_path.is_file() else {}
            times[f"{path.name[:2]}/{profile}"] = {
                "seconds": round(seconds, 1), "date": time.strftime("%Y-%m-%d"), "device": _device(),
            }
            _write(times_path, json.dumps(times, indent=1, sort_keys=True) + "\n")
            _tell_time(draft, expected_time(path.name[:2], profile))
            os.replace(draft, path)
            print(f"{path.name}: published, {seconds:.0f} s, {path.stat().st_size // 1000} kB", flush=True)
    return int(bool(problems))


def chosen(only: Sequence[str] = ()) -> list[Path]:
    """The notebooks whose numbers or file names are in ``only`` (all if empty); UserError if one is not there."""
    every = series()
    if not every:
        raise UserError(f"no notebooks in {paths.notebooks_dir()}: run this in a checkout of pslib.")
    known = {name: path for path in every for name in (path.name[:2], path.name, path.stem)}
    wanted = [Path(number).name.zfill(2) for number in map(str, only)]
    missing = [number for number in wanted if number not in known]
    if missing:
        numbers = ", ".join(path.name[:2] for path in every)
        raise UserError(f"no notebook {missing[0]}: choose from {numbers}.")
    return [path for path in every if not wanted or path in {known[number] for number in wanted}]


def prepared(path: Path, profile: str = "tiny"):
    """The notebook without outputs, its ``parameters`` cell naming ``profile``; UserError if it cannot be read."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError) as error:
        kind = type(error).__name__
        raise UserError(f"the notebook {path} cannot be read ({kind}): git restores what was committed.") from None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in tags_of(cell):
            cell.source = cell.source.replace('PROFILE = "tiny"', f'PROFILE = "{profile}"')
    notebook.metadata.pop("widgets", None)
    return notebook


def execute(
    notebook,
    folder: Path,
    timeout: int | None = None,
    environment: dict[str, str] | None = None,
    afterwards: Callable | None = None,
    begun: Callable | None = None,
) -> None:
    """Run every cell in a fresh kernel whose working directory is ``folder``; raises at the first error.

    The kernel sees this package, plain progress and ``environment``.  ``begun(client)`` is called once the kernel runs;
    ``afterwards(client)`` may run more cells in the same kernel before it ends.
    """
    from nbclient import NotebookClient

    # Beside the checkout's package no other may be found, wherever the copy lies.
    kernel_environment = {
        **os.environ, "PSLIB_PLAIN": "1", "PSLIB_ROOT": str(paths.root()), "PYTHONPATH": str(paths.root()),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1", **(environment or {}),
    }
    client = NotebookClient(
        notebook, timeout=timeout or CELL_TIMEOUT, kernel_name="python3", store_widget_state=False,
        resources={"metadata": {"path": str(folder)}}, extra_arguments=["--log-level=40"],
    )
    with client.setup_kernel(env=kernel_environment):
        if begun is not None:
            begun(client)
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        if afterwards is not None:
            afterwards(client)


class _Kernels:
    """The kernels of a series, which Ctrl-C does not reach: each is in a session of its own."""

    def __init__(self):
        self.running, self.ended, self.lock = [], False, Lock()

    def add(self, client) -> None:
        """Note the kernel of a client; raises KeyboardInterrupt if it has begun too late."""
        with self.lock:
            if self.ended:
                raise KeyboardInterrupt
            self.running.append(client.km.provisioner)

    def end(self) -> None:
        """Kill all kernels with what they have started: whoever waits for one is told within a second or two."""
        with self.lock:
            self.ended = True
        for kernel in self.running:
            asyncio.run(kernel.kill())


def _execute_file(
    path: Path,
    target: Path,
    profile: str,
    timeout: int | None,
    environment: dict[str, str] | None = None,
    begun: Callable | None = None,
) -> tuple[float, str | None]:
    """Execute ``path`` into ``target``; (seconds, None or what went wrong). Written even when a cell fails."""
    import nbformat
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook, failure = prepared(path, profile), None
    start = time.perf_counter()
    try:
        execute(notebook, path.parent, timeout, environment, begun=begun)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        # A cell's own error ends with what went wrong; one of waiting too long begins with it and ends in the source.
        lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()  # without terminal colours
        failure = lines[0 if isinstance(error, CellTimeoutError) else -1]
    seconds = time.perf_counter() - start
    if profile != "tiny":
        for cell in notebook.cells:
            if "parameters" in tags_of(cell):
                cell.source = cell.source.replace(f'PROFILE = "{profile}"', 'PROFILE = "tiny"')
    _clean(notebook)
    _write(target, nbformat.writes(notebook) + "\n")
    return seconds, failure


def _tell_time(draft: Path, line: str) -> None:
    """Let a page print the time that it has just taken: while it ran it only knew the one before."""
    import nbformat

    notebook = nbformat.read(draft, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = re.sub(r"^expected time: .*$", lambda _: line, output.text, flags=re.MULTILINE)
    _write(draft, nbformat.writes(notebook) + "\n")


def _clean(notebook) -> None:
    """Drop what changes with every run and tells a reader nothing: timestamps, versions, widget state.

    The hash that goes in says which code the outputs are of; whoever executes under another profile has put the
    parameters cell back before.
    """
    notebook.metadata = {
        "pslib": {"code": code_hash(notebook)},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


def _write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _print_results(profile: str) -> None:
    """The results table and the ledger's summary, read from the records."""
    from pslib.experiments.record_commands import series_results

    series_results(profile)


def _shown(path: Path) -> str:
    return str(path.relative_to(paths.root())) if path.is_relative_to(paths.root()) else str(path)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
