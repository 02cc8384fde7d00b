"""The grid of re-id weights: read from records and trials of exactly that recipe, seed and set."""

import pytest

from pslib.experiments import tuning
from pslib.experiments.lookup import find_recipe, known_fingerprint, records_of
from pslib.experiments.trials import add_trial, read_trials
from pslib.experiments.tuning import REID_WEIGHTS, could_gain, tried_weights
from pslib.training.recipe import recipe_hash

NAMED = {"recipe": "t1", "settings": {}, "set": "cuhk-sysu"}


def test_records_and_trials_of_that_weight_seed_and_set(tmp_path, monkeypatch):
    recipe = find_recipe("t1", "cuhk-sysu")
    fingerprint = known_fingerprint("cuhk-sysu", "tiny")
    other = tmp_path / "trials.json"
    monkeypatch.setattr(tuning, "read_trials", lambda: read_trials(other))

    def trial(weight, value, seed=0, **changes):
        tried = recipe.with_(weights__oim=weight, weights__triplet=weight, **changes)
        points = [{"step": 135, "map": 1.0}, {"step": 1080, "map": value}]
        add_trial({**NAMED, "hash": recipe_hash(tried, fingerprint), "seed": seed, "validation": points}, other)

    assert tried_weights("t1")[0.1] is None
    trial(0.1, 31.5)
    trial(0.4, 99.0, seed=1)
    trial(0.4, 98.0, schedule__steps=360)
    add_trial({**NAMED, "seed": 0, "validation": []}, other)  # as the oldest are: without a hash
    found = tried_weights("t1")
    (record,) = [one for one in records_of(recipe) if one.info["seed"] == 0]
    assert found == {0.1: 31.5, 0.2: pytest.approx(record.info["validation"][-1]["map"], abs=0.005), 0.4: None}
    assert could_gain(found, 0.2) is None
    trial(0.4, 40.0)
    assert could_gain(tried_weights("t1"), 0.2) == pytest.approx(max(0.0, 40.0 - found[0.2]), abs=0.01)


def test_a_profile_without_data_has_nothing():
    assert set(tried_weights("t1", profile="small").values()) == {None}


@pytest.mark.parametrize("variant", ["alignps", "baseline", "t1", "t2", "scale-region"])
def test_every_structure_was_tried_with_every_weight(variant):
    """The design's equal tuning: one small grid, all of it, for AlignPS and for each rival of Table III and Fig. 6."""
    assert None not in tried_weights(variant).values() and set(tried_weights(variant)) == set(REID_WEIGHTS)
