"""Prepared models answer as the plain ones do, within the tolerances that are stated."""

import numpy as np
import pytest
import torch
from PIL import Image
from stand_in_device import NEEDS_GPU
from torch import nn
from torchvision.ops import box_iou
from toy_sets import thirty_steps, toy_batch

from pslib import paths
from pslib.errors import UserError
from pslib.evaluation import fast
from pslib.evaluation.fast import TOLERANCES, fold_batch_norms, prepare
from pslib.models.alignps import AlignPS, AlignPSConfig
from pslib.models.backbones import build_backbone
from pslib.models.deformable import random_offsets
from pslib.models.nae import NAE, NAEConfig
from pslib.models.neck import AlignedFeatureAggregation
from pslib.models.roi_branch import RoiBranchConfig
from pslib.models.seqnet import SeqNet, SeqNetConfig
from pslib.models.two_stage import TwoStage
from pslib.ops import DeformableConv2d
from pslib.training.checkpoints import load_model
from pslib.training.recipes import make_recipe

# Few CPUs multiply float16.
PLACES = [("float32", "cpu"), ("bfloat16", "cpu"), pytest.param("float16", "cuda", marks=NEEDS_GPU)]


def busy(module):
    """Give every normalisation statistics and every offset weights, as training does."""
    torch.manual_seed(3)
    random_offsets(module)
    for layer in module.modules():
        if getattr(layer, "running_mean", None) is not None:
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2.0)
    return module.eval()


