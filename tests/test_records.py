"""Recipes and their hash; records: what they hold, that they are whole or absent, damaged ones, stale ones."""

import copy
import json
import os
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import pytest
from toy_sets import toy_recipe

from pslib.errors import UserError
from pslib.experiments import records as records_module
from pslib.experiments.records import (
    RECORD_VERSION,
    DamagedRecordError,
    provenance,
    read_record,
    read_records,
    recipe_from_dict,
    record_stem,
    write_record,
)  # fmt: skip
from pslib.training import recipe as recipe_module
from pslib.training.recipe import COMPONENT_VERSIONS, Recipe, component_versions, family_of, recipe_hash
from pslib.training.recipes import RECIPES, make_recipe

OTHER = {
    "kind": "prw", "profile": "small", "warm_start": "none", "flip": False, "image_sizes": ((96, 64),),
    "test_size": (150, 90), "name": "other", "workers": 5, "stage": "crops", "crop_size": (48, 24), "folds": 5,
    "search_threshold": 0.5,
    "start": Recipe("first", "cuhk-sysu"),
}  # fmt: skip


def changed(value):
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return value[1:] if len(value) > 1 and isinstance(value[0], float) else ("P4",)
    return 64 if value is None else None


def every_change():
    recipe = RECIPES["alignps"]
    for item in fields(recipe):
        if item.name in OTHER:
            yield item.name, OTHER[item.name]
        else:
            part = getattr(recipe, item.name)
            for inner in fields(part):
                yield f"{item.name}__{inner.name}", changed(getattr(part, inner.name))


def unchecked(recipe, name, value):
    """``recipe.with_`` without the checks of values, which are tested elsewhere."""
    copied = copy.deepcopy(recipe)
    part, _, inner = name.partition("__")
    object.__setattr__(getattr(copied, part) if inner else copied, inner or part, value)
    return copied


@pytest.mark.parametrize(("name", "value"), [pytest.param(*change, id=change[0]) for change in every_change()])
def test_the_hash_covers_every_field_that_moves_results(name, value):
    recipe = RECIPES["alignps"]
    other = unchecked(recipe, name, value)
    assert other != recipe
    assert (recipe_hash(other, "f") == recipe_hash(recipe, "f")) is (name in ("name", "workers"))


def test_a_switch_added_at_its_default_leaves_the_hash_alone():
    @dataclass(frozen=True)
    class Larger(Recipe):
        new_switch: bool = False

    recipe = RECIPES["alignps"]
    plain = {item.name: getattr(recipe, item.name) for item in fields(recipe)}
    assert recipe_hash(Larger(**plain), "f") == recipe_hash(recipe, "f")
    assert recipe_hash(Larger(**plain, new_switch=True), "f") != recipe_hash(recipe, "f")


@pytest.mark.parametrize("name", ["alignps", "ian"])
def test_the_hash_covers_the_data_and_every_component_of_the_family(monkeypatch, name):
    recipe = RECIPES[name]
    before = recipe_hash(recipe, "f")
    assert recipe_hash(recipe, "f") == before and len(before) == 12 and recipe_hash(recipe, "g") != before
    for component, number in COMPONENT_VERSIONS.items():
        monkeypatch.setitem(recipe_module.COMPONENT_VERSIONS, component, number + 1)
        assert (recipe_hash(recipe, "f") != before) is (component in component_versions(recipe))
        monkeypatch.setitem(recipe_module.COMPONENT_VERSIONS, component, number)
    assert recipe_hash(recipe, "f") == before


def test_no_component_is_outside_all_families():
    found = [component_versions(recipe) for recipe in RECIPES.values()]
    assert {name: number for one in found for name, number in one.items()} == COMPONENT_VERSIONS
    families = {family_of(recipe) for recipe in RECIPES.values()} - {"seqnet"}  # which shares NAE's components
    assert len({tuple(sorted(one)) for one in found}) == len(families)


def test_the_hash_covers_the_recipe_it_starts_from():
    recipe = RECIPES["ian"]
    renamed = recipe.with_(start=recipe.start.with_(name="another", workers=3))
    assert recipe_hash(renamed, "f") == recipe_hash(recipe, "f")
    longer = recipe.with_(start=recipe.start.with_(schedule__steps=recipe.start.schedule.steps + 1))
    assert recipe_hash(longer, "f") != recipe_hash(recipe, "f")
    first = recipe.start.with_(start=recipe.start.start.with_(crop_size=(48, 24)))
    assert recipe_hash(recipe.with_(start=first), "f") != recipe_hash(recipe, "f")


