"""Deformable convolutions in backbone and head: off by default, the same network at the start, weights carry over."""

import pytest
import torch
from torch import nn
from toy_sets import toy_batch, toy_model, toy_recipe

from pslib.errors import UserError
from pslib.models.backbones import STAGES, TinyBackbone, build_backbone
from pslib.models.deformable import deform_last, deformable_copy, load_ordinary, random_offsets
from pslib.models.neck import AlignedFeatureAggregation
from pslib.ops import DeformableConv2d
from pslib.training.recipe import Schedule
from pslib.training.schedule import build_optimizer
from pslib.training.trainer import build_model
from pslib.training.warm_start import apply_warm_start


def seeded(seed, build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def deformable_names(module):
    return {name for name, layer in module.named_modules() if isinstance(layer, DeformableConv2d)}


@pytest.mark.parametrize(("stride", "bias"), [(1, False), (2, False), (1, True)])
def test_a_copy_computes_what_the_convolution_did(stride, bias):
    conv = nn.Conv2d(4, 6, 3, stride, padding=1, bias=bias)
    images = torch.randn(2, 4, 9, 12)
    copy = deformable_copy(conv)
    assert torch.allclose(copy(images), conv(images), atol=1e-5)
    assert copy.modulated and (copy.bias is not None) is bias
    # ... and no longer, once the offsets move.
    nn.init.constant_(copy.conv_offset.bias, 0.5)
    assert not torch.allclose(copy(images), conv(images), atol=1e-2)


def test_a_copy_draws_nothing():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    deformable_copy(conv)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("name", ["tiny", "resnet18", "resnet50"])
def test_a_deformable_backbone_starts_as_the_ordinary_one(name):
    images = torch.randn(2, 3, 64, 96)
    plain = seeded(0, lambda: build_backbone(name)).eval()
    deformable = seeded(0, lambda: build_backbone(name, deformable_stages=STAGES)).eval()
    with torch.no_grad():
        for ours, theirs in zip(deformable(images), plain(images), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))
    blocks = {"tiny": 6, "resnet18": 6, "resnet50": 4 + 6 + 3}[name]  # one convolution in every block
    assert len(deformable_names(deformable)) == blocks
    layers = [layer for layer in deformable.modules() if isinstance(layer, DeformableConv2d)]
    assert all(layer.taps == 9 and layer.modulated and layer.bias is None for layer in layers)
    # torchvision's strides sit on the 3x3 convolution of a bottleneck; the second of two has none.
    assert sum(layer.stride == 2 for layer in layers) == (3 if name == "resnet50" else 0)


@pytest.mark.parametrize(("stage", "parts"), [("res3", ("stage3", "layer2")), ("res4", ("stage4", "layer3")),
                                              ("res5", ("stage5", "layer4"))])  # fmt: skip
def test_a_stage_is_where_its_name_says(stage, parts):
    tiny = deformable_names(build_backbone("tiny", deformable_stages=(stage,)))
    resnet = deformable_names(build_backbone("resnet18", deformable_stages=(stage,)))
    assert tiny == {f"{parts[0]}.{block}.body.3" for block in (0, 1)}
    assert resnet == {f"body.{parts[1]}.{block}.conv2" for block in (0, 1)}


def test_without_stages_nothing_changes():
    plain, empty = (seeded(0, build) for build in (TinyBackbone, lambda: TinyBackbone(())))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), empty.parameters(), strict=True))
    assert not deformable_names(empty)
    model = toy_model()
    assert not deformable_names(model.backbone) and not deformable_names(model.head)


def test_rows_of_a_table_share_their_first_weights():
    # What is initialised after the backbone must not depend on its deformable stages.
    plain, deformable = (
        build_model(toy_recipe(model__deformable_stages=stages), 6, seed=4) for stages in ((), ("res3", "res5"))
    )
    for name, parameter in deformable.named_parameters():
        if not name.startswith("backbone"):
            assert torch.equal(parameter, plain.get_parameter(name)), name


