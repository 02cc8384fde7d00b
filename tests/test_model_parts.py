"""Backbones, batches, neck and head: shapes, strides, frozen parts, and what the switches really switch."""

import pytest
import torch
from torch import nn

from pslib.errors import UserError
from pslib.models.backbones import BACKBONES, build_backbone
from pslib.models.batching import IMAGE_MEAN, IMAGE_STD, batch_images
from pslib.models.fcos import FCOSHead, tower
from pslib.models.neck import AlignedFeatureAggregation
from pslib.ops import DeformableConv2d


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_has_the_strides_and_channels_it_says(name):
    backbone = build_backbone(name).eval()
    images = torch.zeros(1, 3, 64, 96)
    with torch.no_grad():
        maps = backbone(images)
    assert len(maps) == len(backbone.strides) == len(backbone.channels) == (2 if "vgg" in name else 3)
    for level, stride, channels in zip(maps, backbone.strides, backbone.channels, strict=True):
        assert level.shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in ("resnet50", "resnet101")])
def test_trunk_and_last_stage_are_the_two_parts_of_a_backbone(name):
    torch.manual_seed(0)
    backbone = build_backbone(name).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps, trunk = backbone(images), backbone.trunk(images)
        if backbone.last_stage is None:
            assert torch.equal(trunk, maps[-1])
        else:
            assert torch.equal(trunk, maps[-2]) and torch.equal(backbone.last_stage(trunk), maps[-1])


def test_the_deep_tiny_network_differs_from_tiny_in_its_middle_stage_alone():
    tiny, deep = ({name: module for name, module in build_backbone(name).named_children()}
                  for name in ("tiny", "tiny-deep"))  # fmt: skip
    assert len(deep["stage4"]) > len(tiny["stage4"])
    for stage in ("stem", "stage3", "stage5"):
        assert str(tiny[stage]) == str(deep[stage])


def test_vgg16_is_torchvisions_without_the_last_pooling():
    import torchvision

    backbone = build_backbone("vgg16", frozen=True)
    layers = [*backbone.body, *backbone.last_block]
    assert str(torch.nn.Sequential(*layers)) == str(
        torch.nn.Sequential(*torchvision.models.vgg16(weights=None, init_weights=False).features[:-1])
    )
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [layer.weight.requires_grad for layer in convolutions] == [False] * 4 + [True] * 9


@pytest.mark.parametrize("name", ["tiny-vgg", "vgg11", "vgg16"])
def test_a_vgg_has_no_deformable_stages_and_no_pyramid(name):
    with pytest.raises(UserError, match="deformable"):
        build_backbone(name, deformable_stages=("res4",))
    with pytest.raises(UserError, match="C5"):
        AlignedFeatureAggregation((32, 64), 16)


@pytest.mark.parametrize("name", ["tiny", "tiny-vgg", "resnet18"])
def test_a_cell_looks_at_its_own_place(name):
    # A bright patch must change C3 most at the cell it lies on, or boxes and embeddings would stand beside people.
    torch.manual_seed(0)
    backbone = build_backbone(name).eval()
    stride = backbone.strides[0]
    images = torch.zeros(2, 3, 128, 128)
    images[1, :, 48:64, 80:96] = 1.0
    with torch.no_grad():
        plain, marked = backbone(images)[0]
    change = (marked - plain).abs().sum(0)
    rows, columns = torch.meshgrid(torch.arange(len(change)), torch.arange(len(change)), indexing="ij")
    y, x = (float((change * place).sum() / change.sum()) * stride + stride / 2 for place in (rows, columns))
    assert abs(y - 56) < stride and abs(x - 88) < stride


def test_frozen_parts_of_a_resnet_get_no_gradient_and_keep_their_statistics():
    backbone = build_backbone("resnet18", frozen=True).train()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    sum(level.sum() for level in backbone(torch.rand(2, 3, 64, 64))).backward()
    for name, parameter in backbone.named_parameters():
        frozen = name.startswith(("body.conv1", "body.layer1"))
        assert parameter.requires_grad is not frozen
        assert (parameter.grad is None) is frozen
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    assert before.keys() and all(torch.equal(before[name], buffer) for name, buffer in backbone.named_buffers())


