"""Every number among a model's switches reaches what it is for: of two models that differ in it alone, that differs."""

from dataclasses import replace

import pytest
import torch
from toy_sets import SMALL, toy_batch, toy_recipe

from pslib.models.nae import NAEConfig
from pslib.models.roi_branch import RoiBranchConfig
from pslib.models.two_stage import TwoStageConfig
from pslib.training.trainer import build_model

ALIGNPS = replace(SMALL, class_threshold=0.0)
JDI_PS = TwoStageConfig(identity_loss="oim", embedding_dim=16, rois_per_image=6, queue_size=8, score_threshold=0.0)
BRANCH = RoiBranchConfig(dim=16, queue_size=8, score_threshold=0.0)


def seen_of(config):
    """Losses of two training steps, what is remembered after them, and what is found in evaluation, by name."""
    torch.manual_seed(0)
    model = build_model(toy_recipe(model=config), 6, 0).train()
    seen = {}
    for turn in range(2):
        losses = model(*toy_batch(seed=turn))
        model.update_memory()
        seen |= {f"{name} {turn}": value.detach() for name, value in losses.items()}
    seen |= {"memory": torch.cat([v.float().flatten() for k, v in model.state_dict().items() if is_memory(k)])}
    found = model.eval()(toy_batch()[0])
    return seen | {"found": torch.cat([torch.cat([one["boxes"].flatten(), one["scores"]]) for one in found]).detach()}


def is_memory(name):
    return name.endswith(("memory.table", "memory.queue"))


def changed(one, other):
    """Names of what differs between two of :func:`seen_of`."""
    same = {name for name in one if one[name].shape == other[name].shape and torch.equal(one[name], other[name])}
    return set(one) - same


@pytest.mark.parametrize("switch, changes", [
    ({"focal_gamma": 1.0}, {"oim 0", "oim 1"}),
    ({"temperature": 0.2}, {"oim 1"}),  # table and queue are empty before
    ({"queue_temperature": 0.3}, {"oim 1"}),
    ({"oim_momentum": 0.9}, {"memory"}),
    ({"queue_size": 2}, {"memory"}),
    ({"triplet_margin": 0.9}, {"triplet 0", "triplet 1"}),
    ({"center_radius": 0.6}, {"classification 0", "classification 1"}),
    ({"class_threshold": 0.0101}, {"found"}),
    ({"nms_threshold": 0.1}, {"found"}),
    ({"detections_per_image": 3}, {"found"}),
])  # fmt: skip
def test_a_switch_of_alignps_changes_what_it_is_for(switch, changes):
    assert changes <= changed(seen_of(ALIGNPS), seen_of(replace(ALIGNPS, **switch)))


@pytest.mark.parametrize("switch, changes", [
    ({"temperature": 0.2}, {"oim 1"}),
    ({"oim_momentum": 0.9}, {"memory"}),
    ({"queue_size": 2}, {"memory"}),
    ({"positive_iou": 0.95}, {"person 0", "person 1"}),
    ({"score_threshold": 0.6}, {"found"}),
    ({"nms_threshold": 0.05}, {"found"}),
    ({"detections_per_image": 3}, {"found"}),
])  # fmt: skip
@pytest.mark.parametrize("family", ["two-stage", "norm-aware"])
def test_a_switch_of_a_two_stage_model_changes_what_it_is_for(family, switch, changes):
    if family == "two-stage":
        one, other = JDI_PS, replace(JDI_PS, **switch)
    else:
        one, other = (NAEConfig(roi=roi) for roi in (BRANCH, replace(BRANCH, **switch)))
        changes = {name.replace("person", "roi_class").replace("oim", "roi_oim") for name in changes}
    assert changes <= changed(seen_of(one), seen_of(other))


def test_what_no_switch_changes_is_the_same_twice():
    """The comparison itself can tell: one and the same configuration shows no difference."""
    for config in (ALIGNPS, JDI_PS, NAEConfig(roi=BRANCH)):
        assert changed(seen_of(config), seen_of(config)) == set()
