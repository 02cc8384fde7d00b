"""The ROI branch: its losses against loops over the regions, its own last stage, and batches that lack something."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou
from toy_sets import toy_batch

from pslib import paths
from pslib.data.annotations import UNLABELLED
from pslib.data.loading import load, read_image
from pslib.data.transforms import TestTransform
from pslib.errors import UserError
from pslib.models import roi_branch as module
from pslib.models.backbones import build_backbone
from pslib.models.batching import batch_images
from pslib.models.proposals import match_rois, sample_rois
from pslib.models.roi_branch import RoiBranch, RoiBranchConfig
from pslib.training.checkpoints import load_model

IDENTITIES = 6
SMALL = RoiBranchConfig(dim=16, queue_size=8)
SWITCHES = [
    {},
    {"roi_size": 14, "sampling_ratio": 0, "roi_aligned": False, "gamma_std": 0.01, "weight_std": 0.01},
    {"roi_layer": "pool", "box_norm": False, "box_beta": 1 / 9},
    {"negative_iou": None, "box_weights": (1.0, 1.0, 1.0, 1.0), "temperature": 0.1},
    {"box_from_truth": False},
]


def build(share_stage=False, backbone="tiny", **switches):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_backbone(backbone)
        return network, RoiBranch(replace(SMALL, **switches), network, IDENTITIES, share_stage)


def given(seed=0, **sizes):
    """A map, proposals near and far from the people, and the targets of a batch."""
    images, targets = toy_batch(seed, **sizes)
    generator = torch.Generator().manual_seed(seed)
    proposals = []
    for target in targets:
        near = target["boxes"].repeat(4, 1) + 5 * torch.randn(4 * len(target["boxes"]), 4, generator=generator)
        corner = torch.rand(8, 2, generator=generator) * torch.tensor([70.0, 30.0])
        proposals.append(torch.cat([near, torch.cat([corner, corner + torch.tensor([14.0, 30.0])], dim=1)]))
    return images, proposals, targets


def run(network, branch, images, proposals, targets):
    trunk = network.trunk(batch_images(images, 16).tensors)
    samples = branch.sample(proposals, targets)
    output = branch.read(trunk, [sample.boxes for sample in samples])
    return samples, output, branch.losses(output, samples)


def name(switches):
    return ",".join(f"{key}={value}" for key, value in switches.items()) or "default"


# The losses against loops.


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def check_losses(branch, network, seed=0):
    config = branch.config
    branch.memory.update(
        torch.nn.functional.normalize(torch.randn(12, 16)), torch.tensor([*range(IDENTITIES), *[UNLABELLED] * 6])
    )
    images, proposals, targets = given(seed)
    samples, output, losses = run(network.train(), branch.train(), images, proposals, targets)
    found, moved, named, row = [], [], [], 0
    for sample, target in zip(samples, targets, strict=True):
        people = target["boxes"].tolist()
        assert sample.boxes[: len(people)].tolist() == people
        for place, roi in enumerate(sample.boxes.tolist()):
            overlaps = [iou(roi, box) for box in people]
            best = place if place < len(people) else max(range(len(people)), key=overlaps.__getitem__)
            person = overlaps[best] >= 0.5
            assert person or overlaps[best] < (config.negative_iou or 0.5)
            sure = 1 / (1 + math.exp(-output.logits[row].item()))
            found.append(-math.log(sure if person else 1 - sure))
            label = int(target["labels"][best])
            if person and (config.box_from_truth or place >= len(people)):
                (x1, y1, x2, y2), (u1, v1, u2, v2) = roi, people[best]
                w, h = x2 - x1, y2 - y1
                wanted = (((u1 + u2) - (x1 + x2)) / 2 / w, ((v1 + v2) - (y1 + y2)) / 2 / h,
                          math.log((u2 - u1) / w), math.log((v2 - v1) / h))  # fmt: skip
                for got, want, weight in zip(output.deltas[row].tolist(), wanted, config.box_weights, strict=True):
                    off, beta = abs(got - weight * want), config.box_beta
                    moved.append(off**2 / 2 / beta if off < beta else off - beta / 2)
            if person and label >= 0:
                logits = torch.cat([branch.memory.table, branch.memory.queue]) @ output.embeddings[row]
                logits = logits / config.temperature
                named.append((logits.logsumexp(0) - logits[label]).item())
            row += 1
    assert row == len(output.logits)
    expected = {"roi_class": sum(found) / row, "roi_box": sum(moved) / row, "roi_oim": sum(named) / len(named)}
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        assert losses[key].item() == pytest.approx(value, rel=1e-3, abs=1e-6), key


@pytest.mark.parametrize("switches", SWITCHES, ids=name)
def test_losses_are_those_of_loops(switches):
    torch.manual_seed(0)
    network, branch = build(**switches)
    check_losses(branch, network)


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("oim_loss", lambda plain: lambda *a, **k: plain(*a, **{**k, "focal_gamma": 2.0})),
        ("sample_rois", lambda plain: lambda *a: plain(*a[:-1], None)),  # no gap between positive and negative
        ("sample_rois", lambda plain: lambda *a: plain(*a[:-2], 0.3, a[-1])),
        ("RoiBranch._is_person", lambda plain: lambda self, samples: ~plain(self, samples)),
    ],
    ids=["focal", "no gap", "threshold", "inverted"],
)
def test_planted_faults_are_caught(monkeypatch, part, fault):
    owner, attribute = (RoiBranch, part.split(".")[1]) if "." in part else (module, part)
    monkeypatch.setattr(owner, attribute, fault(getattr(owner, attribute)))
    network, branch = build(rois_per_image=40)
    with pytest.raises((AssertionError, ValueError)):
        for seed in range(3):
            check_losses(branch, network, seed)


def test_boxes_learn_to_move_onto_people_in_few_steps_of_adam_without_the_norm_only():
    """Proposals that are always too narrow and too low, few regions an image: what sixty steps make of them."""
    gained = {}
    for norm in (False, True):
        torch.manual_seed(0)
        network, branch = build(box_norm=norm, box_from_truth=False, rois_per_image=6, positive_fraction=0.7)
        images, targets = toy_batch()
        off = [target["boxes"] + torch.tensor([3.0, 4.0, -3.0, 4.0]) for target in targets]
        trunk = network.eval().trunk(batch_images(images, 16).tensors).detach()
        optimizer = torch.optim.AdamW(branch.parameters(), lr=3e-3)
        for _ in range(60):
            samples = branch.sample(off, targets)
            loss = branch.losses(branch.train().read(trunk, [one.boxes for one in samples]), samples)["roi_box"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            deltas = branch.read(trunk, off).deltas
        boxes, people = torch.cat(off), torch.cat([target["boxes"] for target in targets])
        moved = branch.box_coder.decode_single(deltas, boxes)
        before, after = (box_iou(found, people).diagonal().mean().item() for found in (boxes, moved))
        gained[norm] = after - before
    assert gained[False] > 0.25 and gained[True] < 0.1, gained


def test_the_committed_weights_move_boxes_onto_people_of_the_test_set():
    """Boxes up to 15 % of their size off on every side."""
    model = load_model(paths.weights_dir() / "roi-alignps-cuhk-sysu.safetensors").eval()
    frames = load("cuhk-sysu", paths.synthetic_dir("tiny") / "cuhk-sysu", "test").frames[:24]
    people = [torch.from_numpy(frame.boxes) for frame in frames]
    dice = torch.Generator().manual_seed(0)
    off = [one + _sides(one) * (0.3 * torch.rand(one.shape, generator=dice) - 0.15) for one in people]
    with torch.no_grad():
        _, _, trunk = model.look([TestTransform()(read_image(frame.path))[0] for frame in frames])
        deltas = model.roi.read(trunk, off).deltas
    moved = model.roi.box_coder.decode_single(deltas, torch.cat(off))
    before, after = (box_iou(found, torch.cat(people)).diagonal().mean().item() for found in (torch.cat(off), moved))
    assert after > before + 0.02, (before, after)


def _sides(boxes):
    """Width, height, width and height of boxes (N, 4) xyxy."""
    return (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


# Background, people, and what is neither.


def test_proposals_between_the_two_overlaps_are_neither():
    person = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, part] for part in (20.0, 10.0, 9.0, 2.0, 1.0)])
    assert match_rois(boxes, person, 0.5).tolist() == [0, 0, -1, -1, -1]
    assert match_rois(boxes, person, 0.5, 0.1).tolist() == [0, 0, -2, -2, -1]
    assert match_rois(boxes, person, 0.5, 0.5).tolist() == [0, 0, -1, -1, -1]
    sample = sample_rois(boxes, person, torch.tensor([3]), 6, 20, 0.5, 0.5, 0.1)
    assert sample.labels.tolist() == [3, 3, 3, 6] and sample.boxes[3, 3] == 1


def test_without_a_gap_the_sample_is_the_one_it_always_was():
    _, proposals, targets = given()
    for negative in (None, 0.5):
        torch.manual_seed(3)
        before = sample_rois(proposals[0], targets[0]["boxes"], targets[0]["labels"], 6, 12, 0.5, 0.5)
        torch.manual_seed(3)
        after = sample_rois(proposals[0], targets[0]["boxes"], targets[0]["labels"], 6, 12, 0.5, 0.5, negative)
        assert torch.equal(before.boxes, after.boxes) and torch.equal(before.labels, after.labels)


# What is pooled, and by which stage.


def test_regions_are_sampled_as_the_released_codes_do():
    # On a map that holds the column of every cell, 16 px to 48 px are columns 2..5, whose centres average to 3.5.
    columns = torch.arange(10.0).expand(1, 64, 6, 10)
    box = [torch.tensor([[16.0, 8.0, 48.0, 40.0]])]
    for switches, middle in (({}, 3.5), ({"roi_aligned": False}, 4.0), ({"sampling_ratio": 0}, 3.5)):
        _, branch = build(roi_size=3, **switches)
        assert branch.roi_layer(columns, box)[0, 0, 1, 1].item() == pytest.approx(middle), switches
    # A part of 8 x 8 cells holds a peak that two points along each side miss, and as many points as cells do not.
    peak = torch.zeros(1, 64, 24, 24)
    peak[:, :, 8, 8] = 1
    whole = [torch.tensor([[0.0, 0.0, 192.0, 192.0]])]
    found = {ratio: build(roi_size=3, sampling_ratio=ratio)[1].roi_layer(peak, whole).max().item() for ratio in (2, 0)}
    assert found[2] == 0 and found[0] == pytest.approx(1 / 64)


def test_both_vectors_are_maxima_over_the_cells():
    network, branch = build()
    network.eval(), branch.eval()
    boxes = [torch.tensor([[8.0, 0.0, 40.0, 48.0]]), torch.tensor([[16.0, 8.0, 60.0, 60.0], [0.0, 0.0, 20.0, 30.0]])]
    trunk = torch.randn(2, 64, 8, 12)
    seen = {}
    branch.head.register_forward_hook(lambda _, inputs, __: seen.update(vectors=inputs[0]))
    with torch.no_grad():
        branch.read(trunk, boxes)
        rois = branch.roi_layer(trunk, boxes)
        deep = network.last_stage(rois)
    for row in range(3):
        assert torch.equal(seen["vectors"][0][row], rois[row].flatten(1).max(dim=1).values)
        assert torch.allclose(seen["vectors"][1][row], deep[row].flatten(1).max(dim=1).values, atol=1e-5)


def test_the_last_stage_is_a_copy_that_follows_when_told():
    network, branch = build()
    pairs = list(zip(network.last_stage.parameters(), branch.last_stage.parameters(), strict=True))
    assert all(torch.equal(a, b) and a is not b for a, b in pairs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert not any(torch.equal(a, b) for a, b in pairs)
    branch.copy_stage(network)
    assert all(torch.equal(a, b) for a, b in pairs)
    pairs[0][0].grad = None
    branch.train().read(torch.rand(1, 64, 8, 12), [torch.tensor([[0.0, 0.0, 20.0, 40.0]] * 2)]).logits[0].backward()
    assert pairs[0][0].grad is None and pairs[0][1].grad is not None


def test_a_shared_stage_is_the_backbones_and_counted_once():
    network, branch = build(share_stage=True)
    assert branch.last_stage is network.last_stage
    assert not any("stage" in key for key in branch.state_dict())
    branch.copy_stage(network)
    owner = torch.nn.ModuleDict({"network": network, "branch": branch})
    copy = deepcopy(owner)
    assert copy["branch"].last_stage is copy["network"].last_stage is not network.last_stage


# Batches that lack something.


def unlabelled(targets):
    return [target | {"labels": torch.full_like(target["labels"], UNLABELLED)} for target in targets]


def nobody(targets):
    return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)} for _ in targets]


@pytest.mark.parametrize("change", [unlabelled, nobody])
@pytest.mark.parametrize("proposing", [0, 1, None], ids=["none", "one", "many"])
@pytest.mark.parametrize("switches", [SWITCHES[0], SWITCHES[2]], ids=name)
def test_batches_without_people_or_proposals_have_finite_losses_with_a_graph(change, proposing, switches):
    network, branch = build(**switches)
    images, proposals, targets = given()
    proposals = [proposals[0][:proposing], *(found[:0] if proposing is not None else found for found in proposals[1:])]
    _, _, losses = run(network.train(), branch.train(), images, proposals, change(targets))
    assert all(loss.isfinite() and loss.requires_grad for loss in losses.values())
    assert losses["roi_oim"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in branch.parameters())
    branch.update_memory()
    assert all(buffer.isfinite().all() for buffer in branch.buffers())
    assert (branch.memory.table == 0).all() and bool((branch.memory.queue != 0).any()) == (change is unlabelled)


def test_no_gradient_reaches_the_memory_and_it_moves_when_told():
    network, branch = build()
    images, proposals, targets = given()
    _, output, losses = run(network.train(), branch.train(), images, proposals, targets)
    sum(losses.values()).backward()
    assert not branch.memory.table.requires_grad and (branch.memory.table == 0).all()
    branch.update_memory()
    assert (branch.memory.table != 0).any() and (branch.memory.queue != 0).any()
    before = branch.memory.table.clone()
    branch.update_memory()
    assert torch.equal(branch.memory.table, before)


def test_a_region_is_read_alike_alone_and_among_others():
    network, branch = build()
    network.eval(), branch.eval()
    trunk, boxes = torch.randn(2, 64, 8, 12), torch.rand(6, 4) * 20 + torch.tensor([0.0, 0.0, 30.0, 30.0])
    with torch.no_grad():
        together = branch.read(trunk, [boxes[:4], boxes[4:]])
        alone = branch.read(trunk, [torch.zeros(0, 4), boxes[4:]])
        none = branch.read(trunk, [torch.zeros(0, 4)] * 2)
    assert torch.allclose(together.embeddings[4:], alone.embeddings, atol=1e-5)
    assert none.embeddings.shape == (0, 16) and none.deltas.shape == (0, 4)
    assert [len(found["boxes"]) for found in branch.detect([torch.zeros(0, 4)] * 2, none, ((1, 1), (1, 1)))] == [0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_finite_float32_under_autocast(dtype):
    network, branch = build()
    with torch.autocast("cpu", dtype):
        _, output, losses = run(network.train(), branch.train(), *given())
    assert output.embeddings.dtype == output.deltas.dtype == torch.float32
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()


@pytest.mark.parametrize(
    "switch",
    [
        {"roi_layer": "crop"}, {"roi_size": 2}, {"dim": 0}, {"dim": 1}, {"rois_per_image": 0}, {"negative_iou": 0.6},
        {"negative_iou": -0.1}, {"temperature": 0.0}, {"box_weights": (1.0, 1.0)}, {"box_beta": -1.0},
        {"positive_fraction": 1.5}, {"sampling_ratio": -1}, {"backbone": "tiny-vgg"}, {"queue_size": -1},
        {"oim_momentum": 1.0}, {"gamma_std": -1.0}, {"weight_std": -0.1},
    ],
    ids=name,
)  # fmt: skip
def test_a_wrong_switch_is_one_sentence(switch):
    with pytest.raises(UserError) as error:
        build(**switch)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