def test_a_chain_of_recipes_moves_to_another_set_as_one():
    recipe = RECIPES["ian"].with_(kind="prw", folds=5)
    chain = [recipe, recipe.start, recipe.start.start]
    assert [(part.kind, part.folds) for part in chain] == [("prw", 5)] * 3
    assert RECIPES["ian"].start.kind == "cuhk-sysu"


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("kind", ["cuhk-sysu", "prw"])
def test_recipes_survive_json_with_their_hash(name, kind):
    recipe = make_recipe(name, kind)
    rebuilt = recipe_from_dict(json.loads(json.dumps(asdict(recipe))))
    assert rebuilt == recipe and rebuilt.kind == kind
    assert recipe_hash(rebuilt, "f") == recipe_hash(recipe, "f")


def test_misspelt_names_are_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"nearest: baseline"):
        make_recipe("basline", "prw")
    with pytest.raises(UserError, match=r"nearest: prw"):
        make_recipe("alignps", "pwr")


def test_with_reaches_into_parts_and_leaves_the_original():
    recipe = RECIPES["alignps"]
    other = recipe.with_(name="x", model__levels=("P4",), model__channels=8, schedule__steps=3)
    assert (other.name, other.model.levels, other.model.channels, other.schedule.steps) == ("x", ("P4",), 8, 3)
    assert recipe == RECIPES["alignps"] and other.weights == recipe.weights


ARRAYS = {
    "TestG50/people": np.array([4, 4, 9]),
    "TestG50/detected/ap": np.array([0.5, 0.25, 0.0], np.float32),
    "TestG50/detected/rank": np.array([1, 3, 0], np.int32),
    "TestG50/ground-truth/ap": np.array([1.0, 0.5, 0.5], np.float32),
    "loss/oim": np.array([3.0, 2.0], np.float32),
}
MAP = {"TestG50": {"map": 25.0}}
RESULTS = {"detection": {"recall": 91.0}, "search": MAP, "ground_truth": MAP}


def write(folder, seed=0, status="finished", fingerprint="f", **changes):
    recipe = toy_recipe(**changes)
    run_hash = recipe_hash(recipe, fingerprint)
    info = {"recipe": asdict(recipe), "hash": run_hash, "seed": seed, "status": status, "protocols": ["TestG50"],
            "data": {"fingerprint": fingerprint}, "results": RESULTS, "reason": "not finite"}  # fmt: skip
    return write_record(record_stem(folder, recipe, run_hash, seed), info, ARRAYS)


def test_a_record_round_trips(tmp_path):
    path = write(tmp_path)
    recipe = toy_recipe()
    assert path == tmp_path / "tiny" / "cuhk-sysu" / f"alignps-{recipe_hash(recipe, 'f')}-s0.json"
    record = read_record(path)
    assert record.recipe == recipe and not record.stale and record.info["record_version"] == RECORD_VERSION
    assert set(record.arrays) == set(ARRAYS)
    assert all(np.array_equal(record.arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert record.ap("TestG50").tolist() == [0.5, 0.25, 0.0] and record.ap("TestG50").dtype == np.float64
    assert record.ap("TestG50", "ground-truth").tolist() == [1.0, 0.5, 0.5]
    assert record.rank("TestG50").tolist() == [1, 3, 0] and record.people("TestG50").tolist() == [4, 4, 9]
    with pytest.raises(UserError, match="TestG50"):
        record.ap("TestG100")
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".json", ".npz"]


def test_a_kill_between_the_two_files_leaves_no_record(tmp_path, monkeypatch):
    replaced = []

    def kill_after_npz(source, target):
        if replaced:
            raise KeyboardInterrupt
        replaced.append(target)
        os.rename(source, target)

    monkeypatch.setattr(records_module.os, "replace", kill_after_npz)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    monkeypatch.undo()
    assert replaced[0].suffix == ".npz" and read_records(tmp_path) == []
    write(tmp_path)  # and the next attempt finishes
    assert len(read_records(tmp_path)) == 1


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records_module.os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        write(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text(path.read_text()[:100]),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"hash": "x"}'),
        lambda path: path.write_text('{"record_version": 1}'),
        lambda path: path.write_text('{"record_version": 1, "status": "finished", "seed": 0}'),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.with_suffix(".npz").unlink(),
        lambda path: path.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes()[:200]),
        lambda path: path.with_suffix(".npz").write_bytes(b"PK not a zip"),
        lambda path: path.with_suffix(".npz").write_bytes(b""),
        lambda path: np.savez(path.with_suffix(".npz"), objects=np.array([{}], object)),
        lambda path: path.unlink(),
    ],
    ids=["cut", "list", "no-version", "no-status", "no-results", "bytes", "deep", "no-npz", "npz-cut", "npz-foreign",
         "npz-empty", "pickle", "absent"],
)
def test_a_damaged_record_is_one_sentence(tmp_path, damage):
    path = write(tmp_path)
    damage(path)
    with pytest.raises(UserError) as error:
        read_record(path)
    assert str(path) in str(error.value) and "delete it and rerun" in str(error.value)


