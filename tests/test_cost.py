"""What an image costs: boxes that weights cannot change, clocks, memory, and the record of a run."""

import json
import time

import numpy as np
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
from pslib.evaluation.fast import prepare
from pslib.experiments import cost, cost_table
from pslib.models.alignps import AlignPS, AlignPSConfig
from pslib.models.families import build
from pslib.models.two_stage import TwoStage, TwoStageConfig
from pslib.training.recipe import COMPONENT_VERSIONS
from pslib.viz.cost import ratios_figure, ratios_text

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


@pytest.mark.parametrize("name", list(cost.MODELS))
def test_timed_models_pool_boxes_that_have_an_area(name):
    """Random weights would throw them out of an image of the paper's size; the heads that move boxes are still."""
    (one,) = cost.build_models([name], IMAGE, 20, 30, "tiny")
    for layer in one.plain.modules():
        if isinstance(layer, torch.nn.Linear) and layer.out_features == 4:
            assert not layer.weight.any()
    with torch.no_grad():
        (found,) = answer(one.plain, IMAGE, 20)
    assert len(found["boxes"]) == 20
    assert (found["boxes"][:, 2:] - found["boxes"][:, :2]).min() > 1


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


def test_records_keep_microseconds():
    """A GPU reads an image in ten milliseconds, and ratios are given to a hundredth."""
    assert cost._seconds(Times((0.0123456,), (0.0001234,))) == {"wall": [0.012346], "cpu": [0.000123]}


def test_peak_memory_sees_what_is_freed_again():
    def work():
        held = [torch.ones(8_000_000) for _ in range(3)]  # 32 MB each
        del held[:]
        time.sleep(0.05)

    assert peak_memory(work) == 96_000_000
    assert peak_memory(lambda: None) == 0


def test_the_gpu_that_is_asked_for_is_the_one_that_is_measured(monkeypatch):
    asked = []
    for name in ("synchronize", "memory_allocated", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device=None: asked.append(device) or 0)
    peak_memory(lambda: None, "cuda:1")
    take_turns({"a": lambda: None}, 1, "cuda:1")
    assert len(asked) > 5 and set(asked) == {"cuda:1"}


@pytest.mark.parametrize("threads", [1, 2])
def test_peak_memory_is_the_same_every_time_and_grows(threads):
    """In whatever order: the larger image needs more, and the model that runs all of another needs no less."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = {}
        for image in (IMAGE, images_of([(320, 192)])[0]):
            for one in cost.build_models(("ROI-AlignPS", "AlignPS", "NAE"), image, 6, 30, "tiny"):
                call = cost._call(prepare(one.plain), image, 6)
                first = peak_memory(call)
                assert first == peak_memory(call)
                found[one.name, image.shape[-1]] = first
    finally:
        torch.set_num_threads(before)
    assert all(found[name, 320] > 1.3 * found[name, 160] for name in ("AlignPS", "ROI-AlignPS", "NAE"))
    assert all(found["ROI-AlignPS", width] >= found["AlignPS", width] for width in (160, 320))


@pytest.mark.parametrize("name", list(cost.MODELS))
def test_only_what_training_needs_is_left_out_of_the_weights(name):
    """A hook on every part with weights of its own: those never called at test are the ones that do not count."""
    torch.manual_seed(0)
    model = build(fixed_boxes(cost.MODELS[name]["tiny"](), 6, proposals=30), 5).eval()
    called = set()
    owners = {path: part for path, part in model.named_modules() if any(True for _ in part.parameters(recurse=False))}
    for path, part in model.named_modules():
        part.register_forward_hook(lambda *_, path=path: called.add(path))
    with torch.no_grad():
        answer(model, IMAGE, 6)
    idle = {
        path
        for path in owners
        if path not in called and not any(f"{path}.".startswith(f"{up}.") for up in called if up)
    }
    left_out = cost.TRAINING_ONLY.get(name, ())
    assert {path.split(".")[0] for path in idle} == set(left_out)
    whole = parameter_count(model)
    assert parameter_count(model, left_out) == whole - sum(
        parameter_count(model.get_submodule(one)) for one in left_out
    )


def test_parameters_are_counted_once():
    """NAE-like sharing of a stage must not count it twice; OIM's table is not learned by gradients."""
    model = TwoStage(TwoStageConfig(identity_loss="oim"), 50)
    assert parameter_count(model) == sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    assert parameter_count(model) == parameter_count(TwoStage(TwoStageConfig(identity_loss="oim"), 500))


