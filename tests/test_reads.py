"""Models with several embeddings of a person: one run, one record, a read for each, and rows that name the read."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_sets import toy_data, toy_model, toy_recipe

from pslib.errors import UserError
from pslib.evaluation.gallery import embed_gallery
from pslib.experiments import rows
from pslib.experiments.measures import values_of
from pslib.experiments.records import read_record, write_record
from pslib.experiments.registry import Claim, Experiment
from pslib.experiments.run import evaluate_test, measure


class TwoReads:
    """AlignPS read two ways: as it is, and with everybody's embedding the same."""

    def __init__(self, model, read="whole"):
        self.model, self.config, self.reads = model, SimpleNamespace(read=read), ("whole", "blind")

    def reading(self, read):
        return TwoReads(self.model, read)

    def detect_and_embed(self, images, boxes):
        found, given = self.model.detect_and_embed(images, boxes)
        if self.config.read == "blind":
            found = [item | {"embeddings": torch.ones_like(item["embeddings"])} for item in found]
            given = [torch.ones_like(rows) for rows in given]
        return found, given


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    model, data = toy_model(class_threshold=0.0).eval(), toy_data().test
    scalars, arrays = evaluate_test(TwoReads(model), toy_recipe(), data)
    info = {"results": scalars, "protocols": list(data.protocols), "status": "finished"}
    info |= {"recipe": asdict(toy_recipe()), "hash": "h", "seed": 0, "data": {"fingerprint": "f"}}
    path = write_record(tmp_path_factory.mktemp("reads") / "one", info, arrays)
    return model, data, read_record(path)


def test_each_read_is_what_its_own_evaluation_would_be(both):
    model, data, record = both
    for read in ("whole", "blind"):
        scalars, arrays = measure(data, embed_gallery(TwoReads(model, read), data))
        found = record.reading(read)
        assert all(np.array_equal(found.arrays[name], values) for name, values in arrays.items())
        assert found.info["results"]["search"] == scalars["search"]
        assert not any(":" in name for name in found.arrays) or read == "whole"
    assert record.reading("") is record and record.reading("whole") is record
    blind = record.reading("blind")
    assert not np.array_equal(record.ap("TestG50", "ground-truth"), blind.ap("TestG50", "ground-truth"))
    values, _ = values_of(blind, "ground-truth map")
    assert values.mean() == pytest.approx(blind.info["results"]["ground_truth"]["TestG100"]["map"], abs=1e-3)


def test_a_read_that_was_not_recorded_is_named(both):
    with pytest.raises(UserError, match="does not read 'dense': it holds blind"):
        both[2].reading("dense")


def test_rows_that_name_reads_share_a_run():
    recipe = toy_recipe()
    experiment = Experiment(
        name="reads",
        title="two reads",
        source="tests",
        rows={"one": "toy", "other": "toy@blind"},
        claims=(Claim("one > other", "The first is better.", {"one": 1, "other": -1}),),
        variants={"toy": recipe},
    )
    assert experiment.recipe("one", "prw") == experiment.recipe("other", "prw") == recipe.with_(kind="prw")
    assert (experiment.read("one"), experiment.read("other")) == ("", "blind")
    with pytest.raises(UserError, match="'tony@blind' is unknown"):
        Experiment("x", "x", "x", {"one": "tony@blind"}, (), variants={"toy": recipe})


def test_every_read_of_a_table_is_looked_up_once(monkeypatch):
    recipe = toy_recipe()
    variants = {"toy": recipe, "folded": recipe.with_(folds=3)}
    tables = {
        "one": Experiment("one", "t", "s", {"a": "toy", "b": "toy@blind", "c": "folded"}, (), variants=variants),
        "two": Experiment("two", "t", "s", {"d": "toy"}, (), variants=variants),
        "other set": Experiment("other", "t", "s", {"e": "toy@far"}, (), kinds=("prw",), variants=variants),
    }
    monkeypatch.setattr(rows, "EXPERIMENTS", tables)
    monkeypatch.setattr(rows, "VARIANTS", variants)
    monkeypatch.setattr(rows, "runs_of", lambda wanted, read: [(wanted.kind, wanted.profile, read)])
    assert rows.recorded_variants("cuhk-sysu", "small") == {
        "toy": [("cuhk-sysu", "small", "")],
        "toy@blind": [("cuhk-sysu", "small", "blind")],
    }
    assert list(rows.recorded_variants("prw")) == ["toy", "toy@blind", "toy@far"]
