"""ROI-AlignPS: what each switch adds and leaves out, which branch is read, and batches that lack something."""

from dataclasses import replace
from types import MethodType

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import box_iou
from toy_sets import SMALL, thirty_steps, toy_batch, toy_recipe, train_step

from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.losses.mutual import branch_pairs
from pslib.models import roi_alignps as module
from pslib.models.alignps import AlignPS
from pslib.models.families import backbones_of
from pslib.models.roi_alignps import RoiAlignPS, RoiAlignPSConfig
from pslib.models.roi_branch import RoiBranchConfig

IDENTITIES = 6
DENSE = {"classification", "box", "centerness", "oim", "triplet"}
ROI = {"roi_class", "roi_box", "roi_oim"}
RPN = {"rpn_class", "rpn_box"}
MUTUAL = {"information": "mutual_information", "kl": "mutual_kl", "diversity": "mutual_diversity"}
SEPARATE = {"shared": False}
SWITCHES = [
    ({}, DENSE | ROI | RPN),
    ({"rpn": False}, DENSE | ROI),
    ({"dense_reid": False, "read": "roi"}, DENSE - {"oim", "triplet"} | ROI | RPN),
    ({"dense_reid": False, "read": "roi", "rpn": False}, DENSE - {"oim", "triplet"} | ROI),
    (SEPARATE, DENSE | ROI | RPN),
    *(({"mutual": (name,)}, DENSE | ROI | RPN | {key}) for name, key in MUTUAL.items()),
    ({"mutual": tuple(MUTUAL), "rpn": False, "kl_literal": True}, DENSE | ROI | {*MUTUAL.values()}),
    ({"mutual": ("information",), "mutual_detached": 0.0, "mutual_marginal": "replacement", "mutual_hidden": 8},
     DENSE | ROI | RPN | {"mutual_information"}),
]  # fmt: skip


def build(dense=None, roi=None, **switches):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            "dense": replace(SMALL, **({"class_threshold": 0.0} | (dense or {}))),
            "roi": replace(RoiBranchConfig(dim=16, queue_size=8, score_threshold=0.0), **(roi or {})),
        }
        return RoiAlignPS(RoiAlignPSConfig(**parts, **switches), IDENTITIES)


def reached(loss, model):
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {key for key, p in model.named_parameters() if p.grad is not None and p.grad.norm() > 0}


def trained(**switches):
    """A model after three steps, whose running statistics and memories are those of the toy batches."""
    model = build(**switches)
    for seed in range(3):
        torch.manual_seed(seed)
        train_step(model, *toy_batch(seed))
    return model.eval()


@pytest.mark.parametrize(("switches", "keys"), SWITCHES, ids=lambda value: str(value)[:60])
def test_every_switch_trains_a_step_and_detects(switches, keys):
    model = build(**switches)
    images, targets = toy_batch()
    before = [parameter.clone() for parameter in model.parameters()]
    losses = train_step(model, images, targets)
    assert set(losses) == keys
    assert all(loss.ndim == 0 and loss.isfinite() and loss.requires_grad for loss in losses.values())
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.8 * len(moved)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    widths = {"dense": 16, "roi": 16, "both": 32}
    assert model.reads == (("roi",) if switches.get("dense_reid") is False else ("dense", "roi", "both"))
    for read in model.reads:
        found, given = model.eval().reading(read).detect_and_embed(images, [target["boxes"] for target in targets])
        assert [rows.shape for rows in given] == [(2, widths[read])] * 2
        for rows in [*given, *(result["embeddings"] for result in found)]:
            assert torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-5) and rows.shape[1] == widths[read]
        assert sum(len(result["boxes"]) for result in found) > 0
    assert model.similarity == "cosine"


# One model is made of the other two.


def alone(model):
    """An AlignPS of its own with the weights of the dense branch."""
    other = AlignPS(model.config.dense, IDENTITIES)
    other.load_state_dict(model.alignps.state_dict())
    return other.train(model.training)


@pytest.mark.parametrize("switches", [{}, {"rpn": False}, SEPARATE], ids=str)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_read_densely_it_is_alignps(switches, norm):
    model = trained(**switches, dense={"embedding_norm": norm})
    images, targets = toy_batch()
    boxes = [target["boxes"] for target in targets]
    with torch.no_grad():
        expected = alone(model).detect_and_embed(images, boxes)
        found = model.reading("dense").detect_and_embed(images, boxes)
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(expected[0], model(images), strict=True))
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert all(torch.equal(a, b) for a, b in zip(found[1], expected[1], strict=True))


