"""The larger profile, whole: rows of every table go from recipe to record on toy scenes."""

import numpy as np
import pytest
from toy_sets import toy_data

from pslib.experiments.lookup import at_profile, find_recipe
from pslib.experiments.records import read_record
from pslib.experiments.run import run
from pslib.training.recipe import Recipe

STEPS = 2
ROWS = (
    "baseline", "alignps-long", "task", "p3-multiscale", "lateral-output", "t1", "t2-identity", "oim", "res3-5",
    "quarter-queue", "roi-separate", "roi-star", "roi-mi+kl+dv", "e2e-ps", "jdi-ps", "vgg-bare-0.3", "nae", "seqnet",
)  # fmt: skip


@pytest.fixture(scope="module")
def scenes():
    return toy_data()


def shortened(recipe: Recipe) -> Recipe:
    """``recipe`` and all that it starts from, a few steps each."""
    start = recipe.start and shortened(recipe.start)
    return recipe.with_(start=start, schedule__steps=STEPS, schedule__batch_size=2, warm_start="none")


@pytest.mark.parametrize("name", ROWS)
def test_a_row_goes_from_recipe_to_record(name, scenes, tmp_path):
    tiny = find_recipe(name, "cuhk-sysu")
    recipe = at_profile(tiny, "small")
    assert recipe.schedule.steps == 3 * tiny.schedule.steps and recipe.workers == 2
    assert recipe.schedule.learning_rate == tiny.schedule.learning_rate
    short = shortened(recipe)
    record = read_record(run(short, 0, scenes, records=tmp_path / "r", work=tmp_path / "w", inside=True))
    assert record.recipe == short and record.info["status"] == "finished" and record.recipe.profile == "small"
    losses = {part: values for part, values in record.arrays.items() if part.startswith("loss/")}
    assert losses and all(values.shape == (STEPS,) and np.isfinite(values).all() for values in losses.values())
    assert record.info["validation"][-1]["step"] == STEPS
    for protocol in record.info["protocols"]:
        found = record.info["results"]["ground_truth"][protocol]["map"]
        assert found == pytest.approx(100 * record.ap(protocol, "ground-truth").mean(), abs=1e-3)
    width = 256 if name in ("roi-separate", "roi-mi+kl+dv") else 128  # both branches side by side, or one
    assert record.arrays["pictured/embeddings"].shape[1] == width