def test_a_warm_start_carries_over():
    plain, deformable = TinyBackbone().eval(), TinyBackbone(STAGES).eval()
    for backbone in (plain, deformable):
        apply_warm_start(backbone, "tiny", "neutral")
    images = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        for ours, theirs in zip(deformable(images), plain(images), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert deformable.stage3[0].body[3].conv_offset.weight.eq(0).all()


def test_frozen_pretrained_weights_carry_over(monkeypatch):
    import torchvision

    def pretrained(name, weights, norm_layer):
        assert weights == "IMAGENET1K_V1"
        return seeded(7, lambda: original(name, weights=None, norm_layer=norm_layer))

    original = torchvision.models.get_model
    monkeypatch.setattr(torchvision.models, "get_model", pretrained)
    backbone = build_backbone("resnet50", "IMAGENET1K_V1", frozen=True, deformable_stages=("res5",))
    block, source = backbone.body.layer4[0], pretrained("resnet50", "IMAGENET1K_V1", nn.BatchNorm2d).layer4[0]
    assert torch.equal(block.conv2.weight, 2 * source.conv2.weight) and block.conv2.stride == 2
    assert torch.equal(block.conv1.weight, source.conv1.weight)


def test_loading_the_state_of_another_network_is_refused():
    with pytest.raises(RuntimeError):
        load_ordinary(TinyBackbone(("res3",)), build_backbone("resnet18").state_dict())
    with pytest.raises(RuntimeError):
        load_ordinary(TinyBackbone(("res3",)), {"stem.0.weight": torch.zeros(16, 3, 3, 3)})


def test_offsets_of_the_backbone_learn_at_their_own_rate():
    model = toy_model(deformable_stages=("res4",), head_deformable=True)
    optimizer = build_optimizer(model, Schedule(learning_rate=1e-2, offset_rate=0.1))
    slow = {id(p) for group in optimizer.param_groups if group["peak"] < 5e-3 for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in slow) == ("conv_offset" in name), name


def test_the_head_starts_as_the_ordinary_one_and_deforms_its_last_tower_convolutions():
    images, _ = toy_batch()
    plain, deformable = (
        seeded(0, lambda switch=switch: toy_model(head_deformable=switch, head_depth=2, class_threshold=0.0)).eval()
        for switch in (False, True)
    )
    assert deformable_names(deformable.head) == {"class_tower.3", "box_tower.3"}
    assert deformable.head.box_tower[3].bias is not None
    with torch.no_grad():
        for ours, theirs in zip(deformable(images), plain(images), strict=True):
            assert torch.allclose(ours["scores"], theirs["scores"], atol=1e-5)


def test_only_the_last_convolution_is_deformed():
    layers = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())
    deform_last(layers)
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.ReLU, DeformableConv2d, nn.ReLU]


def test_random_offsets_move_the_sampling_points_of_the_neck():
    neck = AlignedFeatureAggregation((4, 6, 8), 5, ("P3",))
    random_offsets(neck)
    assert all(layer.conv_offset.weight.abs().max() > 0 for layer in neck.lateral)
    started = toy_model(offset_init="xavier").neck.output["P3"].conv_offset.weight
    assert started.abs().max() > 0 and toy_model().neck.output["P3"].conv_offset.weight.eq(0).all()


@pytest.mark.parametrize("switch", [
    {"deformable_stages": ("res2",)}, {"deformable_stages": ("res4", "res3")}, {"deformable_stages": ("res3", "res3")},
    {"offset_init": "random"}, {"oim_average": "all"}, {"loss_normalizer": "none"},
])  # fmt: skip
def test_a_wrong_switch_is_one_sentence(switch):
    with pytest.raises(UserError) as error:
        toy_model(**switch)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize("switch", [
    {"deformable_stages": ("res3", "res4", "res5")}, {"head_deformable": True}, {"offset_init": "xavier"},
    {"oim_average": "positives", "loss_normalizer": "released", "queue_temperature": 0.2},
    {"backbone": "resnet18", "deformable_stages": ("res5",)},
])  # fmt: skip
def test_every_switch_learns_a_step(switch):
    model = toy_model(**switch).train()
    losses = model(*toy_batch())
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    moving = [p for name, p in model.named_parameters() if "conv_offset" in name and "neck" not in name]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in moving)
    assert not moving or any(p.grad.norm() > 0 for p in moving)


def test_released_averages_reach_the_losses():
    images, targets = toy_batch()
    plain, other = (
        seeded(0, lambda c=c: toy_model(**c)).train()(images, targets)
        for c in ({}, {"oim_average": "positives", "loss_normalizer": "released"})
    )
    assert other["oim"] < plain["oim"]  # the same sum over more people
    assert other["classification"] < plain["classification"] and other["triplet"] == plain["triplet"]
