"""Every model trains and searches with all its tensors on one device, shown without a GPU (see stand_in_device.py)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stand_in_device import NEEDS_GPU, MixedDevicesError, StandInDevice
from torch import nn
from toy_sets import SMALL, toy_batch, toy_recipe, toy_split

from pslib.evaluation.factors import Views, embed_at_levels
from pslib.evaluation.fast import prepare
from pslib.evaluation.gallery import embed_gallery
from pslib.evaluation.levels import embed_boxes
from pslib.evaluation.sampling import sampling_points
from pslib.models import alignps
from pslib.models.nae import NAEConfig
from pslib.models.roi_alignps import RoiAlignPSConfig
from pslib.models.roi_branch import RoiBranchConfig
from pslib.models.seqnet import SeqNetConfig
from pslib.models.two_stage import TwoStageConfig
from pslib.training.recipe import Schedule
from pslib.training.trainer import build_model, train


@pytest.fixture
def device():
    with StandInDevice() as mode:
        yield mode


def test_marks_follow_moves_and_operations(device):
    near, far = torch.ones(3), torch.ones(3, device="cuda")
    assert near not in device and far in device and far.device.type == "cuda" and far.is_cuda
    moved = near.to("cuda")
    assert moved in device and near not in device and moved.cpu() not in device and moved in device
    assert torch.zeros_like(far) in device and far.new_tensor([1.0]) in device and far.new_zeros(2) in device
    assert (2 * far)[None] in device and near.to(far) in device and far.to(torch.float64) in device
    assert torch.arange(2, device=far.device) in device and torch.zeros_like(far, device="cpu") not in device
    assert far.to("cpu", torch.float64).numpy().tolist() == [1, 1, 1]
    torch.ones(()) * far, far[torch.tensor([0])], near.copy_(far)  # what a GPU allows
    assert near not in device


@pytest.mark.parametrize("mixed", [
    lambda near, far: near + far,
    lambda near, far: torch.cat([near, far]),
    lambda near, far: near * far.sum(),
    lambda near, far: near[far.long()],
    lambda near, far: nn.Linear(3, 3)(far),
    lambda near, far: torch.where(near > 0, far, 0.0),
])  # fmt: skip
def test_operations_on_two_devices_are_caught(device, mixed):
    with pytest.raises(MixedDevicesError, match="two devices"):
        mixed(torch.ones(3), torch.ones(3, device="cuda"))


def test_a_tensor_on_the_device_has_no_array(device):
    with pytest.raises(TypeError, match="cpu"):
        torch.ones(3, device="cuda").numpy()


def test_gradients_and_optimisers_stay_on_the_device(device):
    layer = nn.Linear(3, 2).to("cuda")
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(4, 3, device="cuda")).sum().backward()
    optimizer.step()
    assert layer.weight in device and layer.weight.grad in device


SCHEDULE = Schedule(steps=3, batch_size=2, warmup_steps=1)
SEARCHED = {"class_threshold": 0.0}
ROI = RoiBranchConfig(dim=16, queue_size=8, score_threshold=0.0)
MODELS = {
    "alignps": replace(SMALL, **SEARCHED),
    "alignps, several levels, deformable backbone": replace(
        SMALL, levels=("P3", "P4"), topdown="sum", queue_channels=8, deformable_stages=("res5",), **SEARCHED
    ),
    "alignps, as released": replace(
        SMALL, structure="class", embedding_norm="batch", head_deformable=True, oim_average="positives",
        loss_normalizer="released", lateral="conv", **SEARCHED,
    ),
    "ian": TwoStageConfig(embedding_dim=16, rois_per_image=6, score_threshold=0.0),
    "ian, all boxes, full softmax, vgg": TwoStageConfig(
        backbone="tiny-vgg", rss_samples=None, center_boxes="all", dropout=0.5, roi_layer="align", score_threshold=0.0
    ),
    "jdi-ps": TwoStageConfig(identity_loss="oim", embedding_dim=16, queue_size=8, score_threshold=0.0),
    "nae": NAEConfig(roi=ROI),
    "seqnet": SeqNetConfig(),
    "roi-alignps": RoiAlignPSConfig(
        dense=replace(SMALL, **SEARCHED), roi=ROI, mutual=("information", "kl", "diversity")
    ),
    "roi-alignps, apart": RoiAlignPSConfig(
        dense=replace(SMALL, **SEARCHED), roi=ROI, shared=False, matching="iou"
    ),
}  # fmt: skip


@pytest.fixture
def generators_of_the_cpu(monkeypatch):
    """``fork_rng(devices=["cuda"])`` asks the driver for the state of a generator, and there is no driver."""
    fork = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices=(): fork(devices=[]))


def test_a_constant_forgotten_on_the_cpu_is_caught(device, generators_of_the_cpu, monkeypatch):
    points = alignps.level_points
    monkeypatch.setattr(alignps, "level_points", lambda *size_and_stride: points(*size_and_stride[:3]))
    with pytest.raises(MixedDevicesError):
        train(toy_recipe(schedule=SCHEDULE), toy_split("train"), 0, device="cuda")


@pytest.mark.parametrize("name", MODELS)
def test_models_train_and_search_on_one_device(device, generators_of_the_cpu, tmp_path, name):
    recipe = toy_recipe(model=MODELS[name], schedule=SCHEDULE)
    searched = []

    def validate(model):
        searched.append(embed_gallery(model, toy_split("test"), device="cuda"))
        return {}

    model, curves = train(
        recipe, toy_split("train"), 0, device="cuda", run="r", checkpoint=tmp_path / "run.pt", checkpoint_every=2,
        validate=validate, validate_at=(3,),
    )  # fmt: skip
    assert all(tensor in device for tensor in (*model.parameters(), *model.buffers()))
    assert searched and all(np.isfinite(values).all() for values in curves.losses.values())
    images = [image.to("cuda") for image in toy_batch()[0]]
    for search in (model, prepare(model)):
        assert all(tensor in device for found in search(images) for tensor in found.values())


def test_what_looks_into_a_model_takes_it_where_it_is(device):
    """The analyses of notebooks 05 and 06: levels, drawn views, sampling points."""
    model = build_model(toy_recipe(model=SMALL), 6, 0).to("cuda").eval()
    images, targets = toy_batch()
    images, boxes = [image.to("cuda") for image in images], [one["boxes"].to("cuda") for one in targets]
    embeddings, strides = embed_boxes(model, images, boxes)
    assert np.isfinite(embeddings).all() and len(strides) == len(embeddings) == 4
    centres = (boxes[0][:, :2] + boxes[0][:, 2:]) / 2
    assert all(points in device for points in sampling_points(model, images[0], centres).values())
    views = Views(tuple(images), torch.stack([one[0] for one in boxes]), ())
    found, _ = embed_at_levels(model, views)
    assert np.isfinite(found).all()


@NEEDS_GPU
@pytest.mark.parametrize("name", MODELS)
def test_models_train_and_search_on_a_gpu(name):
    model, curves = train(toy_recipe(model=MODELS[name], schedule=SCHEDULE), toy_split("train"), 0, device="cuda")
    found = embed_gallery(model, toy_split("test"), device="cuda")
    assert np.isfinite(found.ground_truth.embeddings).all() and len(found.ground_truth.embeddings)
    assert all(np.isfinite(values).all() for values in curves.losses.values())


@NEEDS_GPU
@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("alignps")])
def test_a_gpu_computes_what_a_cpu_does(name, monkeypatch):
    """Losses, memory and gradients of a model that draws nothing, first with an empty memory, then with a filled one.

    Convolutions go without the GPU's short cut TF32.
    """
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    images, targets = toy_batch()
    near, far = (one_batch_twice(MODELS[name], images, targets, place) for place in ("cpu", "cuda"))
    assert near["memory 0, table"].norm() > 0  # the second turn's OIM has somebody to tell apart
    whole = torch.stack([value.norm() for key, value in near.items() if key.startswith("gradient")]).max()
    for key, value in near.items():
        scale = value.norm() + (1e-2 * whole if key.startswith("gradient") else 1e-2)
        assert (far[key] - value).norm() <= 1e-3 * scale, key


def one_batch_twice(config, images, targets, place):
    """What a model says of a batch before and after it has remembered its people, and each gradient, on the CPU."""
    model = build_model(toy_recipe(model=config), 6, 0).to(place).train()
    images, targets = [x.to(place) for x in images], [{k: v.to(place) for k, v in one.items()} for one in targets]
    seen = {}
    for turn in range(2):
        model.zero_grad()
        losses = model(images, targets)
        sum(losses.values()).backward()
        model.update_memory()
        seen |= {f"{name} {turn}": value for name, value in losses.items()}
        seen |= {f"gradient {turn}, {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
        seen |= {f"memory {turn}, {name}": value.float() for name, value in model.memory.state_dict().items()}
    return {key: value.detach().cpu() for key, value in seen.items()}
