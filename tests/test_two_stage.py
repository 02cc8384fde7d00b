"""Two-stage search: losses, scores and boxes against plain loops, what gradients reach, batches that lack people."""

import math
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import box_iou
from toy_sets import toy_batch, train_step

from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.models import proposals as proposals_module
from pslib.models import two_stage as two_stage_module
from pslib.models.batching import batch_images
from pslib.models.proposals import match_rois, sample_rois
from pslib.models.two_stage import TwoStage, TwoStageConfig

IDENTITIES = 6
SMALL = TwoStageConfig(embedding_dim=16, fc_width=32, rois_per_image=16, rss_samples=4, queue_size=8)
RSS_LOSSES = {"rpn_class", "rpn_box", "box", "rss", "center"}
OIM_LOSSES = {"rpn_class", "rpn_box", "box", "person", "oim"}
SWITCHES = [
    {},
    {"identity_loss": "oim"},
    {"identity_loss": "oim", "roi_size": 14},
    {"backbone": "tiny-deep", "roi_layer": "align"},
    {"backbone": "tiny-vgg", "dropout": 0.5, "feature_relu": True},
    {"backbone": "tiny-vgg", "identity_loss": "oim", "dropout": 0.5},
    {"dropout": 0.5, "center_attach": "before", "center_boxes": "all"},
    {"rss_samples": None, "center_start": "zeros", "center_reduction": "sum"},
]


def build(identities=IDENTITIES, cls=TwoStage, **switches):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(replace(SMALL, **switches), identities)


def name(switches):
    return ",".join(f"{key}={value}" for key, value in switches.items()) or "default"


@pytest.mark.parametrize("switches", SWITCHES, ids=name)
def test_every_switch_trains_a_step_and_detects(switches):
    model = build(**switches, score_threshold=0.0)
    images, targets = toy_batch()
    before = [parameter.clone() for parameter in model.parameters()]
    losses = train_step(model, images, targets)
    assert set(losses) == (OIM_LOSSES if model.config.identity_loss == "oim" else RSS_LOSSES)
    assert all(loss.ndim == 0 and loss.isfinite() and loss.requires_grad for loss in losses.values())
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.8 * len(moved)
    cosine = model.config.identity_loss == "oim"
    assert model.similarity == ("cosine" if cosine else "euclidean")
    found = model.eval()(images)
    assert sum(len(result["scores"]) for result in found) > 0
    for result in found:
        boxes, scores, embeddings = result["boxes"], result["scores"], result["embeddings"]
        assert boxes.shape == (len(scores), 4) and embeddings.shape == (len(scores), 16)
        assert (boxes >= 0).all() and (boxes[:, 0::2] <= 96).all() and (boxes[:, 1::2] <= 64).all()
        assert (scores[1:] <= scores[:-1]).all() and ((scores >= 0) & (scores <= 1)).all()
        assert box_iou(boxes, boxes).fill_diagonal_(0).max() <= model.config.nms_threshold
        lengths = embeddings.norm(dim=1)
        assert torch.allclose(lengths, torch.ones(len(scores)), atol=1e-5) is cosine


# The sample of ROIs against loops over boxes.


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def check_sample(sample, boxes, labels, background, count, fraction):
    truth = sample.truth.tolist()
    assert truth == [True] * len(boxes) + [False] * (len(truth) - len(boxes))
    positives = 0
    for row, roi in enumerate(sample.boxes.tolist()):
        overlaps = [iou(roi, box) for box in boxes.tolist()]
        best = max(range(len(boxes)), key=overlaps.__getitem__, default=None)
        if truth[row]:
            best = row
        if best is None or overlaps[best] < 0.5:
            assert sample.labels[row] == background
            continue
        positives += 1
        assert sample.labels[row] == labels[best] and torch.equal(sample.matched[row], boxes[best])
    assert len(truth) <= max(count, len(boxes)) and positives <= max(count * fraction, len(boxes))


def drawn_rois(seed):
    generator = torch.Generator().manual_seed(seed)
    # Side by side: with people one behind another, rounding decides whom an ROI in between shows.
    corner = torch.rand(3, 2, generator=generator) * torch.tensor([10.0, 20.0])
    corner[:, 0] += torch.tensor([0.0, 30.0, 60.0])
    boxes = torch.cat([corner, corner + torch.tensor([16.0, 40.0])], dim=1)
    near = boxes.repeat(10, 1) + 4 * torch.randn(30, 4, generator=generator)
    far = torch.rand(30, 2, generator=generator) * 50
    proposals = torch.cat([near, torch.cat([far, far + 12], dim=1)])
    return proposals[torch.randperm(60, generator=generator)], boxes