def test_a_run_and_its_record(tmp_path, monkeypatch):
    """AlignPS is 1; FLOPs for each number of people; what is written is what is returned."""
    path = tmp_path / "cost" / "toy.json"
    record = cost.run_cost((160, 96), (6, 20), 1, models=("AlignPS", "OIM"), proposals=30, profile="tiny")
    cost.write_json(path, record)
    assert cost.cost_records(path.parent) == {"toy": json.loads(path.read_text())} == {"toy": record}
    rows = record["models"]
    assert list(rows) == ["AlignPS", "OIM", "AlignPS, plain", "OIM, plain"]
    assert set(rows["OIM"]["flops"]) == {"6", "20"} and rows["OIM"]["flops"]["6"] > 1e6
    assert len(rows["OIM"]["cpu"]) == 1 and rows["AlignPS"]["layers"]["AlignPS.neck"] > 0
    assert set(rows["OIM"]["elsewhere"]) == {"6"} and len(rows["OIM"]["elsewhere"]["6"]["wall"]) == 1
    assert rows["AlignPS"]["peak_bytes"] > 1e6 and rows["AlignPS"]["elsewhere"]["6"]["peak_bytes"] > 1e6
    assert "elsewhere" not in rows["OIM, plain"] and rows["OIM, plain"]["peak_bytes"] > 1e6
    assert rows["OIM, plain"]["flops"] == {"20": rows["OIM"]["flops"]["20"]}
    measured = [rows["OIM"], rows["OIM"]["elsewhere"]["6"]]
    assert all(len(one["reference"]["cpu"]) == len(one["reference"]["wall"]) == 1 for one in measured)
    assert not any("reference" in rows[name] for name in ("AlignPS", "AlignPS, plain", "OIM, plain"))
    assert cost.time_ratio(record, "OIM").middle == rows["OIM"]["cpu"][0] / rows["OIM"]["reference"]["cpu"][0]
    assert record["provenance"]["components"]["ops"] >= 1
    head, _, alignps, oim, plain, _, other, _, fewer, _ = cost.table_lines(record)
    assert head.startswith("160 x 96 px, 20 people found, 30 proposals") and "cpu seconds" in head
    assert "ratios within each, AlignPS timed right before every other, with their range" in head
    assert alignps.split()[2:6] == ["1.00"] * 4 and oim.split()[6] == "1.93" and len(plain.split()) == 11
    assert other == "6 people found" and fewer.split()[0] == "AlignPS"
    path.with_name("toy-half.json").write_text(path.read_text())
    assert list(cost.cost_records(path.parent)) == ["toy", "toy-half"]
    path.write_text("{")
    with pytest.raises(UserError, match="toy.json cannot be read"):
        cost.cost_records(path.parent)
    assert cost.cost_records(tmp_path / "nothing") == {}


def test_turns_of_a_run(monkeypatch):
    """As many for every model at every number of people, and before them a call that nobody times."""
    calls = []
    watched = cost.answer
    monkeypatch.setattr(cost, "answer", lambda model, image, boxes: (calls.append(boxes), watched(model, image, boxes)))
    record = cost.run_cost((96, 64), (6, 8), 3, models=("AlignPS",), proposals=10, profile="tiny")
    prepared, plain = record["models"].values()
    assert len(prepared["cpu"]) == len(plain["cpu"]) == len(prepared["elsewhere"]["6"]["cpu"]) == 3
    assert calls == [8] * 2 * (1 + 3) + [6] * (1 + 3)
    half = cost.run_cost((96, 64), (8,), 1, precision="bfloat16", models=("AlignPS",), proposals=10, profile="tiny")
    assert list(half["models"]) == ["AlignPS"] and "elsewhere" not in half["models"]["AlignPS"]
    assert "bfloat16" in cost.precision_line(half, record) and cost.precision_line(record, half) == ""
    assert cost.precision_line(half, record | {"threads": 64}) == ""


def test_alignps_is_timed_right_before_every_rival(monkeypatch):
    order = []
    watched = cost._call
    monkeypatch.setattr(cost, "prepare", lambda model, precision: model)
    monkeypatch.setattr(cost, "peak_memory", lambda call, device: 0)

    def call(model, image, boxes):
        return lambda: (order.append(type(model).__name__), watched(model, image, boxes)())

    monkeypatch.setattr(cost, "_call", call)
    models = ("AlignPS", "NAE", "SeqNet")
    cost.run_cost((96, 64), (6,), 2, precision="bfloat16", models=models, proposals=10, profile="tiny")
    assert order == ["AlignPS", "AlignPS", "NAE", "AlignPS", "SeqNet"] * 2
    order.clear()
    cost.run_cost((96, 64), (6,), 1, models=models[1:], proposals=10, profile="tiny")
    assert order == ["NAE", "NAE", "SeqNet", "SeqNet"]  # prepared, plain; nothing to stand beside


