"""SeqNet: the first head's losses against loops, which boxes the second one reads, whose score counts."""

import math
from dataclasses import replace

import pytest
import torch
import torchvision
from torch.nn import functional as F
from torchvision.ops import box_iou
from toy_sets import thirty_steps, toy_batch, train_step

from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.models import seqnet as module
from pslib.models.nae import NAE, NAEConfig
from pslib.models.proposals import sample_rois
from pslib.models.roi_branch import RoiBranch, RoiBranchConfig
from pslib.models.seqnet import SeqNet, SeqNetConfig

IDENTITIES = 6
ROI = replace(SeqNetConfig().roi, dim=16, queue_size=8)
LOSSES = {"rpn_class", "rpn_box", "first_class", "first_box", "roi_class", "roi_box", "roi_oim"}
SWITCHES = [
    {},
    {"roi": {"roi_size": 14, "gamma_std": 0.01, "weight_std": 0.01, "roi_aligned": False}},
    {"backbone": "tiny-deep", "roi": {"roi_layer": "pool", "negative_iou": 0.1, "box_norm": False}},
    {"roi": {"pixels": True}, "first_nms_threshold": 0.6},
]


def build(identities=IDENTITIES, roi=None, **switches):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SeqNet(SeqNetConfig(roi=replace(ROI, **(roi or {})), **switches), identities)


def watch(model, *names):
    """What the named methods of the model's parts are called with and give back, call by call."""
    seen = []

    def wrap(owner, attribute):
        plain = getattr(owner, attribute)

        def watched(*args, **kwargs):
            result = plain(*args, **kwargs)
            seen.append((attribute, args, result))
            return result

        setattr(owner, attribute, watched)

    for name in names:
        owner, attribute = (model.roi, name.split(".")[1]) if "." in name else (model, name)
        wrap(owner, attribute)
    return seen


def apart(rows, others):
    """The largest difference between each of the rows (N, K) and each of the others (M, K): (N, M)."""
    return (rows[:, None] - others).abs().amax(dim=2)


def decoded(box, delta):
    """A box moved as torchvision's coder does it, with weights 10, 10, 5, 5."""
    (x1, y1, x2, y2), (dx, dy, dw, dh) = box, delta
    w, h = x2 - x1, y2 - y1
    cx, cy = (x1 + x2) / 2 + dx / 10 * w, (y1 + y2) / 2 + dy / 10 * h
    w, h = w * math.exp(dw / 5), h * math.exp(dh / 5)
    return [max(0, cx - w / 2), max(0, cy - h / 2), min(96, cx + w / 2), min(64, cy + h / 2)]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_switch_trains_a_step_and_detects(switches):
    model = build(**{**switches, "roi": {"score_threshold": 0.0, **switches.get("roi", {})}})
    images, targets = toy_batch()
    before = [parameter.clone() for parameter in model.parameters()]
    losses = train_step(model, images, targets)
    assert set(losses) == LOSSES
    assert all(loss.ndim == 0 and loss.isfinite() and loss.requires_grad for loss in losses.values())
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.8 * len(moved) and model.roi.memory.table.norm() > 0
    found = model.eval()(images)
    assert sum(len(result["scores"]) for result in found) > 0
    for result in found:
        boxes, scores, embeddings = result["boxes"], result["scores"], result["embeddings"]
        assert boxes.shape == (len(scores), 4) and embeddings.shape == (len(scores), 16)
        assert (boxes >= 0).all() and (boxes[:, 0::2] <= 96).all() and (boxes[:, 1::2] <= 64).all()
        assert (scores[1:] <= scores[:-1]).all() and ((scores >= 0) & (scores <= 1)).all()
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(len(scores)), atol=1e-5)
        assert box_iou(boxes, boxes).fill_diagonal_(0).max() <= 0.5
    assert model.similarity == "cosine"


