"""Run records: everything a later page may ask of a run, written once.

A record is a JSON file (what was run, where, how long, scalar results, validation on the way) and an ``.npz`` beside
it (per-query results of every protocol, loss curves, embeddings of fifteen fixed people).  Both are written whole or
not at all, the JSON last: a run counts as recorded only when its JSON is there.
"""

import io
import json
import os
import platform
import subprocess
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pslib.errors import UserError, remedy
from pslib.experiments.reading import bytes_of, contents
from pslib.experiments.record_shapes import misshapen
from pslib.models.families import config_from_dict
from pslib.training.recipe import (
    LossWeights,
    Recipe,
    Schedule,
    component_versions,
    recipe_hash,
)

__all__ = [
    "RECORD_VERSION",
    "READ",
    "DamagedRecordError",
    "Record",
    "NO_RECIPE",
    "record_stem",
    "find_record",
    "main_protocol_name",
    "write_record",
    "write_json",
    "read_record",
    "read_records",
    "own_runs",
    "set_aside",
    "provenance",
    "code_commit",
]

RECORD_VERSION = 1
NEEDED = ("recipe", "hash", "seed", "data")  # of every record; what else one needs, by how its run ended
NEEDED_OF = {"finished": ("results", "protocols"), "diverged": ("reason",)}
READ = ":"  # after the name of a read, before that of its array
# What rebuilding a recipe raises for a field or a choice that recipes no longer have, and for damage.
NO_RECIPE = (AttributeError, KeyError, TypeError, ValueError, UserError)
# What reading the content of a damaged file raises; RuntimeError is for nesting too deep and for odd flags of a zip.
_DAMAGE = (OSError, ValueError, EOFError, TypeError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


class DamagedRecordError(UserError):
    """A record that no reader can use: files that are missing or damaged, another version, a part of a wrong shape."""


@dataclass(frozen=True)
class Record:
    """One recorded run: the JSON's content and the arrays."""

    path: Path
    info: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def recipe(self) -> Recipe:
        """The recipe that was run, rebuilt.  Raises one of :data:`NO_RECIPE` where it is of another version."""
        return recipe_from_dict(self.info["recipe"])

    @property
    def stale(self) -> bool:
        """True if today's code would give this recipe another hash."""
        try:
            return recipe_hash(self.recipe, self.info["data"]["fingerprint"]) != self.info["hash"]
        except NO_RECIPE:
            return True

    @property
    def commit(self) -> str:
        """The commit of the code that trained it; of the code that wrote it down where nothing else is known."""
        return str(self.info.get("trained_commit") or self.info.get("commit", ""))

    def reading(self, read: str) -> "Record":
        """The same run with another of its model's embeddings of a person, as "dense"; ``""`` is the main one.

        Raises UserError if the record holds no such reading.
        """
        results = self.info.get("results", {})
        if read in ("", results.get("read")):
            return self
        others = results.get("reads", {})
        if read not in others:
            known = ", ".join(others) or "no other"
            raise UserError(f"the record {self.path} does not read {read!r}: it holds {known}.")
        arrays = {name: array for name, array in self.arrays.items() if READ not in name}
        own = f"{read}{READ}"
        arrays |= {name.removeprefix(own): array for name, array in self.arrays.items() if name.startswith(own)}
        return Record(self.path, self.info | {"results": others[read]}, arrays)

    def ap(self, protocol: str, boxes: str = "detected") -> np.ndarray:
        """Average precision of each query, (Q,), 0..1; ``boxes`` is "detected" or "ground-truth".

        Raises UserError if the record has no such protocol or boxes.
        """
        return self._array(protocol, boxes, "ap").astype(np.float64)

    def rank(self, protocol: str, boxes: str = "detected") -> np.ndarray:
        """Rank of the first right match of each query, (Q,); 0 where none was found.  Raises as :meth:`ap` does."""
        return self._array(protocol, boxes, "rank").astype(np.int64)

    def people(self, protocol: str) -> np.ndarray:
        """Person id of each query, (Q,)."""
        if f"{protocol}/people" not in self.arrays:
            raise UserError(f"the record {self.path} does not say whose the queries of {protocol} are: rerun it.")
        return self.arrays[f"{protocol}/people"]

    def _array(self, protocol: str, boxes: str, what: str) -> np.ndarray:
        name = f"{protocol}/{boxes}/{what}"
        if name not in self.arrays:
            raise UserError(f"the record {self.path} has no {name}: it holds {', '.join(self.info['protocols'])}.")
        return self.arrays[name]


def recipe_from_dict(content: Mapping[str, Any]) -> Recipe:
    """Rebuild a recipe from its JSON form.

    Raises UserError if this version does not know its model or one of its choices, TypeError if one of its fields;
    another of :data:`NO_RECIPE` if a field holds something of a wrong type.
    """

    def tuples(value: Any) -> Any:
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    plain = {name: tuples(value) for name, value in content.items() if name != "start"}
    plain["model"] = config_from_dict(content["model"])
    if plain["model"] is None:
        raise UserError(f"the recipe {content['name']} has a model that this version does not know: compute it again.")
    for name, part in {"weights": LossWeights, "schedule": Schedule}.items():
        plain[name] = part(**{key: tuples(value) for key, value in content[name].items()})
    start = content.get("start")
    return Recipe(**plain, start=recipe_from_dict(start) if start else None)


def main_protocol_name(names: Sequence[str]) -> str:
    """Of the protocols of a set the one that a single number is taken from.

    A gallery of 100 frames on CUHK-SYSU, all frames on PRW; the first one of a set or fold that has neither.

    Raises UserError where there is none.

    >>> main_protocol_name(["TestG50", "Occlusion"]), main_protocol_name(["TestG50", "TestG100"])
    ('TestG50', 'TestG100')
    """
    if not names:
        raise UserError("a record without a protocol was never tested: name it to `pslib records drop` and rerun.")
    return next((name for name in ("TestG100", "regular") if name in names), names[0])


def record_stem(folder: Path, recipe: Recipe, run_hash: str, seed: int) -> Path:
    """Path of a record without its suffix: ``<folder>/<profile>/<set>/<recipe>-<hash>-s<seed>``."""
    return folder / recipe.profile / recipe.kind / f"{recipe.name}-{run_hash}-s{seed}"


def find_record(folder: Path, recipe: Recipe, run_hash: str, seed: int) -> Path:
    """Path of the JSON of a run, whether it is there or not; a run recorded under another name is the same run.

    Raises UserError if the folder cannot be read.
    """
    stem = record_stem(folder, recipe, run_hash, seed)
    other = contents(stem.parent, f"*-{run_hash}-s{seed}.json")
    return other[0] if other else stem.with_name(stem.name + ".json")


def write_record(stem: Path, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write ``stem.npz`` and ``stem.json``, each atomically, and return the JSON's path.

    Raises UserError if they cannot be written, as on a full disk.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    text = json.dumps({"record_version": RECORD_VERSION, **info}, indent=1, sort_keys=True) + "\n"
    for suffix, content in ((".npz", buffer.getvalue()), (".json", text.encode())):
        partial = stem.with_name(f"{stem.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(content)
            os.replace(partial, stem.with_name(stem.name + suffix))
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise UserError(
                f"cannot write the record {stem}{suffix} ({error.strerror}): {remedy(error)} and start again."
            ) from None
    return stem.with_name(stem.name + ".json")


def write_json(path: Path, content: Any, sort_keys: bool = False) -> None:
    """Write ``content`` in one piece: a kill leaves what was there, or all that is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(content, indent=1, sort_keys=sort_keys) + "\n")
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_record(path: Path) -> Record:
    """Read one record by the path of its JSON.

    Raises DamagedRecordError if one of its files is missing or damaged, if it is of another version, lacks what it
    needs or holds something of a wrong shape; UnreadableError if one is there but cannot be read, whole or not.
    """
    try:
        info = json.loads(bytes_of(path))
        with io.BytesIO(bytes_of(path.with_suffix(".npz"))) as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        found, needed = info["record_version"], {*NEEDED, *NEEDED_OF[info.get("status")]}
    except _DAMAGE as error:
        reason = type(error).__name__
        raise DamagedRecordError(f"the record {path} cannot be read ({reason}): delete it and rerun.") from None
    if found != RECORD_VERSION:
        raise DamagedRecordError(f"the record {path} has version {found}, not {RECORD_VERSION}: delete it and rerun.")
    if absent := sorted(needed - set(info)):
        raise DamagedRecordError(f"the record {path} lacks {', '.join(absent)}: delete it and rerun.")
    if part := misshapen(info):
        raise DamagedRecordError(f"the record {path} cannot be read ({part} of a wrong shape): delete it and rerun.")
    return Record(path, info, arrays)


def set_aside(path: Path) -> Path:
    """Move a record that cannot be used out of the way, its arrays too; returns where its JSON lies now.

    Raises UnreadableError, and moves nothing, where one of its files cannot be read just now: it may be whole.
    """
    there = [old for old in (path.with_suffix(".npz"), path) if old.exists()]
    for old in there:
        if old.is_file():
            bytes_of(old)
    for old in there:
        os.replace(old, old.with_name(f"{old.name}.set-aside"))
    return path.with_name(f"{path.name}.set-aside")


def read_records(folder: Path, **wanted: Any) -> list[Record]:
    """All finished records under ``folder`` whose recipe has the ``wanted`` top-level values, by name and seed.

    ``read_records(results_dir(), kind="prw", name="alignps")``.  Copies are left out, as by :func:`own_runs`.
    """
    places = (place for profile in contents(folder) for place in contents(profile))
    found = [read_record(path) for place in places for path in contents(place, "*.json")]
    return [
        record
        for record in own_runs(found, folder)[0]
        if record.info["status"] == "finished"
        and all(record.info["recipe"].get(name) == value for name, value in wanted.items())
    ]


def own_runs(records: Sequence[Record], folder: Path) -> tuple[list[Record], dict[Path, str]]:
    """Those of the records under ``folder`` that stand for a run each, and by its path why each other one does not.

    A copy would count as a further seed.  Of two records of a run in one folder the one named as the run is stands.
    """
    stands: dict[tuple[str, int], Path] = {}
    others = {}
    for record in sorted(records, key=lambda record: (not _named_as_run(record), record.path)):
        recipe, run = record.info["recipe"], (record.info["hash"], record.info["seed"])
        place = f"{recipe.get('profile', 'tiny')}/{recipe['kind']}"
        if record.path.parent != folder / place:
            others[record.path] = f"it lies outside {place}, where its recipe belongs"
        elif stands.setdefault(run, record.path) != record.path:
            others[record.path] = f"it is of the same run as {stands[run].name}"
    return [record for record in records if record.path not in others], others


def _named_as_run(record: Record) -> bool:
    return record.path.stem.endswith(f"-{record.info['hash']}-s{record.info['seed']}")


def provenance(
    device: str, recipe: Recipe | None, packages: Iterable[str] = ("torch", "torchvision", "numpy", "pillow")
) -> dict[str, Any]:
    """Where and when something was computed: date, device, versions, code commit; ``recipe`` is that of a run."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "packages": versions,
        "components": {} if recipe is None else component_versions(recipe),
        "commit": code_commit(),
        "changed_files": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "pslib")),
    }


def code_commit() -> str:
    """Commit of the code that runs, twelve hex digits; empty where no git knows it."""
    return _git("rev-parse", "--short=12", "HEAD")


def _git(*arguments: str) -> str:
    """Answer of git about the checkout this package lies in; empty where there is none."""
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