@pytest.mark.parametrize("seed", range(4))
def test_rois_are_labelled_as_by_loops(seed):
    torch.manual_seed(seed)
    proposals, boxes = drawn_rois(seed)
    labels = torch.tensor([4, UNLABELLED, 0])
    sample = sample_rois(proposals, boxes, labels, background=6, count=20, positive_fraction=0.5, positive_iou=0.5)
    check_sample(sample, boxes, labels, 6, 20, 0.5)
    assert len(sample.boxes) == 20 and (sample.labels != 6).sum() == 10
    assert set(sample.labels.tolist()) == {4, UNLABELLED, 0, 6}


def test_an_overlap_of_exactly_the_threshold_is_positive():
    person = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    half = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.9]])
    assert match_rois(half, person, 0.5).tolist() == [0, -1]


def test_ground_truth_is_always_sampled_with_its_own_label():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0]] * 3)  # three people in one box: matching would call all the first
    labels = torch.tensor([2, UNLABELLED, 5])
    sample = sample_rois(torch.zeros(0, 4), boxes, labels, 6, count=2, positive_fraction=0.5, positive_iou=0.5)
    assert torch.equal(sample.boxes, boxes) and torch.equal(sample.labels, labels) and sample.truth.all()
    empty = sample_rois(torch.zeros(0, 4), boxes[:0], labels[:0], 6, 2, 0.5, 0.5)
    assert empty.boxes.shape == empty.matched.shape == (0, 4) and len(empty.labels) == len(empty.truth) == 0
    alone = sample_rois(boxes, boxes[:0], labels[:0], 6, 2, 0.5, 0.5)
    assert alone.labels.tolist() == [6, 6] and not alone.truth.any()


# The losses against loops over the ROIs of the step.


def replay(model, images, targets):
    """The losses of a step, and the sampled ROIs with what the second stage said of them."""
    seen = {}
    outer = model.read

    def read(trunk, boxes):
        seen["output"] = outer(trunk, boxes)
        seen["boxes"] = [image.tolist() for image in boxes]
        return seen["output"]

    model.read = read
    losses = model(images, targets)
    del model.read
    return losses, seen["boxes"], seen["output"]


def check_losses(model, images, targets):
    model.train()
    if model.config.identity_loss == "rss":
        model.centers.update(torch.randn(IDENTITIES - 1, 16), torch.arange(IDENTITIES - 1))  # the last is not seen
        centers = model.centers.centers.clone()
    else:
        model.memory.update(F.normalize(torch.randn(12, 16)), torch.tensor([*range(IDENTITIES), *[UNLABELLED] * 6]))
    losses, rois, output = replay(model, images, targets)
    features = output.features if model.config.center_attach == "before" else output.dropped
    box, rss, center, person, oim = [], [], [], [], []
    row = 0
    for image, target in zip(rois, targets, strict=True):
        people = target["boxes"].tolist()
        assert image[: len(people)] == people
        for place, roi in enumerate(image):
            overlaps = [iou(roi, other) for other in people]
            best = place if place < len(people) else max(range(len(people)), key=overlaps.__getitem__)
            found = overlaps[best] >= 0.5
            label = int(target["labels"][best]) if found else IDENTITIES
            if found:
                (x1, y1, x2, y2), (u1, v1, u2, v2) = roi, people[best]
                w, h, wide, high = x2 - x1, y2 - y1, u2 - u1, v2 - v1
                wanted = (
                    10 * ((u1 + u2) - (x1 + x2)) / 2 / w, 10 * ((v1 + v2) - (y1 + y2)) / 2 / h,
                    5 * math.log(wide / w), 5 * math.log(high / h),
                )  # fmt: skip
                for got, want in zip(output.deltas[row].tolist(), wanted, strict=True):
                    off = abs(got - want)
                    box.append(4.5 * off**2 if off < 1 / 9 else off - 1 / 18)
            if model.config.identity_loss == "rss":
                if label != UNLABELLED:
                    logits = model.classifier(output.dropped[row])
                    rss.append((logits.logsumexp(0) - logits[label]).item())
                chosen = model.config.center_boxes == "all" or place < len(people)
                if found and chosen and 0 <= label < IDENTITIES - 1:
                    center.append(((features[row] - centers[label]).square().sum() / 2).item())
            else:
                logits = output.person_logits[row]
                person.append((logits.logsumexp(0) - logits[int(found)]).item())
                if 0 <= label < IDENTITIES:
                    unit = output.dropped[row] / output.dropped[row].norm()
                    logits = torch.cat([model.memory.table, model.memory.queue]) @ unit / 0.1
                    oim.append((logits.logsumexp(0) - logits[label]).item())
            row += 1
    expected = {"box": sum(box) / row}
    if model.config.identity_loss == "rss":
        mean = model.config.center_reduction == "mean"
        regions = len(rss) if model.config.rss_average == "labelled" else row
        expected |= {"rss": sum(rss) / regions, "center": sum(center) / (max(1, len(center)) if mean else 1)}
    else:
        expected |= {"person": sum(person) / row, "oim": sum(oim) / len(oim)}
    for key, value in expected.items():
        assert losses[key].item() == pytest.approx(value, rel=1e-4, abs=1e-6), key


