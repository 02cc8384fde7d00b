"""Records are only as good as the code that made them: the first steps of every committed recipe are replayed."""

import json

import pytest
import replay
from replay import REPLAYED, first_losses, moved, replay_file

from pslib.training.recipe import COMPONENT_VERSIONS

HINT = "run `python tests/replay.py`"


def test_the_stored_replay_is_of_todays_components_and_recipes():
    stored = json.loads(replay_file().read_text())
    assert stored["components"] == COMPONENT_VERSIONS, f"a component's number was raised: {HINT}"
    assert set(stored["losses"]) == set(REPLAYED), f"the recipes are others: {HINT}"


@pytest.mark.parametrize("name", REPLAYED)
def test_the_first_steps_of_a_recipe_have_not_moved(name):
    stored = json.loads(replay_file().read_text())["losses"][name]
    found = moved(stored, first_losses(name))
    assert not found, f"{found}: raise the changed part's number in COMPONENT_VERSIONS, then {HINT}"


def test_a_changed_loss_is_seen(monkeypatch):
    import pslib.models.alignps as module

    monkeypatch.setattr(replay, "STEPS", 1)
    before = first_losses("alignps")
    assert not moved(before, first_losses("alignps"))
    plain = module.oim_loss
    monkeypatch.setattr(module, "oim_loss", lambda *a, **k: plain(*a, **{**k, "focal_gamma": 0.0}))
    found = moved(before, first_losses("alignps"))
    assert len(found) == 1 and found[0].startswith("oim")
    assert moved({"oim": [1.0]}, {"oim": [1.0], "centre": [0.0]}) == ["centre is new"]
    assert len(moved({"oim": [1.0], "box": [2.0]}, {"oim": [1.0]})) == 1
