"""Two tasks in one network: whose gradients meet where, which structure is drawn, what the pictures say."""

import copy
import math

import numpy as np
import pytest
import torch
from toy_sets import toy_split

from pslib.evaluation.gallery import embed_gallery
from pslib.evaluation.readout import ReadOut, fresh_towers, layer_features, layer_search, readout_layers
from pslib.evaluation.search import search
from pslib.evaluation.statistics import Interval
from pslib.experiments.lookup import LostRun
from pslib.experiments.rows import RecordedRow
from pslib.models.alignps import STRUCTURES, AlignPS, AlignPSConfig
from pslib.training.gradients import TASKS, meeting_of, shared_parts, task_gradients
from pslib.training.recipe import LossWeights
from pslib.viz.tasks import Readout, bars_figure, fading_figure, structure_of, structures_figure

READERS = {"reid-first": "neck", "parallel": "re-id tower", "box": "box tower", "class": "class tower"}


def gradient_meeting(model, batches, weights=None):
    return meeting_of([task_gradients(model, images, targets, weights) for images, targets in batches])


def build(structure: str) -> AlignPS:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AlignPS(AlignPSConfig(structure=structure, lateral="conv", output="conv", embedding_norm="batch"), 3)
    # An empty memory sends no gradient.
    model.memory.update(torch.nn.functional.normalize(torch.rand(4, 48), dim=1), torch.tensor([0, 1, 2, -1]))
    return model


def batch(seed: int):
    generator = torch.Generator().manual_seed(seed)
    images = [torch.rand(3, 48, 64, generator=generator) for _ in range(2)]
    boxes = [torch.tensor([[4.0, 4.0, 16.0, 40.0], [30.0, 8.0, 44.0, 44.0]]) + i for i in range(2)]
    return images, [{"boxes": one, "labels": torch.tensor([0, 1 + i])} for i, one in enumerate(boxes)]


@pytest.fixture(scope="module", params=STRUCTURES)
def model(request):
    return build(request.param)


def test_gradients_are_those_of_backward(model):
    images, targets = batch(0)
    weights = LossWeights(oim=0.2, triplet=0.5)
    found = task_gradients(model, images, targets, weights)
    for task, names in TASKS.items():
        twin = copy.deepcopy(model).train()
        losses = twin(images, targets)
        sum(getattr(weights, name) * losses[name] for name in names).backward()
        for part, module in shared_parts(twin).items():
            want = torch.cat([p.grad.flatten() for p in module.parameters()])
            torch.testing.assert_close(found[task][part], want)
            assert want.any()  # what is called shared is reached by both


def test_only_what_both_tasks_reach_is_shared(model):
    images, targets = batch(0)
    reached = {}
    for task, names in TASKS.items():
        twin = copy.deepcopy(model).train()
        losses = twin(images, targets)
        sum(losses[name] for name in names).backward()
        reached[task] = {name for name, p in twin.named_parameters() if p.grad is not None and bool(p.grad.any())}
    both = reached["detection"] & reached["re-id"]
    named = {id(p) for part in shared_parts(model).values() for p in part.parameters()}
    assert {name for name, p in model.named_parameters() if id(p) in named} == both


