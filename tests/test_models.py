"""AlignPS with every switch: it builds, learns a step, detects, and keeps torchvision's contract."""

from dataclasses import replace

import pytest
import torch
from toy_sets import SMALL, toy_batch, toy_model

from pslib.data.annotations import UNLABELLED
from pslib.errors import UserError
from pslib.losses.triplet import triplet_loss
from pslib.models.alignps import STRUCTURES, AlignPSConfig
from pslib.models.backbones import build_backbone
from pslib.models.batching import batch_images
from pslib.training.checkpoints import load_weights
from pslib.training.warm_start import warm_start_path

SWITCHES = [
    *({"structure": structure} for structure in STRUCTURES),
    *({"levels": levels} for levels in (("P3", "P4"), ("P3", "P4", "P5"), ("P4",), ("P5",), ("P4", "P5"))),
    {"lateral": "conv", "output": "deformable", "topdown": "sum"},
    {"lateral": "deformable", "output": "conv"},
    {"lateral": "conv", "output": "conv", "topdown": "sum", "levels": ("P3", "P4", "P5"), "structure": "parallel"},
    {"levels": ("P3", "P4", "P5"), "structure": "class", "embedding_norm": "batch"},
    {"box_activation": "relu"},
    {"triplet": "none"},
    {"triplet": "plain"},
    {"embedding_norm": "batch"},
    {"channels": 80, "queue_channels": 64},
    {"mean_subtraction": False},
    {"normalize_table": False, "oim_momentum": 0.0, "focal_gamma": 0.0},
]


