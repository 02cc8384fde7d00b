"""What ``pslib train``, ``evaluate`` and ``warm-start`` do."""

import ast
import json
from argparse import Namespace
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from filelock import Timeout

from pslib import paths
from pslib.data.annotations import PersonSearchSet
from pslib.errors import UserError
from pslib.evaluation.cbgm import RELEASED
from pslib.experiments.lookup import PROFILE_CHANGES, at_profile, find_recipe
from pslib.experiments.records import read_record
from pslib.experiments.run import RunData, evaluate_test, main_protocol, run
from pslib.experiments.stages import run_lock
from pslib.experiments.tables import results_table
from pslib.models.families import backbone_names
from pslib.progress import say
from pslib.training.checkpoints import load_model, load_weights
from pslib.training.recipe import Recipe, recipe_hash
from pslib.training.recipes import make_recipe
from pslib.training.warm_up import LESSONS, ensure_warm_start, make_warm_start

__all__ = ["open_run_data", "require_validation", "apply_overrides", "train", "evaluate", "warm_start", "device"]


def open_run_data(kind: str, profile: str, data_root: Path | None, bad_boxes: str = "raise") -> RunData:
    """The splits of a drawn set (``data_root`` None) or of a set in its own folder, read with ``bad_boxes`` (``load``).

    A drawn set brings its validation people as a set of their own.  A real one has no validation split: at the paper's
    profile all of its training people are trained on, as in the papers, and nothing is validated; at the others a part
    of the people and their frames is set aside, which the fingerprint tells.
    """
    from pslib.data.loading import fingerprint, load
    from pslib.data.validation import carve_validation

    root = data_root or paths.synthetic_dir(profile) / kind
    training, test = (load(kind, root, split, bad_boxes) for split in ("train", "test"))
    digest = fingerprint(root, bad_boxes)
    beside = root.with_name(root.name + "-val")
    if beside.is_dir():
        return RunData(training, load(kind, beside, "test", bad_boxes), test, digest)
    if profile == "paper":
        return RunData(training, None, test, digest)
    people = max(1, min(100, len(training.person_ids) // 5))
    training, validation = carve_validation(training, people, np.random.default_rng(0))
    return RunData(training, validation, test, f"{digest} without {people} people")


def require_validation(data: RunData) -> PersonSearchSet:
    """The validation split of ``data``, or UserError where all of the training split is trained on."""
    if data.validation is None:
        raise UserError(
            "at the paper's profile all people of the training split are trained on and none are left for validation: "
            "evaluate the test split, or try settings at another profile."
        )
    return data.validation


def apply_overrides(recipe: Recipe, overrides: list[str]) -> Recipe:
    """Apply ``--set schedule.steps=100`` style changes.

    >>> apply_overrides(make_recipe("alignps", "prw"), ["model.levels=('P4',)", "flip=False"]).model.levels
    ('P4',)
    """
    changes: dict[str, object] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        *parts, last = name.split(".")
        target: Any = recipe
        for part in parts:
            target = getattr(target, part, None)
        hint = get_type_hints(type(target)).get(last) if is_dataclass(target) else None
        if not equals or hint is None:
            raise UserError(f"--set {override} names no field of a recipe: write e.g. --set schedule.steps=100.")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if type(value) is int and float in (hint, *get_args(hint)) and get_origin(hint) is not tuple:
            value = float(value)
        if not _fits(value, hint):
            wanted = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
            wanted = wanted.replace(" | ", " or ").replace("NoneType", "None")
            now = getattr(target, last)
            raise UserError(f"--set {override}: {name} must be of type {wanted} (now {now!r}): write one alike.")
        changes[name.replace(".", "__")] = value
    return recipe.with_(**changes)


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of the type a field asks for, what a tuple holds included; a float may be written as an int.

    >>> _fits((3, 4.5), tuple[float, ...]), _fits((3,), tuple[int, int]), _fits(None, int | None), _fits(True, int)
    (True, False, True, False)
    """
    if isinstance(hint, UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if get_origin(hint) is not tuple:
        return type(value) is hint or (hint is float and type(value) is int)
    kinds = get_args(hint)
    if type(value) is not tuple:
        return False
    if kinds[-1] is Ellipsis:
        return all(_fits(one, kinds[0]) for one in value)
    return len(value) == len(kinds) and all(map(_fits, value, kinds))


def device() -> str:
    """The device that runs use: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def train(options: Namespace) -> None:
    """Train and evaluate one run; a second call goes on where a killed one stopped, or finds it done."""
    recipe = find_recipe(options.recipe, options.kind)
    if options.profile and options.profile != recipe.profile:
        grows = recipe.profile == "tiny" and options.profile in PROFILE_CHANGES
        recipe = at_profile(recipe, options.profile) if grows else recipe.with_(profile=options.profile)
    recipe = apply_overrides(recipe, options.overrides)
    data = open_run_data(recipe.kind, recipe.profile, options.data_root, options.bad_boxes)
    for backbone in backbone_names(recipe.model):
        ensure_warm_start(backbone, recipe.warm_start, device())
    out = options.out or paths.build_dir() / "runs"
    records, weights = out / "records", out / "weights" / f"{recipe.name}-{recipe.kind}-s{options.seed}.safetensors"
    if options.record:
        # The committed record of every seed, and the committed weights of seed 0 of a recipe as it is named.
        published = options.seed == 0 and recipe == find_recipe(options.recipe, options.kind)
        records = paths.results_dir()
        weights = paths.weights_dir() / f"{recipe.name}-{recipe.kind}.safetensors" if published else None
    lock = run_lock(out / "work", recipe_hash(recipe, data.fingerprint), options.seed)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        say("another process computes this run: waiting for it.")
        held = lock.acquire()
    with held:
        places = {"records": records, "work": out / "work", "weights": weights}
        path = run(recipe, options.seed, data, device=device(), inside=True, **places)
    record = read_record(path)
    if record.info["status"] == "diverged":
        raise UserError(record.info["reason"])
    print(results_table([record]))
    print(f"record: {path}")


def evaluate(options: Namespace) -> None:
    """Evaluate stored weights on the test or validation people of a set."""
    if options.out and not options.out.parent.is_dir():
        raise UserError(f"--out {options.out} lies in no folder that is there: make {options.out.parent} first.")
    model = load_model(options.checkpoint).to(device())
    if options.cbgm and getattr(model, "similarity", "cosine") != "cosine":
        raise UserError(
            f"--cbgm matches people by cosines and the model of {options.checkpoint} compares by distance: "
            "leave --cbgm out."
        )
    context = RELEASED[options.kind] if options.cbgm else None
    data = open_run_data(options.kind, options.profile, options.data_root, options.bad_boxes)
    chosen = data.test if options.split == "test" else require_validation(data)
    header = load_weights(options.checkpoint)[1]
    size, threshold = (json.loads(header.get(name, "null")) for name in ("test_size", "search_threshold"))
    recipe = make_recipe("alignps", options.kind).with_(
        test_size=tuple(size) if size else None, search_threshold=threshold or 0.0
    )
    scalars, _ = evaluate_test(model, recipe, chosen, device(), context)
    name = main_protocol(chosen)
    print(f"{options.kind}, {options.split}: detection recall {scalars['detection']['recall']:.1f}, "
          f"AP {scalars['detection']['ap']:.1f}")
    for protocol in scalars["search"]:
        found, truth = scalars["search"][protocol], scalars["ground_truth"][protocol]
        mark = "  (main)" if protocol == name else ""
        print(f"  {protocol:<14} mAP {found['map']:5.1f}  top-1 {found['top1']:5.1f}   "
              f"ground-truth boxes: mAP {truth['map']:5.1f}  top-1 {truth['top1']:5.1f}{mark}")
    if context is not None:
        scalars["cbgm"] = asdict(context)
        print(f"re-ranked by the people beside the query: k1 {context.k1}, k2 {context.k2}, {context.combine}")
    if options.out:
        options.out.write_text(json.dumps(scalars, indent=1) + "\n")


def warm_start(options: Namespace) -> None:
    """Make a warm start of a backbone and say how well it answers its questions."""
    path, accuracy = make_warm_start(options.backbone, options.kind, device=device())
    print("share of right answers on crops not trained on:")
    for question, share in accuracy.items():
        chance = 1 / len(LESSONS[options.kind].questions[question])
        print(f"  {question:<14} {100 * share:5.1f} %   (guessing evenly: {100 * chance:.1f} %)")
    print(f"warm start: {path}")
