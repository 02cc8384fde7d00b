"""The command ``pslib``: thin handles on functions that do the work, imported only when they are called.

A mistake the user can mend ends in one sentence on standard error and exit code 2; Ctrl-C ends with 130.
"""

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pslib.errors import UserError, mendable, require_choice

__all__ = ["build_parser", "entry", "main"]

PROFILES = ("tiny", "small", "paper")
KINDS = ("cuhk-sysu", "prw")
LARGEST_SEED = 10**9


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 found something wrong, 2 a mistake, 130 interrupted.

    >>> main(["notebooks", "lint", "no-such-folder"])
    2
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file's name may hold bytes that are no text: to be told all the same
            stream.reconfigure(errors="replace")
    try:
        options = build_parser().parse_args(arguments)
        return int(options.run(options) or 0)
    except UserError as error:
        print(f"pslib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pslib: interrupted; what is finished is kept: run the same command again.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (`pslib records | head`) has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A full disk or a folder without permission is the user's to mend, wherever it shows; the rest are defects.
        if (told := mendable(error)) is None:
            raise
        print(f"pslib: {told}, then run the command again.", file=sys.stderr)
        return 2


def entry() -> None:
    """The console script."""
    sys.exit(main())


class _Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one sentence, like all others."""

    def error(self, message: str):
        raise UserError(f"{message.rstrip('.')}: see `{self.prog} --help`.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A value or command that does not exist gets the nearest that does."""
        if action.choices is not None:
            name = (action.option_strings or [(action.metavar or action.dest).lower()])[0]
            require_choice(name, value, action.choices)


def _seed(text: str) -> int:
    """A seed: whatever it is multiplied by has to fit into 64 bits."""
    try:
        value = int(text)
    except ValueError:
        raise UserError(f"--seed {text} is no whole number: give one, e.g. 0.") from None
    if abs(value) > LARGEST_SEED:
        raise UserError(f"--seed {value} is too large: give one from {-LARGEST_SEED} to {LARGEST_SEED}.")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; each sets ``run``, a function of the parsed options."""
    parser = _Parser(prog="pslib", description="Person search as one executable text: AlignPS and IAN, rebuilt.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="check versions, device, memory, disk, data, records, browser")
    doctor.set_defaults(run=_doctor)

    _add_data(commands)
    _add_training(commands)

    _add_experiments(commands)

    bench = commands.add_parser("bench", help="measure the speed ratios that README names")
    bench.add_argument("what", nargs="?", default="all",
                       choices=("deform-conv", "evaluator", "browser", "scene", "center-loss", "cost", "all"))
    cost = bench.add_argument_group("cost", "what an image costs each model (AlignPS, Table IX); not part of all")
    cost.add_argument("--size", default="1500x900", metavar="WxH", help="px of the image (default: 1500x900)")
    cost.add_argument("--boxes", type=int, nargs="+", default=[6, 100, 20], metavar="N",
                      help="people found; models as built take part at the last (default: 6 100 20)")
    cost.add_argument("--repeats", type=int, default=3, help="turns of every model (default: 3)")
    cost.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    cost.add_argument("--precision", default="float32", help="float32, bfloat16 or float16 (default: float32)")
    cost.add_argument("--models", nargs="+", default=None, metavar="NAME", help="as Table IX names them (default: all)")
    cost.add_argument("--out", type=Path, default=None, help="write the record here, e.g. data/results/cost/cpu.json")
    bench.set_defaults(run=_bench)

    _add_search(commands)
    _add_notebooks(commands)
    return parser


def _add_data(commands) -> None:
    data = commands.add_parser("data", help="draw the synthetic sets, count them, measure how hard they are")
    parts = data.add_subparsers(dest="part", required=True, metavar="PART")

    make = parts.add_parser("make", help="draw the synthetic sets in the layouts of CUHK-SYSU and PRW")
    make.add_argument("--profile", default="tiny", help="tiny, small or paper-layout (default: tiny)")
    make.add_argument("--out", type=Path, default=None, help="folder to write to (default: data/synthetic)")
    make.add_argument("--workers", type=int, default=None, help="processes that draw (default: one per core)")
    make.add_argument("--only", nargs="+", default=None, metavar="SET", help="only these sets, e.g. prw prw-val")
    make.add_argument("--odd-corners", action="store_true", help="plant the real sets' known oddities")
    make.set_defaults(run=_later("pslib.data.commands", "make"))

    describe = parts.add_parser("describe", help="count a set, real or synthetic, beside the published counts")
    describe.add_argument("--kind", default="cuhk-sysu", help="cuhk-sysu or prw")
    describe.add_argument("--data-root", type=Path, default=None, help="the set's folder (default: the synthetic one)")
    _add_bad_boxes(describe)
    describe.add_argument("--profile", default="tiny", help="which synthetic set, without --data-root")
    describe.set_defaults(run=_later("pslib.data.commands", "describe"))

    difficulty = parts.add_parser("difficulty", help="mAP of embeddings that learn nothing, ground-truth boxes")
    difficulty.add_argument("--profile", default="tiny")
    difficulty.add_argument("--data-root", type=Path, default=None, help="folder with cuhk-sysu-val and prw-val")
    difficulty.add_argument("--split", default="validation", choices=("validation", "test"),
                            help="whose people: the bands are read on validation (default)")
    difficulty.set_defaults(run=_later("pslib.evaluation.model_free", "difficulty"))


def _add_bad_boxes(parser) -> None:
    parser.add_argument("--bad-boxes", default="raise", choices=("raise", "drop"),
                        help="a box without area in its image: raise stops, drop leaves it out (default: raise)")


def _add_training(commands) -> None:
    train = commands.add_parser("train", help="train one recipe, evaluate it, write its record")
    train.add_argument("recipe", help="a recipe's name (alignps, baseline ...), or that of a table's variant (p4 ...)")
    train.add_argument("--profile", default=None, choices=PROFILES, help="default: the recipe's own")
    train.add_argument("--kind", default="cuhk-sysu", choices=KINDS, help="which of the two sets (default: cuhk-sysu)")
    train.add_argument("--data-root", type=Path, default=None, help="the set's folder (default: the synthetic one)")
    _add_bad_boxes(train)
    train.add_argument("--seed", type=_seed, default=0)
    train.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE",
                       help="override one recipe field; may be repeated")
    train.add_argument("--out", type=Path, default=None, help="folder of the run (default: build/runs)")
    train.add_argument("--record", action="store_true",
                       help="write the record to data/results; seed 0's weights, of a recipe as it is, to data/weights")
    train.set_defaults(run=_later("pslib.experiments.commands", "train"))

    trial = commands.add_parser("trial", help="train a recipe, measure it on validation people, note it in data")
    trial.add_argument("recipe", help="a recipe's name, or that of a table's variant")
    trial.add_argument("--kind", default="cuhk-sysu", choices=KINDS, help="which of the two sets (default: cuhk-sysu)")
    trial.add_argument("--data-root", type=Path, default=None, help="the set's folder (default: the synthetic one)")
    _add_bad_boxes(trial)
    trial.add_argument("--seed", type=_seed, default=0)
    trial.add_argument("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE",
                       help="the setting tried; may be repeated")
    trial.add_argument("--note", default="", help="why it is tried")
    trial.set_defaults(run=_later("pslib.experiments.trials", "trial"))

    evaluate = commands.add_parser("evaluate", help="evaluate a checkpoint: detection, re-id, search")
    evaluate.add_argument("checkpoint", type=Path, help="a .safetensors file of pslib train")
    evaluate.add_argument("--kind", default="cuhk-sysu", choices=KINDS)
    evaluate.add_argument("--profile", default="tiny", choices=PROFILES)
    evaluate.add_argument("--data-root", type=Path, default=None)
    _add_bad_boxes(evaluate)
    evaluate.add_argument("--split", default="test", choices=("test", "validation"))
    evaluate.add_argument("--cbgm", action="store_true",
                          help="re-rank by the people beside the query, as SeqNet does, with its settings for the set")
    evaluate.add_argument("--out", type=Path, default=None, help="write the results here as JSON")
    evaluate.set_defaults(run=_later("pslib.experiments.commands", "evaluate"))

    warm = commands.add_parser("warm-start", help="make a warm start of a backbone")
    warm.add_argument("--backbone", default="tiny", help="tiny, resnet18, resnet50 or resnet101 (default: tiny)")
    warm.add_argument("--kind", default="neutral", help="what it learns from: neutral or identity (default: neutral)")
    warm.set_defaults(run=_later("pslib.experiments.commands", "warm_start"))


def _add_experiments(commands) -> None:
    reproduce = commands.add_parser("reproduce", help="compute a table or figure of a paper: what is not recorded yet")
    reproduce.add_argument("experiment", help="its name: alignps-fig6, alignps-table1 ...")
    reproduce.add_argument("--profile", default="tiny", help="tiny or small (default: tiny)")
    reproduce.add_argument("--kind", default="both", help="cuhk-sysu, prw or both (default: both)")
    reproduce.add_argument("--seeds", type=int, default=3, help="seeds 0 to N-1 (default: 3)")
    reproduce.add_argument("--workers", type=int, default=1, help="processes that share the work (default: 1)")
    reproduce.add_argument("--out", type=Path, default=None, help="folder of records and work (default: data/results)")
    reproduce.set_defaults(run=_later("pslib.experiments.record_commands", "reproduce"))

    records = commands.add_parser("records", help="list the recorded runs, look after them")
    parts = records.add_subparsers(dest="part", metavar="PART")
    listing = parts.add_parser("list", help="print the results table (the default)")
    for parser, otherwise in ((records, False), (listing, argparse.SUPPRESS)):  # records --json list is meant, too
        parser.add_argument("--json", action="store_true", default=otherwise, help="print the records as JSON")
        parser.set_defaults(run=_later("pslib.experiments.record_commands", "records"))
    stale = parts.add_parser("stale", help="name the records that nothing reads any more, and why")
    stale.set_defaults(run=_later("pslib.experiments.record_commands", "stale_records"))
    drop = parts.add_parser("drop", help="remove records")
    drop.add_argument("names", nargs="*", metavar="HASH|FILE",
                      help="a hash (all its seeds), HASH-s0, or a record's file")
    drop.add_argument("--stale", action="store_true", help="remove all that `pslib records stale` names")
    drop.set_defaults(run=_later("pslib.experiments.record_commands", "drop"))

    gradients = commands.add_parser("gradients", help="record how two tasks' gradients meet over a whole training")
    gradients.add_argument("recipes", nargs="+", help="recipes or variants of AlignPS: alignps-long, t1, t2 ...")
    gradients.add_argument("--kind", default="cuhk-sysu", choices=KINDS, help="which set (default: cuhk-sysu)")
    gradients.add_argument("--seed", type=_seed, default=0)
    gradients.set_defaults(run=_later("pslib.experiments.angles", "angles"))

    ledger = commands.add_parser("ledger", help="what the records say of every claim of the papers")
    ledger.add_argument("--profile", default="tiny", help="tiny or small (default: tiny)")
    ledger.add_argument(
        "--experiment", nargs="+", action="extend", metavar="NAME", help="only these: alignps-fig6 alignps-table1 ..."
    )
    ledger.add_argument("--json", action="store_true", help="print the entries as JSON")
    ledger.set_defaults(run=_later("pslib.experiments.record_commands", "ledger"))


def _add_search(commands) -> None:
    search = commands.add_parser("search", help="find a person of one picture in a folder of pictures")
    search.add_argument("--query", type=Path, required=True, help="the picture that shows the person")
    search.add_argument("--box", required=True, metavar="X,Y,W,H", help="the person in it, pixels from the top left")
    search.add_argument("--gallery", type=Path, required=True, help="the folder of pictures to search")
    search.add_argument("--weights", type=Path, required=True, help="a .safetensors file of pslib train")
    search.add_argument("--out", type=Path, required=True, help="the page to write, one HTML file")
    search.add_argument("--top", type=int, default=50, help="matches shown (default: 50)")
    search.add_argument("--min-score", type=float, default=0.2, help="leave out detections below it (default: 0.2)")
    search.set_defaults(run=_later("pslib.search_page", "search_folder"))


def _add_notebooks(commands) -> None:
    notebooks = commands.add_parser("notebooks", help="run the series, publish its outputs, lint it")
    notebooks.set_defaults(run=_notebooks_run, profile="tiny", only=[], timeout=None, jobs=None)
    parts = notebooks.add_subparsers(dest="part", metavar="PART")
    for name, work, text in (("run", _notebooks_run, "execute copies under build/notebooks (the default)"),
                             ("publish", _notebooks_publish, "execute and write the outputs back")):
        part = parts.add_parser(name, help=text)
        part.add_argument("only", nargs="*", default=[], metavar="NN", help="numbers of the notebooks (default: all)")
        part.add_argument("--profile", default="tiny", choices=PROFILES)
        part.add_argument("--timeout", type=int, default=None, help="seconds one cell may take")
        part.set_defaults(run=work)
        if name == "run":
            part.add_argument("--jobs", type=int, help="notebooks that run side by side (default: 2)")
    lint = parts.add_parser("lint", help="check the committed notebooks by the rules of notebooks/README.md")
    lint.add_argument("paths", nargs="*", type=Path, default=[], help="notebooks or folders (default: the series)")
    lint.set_defaults(run=_notebooks_lint)


def _later(module: str, function: str) -> Callable[[Namespace], int | None]:
    """``function`` of ``module``, imported when it is called: ``pslib --help`` need not wait for torch."""

    def command(options: Namespace) -> int | None:
        return getattr(import_module(module), function)(options)

    return command


def _doctor(options) -> int:
    from pslib.doctor import report

    return report()


def _bench(options) -> None:
    if options.what == "cost":
        from pslib.experiments.cost import bench_cost

        return bench_cost(options)
    from pslib.bench import run

    run(options.what)


def _notebooks_run(options) -> int:
    from pslib.notebooks import run_series

    return run_series(options.only, profile=options.profile, timeout=options.timeout, jobs=options.jobs)


def _notebooks_publish(options) -> int:
    from pslib.notebooks import publish

    return publish(options.only, profile=options.profile, timeout=options.timeout)


def _notebooks_lint(options) -> int:
    from pslib.notebook_lint import lint_all

    return lint_all(options.paths)
