"""The papers' recipes: they build without a download, learn a step, find people, weigh what they should.

And the small profile: every variant at it is the same comparison on a larger backbone.
"""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from replay import _recipe, fixed_set
from toy_sets import toy_batch, toy_split

from pslib.data.profiles import PROFILES
from pslib.data.transforms import MULTI_SCALE
from pslib.evaluation.gallery import embed_gallery
from pslib.experiments.alignps import VARIANTS
from pslib.experiments.lookup import at_profile
from pslib.models.alignps import AlignPS
from pslib.models.families import without_download
from pslib.models.seqnet import SeqNetConfig
from pslib.training.recipe import family_of
from pslib.training.recipes import RECIPES, make_recipe
from pslib.training.trainer import build_model, train

PAPERS = [name for name, recipe in RECIPES.items() if recipe.profile == "paper" and family_of(recipe) == "alignps"]


def conv(inputs, outputs, bias=False, size=3):
    return size * size * inputs * outputs + bias * outputs


def offsets(width, modulated):
    """What a deformable convolution adds to an ordinary one: a convolution to 18 offsets (and 9 masks)."""
    return conv(width, 27 if modulated else 18, bias=True)


def expected_parameters(name):
    """Counted by hand from Sec. III and IV-B: ResNet-50, AFA of 256 channels with P3 only, FCOS towers of four."""
    # Torchvision's ResNet-50 has 25,557,032 parameters, its classifier 2,049,000, its normalisations 53,120: constants.
    parts = {"backbone": 25_557_032 - 2_049_000 - 53_120}
    parts["neck"] = sum(conv(width, 256) + offsets(width, False) for width in (512, 1024, 2048, 768))
    tower = 4 * (conv(256, 256, bias=True) + 2 * 256)  # group normalisation has a factor and a shift a channel
    parts["head"] = 2 * tower + conv(256, 1 + 4 + 1, bias=True) + 1  # and the scale of one level
    if name.startswith("alignps-plus"):
        blocks = {128: 4, 256: 6, 512: 3}  # width of the 3x3 convolution: blocks of res3, res4, res5
        parts["backbone"] += sum(count * offsets(width, True) for width, count in blocks.items())
    if name.endswith("released"):
        parts["head"] += 2 * offsets(256, True) + 2  # P4 and P5, background in training, have scales of their own
        parts["neck"] += sum(conv(width, 256) + offsets(width, False) for width in (512, 256))
    return parts


def test_the_papers_recipes_are_these():
    assert PAPERS == ["alignps-paper", "alignps-plus-paper", "alignps-released", "alignps-plus-released"]


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_recipe_weighs_what_the_paper_s_network_does(name):
    with torch.device("meta"):
        model = AlignPS(_recipe(name).model, num_identities=5532)
    counted = {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in ("backbone", "neck", "head")}
    print(f"{name}: " + ", ".join(f"{part} {count:,}" for part, count in counted.items()))
    assert counted == expected_parameters(name)
    assert model.memory.table.shape == (5532, 256) and model.memory.queue.shape == (5000, 256)
    assert model.backbone.strides == (8, 16, 32) and model.backbone.channels == (512, 1024, 2048)


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_recipe_learns_a_step_and_finds_people(name, tmp_path):
    recipe = _recipe(name).with_(model__class_threshold=0.0)
    model, curves = train(recipe, fixed_set(tmp_path), seed=0, stop_after=1)
    assert all(np.isfinite(values).all() and len(values) == 1 for values in curves.losses.values())
    found = model(toy_batch()[0])[0]
    assert len(found["scores"]) > 0 and found["embeddings"].shape == (len(found["scores"]), 256)
    assert torch.allclose(found["embeddings"].norm(dim=1), torch.ones(len(found["scores"])), atol=1e-4)


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_recipe_takes_a_step_of_training_and_of_inference_at_its_own_sizes(name, tmp_path):
    recipe = RECIPES[name].with_(workers=0, schedule__batch_size=1, model=without_download(RECIPES[name].model))
    assert recipe.image_sizes == MULTI_SCALE and recipe.test_size == (1500, 900)
    scenes = fixed_set(tmp_path)
    scenes.frames = scenes.frames[1:2]  # two people
    model, curves = train(recipe, scenes, seed=0, stop_after=1)
    assert all(np.isfinite(values).all() and len(values) == 1 for values in curves.losses.values())
    found = embed_gallery(model, scenes, test_size=recipe.test_size)
    assert found.ground_truth.embeddings.shape == (2, 256)


@pytest.mark.parametrize("name", ["roi-alignps-paper", "nae-paper", "seqnet-paper"])
def test_the_models_with_an_roi_branch_learn_a_step_and_find_people(name, tmp_path):
    recipe = _recipe(name)
    model, curves = train(recipe, fixed_set(tmp_path), seed=0, stop_after=1)
    assert all(np.isfinite(values).all() and len(values) == 1 for values in curves.losses.values())
    assert ("mutual_information" in curves.losses) is (name == "roi-alignps-paper")
    assert model.roi.config.dim == 256 and model.rpn.anchor_generator.num_anchors_per_location() == [15]
    both = 512 if name == "roi-alignps-paper" else 256
    _, (embedded,) = model.detect_and_embed(toy_batch()[0][:1], [torch.tensor([[10.0, 5.0, 30.0, 50.0]])])
    assert embedded.shape == (1, both) and embedded.norm().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "lengths"), [("roi-alignps-paper", (24, 24)), ("nae-paper", (22, 22)), ("seqnet-paper", (20, 18))]
)
def test_the_schedule_of_an_roi_branch_is_that_of_each_set(name, lengths):
    sets = (("cuhk-sysu", 11_206, 5000), ("prw", 5_704, 500))
    for epochs, (kind, images, queue) in zip(lengths, sets, strict=True):
        recipe = make_recipe(name, kind)
        assert recipe.schedule.steps == epochs * images // 5 and recipe.model.roi.queue_size == queue
        assert recipe.schedule.milestones[0] == 16 / epochs and recipe.test_size == (1500, 900)