def made_up():
    """A record of round numbers: NAE takes twice the processor's seconds of AlignPS and three times the wall's."""

    def row(cpu, wall, peak=10**9, **more):
        flops = {"20": 2 * 10**11, "6": 1.5e11}
        return {"cpu": cpu, "wall": wall, "peak_bytes": peak, "parameters": 10**7, "flops": flops} | more

    fewer = {"elsewhere": {"6": {"cpu": [1.0], "wall": [0.5], "peak_bytes": 5 * 10**8}}}
    return {
        "version": cost_table.COST_VERSION, "size": [1500, 900], "boxes": [6, 20], "proposals": 300, "threads": 2,
        "precision": "float32", "profile": "paper", "repeats": 3,
        "provenance": {"device": "cpu", "machine": "m", "components": dict(COMPONENT_VERSIONS)},
        "models": {
            "AlignPS": row([2.0, 4.0, 3.0], [1.0, 1.0, 5.0], **fewer),
            "AlignPS, plain": row([4.0, 5.0, 4.0], [2.0, 2.0, 10.0], peak=8 * 10**8),
            "NAE": row([4.0, 8.0, 9.0], [3.0, 3.0, 5.0]), "NAE, plain": row([12.0, 10.0, 12.0], [4.0, 4.0, 4.0]),
        },
    }  # fmt: skip


def test_a_record_by_hand():
    record = made_up()
    assert cost_table.stale_reason(record) == ""
    assert cost_table.median_seconds(record, "AlignPS") == 3.0
    assert cost_table.median_seconds(record, "AlignPS", clock="wall") == 1.0
    assert (
        cost_table.median_seconds(record, "AlignPS", 6) == 1.0 and cost_table.median_seconds(record, "NAE", 6) is None
    )
    lines = cost.table_lines(record)
    assert lines[0].endswith("medians of 3 turns, ratios within each, with their range")
    assert lines[3].split() == "NAE 8.000 2.00 2.00 3.00 3.00 1.36 200 1000 10.00".split()
    assert lines[-3] == "6 people found" and lines[-1].split() == (
        "AlignPS 1.000 1.00 1.00 1.00 1.00 1.00 150 500 10.00".split()
    )
    saves, memory, prepared, built = cost.preparing_lines(record)
    assert saves.endswith("AlignPS 0.75 [0.50, 0.80], NAE 0.75 [0.33, 0.80]")
    assert memory.endswith("AlignPS 800 to 1000, NAE 1000 to 1000")
    assert prepared.endswith("NAE 2.00 [2.00, 3.00]") and built.endswith("NAE 3.00 [2.00, 3.00]")
    del record["models"]["AlignPS, plain"]
    assert cost.preparing_lines(record) == []
    half = made_up() | {"precision": "bfloat16"}
    half["models"] = {"NAE": half["models"]["NAE"] | {"cpu": [4.0]}}
    assert cost.precision_line(half, record) == "bfloat16 over float32, time: NAE 0.50"


def test_a_machine_that_slows_down_half_way_leaves_the_ratio_alone():
    """The ratio of the medians would mix turns: here it is 2.0."""
    record = made_up()
    slow = np.array([1.0, 1.0, 1.0, 10.0, 10.0])
    record["models"] |= {name: {"cpu": list(factor * slow)} for name, factor in (("AlignPS", 1.0), ("NAE", 1.5))}
    record["models"]["NAE"]["cpu"][2] = 2.0
    assert cost.time_ratio(record, "NAE") == pytest.approx((1.5, 1.5, 2.0))
    assert cost_table.median_seconds(record, "NAE") / cost_table.median_seconds(record, "AlignPS") == 2.0
    assert cost.time_ratio(record, "SeqNet") is None and cost.time_ratio(record, "NAE", boxes=6) is None
    record["models"]["NAE"]["cpu"].pop()
    with pytest.raises(ValueError, match="zip"):
        cost.time_ratio(record, "NAE")