def test_measuring_leaves_the_model_as_it_was(model):
    images, targets = batch(1)
    model.eval()
    model.head.train()
    before = copy.deepcopy(model.state_dict())
    gradient_meeting(model, [batch(1), batch(2)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model._pending is None and not model.training and model.head.training
    with torch.no_grad():  # as around a validation
        assert not math.isnan(gradient_meeting(model, [batch(1), batch(2)])["neck"]["between"])


def test_meeting_is_made_of_cosines_and_lengths():
    model, batches = build("box"), [batch(0), batch(1)]
    weights = LossWeights(oim=0.2, triplet=0.2)
    meeting = gradient_meeting(model, batches, weights)
    assert list(meeting) == ["backbone", "neck", "box tower"]
    first, second = (task_gradients(model, *one, weights) for one in batches)
    cosine = torch.nn.functional.cosine_similarity
    for part, values in meeting.items():
        crossed = [cosine(a["detection"][part], b["re-id"][part], dim=0) for a, b in ((first, second), (second, first))]
        assert values["between"] == pytest.approx(float(sum(crossed)) / 2, abs=1e-5)
        for task in TASKS:
            assert values[task] == pytest.approx(float(cosine(first[task][part], second[task][part], dim=0)), abs=1e-5)
        lengths = {task: sum(float(found[task][part].norm()) for found in (first, second)) for task in TASKS}
        assert values["share"] == pytest.approx(lengths["re-id"] / sum(lengths.values()), rel=1e-4)
    # a task that counts less has the shorter gradient, the angle stays
    light = gradient_meeting(model, batches, LossWeights(oim=0.02, triplet=0.02))
    assert light["neck"]["share"] < meeting["neck"]["share"]
    assert light["neck"]["between"] == pytest.approx(meeting["neck"]["between"], abs=1e-4)


def gradients_of(detection, reid):
    return [{"detection": {"neck": a}, "re-id": {"neck": b}} for a, b in zip(detection, reid, strict=True)]


def test_meeting_by_hand():
    two = gradients_of(torch.tensor([[3.0, 4.0], [3.0, -4.0]]), torch.tensor([[0.0, 2.0], [-2.0, 0.0]]))
    values = meeting_of(two)["neck"]
    assert values["detection"] == pytest.approx(-7 / 25) and values["re-id"] == pytest.approx(0)
    assert values["between"] == pytest.approx((-3 / 5 - 4 / 5) / 2)  # detection of one batch, re-id of the other
    assert values["room"] == 0 and values["share"] == pytest.approx(4 / 14)
    assert math.isnan(values.pop("error"))
    halved = meeting_of(two, halvings=5)["neck"]
    assert {name: halved[name] for name in values} == pytest.approx(values)  # halves of one batch each
    # Dot products of different batches: their means without one batch are 2.5, 2 and 1.5.
    three = meeting_of(gradients_of(torch.ones(3, 1), torch.tensor([[1.0], [2.0], [3.0]])))["neck"]
    assert three["error"] == pytest.approx(math.sqrt(2 / 3 * 0.5) * (1 + 1 / 2 + 1 / 3) / 3)


def test_noise_hides_opposed_means_until_gradients_are_summed():
    noise = torch.randn(2, 64, 400, generator=torch.Generator().manual_seed(0))
    mean = torch.zeros(400)
    mean[0] = 5
    gradients = gradients_of(noise[0] + mean, noise[1] - mean)
    single, summed = (meeting_of(gradients, halvings=number)["neck"] for number in (0, 20))
    # a cosine of two sums of n such gradients is about +-25 n / (25 n + 400)
    for values, count in ((single, 1), (summed, 32)):
        expected = 25 * count / (25 * count + 400)
        assert values["detection"] == pytest.approx(expected, abs=0.06)
        assert values["between"] == pytest.approx(-expected, abs=0.06)
        assert values["room"] == pytest.approx(-values["between"], abs=0.06)
        assert abs(values["between"] + expected) < 3 * values["error"] < 0.2


def test_no_cosine_without_a_gradient_or_a_second_batch():
    images, targets = batch(0)
    nobody = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)} for _ in targets]
    model = build("reid-first")
    for batches in ([(images, nobody)], [(images, nobody)] * 2):
        meeting = gradient_meeting(model, batches)
        assert math.isnan(meeting["neck"]["between"]) and math.isnan(meeting["neck"]["re-id"])
        assert meeting["neck"]["share"] == 0
    assert meeting["neck"]["detection"] == pytest.approx(1)


@pytest.mark.parametrize("levels", [("P3",), ("P3", "P4", "P5")])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_structure_is_found_by_watching(structure, levels):
    model = AlignPS(AlignPSConfig(structure=structure, levels=levels, lateral="conv", output="conv"), 3).train()
    found = structure_of(model, (32, 48))
    assert found.reader == READERS[structure]
    assert found.shapes["neck"] == (48, 8, 12) and found.shapes["embedding"] == (48, 8, 12)
    assert found.shapes["class tower"] == (32, 8, 12) and set(found.depths.values()) == {2}
    assert ("re-id tower" in found.depths) == (structure == "parallel")
    assert found.centred == (structure == "reid-first")
    assert model.training  # left as it was, hooks too
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_fresh_towers_are_read_beside_the_model(structure):
    model = build(structure).eval()
    images, targets = batch(0)
    boxes = [target["boxes"] for target in targets]
    beside = fresh_towers(model, 2)
    alone, both = layer_features(model, images, boxes), layer_features(model, images, boxes, beside)
    assert set(both) - set(alone) == {"random_0 1", "random_0 2", "random_1 1", "random_1 2"}
    assert all(torch.equal(alone[name], both[name]) for name in alone)  # the model does not hear of them
    assert both["random_0 2"].shape == (4, 32) and not torch.equal(both["random_0 2"], both["random_1 2"])
    assert not any(module._forward_hooks for module in model.modules())
    # A copy of the class tower is handed what the class tower is handed.
    copied = layer_features(model, images, boxes, {"copy": copy.deepcopy(model.head.class_tower)})
    assert all(torch.equal(copied[f"copy {depth}"], alone[f"class {depth}"]) for depth in (1, 2))
    again = fresh_towers(model, 2)["random_1"]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), beside["random_1"].parameters(), strict=True))