def test_seqnet_differs_from_nae_by_what_its_paper_and_code_say():
    """Both heads learn from every region, the first head's box counts tenfold, each head suppresses in its own way."""
    seqnet, nae = (make_recipe(name, "cuhk-sysu") for name in ("seqnet-paper", "nae-paper"))
    assert (seqnet.weights.first_box, seqnet.weights.roi_box, nae.weights.roi_box) == (10, 1, 10)
    ours, theirs = seqnet.model.roi, nae.model.roi
    assert (ours.negative_iou, ours.box_beta, ours.nms_threshold) == (None, 1, 0.5)
    assert (theirs.box_beta, theirs.detections_per_image) == (1, 300)
    assert replace(ours, negative_iou=0.1, nms_threshold=0.4) == theirs
    assert make_recipe("roi-alignps-paper", "cuhk-sysu").model.roi.box_beta == 0  # L1, unlike NAE, that it took it from
    assert seqnet.model.first_nms_threshold == 0.4
    same = [item.name for item in fields(nae.model) if item.name != "roi"]
    assert all(getattr(seqnet.model, name) == getattr(nae.model, name) for name in same)
    schedule = replace(seqnet.schedule, steps=nae.schedule.steps, milestones=nae.schedule.milestones)
    assert schedule == nae.schedule and seqnet.search_threshold == nae.search_threshold == 0
    tiny = make_recipe("seqnet", "cuhk-sysu")
    assert tiny.model == SeqNetConfig() and tiny.schedule == make_recipe("nae", "cuhk-sysu").schedule


def test_the_papers_schedule_is_that_of_each_set():
    for name in PAPERS:
        for kind, images in (("cuhk-sysu", 11_206), ("prw", 5_704)):
            recipe = make_recipe(name, kind)
            assert recipe.schedule.steps == 24 * images // recipe.schedule.batch_size
            assert recipe.schedule.milestones == (16 / 24, 22 / 24) and recipe.test_size == (1500, 900)
            assert recipe.image_sizes[0] == (667, 400) and recipe.image_sizes[-1] == (2000, 1200)
    paper, released = (make_recipe(name, "cuhk-sysu") for name in ("alignps-paper", "alignps-released"))
    assert (paper.schedule.weight_decay, paper.schedule.warmup_steps) == (5e-4, 300)
    assert (released.schedule.weight_decay, released.schedule.warmup_steps) == (1e-4, 500)
    assert released.schedule.clip_norm == 35 and released.model.mean_subtraction
    assert make_recipe("alignps-plus-released", "prw").schedule.weight_decay == 7e-4
    thresholds = [make_recipe(name, kind).search_threshold for name in PAPERS for kind in ("cuhk-sysu", "prw")]
    assert thresholds == [0, 0, 0, 0, 0.2, 0.15, 0.2, 0.15]  # detections that score less are left out, as released
    on_prw = make_recipe("alignps-released", "prw").model
    assert on_prw.triplet == "none" and on_prw.normalize_table and on_prw.queue_size == 500


def test_the_small_profile_doubles_what_depends_on_pixels():
    for tiny, small in zip(PROFILES["tiny"].cuhk_sizes, PROFILES["small"].cuhk_sizes, strict=True):
        assert small == (2 * tiny[0], 2 * tiny[1]) and not small[0] % 32 and not small[1] % 32
    for name, variant in VARIANTS.items():
        recipe = at_profile(variant, "small")
        assert recipe.model.size_cuts == tuple(2 * cut for cut in variant.model.size_cuts)
        assert recipe.image_sizes == tuple((2 * a, 2 * b) for a, b in variant.image_sizes)
        same = ("levels", "lateral", "output", "topdown", "structure", "triplet", "deformable_stages")
        assert all(getattr(recipe.model, key) == getattr(variant.model, key) for key in same), name
        assert recipe.schedule.steps * VARIANTS["alignps"].schedule.steps == (
            at_profile(VARIANTS["alignps"], "small").schedule.steps * variant.schedule.steps
        )
        assert recipe.warm_start == variant.warm_start and at_profile(variant, "tiny") == variant
    quarter = at_profile(VARIANTS["quarter-queue"], "small").model
    assert 4 * quarter.queue_channels == quarter.channels


@pytest.mark.parametrize("variant", ["alignps", "region-task", "t1", "res3-5"])
def test_a_small_recipe_learns_a_step_and_finds_people(variant):
    recipe = at_profile(VARIANTS[variant], "small").with_(
        warm_start="none", schedule__batch_size=2, model__class_threshold=0.0
    )
    model, curves = train(recipe, toy_split("train"), seed=0, stop_after=1)
    assert all(np.isfinite(values).all() for values in curves.losses.values())
    found = model(toy_batch()[0])[0]
    assert len(found["scores"]) > 0 and found["embeddings"].shape[1] == 128
    assert build_model(recipe, 6, 0).backbone.strides == (8, 16, 32)
