"""What an image costs: boxes that weights cannot change, clocks, memory, and the record of a run."""

import json
import time
from pathlib import Path

import pytest
import torch

from pslib.cli import main
from pslib.errors import UserError
from pslib.evaluation.cost import (
    Times,
    answer,
    fixed_boxes,
    images_of,
    parameter_count,
    peak_memory,
    take_turns,
)
from pslib.experiments import cost
from pslib.models.alignps import AlignPS, AlignPSConfig
from pslib.models.families import build
from pslib.models.two_stage import TwoStage, TwoStageConfig

IMAGE = images_of([(160, 96)])[0]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("detections", [6, 20])
@pytest.mark.parametrize("name", list(cost.MODELS))
def test_every_model_finds_as_many_as_it_is_told(name, detections, seed):
    """Whatever its random weights are; and the second stage reads as many proposals as it is told."""
    config = fixed_boxes(cost.MODELS[name]["tiny"](), detections, proposals=30)
    torch.manual_seed(seed)
    model = build(config, 5).eval()
    seen = []
    for part in model.modules():
        if type(part).__name__ == "RegionProposalNetwork":
            part.register_forward_hook(lambda _, __, output: seen.append(len(output[0][0])))
    with torch.no_grad():
        answer(model, IMAGE, detections)
    assert set(seen) <= {30}


def test_too_few_boxes_are_noticed():
    model = AlignPS(AlignPSConfig(), 5).eval()  # trained by nobody, it finds nobody above the threshold
    with torch.no_grad(), pytest.raises(UserError, match="where 6 are to be timed"):
        answer(model, IMAGE, 6)
    with pytest.raises(UserError, match="40 detections of 30 proposals"):
        fixed_boxes(TwoStageConfig(), 40, 30)


def test_calls_take_turns_and_waiting_is_no_work():
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: (order.append("b"), time.sleep(0.02))}
    times = take_turns(calls, repeats=3)
    assert order == ["a", "b"] * 4  # one untimed each
    assert len(times["b"].wall) == 3 and times["b"].middle() >= 0.02 > times["b"].middle("cpu")
    assert Times((3.0, 1.0, 2.0), (0.0,)).middle() == 2.0 and Times((3.0, 1.0, 2.0), (0.0,)).spread() == (1.0, 3.0)
    with pytest.raises(UserError, match="repeats=0"):
        take_turns(calls, repeats=0)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_peak_memory_sees_what_is_freed_again():
    def work():
        held = [torch.ones(8_000_000) for _ in range(3)]  # 32 MB each
        del held[:]
        time.sleep(0.05)

    assert 60e6 < peak_memory(work) < 200e6
    assert peak_memory(lambda: None) < 20e6


def test_parameters_are_counted_once():
    """NAE-like sharing of a stage must not count it twice; OIM's table is not learned by gradients."""
    model = TwoStage(TwoStageConfig(identity_loss="oim"), 50)
    assert parameter_count(model) == sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    assert parameter_count(model) == parameter_count(TwoStage(TwoStageConfig(identity_loss="oim"), 500))


def test_a_run_and_its_record(tmp_path, monkeypatch):
    """AlignPS is 1; FLOPs for each number of people; what is written is what is returned."""
    path = tmp_path / "cost" / "toy.json"
    record = cost.run_cost((160, 96), (6, 20), 1, models=("AlignPS", "OIM"), out=path, proposals=30, profile="tiny")
    assert cost.cost_records(path.parent) == {"toy": json.loads(path.read_text())} == {"toy": record}
    rows = record["models"]
    assert list(rows) == ["AlignPS", "OIM", "AlignPS, plain", "OIM, plain"]
    assert set(rows["OIM"]["flops"]) == {"6", "20"} and rows["OIM"]["flops"]["6"] > 1e6
    assert len(rows["OIM"]["cpu"]) == 1 and rows["AlignPS"]["layers"]["AlignPS.neck"] > 0
    assert record["provenance"]["components"] == {}
    head, _, alignps, oim, plain, _ = cost.table_lines(record)
    assert head.startswith("160 x 96 px, 20 people found, 30 proposals") and "cpu seconds" in head
    assert alignps.split()[4] == "1.00" and oim.split()[5] == "1.93" and plain.split()[6] == "-"
    path.write_text("{")
    with pytest.raises(UserError, match="toy.json cannot be read"):
        cost.cost_records(path.parent)
    assert cost.cost_records(tmp_path / "nothing") == {}


@pytest.mark.parametrize("name", list(cost.MODELS))
def test_the_papers_sizes(name):
    """All that is timed has the same backbone, and as many boxes as it is told."""
    config = fixed_boxes(cost.MODELS[name]["paper"](), 20, 300)
    text = repr(config)
    assert "backbone='resnet50'" in text and "resnet101" not in text and "'tiny'" not in text
    assert "detections_per_image=20" in text and "mutual=('" not in text
    assert "rpn_after_nms" not in text or "rpn_after_nms=(300, 300)" in text


def test_ratios_of_the_paper():
    """Only what was timed on the same GPU as AlignPS compares with it."""
    assert cost.reported_ratio("NAE") == pytest.approx(83 / 61)
    assert cost.reported_ratio("DKD") is None and cost.reported_ratio("AlignPS+") is None
    assert cost.clock_of({"provenance": {"device": "NVIDIA"}}) == "wall"


@pytest.mark.parametrize("arguments", [
    ["--size", "big"], ["--size", "20x20"], ["--precision", "float8"], ["--models", "Nae"], ["--repeats", "0"],
], ids=" ".join)  # fmt: skip
def test_mistakes_on_the_command_line(arguments, capsys, monkeypatch):
    """Each ends in one sentence; what can be measured is measured at tiny here."""
    run = cost.run_cost
    monkeypatch.setattr(cost, "run_cost", lambda *given: run(*given, 30, "tiny"))
    short = [] if "--size" in arguments else ["--size", "64x64"]
    models = [] if "--models" in arguments else ["--models", "AlignPS"]
    assert main(["bench", "cost", "--boxes", "6", *short, *models, *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("pslib: ")


def test_the_command_prints_the_table(capsys, monkeypatch):
    run = cost.run_cost
    monkeypatch.setattr(cost, "run_cost", lambda *given: run(*given, 30, "tiny"))
    arguments = ["--size", "64x64", "--boxes", "6", "--repeats", "1", "--models", "AlignPS"]
    assert main(["bench", "cost", *arguments]) == 0
    assert "REPORTED" in capsys.readouterr().out


def test_no_gpu_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device cuda is not here"):
        cost.run_cost(device="cuda")