LOSS_SWITCHES = [
    {"rss_samples": None},
    {"rss_samples": None, "center_boxes": "all", "center_reduction": "sum"},
    {"rss_samples": None, "dropout": 0.5, "center_attach": "before"},
    {"rss_samples": None, "dropout": 0.5},
    {"identity_loss": "oim"},
    {"rss_samples": None, "rss_average": "rows"},
]


@pytest.mark.parametrize("switches", LOSS_SWITCHES, ids=name)
def test_losses_are_those_of_loops(switches):
    check_losses(build(**switches), *toy_batch())


FAULTS = [
    ("two_stage", "background = self.config, self.num_identities", "background = self.config, 0", 0),
    ("two_stage", '== "before" else output.dropped)', '== "after" else output.dropped)', 3),
    ("two_stage", 'rows = truth if', 'rows = person if', 0),
    ("two_stage", "max(1, len(labels))  # as", "max(1, int(person.sum()))  # as", 0),
    ("two_stage", "(10.0, 10.0, 5.0, 5.0)", "(1.0, 1.0, 1.0, 1.0)", 0),
    ("two_stage", "output.dropped), labels, config.rss", "output.features), labels, config.rss", 3),
    ("two_stage", ", average=config.rss_average", "", 5),
    ("two_stage", "self.centers.seen, config", "None, config", 0),
    ("two_stage", "focal_gamma=0.0", "focal_gamma=2.0", 4),
    ("two_stage", "person.long(), reduction", "(~person).long(), reduction", 4),
    ("proposals", "labels[found],", "labels.new_full((len(found),), background),", 0),
    ("proposals", "boxes[found], proposals[negative]", "proposals[drawn]", 0),
    ("proposals", "return Matcher(positive_iou, positive_iou if", "return Matcher(0.2, 0.2 if", 0),
]  # fmt: skip


def planted(monkeypatch, module, old, new):
    """TwoStage with ``old`` replaced by ``new`` in the source of one of its two modules."""
    original = {"two_stage": two_stage_module, "proposals": proposals_module}[module]
    source = Path(original.__file__).read_text()
    assert source.count(old) == 1, old
    copy = types.ModuleType(original.__name__)
    monkeypatch.setitem(__import__("sys").modules, original.__name__, copy)
    exec(compile(source.replace(old, new), original.__file__, "exec"), copy.__dict__)
    if module == "two_stage":
        return copy.TwoStage
    monkeypatch.setattr(two_stage_module, "sample_rois", copy.sample_rois)
    return TwoStage


@pytest.mark.parametrize(("module", "old", "new", "switches"), FAULTS, ids=lambda value: str(value)[:24])
def test_planted_faults_are_caught(monkeypatch, module, old, new, switches):
    cls = planted(monkeypatch, module, old, new)
    with pytest.raises(AssertionError):
        for seed in range(3):
            check_losses(build(cls=cls, **LOSS_SWITCHES[switches]), *toy_batch(seed))