def test_an_unfrozen_resnet_learns_everywhere():
    backbone = build_backbone("resnet18", frozen=False).train()
    sum(level.sum() for level in backbone(torch.rand(2, 3, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_batches_are_normalised_and_padded_right_and_below():
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(0, 256, (3, 20, 37), generator=generator, dtype=torch.uint8)
    second = torch.rand(3, 33, 16, generator=generator)
    batch = batch_images([first, second], multiple=16)
    assert batch.tensors.shape == (2, 3, 48, 48) and batch.tensors.dtype == torch.float32
    for channel in range(3):
        value = (first[channel, 7, 11].item() / 255 - IMAGE_MEAN[channel]) / IMAGE_STD[channel]
        assert batch.tensors[0, channel, 7, 11].item() == pytest.approx(value, abs=1e-5)
        value = (second[channel, 32, 15].item() - IMAGE_MEAN[channel]) / IMAGE_STD[channel]
        assert batch.tensors[1, channel, 32, 15].item() == pytest.approx(value, abs=1e-5)
    assert (batch.tensors[0, :, 20:] == 0).all() and (batch.tensors[0, :, :, 37:] == 0).all()
    assert batch.sizes.tolist() == [[20, 37], [33, 16]]


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_valid_cells_are_those_whose_corner_is_image(stride):
    batch = batch_images([torch.zeros(3, 20, 37), torch.zeros(3, 33, 16)], multiple=16)
    valid = batch.valid(stride)
    assert valid.shape == (2, 1, 48 // stride, 48 // stride)
    for image, (height, width) in enumerate(batch.sizes.tolist()):
        for y in range(48 // stride):
            for x in range(48 // stride):
                assert bool(valid[image, 0, y, x]) == (y * stride < height and x * stride < width)


MAPS = [
    torch.randn(1, channels, 16 // stride, 24 // stride, generator=torch.Generator().manual_seed(stride))
    for channels, stride in ((4, 1), (6, 2), (8, 4))
]


def test_the_plain_neck_is_torchvisions_feature_pyramid():
    from torchvision.ops import FeaturePyramidNetwork

    neck = AlignedFeatureAggregation((4, 6, 8), 5, ("P3", "P4", "P5"), "conv", "conv", "sum")
    pyramid = FeaturePyramidNetwork([4, 6, 8], 5)
    for module in pyramid.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)
    for index, level in enumerate(("P3", "P4", "P5")):
        pyramid.inner_blocks[index][0].weight.data.copy_(neck.lateral[index].weight)
        pyramid.layer_blocks[index][0].weight.data.copy_(neck.output[level].weight)
    expected = pyramid({str(index): level for index, level in enumerate(MAPS)}).values()
    for ours, theirs in zip(neck(MAPS), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_concatenation_lays_the_coarse_maps_beside_the_fine():
    neck = AlignedFeatureAggregation((4, 6, 8), 5, ("P3", "P4", "P5"), "conv", "conv", "concat")
    c3, c4, c5 = (lateral(level) for lateral, level in zip(neck.lateral, MAPS, strict=True))
    grown = c5.repeat_interleave(2, -1).repeat_interleave(2, -2)
    p4 = torch.cat([c4, grown], 1)
    p3 = torch.cat([c3, p4.repeat_interleave(2, -1).repeat_interleave(2, -2)], 1)
    expected = [neck.output["P3"](p3), neck.output["P4"](p4), neck.output["P5"](c5)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(neck(MAPS), expected, strict=True))


@pytest.mark.parametrize(("lateral", "output"), [("conv", "conv"), ("deformable", "conv"), ("conv", "deformable")])
def test_switches_put_deformable_convolutions_where_they_say(lateral, output):
    neck = AlignedFeatureAggregation((4, 6, 8), 5, ("P3",), lateral, output, "concat")
    assert all(isinstance(module, DeformableConv2d) is (lateral == "deformable") for module in neck.lateral)
    assert isinstance(neck.output["P3"], DeformableConv2d) is (output == "deformable")
    assert not any(name.endswith("bias") and "conv_offset" not in name for name, _ in neck.named_parameters())
    assert neck(MAPS)[0].shape == (1, 5, 16, 24)


@pytest.mark.parametrize("activation", ["exp", "relu"])
def test_head_distances_scale_with_the_level_and_start_with_few_people(activation):
    head = FCOSHead(8, 16, 2, num_levels=2, box_activation=activation)
    features = [torch.randn(1, 8, 4, 6), torch.randn(1, 8, 2, 3)]
    with torch.no_grad():
        nn.init.constant_(head.regress.bias, 0.5)
        nn.init.zeros_(head.regress.weight)
        head.scales.copy_(torch.tensor([1.0, 3.0]))
        outputs = head(features)
    expected = [torch.tensor(x).exp() if activation == "exp" else torch.tensor(x) for x in (0.5, 1.5)]
    for output, value in zip(outputs, expected, strict=True):
        assert torch.allclose(output.ltrb, value.expand_as(output.ltrb), atol=1e-5)
        assert output.class_logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.3)


def test_centerness_reads_the_regression_tower():
    head = FCOSHead(8, 16, 1, num_levels=1)
    output = head([torch.randn(1, 8, 4, 6)])[0]
    output.centerness_logits.sum().backward()
    assert head.box_tower[0].weight.grad is not None and head.class_tower[0].weight.grad is None


def test_huge_regressions_stay_finite():
    head = FCOSHead(8, 16, 1, num_levels=1)
    nn.init.constant_(head.regress.bias, 1e4)
    assert head([torch.zeros(1, 8, 2, 2)])[0].ltrb.isfinite().all()


def test_a_tower_of_few_channels_still_has_a_group():
    assert tower(3, 4, 1)(torch.zeros(1, 3, 5, 5)).shape == (1, 4, 5, 5)