# The first head.


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def check_first_losses(model):
    images, targets = toy_batch()
    seen = watch(model, "find", "move")
    losses = model.train()(images, targets)
    (_, (_, regions), (logits, deltas)), (_, _, moved) = seen
    found, moves, row = [], [], 0
    for image, (rois, target) in enumerate(zip(regions, targets, strict=True)):
        people = target["boxes"].tolist()
        assert rois[: len(people)].tolist() == people
        for place, roi in enumerate(rois.tolist()):
            overlaps = [iou(roi, box) for box in people]
            best = place if place < len(people) else max(range(len(people)), key=overlaps.__getitem__)
            person = overlaps[best] >= 0.5
            odds = logits[row].tolist()
            found.append(math.log(math.exp(odds[0]) + math.exp(odds[1])) - odds[person])
            if person:
                (x1, y1, x2, y2), (u1, v1, u2, v2) = roi, people[best]
                wanted = (10 * ((u1 + u2) - (x1 + x2)) / 2 / (x2 - x1), 10 * ((v1 + v2) - (y1 + y2)) / 2 / (y2 - y1),
                          5 * math.log((u2 - u1) / (x2 - x1)), 5 * math.log((v2 - v1) / (y2 - y1)))  # fmt: skip
                for got, want in zip(deltas[row].tolist(), wanted, strict=True):
                    off = abs(got - want)
                    moves.append(off**2 / 2 if off < 1 else off - 0.5)
            assert moved[image][place].tolist() == pytest.approx(decoded(roi, deltas[row].tolist()), abs=1e-3)
            row += 1
    assert row == len(logits)
    assert losses["first_class"].item() == pytest.approx(sum(found) / row, rel=1e-3)
    assert losses["first_box"].item() == pytest.approx(sum(moves) / row, rel=1e-3)


def test_the_first_heads_losses_are_those_of_loops():
    torch.manual_seed(0)
    model = build()
    torch.nn.init.normal_(model.first.box.weight, std=0.02)
    check_first_losses(model)


@pytest.mark.parametrize(
    ("owner", "attribute", "fault"),
    [
        (F, "cross_entropy", lambda plain: lambda logits, labels, **k: plain(logits, 1 - labels, **k)),
        (RoiBranch, "box_loss", lambda plain: lambda self, deltas, samples: plain(self, deltas, samples) * 2),
        (SeqNet, "move", lambda plain: lambda self, boxes, deltas, sizes: list(boxes)),
        (RoiBranch, "sample", lambda plain: lambda self, *both: [
            sample_rois(p, t["boxes"], t["labels"], IDENTITIES, 12, 0.5, 0.3) for p, t in zip(*both, strict=True)
        ]),
    ],
    ids=["inverted", "doubled", "unmoved", "threshold"],
)  # fmt: skip
def test_planted_faults_are_caught(monkeypatch, owner, attribute, fault):
    monkeypatch.setattr(owner, attribute, fault(getattr(owner, attribute)))
    torch.manual_seed(0)
    model = build(roi={"rois_per_image": 40})
    torch.nn.init.normal_(model.first.box.weight, std=0.02)
    with pytest.raises(AssertionError):
        check_first_losses(model)


def test_losses_reach_their_own_stages():
    model = build()
    images, targets = toy_batch()
    train_step(model, images, targets)  # the table is empty before
    losses = model(images, targets)
    parts = {}
    for key, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        reached = [name for name, p in model.named_parameters() if p.grad is not None and p.grad.norm() > 0]
        parts[key] = {".".join(name.split(".")[:2]) for name in reached}
    trunk = {"backbone.stem", "backbone.stage3", "backbone.stage4"}
    assert parts["rpn_class"] == parts["rpn_box"] == trunk | {"rpn.head"}
    assert parts["first_class"] == trunk | {"backbone.stage5", "first.person"}
    assert parts["first_box"] == trunk | {"backbone.stage5", "first.box"}
    assert parts["roi_box"] == trunk | {"roi.own_stage", "roi.box"}
    assert parts["roi_class"] == parts["roi_oim"] == trunk | {"roi.own_stage", "roi.head"}


# How the stages fit together.


def test_in_training_the_second_head_learns_from_boxes_that_the_first_has_moved():
    model = build().train()
    torch.nn.init.constant_(model.first.box.bias, 0.3)
    images, targets = toy_batch()
    seen = watch(model, "move", "roi.sample", "roi.read")
    model(images, targets)
    (_, _, _), (_, (boxes, _, _), moved), (_, (again, _), samples), (_, (_, read), _) = seen
    for image in range(2):
        assert torch.equal(again[image], moved[image]) and not moved[image].requires_grad
        people = targets[image]["boxes"]
        assert torch.equal(read[image][: len(people)], people)  # ground truth joins once more
        assert torch.equal(read[image], samples[image].boxes)
        rest = read[image][len(people) :]
        assert (apart(rest, moved[image]).amin(dim=1) == 0).all()
        assert (apart(boxes[image], moved[image]).diagonal() > 0.1).all()  # all of them did move