@pytest.mark.parametrize("switches", [{}, {"rpn": False}, SEPARATE], ids=str)
def test_the_dense_branch_trains_as_alignps_alone(switches):
    model = build(**switches, dense={"embedding_norm": "batch"}).train()
    other = alone(model)
    images, targets = toy_batch()
    losses, expected = model(images, targets), other(images, targets)
    assert all(torch.equal(losses[key], expected[key]) for key in DENSE)
    model.update_memory(), other.update_memory()
    # Detections that become regions without RPN must not move the statistics that people are normed by.
    assert all(torch.equal(a, b) for a, b in zip(model.alignps.buffers(), other.buffers(), strict=True))


@pytest.mark.parametrize("switches", [{}, SEPARATE, SEPARATE | {"matching": "iou"}], ids=str)
def test_both_are_the_two_side_by_side_at_unit_length(switches):
    model = trained(**switches)
    images, targets = toy_batch()
    boxes = [targets[0]["boxes"], torch.zeros(0, 4)]
    with torch.no_grad():
        dense, both = (model.reading(read).detect_and_embed(images, boxes) for read in ("dense", "both"))
        trunk = (model.nae or model).look(images)[-1]
        branch = model.roi or model.nae.roi
        rois = branch.read(trunk, [result["boxes"] for result in dense[0]]).embeddings
        rois = list(rois.split([len(result["boxes"]) for result in dense[0]]))
        given = branch.read(trunk, boxes).embeddings.split([2, 0])
        if model.config.matching == "iou":
            rois = []
            for ours, theirs in zip(dense[0], model.reading("roi")(images), strict=True):
                best, overlap = [], []
                for box in ours["boxes"]:
                    shares = box_iou(box[None], theirs["boxes"])[0].tolist()
                    best.append(max(range(len(shares)), key=shares.__getitem__))
                    overlap.append([shares[best[-1]] > 0])
                rois.append(theirs["embeddings"][best] * torch.tensor(overlap))
    for a, b, r in zip(dense[0], both[0], rois, strict=True):
        assert torch.equal(a["boxes"], b["boxes"]) and torch.equal(a["scores"], b["scores"])
        raw = torch.cat([a["embeddings"], r], dim=1)
        assert torch.allclose(b["embeddings"], raw / raw.norm(dim=1, keepdim=True), atol=1e-5)
    for a, b, r in zip(dense[1], both[1], given, strict=True):
        assert torch.allclose(b, torch.cat([a, r], dim=1) / 2**0.5, atol=1e-5)


def test_a_cosine_of_both_is_the_mean_of_the_two_cosines():
    model = trained()
    images, targets = toy_batch()
    with torch.no_grad():
        rows = {read: torch.cat(model.reading(read).detect_and_embed(images, [t["boxes"] for t in targets])[1])
                for read in model.reads}  # fmt: skip
    cosines = {read: x @ x.T for read, x in rows.items()}
    assert torch.allclose(cosines["both"], (cosines["dense"] + cosines["roi"]) / 2, atol=1e-5)


def test_separate_models_are_themselves_when_read():
    model = trained(**SEPARATE)
    images, targets = toy_batch()
    boxes = [target["boxes"] for target in targets]
    with torch.no_grad():
        expected = model.nae.detect_and_embed(images, boxes)
        found = model.reading("roi").detect_and_embed(images, boxes)
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert all(torch.equal(a, b) for a, b in zip(found[1], expected[1], strict=True))


def test_a_detection_that_no_other_overlaps_keeps_its_own_half():
    model = trained(**SEPARATE, matching="iou", read="both")
    images, _ = toy_batch()
    dense = model.reading("dense")(images)
    corner = torch.tensor([[0.0, 0.0, 1e-3, 1e-3]])
    model.nae.detect = lambda *_: [
        {"boxes": torch.zeros(0, 4), "embeddings": torch.zeros(0, 16)},
        {"boxes": corner, "embeddings": F.normalize(torch.ones(1, 16))},
    ]
    with torch.no_grad():
        found = model(images)
    for ours, theirs in zip(found, dense, strict=True):
        clear = ~(box_iou(theirs["boxes"], corner)[:, 0] > 0)
        assert clear.any()
        assert torch.allclose(ours["embeddings"][clear, :16], theirs["embeddings"][clear], atol=1e-6)
        assert (ours["embeddings"][clear, 16:] == 0).all()


# What exists, what runs, and what gradients reach.


