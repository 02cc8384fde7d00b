"""One run from recipe to record: what the record holds, that it is computed once, and tables made of records."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from toy_sets import toy_data, toy_model, toy_recipe, toy_split

from pslib.data.annotations import UNLABELLED
from pslib.errors import NotFiniteError, UserError
from pslib.evaluation.detection import detection_metrics
from pslib.evaluation.gallery import embed_gallery
from pslib.evaluation.search import search
from pslib.experiments import run as run_module
from pslib.experiments import stages
from pslib.experiments.records import Record, read_record, read_records
from pslib.experiments.run import evaluate_test, main_protocol, measure, run, validation_steps
from pslib.experiments.tables import difference, grouped, main_protocol_of, per_query, results_table, summary
from pslib.training.checkpoints import load_model
from pslib.training.recipe import component_versions

RECIPE = toy_recipe(model__class_threshold=0.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run: its folder, its record and its data."""
    folder = tmp_path_factory.mktemp("runs")
    data = toy_data()
    path = run(RECIPE, 3, data, records=folder / "r", work=folder / "w", weights=folder / "m.safetensors")
    return folder, read_record(path), data


def test_the_record_holds_what_a_later_page_may_ask(finished):
    _, record, data = finished
    info = record.info
    assert record.recipe == RECIPE and info["seed"] == 3 and info["status"] == "finished" and not record.stale
    assert info["data"] == {"kind": "cuhk-sysu", "fingerprint": "toy", "identities": 6}
    assert set(info["protocols"]) == {"TestG50", "TestG100", "Occlusion", "Resolution"}
    for name in info["protocols"]:
        count = len(data.test.protocols[name].queries)
        people = [query.person_id for query in data.test.protocols[name].queries]
        assert record.people(name).tolist() == people
        for boxes, group in (("detected", "search"), ("ground-truth", "ground_truth")):
            ap, rank = record.ap(name, boxes), record.rank(name, boxes)
            assert ap.shape == rank.shape == (count,) and ((ap >= 0) & (ap <= 1)).all()
            scalars = info["results"][group][name]
            assert scalars["map"] == pytest.approx(100 * ap.mean(), abs=1e-3)
            for k in (1, 5, 10):
                assert scalars[f"top{k}"] == pytest.approx(100 * ((rank > 0) & (rank <= k)).mean(), abs=1e-3)
    assert set(info["results"]["detection"]) == {"recall", "ap", "recall_labelled", "people"}
    assert info["results"]["detection"]["people"] == sum(len(frame.boxes) for frame in data.test.frames)
    assert [entry["step"] for entry in info["validation"]] == [1, 2, 3, 4, 6]
    assert all(set(entry) == {"step", "map", "top1", "ground_truth_map", "recall"} for entry in info["validation"])
    curves = {name: values for name, values in record.arrays.items() if name.startswith("loss/")}
    assert set(curves) == {f"loss/{name}" for name in ("classification", "box", "centerness", "oim", "triplet")}
    assert all(values.shape == (6,) for values in curves.values())
    cost = info["cost"]
    assert 0 < cost["train_seconds"] < cost["total_seconds"] and 0 < cost["test_seconds"] < cost["total_seconds"]
    assert 20 < cost["peak_memory_mb"] < 20_000
    assert cost["parameters"] == sum(p.numel() for p in toy_model().parameters())
    assert info["device"] == "cpu" and info["components"] == component_versions(RECIPE)
    assert {"torch", "torchvision", "numpy"} <= set(info["packages"])


def test_pictured_embeddings_are_of_the_first_labelled_people_in_half_precision(finished):
    folder, record, data = finished
    people, embeddings = record.arrays["pictured/people"], record.arrays["pictured/embeddings"]
    assert set(people) == {31, 32, 35, 37} and UNLABELLED not in people  # fewer than fifteen: all of them
    assert embeddings.dtype == np.float16 and embeddings.shape == (len(people), 16)
    for row, frame in enumerate(record.arrays["pictured/frames"]):
        place = data.test.frames[frame].person_ids.tolist().index(people[row])
        assert record.arrays["pictured/boxes"][row].tolist() == data.test.frames[frame].boxes[place].tolist()
    # The kept weights are this run's: they embed the same boxes alike, but for their own half precision.
    again = evaluate_test(load_model(folder / "m.safetensors"), RECIPE, data.test)[1]["pictured/embeddings"]
    assert (again.astype(np.float32) * embeddings.astype(np.float32)).sum(1).min() > 0.98


def test_only_the_first_fifteen_people_are_pictured(monkeypatch):
    monkeypatch.setattr(run_module, "PICTURED_PEOPLE", 2)
    arrays = evaluate_test(toy_model().eval(), RECIPE, toy_split("test"))[1]
    assert set(arrays["pictured/people"]) == {31, 32}