WRONG = [
    ("results", None), ("results", {}), ("results", RESULTS | {"search": {}}), ("results", RESULTS | {"detection": 1}),
    ("results", RESULTS | {"reads": None}), ("results", RESULTS | {"reads": {"dense": {}}}), ("recipe", None),
    ("recipe", {}), ("recipe__schedule", None), ("recipe__start", "x"), ("recipe__start", {}), ("recipe__name", 1),
    ("data", []), ("data", {}), ("components", None), ("seed", "1"), ("seed", None), ("seed", True), ("hash", 1),
    ("protocols", None), ("protocols", ["Foo"]), ("protocols", [[]]), ("validation", [1]), ("device", None),
]  # fmt: skip


@pytest.mark.parametrize(("part", "value"), WRONG, ids=str)
def test_a_record_of_a_wrong_shape_is_damaged(tmp_path, part, value):
    path = write(tmp_path)
    info = json.loads(path.read_text())
    first, _, inner = part.partition("__")
    info[first] = info[first] | {inner: value} if inner else value
    path.write_text(json.dumps(info))
    with pytest.raises(DamagedRecordError, match=r"of a wrong shape\): delete it and rerun") as error:
        read_record(path)
    assert str(path) in str(error.value)


def test_what_did_not_finish_its_tests_needs_no_results(tmp_path):
    path = write(tmp_path, status="diverged")
    whole = json.loads(path.read_text())
    without = {name: value for name, value in whole.items() if name not in ("results", "protocols")}
    for info in (without, whole | {"status": "finished", "results": {}, "protocols": []}):
        path.write_text(json.dumps(info))
        assert read_record(path).info["seed"] == 0


def test_a_flipped_bit_in_the_arrays_is_seen(tmp_path):
    path = write(tmp_path)
    npz = path.with_suffix(".npz")
    content = bytearray(npz.read_bytes())
    content[content.index(b"TestG50/people") + 80] ^= 0xFF
    npz.write_bytes(bytes(content))
    with pytest.raises(UserError, match="cannot be read"):
        read_record(path)


def test_a_record_of_another_version_is_refused(tmp_path):
    path = write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"record_version": 99}))
    with pytest.raises(UserError, match="version 99, not 1"):
        read_record(path)


def test_records_made_before_a_change_are_stale(tmp_path, monkeypatch):
    record = read_record(write(tmp_path))
    assert not record.stale
    monkeypatch.setitem(recipe_module.COMPONENT_VERSIONS, "oim_loss", COMPONENT_VERSIONS["oim_loss"] + 1)
    assert record.stale
    monkeypatch.undo()
    without = {name: value for name, value in record.info["recipe"].items() if name != "flip"}
    assert not replace(record, info=record.info | {"recipe": without}).stale  # a default changes nothing
    old_model = record.info["recipe"]["model"] | {"structure": "old"}
    for recipe in (without | {"mixup": 0.5}, without | {"model": old_model}):
        assert replace(record, info=record.info | {"recipe": recipe}).stale


def test_only_finished_records_of_the_wanted_kind_are_read(tmp_path):
    write(tmp_path, seed=1)
    write(tmp_path, seed=0)
    write(tmp_path, kind="prw", name="baseline")
    write(tmp_path, seed=2, status="diverged")
    assert [record.info["seed"] for record in read_records(tmp_path, kind="cuhk-sysu")] == [0, 1]
    assert [record.recipe.name for record in read_records(tmp_path, name="baseline", kind="prw")] == ["baseline"]
    assert len(read_records(tmp_path)) == 3 and read_records(tmp_path / "absent") == []


def test_provenance_says_where_and_with_what(monkeypatch):
    found = provenance("cpu", RECIPES["alignps"], ("numpy", "no-such-package"))
    assert found["packages"] == {"numpy": np.__version__, "no-such-package": "not installed"}
    assert found["device"] == "cpu" and "cores" in found["machine"]
    assert found["components"] == component_versions(RECIPES["alignps"])
    monkeypatch.setattr(records_module.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert provenance("cpu", RECIPES["alignps"], ())["commit"] == ""
