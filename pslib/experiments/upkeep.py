"""Looking after the records: which no longer fit today's code or data, and removing some by name."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pslib.errors import UserError
from pslib.experiments.lookup import UnknownSetError, known_fingerprint
from pslib.experiments.reading import contents
from pslib.experiments.records import NO_RECIPE, DamagedRecordError, Record, own_runs, read_record, recipe_from_dict
from pslib.experiments.stages import state_of
from pslib.progress import say
from pslib.training.recipe import component_versions, recipe_hash

__all__ = ["drop_records", "record_files", "scan_records", "unfit_records"]

ASIDE = ".set-aside"
RUN = re.compile(r"-([0-9a-f]{12})-s(-?\d+)\Z")  # how the name of a record ends, its suffix apart


def record_files(folder: Path) -> dict[str, list[Path]]:
    """The files of every record under ``folder``, by its JSON's path in it; set-aside ones by theirs.

    Arrays without a JSON, left by a kill between the two, are listed under the JSON they lack.

    Raises UserError where one of the folders cannot be read.
    """
    found: dict[str, list[Path]] = {}
    for path in (path for profile in contents(folder) for kind in contents(profile) for path in contents(kind)):
        aside = ASIDE if path.name.endswith(ASIDE) else ""
        name = path.name.removesuffix(aside)
        if name.endswith((".json", ".npz")):
            record = path.with_name(name).with_suffix(".json")
            found.setdefault(f"{record.relative_to(folder).as_posix()}{aside}", []).append(path)
    return found


def scan_records(folder: Path) -> tuple[list[Record], dict[str, str]]:
    """All records under ``folder`` that can be used, failed runs too, and why each other one cannot.

    Raises UserError where a file or folder cannot be read just now: it may be whole.
    """
    readable, unreadable = [], {}
    for name, files in record_files(folder).items():
        if name.endswith(ASIDE):
            unreadable[name] = "set aside: it could not be used, and its run was computed again"
        elif files[0].suffix == ".npz":
            unreadable[name] = "arrays without their JSON: the run was killed while it wrote its record"
        else:
            try:
                record = read_record(folder / name)
            except DamagedRecordError as error:
                unreadable[name] = str(error).rstrip(".")
                continue
            if record.info["status"] == "finished" and not record.info["protocols"]:
                unreadable[name] = "it holds no result of the test people"
            else:
                readable.append(record)
    own, copies = own_runs(readable, folder)
    return own, unreadable | {path.relative_to(folder).as_posix(): f"a copy: {why}" for path, why in copies.items()}


def unfit_records(folder: Path) -> dict[str, str]:
    """Every record under ``folder`` that nothing reads any more, by its JSON's path in it, and why."""
    readable, found = scan_records(folder)
    for record in readable:
        if reason := _why_unfit(record):
            found[record.path.relative_to(folder).as_posix()] = reason
    return dict(sorted(found.items()))


def _why_unfit(record: Record) -> str:
    info = record.info
    try:
        recipe = recipe_from_dict(info["recipe"])
        today = recipe_hash(recipe, info["data"]["fingerprint"])
    except NO_RECIPE as error:
        return f"stale: its recipe cannot be built any more ({error})".rstrip(".")
    moved = [
        f"{name} {info.get('components', {}).get(name)} -> {now}"
        for name, now in component_versions(recipe).items()
        if info.get("components", {}).get(name) != now
    ]
    if today != info["hash"]:
        return f"stale: {', '.join(moved) or 'its recipe means something else today'} (hash {today} today)"
    try:
        drawn = known_fingerprint(recipe.kind, recipe.profile)
    except UnknownSetError:
        return ""
    if drawn != info["data"]["fingerprint"]:
        return f"computed on other data: fingerprint {info['data']['fingerprint']}, of today's {recipe.kind} {drawn}"
    return ""


def drop_records(folder: Path, names: Iterable[str], work: Path | None = None) -> list[str]:
    """Remove the named records, JSON and arrays, and return what was removed as paths in ``folder``.

    The weights that such a run of a chain ended with, kept in ``work``, go too: else they would be recorded again.
    They stay where the run is recorded in another file.

    A name is a hash (all its seeds), ``hash-s0``, or a record's file name with or without suffix, wherever such lie;
    with a folder, as a path from here or in ``folder``, only what lies in it.  One that names no record is refused
    before anything is removed.  A folder that is called like a record's file is named and stays.
    """
    files = record_files(folder)
    chosen: dict[str, Sequence[Path]] = {}
    for name in names:
        chosen |= _named(name, files, folder)
    over = _runs(chosen) - _runs(record for record in files if record not in chosen)
    removed = []
    for paths in chosen.values():
        # The JSON goes first: a record without it is none, while one without its arrays would be a damaged one.
        for path in sorted(paths):
            if path.is_dir() and not path.is_symlink():
                say(f"{path} is a folder, which is no record: remove it by hand.")
                continue
            path.unlink(missing_ok=True)
            removed.append(path.relative_to(folder).as_posix())
            run = RUN.search(path.stem)
            if work is not None and path.suffix == ".json" and run and run.groups() in over:
                state_of(work, run[1], int(run[2])).unlink(missing_ok=True)
    return removed


def _runs(records: Iterable[str]) -> set[tuple[str, ...]]:
    """Hash and seed of each record that is not set aside, by its name."""
    return {run.groups() for record in records if (run := RUN.search(record.removesuffix(".json")))}


def _named(name: str, files: Mapping[str, Sequence[Path]], folder: Path) -> dict[str, Sequence[Path]]:
    if name in files:  # as unfit_records names it
        return {name: files[name]}
    asked = Path(name).name
    if asked.removesuffix(ASIDE).endswith(".npz"):  # a record goes by its JSON
        asked = asked.replace(".npz", ".json")
    places = {(base / name).parent.resolve() for base in (Path.cwd(), folder)} if "/" in name else None
    found, known = {}, set()
    for record, paths in files.items():
        file = Path(record).name
        stem = file.removesuffix(ASIDE).removesuffix(".json")
        run = RUN.search(stem)
        calls = {stem, file} | ({run[1], f"{run[1]}-s{run[2]}"} if run else set())
        known |= calls
        if asked in calls and (places is None or (folder / record).parent.resolve() in places):
            found[record] = paths
    if not found:
        near = difflib.get_close_matches(asked, sorted(known), n=1, cutoff=0.0)
        remedy = f"the nearest is {near[0]}" if near else "there is none at all"
        raise UserError(f"{name!r} names no record in {folder}: {remedy}; pslib records list shows them.")
    return found
