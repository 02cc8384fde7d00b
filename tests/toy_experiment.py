"""Experiments of short runs on the toy set, for tests of ``pslib reproduce`` in processes of their own."""

import os
import sys
from dataclasses import replace
from pathlib import Path

from toy_sets import toy_recipe, write_toy_set

from pslib import paths
from pslib.experiments.catalogue import EXPERIMENTS
from pslib.experiments.registry import Claim, Experiment
from pslib.training.trainer import train

WEIGHTS = paths.weights_dir()  # before a test names another root
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
WITH_FAILURE = replace(
    TOY,
    name="toy-wild",
    rows={"first": "toy", "wild": "toy-wild", "second": "toy-concat"},
    claims=(*TOY.claims, Claim("first > wild", "The first is better.", {"first": 1, "wild": -1})),
)


def _few_steps(experiment: Experiment, rows: tuple[str, ...], steps: int) -> Experiment:
    """``experiment`` under its own name, with its own recipes of some of its rows but for the number of steps."""
    chosen = {label: experiment.rows[label] for label in rows}
    variants = {name: experiment.variants[name].with_(schedule__steps=steps) for name in chosen.values()}
    return replace(experiment, rows=chosen, claims=(), kinds=("cuhk-sysu",), variants=variants)


TABLE2 = _few_steps(EXPERIMENTS["alignps-table2"], ("none", "all"), steps=8)


def install() -> None:
    """Make these experiments known to this process, its checkpoints frequent."""
    EXPERIMENTS.update({experiment.name: experiment for experiment in (TOY, WITH_FAILURE, TABLE2)})
    train.__kwdefaults__["checkpoint_every"] = 2


def make_root(folder: Path) -> Path:
    """A root for ``PSLIB_ROOT`` whose drawn set is the toy set, with the checkout's weights."""
    weights = folder / "data" / "weights"
    weights.parent.mkdir(parents=True)
    weights.symlink_to(WEIGHTS, target_is_directory=True)
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
