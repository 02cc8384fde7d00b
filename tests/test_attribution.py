"""Which pixels feed an embedding: the energy is that of the exact Jacobian, and its shares add up to the picture."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_sets import SMALL, toy_batch, train_step

from pslib.errors import UserError
from pslib.evaluation import attribution
from pslib.models.batching import batch_images
from pslib.models.roi_alignps import RoiAlignPS, RoiAlignPSConfig
from pslib.models.roi_branch import RoiBranchConfig

BOX = torch.tensor([[12.0, 8.0, 24.0, 38.0]])


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = RoiAlignPSConfig(dense=replace(SMALL, class_threshold=0.0), roi=RoiBranchConfig(dim=16, queue_size=8))
        built = RoiAlignPS(config, 6)
        train_step(built, *toy_batch())  # running statistics that do not explode
    return built.eval()


def picture(seed=0, size=(48, 64)):
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))


def test_branches_are_what_the_model_embeds_given_boxes_by(model):
    images, boxes = [picture(0), picture(1, (40, 56))], [BOX, torch.cat([BOX, BOX + 4])]
    found = attribution.branch_embeddings(model, batch_images(images, model.alignps.backbone.strides[-1]), boxes)
    for read in ("dense", "roi"):
        with torch.no_grad():
            _, want = model.reading(read).detect_and_embed(images, boxes)
        torch.testing.assert_close(found[read], torch.cat(want), atol=1e-5, rtol=1e-4)


def test_all_directions_give_the_exact_jacobian(model):
    image = picture()
    batch = batch_images([image], model.alignps.backbone.strides[-1])
    for branch in ("dense", "roi"):
        size = attribution.branch_embeddings(model, batch, [BOX])[branch].shape[1]
        found = attribution.pixel_energy(model, [image], BOX, torch.Generator().manual_seed(3), directions=size)[branch]

        def embed(pixels, branch=branch):
            return attribution.branch_embeddings(model, replace(batch, tensors=pixels), [BOX])[branch][0]

        slopes = torch.autograd.functional.jacobian(embed, batch.tensors)  # (D, 1, 3, H, W)
        want = slopes.square().sum(dim=(0, 1, 2))[:48, :64]
        np.testing.assert_allclose(found[0], want / want.sum(), atol=1e-6, rtol=1e-3)


def test_images_do_not_see_each_other_and_batches_do_not_matter(model):
    images, boxes = [picture(seed, (48, 64)) for seed in range(3)], BOX.repeat(3, 1)
    together = attribution.pixel_energy(model, images, boxes, torch.Generator().manual_seed(1), directions=16)
    apart = attribution.pixel_energy(model, images, boxes, torch.Generator().manual_seed(2), 16, batch_size=1)
    for maps, others in zip(together.values(), apart.values(), strict=True):
        for one, other in zip(maps, others, strict=True):
            assert one.shape == (48, 64) and one.sum() == pytest.approx(1, abs=1e-4)
            assert other.shape == one.shape
    # All 16 directions of the ROI branch's embedding: exact, whichever they are.
    np.testing.assert_allclose(together["roi"][1], apart["roi"][1], atol=1e-6, rtol=1e-3)


def test_shares_partition_the_picture_and_count_each_pixel_once():
    rng = np.random.default_rng(0)
    energy = rng.random((20, 30))
    energy /= energy.sum()
    owner = rng.integers(-1, 4, (20, 30))
    shares = attribution.energy_shares(energy, owner, 2, (5, 4, 17, 15))
    assert list(shares) == list(attribution.PARTS) and sum(shares.values()) == pytest.approx(1)
    want = dict.fromkeys(attribution.PARTS, 0.0)
    for y in range(20):
        for x in range(30):
            inside = 5 <= x < 17 and 4 <= y < 15
            part = 0 if owner[y, x] == 2 else 1 if inside else 2 if owner[y, x] >= 0 else 3
            want[attribution.PARTS[part]] += energy[y, x]
    assert shares == pytest.approx(want)


def test_reach_is_the_distance_from_the_box():
    energy = np.zeros((10, 10))
    energy[4, 4], energy[4, 8], energy[0, 0] = 0.5, 0.3, 0.2  # inside; 4 px to the right; off the corner
    within = attribution.energy_within(energy, (3, 3, 5, 5), (0, 3.9, 4, 4.3))
    assert within.tolist() == pytest.approx([0.5, 0.5, 0.8, 1.0])


def test_mistakes_are_named(model):
    with pytest.raises(UserError, match="directions=17"):
        attribution.pixel_energy(model, [picture()], BOX, torch.Generator(), directions=17)
    with pytest.raises(UserError, match="holds no pixel"):
        attribution.energy_within(np.ones((4, 4)), (9, 9, 12, 12), (0,))
    with pytest.raises(UserError, match="in training"):
        attribution.branch_embeddings(copy.deepcopy(model).train(), batch_images([picture()], 32), [BOX])
    apart = RoiAlignPS(replace(model.config, shared=False), 6)
    with pytest.raises(UserError, match="shared=False"):
        attribution.branch_embeddings(apart, batch_images([picture()], 32), [BOX])
