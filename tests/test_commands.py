"""pslib train, evaluate, records from the command line: a whole run in seconds, and every mistake in one sentence."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from toy_sets import toy_data, toy_model, toy_recipe, toy_root, write_toy_set

from pslib import paths
from pslib.cli import main
from pslib.data.loading import fingerprint
from pslib.errors import UserError
from pslib.evaluation.cbgm import RELEASED
from pslib.evaluation.gallery import embed_gallery
from pslib.experiments import commands
from pslib.experiments.catalogue import VARIANTS
from pslib.experiments.commands import apply_overrides, open_run_data, require_validation
from pslib.experiments.lookup import at_profile, find_recipe
from pslib.experiments.records import read_records, record_stem, write_record
from pslib.experiments.run import measure
from pslib.models.two_stage import TwoStage, TwoStageConfig
from pslib.training.checkpoints import load_model, load_weights, save_checkpoint, save_weights
from pslib.training.recipe import recipe_hash
from pslib.training.recipes import RECIPES, make_recipe

SMALL_RUN = ["schedule.steps=2", "schedule.batch_size=2", "model.channels=16", "model.head_channels=16",
             "model.head_depth=1", "warm_start=none"]  # fmt: skip


def pslib_train(out, *more, root=None, recipe="alignps", overrides=SMALL_RUN):
    settings = [word for override in overrides for word in ("--set", override)]
    root = root or toy_root()
    return main(["train", recipe, "--data-root", str(root), "--out", str(out), *settings, *more])


def one_sentence(capsys) -> str:
    error = capsys.readouterr().err.splitlines()
    said = [line for line in error if line.startswith("pslib: ")]
    assert len(said) == 1 and said[0].endswith(".") and not any("Traceback" in line for line in error)
    return said[0]


def test_train_evaluate_and_train_again(tmp_path, capsys, monkeypatch):
    assert pslib_train(tmp_path, "--seed", "7") == 0
    printed = capsys.readouterr().out
    record = read_records(tmp_path / "records")[0]
    assert record.info["seed"] == 7 and record.recipe.model.channels == 16 and record.recipe.schedule.steps == 2
    assert "RECORDED" in printed and f"record: {record.path}" in printed
    weights = tmp_path / "weights" / "alignps-cuhk-sysu-s7.safetensors"
    out = tmp_path / "scores.json"
    arguments = ["evaluate", str(weights), "--data-root", str(toy_root()), "--out", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "TestG100" in printed and "(main)" in printed
    scores = json.loads(out.read_text())["search"]["TestG100"]["map"]
    assert scores == pytest.approx(record.info["results"]["search"]["TestG100"]["map"], abs=8)
    assert main([*arguments, "--split", "validation"]) == 0
    monkeypatch.setattr("pslib.experiments.stages.train", lambda *_, **__: pytest.fail("trained again"))
    assert pslib_train(tmp_path, "--seed", "7") == 0


def test_ian_trains_from_its_start_is_evaluated_and_searches(tmp_path, capsys):
    wanted = ("schedule.steps=2", "schedule.batch_size=2", "warm_start=none", "model.embedding_dim=8")
    small = [prefix + setting for prefix in ("", "start.", "start.start.") for setting in wanted]
    assert pslib_train(tmp_path, recipe="ian", overrides=small) == 0
    record = read_records(tmp_path / "records")[0]
    assert record.recipe.start.start.schedule.steps == 2 and record.info["cost"]["earlier_seconds"] > 0
    weights = str(tmp_path / "weights" / "ian-cuhk-sysu-s0.safetensors")
    capsys.readouterr()
    assert main(["evaluate", weights, "--data-root", str(toy_root())]) == 0
    assert "TestG100" in capsys.readouterr().out
    image = next((toy_root() / "Image/SSM").glob("s1.jpg"))
    page = tmp_path / "result.html"
    arguments = ["search", "--query", str(image), "--box", "10,10,20,40", "--gallery", str(image.parent)]
    assert main([*arguments, "--weights", weights, "--out", str(page)]) == 0
    assert "distance" in page.read_text()


def test_seqnet_trains_and_is_evaluated_with_the_people_beside_the_query(tmp_path, capsys):
    small = ["schedule.steps=2", "schedule.batch_size=2", "warm_start=none", "model.roi.score_threshold=0.0"]
    assert pslib_train(tmp_path, recipe="seqnet", overrides=small) == 0
    weights, found = tmp_path / "weights" / "seqnet-cuhk-sysu-s0.safetensors", {}
    for name, more in (("plain", []), ("cbgm", ["--cbgm"])):
        out = tmp_path / f"{name}.json"
        assert main(["evaluate", str(weights), "--data-root", str(toy_root()), "--out", str(out), *more]) == 0
        assert ("beside the query: k1 10, k2 3, largest" in capsys.readouterr().out) is bool(more)
        found[name] = json.loads(out.read_text())
    assert found["cbgm"].pop("cbgm") == asdict(RELEASED["cuhk-sysu"])
    data = toy_data().test
    embeddings = embed_gallery(load_model(weights), data)
    assert found == {"plain": measure(data, embeddings)[0],
                     "cbgm": measure(data, embeddings, cbgm=RELEASED["cuhk-sysu"])[0]}  # fmt: skip
    assert found["plain"]["detection"] == found["cbgm"]["detection"]
    assert found["plain"]["ground_truth"] != found["cbgm"]["ground_truth"]


def test_distances_are_not_re_ranked(tmp_path, capsys):
    path = tmp_path / "ian.safetensors"
    save_weights(path, TwoStage(TwoStageConfig(embedding_dim=8), 5))
    assert main(["evaluate", str(path), "--data-root", str(toy_root()), "--cbgm"]) == 2
    assert f"the model of {path} compares by distance: leave --cbgm out." in one_sentence(capsys)


def test_a_switch_that_the_start_does_not_share_is_one_sentence(tmp_path, capsys):
    short = [f"{prefix}{setting}" for prefix in ("", "start.", "start.start.")
             for setting in ("schedule.steps=1", "schedule.batch_size=2", "warm_start=none")]  # fmt: skip
    assert pslib_train(tmp_path, recipe="ian", overrides=[*short, "model.embedding_dim=8"]) == 2
    assert "set the same switches in the recipe that it starts from" in one_sentence(capsys)


def test_records_for_pages_go_where_pages_read(tmp_path, monkeypatch):
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    for seed in ("0", "1"):  # with switches of their own they are records, yet not the weights of the recipe's name
        assert pslib_train(tmp_path / "out", "--record", "--seed", seed) == 0
    assert not paths.weights_dir().exists()
    whole = make_recipe("alignps", "cuhk-sysu").with_(schedule__steps=1, schedule__batch_size=2)
    monkeypatch.setattr(commands, "find_recipe", lambda *_: whole.with_(warm_start="none"))
    for seed in ("0", "1"):
        assert pslib_train(tmp_path / "out", "--record", "--seed", seed, overrides=()) == 0
    assert [record.info["seed"] for record in read_records(paths.results_dir())] == [0, 1, 0, 1]
    assert [path.name for path in paths.weights_dir().iterdir()] == ["alignps-cuhk-sysu.safetensors"]
    assert load_weights(paths.weights_dir() / "alignps-cuhk-sysu.safetensors")[1]["run"].endswith("-s0")
    assert "readout" in read_records(paths.results_dir())[0].info["results"]  # all that an experiment's record has


def test_a_recipe_is_refused_the_checkpoint_of_another(tmp_path, capsys):
    assert pslib_train(tmp_path / "a") == 0
    recipe = toy_recipe(schedule__steps=2)
    run_hash = recipe_hash(read_records(tmp_path / "a" / "records")[0].recipe, fingerprint(toy_root()))
    work = tmp_path / "b" / "work" / f"{run_hash}-s0"
    work.mkdir(parents=True)
    save_checkpoint(work / "checkpoint.pt", {"run": f"{recipe.name}-x", "step": 1})
    assert pslib_train(tmp_path / "b") == 2
    assert "belongs to run alignps-x" in one_sentence(capsys)
    assert not list((tmp_path / "b").rglob("*.json")) and not list((tmp_path / "b").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "alignsp"], "nearest: alignps"),
        (["train", "region-tsk"], "unknown recipe or variant 'region-tsk'"),
        (["train", "region-tsk"], "nearest: region-task"),
        (["train", "alignps", "--data-root", "no-such-folder"], "no-such-folder"),
        (["train", "alignps", "--set", "schedule.step=3"], "names no field"),
        (["train", "alignps", "--kind", "pwr"], "pwr"),
        (["train", "alignps", "--set", "stage=crops"], "no classifier of crops"),
        (["train", "ian", "--set", "weights.center=-1"], "weights.center=-1.0"),
        (["train", "ian", "--set", "model.dropout=1.5"], "dropout=1.5"),
        (["train", "ian", "--set", "model.center_alpha=2"], "center_alpha=2.0"),
        (["train", "alignps", "--set", "name=a/b"], "the name 'a/b'"),
        (["train", "alignps", "--seed", "1e3"], "--seed 1e3 is no whole number"),
        (["train", "alignps", "--seed", "100000000000000"], "--seed 100000000000000 is too large"),
        (["reproduce", "ian-table9"], "nearest: ian-table6"),
        (["evaluate", "no-such.safetensors"], "there are no weights at no-such.safetensors"),
        (["evaluate", "no-such.safetensors", "--out", "nowhere/x.json"], "make nowhere first"),
    ],
)
def test_mistakes_end_in_one_sentence_and_exit_code_2(arguments, said, capsys):
    assert main(arguments) == 2
    assert said in one_sentence(capsys)


def test_a_damaged_set_is_one_sentence_and_leaves_nothing(tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(toy_root(), root)
    shutil.copytree(toy_root().with_name("cuhk-sysu-val"), tmp_path / "set-val")
    image = next((root / "Image/SSM").glob("s1.jpg"))
    image.write_bytes(image.read_bytes()[:300])
    assert pslib_train(tmp_path / "out", root=root, overrides=[*SMALL_RUN, "schedule.batch_size=12"]) == 2
    assert "s1.jpg does not decode" in one_sentence(capsys)
    assert not list((tmp_path / "out").rglob("*.json"))


def test_a_diverging_run_ends_in_a_sentence_and_is_recorded(tmp_path, capsys):
    wild = [*SMALL_RUN, "schedule.learning_rate=1e12", "schedule.warmup_steps=0", "schedule.clip_norm=1e30",
            "schedule.steps=8"]  # fmt: skip
    assert pslib_train(tmp_path, overrides=wild) == 2
    assert "lower schedule.learning_rate" in one_sentence(capsys)
    stored = [json.loads(path.read_text())["status"] for path in (tmp_path / "records").rglob("*.json")]
    assert stored == ["diverged"]


def test_evaluate_scales_and_cuts_off_as_the_run_was_tested(tmp_path, monkeypatch):
    path, seen = tmp_path / "w.safetensors", []
    save_weights(path, toy_model(), {"test_size": "[150, 100]", "search_threshold": "0.2"})
    work = commands.evaluate_test

    def watched(model, recipe, *rest):
        seen.append((recipe.test_size, recipe.search_threshold))
        return work(model, recipe, *rest)

    monkeypatch.setattr(commands, "evaluate_test", watched)
    assert main(["evaluate", str(path), "--data-root", str(toy_root())]) == 0
    save_weights(path, toy_model())
    assert main(["evaluate", str(path), "--data-root", str(toy_root())]) == 0
    assert seen == [((150, 100), 0.2), (None, 0.0)]


def test_the_profile_asked_for_is_the_profile_trained(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(commands, "open_run_data", lambda *arguments: asked.append(arguments) or toy_data())
    small = ["schedule.steps=1", "schedule.batch_size=2", "warm_start=none"]
    assert pslib_train(tmp_path, "--profile", "small", "--kind", "prw", overrides=small) == 0
    assert asked[0][:2] == ("prw", "small")
    (record,) = read_records(tmp_path / "records")
    assert record.recipe == at_profile(make_recipe("alignps", "prw"), "small").with_(
        schedule__steps=1, schedule__batch_size=2, warm_start="none"
    )
    assert (record.recipe.profile, record.recipe.model.backbone) == ("small", "resnet18")


def test_a_variant_of_a_table_is_trained_by_its_name(tmp_path):
    small = [setting for setting in SMALL_RUN if not setting.startswith("model.head_depth")]
    assert pslib_train(tmp_path, recipe="p4", overrides=small) == 0
    (record,) = read_records(tmp_path / "records")
    assert (record.recipe.name, record.recipe.model.levels) == ("p4", ("P4",))
    assert (tmp_path / "weights" / "p4-cuhk-sysu-s0.safetensors").exists()


@pytest.mark.parametrize("kind", ["cuhk-sysu", "prw"])
def test_a_name_means_one_recipe(kind):
    """A recipe that a table has among its rows is the same there, and every variant is found by its own name."""
    for name, recipe in VARIANTS.items():
        assert find_recipe(name, kind) == recipe.with_(kind=kind)
        assert find_recipe(name, kind).name == name
    assert all(find_recipe(name, kind) == make_recipe(name, kind) for name in RECIPES)


def test_a_set_without_validation_has_some_people_set_aside(tmp_path):
    root = write_toy_set(tmp_path / "plain")
    data = open_run_data("cuhk-sysu", "tiny", root)
    kept, held = set(data.train.person_ids.tolist()), set(data.validation.person_ids.tolist())
    assert held and not kept & held and kept | held == {11, 12, 15, 19, 20, 23}
    assert len(data.test.frames) == 8 and open_run_data("cuhk-sysu", "tiny", root).fingerprint == data.fingerprint
    whole = open_run_data("cuhk-sysu", "paper", root)  # as the papers train
    assert set(whole.train.person_ids.tolist()) == kept | held and whole.validation is None
    assert whole.fingerprint == fingerprint(root) != data.fingerprint, "a cut set is another one"
    with pytest.raises(UserError, match="none are left for validation"):
        require_validation(whole)
    beside = open_run_data("cuhk-sysu", "tiny", toy_root())
    assert len(beside.train.frames) == 12 and len(beside.validation.frames) == 8


def test_a_fingerprint_follows_annotations_and_not_pixels(tmp_path):
    first, same, other = (write_toy_set(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    for image in (same / "Image/SSM").iterdir():
        shutil.copy(first / "Image/SSM/s1.jpg", image)
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
    (first / "manifest.json").write_text('{"fingerprint": "drawn"}')
    assert fingerprint(first) == "drawn"
    (first / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        fingerprint(first)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("schedule.steps=5", ("schedule", "steps", 5)),
        ("schedule.learning_rate=1", ("schedule", "learning_rate", 1.0)),
        ("model.structure=parallel", ("model", "structure", "parallel")),
        ("model.levels=('P3', 'P4')", ("model", "levels", ("P3", "P4"))),
        ("model.queue_channels=64", ("model", "queue_channels", 64)),
        ("model.backbone_weights=None", ("model", "backbone_weights", None)),
        ("model.backbone_weights=IMAGENET1K_V1", ("model", "backbone_weights", "IMAGENET1K_V1")),
    ],
)
def test_an_override_sets_its_field(override, expected):
    part, name, value = expected
    found = getattr(getattr(apply_overrides(make_recipe("alignps-paper", "prw"), [override]), part), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "override",
    ["steps", "schedule.steps", "schedule.nothing=3", "schedule.steps.real=3", "with_=3", "schedule.steps=abc",
     "schedule.steps=1.5", "schedule.steps=True", "flip=no", "flip=1", "model.levels=P4", "model.levels=['P4']",
     "schedule=3", "model.channels=None", "=3", "model.structure=both", "schedule.steps=0", "schedule.clip_norm=-1",
     "schedule.clip_norm=0", "schedule.learning_rate=-1", "schedule.offset_rate=-1", "schedule.weight_decay=-1",
     "schedule.warmup_steps=-1", "workers=-1", "image_sizes=((10,),)", "test_size=(0, 10)", "model.oim_momentum=1.0",
     "image_sizes=(5,)", "image_sizes=(('a', 'b'),)", "test_size=('a', 5)", "crop_size=()", "crop_size=('a', 5)",
     "schedule.milestones=('0.5',)", "model.channels=0", "model.head_depth=-1", "model.temperature=0.0",
     "model.queue_temperature=-1", "model.detections_per_image=0", "name=", "name=a/b",
     "model.queue_size=-1", "model.head_channels=28", "model.size_cuts=(1,'a')", "model.focal_gamma=0.5"],
)  # fmt: skip
def test_an_override_that_fits_nothing_is_one_sentence(override):
    with pytest.raises(UserError) as error:
        apply_overrides(make_recipe("alignps", "prw"), [override])
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_records_prints_a_table_or_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path))
    assert main(["records"]) == 0 and "no records yet" in capsys.readouterr().out
    recipe, maps = toy_recipe(), {"TestG100": {"map": 75.0}}
    protocol = {"TestG100/people": np.array([1, 2]), "TestG100/detected/ap": np.array([1.0, 0.5]),
                "TestG100/detected/rank": np.array([1, 2]),
                "TestG100/ground-truth/ap": np.array([1.0, 1.0])}  # fmt: skip
    info = {"recipe": asdict(recipe), "hash": recipe_hash(recipe, "f"), "seed": 0, "status": "finished",
            "protocols": ["TestG100"], "device": "cpu", "date": "2026-01-01", "data": {"fingerprint": "f"},
            "results": {"detection": {"recall": 91.0}, "search": maps, "ground_truth": maps}}  # fmt: skip
    write_record(record_stem(paths.results_dir(), recipe, info["hash"], 0), info, protocol)
    assert main(["records"]) == 0
    printed = capsys.readouterr().out
    assert "75.0 [" in printed and "91.0" in printed and "STALE" not in printed
    failed = info | {"seed": 1, "status": "diverged", "reason": "not finite", "protocols": []}
    write_record(record_stem(paths.results_dir(), recipe, info["hash"], 1), failed, {})
    assert main(["records", "--json"]) == 0
    told = [(one["hash"], one["status"]) for one in json.loads(capsys.readouterr().out)]
    assert told == [(info["hash"], "finished"), (info["hash"], "diverged")]
    for arguments in (["records", "--json", "list"], ["records", "list", "--json"]):
        assert main(arguments) == 0 and len(json.loads(capsys.readouterr().out)) == 2
    assert main(["records", "list"]) == 0 and "75.0 [" in capsys.readouterr().out


def test_a_root_that_is_not_there_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PSLIB_ROOT", str(tmp_path / "nowhere"))
    assert main(["records"]) == 2 and "nowhere is no folder: set it to a checkout" in one_sentence(capsys)


def test_a_broken_link_in_the_way_is_one_sentence(tmp_path, capsys):
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    assert main(["train", "alignps", "--set", "schedule.steps=2", "--out", str(tmp_path / "out")]) == 2
    assert "broken link is in the way" in one_sentence(capsys)


def test_warm_start_prints_what_the_backbone_knows(monkeypatch, capsys, tmp_path):
    answered = {"neutral": {"view": 0.75}, "identity": {"identity": 0.5}}
    monkeypatch.setattr(
        commands, "make_warm_start", lambda name, kind, device: (tmp_path / name, answered[kind])
    )
    assert main(["warm-start", "--backbone", "tiny"]) == 0
    printed = capsys.readouterr().out
    assert "75.0 %" in printed and "25.0 %" in printed and str(tmp_path / "tiny") in printed
    assert main(["warm-start", "--kind", "identity"]) == 0
    assert "50.0 %   (guessing evenly: 0.2 %)" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "said"), [
    (["trian", "alignps"], "unknown command 'trian'"),
    (["train", "alignps", "--profile", "tniy"], "choose tiny, small or paper (nearest: tiny)"),
    (["evaluate", "x.safetensors", "--kind", "prv"], "unknown --kind 'prv': choose cuhk-sysu or prw (nearest: prw)"),
    (["records", "lsit"], "(nearest: list)"),
])  # fmt: skip
def test_a_misspelt_word_gets_the_nearest(arguments, said, capsys):
    assert main(arguments) == 2 and said in one_sentence(capsys)