def test_measure_is_search_and_detection_called_directly():
    data = toy_split("test")
    embeddings = embed_gallery(toy_model(class_threshold=0.0).eval(), data)
    scalars, arrays = measure(data, embeddings)
    found = detection_metrics(data.frames, embeddings.detections)
    assert scalars["detection"]["recall"] == 100 * found.recall and scalars["detection"]["ap"] == 100 * found.ap
    for name, protocol in data.protocols.items():
        for boxes, gallery in (("detected", embeddings.detections), ("ground-truth", embeddings.ground_truth)):
            result = search(protocol, gallery, embeddings.of_queries(protocol), num_frames=8)
            assert np.allclose(arrays[f"{name}/{boxes}/ap"], result.ap)
            assert np.array_equal(arrays[f"{name}/{boxes}/rank"], result.rank)


def test_search_leaves_out_what_scores_below_the_threshold_and_detection_does_not():
    data = toy_split("test")
    embeddings = embed_gallery(toy_model().eval(), data)
    right = embeddings.ground_truth  # a detector that is right everywhere, sure of some and unsure of others
    scores = np.linspace(0, 1, len(right), dtype=np.float32)
    embeddings, middle = replace(embeddings, detections=replace(right, scores=scores)), 0.5
    (every, _), (sure, arrays) = measure(data, embeddings), measure(data, embeddings, middle)
    assert sure["detection"] == every["detection"] and sure["ground_truth"] == every["ground_truth"]
    kept = embeddings.detections.select(embeddings.detections.scores >= middle)
    for name, protocol in data.protocols.items():
        result = search(protocol, kept, embeddings.of_queries(protocol), num_frames=8)
        assert np.allclose(arrays[f"{name}/detected/ap"], result.ap)
    assert sure["search"] != every["search"]


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_search_threshold_is_a_score(threshold):
    with pytest.raises(UserError, match="search_threshold"):
        RECIPE.with_(search_threshold=threshold)


def test_a_gallery_without_detections_is_measured_as_zero():
    embeddings = embed_gallery(toy_model(class_threshold=1.0).eval(), toy_split("test"))
    scalars, arrays = measure(toy_split("test"), embeddings)
    assert scalars["detection"]["recall"] == 0 and scalars["search"]["TestG50"]["map"] == 0
    assert (arrays["TestG50/detected/rank"] == 0).all() and scalars["ground_truth"]["TestG50"]["map"] > 0


def test_a_recorded_run_is_not_computed_again(finished, monkeypatch):
    folder, record, data = finished
    monkeypatch.setattr(stages, "train", lambda *_, **__: pytest.fail("trained again"))
    options = {"records": folder / "r", "work": folder / "w"}
    assert run(RECIPE, 3, data, **options) == record.path
    assert run(RECIPE.with_(workers=1), 3, data, **options, weights=folder / "m.safetensors") == record.path
    for recipe, seed, changed in (
        (RECIPE, 4, data), (RECIPE.with_(flip=False), 3, data), (RECIPE, 3, replace(data, fingerprint="other")),
    ):  # fmt: skip
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            run(recipe, seed, changed, **options)
    assert not (folder / "w").exists() or not list((folder / "w").rglob("*.pt"))


@pytest.mark.parametrize("place", ["records", "work", "weights"])
def test_where_nothing_can_be_written_is_found_out_before_the_training(tmp_path, monkeypatch, place):
    monkeypatch.setattr(stages, "train", lambda *_, **__: pytest.fail("trained first"))
    (tmp_path / "file").touch()
    places = {"records": tmp_path / "r", "work": tmp_path / "w", "weights": tmp_path / "m" / "w.safetensors"}
    with pytest.raises(UserError, match="nothing can be written to .*file") as error:
        run(RECIPE, 3, toy_data(), **(places | {place: tmp_path / "file" / "w"}))
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_weights_of_another_run_are_not_taken_for_this_one(finished, tmp_path):
    folder, record, data = finished
    weights = tmp_path / "m.safetensors"
    other = RECIPE.with_(schedule__steps=1, model__channels=8)
    options = {"records": folder / "r", "work": tmp_path / "w", "weights": weights}
    run(other, 3, data, **options, test=False)
    assert load_model(weights).config.channels == 8
    kept = {path: path.read_bytes() for path in record.path.parent.glob(f"{record.path.stem}.*")}
    # Under another name, too: the record that is there stays, and there is no second one.
    assert run(RECIPE.with_(name="another"), 3, data, **options) == record.path
    assert load_model(weights).config.channels == 16
    assert len(kept) == 2 and {path: path.read_bytes() for path in kept} == kept
    assert not list(record.path.parent.glob("another-*"))


def test_weights_of_a_recorded_run_that_diverges_elsewhere_are_not_made(finished, tmp_path, monkeypatch):
    folder, record, data = finished

    def diverge(*_, **__):
        raise NotFiniteError("It diverged.")

    monkeypatch.setattr(run_module, "train_chain", diverge)
    with pytest.raises(UserError, match="it stays"):
        run(RECIPE, 3, data, records=folder / "r", work=tmp_path / "w", weights=tmp_path / "m.safetensors")
    assert read_record(record.path).info["status"] == "finished"