def test_the_rpn_is_for_training_only():
    model = trained()
    images, targets = toy_batch()

    def planted(*_):
        raise AssertionError("the RPN ran")

    model.rpn.forward = planted
    for read in model.reads:
        model.reading(read)(images)
        model.reading(read).detect_and_embed(images, [target["boxes"] for target in targets])
    with pytest.raises(AssertionError, match="the RPN ran"):
        model.train()(images, targets)
    without = build(rpn=False)
    assert not any("rpn" in key for key in [*without.state_dict(), *dict(without.named_parameters())])


def test_read_densely_the_roi_branch_rests():
    model = trained()
    model.roi.read = MethodType(lambda *_: pytest.fail("the ROI branch ran"), model.roi)
    model.reading("dense")(toy_batch()[0])


def test_separate_training_shares_no_weight():
    model = build(**SEPARATE)
    images, targets = toy_batch()
    train_step(model, images, targets)
    losses = model(images, targets)
    for key, loss in losses.items():
        owner = "alignps" if key in DENSE else "nae"
        assert {name.split(".")[0] for name in reached(loss, model)} == {owner}, key
    assert [name for _, name in backbones_of(model)] == ["tiny", "tiny"]
    assert [name for _, name in backbones_of(build())] == ["tiny"]


def test_losses_of_joint_training_reach_what_they_should():
    model = build(mutual=tuple(MUTUAL), mutual_detached=0.0)
    images, targets = toy_batch()
    for _ in range(2):
        train_step(model, images, targets)
    parts = {key: {".".join(name.split(".")[:2]) for name in reached(loss, model)}
             for key, loss in model(images, targets).items()}  # fmt: skip
    for key in RPN:
        assert parts[key] == {"alignps.backbone", "rpn.head"}
    for key in ROI:
        assert {"alignps.backbone", "roi.own_stage"} <= parts[key] and "alignps.neck" not in parts[key]
        assert ("roi.box" if key == "roi_box" else "roi.head") in parts[key] and "rpn.head" not in parts[key]
    for key in DENSE:
        assert {"alignps.backbone", "alignps.neck"} <= parts[key] and not any(p.startswith("roi") for p in parts[key])
    both = {"alignps.backbone", "alignps.neck", "roi.own_stage", "roi.head"}
    for key in MUTUAL.values():
        assert both <= parts[key], key
    assert "estimator.hidden" in parts["mutual_information"]
    # C5 of the backbone is AlignPS's, the copy is the ROI branch's: each learns from its own branch.
    for key, inside in (("oim", True), ("roi_oim", False)):
        names = reached(model(images, targets)[key], model)
        assert any("backbone.stage5" in name for name in names) is inside


def test_the_estimator_learns_alone_where_embeddings_are_detached():
    model = build(mutual=("information",), mutual_detached=1.0)
    losses = model.train()(*toy_batch())
    assert {name.split(".")[0] for name in reached(losses["mutual_information"], model)} == {"estimator"}
    shares = []
    model = build(mutual=("information",), mutual_detached=2 / 3)
    rows = [F.normalize(torch.randn(5, 16)).requires_grad_() for _ in range(2)]
    for seed in range(300):
        torch.manual_seed(seed)
        loss = model.mutual_losses(*rows)["mutual_information"]
        shares.append(torch.autograd.grad(loss, rows, allow_unused=True)[0] is None)
    assert sum(shares) / 300 == pytest.approx(2 / 3, abs=0.08)


def test_ascent_of_the_estimator_raises_the_bound():
    torch.manual_seed(0)
    model = build(mutual=("information",))
    rows = F.normalize(torch.randn(16, 16))
    optimizer = torch.optim.Adam(model.estimator.parameters(), lr=1e-2)
    curve = []
    for _ in range(100):
        loss = model.mutual_losses(rows, rows)["mutual_information"]
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        curve.append(-loss.item())
    assert abs(sum(curve[:5]) / 5) < 0.3 and sum(curve[-5:]) / 5 > 1.0


def test_no_gradient_reaches_the_memories_and_both_move_when_told():
    model = build(mutual=("kl",)).train()
    memories = (model.alignps.memory, model.roi.memory)
    sum(model(*toy_batch()).values()).backward()
    assert all(not m.table.requires_grad and (m.table == 0).all() for m in memories)
    model.update_memory()
    assert all((m.table != 0).any() and (m.queue != 0).any() for m in memories)
    resting = build(dense_reid=False, read="roi")
    train_step(resting, *toy_batch())
    assert (resting.alignps.memory.table == 0).all() and (resting.roi.memory.table != 0).any()