@pytest.mark.parametrize("levels", [("P3",), ("P3", "P4", "P5")])
def test_reading_out_on_the_way_changes_no_answer(levels):
    model = AlignPS(AlignPSConfig(levels=levels, class_threshold=0.0), 3).eval()
    data, reader = toy_split("test"), ReadOut(model)
    plain, read = embed_gallery(model, data), embed_gallery(reader, data)
    for mine, its in ((read.detections, plain.detections), (read.ground_truth, plain.ground_truth)):
        for name in ("frame", "boxes", "scores", "embeddings"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(its, name))
    found = reader.search(data, "TestG50")
    queries = plain.of_queries(data.protocols["TestG50"])
    direct = search(data.protocols["TestG50"], plain.ground_truth, queries, num_frames=len(data.frames)).ap
    np.testing.assert_array_equal(found["embedding"], direct)
    again = layer_search(model, data, "TestG50")
    assert list(found) == list(again) == [*readout_layers(model), "embedding"]
    assert all(np.array_equal(found[name], again[name]) for name in found)


def texts(fig) -> list[list[str]]:
    return [[text.get_text() for text in ax.texts] for ax in fig.axes]


def test_structures_figure_says_who_reads_what():
    fig = structures_figure({name: build(name) for name in STRUCTURES}, (32, 48))
    drawn = dict(zip(STRUCTURES, texts(fig), strict=True))
    assert {"embedding, 48 = P3 - its mean", "detection reads P3 - its mean"} <= set(drawn["reid-first"])
    assert all("detection reads P3 as it is" in drawn[one] for one in ("parallel", "box", "class"))
    whole = AlignPS(AlignPSConfig(lateral="conv", output="conv", mean_subtraction=False), 3)
    (as_it_is,) = texts(structures_figure({"re-id first": whole}, (32, 48)))
    assert {"embedding, 48 = P3 itself", "detection reads P3 as it is"} <= set(as_it_is)
    assert "re-id\n2 conv\nof 32" in drawn["parallel"]
    for structure in ("box", "class"):
        assert "embedding, 48" in drawn[structure] and not any(text.startswith("re-id") for text in drawn[structure])
    assert all("backbone and neck: P3\n48 x 8 x 12" in panel for panel in drawn.values())


def interval(mean: float) -> Interval:
    return Interval(mean, mean - 2, mean + 2)


def test_fading_figure_follows_every_path():
    values = {"neck": 40, "class 1": 20, "class 2": 7, "box 1": 13, "box 2": 6, "embedding": 44}
    first = Readout({name: interval(value) for name, value in values.items()}, "neck")
    own = {"re-id 1": 18, "re-id 2": 25, "random 1": 20, "random 2": 14}
    beside = Readout({name: interval(value) for name, value in (values | own).items()}, "re-id")
    fig = fading_figure({"re-id first": first, "T3": beside})
    paths = [
        {bars.get_label(): list(map(float, bars.lines[0].get_ydata())) for bars in ax.containers} for ax in fig.axes
    ]
    assert paths[0] == {"class tower": [40, 20, 7], "box tower": [40, 13, 6]}
    assert paths[1]["re-id tower"] == [40, 18, 25] and paths[1]["random tower"] == [40, 20, 14]
    stars = [line.get_xydata().tolist() for ax in fig.axes for line in ax.lines if line.get_label() == "embedding"]
    assert stars == [[[0, 44]], [[3, 44]]]  # P3 itself; behind its tower


def test_bars_figure_names_missing_rows():
    nothing, lost = RecordedRow(None), (LostRun("seed 0 failed: the loss is not finite", 0),)
    rows = {"baseline": RecordedRow(interval(10)), "scale": nothing, "all": RecordedRow(interval(30), lost=lost)}
    two = dict.fromkeys(rows, nothing) | {"all": RecordedRow(None, lost=lost)}
    fig = bars_figure({"one": rows, "two": two}, marked="baseline")
    first, second = ["  10.0", " not recorded yet", "  30.0 (failed: seed 0)"], [" not recorded yet"] * 2
    assert texts(fig) == [first, [*second, " failed: seed 0"]]
    assert [len(ax.patches) for ax in fig.axes] == [2, 0] and [len(ax.lines) > 0 for ax in fig.axes] == [True, False]
    assert fig.axes[0].get_ylim() == (2.5, -0.5)  # the last row is seen whether it has a bar or not
