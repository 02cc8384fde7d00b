"""An experiment of two short runs on the toy set, for tests of ``pslib reproduce`` in processes of their own."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from toy_sets import toy_recipe, write_toy_set

from pslib.experiments.catalogue import EXPERIMENTS
from pslib.experiments.registry import Claim, Experiment
from pslib.training.trainer import train

RUN = toy_recipe(name="toy", schedule__steps=10, model__class_threshold=0.0)
VARIANTS = {
    "toy": RUN,
    "toy-concat": RUN.with_(name="toy-concat", model__topdown="sum"),
    # Weights of 1e12 are finite, what they compute is not.
    "toy-wild": RUN.with_(name="toy-wild", schedule__learning_rate=1e12, schedule__warmup_steps=0,
                          schedule__clip_norm=1e30),
}  # fmt: skip
TOY = Experiment(
    name="toy",
    title="two short runs",
    source="tests",
    rows={"first": "toy", "second": "toy-concat"},
    claims=(Claim("first > second", "The first is better.", {"first": 1, "second": -1}),),
    kinds=("cuhk-sysu",),
    variants=VARIANTS,
)
WITH_FAILURE = replace(TOY, name="toy-wild", rows={"first": "toy", "wild": "toy-wild", "second": "toy-concat"})


def install() -> None:
    """Make the toy experiments known to this process, its checkpoints frequent."""
    EXPERIMENTS.update({TOY.name: TOY, WITH_FAILURE.name: WITH_FAILURE})
    train.__kwdefaults__["checkpoint_every"] = 2


def make_root(folder: Path) -> Path:
    """A root for ``PSLIB_ROOT`` whose drawn set is the toy set."""
    drawn = folder / "data" / "synthetic" / "tiny"
    for name, seed in (("cuhk-sysu", 0), ("cuhk-sysu-val", 1)):
        write_toy_set(drawn / name, seed)
        (drawn / name / "manifest.json").write_text('{"fingerprint": "toy"}')
    return folder


def pslib(root: Path, log: Path, *arguments: str) -> None:
    """Run one command in this process, for use as a process's target; its exit code becomes the process's."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.environ |= {"PSLIB_ROOT": str(root), "PSLIB_PLAIN": "1"}
    install()
    from pslib.cli import main

    sys.exit(main(arguments))
