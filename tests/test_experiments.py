"""Experiments: rows that build and train, one hash for one run, claims about rows that exist."""

import pytest
import torch
from toy_sets import toy_batch

from pslib.errors import UserError
from pslib.experiments.catalogue import EXPERIMENTS, VARIANTS
from pslib.experiments.lookup import PROFILE_CHANGES, at_profile, find_experiment
from pslib.experiments.registry import KINDS, Claim, Experiment
from pslib.experiments.reproduce import jobs_of, kinds_of
from pslib.losses.oim import OIMMemory
from pslib.models.two_stage import TwoStage
from pslib.training.recipe import family_of, recipe_hash
from pslib.training.trainer import build_model


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_builds_a_model_that_takes_a_training_step(name):
    recipe = VARIANTS[name].with_(warm_start="none")
    model = build_model(recipe, num_identities=6, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = model.train()(*toy_batch())
    total = sum(getattr(recipe.weights, part) * value for part, value in losses.items())
    total.backward()
    optimizer.step()
    model.update_memory()
    assert total.isfinite() and all(parameter.isfinite().all() for parameter in model.parameters())
    if family_of(recipe) == "two-stage" and recipe.model.identity_loss == "rss":
        assert model.centers.seen.any()
    memories = [part for part in model.modules() if isinstance(part, OIMMemory)]
    if family_of(recipe) == "roi-alignps" and not recipe.model.dense_reid:
        memories = [model.roi.memory]  # the dense branch only detects
    assert all((memory.table.norm(dim=1) > 0).any() for memory in memories)  # the people seen have left their rows


@pytest.mark.parametrize("profile", PROFILE_CHANGES)
def test_no_two_variants_are_the_same_run(profile):
    names = {}
    for name, recipe in VARIANTS.items():
        assert recipe.name == name
        names.setdefault(recipe_hash(at_profile(recipe, profile), "f"), []).append(name)
    assert all(len(group) == 1 for group in names.values()), [group for group in names.values() if len(group) > 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("alignps-fig6", "scale+region"), ("alignps-table3", "T3")),
        (("alignps-fig6", "region+task"), ("alignps-table1", "P3, P4, P5")),
        (("alignps-table2", "all"), ("alignps-table4", "TOIM w/ LUT")),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_cells_that_tables_share_are_one_run(one, other, kind):
    first, second = (recipe_hash(EXPERIMENTS[name].recipe(label, kind), "f") for name, label in (one, other))
    assert first == second


@pytest.mark.parametrize("name", ["alignps-fig6", *(f"alignps-table{number}" for number in range(1, 8))])
def test_every_row_of_a_table_of_alignps_stands_in_a_claim(name):
    assert set(EXPERIMENTS[name].rows) == {row for claim in EXPERIMENTS[name].claims for row in claim.contrast}


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_an_experiment_holds_together(experiment):
    assert experiment.name in EXPERIMENTS and experiment.title and experiment.source and experiment.rows
    assert len({claim.name for claim in experiment.claims}) == len(experiment.claims)
    for claim in experiment.claims:
        assert set(claim.contrast) <= set(experiment.rows) and any(claim.contrast.values())
        assert claim.margin > 0 and claim.text.endswith(".")
    jobs = jobs_of(experiment, "tiny", kinds_of(experiment, "both"), 2)
    folds = experiment.recipe(next(iter(experiment.rows)), experiment.kinds[0]).folds
    assert len(jobs) == (folds or 2) * len(experiment.rows) * len(experiment.kinds)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    for job in jobs:
        assert job.recipe.profile == "tiny" and job.recipe.kind in experiment.kinds
        assert job.label in experiment.rows and job.name == f"{job.recipe.kind} {job.label}, seed {job.seed}"


def test_every_variant_stands_in_a_table():
    rows = {row for experiment in EXPERIMENTS.values() for row in experiment.rows.values()}
    assert set(VARIANTS) == {row.partition("@")[0] for row in rows}


def test_a_larger_profile_changes_the_model_and_the_sizes():
    small = at_profile(VARIANTS["p3-multiscale"], "small")
    assert small.profile == "small" and small.model.backbone == "resnet18"
    assert small.image_sizes[0] == tuple(2 * side for side in VARIANTS["p3-multiscale"].image_sizes[0])
    assert at_profile(VARIANTS["alignps"], "tiny") == VARIANTS["alignps"]
    samples = {name: at_profile(VARIANTS[name], "small").model.rss_samples for name in ("e2e-ps-long", "softmax-long")}
    assert samples["e2e-ps-long"] == 256 and samples["softmax-long"] is None  # a full softmax stays one


def test_mistakes_name_what_is_near():
    with pytest.raises(UserError, match="nearest: alignps-table2"):
        find_experiment("alignps-tabel2")
    with pytest.raises(UserError, match="nearest: tiny"):
        jobs_of(EXPERIMENTS["alignps-fig6"], "tyni", KINDS, 1)
    with pytest.raises(UserError, match="nearest: prw"):
        kinds_of(EXPERIMENTS["alignps-fig6"], "pwr")
    with pytest.raises(UserError, match="at least 1"):
        jobs_of(EXPERIMENTS["alignps-fig6"], "tiny", KINDS, 0)
    with pytest.raises(UserError, match="'oim2' is unknown"):
        Experiment("e", "t", "s", {"a": "oim2"}, (), variants=VARIANTS)
    with pytest.raises(UserError, match="'b' is unknown"):
        Experiment("e", "t", "s", {"a": "oim"}, (Claim("c", "t", {"a": 1, "b": -1}),), variants=VARIANTS)
    with pytest.raises(UserError, match="nearest: map"):
        Claim("c", "t", {"a": 1}, measure="mapp")


def test_every_two_stage_chain_builds_at_the_small_profile():
    models = set()
    for variant in VARIANTS.values():
        recipe = at_profile(variant, "small") if family_of(variant) == "two-stage" else None
        while recipe is not None:
            assert recipe.profile == "small"
            if recipe.start is not None and recipe.start.stage == "scenes":
                assert recipe.schedule.first_step == recipe.start.schedule.first_step + recipe.start.schedule.steps
            models.add(recipe.model)
            recipe = recipe.start
    assert {model.backbone for model in models} == {"resnet18", "resnet34", "vgg11"}
    for model in {model.backbone: model for model in models}.values():
        TwoStage(model, 3)