# Mutual losses against loops over the people of a step.


def people_of_a_step(model, images, targets, monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "branch_pairs", lambda *parts: seen.setdefault("parts", parts) and branch_pairs(*parts))
    losses = model(images, targets)
    return losses, [part.detach() for part in seen["parts"]]


@pytest.mark.parametrize("literal", [False, True])
def test_mutual_losses_are_those_of_loops(literal, monkeypatch):
    model = build(mutual=("kl", "diversity"), kl_literal=literal, dense={"queue_temperature": 0.2})
    for seed in range(2):
        train_step(model, *toy_batch(seed, count=4))
    losses, (cells, cell_owner, rois, roi_owner) = people_of_a_step(model, *toy_batch(5, count=4), monkeypatch)
    common = sorted(({*cell_owner.tolist()} & {*roi_owner.tolist()}) - {UNLABELLED})
    assert len(common) > 1 and len(cells) > len(common) and len(rois) > len(common)
    kl, cosine = 0.0, 0.0
    for person in common:
        a = torch.stack([x for x, owner in zip(cells, cell_owner, strict=True) if owner == person]).mean(0)
        b = torch.stack([x for x, owner in zip(rois, roi_owner, strict=True) if owner == person]).mean(0)
        a, b = a / a.norm(), b / b.norm()
        cosine += (a @ b).item()
        shares = []
        for x, memory, known, unknown in ((a, model.alignps.memory, 0.1, 0.2), (b, model.roi.memory, 1 / 30, 1 / 30)):
            powers = torch.cat([(memory.table @ x / known).exp(), (memory.queue @ x / unknown).exp()]).double()
            powers = powers if literal else powers[:IDENTITIES]
            shares.append((powers / powers.sum())[:IDENTITIES])
        kl += (shares[0] * (shares[0] / shares[1]).log()).sum().item()
    assert losses["mutual_kl"].item() == pytest.approx(kl / len(common), rel=1e-3)
    assert losses["mutual_diversity"].item() == pytest.approx(cosine / len(common), rel=1e-4)


# The last stage's copy.


def test_the_copied_stage_starts_where_the_backbone_does():
    model = build()
    pairs = list(zip(model.alignps.backbone.last_stage.parameters(), model.roi.last_stage.parameters(), strict=True))
    assert all(torch.equal(a, b) and a is not b for a, b in pairs)
    with torch.no_grad():
        for parameter in model.alignps.backbone.parameters():
            parameter.mul_(2)
    model.follow_backbone()
    assert all(torch.equal(a, b) for a, b in pairs)
    build(**SEPARATE).follow_backbone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sum(model.train()(*toy_batch()).values()).backward()
    optimizer.step()
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_reading_another_way_copies_nothing():
    model = build()
    view = model.reading("dense")
    assert view.config.read == "dense" and model.config.read == "both"
    assert all(a is b for a, b in zip(model.parameters(), view.parameters(), strict=True))
    assert all(a is b for a, b in zip(model.buffers(), view.buffers(), strict=True))
    assert view.state_dict().keys() == model.state_dict().keys()
    separate = build(**SEPARATE)
    assert separate.reading("both", matching="iou").config.matching == "iou"


# Batches that lack something.


def unlabelled(targets):
    return [target | {"labels": torch.full_like(target["labels"], UNLABELLED)} for target in targets]


def nobody(targets):
    return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)} for _ in targets]


def one_known(targets):
    return [target | {"labels": torch.tensor([3, UNLABELLED])} for target in targets]


@pytest.mark.parametrize("change", [unlabelled, nobody, one_known])
@pytest.mark.parametrize("proposing", [True, False])
@pytest.mark.parametrize("switches", [{"mutual": tuple(MUTUAL), "mutual_detached": 0.0}, SEPARATE], ids=["all", "none"])
@pytest.mark.parametrize("rpn", [True, False])
def test_a_batch_that_lacks_people_has_finite_losses_with_a_graph(change, proposing, switches, rpn):
    if not rpn and switches is SEPARATE:
        return
    least = {} if proposing else {"rpn_score_threshold": 2.0, "dense": {"class_threshold": 1.0}}
    model = build(**switches, **least, rpn=rpn).train()
    images, targets = toy_batch()
    losses = model(images, change(targets))
    assert all(loss.isfinite() and loss.requires_grad for loss in losses.values())
    assert losses.get("mutual_information", 0) == 0  # fewer than two people have no strangers
    if change is not one_known:
        assert all(losses[key] == 0 for key in losses if key in ("oim", "triplet", "roi_oim") or "mutual" in key)
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.update_memory()
    assert all(buffer.isfinite().all() for buffer in model.buffers())


