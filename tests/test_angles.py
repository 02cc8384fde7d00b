"""pslib gradients: a record of how two tasks' gradients meet, made beside a training that it does not disturb."""

import json

import pytest
import torch
from toy_sets import toy_data, toy_recipe

from pslib import paths
from pslib.cli import main
from pslib.errors import UserError
from pslib.experiments import angles
from pslib.experiments.angles import angle_record, angles_path, is_stale, measure_angles, measuring_steps
from pslib.experiments.lookup import find_recipe
from pslib.training.batches import TrainingBatches
from pslib.training.gradients import meeting_of, task_gradients
from pslib.training.trainer import train
from pslib.viz.angles import meeting_figure, meeting_text

RECIPE = toy_recipe(model__structure="box")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return measure_angles(RECIPE, 3, toy_data(), tmp_path_factory.mktemp("work"), "cpu", batches=4, halvings=3)


def test_every_shared_part_is_measured_at_every_step(found):
    assert [point["step"] for point in found["points"]] == list(measuring_steps(6)) == [1, 2, 3, 4, 5, 6]
    for point in found["points"]:
        assert set(point) == {"step", "single", "summed"}
        for way in ("single", "summed"):
            assert set(point[way]) == {"backbone", "neck", "box tower"}
            assert set(point[way]["neck"]) == {"between", "detection", "re-id", "room", "error", "share"}


def test_measuring_does_not_disturb_the_training_and_measures_the_model_of_that_step(found):
    data = toy_data()
    model, curves = train(RECIPE, data.train, 3)
    shown = TrainingBatches(RECIPE, data.train, seed=4)
    gradients = [task_gradients(model, *shown[number], RECIPE.weights) for number in range(4)]
    for way, halvings in (("single", 0), ("summed", 3)):
        for part, want in meeting_of(gradients, halvings).items():
            assert found["points"][-1][way][part] == pytest.approx(want, abs=6e-5)
    assert len(curves.losses["oim"]) == 6


def test_a_killed_training_goes_on(found, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    calls = []
    plain = angles.both_ways

    def breaks(*given):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return plain(*given)

    often = angles.train
    monkeypatch.setattr(angles, "train", lambda *a, **k: often(*a, **k, checkpoint_every=2))
    monkeypatch.setattr(angles, "both_ways", breaks)
    with pytest.raises(Killed):
        measure_angles(RECIPE, 3, toy_data(), tmp_path, "cpu", batches=4, halvings=3)
    again = measure_angles(RECIPE, 3, toy_data(), tmp_path, "cpu", batches=4, halvings=3)
    assert again == found and len(calls) == 5 + 2  # steps 5 and 6 only
    assert not list(tmp_path.glob("*/checkpoint.pt"))


def test_the_command_makes_a_record_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "results_dir", lambda: tmp_path / "results")
    monkeypatch.setattr(paths, "build_dir", lambda: tmp_path / "build")
    monkeypatch.setattr(angles, "open_run_data", lambda *_: toy_data())
    monkeypatch.setattr(angles, "find_recipe", lambda name, kind: RECIPE.with_(kind=kind))
    monkeypatch.setattr(angles, "at_profile", lambda recipe, _: recipe)
    monkeypatch.setattr(angles, "known_fingerprint", lambda *_: "toy")
    monkeypatch.setattr(angles, "BATCHES", 2)
    arguments = ["gradients", "t1", "--seed", "1"]
    assert main(arguments) == 0
    path = angles_path("t1", "cuhk-sysu", 1)
    record = angle_record("t1", seed=1)
    assert record == json.loads(path.read_text()) and record["recipe"] == "t1" and record["seed"] == 1
    assert "neck" in capsys.readouterr().out and not is_stale(record)
    monkeypatch.setattr(angles, "measure_angles", lambda *_: pytest.fail("made again"))
    assert main(arguments) == 0
    assert is_stale(record | {"hash": "0"}) and angle_record("t2", seed=1) is None
    short = [record | {"points": points} for points in ([], [{}], [record["points"][0] | {"summed": {"neck": {}}}])]
    for damaged in ("{", "[]", "{}", *map(json.dumps, short)):
        path.write_text(damaged)
        assert main(arguments) == 2
        assert "pslib gradients t1 --kind cuhk-sysu --seed 1" in capsys.readouterr().err


def test_all_names_are_looked_up_before_the_first_training(monkeypatch, capsys):
    monkeypatch.setattr(angles, "open_run_data", lambda *_: pytest.fail("the first has begun"))
    for name, said in (("foo", "unknown"), ("ian", "ian is no AlignPS")):
        assert main(["gradients", "t1", name]) == 2
        assert said in capsys.readouterr().err


def test_other_models_have_no_such_neck(tmp_path):
    with pytest.raises(UserError, match="ian is no AlignPS"):
        measure_angles(find_recipe("ian", "cuhk-sysu"), 0, toy_data(), tmp_path, "cpu", 2, 3)


def test_the_figure_shows_the_cosine_in_its_room():
    steps = (4, 16, 40, 90, 360, 1080)
    points = [{"step": step, "between": -0.1, "error": 0.05, "detection": 0.5, "re-id": 0.2, "room": 0.3, "single": 0.0}
              for step in steps]  # fmt: skip
    fig = meeting_figure({"T1: neck": points, "T2: neck": points[:2]})
    first = fig.axes[0]
    (bars,) = first.containers
    assert bars.lines[0].get_xdata().tolist() == list(steps) and set(bars.lines[0].get_ydata()) == {-0.1}
    ends = bars.lines[2][0].get_segments()[0][:, 1]
    assert ends.tolist() == pytest.approx([-0.2, 0.0])  # two standard errors
    (gray,) = [part for part in first.collections if part.get_label() == "the room"]
    assert (gray.get_paths()[0].vertices[:, 1].min(), gray.get_paths()[0].vertices[:, 1].max()) == (-0.3, 0.3)
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["4", "40", "360", "1,080"]
    assert len(fig.legends) == 1 and "single batches" in fig.legends[0].get_texts()[-2].get_text()
    text = meeting_text({"T1: neck": points})
    assert text == "T1: neck: -0.10 (room 0.30) at step 4, -0.10 (room 0.30) at step 1080"


def test_committed_records_are_of_todays_recipes():
    """All four structures of Table III, over their whole schedule; notebook 07 draws them."""
    for name in ("t1", "t2", "scale-region", "alignps-long"):
        record = angle_record(name)
        assert record is not None and not is_stale(record), name
        assert record["points"][-1]["step"] == find_recipe(name, "cuhk-sysu").schedule.steps
        assert all(torch.tensor(list(one.values())).isfinite().all()
                   for point in record["points"] for way in ("single", "summed") for one in point[way].values())