@pytest.mark.parametrize(("name", "stages", "folds"), [("resnet18", (), 20), ("tiny", ("res4",), 16)])
def test_folded_normalisations_change_nothing(name, stages, folds):
    backbone, image = busy(build_backbone(name, deformable_stages=stages)), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        want = backbone(image)
        assert fold_batch_norms(backbone) == folds
        assert not [layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
        for got, level in zip(backbone(image), want, strict=True):
            torch.testing.assert_close(got, level, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("levels", [("P3",), ("P4", "P5"), ("P3", "P4", "P5")])
@pytest.mark.parametrize(("lateral", "output", "topdown"), [
    ("deformable", "deformable", "concat"), ("conv", "deformable", "concat"), ("deformable", "conv", "concat"),
    ("deformable", "deformable", "sum"),
])  # fmt: skip
def test_a_prepared_neck(levels, lateral, output, topdown):
    """Also where a map is not twice the next: 7 cells from 4."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.neck = AlignedFeatureAggregation((8, 12, 16), 6, levels, lateral, output, topdown)

        def forward(self, maps):
            return self.neck(maps)

    plain = busy(Wide())
    maps = [torch.rand(2, width, *size) for width, size in ((8, (14, 7)), (12, (7, 4)), (16, (4, 2)))]
    prepared = prepare(plain)
    replaced = [layer for layer in prepared.modules() if isinstance(layer, fast._ProjectingConv)]
    assert len(replaced) == len(levels) * (output == "deformable") + 3 * (lateral == "deformable")
    with torch.no_grad():
        for got, want in zip(prepared(maps), plain(maps), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def scene():
    """One drawn picture, and two boxes in it."""
    folder = paths.synthetic_dir("tiny") / "cuhk-sysu"
    picture = sorted(folder.rglob("*.jpg"))[0]
    pixels = torch.from_numpy(np.array(Image.open(picture).convert("RGB"))).permute(2, 0, 1)
    return pixels, torch.tensor([[30.0, 20, 48, 70], [80, 30, 100, 85]])


def agree(plain, prepared, image, tolerance, least=3, share=1.0):
    """Both find the same people, at least that ``share`` of them, and embed a given box alike."""
    pixels, score, turn = tolerance
    with torch.no_grad():
        (found,) = plain([image])
        boxes = found["boxes"][found["scores"] > 0.3]
        (found,), (given,) = plain.detect_and_embed([image], [boxes])
        (again,), (others,) = prepared.detect_and_embed([image], [boxes])
    cosine = nn.functional.cosine_similarity
    assert (1 - cosine(given, others)).max() <= turn
    sure = found["scores"] > 0.3
    assert sure.sum() >= least
    best = box_iou(found["boxes"][sure], again["boxes"]).argmax(dim=1)
    alike = (found["boxes"][sure] - again["boxes"][best]).abs().amax(dim=1) <= pixels
    alike &= (found["scores"][sure] - again["scores"][best]).abs() <= score
    alike &= 1 - cosine(found["embeddings"][sure], again["embeddings"][best]) <= turn
    assert alike.float().mean() >= share


@pytest.mark.parametrize("name", ["alignps-long", "baseline", "ian-long", "roi-alignps"])
@pytest.mark.parametrize(("precision", "device"), PLACES)
def test_trained_models_find_the_same_people(name, precision, device):
    plain = load_model(paths.weights_dir() / f"{name}-cuhk-sysu.safetensors").to(device)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    prepared = prepare(plain, precision)
    image = scene()[0].to(device)
    agree(plain, prepared, image, TOLERANCES[precision])
    assert prepared.similarity == getattr(plain, "similarity", "cosine")
    (found,) = prepared([image])
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert not found["embeddings"].requires_grad and not prepared.train().training
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())


def test_a_fault_is_noticed(monkeypatch):
    """Products moved by a cell, and a normalisation folded without its shift."""
    plain, (image, _) = load_model(paths.weights_dir() / "alignps-long-cuhk-sysu.safetensors").eval(), scene()
    right = fast.project_concatenated
    with monkeypatch.context() as patch, pytest.raises(AssertionError):
        patch.setattr(fast, "project_concatenated", lambda maps, weight: right(maps, weight).roll(1, dims=2))
        agree(plain, prepare(plain), image, TOLERANCES["bfloat16"])
    with monkeypatch.context() as patch, pytest.raises(AssertionError):
        fold = fast._fold
        patch.setattr(fast, "_fold", lambda conv, norm: (fold(conv, norm), nn.init.zeros_(conv.bias)))
        agree(plain, prepare(plain), image, TOLERANCES["bfloat16"])


MODELS = {
    "AlignPS+": lambda: AlignPS(AlignPSConfig(backbone="tiny", deformable_stages=("res3", "res4", "res5")), 5),
    "NAE": lambda: NAE(NAEConfig(), 5),
    "NAE+": lambda: NAE(NAEConfig(roi=RoiBranchConfig(pixels=True)), 5),
    "SeqNet": lambda: SeqNet(SeqNetConfig(), 5),
    "JDI-PS": lambda: TwoStage(make_recipe("jdi-ps", "cuhk-sysu").model, 5),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("precision", "device"), PLACES)
def test_embeddings_of_other_models(name, precision, device):
    """Of boxes that are given: untrained, they find nobody, and embed all boxes much alike: rounding is far smaller."""
    torch.manual_seed(0)
    plain, (image, boxes) = busy(MODELS[name]()).to(device), (part.to(device) for part in scene())
    with torch.no_grad():
        want = plain.detect_and_embed([image], [boxes])[1][0]
        got = prepare(plain, precision).detect_and_embed([image], [boxes])[1][0]
    assert want.shape == got.shape == (2, want.shape[1]) and got.device == want.device
    cosine = nn.functional.cosine_similarity
    between_boxes = 1 - cosine(*want.double(), dim=0)
    assert between_boxes > 1e-5
    assert (1 - cosine(got.double(), want.double())).max() <= min(TOLERANCES[precision][2], between_boxes / 10)


@pytest.mark.parametrize(("name", "precision"), [("NAE", "float32"), ("NAE", "bfloat16"), ("SeqNet", "bfloat16")])
def test_rivals_find_the_same_people(name, precision):
    """But for a box at the border of a suppression: after thirty steps many overlap."""
    torch.manual_seed(0)
    plain = MODELS[name]()
    thirty_steps(plain)
    prepared = prepare(plain.eval(), precision)
    for image in toy_batch()[0]:
        agree(plain, prepared, image, TOLERANCES[precision], least=2, share=0.8)


def test_an_rpn_reads_out_in_full_precision():
    """Scores and moves of anchors, from layers before them that compute in bfloat16."""
    prepared, seen = prepare(busy(NAE(NAEConfig(), 5)), "bfloat16"), {}
    head = prepared.model.rpn.head
    for name in ("conv", "cls_logits", "bbox_pred"):
        getattr(head, name).register_forward_hook(lambda _, given, out, name=name: seen.update({name: out.dtype}))
    prepared([scene()[0]])
    assert seen == {"conv": torch.bfloat16, "cls_logits": torch.float32, "bbox_pred": torch.float32}


@pytest.mark.parametrize("stride", [1, 2])
def test_a_wide_deformable_convolution_in_half_precision(stride):
    """As wide as a ResNet's: its layer of offsets has the sizes of a read-out, but it is not one to be wrapped."""
    layer = busy(nn.Sequential(DeformableConv2d(256, 256, 3, stride=stride)))
    fast_layer = prepare(layer, "bfloat16").model
    assert isinstance(fast_layer[0], DeformableConv2d) == (stride == 2)
    maps = torch.randn(1, 256, 9, 12)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        mine = fast_layer(maps).float()
    with torch.inference_mode():
        plain = layer(maps)
    assert (mine - plain).abs().max() < 0.05 * plain.abs().max()


def test_a_precision_misspelt():
    with pytest.raises(UserError, match="unknown precision 'bf16'"):
        prepare(AlignPS(AlignPSConfig(), 5), "bf16")