@pytest.mark.parametrize("switches", [{}, SEPARATE, SEPARATE | {"matching": "iou"}], ids=str)
def test_images_without_detections_give_empty_results(switches):
    model = build(**switches, dense={"class_threshold": 1.0}, roi={"score_threshold": 1.0}).eval()
    images, targets = toy_batch()
    for read in model.reads:
        with torch.no_grad():
            found, given = model.reading(read).detect_and_embed(images, [targets[0]["boxes"], torch.zeros(0, 4)])
        width = 32 if read == "both" else 16
        assert all(f["boxes"].shape == (0, 4) and f["embeddings"].shape == (0, width) for f in found)
        assert [tuple(rows.shape) for rows in given] == [(2, width), (0, width)]


@pytest.mark.parametrize("switches", [{"mutual": tuple(MUTUAL)}, SEPARATE], ids=str)
def test_losses_are_finite_under_autocast(switches):
    model = build(**switches).train()
    images, targets = toy_batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images, targets)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = model.eval()(images)
    assert all(torch.isfinite(value).all() for result in found for value in result.values())


def test_half_precision_does_not_reach_the_posteriors():
    model = trained(mutual=("kl",))
    rows = [F.normalize(torch.randn(5, 16)) for _ in range(2)]
    plain = model.mutual_losses(*rows)["mutual_kl"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.mutual_losses(*rows)["mutual_kl"], plain)


# It learns, and mistakes are sentences.


def test_thirty_steps_on_two_frames_bring_every_loss_down():
    torch.manual_seed(0)
    model = build(mutual=("kl",))
    curve = thirty_steps(model)
    for key in curve[0].keys() - {"roi_box", "centerness", "mutual_kl"}:
        first, last = (sum(entry[key] for entry in part) / 5 for part in (curve[:5], curve[-5:]))
        assert last < 0.8 * first, (key, first, last)


def test_a_recipe_trains_it_and_its_copy_follows_the_warm_start():
    from pslib.training.trainer import build_model

    recipe = toy_recipe(model=RoiAlignPSConfig(), warm_start="neutral")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pslib.training.trainer.build", lambda config, count: RoiAlignPS(config, count))
        model = build_model(recipe, IDENTITIES, seed=0)
    for a, b in zip(model.alignps.backbone.last_stage.parameters(), model.roi.last_stage.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_of_other_sizes_or_switches_do_not_load():
    model = build()
    for other in (build(roi={"dim": 24}), build(dense={"channels": 24}), build(rpn=False), build(**SEPARATE)):
        with pytest.raises(RuntimeError):
            model.load_state_dict(other.state_dict())
    build(mutual=("kl",), read="dense").load_state_dict(model.state_dict())


def test_a_strategy_misspelt_names_the_nearest():
    with pytest.raises(UserError, match="nearest: information"):
        build(mutual=("informaton",))
    with pytest.raises(UserError, match="nearest: both"):
        build().reading("bothh")


@pytest.mark.parametrize(
    "switch",
    [
        {"mutual": ("kl", "kl")}, {"read": "all"}, {"matching": "box"}, {"mutual_marginal": "shuffle"},
        {"mutual_detached": 1.5}, {"mutual_hidden": 0}, SEPARATE | {"mutual": ("kl",)}, SEPARATE | {"rpn": False},
        SEPARATE | {"dense_reid": False, "read": "roi"}, {"dense_reid": False}, {"anchor_sizes": ()},
        {"dense_reid": False, "read": "roi", "mutual": ("kl",)}, {"mutual": ("diversity",), "roi": {"dim": 24}},
        {"dense": {"backbone": "tiny-vgg"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_switch_is_one_sentence(switch):
    with pytest.raises(UserError) as error:
        build(**switch)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_resnet50_builds_and_takes_a_step():
    model = build(
        dense={"backbone": "resnet50", "frozen_backbone": False}, roi={"rois_per_image": 4}, anchor_sizes=(32.0,),
        rpn_after_nms=(8, 4),
    )  # fmt: skip
    images, targets = toy_batch(count=1)
    assert all(loss.isfinite() for loss in train_step(model, images, targets, rate=1e-5).values())
    found = model.eval()(images)
    assert found[0]["embeddings"].shape == (len(found[0]["boxes"]), 32)
