"""NAE: every switch learns a step and detects, what gradients reach, and images that lack people or proposals."""

from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou
from toy_sets import thirty_steps, toy_batch, train_step

from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.models.nae import NAE, NAEConfig
from pslib.models.roi_branch import RoiBranchConfig

IDENTITIES = 6
LOSSES = {"rpn_class", "rpn_box", "roi_class", "roi_box", "roi_oim"}
ROI = RoiBranchConfig(dim=16, queue_size=8)
RELEASED = {"roi_size": 14, "sampling_ratio": 0, "gamma_std": 0.01, "weight_std": 0.01}
SWITCHES = [
    {},
    {"roi": RELEASED},
    {"backbone": "tiny-deep", "roi": {"roi_layer": "pool", "negative_iou": None, "box_norm": False}},
    {"backbone": "resnet18", "anchor_sizes": (32.0,), "rpn_after_nms": (8, 8)},
]


def build(identities=IDENTITIES, roi=None, **switches):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NAE(NAEConfig(roi=replace(ROI, **(roi or {})), **switches), identities)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_every_switch_trains_a_step_and_detects(switches):
    roi = {"score_threshold": 0.0, **switches.get("roi", {})}
    model = build(**{**switches, "roi": roi})
    images, targets = toy_batch()
    before = [parameter.clone() for parameter in model.parameters()]
    losses = train_step(model, images, targets, rate=1e-4 if "resnet18" in switches.values() else 0.01)
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
        assert box_iou(boxes, boxes).fill_diagonal_(0).max() <= 0.4
    assert model.similarity == "cosine"


def test_losses_reach_what_they_should():
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
    assert parts["roi_box"] == trunk | {"backbone.stage5", "roi.box"}
    assert parts["roi_class"] == parts["roi_oim"] == trunk | {"backbone.stage5", "roi.head"}
    assert not any(buffer.requires_grad for buffer in model.buffers())


def test_nothing_is_held_twice():
    model = build()
    tensors = list(model.state_dict().values())
    assert len({tensor.data_ptr() for tensor in tensors if tensor.numel()}) == sum(t.numel() > 0 for t in tensors)
    other = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    other.load_state_dict(model.state_dict())
    images, targets = toy_batch()
    for (_, a), (_, b) in zip(*(zip(*m.eval().detect_and_embed(images, [t["boxes"] for t in targets]), strict=True)
                                for m in (model, other)), strict=True):  # fmt: skip
        assert torch.equal(a, b)


def test_a_given_box_is_embedded_as_the_same_box_as_a_proposal(monkeypatch):
    import pslib.models.nae as module

    model = build(roi={"score_threshold": 0.0, "nms_threshold": 1.0})
    images, targets = toy_batch()
    train_step(model, images, targets)
    given = [target["boxes"] for target in targets]
    monkeypatch.setattr(module, "propose", lambda *_: (given, {}))
    with torch.no_grad():
        detected, embedded = model.eval().detect_and_embed(images, given)
    for found, rows in zip(detected, embedded, strict=True):
        for row in rows:
            assert (found["embeddings"] - row).abs().amax(dim=1).min() < 1e-5


def unlabelled(targets):
    return [target | {"labels": torch.full_like(target["labels"], UNLABELLED)} for target in targets]


def nobody(targets):
    return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)} for _ in targets]


@pytest.mark.parametrize("change", [unlabelled, nobody])
@pytest.mark.parametrize("proposing", [True, False])
def test_a_batch_without_labelled_people_or_anybody_has_finite_losses_with_a_graph(change, proposing):
    model = build(rpn_score_threshold=0.0 if proposing else 2.0).train()
    images, targets = toy_batch()
    losses = model(images, change(targets))
    assert all(loss.isfinite() and loss.requires_grad for loss in losses.values())
    assert losses["roi_oim"] == 0 and (change is unlabelled or losses["roi_box"] == losses["rpn_box"] == 0)
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.update_memory()
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_images_without_proposals_give_empty_results():
    model = build(rpn_score_threshold=2.0).eval()
    images, targets = toy_batch()
    with torch.no_grad():
        detected, embedded = model.detect_and_embed(images, [targets[0]["boxes"], torch.zeros(0, 4)])
    for result in detected:
        assert result["boxes"].shape == (0, 4) and result["embeddings"].shape == (0, 16)
    assert [tuple(rows.shape) for rows in embedded] == [(2, 16), (0, 16)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_finite_float32_under_autocast(dtype):
    model = build().train()
    images, targets = toy_batch()
    with torch.autocast("cpu", dtype):
        losses = model(images, targets)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    with torch.autocast("cpu", dtype), torch.no_grad():
        found = model.eval()(images)
    assert all(value.dtype == torch.float32 for result in found for value in result.values())


def test_thirty_steps_on_two_frames_bring_the_losses_down_and_find_the_people():
    torch.manual_seed(0)
    model = build().train()
    images, targets = toy_batch()
    curve = thirty_steps(model)
    for key in LOSSES - {"roi_box"}:
        first, last = (sum(entry[key] for entry in part) / 5 for part in (curve[:5], curve[-5:]))
        assert last < 0.8 * first, (key, first, last)
    with torch.no_grad():
        found = model.eval()(images)
    for result, target in zip(found, targets, strict=True):
        assert box_iou(target["boxes"], result["boxes"][:1]).max() > 0.2


@pytest.mark.parametrize(
    "switch",
    [
        {"backbone": "tiny-vgg"}, {"backbone": "vgg"}, {"anchor_sizes": ()}, {"rpn_samples": 0}, {"identities": 0},
        {"rpn_positive_iou": 0.2}, {"rpn_negative_iou": -0.1}, {"rpn_nms_threshold": -1.0}, {"rpn_positive_iou": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_switch_is_one_sentence(switch):
    with pytest.raises(UserError) as error:
        build(**switch)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
