"""What ``pslib reproduce``, ``records`` and ``ledger`` do: make records, look after them, read them."""

import json
from argparse import Namespace
from collections.abc import Iterator

from pslib import paths
from pslib.errors import UserError, require_choice
from pslib.experiments.commands import device, open_run_data
from pslib.experiments.ledger import ledger as entries_of
from pslib.experiments.ledger_text import ledger_summary, ledger_text
from pslib.experiments.lookup import PROFILE_CHANGES, find_experiment, known_fingerprint
from pslib.experiments.reproduce import Job, default_work, jobs_of, kinds_of, start_workers, watch
from pslib.experiments.reproduce import reproduce as compute
from pslib.experiments.tables import comparison, failed_runs, results_table
from pslib.experiments.upkeep import drop_records, scan_records, unfit_records
from pslib.models.families import backbone_names
from pslib.progress import progress, say
from pslib.training.warm_up import ensure_warm_start

__all__ = ["reproduce", "records", "stale_records", "drop", "ledger", "series_results"]


def reproduce(options: Namespace) -> int:
    """Compute what is missing of an experiment and say for every run how it came out; 1 if some failed."""
    experiment = find_experiment(options.experiment)
    kinds = kinds_of(experiment, options.kind)
    jobs = jobs_of(experiment, options.profile, kinds, options.seeds)
    if options.workers < 1:
        raise UserError(f"{options.workers} workers compute nothing: give --workers at least 1.")
    asked = [(name, job.recipe.warm_start) for job in jobs for name in backbone_names(job.recipe.model)]
    for backbone, warm_start in dict.fromkeys(asked):
        ensure_warm_start(backbone, warm_start, device())
    failed = 0
    lines = _in_parallel(options, jobs) if options.workers > 1 else _here(options, jobs)
    for number, line in enumerate(progress(lines, desc=experiment.name, total=len(jobs)), start=1):
        failed += ": FAILED" in line
        say(f"[{number} of {len(jobs)}] {line}")
    if failed:
        say(f"{failed} of {len(jobs)} runs failed; their records keep the loss curves up to there.")
    return int(failed > 0)


def _here(options: Namespace, jobs: list[Job]) -> Iterator[str]:
    kinds = dict.fromkeys(job.recipe.kind for job in jobs)
    data = {kind: open_run_data(kind, options.profile, None) for kind in kinds}
    records = options.out / "records" if options.out else paths.results_dir()
    work = options.out / "work" if options.out else default_work()
    return compute(jobs, data, records=records, work=work, device=device())


def _in_parallel(options: Namespace, jobs: list[Job]) -> Iterator[str]:
    kinds = dict.fromkeys(job.recipe.kind for job in jobs)
    fingerprints = {kind: known_fingerprint(kind, options.profile) for kind in kinds}
    arguments = [options.experiment, "--profile", options.profile, "--kind", options.kind]
    arguments += ["--seeds", str(options.seeds), "--workers", "1"]
    arguments += ["--out", str(options.out)] if options.out else []
    records = options.out / "records" if options.out else paths.results_dir()
    logs = (options.out / "work" if options.out else default_work()) / "logs"
    workers = start_workers(arguments, options.workers, logs)

    def mistake(number: int) -> UserError:
        log = logs / f"worker-{number}.log"
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = f" ({said[-1].removeprefix('pslib: ').rstrip('.')})" if said else ""
        return UserError(f"a worker of {options.experiment} failed{last}: {log} has all it said.")

    return watch(jobs, fingerprints, records, workers, mistake)


def records(options: Namespace) -> None:
    """Print the recorded runs, as a table or as JSON; failed runs and records of no use are named below it."""
    readable, unreadable = scan_records(paths.results_dir())
    finished = [record for record in readable if record.info["status"] == "finished"]
    if options.json:  # those that failed, too: "status" says which
        print(json.dumps([record.info for record in readable], indent=1))
        return
    # AlignPS on its own schedule, then on the baseline's.
    compared = [comparison(finished, name) for name in ("alignps", "alignps-long")]
    parts = [results_table(finished), *compared, failed_runs(readable)]
    if unreadable:
        parts.append(f"records that cannot be used: {len(unreadable)}; pslib records stale names them and says why.")
    print("\n".join(part for part in parts if part))


def stale_records(_options: Namespace) -> None:
    """Print the records that nothing reads any more, and why."""
    found = unfit_records(paths.results_dir())
    for name, reason in found.items():
        print(f"{name}: {reason}")
    if found:
        print(f"{len(found)} records: pslib records drop --stale removes them, pslib reproduce computes runs anew.")
    else:
        print("every record fits today's code and data.")


def drop(options: Namespace) -> None:
    """Remove the named records, or all that nothing reads any more."""
    if not options.names and not options.stale:
        raise UserError("pslib records drop was given nothing to remove: name a hash or a file, or add --stale.")
    names = [*options.names, *(unfit_records(paths.results_dir()) if options.stale else ())]
    removed = drop_records(paths.results_dir(), names, default_work())
    for name in removed:
        print(f"removed {name}")
    print(f"{len(removed)} files removed; git restores what was committed.")


def ledger(options: Namespace) -> None:
    """Print what the records say of every claim, as a table or as JSON."""
    require_choice("profile", options.profile, PROFILE_CHANGES)
    entries = entries_of(options.profile, options.experiment)
    if options.json:
        print(json.dumps([entry.as_dict() for entry in entries], indent=1))
    else:
        print(ledger_text(entries))


def series_results(profile: str = "tiny") -> None:
    """Where a run of the whole series ends: the results table and what the ledger comes to."""
    records(Namespace(json=False))
    if profile in PROFILE_CHANGES:
        print(f"\n{ledger_summary(entries_of(profile))}\npslib ledger prints every claim with its evidence.")
