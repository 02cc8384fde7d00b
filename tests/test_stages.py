"""Chains of recipes: each step begins where the one before ended, is trained once, and survives a kill."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from toy_sets import toy_data, toy_recipe

from pslib.data.annotations import UNLABELLED, PersonSearchSet
from pslib.data.validation import carve_fold
from pslib.errors import NotFiniteError, UserError
from pslib.experiments import stages
from pslib.experiments.records import code_commit, read_record
from pslib.experiments.reproduce import Job, reproduce
from pslib.experiments.run import run
from pslib.experiments.stages import checkpoint_of, state_of, train_chain
from pslib.experiments.tables import results_table
from pslib.models import two_stage
from pslib.models.alignps import AlignPSConfig
from pslib.models.backbones import build_backbone
from pslib.models.two_stage import TwoStageConfig
from pslib.training import trainer
from pslib.training.checkpoints import load_checkpoint, load_model, save_checkpoint
from pslib.training.crops import CropBatches, background_box
from pslib.training.ian_recipes import fine_tuned
from pslib.training.recipe import Schedule, recipe_hash
from pslib.training.trainer import DivergedError, build_model, train

SHORT = Schedule(steps=2, batch_size=2, learning_rate=1e-3, warmup_steps=0)
CROPS = toy_recipe(
    name="toy-crops",
    model=TwoStageConfig(embedding_dim=8, rss_samples=3, rois_per_image=8),
    schedule=SHORT,
    stage="crops",
    crop_size=(16, 12),
    warm_start="none",
)
SCENES = CROPS.with_(name="toy-scenes", stage="scenes", start=CROPS)
LAST = fine_tuned(SCENES, "toy-ian", SHORT, center=0.5)


def chain(recipe, folder, **options):
    return train_chain(recipe, toy_data().train, "f", 0, work=folder, **options)


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_chain_is_its_steps_one_after_another(tmp_path):
    data = toy_data().train
    state = None
    for recipe in (CROPS, SCENES, LAST):
        model, _ = train(recipe, data, 0, initial=state)
        state = model.state_dict()
    found, curves = chain(LAST, tmp_path)
    assert same(found.state_dict(), state)
    assert len(curves.losses["rss"]) == 2 and curves.earlier_seconds > 0 and not found.training
    assert {"center", "rss_people"} <= set(curves.losses)


def test_what_two_recipes_start_from_is_trained_once(tmp_path, monkeypatch):
    trained = []

    def counting(recipe, *arguments, **options):
        trained.append(recipe.name)
        return train(recipe, *arguments, **options)

    monkeypatch.setattr(stages, "train", counting)
    chain(LAST, tmp_path)
    chain(fine_tuned(SCENES, "other", SHORT), tmp_path)
    chain(SCENES, tmp_path)
    assert trained == ["toy-crops", "toy-scenes", "toy-ian", "other"]


def test_kept_weights_are_validated_when_asked(tmp_path):
    chain(SCENES, tmp_path)
    _, curves = chain(SCENES, tmp_path, validate=lambda model: {"map": 1.0}, validate_at=(2,))
    assert curves.validation == [{"step": 2, "map": 1.0}]


def test_a_killed_chain_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    whole, _ = chain(LAST, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def killed(path, state):
        save_checkpoint(path, state)
        if recipe_hash(SCENES, "f") in str(path):
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(stages, "train", partial(train, checkpoint_every=1))
        patch.setattr(trainer, "save_checkpoint", killed)
        with pytest.raises(KilledError):
            chain(LAST, tmp_path / "killed")
    run_hash = recipe_hash(SCENES, "f")
    assert not state_of(tmp_path / "killed", run_hash, 0).exists()
    assert load_checkpoint(checkpoint_of(tmp_path / "killed", run_hash, 0), f"{run_hash}-s0")["step"] == 1
    again, _ = chain(LAST, tmp_path / "killed")
    assert same(again.state_dict(), whole.state_dict())


def test_a_checkpoint_left_by_a_kill_after_the_weights_were_kept_goes(tmp_path):
    chain(CROPS, tmp_path)
    left = checkpoint_of(tmp_path, recipe_hash(CROPS, "f"), 0)
    left.parent.mkdir()
    left.write_bytes(b"left")
    chain(CROPS, tmp_path)
    assert not left.parent.exists()


def test_a_recorded_run_leaves_the_checkpoint_of_who_trains_it_as_a_start(tmp_path):
    data, places = {"cuhk-sysu": toy_data()}, {"records": tmp_path / "records", "work": tmp_path / "work"}
    jobs = [Job("scenes", SCENES, 0)]
    assert "recorded" not in next(reproduce(jobs, data, device="cpu", **places))
    run_hash = recipe_hash(SCENES, data["cuhk-sysu"].fingerprint)
    left = checkpoint_of(tmp_path / "work", run_hash, 0)
    left.parent.mkdir()
    left.write_bytes(b"half-way")
    assert next(reproduce(jobs, data, device="cpu", **places)).endswith("(recorded)") and left.exists()


def test_a_record_names_the_code_that_trained_and_the_code_that_wrote_it_down(tmp_path, monkeypatch):
    places = {"records": tmp_path / "records", "work": tmp_path / "work"}
    monkeypatch.setattr(stages, "code_commit", lambda: "trained")
    chain_data = toy_data()
    train_chain(SCENES, chain_data.train, chain_data.fingerprint, 0, work=places["work"])
    record = read_record(run(SCENES, 0, chain_data, **places))
    assert record.commit == record.info["trained_commit"] == "trained" != record.info["commit"]
    del record.info["trained_commit"]  # as in older records
    assert record.commit == record.info["commit"]


def test_damaged_kept_weights_are_named(tmp_path):
    chain(SCENES, tmp_path)
    kept = state_of(tmp_path, recipe_hash(SCENES, "f"), 0)
    kept.write_bytes(b"no weights")
    with pytest.raises(UserError, match=str(kept)):
        chain(LAST, tmp_path)


def test_a_diverging_start_fails_the_run(tmp_path):
    bad = SCENES.with_(start=CROPS.with_(schedule__learning_rate=1e20, schedule__clip_norm=1e30))
    with pytest.raises(DivergedError):
        chain(bad, tmp_path)
    last = LAST.with_(start=bad)
    record = read_record(run(last, 0, toy_data(), records=tmp_path / "records", work=tmp_path / "work"))
    # What is recorded are the curves of the recipe it happened in, and it is named.
    assert record.info["status"] == "diverged" and record.info["curves_of"] == CROPS.name
    assert {name for name in record.arrays if name.startswith("loss/")} == {"loss/rss"}


def test_the_record_of_a_chain_counts_all_its_time_and_its_weights_load(tmp_path):
    weights = tmp_path / "weights.safetensors"
    options = {"records": tmp_path / "records", "work": tmp_path / "work", "weights": weights, "inside": True}
    record = read_record(run(LAST, 0, toy_data(), **options))
    assert record.recipe == LAST and record.info["status"] == "finished"
    assert record.info["cost"]["earlier_seconds"] > 0 and "readout" not in record.info["results"]
    assert len(record.info["validation"]) == 1 and "curves_of" not in record.info
    assert record.info["earlier_commits"] == 2 * [code_commit()] != ["", ""]
    model = load_model(weights)
    assert model.config == LAST.model and model.similarity == "euclidean"


def test_the_model_draws_the_same_whatever_was_drawn_before():
    first, _ = train(SCENES.with_(start=None), toy_data().train, 0)
    torch.rand(5)
    second, _ = train(SCENES.with_(start=None), toy_data().train, 0)
    assert same(first.state_dict(), second.state_dict())


def test_initial_weights_replace_the_warm_start():
    model = build_model(SCENES.with_(start=None), 6, seed=0)
    other = build_model(SCENES.with_(start=None, warm_start="neutral"), 6, seed=1, initial=model.state_dict())
    assert same(model.state_dict(), other.state_dict())


def test_crops_show_people_and_as_much_background():
    data = toy_data().train
    batches = CropBatches(CROPS.with_(schedule__batch_size=1000), data, 0)
    labelled = sum(int((frame.person_ids != UNLABELLED).sum()) for frame in data.frames)
    assert batches.examples == 2 * labelled
    images, targets = CropBatches(CROPS.with_(schedule__batch_size=batches.examples), data, 0)[0]
    assert {tuple(image.shape) for image in images} == {(3, 16, 12)}
    labels = torch.cat([target["labels"] for target in targets])
    assert int((labels == len(data.person_ids)).sum()) == labelled and labels.min() >= 0


def test_kept_crops_are_those_that_would_be_cut_anew(monkeypatch):
    recipe = CROPS.with_(schedule__batch_size=8)
    keeps = CropBatches(recipe, toy_data().train, 0)
    first, again = (keeps[0][0] for _ in range(2))
    assert keeps.resized, "nothing was kept: this compares nothing"
    monkeypatch.setattr("pslib.training.batches.CACHE_BYTES", 0)
    forgets = CropBatches(recipe, toy_data().train, 0)
    anew = forgets[0][0]
    assert not forgets.resized and not forgets.cache
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first, again, anew, strict=True))
    monkeypatch.setattr("pslib.training.batches.CACHE_BYTES", 2 * keeps.cached_bytes)
    for workers in (1, 4):  # of four loader processes each has a quarter of the memory
        shares = CropBatches(recipe.with_(workers=workers), toy_data().train, 0)
        [shares[step] for step in range(4)]
        assert 0 < shares.cached_bytes <= 2 * keeps.cached_bytes // workers


@pytest.mark.parametrize("recipe", [CROPS, SCENES.with_(start=None)], ids=lambda recipe: recipe.name)
def test_a_set_that_labels_nobody_is_one_sentence(recipe):
    data = toy_data().train
    frames = [replace(frame, person_ids=np.full_like(frame.person_ids, UNLABELLED)) for frame in data.frames]
    with pytest.raises(UserError, match="labels nobody, and toy-.* classifies people"):
        train(recipe, PersonSearchSet(data.kind, data.split, data.root, frames), 0)


def test_background_keeps_away_from_people_where_it_can():
    generator = torch.Generator().manual_seed(0)
    person = torch.tensor([[10.0, 10.0, 30.0, 60.0]]).numpy()
    for _ in range(20):
        box = background_box(person, person[0], (80, 120), generator)
        assert np.allclose(box[2:] - box[:2], (20, 50), atol=1e-4) and box.min() >= 0 and box[2] <= 120 and box[3] <= 80
        overlap = (min(box[2], 30) - max(box[0], 10)), (min(box[3], 60) - max(box[1], 10))
        assert max(overlap[0], 0) * max(overlap[1], 0) <= 0.1 * 20 * 50
    full = torch.tensor([[0.0, 0.0, 50.0, 50.0]]).numpy()
    assert background_box(full, full[0], (50, 50), generator).tolist() == [0, 0, 50, 50]


@pytest.mark.parametrize("folds", [2, 3])
def test_folds_share_nobody_and_no_frame(folds):
    data = toy_data().train
    held_people = []
    for fold in range(folds):
        training, held = carve_fold(data, folds, fold)
        assert not set(training.person_ids) & set(held.person_ids)
        assert not {frame.name for frame in training.frames} & {frame.name for frame in held.frames}
        assert len(training.frames) + len(held.frames) == len(data.frames)
        held_people += list(held.person_ids)
    assert sorted(held_people) == sorted(data.person_ids)


@pytest.mark.parametrize(
    ("folds", "fold", "said"), [(3, 3, "no fold 3 of 3"), (3, -1, "no fold -1 of 3"), (1000, 0, "1000 folds"),
                                (1, 0, "1 folds")]
)  # fmt: skip
def test_a_fold_that_is_not_there(folds, fold, said):
    with pytest.raises(UserError, match=said):
        carve_fold(toy_data().train, folds, fold)


def test_a_change_reaches_into_the_recipes_before():
    changed = LAST.with_(start__schedule__steps=7, start__start__crop_size=(8, 8), kind="prw")
    assert (changed.start.schedule.steps, changed.start.start.crop_size) == (7, (8, 8))
    assert (changed.schedule, changed.start.start.schedule) == (LAST.schedule, CROPS.schedule)
    assert {changed.kind, changed.start.kind, changed.start.start.kind} == {"prw"}


def test_a_recipe_that_does_not_fit_its_start_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="weights of another model: set the same switches in"):
        chain(LAST.with_(model__embedding_dim=16), tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"folds": 1}, "folds=1"), ({"folds": -1}, "folds=-1"), ({"crop_size": (0, 4)}, "crop_size"),
     ({"model": AlignPSConfig()}, "classifier of crops"), ({"weights__center": -1.0}, "weights.center=-1.0"),
     ({"weights__rss": float("nan")}, "weights.rss=nan"), ({"weights__center": float("inf")}, "weights.center=inf")],
)  # fmt: skip
def test_a_recipe_that_means_nothing_is_one_sentence(change, said):
    with pytest.raises(UserError, match=said):
        CROPS.with_(**change)


def test_a_cross_validated_run_is_tested_on_its_fold(tmp_path):
    data = toy_data()
    recipe = SCENES.with_(start=None, folds=2)
    records = [read_record(run(recipe, fold, data, records=tmp_path / "r", work=tmp_path / "w")) for fold in (0, 1)]
    people = [set(record.people("validation").tolist()) for record in records]
    assert people[0] and people[1] and not people[0] & people[1]
    assert people[0] | people[1] <= set(data.train.person_ids)
    assert [record.info["validation"] for record in records] == [[], []]
    assert "tested on the training people that a run's fold kept out" in results_table(records)


def test_a_record_does_not_depend_on_who_trained_its_weights(tmp_path):
    data = toy_data()
    alone = read_record(run(SCENES, 0, data, records=tmp_path / "one", work=tmp_path / "w1"))
    run(LAST, 0, data, records=tmp_path / "two", work=tmp_path / "w2")
    kept = read_record(run(SCENES, 0, data, records=tmp_path / "two", work=tmp_path / "w2"))
    assert alone.info["validation"] == kept.info["validation"] and len(alone.info["validation"]) == 1
    assert alone.info["results"] == kept.info["results"] and alone.arrays.keys() == kept.arrays.keys()


def test_initial_weights_spare_the_download_of_others(monkeypatch):
    initial = build_model(SCENES.with_(start=None), 6, seed=0).state_dict()
    asked = []
    monkeypatch.setattr(two_stage, "build_backbone", lambda *given: asked.append(given) or build_backbone(*given))
    build_model(SCENES.with_(start=None, model__backbone_weights="IMAGENET1K_V1"), 6, seed=0, initial=initial)
    assert [weights for _, weights, *_ in asked] == [None]


def test_a_memory_that_refuses_a_step_ends_the_run_with_its_curves(monkeypatch):
    def refuse(self, features, labels):
        raise NotFiniteError("not finite")

    monkeypatch.setattr("pslib.losses.center.Centers.update", refuse)
    with pytest.raises(DivergedError, match="step 1 of run") as caught:
        train(SCENES.with_(start=None), toy_data().train, 0)
    assert len(caught.value.curves.losses["rss"]) == 1


def test_features_that_are_no_numbers_end_the_run_with_one_sentence():
    data = toy_data().train
    recipe = SCENES.with_(start=None)
    initial = build_model(recipe, len(data.person_ids), 0).state_dict()
    initial["head.feat.bias"] = torch.full_like(initial["head.feat.bias"], torch.nan)
    with pytest.raises(DivergedError, match="training diverged at step 1 of run toy-.*: lower schedule.learning_rate"):
        train(recipe, data, 0, initial=initial)