def test_at_test_the_embedding_is_that_of_the_box_in_between(monkeypatch):
    model = build(roi={"score_threshold": 0.0}).eval()
    torch.nn.init.constant_(model.first.box.bias, 0.4)  # the last layer's, so every box moves alike
    torch.nn.init.zeros_(model.first.box.weight)
    with torch.no_grad():
        model.roi.box[1].bias.fill_(0.5)
        model.roi.box[1].weight.zero_()
    images, targets = toy_batch(count=1, people=1)
    given = targets[0]["boxes"]
    monkeypatch.setattr(module, "propose", lambda *_: ([given], {}))
    between = torch.tensor([decoded(given[0].tolist(), [0.4] * 4)])
    last = decoded(between[0].tolist(), [0.5] * 4)
    with torch.no_grad():
        detected, embedded = model.detect_and_embed(images, [torch.cat([between, given])])
    assert detected[0]["boxes"][0].tolist() == pytest.approx(last, abs=0.01)
    assert torch.allclose(detected[0]["embeddings"][0], embedded[0][0], atol=1e-5)
    assert not torch.allclose(detected[0]["embeddings"][0], embedded[0][1], atol=1e-3)


def test_the_score_is_the_first_heads():
    model = build(roi={"score_threshold": 0.0}, first_nms_threshold=1.0)
    images, targets = toy_batch()
    train_step(model, images, targets)
    model.eval()
    seen = watch(model, "find")
    with torch.no_grad():
        plain = model(images)
        model.roi.head.rescaler.bias.fill_(-20.0)  # the branch calls nobody a person
        again = model(images)
    sure = seen[0][2][0].softmax(dim=1)[:, 1]
    for one, other in zip(plain, again, strict=True):
        assert torch.equal(one["scores"], other["scores"]) and len(one["scores"])
        assert torch.isin(one["scores"], sure).all()


def test_a_first_head_that_changes_nothing_leaves_nae():
    model = build(roi={"score_threshold": 0.0, "nms_threshold": 1.0}, first_nms_threshold=1.0).eval()
    images, targets = toy_batch()
    plain = NAE(NAEConfig(roi=model.config.roi), IDENTITIES).eval()
    state = model.state_dict()
    stage = {key.replace("roi.own_stage", "backbone.stage5"): state[key] for key in state if "own_stage" in key}
    plain.load_state_dict({key: stage.get(key, state[key]) for key in plain.state_dict()})
    with torch.no_grad():
        for parameter in model.first.parameters():
            parameter.zero_()  # nobody moves, and everybody is as likely
        ours, theirs = model(images), plain(images)
    for one, other in zip(ours, theirs, strict=True):
        assert len(one["scores"]) == len(other["scores"]) and (one["scores"] == 0.5).all()
        both = [torch.cat([result["boxes"], result["embeddings"]], dim=1) for result in (one, other)]
        assert (apart(*both).amin(dim=0) < 1e-3).all() and (apart(*both).amin(dim=1) < 1e-3).all()


def test_the_heads_start_alike_and_part():
    model = build()
    stages = [model.backbone.last_stage, model.roi.last_stage]
    pairs = list(zip(*(stage.parameters() for stage in stages), strict=True))
    assert all(torch.equal(a, b) and a is not b for a, b in pairs)
    train_step(model, *toy_batch())
    assert not any(torch.equal(a, b) for a, b in pairs)
    model.roi.copy_stage(model.backbone)
    assert all(torch.equal(a, b) for a, b in pairs)


# Batches that lack something.


def unlabelled(targets):
    return [target | {"labels": torch.full_like(target["labels"], UNLABELLED)} for target in targets]


def nobody(targets):
    return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)} for _ in targets]


