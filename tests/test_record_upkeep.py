"""pslib records stale and drop: what no longer fits is named with its reason; only what was named is removed."""

import errno
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from toy_sets import toy_recipe

from pslib import paths
from pslib.cli import main
from pslib.errors import UnreadableError, UserError
from pslib.experiments import lookup
from pslib.experiments.lookup import find_recipe, known_fingerprint, runs_if_any
from pslib.experiments.records import find_record, read_records, record_stem, set_aside, write_record
from pslib.experiments.stages import state_of
from pslib.experiments.tables import comparison, failed_runs, results_table
from pslib.experiments.upkeep import drop_records, record_files, scan_records, unfit_records
from pslib.training import recipe as recipe_module
from pslib.training.recipe import COMPONENT_VERSIONS, recipe_hash

PEOPLE = np.array([1, 1, 2, 2])
MAP = {"TestG100": {"map": 50.0}}
RESULTS = {"detection": {"recall": 91.0}, "search": MAP, "ground_truth": MAP}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    return paths.results_dir()


def write(folder, seed=0, status="finished", fingerprint="f", value=0.5, **changes):
    return write_named(folder, toy_recipe(**changes), value, seed, status, fingerprint)


def write_named(folder, recipe, value, seed=0, status="finished", fingerprint="f"):
    run_hash = recipe_hash(recipe, fingerprint)
    info = {"recipe": asdict(recipe), "hash": run_hash, "seed": seed, "status": status, "protocols": ["TestG100"],
            "data": {"fingerprint": fingerprint}, "components": dict(COMPONENT_VERSIONS), "device": "cpu",
            "date": "2026-01-01", "results": RESULTS, "reason": "training diverged at step 3."}
    arrays = {"TestG100/people": PEOPLE, "loss/oim": np.ones(3, np.float32)}
    for boxes in ("detected", "ground-truth"):
        arrays |= {f"TestG100/{boxes}/ap": np.full(4, value), f"TestG100/{boxes}/rank": np.ones(4)}
    return write_record(record_stem(folder, recipe, run_hash, seed), info, arrays)


def test_records_that_fit_are_not_stale(folder, capsys):
    write(folder)
    write(folder, seed=1, status="diverged")
    assert unfit_records(folder) == {} and main(["records", "stale"]) == 0
    assert "every record fits" in capsys.readouterr().out


