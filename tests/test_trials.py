"""pslib trial: what it keeps, that it sees no test person, and that of two processes none loses the other's."""

import json
from dataclasses import replace
from multiprocessing import get_context

import pytest
from toy_sets import toy_data, toy_recipe, toy_root

from pslib import paths
from pslib.cli import main
from pslib.errors import UserError
from pslib.experiments import run as run_module
from pslib.experiments import trials
from pslib.experiments.trials import add_trial, read_trials, run_trial, trial_lines
from pslib.models.alignps import AlignPSConfig
from pslib.models.roi_alignps import RoiAlignPSConfig
from pslib.models.roi_branch import RoiBranchConfig
from pslib.training.recipe import Recipe, Schedule

SMALL = ["schedule.steps=6", "schedule.batch_size=2", "model.channels=16", "model.head_channels=16",
         "model.head_depth=1", "warm_start=none"]  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Trials of this test only, kept in a folder of its own."""
    monkeypatch.setattr(paths, "results_dir", lambda: tmp_path / "data" / "results")
    monkeypatch.setattr(paths, "build_dir", lambda: tmp_path / "build")
    return tmp_path


def pslib_trial(*more, recipe="alignps", settings=SMALL):
    words = [word for setting in settings for word in ("--set", setting)]
    return main(["trial", recipe, "--data-root", str(toy_root()), *words, *more])


def test_a_trial_is_noted_once_and_printed_beside_the_others(project, capsys, monkeypatch):
    assert pslib_trial("--note", "is it small enough?") == 0
    (one,) = read_trials()
    assert one["recipe"] == "alignps" and one["settings"] == dict(text.split("=") for text in SMALL)
    assert (one["seed"], one["set"], one["profile"], one["device"]) == (0, "cuhk-sysu", "tiny", "cpu")
    assert one["note"] == "is it small enough?" and one["date"][:2] == "20" and "diverged" not in one
    assert [point["step"] for point in one["validation"]] == [1, 2, 3, 4, 6]
    assert all(set(point) == {"step", "map", "top1", "ground_truth_map", "recall"} for point in one["validation"])
    assert len(one["losses"]["oim, mean of each sixth"]) == 6
    assert "is it" not in capsys.readouterr().out and not list((project / "build" / "trials").glob("*/checkpoint.pt"))
    with monkeypatch.context() as patch:
        patch.setattr("pslib.experiments.stages.train", lambda *_, **__: pytest.fail("trained again"))
        assert pslib_trial() == 0 and read_trials() == [one]
    assert "made before" in capsys.readouterr().out
    assert pslib_trial("--seed", "1") == 0
    assert [found["seed"] for found in read_trials()] == [0, 1]
    assert [left.name for left in (project / "data").iterdir()] == ["trials.json"]  # the checkout stays clean
    lines = [line for line in capsys.readouterr().out.splitlines() if " steps)" in line]  # bars may be lines too
    assert len(lines) == 2 and "seed 0: mAP" in lines[0] and lines[1].endswith("(after 6 steps)")


def test_it_trains_as_a_run_does_and_sees_no_test_people(tmp_path, monkeypatch):
    recipe, data = toy_recipe(model__class_threshold=0.0), toy_data()
    record = run_module.run(recipe, 3, data, records=tmp_path / "r", work=tmp_path / "w")
    info = run_module.read_record(record).info
    blind = replace(data, test=None)  # a look at test people would fail
    found = run_trial(recipe, 3, blind, tmp_path / "t")
    assert found["hash"] == info["hash"]
    for mine, recorded in zip(found["validation"], info["validation"], strict=True):
        assert mine == pytest.approx(recorded, abs=0.0051)


def test_every_read_of_a_model_is_measured(tmp_path):
    recipe = Recipe(
        "roi-alignps",
        "cuhk-sysu",
        model=RoiAlignPSConfig(
            dense=AlignPSConfig(channels=16, head_channels=16, head_depth=1, queue_size=8, size_cuts=(24.0, 40.0)),
            roi=RoiBranchConfig(roi_size=4, dim=16, queue_size=8, rois_per_image=8),
            mutual=(),
        ),
        schedule=Schedule(steps=2, batch_size=2, warmup_steps=1),
        warm_start="none",
    )
    found = run_trial(recipe, 0, toy_data(), tmp_path)
    last = [point for point in found["validation"] if point["step"] == 2]
    assert {point["read"] for point in last} == set(recipe.model.reads) and len(last) == len(recipe.model.reads)
    assert found["losses"] == {}  # two steps have no six parts
    printed = trial_lines([{"recipe": "roi-alignps", "settings": {}, "set": "cuhk-sysu", "seed": 0, **found}])
    assert len(printed) == len(last) and all("as it is" in line for line in printed)


def test_a_trial_that_diverges_is_noted_with_its_reason(project, capsys):
    wild = [*SMALL[1:], "schedule.steps=60", "schedule.learning_rate=1e30", "schedule.warmup_steps=0"]
    assert pslib_trial(settings=wild) == 0
    (one,) = read_trials()
    assert "diverged at step" in one["diverged"] and one["validation"] == []
    assert "not measured, training diverged" in capsys.readouterr().out


def _add_many(path, name):
    for number in range(20):
        add_trial({"recipe": name, "settings": {}, "seed": number, "set": "prw"}, path)


def test_processes_that_add_at_once_lose_nothing(tmp_path):
    path = tmp_path / "trials.json"
    workers = [get_context("spawn").Process(target=_add_many, args=(path, name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = [(one["recipe"], one["seed"]) for one in read_trials(path)]
    assert sorted(found) == [(name, number) for name in "ab" for number in range(20)]


def test_mistakes_are_one_sentence(project, capsys, tmp_path):
    assert pslib_trial(recipe="alignp") == 2 and "alignps" in capsys.readouterr().err
    assert pslib_trial(settings=["weights.oi=1"]) == 2 and "weights.oi" in capsys.readouterr().err
    with pytest.raises(UserError, match="no validation people"):
        run_trial(toy_recipe(), 0, replace(toy_data(), validation=None), tmp_path)
    trials.trials_path().parent.mkdir(parents=True, exist_ok=True)
    for damaged in ("[", json.dumps({"recipe": "alignps"}), "[1]", "[{}]"):
        trials.trials_path().write_text(damaged)
        with pytest.raises(UserError, match="trials.json cannot be read: git restores"):
            read_trials()