@pytest.mark.parametrize("identity_loss", ["rss", "oim"])
def test_scores_are_those_of_a_softmax_written_out(identity_loss):
    model = build(identity_loss=identity_loss).eval()
    if identity_loss == "rss":
        torch.nn.init.normal_(model.classifier.weight)
    with torch.no_grad():
        output = model.read_rois(torch.rand(5, 64, 7, 7))
        scores = model.scores(output)
        for row, score in enumerate(scores):
            if identity_loss == "rss":
                powers = model.classifier(output.features[row]).double().exp()
                expected = 1 - powers[IDENTITIES] / powers.sum()
            else:
                background, person = output.person_logits[row].double().exp()
                expected = person / (background + person)
            assert score.item() == pytest.approx(float(expected), rel=1e-4)


def test_a_score_near_zero_keeps_its_digits():
    model = build().eval()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([*[0.0] * IDENTITIES, 25.0]))
        score = model.scores(model.read_rois(torch.rand(1, 64, 7, 7)))
    assert score.item() == pytest.approx(IDENTITIES * math.exp(-25), rel=1e-4)


# What gradients reach.


def reached(loss, model):
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {key for key, p in model.named_parameters() if p.grad is not None and p.grad.norm() > 0}


@pytest.mark.parametrize("identity_loss", ["rss", "oim"])
def test_losses_reach_what_they_should(identity_loss):
    model = build(identity_loss=identity_loss)
    images, targets = toy_batch()
    train_step(model, images, targets)  # centers and table are empty before
    losses = model(images, targets)
    parts = {key: {name.split(".")[0] for name in reached(loss, model)} for key, loss in losses.items()}
    assert parts["rpn_class"] == parts["rpn_box"] == {"backbone", "rpn"}
    assert parts["box"] == {"backbone", "head"}
    if identity_loss == "rss":
        assert parts["rss"] == {"backbone", "head", "classifier"} and parts["center"] == {"backbone", "head"}
    else:
        assert parts["person"] == parts["oim"] == {"backbone", "head"}
    stages = {key: {name.split(".")[1] for name in reached(loss, model) if "backbone" in name} for key, loss in
              losses.items()}  # fmt: skip
    assert "stage5" not in stages["rpn_class"] and {"stem", "stage4"} <= stages["rpn_class"]
    identity = "rss" if identity_loss == "rss" else "oim"
    assert {"stem", "stage4", "stage5"} <= stages[identity]
    assert not any(key.startswith("head.box") for key in reached(losses[identity], model))


@pytest.mark.parametrize("attach", ["before", "after"])
def test_center_loss_attaches_before_or_after_dropout_and_the_classifier_after(attach):
    model = build(dropout=0.5, center_attach=attach, rss_samples=None)
    images, targets = toy_batch()
    train_step(model, images, targets)
    losses, rois, output = replay(model, images, targets)
    off = (output.dropped == 0) & (output.features != 0)
    assert 0.3 < off.float().mean() < 0.7
    by_rss, by_center = (torch.autograd.grad(losses[key], output.features, retain_graph=True)[0]
                         for key in ("rss", "center"))  # fmt: skip
    assert (by_rss[off] == 0).all() and (by_rss[~off] != 0).float().mean() > 0.5
    starts = [0, len(rois[0])]
    rows = [start + place for start, target in zip(starts, targets, strict=True)
            for place in range(len(target["labels"])) if target["labels"][place] >= 0]  # fmt: skip
    labels = torch.cat([target["labels"][target["labels"] >= 0] for target in targets])
    others = [row for row in range(len(by_center)) if row not in rows]
    assert (by_center[others] == 0).all()
    source = output.features if attach == "before" else output.dropped
    expected = (source[rows] - model.centers.centers[labels]) / len(rows)
    if attach == "after":
        expected = expected * 2 * ~off[rows]  # nn.Dropout rescales what it keeps by 1 / (1 - 0.5)
    assert torch.allclose(by_center[rows], expected, atol=1e-6)


# The memory moves when the trainer says so.


