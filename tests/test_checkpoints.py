"""A killed run goes on to the same numbers; weights survive the file; what does not fit is refused in one sentence."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy_sets import SMALL, toy_batch, toy_model, toy_recipe, toy_root, toy_split

import pslib
from pslib import paths
from pslib.errors import UserError
from pslib.models.roi_alignps import RoiAlignPS, RoiAlignPSConfig
from pslib.models.roi_branch import RoiBranchConfig
from pslib.training.checkpoints import load_checkpoint, load_model, load_weights, save_checkpoint, save_weights
from pslib.training.trainer import train

BN_RECIPE = toy_recipe(model__embedding_norm="batch", image_sizes=((96, 64), (90, 60)))


def same(first, second) -> bool:
    """Bit for bit, memory and running statistics included."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    "changes", [{}, {"schedule__optimizer": "sgd"}, {"schedule__precision": "float16"}, {"workers": 2}]
)
def test_a_stopped_run_goes_on_to_the_same_numbers(tmp_path, changes):
    recipe, checkpoint = BN_RECIPE.with_(**changes), tmp_path / "work" / "checkpoint.pt"
    whole, curves = train(recipe, toy_split("train"), seed=2)
    train(recipe, toy_split("train"), seed=2, run="r", checkpoint=checkpoint, checkpoint_every=2, stop_after=5)
    assert torch.load(checkpoint, weights_only=True)["step"] == 4
    steps = []
    resumed, again = train(
        recipe, toy_split("train"), seed=2, run="r", checkpoint=checkpoint, checkpoint_every=100,
        validate=lambda model: steps.append(1) or {"map": 0.5}, validate_at=(4, 6),
    )  # fmt: skip
    assert same(whole, resumed) and curves.losses == again.losses
    # What the killed process spent is not forgotten: four of its steps, with all that was between them.
    assert curves.killed_seconds == 0 and 0 < again.killed_seconds and again.seconds > 0
    assert again.validation == [{"step": 6, "map": 0.5}] and len(steps) == 1


def test_validation_does_not_disturb_training_and_survives_a_stop(tmp_path):
    images, _ = toy_batch()

    def validate(model):
        assert not model.training
        model(images)
        torch.rand(7)
        return {"map": 1.0}

    plain, _ = train(BN_RECIPE, toy_split("train"), seed=0)
    options = {"validate": validate, "validate_at": (1, 3, 6)}
    watched, curves = train(BN_RECIPE, toy_split("train"), seed=0, **options)
    assert same(plain, watched) and [entry["step"] for entry in curves.validation] == [1, 3, 6]
    options |= {"run": "r", "checkpoint": tmp_path / "c.pt", "checkpoint_every": 4}
    train(BN_RECIPE, toy_split("train"), seed=0, **options, stop_after=5)
    _, resumed = train(BN_RECIPE, toy_split("train"), seed=0, **options)
    assert resumed.validation == curves.validation


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_checkpoints import BN_RECIPE
from pslib.data.loading import load
from pslib.training import trainer
keep = trainer.save_checkpoint
def save_and_wait(path, state):
    keep(path, state)
    if state["step"] == 4:
        path.with_name("reached").touch()
        time.sleep(600)