def test_every_reason_to_be_of_no_use_is_said(folder, capsys, monkeypatch):
    write(folder)
    old = write(folder, name="old", flip=False)
    monkeypatch.setitem(recipe_module.COMPONENT_VERSIONS, "oim_loss", COMPONENT_VERSIONS["oim_loss"] + 1)
    assert "oim_loss 1 -> 2" in unfit_records(folder)[old.relative_to(folder).as_posix()]
    monkeypatch.undo()
    monkeypatch.setenv("PSLIB_ROOT", str(folder.parents[1]))
    content = json.loads(old.read_text())
    content["recipe"]["mixup"] = 0.5
    old.write_text(json.dumps(content))
    other = write(folder, name="zother", fingerprint="g")
    aside = set_aside(write(folder, seed=5))
    cut = write(folder, seed=6)
    cut.write_text("{")
    lone = write(folder, seed=7)
    lone.unlink()
    version = write(folder, seed=8)
    version.write_text(json.dumps(json.loads(version.read_text()) | {"record_version": 99}))
    reasons = {path: "" for path in (old, other, aside, cut, lone, version)}
    found = unfit_records(folder)
    assert set(found) == {path.relative_to(folder).as_posix() for path in reasons}
    said = {path: found[path.relative_to(folder).as_posix()] for path in reasons}
    assert "cannot be built any more" in said[old] and "mixup" in said[old]
    assert "other data: fingerprint g" in said[other]
    assert "set aside" in said[aside] and "cannot be read" in said[cut] and "version 99" in said[version]
    assert "without their JSON" in said[lone]
    assert main(["records", "stale"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in found) and "6 records" in printed
    assert len(scan_records(folder)[0]) == 3 and len(scan_records(folder)[1]) == 4
    assert main(["records"]) == 0 and "records that cannot be used: 4;" in capsys.readouterr().out
    assert main(["records", "drop", "--stale"]) == 0
    assert "removed tiny/cuhk-sysu/" in capsys.readouterr().out
    assert len(record_files(folder)) == 1 and len(list(folder.rglob("*.*"))) == 2


def test_drop_takes_hashes_runs_and_files(folder, capsys):
    paths_of = {seed: write(folder, seed=seed) for seed in range(4)}
    kept = write(folder, name="other", flip=False)
    run_hash = paths_of[0].stem.split("-")[-2]
    assert main(["records", "drop", str(paths_of[0])]) == 0
    assert not paths_of[0].exists() and not paths_of[0].with_suffix(".npz").exists() and paths_of[1].exists()
    assert drop_records(folder, [f"{run_hash}-s1"]) == [
        f"tiny/cuhk-sysu/{paths_of[1].stem}{suffix}" for suffix in (".json", ".npz")
    ]
    drop_records(folder, [paths_of[2].with_suffix(".npz").name])
    assert not paths_of[2].exists() and paths_of[3].exists()
    drop_records(folder, [run_hash])
    assert not paths_of[3].exists() and kept.exists() and kept.with_suffix(".npz").exists()
    capsys.readouterr()


def test_what_is_dropped_is_trained_anew(folder, tmp_path):
    """The weights that a run of a chain ended with go with its record, those of other runs stay."""
    path, other = write(folder, seed=0), write(folder, seed=1)
    kept = shutil.copytree(folder / "tiny", folder / "tiny-old") / "cuhk-sysu" / path.name
    states = [state_of(tmp_path / "work", one.stem.split("-")[-2], seed) for seed, one in enumerate((path, other))]
    for state in states:
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_bytes(b"weights")
    drop_records(folder, [str(kept)], tmp_path / "work")
    assert all(state.exists() for state in states)  # the run is still recorded
    drop_records(folder, [path.name], tmp_path / "work")
    assert [state.exists() for state in states] == [False, True]


@pytest.mark.parametrize("name", ["aligmps", "0123456789ab", "no/such/file.json", ".."])
def test_drop_refuses_what_it_does_not_know_and_removes_nothing(folder, capsys, name):
    path = write(folder)
    assert main(["records", "drop", path.name, name]) == 2
    error = capsys.readouterr().err.strip()
    assert repr(name) in error and "nearest is" in error and "\n" not in error
    assert path.exists() and path.with_suffix(".npz").exists()


def test_a_copied_folder_counts_nowhere_and_goes_alone(folder, capsys):
    path = write(folder)
    copied = shutil.copytree(folder / "tiny", folder / "tiny-old") / "cuhk-sysu" / path.name
    shutil.copytree(copied.parent, folder / "tiny" / "prw")
    assert [record.path for record in read_records(folder)] == [path]
    assert [record.path for record in scan_records(folder)[0]] == [path]
    copied.write_text("")
    found = unfit_records(folder)
    assert set(found) == {f"{place}/{path.name}" for place in ("tiny-old/cuhk-sysu", "tiny/prw")}
    assert "outside tiny/cuhk-sysu" in found[f"tiny/prw/{path.name}"]
    assert main(["records", "drop", "--stale"]) == 0 and "4 files removed" in capsys.readouterr().out
    assert list(record_files(folder).values()) == [[path, path.with_suffix(".npz")]]


@pytest.mark.parametrize("written", ["{folder}/{file}", "tiny-old/cuhk-sysu/{stem}", "cuhk-sysu/{stem}.npz"])
def test_a_name_with_a_folder_takes_nothing_elsewhere(folder, monkeypatch, written):
    """Named whole, within the records' folder, or from where one is."""
    path = write(folder)
    copied = shutil.copytree(folder / "tiny", folder / "tiny-old") / "cuhk-sysu" / path.name
    monkeypatch.chdir(folder / "tiny-old")
    name = written.format(folder=copied.parent, file=copied.name, stem=copied.stem)
    assert len(drop_records(folder, [name])) == 2
    assert path.exists() and path.with_suffix(".npz").exists() and not copied.exists()


def test_of_two_records_of_one_run_the_one_named_so_stands(folder):
    path = write(folder)
    for suffix in (".json", ".npz"):  # sorts before the run's own
        shutil.copy(path.with_suffix(suffix), path.with_name(f"{path.stem} copy{suffix}"))
    assert [record.path for record in read_records(folder)] == [path]
    reason = f"a copy: it is of the same run as {path.name}"
    assert unfit_records(folder) == {f"tiny/cuhk-sysu/{path.stem} copy.json": reason}


def test_whatever_is_listed_as_stale_can_be_dropped(folder, capsys):
    path = write(folder)
    for suffix in (".json", ".npz"):
        shutil.copy(path.with_suffix(suffix), path.with_name(f"{path.stem} copy{suffix}"))
    (path.parent / "notes.json").write_text("{}")
    placed = path.parent / "a-0123456789ab-s0.json"
    placed.mkdir()
    assert len(unfit_records(folder)) == 3 and main(["records", "drop", "--stale"]) == 0
    said = capsys.readouterr().out
    assert f"{placed} is a folder, which is no record: remove it by hand" in said and "3 files removed" in said
    assert sorted(path.parent.iterdir()) == [placed, path, path.with_suffix(".npz")]


@pytest.mark.parametrize("suffix", [".json", ".npz", ""])
@pytest.mark.parametrize("command", [["records"], ["records", "stale"], ["records", "drop", "--stale"]])
def test_what_cannot_be_read_just_now_stops_the_command_and_stays(folder, capsys, monkeypatch, suffix, command):
    path = write(folder)
    closed = path.with_suffix(suffix) if suffix else path.parent
    close(monkeypatch, closed)
    assert main(command) == 2
    said = f"pslib: {closed}: Permission denied: make it readable, then run the command again.\n"
    assert capsys.readouterr().err == said
    assert path.exists() and path.with_suffix(".npz").exists()
    with pytest.raises(UnreadableError):
        set_aside(path) if suffix else find_record(folder, toy_recipe(), "h", 0)
    assert path.exists() and path.with_suffix(".npz").exists()


def close(monkeypatch, closed):
    """Take the right to read a file or folder away; file modes would not stop root."""

    def guarded(read):
        def reading(path, *arguments):
            if Path(path) == closed:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return read(path, *arguments)

        return reading

    monkeypatch.setattr(Path, "read_bytes", guarded(Path.read_bytes))
    monkeypatch.setattr(os, "listdir", guarded(os.listdir))


def test_a_damaged_set_is_said_where_records_are_held_against_it(folder, tmp_path, capsys):
    path = write(folder)
    manifest = tmp_path / "data/synthetic/tiny/cuhk-sysu/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text('{"fing')
    recipe = read_records(folder)[0].recipe
    for command in (["records", "stale"], ["records", "drop", "--stale"]):
        assert main(command) == 2 and "manifest.json is damaged: remove that folder" in capsys.readouterr().err
    with pytest.raises(UserError, match="is damaged"):
        runs_if_any(recipe)
    assert path.exists()
    manifest.unlink()
    assert len(runs_if_any(recipe)[0]) == 1 and runs_if_any(recipe.with_(kind="prw")) == ([], [])


def test_the_fingerprint_of_a_set_comes_from_a_record_that_can_be_used(folder, monkeypatch):
    path = write(folder)
    (path.parent / "a.json").write_text("[" * 100_000)
    (path.parent / "b.json").write_text('{"data": {"fingerprint": "g"}}')
    assert known_fingerprint("cuhk-sysu", "tiny") == "f"
    lookup._fingerprint.cache_clear()
    close(monkeypatch, path.parent)
    with pytest.raises(UnreadableError):
        known_fingerprint("cuhk-sysu", "tiny")


def test_a_long_name_leaves_no_room_for_the_source_and_is_printed(folder):
    write(folder, name="n" * 60)
    assert "n" * 60 in results_table(read_records(folder))


def test_drop_without_a_name_or_a_record_is_one_sentence(folder, capsys):
    assert main(["records", "drop"]) == 2 and "name a hash or a file" in capsys.readouterr().err
    assert main(["records", "drop", "x"]) == 2 and "there is none at all" in capsys.readouterr().err


@pytest.mark.parametrize("sorts_last", [True, False])
def test_a_run_with_other_settings_does_not_stand_for_a_name(folder, sorts_last):
    """Whether its hash comes before or after that of the recipe as it is named."""
    ours, rival = (find_recipe(name, "cuhk-sysu") for name in ("alignps", "baseline"))
    own = recipe_hash(ours, "f")
    others = (ours.with_(schedule__steps=steps) for steps in range(50, 5000))
    other = next(one for one in others if (recipe_hash(one, "f") > own) is sorts_last)
    for recipe, value in ((ours, 0.75), (rival, 0.5), (other, 0.01)):
        write_named(folder, recipe, value)
    assert "search mAP 25.0" in comparison(read_records(folder))


def test_the_table_holds_all_variants_of_both_sets_in_the_registrys_order(folder):
    from pslib.experiments.catalogue import VARIANTS
    from pslib.experiments.lookup import at_profile

    recipes = [at_profile(recipe.with_(kind=kind), "tiny") for kind in ("prw", "cuhk-sysu")
               for recipe in reversed(VARIANTS.values())]  # fmt: skip
    for recipe in recipes:
        changes = {"name": recipe.name, "kind": recipe.kind, "schedule__steps": 1 + len(recipe.name)}
        write(folder, **changes, model__channels=8 + list(VARIANTS).index(recipe.name))
    write(folder, name="of-the-reader", value=0.75)
    write(folder, name="larger", profile="small")
    write(folder, name="wild", status="diverged", seed=1)
    readable, _ = scan_records(folder)
    finished = [record for record in readable if record.info["status"] == "finished"]
    lines = results_table(finished).splitlines()
    assert max(map(len, lines)) <= 140 and len(lines) == 2 + 2 * len(VARIANTS) + 2
    names = [line.split()[1] for line in lines[2:]]
    count = len(VARIANTS)
    assert names[:count] == list(VARIANTS) and names[count + 2 :] == list(VARIANTS)
    assert set(names[count : count + 2]) == {"of-the-reader", "larger"} and "larger (small)" in "\n".join(lines)
    compared = comparison(finished)
    assert compared.count("alignps minus baseline") == 2 and max(map(len, compared.splitlines())) <= 140
    failed = failed_runs(readable)
    assert failed.startswith("FAILED cuhk-sysu wild, seed 1 (its loss curve is kept, 3 steps): training diverged")
    assert failed_runs(finished) == ""