@pytest.mark.parametrize(("boxes", "count"), [("ground-truth", 2), ("all", None)])
def test_centers_learn_from_the_rows_that_center_loss_reads(boxes, count):
    model = build(center_boxes=boxes).train()
    images, targets = toy_batch()
    sum(model(images, targets).values()).backward()
    assert not model.centers.seen.any()
    features, labels = model._pending
    assert not features.requires_grad
    labelled = (labels >= 0) & (labels < IDENTITIES)
    assert labelled.sum() == count if count else labelled.sum() > 2
    model.update_memory()
    assert model._pending is None
    for label in range(IDENTITIES):
        assert bool(model.centers.seen[label]) is bool((labels == label).any())
        if model.centers.seen[label]:
            assert torch.allclose(model.centers.centers[label], features[labels == label].mean(0), atol=1e-6)
    before = model.centers.centers.clone()
    model.update_memory()  # nothing pending: nothing happens
    model.eval()(images)
    model.update_memory()
    assert torch.equal(model.centers.centers, before)


def test_oim_takes_unlabelled_people_into_its_queue_and_no_background():
    model = build(identity_loss="oim").train()
    images, targets = toy_batch()
    model(images, targets)
    people, labels = model._pending
    assert labels.max() < IDENTITIES and (labels == UNLABELLED).any()
    assert torch.allclose(people.norm(dim=1), torch.ones(len(people)), atol=1e-5)
    model.update_memory()
    assert (model.memory.queue != 0).any() and (model.memory.table != 0).any()


def test_variants_that_differ_in_center_loss_and_dropout_share_their_state():
    plain = build()
    train_step(plain, *toy_batch())
    for switches in (
        {"center_boxes": "all", "center_attach": "before", "center_alpha": 0.1, "center_reduction": "sum"},
        {"dropout": 0.5, "rss_samples": None, "score_threshold": 0.5, "nms_threshold": 0.6},
        {"center_start": "zeros"},
    ):
        other = build(**switches)
        other.load_state_dict(plain.state_dict())
        assert torch.equal(other.centers.centers, plain.centers.centers)
        assert other.centers.seen.all() if "center_start" in switches else not other.centers.seen.all()
    for backbone in ("tiny", "tiny-vgg"):
        build(backbone=backbone, dropout=0.5).load_state_dict(build(backbone=backbone).state_dict())


# One pass for detections and for given boxes.


@pytest.mark.parametrize("switches", [{}, {"identity_loss": "oim"}, {"backbone": "tiny-vgg", "dropout": 0.5}], ids=name)
def test_a_given_box_is_embedded_as_the_same_box_as_a_proposal(switches):
    model = build(**switches, score_threshold=0.0, nms_threshold=1.0)
    images, targets = toy_batch()
    train_step(model, images, targets)
    given = [target["boxes"] for target in targets]
    with torch.no_grad():
        detected, embedded = model.eval().detect_and_embed(images, given)
        for ours, alone in zip(detected, model(images), strict=True):
            assert all(torch.equal(ours[key], alone[key]) for key in alone)
        single = [model.detect_and_embed([image], [boxes])[1][0] for image, boxes in zip(images, given, strict=True)]
        model.propose = lambda *_: (given, {})
        as_proposals = model(images)
    for asked, alone, found, boxes in zip(embedded, single, as_proposals, given, strict=True):
        assert asked.shape == (len(boxes), 16) and torch.allclose(asked, alone, atol=1e-5)
        assert len(found["embeddings"]) == len(boxes)
        for row in asked:
            assert (found["embeddings"] - row).abs().amax(dim=1).min() < 1e-5


def test_an_embedding_is_that_of_the_proposal_while_the_box_moves_on():
    model = build(score_threshold=0.0).eval()
    images, targets = toy_batch(count=1, people=1)
    torch.nn.init.constant_(model.head.box.bias, 1.0)
    given = targets[0]["boxes"]
    model.propose = lambda *_: ([given], {})
    with torch.no_grad():
        detected, embedded = model.detect_and_embed(images, [given])
    width, height = (given[0, 2:] - given[0, :2]).tolist()
    centre = (given[0, :2] + given[0, 2:]) / 2 + torch.tensor([width, height]) / 10
    half = torch.tensor([width, height]) * math.exp(1 / 5) / 2
    moved = torch.cat([centre - half, centre + half]).clamp(min=0).minimum(torch.tensor([96.0, 64.0, 96.0, 64.0]))
    assert torch.allclose(detected[0]["boxes"][0], moved, atol=0.1)
    assert torch.allclose(detected[0]["embeddings"], embedded[0], atol=1e-6)