trainer.save_checkpoint = save_and_wait
data = load("cuhk-sysu", Path(sys.argv[2]), "train")
trainer.train(BN_RECIPE, data, 1, run="r", checkpoint=Path(sys.argv[3]), checkpoint_every=1)
"""


def test_a_run_killed_by_the_system_goes_on_to_the_same_numbers(tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(Path(pslib.__path__[0]).parent), "PSLIB_PLAIN": "1",
                   "OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums over threads differ in the last bits
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(here), str(toy_root()), str(checkpoint)],
        env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(6000):  # five minutes: a busy machine may take long to import
        if (tmp_path / "reached").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert load_checkpoint(checkpoint, "r")["step"] == 4
    resumed, curves = train(BN_RECIPE, toy_split("train"), 1, run="r", checkpoint=checkpoint)
    whole, expected = train(BN_RECIPE, toy_split("train"), 1)
    assert same(whole, resumed) and curves.losses == expected.losses


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(path, "r") is None
    train(toy_recipe(), toy_split("train"), 0, run="one-s0", checkpoint=path, checkpoint_every=2)
    with pytest.raises(UserError, match=r"belongs to run one-s0, not to two-s0: delete it"):
        train(toy_recipe(), toy_split("train"), 0, run="two-s0", checkpoint=path)


def test_a_checkpoint_of_the_run_with_other_contents_is_one_sentence(tmp_path):
    path = tmp_path / "checkpoint.pt"
    train(toy_recipe(), toy_split("train"), 0, run="r", checkpoint=path, checkpoint_every=2, stop_after=3)
    state = load_checkpoint(path, "r")
    lacking = [{name: value for name, value in state.items() if name != one} for one in ("model", "curves", "step")]
    others = ({"model": {}}, {"model": []}, {"optimizer": {}}, {"curves": {"loss": {}}}, {"step": "x"})
    for content in (*lacking, *(state | other for other in others)):
        save_checkpoint(path, content)
        with pytest.raises(UserError, match=r"cannot be read \(\w+\): delete it\.$") as error:
            train(toy_recipe(), toy_split("train"), 0, run="r", checkpoint=path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def damage(path: Path, kind: str) -> None:
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "other":
        torch.save({"weights": torch.zeros(2)}, path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "code":
        torch.save({"run": "r", "path": Path("x")}, path)  # unpickling this would call a class
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "list", "other", "tensor", "code", "folder"])
def test_a_damaged_or_foreign_checkpoint_is_one_sentence(tmp_path, kind):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"run": "r", "step": 1, "weights": torch.rand(1000)})
    damage(path, kind)
    with pytest.raises(UserError) as error:
        load_checkpoint(path, "r")
    assert str(path) in str(error.value) and "\n" not in str(error.value) and str(error.value).endswith(".")


def test_a_failing_write_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"run": "r", "step": 1})

    def full(*_, **__):
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="free some space"):
        save_checkpoint(path, {"run": "r", "step": 2})
    monkeypatch.undo()
    assert load_checkpoint(path, "r")["step"] == 1 and list(tmp_path.iterdir()) == [path]


def test_weights_round_trip_within_8_bits_a_channel(tmp_path):
    model, path = toy_model(levels=("P3", "P4"), embedding_norm="batch"), tmp_path / "a" / "w.safetensors"
    images, targets = toy_batch()
    model.train()(images, targets)
    model.update_memory()
    save_weights(path, model.eval(), {"run": "r"})
    loaded = load_model(path)
    assert loaded.config == model.config and not loaded.training
    for name, tensor in model.state_dict().items():
        if name.startswith("memory.queue"):
            assert (loaded.state_dict()[name] == 0).all()
        elif name != "memory.pointer":
            # Half a step of 1 in 127 of the channel's largest weight, or 16 bits.
            step = tensor.abs().amax(dim=(1, 2, 3), keepdim=True) / 254 if tensor.ndim == 4 else 1e-3 * tensor.abs()
            assert ((loaded.state_dict()[name].float() - tensor.float()).abs() <= 1.001 * step + 1e-6).all(), name
    _, embedded = model.detect_and_embed(images, [target["boxes"] for target in targets])
    _, again = loaded.detect_and_embed(images, [target["boxes"] for target in targets])
    assert all((a * b).sum(1).min() > 0.99 for a, b in zip(embedded, again, strict=True))
    assert load_weights(path)[1]["run"] == "r" and path.stat().st_size < 2 * sum(p.numel() for p in model.parameters())


def test_a_number_beyond_16_bits_is_stored_in_32(tmp_path):
    model, path = toy_model(embedding_norm="batch"), tmp_path / "w.safetensors"
    name = next(key for key in model.state_dict() if key.endswith("running_var"))
    model.state_dict()[name][:2] = torch.tensor([1e5, 3.0])
    save_weights(path, model)
    assert load_weights(path)[0][name][:2].tolist() == [1e5, 3.0]


def test_loading_a_model_fetches_no_weights_to_start_from(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, toy_model(backbone="resnet18"))
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    config = json.loads(header["config"]) | {"backbone_weights": "IMAGENET1K_V1"}
    save_file(tensors, path, metadata=header | {"config": json.dumps(config)})
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("fetched weights"))
    assert load_model(path).config.backbone == "resnet18"


def foreign(path: Path, kind: str) -> None:
    tensors, header = load_file(path), {"config": "{}"}
    with safe_open(path, "pt") as file:
        header = dict(file.metadata())
    config = json.loads(header["config"])
    if kind == "no header":
        header = None
    elif kind == "no config":
        del header["config"]
    elif kind == "config is text":
        header["config"] = "alignps"
    elif kind == "config is a list":
        header["config"] = "[1]"
    elif kind == "newer switch":
        header["config"] = json.dumps(config | {"roi": True})
    elif kind == "unknown value":
        header["config"] = json.dumps(config | {"structure": "both"})
    elif kind == "other size":
        header["config"] = json.dumps(config | {"channels": 24})
    elif kind == "missing tensor":
        del tensors["head.scales"]
    elif kind == "missing scale":
        del tensors["neck.output.P3.weight.scale-of-8-bits"]
    elif kind == "one tensor more":
        tensors["roi.weight"] = torch.zeros(1)
    elif kind == "warm start":
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    save_file(tensors, path, metadata=header)


@pytest.mark.parametrize(
    "kind",
    ["no header", "no config", "config is text", "config is a list", "newer switch", "unknown value", "other size",
     "missing tensor", "missing scale", "one tensor more", "warm start", "truncated", "text", "folder", "absent"],
)  # fmt: skip
def test_foreign_weights_are_one_sentence(tmp_path, kind):
    path = tmp_path / "w.safetensors"
    save_weights(path, toy_model())
    if kind in ("truncated", "text", "folder"):
        damage(path, kind)
    elif kind == "absent":
        path.unlink()
    else:
        foreign(path, kind)
    with pytest.raises(UserError) as error:
        load_model(path)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("roi", {"dim": 24}), ("dense", {"channels": 24}), ("dense", {"levels": ["P4"]}),
        (None, {"anchor_sizes": [16.0]}), (None, {"rpn": False}), (None, {"shared": False}),
    ],
    ids=str,
)  # fmt: skip
def test_roi_weights_under_a_header_of_other_sizes_or_switches_are_one_sentence(tmp_path, part, changes):
    path = tmp_path / "roi.safetensors"
    config = RoiAlignPSConfig(dense=SMALL, roi=RoiBranchConfig(dim=16, queue_size=8))
    save_weights(path, RoiAlignPS(config, 6))
    assert load_model(path).config == config
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        header = dict(file.metadata())
    content = json.loads(header["config"])
    (content[part] if part else content).update(changes)
    save_file(tensors, path, metadata=header | {"config": json.dumps(content)})
    with pytest.raises(UserError, match="train them again") as error:
        load_model(path)
    said = str(error.value)
    assert str(path) in said and "\n" not in said and said.endswith(".") and said.count(". ") == 0


def test_weights_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    import pslib.training.checkpoints as module

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(UserError, match="free some space"):
        save_weights(tmp_path / "w.safetensors", toy_model())
    assert list(tmp_path.iterdir()) == []


def test_the_record_of_every_stored_model_is_committed():
    """What a page computes with a stored network can be set beside the record of the run that trained it."""
    stored = [path for path in paths.weights_dir().glob("*.safetensors") if not path.name.startswith("warm-start")]
    recorded = {path.stem for path in paths.results_dir().rglob("*.json")}
    assert stored and {load_weights(path)[1]["run"] for path in stored} <= recorded