def test_a_machine_that_slows_down_within_a_turn_leaves_the_ratio_alone():
    """It is over AlignPS's calls right before the rival's; over one call for the whole turn it is 3.0, or 0.75."""
    record = made_up()
    record["models"] |= {"AlignPS": {"cpu": [1.0, 2.0]}, "NAE": {"cpu": [3.0, 1.5]}, "OIM": {"cpu": [2.0, 4.0]}}
    assert cost.time_ratio(record, "NAE") == pytest.approx((1.875, 0.75, 3.0))
    record["models"]["NAE"]["reference"] = {"cpu": [2.0, 1.0], "wall": [4.0, 5.0]}
    assert cost.time_ratio(record, "NAE") == pytest.approx((1.5, 1.5, 1.5))
    assert cost.time_ratio(record, "NAE", "OIM") == pytest.approx((0.9375, 0.375, 1.5))  # no rival of its own
    assert cost.time_ratio(record, "OIM") == pytest.approx((2.0, 2.0, 2.0))


def test_the_interval_of_a_ratio_holds_as_often_as_it_says():
    """Nine turns that scatter widely and lopsidedly; the range of few turns promises less."""
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        turns = np.exp(rng.standard_normal(9)) * 1.3  # of median 1.3
        models = {"AlignPS": {"cpu": [1.0] * 9}, "NAE": {"cpu": list(turns)}}
        found = cost.time_ratio(made_up() | {"models": models}, "NAE")
        held.append(found.low <= 1.3 <= found.high)
        assert turns.min() < found.low <= found.middle <= found.high < turns.max()
    assert 0.93 <= np.mean(held) <= 0.99  # 0.961 by the binomial distribution of nine turns


def test_who_is_below_level_or_above():
    ratios = {"NAE": cost.Ratio(1.4, 1.1, 2.0), "SeqNet": cost.Ratio(1.2, 0.9, 1.3), "OIM": cost.Ratio(0.8, 0.7, 0.9)}
    told = cost.standing(ratios, ("NAE", "SeqNet", "OIM", "NAE+"))
    assert told == "AlignPS is below 1 of 3 rivals (NAE), level with SeqNet, above OIM"
    assert cost.standing({"NAE": 2.0}, ("NAE",)) == "AlignPS is below 1 of 1 rivals (NAE)"


def test_three_turns_on_one_side_tell_nothing():
    """Two equally fast models are so in a quarter of all cases."""
    models = {"AlignPS": {"cpu": [1.0, 1.0, 1.0]}, "ROI-AlignPS": {"cpu": [0.9, 0.98, 0.95]}}
    found = cost.time_ratio(made_up() | {"models": models}, "ROI-AlignPS")
    assert found == cost_table.Range(0.95, 0.9, 0.98) and isinstance(found, cost_table.Range)
    told = cost.standing({"ROI-AlignPS": found, "NAE": 1.5}, ("ROI-AlignPS", "NAE"))
    assert told == "AlignPS is below 1 of 2 rivals (NAE), too few turns for ROI-AlignPS"


def test_a_record_goes_stale(monkeypatch):
    """By a part that a search runs through, not by a loss; and by its layout."""
    record = made_up()
    monkeypatch.setitem(COMPONENT_VERSIONS, "triplet_loss", COMPONENT_VERSIONS["triplet_loss"] + 1)
    assert cost.stale_reason(record) == ""
    monkeypatch.setitem(COMPONENT_VERSIONS, "two_stage", COMPONENT_VERSIONS["two_stage"] + 1)
    assert cost.stale_reason(record).startswith("STALE: two_stage changed")
    assert cost.table_lines(record)[1] == cost.preparing_lines(record)[0] == cost.stale_reason(record)
    assert cost.record_label(record) == "1500 px, float32, cpu (RECORDED, STALE)"
    del record["version"]
    assert cost.stale_reason(record).startswith("STALE: measured before")


def test_the_committed_records():
    """They fit today's code.  ROI-AlignPS needs AlignPS's memory and more; every number of people has every model."""
    assert {"cpu", "cpu-bfloat16"} <= set(cost.cost_records())
    for name, record in cost.cost_records().items():
        assert cost.stale_reason(record) == "" and record["repeats"] >= 6, name
        for boxes in record["boxes"]:
            rivals = [cost.measured_at(record, model, boxes) for model in cost.MODELS if model != "AlignPS"]
            assert all(len(row["reference"]["cpu"]) == record["repeats"] for row in rivals), (name, boxes)
            needed = {model: cost.measured_at(record, model, boxes)["peak_bytes"] for model in cost.MODELS}
            assert needed["ROI-AlignPS"] >= 0.95 * needed["AlignPS"] > 1e6, (name, boxes)