# Batches that lack something.


def unlabelled(targets):
    return [target | {"labels": torch.full_like(target["labels"], UNLABELLED)} for target in targets]


def nobody(targets):
    return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)} for _ in targets]


@pytest.mark.parametrize("change", [unlabelled, nobody])
@pytest.mark.parametrize("switches", [{}, {"identity_loss": "oim"}, {"backbone": "tiny-vgg"}], ids=name)
@pytest.mark.parametrize("proposing", [True, False])
def test_a_batch_without_labelled_people_or_anybody_has_finite_losses_with_a_graph(change, switches, proposing):
    model = build(**switches, rpn_score_threshold=0.0 if proposing else 2.0).train()
    images, targets = toy_batch()
    losses = model(images, change(targets))
    identity = {"oim"} if model.config.identity_loss == "oim" else {"center"}
    assert all(loss.isfinite() and loss.requires_grad for loss in losses.values())
    assert all(losses[key] == 0 for key in identity)
    if change is nobody:
        assert losses["box"] == 0 and losses["rpn_box"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.rpn.head.cls_logits.weight.grad.norm() > 0
    model.update_memory()
    assert all(buffer.isfinite().all() for buffer in model.buffers())
    if model.config.identity_loss == "rss":
        assert not model.centers.seen.any()


@pytest.mark.parametrize("identity_loss", ["rss", "oim"])
def test_images_without_proposals_give_empty_results(identity_loss):
    model = build(identity_loss=identity_loss, rpn_score_threshold=2.0).eval()
    images, targets = toy_batch()
    with torch.no_grad():
        detected, embedded = model.detect_and_embed(images, [targets[0]["boxes"], torch.zeros(0, 4)])
    for result in detected:
        assert result["boxes"].shape == (0, 4) and result["scores"].shape == (0,)
        assert result["embeddings"].shape == (0, 16)
    assert [tuple(rows.shape) for rows in embedded] == [(2, 16), (0, 16)]


def test_scores_below_the_threshold_give_empty_results():
    found = build(score_threshold=1.0).eval()(toy_batch()[0])
    assert all(result["embeddings"].shape == (0, 16) for result in found)


def test_one_identity_is_enough_and_none_is_a_sentence():
    model = build(identities=1)
    images, targets = toy_batch(identities=2)
    targets = [target | {"labels": target["labels"].clamp(max=0)} for target in targets]
    assert all(loss.isfinite() for loss in train_step(model, images, targets).values())
    with pytest.raises(UserError):
        build(identities=0)


@pytest.mark.parametrize("identity_loss", ["rss", "oim"])
def test_a_label_beyond_the_table_is_an_error(identity_loss):
    images, targets = toy_batch()
    targets[0]["labels"][0] = IDENTITIES + 1
    with pytest.raises(ValueError, match=str(IDENTITIES + 1)):
        build(identity_loss=identity_loss).train()(images, targets)


def test_features_that_are_no_number_show_in_the_losses():
    model = build().train()
    with torch.no_grad():
        model.head.feat.bias.fill_(math.nan)
    losses = model(*toy_batch())
    assert losses["rss"].isnan() and losses["box"].isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("switches", [{}, {"identity_loss": "oim"}, {"backbone": "tiny-vgg", "dropout": 0.5}], ids=name)
def test_losses_are_finite_float32_under_autocast(dtype, switches):
    model = build(**switches, rss_samples=None).train()
    images, targets = toy_batch()
    with torch.autocast("cpu", dtype):
        losses = model(images, targets)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with torch.autocast("cpu", dtype), torch.no_grad():
        found = model.eval()(images)
    assert all(value.dtype == torch.float32 for result in found for value in result.values())


# Step 1: crops.


def crops():
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 48, 32), generator=generator, dtype=torch.uint8) for _ in range(4)]
    return images, [{"labels": torch.tensor([label])} for label in (0, 5, IDENTITIES, IDENTITIES)]


