"""Looking after the records: which no longer fit today's code or data, and removing some by name."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pslib.errors import UserError
from pslib.experiments.lookup import known_fingerprint
from pslib.experiments.records import Record, read_record, recipe_from_dict
from pslib.experiments.stages import state_of
from pslib.training.recipe import component_versions, recipe_hash

__all__ = ["drop_records", "record_files", "scan_records", "unfit_records"]

ASIDE = ".set-aside"


def record_files(folder: Path) -> dict[str, list[Path]]:
    """The files of every record under ``folder``, by its JSON's path in it; set-aside ones by theirs.

    Arrays without a JSON, left by a kill between the two, are listed under the JSON they lack.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*/*/*")):
        aside = ASIDE if path.name.endswith(ASIDE) else ""
        name = path.name.removesuffix(aside)
        if name.endswith((".json", ".npz")):
            record = path.with_name(name).with_suffix(".json")
            found.setdefault(f"{record.relative_to(folder).as_posix()}{aside}", []).append(path)
    return found


def scan_records(folder: Path) -> tuple[list[Record], dict[str, str]]:
    """All records under ``folder`` that can be read, failed runs too, and why each other one cannot."""
    readable, unreadable = [], {}
    for name, files in record_files(folder).items():
        if name.endswith(ASIDE):
            unreadable[name] = "set aside: it could not be used, and its run was computed again"
        elif files[0].suffix == ".npz":
            unreadable[name] = "arrays without their JSON: the run was killed while it wrote its record"
        else:
            try:
                record = read_record(folder / name)
            except UserError as error:
                unreadable[name] = str(error).rstrip(".")
                continue
            info = record.info
            if info["status"] == "finished" and not (info["protocols"] and "detection" in info["results"]):
                unreadable[name] = "it holds no result of the test people"
            else:
                readable.append(record)
    return readable, unreadable


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
    except (KeyError, TypeError, UserError) as error:
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
    except UserError:
        return ""
    if drawn != info["data"]["fingerprint"]:
        return f"computed on other data: fingerprint {info['data']['fingerprint']}, of today's {recipe.kind} {drawn}"
    return ""


def drop_records(folder: Path, names: Iterable[str], work: Path | None = None) -> list[str]:
    """Remove the named records, JSON and arrays, and return what was removed as paths in ``folder``.

    The weights that such a run of a chain ended with, kept in ``work``, go too: else they would be recorded again.
    A name is a hash (all its seeds), ``hash-s0``, or a record's file name with or without folder and suffix.  One that
    names no record is refused before anything is removed.
    """
    files = record_files(folder)
    chosen: dict[str, Sequence[Path]] = {}
    for name in names:
        chosen |= _named(name, files, folder)
    removed = []
    for paths in chosen.values():
        # The JSON goes first: a record without it is none, while one without its arrays would be a damaged one.
        for path in sorted(paths):
            path.unlink(missing_ok=True)
            removed.append(path.relative_to(folder).as_posix())
            if work is not None and path.suffix == ".json":
                *_, run_hash, seed = path.stem.rsplit("-", 2)
                state_of(work, run_hash, int(seed.removeprefix("s"))).unlink(missing_ok=True)
    return removed


def _named(name: str, files: Mapping[str, Sequence[Path]], folder: Path) -> dict[str, Sequence[Path]]:
    asked = Path(name).name
    if asked.removesuffix(ASIDE).endswith(".npz"):  # a record goes by its JSON
        asked = asked.replace(".npz", ".json")
    found, known = {}, set()
    for record, paths in files.items():
        file = Path(record).name
        stem = file.split(".json")[0]
        *_, run_hash, seed = f"--{stem}".rsplit("-", 2)
        calls = {run_hash, f"{run_hash}-{seed}", stem, file}
        known |= calls
        if asked in calls:
            found[record] = paths
    if not found:
        near = difflib.get_close_matches(asked, sorted(known), n=1, cutoff=0.0)
        remedy = f"the nearest is {near[0]}" if near else "there is none at all"
        raise UserError(f"{name!r} names no record in {folder}: {remedy}; pslib records list shows them.")
    return found