@pytest.mark.parametrize("change", [unlabelled, nobody])
@pytest.mark.parametrize("proposing", [True, False])
@pytest.mark.parametrize("pixels", [True, False])
def test_a_batch_without_labelled_people_or_anybody_has_finite_losses_with_a_graph(change, proposing, pixels):
    model = build(roi={"pixels": pixels}, rpn_score_threshold=0.0 if proposing else 2.0).train()
    images, targets = toy_batch()
    losses = model(images, change(targets))
    assert set(losses) == LOSSES
    assert all(loss.isfinite() and loss.requires_grad for loss in losses.values())
    assert losses["roi_oim"] == 0
    if change is nobody:
        assert losses["roi_box"] == losses["rpn_box"] == losses["first_box"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.update_memory()
    assert all(buffer.isfinite().all() for buffer in model.buffers())


@pytest.mark.parametrize("switches", [{"rpn_score_threshold": 2.0}, {"roi": {"score_threshold": 1.0}}], ids=str)
@pytest.mark.parametrize("pixels", [True, False])
def test_images_without_proposals_or_sure_boxes_give_empty_results(switches, pixels):
    model = build(**{**switches, "roi": {"pixels": pixels, **switches.get("roi", {})}}).eval()
    images, targets = toy_batch()
    with torch.no_grad():
        detected, embedded = model.detect_and_embed(images, [targets[0]["boxes"], torch.zeros(0, 4)])
    for result in detected:
        assert result["boxes"].shape == (0, 4) and result["embeddings"].shape == (0, 16)
    assert [tuple(rows.shape) for rows in embedded] == [(2, 16), (0, 16)]


def test_a_box_that_the_first_head_pushes_out_of_the_image_does_no_harm():
    model = build().train()
    torch.nn.init.constant_(model.first.box.bias, 1e4)  # beyond the corner: nothing is left of any box
    losses = model(*toy_batch())
    assert all(loss.isfinite() for loss in losses.values())
    found = model.eval()(toy_batch()[0])
    assert all(result["boxes"].isfinite().all() for result in found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pixels", [True, False])
def test_losses_are_finite_float32_under_autocast(dtype, pixels):
    model = build(roi={"pixels": pixels}).train()
    images, targets = toy_batch()
    with torch.autocast("cpu", dtype):
        losses = model(images, targets)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    with torch.autocast("cpu", dtype), torch.no_grad():
        found = model.eval()(images)
    assert all(value.dtype == torch.float32 for result in found for value in result.values())


@pytest.mark.parametrize("pixels", [True, False])
def test_thirty_steps_on_two_frames_bring_the_losses_down_and_find_the_people(pixels):
    torch.manual_seed(0)
    model = build(roi={"pixels": pixels}).train()
    images, targets = toy_batch()
    curve = thirty_steps(model)
    for key in ("rpn_class", "first_class", "roi_class", "roi_oim"):
        first, last = (sum(entry[key] for entry in part) / 5 for part in (curve[:5], curve[-5:]))
        assert last < 0.8 * first, (key, first, last)
    with torch.no_grad():
        found = model.eval()(images)
    for result, target in zip(found, targets, strict=True):
        assert box_iou(target["boxes"], result["boxes"][:1]).max() > 0.2


@pytest.mark.parametrize("pixels", [True, False])
def test_the_papers_size_builds_without_weights_and_reads_a_small_image(pixels):
    roi = RoiBranchConfig(roi_size=14, dim=256, pixels=pixels, rois_per_image=8, negative_iou=None)
    config = SeqNetConfig(backbone="resnet50", roi=roi, anchor_sizes=(32.0, 64.0), rpn_after_nms=(8, 4))
    model = SeqNet(config, 5532).eval()
    with torch.no_grad():
        images, targets = toy_batch(count=1)
        detected, embedded = model.detect_and_embed(images, [targets[0]["boxes"]])
    assert embedded[0].shape == (2, 256) and detected[0]["embeddings"].shape == (len(detected[0]["boxes"]), 256)
    assert [tuple(project[0].weight.shape) for project in model.roi.head.projectors] == [(128, 1024), (128, 2048)]


@pytest.mark.parametrize("cls", [NAE, SeqNet])
def test_the_papers_size_has_the_layers_of_the_released_checkpoints(cls):
    # Their shapes, but for the rows of the regressors that move background.
    resnet = torchvision.models.get_model("resnet50")
    network, stage = (sum(p.numel() for p in part.parameters()) for part in (resnet, resnet.layer4))
    network -= sum(p.numel() for p in resnet.fc.parameters())
    rpn = 1024 * 1024 * 9 + 1024 + (15 + 60) * (1024 + 1)
    embedding = 128 * (1024 + 1) + 128 * (2048 + 1) + 2 * 256 + 2
    expected = network + rpn + embedding + 4 * (2048 + 1) + 2 * 4
    if cls is SeqNet:
        expected += stage + (2 + 4) * (2048 + 1)
    switches = {"anchor_sizes": (32.0, 64.0, 128.0, 256.0, 512.0), "anchor_ratios": (0.5, 1.0, 2.0)}
    config = {NAE: NAEConfig, SeqNet: SeqNetConfig}[cls]
    with torch.device("meta"):
        model = cls(config(backbone="resnet50", roi=RoiBranchConfig(dim=256, roi_size=14), **switches), 5532)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    "switch",
    [{"backbone": "tiny-vgg"}, {"first_nms_threshold": 1.5}, {"anchor_sizes": ()}, {"identities": 0}],
    ids=str,
)
def test_a_wrong_switch_is_one_sentence(switch):
    with pytest.raises(UserError) as error:
        build(**switch)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