def test_tuning_leaves_the_test_set_alone(tmp_path, monkeypatch):
    recipe, options = RECIPE.with_(schedule__steps=2), {"records": tmp_path / "r", "work": tmp_path / "w"}
    monkeypatch.setattr(run_module, "evaluate_test", lambda *_, **__: pytest.fail("looked at the test set"))
    record = read_record(run(recipe, 0, toy_data(), **options, test=False))
    assert record.info["results"] == {} and record.info["protocols"] == [] and len(record.info["validation"]) == 2
    monkeypatch.undo()
    without = replace(toy_data("other"), validation=None)
    record = read_record(run(recipe, 0, without, **options))
    assert record.info["validation"] == [] and record.info["results"]["search"]


@pytest.mark.parametrize("steps", [1, 6])
def test_a_diverged_run_is_recorded_with_its_curve_and_not_repeated(tmp_path, monkeypatch, steps):
    # Weights of 1e12 are finite, what they compute is not: after one step only the test set shows it.
    data = toy_data() if steps > 1 else replace(toy_data(), validation=None)
    recipe = RECIPE.with_(schedule__steps=steps)
    recipe = recipe.with_(schedule__learning_rate=1e12, schedule__warmup_steps=0, schedule__clip_norm=1e30)
    options = {"records": tmp_path / "r", "work": tmp_path / "w", "weights": tmp_path / "m.safetensors"}
    path = run(recipe, 0, data, **options)
    record = read_record(path)
    assert record.info["status"] == "diverged" and "diverge" in record.info["reason"]
    assert len(record.arrays["loss/oim"]) >= 1 and not (tmp_path / "m.safetensors").exists()
    assert read_records(tmp_path / "r") == []
    monkeypatch.setattr(stages, "train", lambda *_, **__: pytest.fail("trained again"))
    assert run(recipe, 0, data, **options) == path


def test_validation_steps_and_main_protocol():
    assert validation_steps(1) == (1,) and validation_steps(16) == (2, 4, 8, 12, 16)
    assert main_protocol(toy_split("test")) == "TestG100"


def fake(name, seed, ap, run_hash="h", kind="prw", **changes):
    """A record with four queries of two people."""
    ap = np.array(ap, np.float32)
    arrays = {f"regular/{boxes}/ap": ap for boxes in ("detected", "ground-truth")}
    arrays |= {f"regular/{boxes}/rank": (ap > 0.5).astype(np.int32) for boxes in ("detected", "ground-truth")}
    recipe = toy_recipe(name=name, kind=kind, **changes)
    info = {"recipe": asdict(recipe), "hash": run_hash, "seed": seed, "protocols": ["regular"], "device": "cpu",
            "date": "2026-01-01", "data": {"fingerprint": "f"}, "results": {"detection": {"recall": 50.0}}}  # fmt: skip
    return Record(None, info, arrays | {"regular/people": np.array([1, 1, 2, 2])})


def test_tables_group_seeds_and_say_their_source():
    records = [fake("b", 1, [0, 0, 1, 1]), fake("b", 0, [0, 0, 0, 0]), fake("a", 0, [1, 1, 1, 1], "g"),
               fake("b", 0, [1, 0, 0, 0], "other")]  # fmt: skip
    groups = grouped(records)
    assert list(groups) == [("prw", "a", "g"), ("prw", "b", "h"), ("prw", "b", "other")]
    assert [record.info["seed"] for record in groups["prw", "b", "h"]] == [0, 1]
    text = results_table(records)
    row = next(line for line in text.splitlines() if " b " in line and " 2 " in line)
    assert "25.0 [" in row and "50.0" in row and "regular" in row and "cpu, 2026-01-01" in row and "STALE" in row
    assert text.startswith("RECORDED") and results_table([]).startswith("no records yet")
    assert main_protocol_of(records[0]) == "regular"


def test_summaries_and_differences_have_intervals_around_their_mean():
    ours = [fake("a", seed, [0.9, 0.7, 0.8, 1.0]) for seed in (0, 1, 2)]
    theirs = [fake("b", seed, [0.4, 0.2, 0.6, 0.2]) for seed in (2, 1, 7)]
    value = summary(ours)
    assert value.mean == pytest.approx(85) and value.low <= 85 <= value.high
    gap = difference(ours, theirs)
    assert gap.mean == pytest.approx(85 - 35) and 0 < gap.low <= gap.mean <= gap.high
    assert per_query(ours, "top1")[0].tolist() == [[100.0] * 4] * 3
    with pytest.raises(UserError, match="share no seed"):
        difference(ours, [fake("b", 9, [0, 0, 0, 0])])
    with pytest.raises(UserError, match="nearest: top1"):
        per_query(ours, "top5")


def test_a_table_says_whose_search_leaves_out_unsure_detections():
    plain, sure = fake("a", 0, [1.0, 0.5, 0.2, 0.3]), fake("b", 0, [1.0, 0.5, 0.2, 0.3], "i", search_threshold=0.2)
    assert "leaves out" not in results_table([plain])
    assert results_table([plain, sure]).splitlines()[-1].startswith("Search leaves out detections that score below 0.2")
    assert results_table([plain, sure]).endswith("other's only: b.")