@pytest.mark.parametrize("rival", ["NAE", "SeqNet", "NAE+", "OIM", cost.SEPARATE])
@pytest.mark.parametrize(("name", "precision"), [("cpu", "float32"), ("cpu-bfloat16", "bfloat16")])
def test_alignps_is_faster_as_readme_says(name, precision, rival):
    """By the whole interval, not by the medians alone, with every number of people."""
    record = cost.cost_records()[name]
    assert record["precision"] == precision and record["repeats"] >= 6
    assert all(cost.time_ratio(record, rival, boxes=boxes).low > 1 for boxes in record["boxes"])


def test_roi_alignps_is_not_measured_faster_than_the_part_of_it_that_is_alignps():
    """At 20 people it does a twentieth more, which a CPU's clock here cannot tell; at 100, in float32, it can."""
    for record in cost.cost_records().values():
        found = [cost.time_ratio(record, "ROI-AlignPS", boxes=boxes) for boxes in record["boxes"]]
        assert all(one.middle > 1 for one in found)
    assert cost.time_ratio(cost.cost_records()["cpu"], "ROI-AlignPS", boxes=100).low > 1


@pytest.mark.parametrize("name", list(cost.MODELS))
def test_the_papers_sizes(name):
    """All that is timed has the same backbone, and as many boxes as it is told."""
    config = fixed_boxes(cost.MODELS[name]["paper"](), 20, 300)
    text = repr(config)
    assert "backbone='resnet50'" in text and "resnet101" not in text and "'tiny'" not in text
    assert "detections_per_image=20" in text and "mutual=('" not in text
    assert "rpn_after_nms" not in text or "rpn_after_nms=(300, 300)" in text


def test_the_figure_leaves_no_record_out():
    """Committed records may come to any number: a CPU's, a GPU's, each in two precisions."""
    columns = {f"record {number}": {"NAE": 1.0 + number / 10} for number in range(9)}
    (ax,) = ratios_figure(columns).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(columns)


def test_the_figure_draws_a_ratios_interval():
    columns = {"paper": {"NAE": 1.4, "OIM": 1.9}, "ours": {"NAE": cost.Ratio(1.5, 1.2, 1.9)}}
    (ax,) = ratios_figure(columns).axes
    (line,) = [line for line in ax.lines if len(line.get_xdata()) == 2 and list(line.get_xdata()) == [1.2, 1.9]]
    assert line.get_ydata()[0] == line.get_ydata()[1]
    marks = [line for line in ax.lines if line.get_marker() not in ("", "None", None)]
    assert [list(mark.get_xdata()) for mark in marks] == [[1.4, 1.9], [1.5]]
    assert ratios_text(columns) == "paper: NAE 1.40, OIM 1.90; ours: NAE 1.50 [1.20, 1.90]"


def test_ratios_of_the_paper():
    """Only what was timed on the same GPU as AlignPS compares with it."""
    assert cost.reported_ratio("NAE") == pytest.approx(83 / 61)
    assert cost.reported_ratio(cost.SEPARATE) == pytest.approx((83 + 61) / 61)
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


def test_the_command_prints_the_table(capsys, monkeypatch, tmp_path):
    run = cost.run_cost
    monkeypatch.setattr(cost, "run_cost", lambda *given: run(*given, proposals=30, profile="tiny"))
    arguments = ["--size", "64x64", "--boxes", "6", "--repeats", "1", "--models", "AlignPS"]
    assert main(["bench", "cost", *arguments]) == 0
    assert "REPORTED" in capsys.readouterr().out
    out = tmp_path / "new" / "cost.json"
    assert main(["bench", "cost", *arguments, "--out", str(out)]) == 0
    assert list(json.loads(out.read_text())["models"]) == ["AlignPS", "AlignPS, plain"]


def test_an_answer_that_cannot_be_written_is_not_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cost, "run_cost", lambda *_: pytest.fail("measured first"))
    (tmp_path / "file").touch()
    for out, said in ((tmp_path, "is a folder: name a file in it"), (tmp_path / "file" / "x.json", "nothing can be")):
        assert main(["bench", "cost", "--size", "64x64", "--out", str(out)]) == 2
        assert said in capsys.readouterr().err
    assert main(["bench", "cost", "--size", "\u00b2x\u00b2"]) == 2 and "is no size" in capsys.readouterr().err


def test_no_gpu_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device mps cannot be measured"):
        cost.run_cost(device="mps")
    with pytest.raises(UserError, match="device cuda is not here"):
        cost.run_cost(device="cuda")