@pytest.mark.parametrize("backbone", ["tiny", "tiny-vgg"])
def test_crop_losses_are_a_full_softmax_over_people_and_background(backbone):
    model = build(backbone=backbone).train()
    images, targets = crops()
    losses = model.crop_losses(images, targets)
    assert set(losses) == {"rss"}
    maps = model.trunk(batch_images(images, 16).tensors)  # (4, 64, 6, 4)
    pooled = torch.nn.AdaptiveMaxPool2d(7)(maps)
    logits = model.classifier(model.read_rois(pooled).dropped)
    expected = F.cross_entropy(logits, torch.cat([target["labels"] for target in targets]))
    assert losses["rss"].item() == pytest.approx(expected.item(), rel=1e-4)
    parts = {key.split(".")[0] for key in reached(losses["rss"], model)}
    assert {"backbone", "head", "classifier"} <= parts and "rpn" not in parts


def test_twice_the_size_of_an_roi_is_pooled_two_by_two():
    maps = torch.rand(2, 3, 14, 14)
    assert torch.equal(F.adaptive_max_pool2d(maps, 7), F.max_pool2d(maps, 2))


def test_oim_has_no_classifier_of_crops():
    with pytest.raises(UserError, match="identity_loss"):
        build(identity_loss="oim").crop_losses(*crops())


# It learns.


@pytest.mark.parametrize(
    "switches",
    [{}, {"identity_loss": "oim", "rpn_samples": 32}, {"backbone": "tiny-vgg", "dropout": 0.2}],
    ids=name,
)
def test_thirty_steps_on_two_frames_bring_the_losses_down_and_find_the_people(switches):
    torch.manual_seed(0)
    model = build(**switches).train()
    images, targets = toy_batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    curve = []
    for _ in range(30):
        losses = model(images, targets)
        optimizer.zero_grad()
        sum(value * (0.032 if key == "center" else 1) for key, value in losses.items()).backward()
        optimizer.step()
        model.update_memory()
        curve.append({key: value.item() for key, value in losses.items()})
    for key in losses.keys() - {"center", "box"}:
        first, last = (sum(entry[key] for entry in part) / 5 for part in (curve[:5], curve[-5:]))
        assert last < 0.8 * first, (key, first, last)
    with torch.no_grad():
        found = model.eval()(images)
    for result, target in zip(found, targets, strict=True):
        assert box_iou(target["boxes"], result["boxes"][:1]).max() > 0.2  # the surest one stands on a person


def test_boxes_are_learned_where_the_rois_stay_the_same():
    # Better proposals have more and other boxes to learn, so the loss says little unless the proposals are fixed.
    torch.manual_seed(0)
    model = build(backbone="tiny-vgg", positive_fraction=1.0).train()
    images, targets = toy_batch()
    shifted = [target["boxes"].repeat(7, 1) + 2 * torch.randn(14, 4) for target in targets]
    model.propose = lambda *_: (shifted, {})
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    curve = []
    for _ in range(60):
        loss = model(images, targets)["box"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    assert curve[-1] < 0.7 * curve[0]


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "vgg16"])
def test_the_papers_backbones_build_without_weights_and_take_a_step(backbone):
    model = build(backbone=backbone, dropout=0.5, rois_per_image=4, rpn_after_nms=(8, 4), anchor_sizes=(32.0,))
    images, targets = toy_batch(count=1)
    assert all(loss.isfinite() for loss in train_step(model, images, targets, rate=1e-5).values())
    found = model.eval()(images)
    assert found[0]["embeddings"].shape == (len(found[0]["boxes"]), 16)


@pytest.mark.parametrize(
    "switch",
    [
        {"identity_loss": "softmax"}, {"backbone": "vgg"}, {"roi_layer": "crop"}, {"center_boxes": "positive"},
        {"center_attach": "beside"}, {"center_reduction": "max"}, {"center_start": "random"}, {"center_alpha": 1.5},
        {"dropout": 1.0}, {"dropout": -0.1}, {"anchor_sizes": ()}, {"anchor_ratios": (0.0,)}, {"roi_size": 0},
        {"rois_per_image": 0}, {"positive_fraction": 1.5}, {"nms_threshold": -1.0}, {"rss_samples": 1},
        {"center_alpha": -0.1}, {"identity_loss": "oim", "center_alpha": 2.0}, {"temperature": 0.0},
        {"embedding_dim": 0}, {"rpn_samples": 0}, {"rpn_after_nms": (100, 0)},
    ],
    ids=name,
)  # fmt: skip
def test_a_wrong_switch_is_one_sentence(switch):
    with pytest.raises(UserError) as error:
        build(**switch)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
