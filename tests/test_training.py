"""The arithmetic of training: rates, parameter groups, precision, divergence, and that it learns."""

import math

import numpy as np
import pytest
import torch
from toy_sets import toy_model, toy_recipe, toy_split

from pslib.errors import UserError
from pslib.training.recipe import Schedule
from pslib.training.schedule import build_optimizer, learning_rate_factor
from pslib.training.trainer import DivergedError, build_model, train


def test_parameter_groups_by_kind():
    model = toy_model(levels=("P3", "P4"))
    optimizer = build_optimizer(model, Schedule(learning_rate=1e-2, offset_rate=0.1, weight_decay=0.5))
    settings_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(settings_of) == sum(len(group["params"]) for group in optimizer.param_groups)
    assert settings_of.keys() == {id(p) for p in model.parameters()}
    offsets = 0
    for name, parameter in model.named_parameters():
        group, offset = settings_of[id(parameter)], "conv_offset" in name
        offsets += offset
        assert group["peak"] == group["lr"] == pytest.approx(1e-3 if offset else 1e-2)
        assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0.0)
    assert offsets == 2 * (3 + 2)  # weight and bias of three laterals and two outputs


def test_frozen_parameters_are_not_optimised_and_sgd_has_momentum():
    model = toy_model(backbone="resnet18", frozen_backbone=True)
    optimizer = build_optimizer(model, Schedule(optimizer="sgd"))
    optimised = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in model.parameters() if p.requires_grad} < {id(p) for p in model.parameters()}
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"] == 0.9


def test_one_cycle_rises_in_a_line_and_falls_in_a_cosine():
    schedule = Schedule(steps=110, warmup_steps=10)
    factors = [learning_rate_factor(step, schedule) for step in range(110)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10:] == pytest.approx([(1 + math.cos(math.pi * step / 100)) / 2 for step in range(100)])
    assert factors[60] == pytest.approx(0.5) and factors[-1] < 1e-3


def test_step_policy_divides_by_ten_at_its_milestones():
    schedule = Schedule(steps=240, warmup_steps=2, policy="steps")
    factors = [learning_rate_factor(step, schedule) for step in range(240)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2:160] == [1.0] * 158
    assert factors[160:220] == pytest.approx([0.1] * 60) and factors[220:] == pytest.approx([0.01] * 20)


def test_a_warm_up_longer_than_the_run_is_only_a_warm_up():
    assert learning_rate_factor(3, Schedule(steps=4, warmup_steps=10)) == 0.4
    assert learning_rate_factor(0, Schedule(steps=1, warmup_steps=0)) == 1.0


@pytest.mark.parametrize("change", [{"steps": 0}, {"batch_size": 0}, {"optimizer": "adam"}, {"policy": "cosine"},
                                    {"precision": "half"}])  # fmt: skip
def test_a_schedule_that_makes_no_sense_is_refused(change):
    with pytest.raises(UserError):
        Schedule(**change)


def test_building_a_model_follows_the_seed_and_leaves_global_chance_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (build_model(toy_recipe(), 6, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    states = [torch.cat([p.flatten() for p in model.parameters()]) for model in (first, second, other)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_thirty_steps_teach_something():
    recipe = toy_recipe(schedule__steps=30, schedule__learning_rate=4e-3, schedule__warmup_steps=3)
    model, curves = train(recipe, toy_split("train"), seed=0)
    assert not model.training and set(curves.losses) == {"classification", "box", "centerness", "oim", "triplet"}
    early = {name: np.mean(values[:5]) for name, values in curves.losses.items()}
    late = {name: np.mean(values[-5:]) for name, values in curves.losses.items()}
    assert all(len(values) == 30 for values in curves.losses.values()) and curves.seconds > 0
    assert late["classification"] < 0.75 * early["classification"]
    assert late["box"] < 0.75 * early["box"] and late["oim"] < 0.8 * early["oim"]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains(precision):
    _, curves = train(toy_recipe(schedule__precision=precision, schedule__steps=3), toy_split("train"), seed=0)
    full = train(toy_recipe(schedule__steps=3), toy_split("train"), seed=0)[1]
    assert all(np.isfinite(values).all() for values in curves.losses.values())
    assert curves.losses["classification"][0] == pytest.approx(full.losses["classification"][0], rel=0.05)
    assert curves.losses != full.losses


def test_loss_weights_and_gradient_clipping_reach_the_step():
    still = toy_recipe(schedule__steps=1, schedule__clip_norm=1e-9, schedule__weight_decay=0.0)
    still = still.with_(schedule__optimizer="sgd")
    model, _ = train(still, toy_split("train"), seed=0)
    start = build_model(still, 6, 0)
    assert all(torch.allclose(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
    free = still.with_(schedule__clip_norm=1e9)
    detection = free.with_(weights__oim=0.0, weights__triplet=0.0)
    moved = [train(recipe, toy_split("train"), seed=0)[0].neck.output["P3"].weight for recipe in (free, detection)]
    assert not torch.equal(moved[0], moved[1])


def test_a_diverging_run_says_so_and_keeps_its_curve():
    recipe = toy_recipe(schedule__learning_rate=1e12, schedule__warmup_steps=0, schedule__clip_norm=1e30)
    with pytest.raises(DivergedError, match="schedule.learning_rate") as error:
        train(recipe, toy_split("train"), seed=0, run="abc-s0")
    assert "run abc-s0" in str(error.value)
    assert 1 <= len(error.value.curves.losses["oim"]) <= 6