def step(model, images, targets, rate=0.01):
    """One training step by hand; returns the losses."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses = model(images, targets)
    sum(losses.values()).backward()
    optimizer.step()
    model.update_memory()
    return losses


def check_detections(found, sizes, channels):
    for result, (height, width) in zip(found, sizes, strict=True):
        boxes, scores, embeddings = result["boxes"], result["scores"], result["embeddings"]
        assert boxes.shape == (len(scores), 4) and embeddings.shape == (len(scores), channels)
        assert (boxes >= 0).all() and (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all()
        assert (scores[1:] <= scores[:-1]).all() and ((scores >= 0) & (scores <= 1)).all()
        assert torch.allclose(embeddings.norm(dim=1), torch.ones(len(scores)), atol=1e-5)


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: ",".join(f"{k}={v}" for k, v in switches.items()))
def test_every_switch_trains_a_step_and_detects(switches):
    model = toy_model(**switches, class_threshold=0.0)
    images, targets = toy_batch()
    before = [parameter.clone() for parameter in model.parameters()]
    losses = step(model, images, targets)
    triplet = set() if model.config.triplet == "none" else {"triplet"}
    assert set(losses) == {"classification", "box", "centerness", "oim"} | triplet
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    assert losses["oim"].item() > 0
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > 0.8 * len(moved)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert model.memory.table.norm() > 0 and model.memory.queue.norm() > 0
    found = model.eval()(images)
    check_detections(found, [(64, 96)] * 2, model.config.channels)
    assert sum(len(result["scores"]) for result in found) > 0


def test_queue_channels_leave_the_rest_of_the_queue_empty():
    model = toy_model(channels=80, queue_channels=64)
    step(model, *toy_batch())
    assert (model.memory.queue[:, :64] != 0).any() and (model.memory.queue[:, 64:] == 0).all()
    assert (model.memory.table[:, 64:] != 0).any()


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_resnets_train_and_detect_from_random_weights(backbone):
    model = toy_model(backbone=backbone, levels=("P3", "P4", "P5"), class_threshold=0.0)
    images, targets = toy_batch()
    # Untrained ResNets have activations of hundreds: a larger step would throw all sampling points off the map.
    assert all(loss.isfinite() for loss in step(model, images, targets, rate=1e-5).values())
    check_detections(model.eval()(images), [(64, 96)] * 2, 16)


def test_the_triplet_term_knows_the_table_only_where_it_is_asked_to():
    images, targets = toy_batch(people=3)
    terms = {}
    for triplet in ("plain", "table"):
        model = toy_model(triplet=triplet)
        step(model, images, targets, rate=0.0)  # fills the table
        batch = batch_images(images, multiple=model.backbone.strides[-1])
        dense = model.dense(batch)
        people, identity = model.people(dense, model.detection_losses(dense, targets)[1], targets)
        terms[triplet] = model.reid_losses(people, identity)["triplet"].item()
        given = {"plain": None, "table": model.memory.table}
        expected = {name: triplet_loss(people, identity, table).item() for name, table in given.items()}
        assert terms[triplet] == expected[triplet] and expected["plain"] != expected["table"]


def test_mean_subtraction_takes_the_mean_of_the_frame_out_of_the_map_and_nothing_else():
    images, _ = toy_batch()
    maps = []
    for subtracts in (True, False):
        model = toy_model(mean_subtraction=subtracts, structure="reid-first", levels=("P3",)).eval()
        with torch.no_grad():
            maps.append(model.dense(batch_images(images, multiple=model.backbone.strides[-1])).embeddings)
    with_it, without = maps  # (B, A, D) of the same weights
    assert torch.allclose(with_it, without - without.mean(dim=1, keepdim=True), atol=1e-5)
    assert not torch.allclose(with_it, without, atol=1e-2)


def test_first_oim_loss_is_that_of_an_empty_memory():
    # Zero rows everywhere: p = 1 / (I + U) for every embedding, so the loss is focal(log(6 + 8)).
    losses = toy_model().train()(*toy_batch())
    chance = torch.tensor(1 / 14)
    assert losses["oim"].item() == pytest.approx(float(-((1 - chance) ** 2) * chance.log()), rel=1e-5)


def unlabelled(targets):
    return [target | {"labels": torch.full_like(target["labels"], UNLABELLED)} for target in targets]


def nobody(targets):
    return [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)} for _ in targets]


@pytest.mark.parametrize("change", [unlabelled, nobody])
@pytest.mark.parametrize("switches", [{}, {"embedding_norm": "batch"}, {"triplet": "plain", "structure": "box"}])
def test_a_batch_without_labelled_people_or_anybody_has_finite_losses_with_a_graph(change, switches):
    model = toy_model(**switches).train()
    images, targets = toy_batch()
    losses = model(images, change(targets))
    assert losses["oim"].item() == 0 and losses["triplet"].item() == 0
    assert all(loss.isfinite() and loss.requires_grad for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert model.head.classify.weight.grad.norm() > 0
    model.update_memory()
    assert (model.memory.table == 0).all()
    assert bool((model.memory.queue != 0).any()) == (change is unlabelled)


def test_one_empty_image_beside_a_full_one_changes_nothing_but_its_own_part():
    model = toy_model().train()
    images, targets = toy_batch()
    losses = model(images, [targets[0], *nobody(targets[1:])])
    assert all(loss.isfinite() for loss in losses.values()) and losses["oim"].item() > 0


def test_a_single_positive_cell_passes_a_batch_normed_embedding():
    model = toy_model(embedding_norm="batch", levels=("P5",)).train()
    images, targets = toy_batch(count=1, people=1)
    # Half a stride around the centre: exactly the cell at (24, 24) of P5's 4 x 6.
    targets[0]["boxes"] = torch.tensor([[15.0, 4.0, 33.0, 44.0]])
    model.config = replace(model.config, center_radius=0.5)
    losses = model(images, targets)
    assert len(model._pending[0]) == 1
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())


def test_floating_and_uint8_images_are_the_same_images():
    model = toy_model(class_threshold=0.0).eval()
    images, _ = toy_batch()
    for first, second in zip(model(images), model([image.float() / 255 for image in images]), strict=True):
        assert torch.allclose(first["boxes"], second["boxes"], atol=1e-4)


def test_memory_changes_only_when_the_trainer_says_so():
    model = toy_model(class_threshold=0.0).train()
    images, targets = toy_batch()

    def memory():
        return torch.cat([model.memory.table, model.memory.queue])

    before = memory()
    sum(model(images, targets).values()).backward()
    assert torch.equal(memory(), before)
    people, labels = model._pending
    assert not people.requires_grad and len(people) == len(labels)
    model.update_memory()
    after = memory()
    assert not torch.equal(after, before) and model._pending is None
    model.update_memory()  # nothing pending: nothing happens
    assert torch.equal(memory(), after)
    model.eval()
    model(images)
    model.detect_and_embed(images, [target["boxes"] for target in targets])
    model.update_memory()
    assert torch.equal(memory(), after)


def test_memory_holds_what_the_batch_said_in_order():
    model = toy_model(queue_size=4).train()
    images, targets = toy_batch()
    model(images, targets)
    people, labels = model._pending
    model.update_memory()
    for label in labels[labels >= 0].unique():
        row = torch.zeros(16)
        for person in people[labels == label]:
            row = torch.nn.functional.normalize(0.5 * row + 0.5 * person, dim=0)
        assert torch.allclose(model.memory.table[label], row, atol=1e-6)
    assert torch.allclose(model.memory.queue.norm(dim=1), torch.ones(4), atol=1e-5)


@pytest.mark.parametrize(
    "switch",
    [
        {"structure": "both"}, {"triplet": "tabel"}, {"embedding_norm": "layer"}, {"backbone": "vgg"},
        {"topdown": "mean"}, {"lateral": "deform"}, {"box_activation": "softplus"}, {"levels": ("P2",)},
        {"levels": ()}, {"levels": ("P4", "P3")}, {"levels": ("P3", "P4", "P5"), "size_cuts": (24.0,)},
    ],
)  # fmt: skip
def test_a_wrong_switch_is_one_sentence(switch):
    with pytest.raises(UserError) as error:
        toy_model(**switch)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_default_configuration_is_alignps():
    assert AlignPSConfig().structure == "reid-first" and AlignPSConfig().levels == ("P3",)
    assert SMALL.lateral == SMALL.output == "deformable"


def test_a_frozen_vgg_keeps_the_statistics_it_comes_with(monkeypatch):
    """Pretrained normalisations are not those of a new layer."""
    import torchvision

    get_model = torchvision.models.get_model

    def pretrained(layout, weights):
        network = get_model(layout, weights=None, init_weights=False)
        generator = torch.Generator().manual_seed(0)
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(0.1 + 0.1 * torch.rand(tensor.shape, generator=generator))
        return network

    monkeypatch.setattr(torchvision.models, "get_model", pretrained)
    plain, frozen = (build_backbone("vgg11", weights="DEFAULT", frozen=frozen).eval() for frozen in (False, True))
    image = torch.rand(1, 3, 64, 64)
    assert all(torch.allclose(a, b, rtol=1e-4) for a, b in zip(plain(image), frozen(image), strict=True))


@pytest.mark.parametrize("name", ["tiny", "tiny-deep", "tiny-vgg", "resnet18", "vgg11"])
def test_a_frozen_backbone_holds_its_first_layers_and_no_switch_is_ignored(name):
    def held(frozen):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build_backbone(name, frozen=frozen)

    plain, frozen = held(False).eval(), held(True).eval()
    still = [key for key, value in frozen.named_parameters() if not value.requires_grad]
    assert still and all(value.requires_grad for value in plain.parameters())
    image = torch.rand(2, 3, 64, 64)
    for one, other in zip(plain(image), frozen(image), strict=True):
        assert torch.allclose(one, other, atol=1e-5)  # a new normalisation does what its constant does
    before = {key: value.clone() for key, value in frozen.named_buffers()}
    frozen.train()(image)
    assert before and all(torch.equal(value, before[key]) for key, value in frozen.named_buffers())
    if name in ("tiny", "tiny-deep"):
        assert {key.split(".")[0] for key in still} == {"stem", "stage3"}
        tensors = load_weights(warm_start_path("tiny"))[0] if name == "tiny" else plain.state_dict()
        missing, unknown = frozen.load_state_dict(tensors, strict=False)
        assert not missing and not unknown  # the committed start fits


def test_background_levels_teach_where_nobody_is_and_find_nobody():
    """In training their cells are background to the classification, whoever stands there; at test they are gone."""
    switches = {"levels": ("P3",), "background_levels": ("P4", "P5"), "class_threshold": 0.0}
    model, plain = toy_model(**switches).train(), toy_model(levels=("P3",)).train()
    images, targets = toy_batch()
    batch = batch_images(images, multiple=model.backbone.strides[-1])
    dense, alone = model.dense(batch), plain.dense(batch)
    cells = alone.strides.numel()
    assert dense.strides.unique().tolist() == [4, 8, 16] and set(alone.strides.tolist()) == {4}
    _, match = model.detection_losses(dense, targets)
    _, own = plain.detection_losses(alone, targets)
    assert torch.equal(match[:, :cells], own) and (match[:, cells:] == -1).all() and (own >= 0).any()
    assert all(len(one["cells"]) and one["cells"].max() < cells for one in model.find(dense, batch.sizes))
    model(images, targets)["classification"].backward()
    assert all(model.neck.output[level].weight.grad.abs().sum() > 0 for level in ("P4", "P5"))
    with torch.no_grad():
        found = model.eval().dense(batch)
        assert found.strides.unique().tolist() == [4] and len(model(images)) == len(images)
        assert model.detect_and_embed(images, [target["boxes"] for target in targets])[1][0].shape[1] == 16


@pytest.mark.parametrize("levels", [("P3",), ("P5", "P4"), ("P7",)])
def test_background_levels_are_coarser(levels):
    with pytest.raises(UserError, match="background_levels|pyramid level"):
        AlignPSConfig(levels=("P3",), background_levels=levels)
