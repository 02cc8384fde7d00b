"""What every notebook of the series uses: a start banner, predictions, checks, and where numbers come from.

    session = start(PROFILE, SEED, notebook="03")        # versions, device, data, expected minutes
    expect(embeddings, "B", "HW", 256, B=2)              # asserted shapes, returns the bound sizes
    predict("How many locations ...?", truth=1234, my_guess=None)
    check("Exercise 1", exercise_1, verify_1)            # "not done yet" on None
    computed_now("seed 0, 41 s") / recorded("...") / reported("AlignPS, Table I")
"""

import html
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pslib import paths
from pslib.data.manifest import read_manifest
from pslib.errors import UserError, require_choice

__all__ = ["PROFILES", "Session", "check", "computed_now", "data_state", "expect", "expected_time", "live", "predict",
           "recorded", "reported", "same", "start"]

PROFILES = ("tiny", "small", "paper")
DATA_SETS = ("cuhk-sysu", "prw", "cuhk-sysu-val", "prw-val")
MAKE_IN_PLACE = ("tiny",)  # drawn in about a minute, so start() does it instead of sending the student away


@dataclass(frozen=True)
class Session:
    """What ``start`` found and made."""

    profile: str
    seed: int
    device: Any  # torch.device
    data: Path  # data/synthetic/<profile>, holding cuhk-sysu and prw
    build: Path  # build/, where live runs write
    rng: np.random.Generator
    generator: Any  # torch.Generator


def start(profile: str = "tiny", seed: int = 0, notebook: str | None = None) -> Session:
    """Print the banner (versions, device, data, expected minutes), draw missing data if that is quick.

    ``notebook`` is its number ("03"): the banner then says how long the recorded run took.
    Raises UserError, with the command that helps, if the profile's data is missing and slow to make.
    """
    require_choice("profile", profile, PROFILES)
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # cuDNN may pick another algorithm each run; a page that says "seed 0" should not.
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(seed)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy"))
    print(f"python {platform.python_version()}, {versions}")
    shown = torch.cuda.get_device_name(0) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"profile {profile}, seed {seed}, device: {shown}")
    if notebook is not None:
        print(expected_time(notebook, profile))
    folder = paths.synthetic_dir(profile)
    missing = [name for name, state in data_state(profile).items() if state is None]
    if missing and profile != "paper":
        command = f"pslib data make --profile {profile}"
        if profile not in MAKE_IN_PLACE:
            raise UserError(f"the synthetic sets {', '.join(missing)} are not in {folder}: draw them with `{command}`.")
        print(f"drawing the missing sets ({', '.join(missing)}), about a minute, once: {command}")
        from pslib.data.synthetic import make

        make(profile, folder.parent)
    for name, state in data_state(profile).items():
        if state is not None:
            print(f"data {name}: {state}")
    return Session(profile, seed, device, folder, paths.build_dir(), np.random.default_rng(seed),
                   torch.Generator().manual_seed(seed))


def data_state(profile: str) -> dict[str, str | None]:
    """Data set name -> one line about its manifest, or None if it has not been made; UserError if one is damaged."""
    states: dict[str, str | None] = {}
    for name in DATA_SETS:
        manifest = read_manifest(paths.synthetic_dir(profile) / name)
        states[name] = None
        if manifest is not None:
            states[name] = f"made, fingerprint {str(manifest.get('fingerprint', 'unknown'))[:12]}"
    return states


def live(full: Any, short: Any) -> Any:
    """``full`` for readers, ``short`` where only proof is wanted that a live cell runs (``PSLIB_CI=1``).

    >>> live(600, 8) in (600, 8)
    True
    """
    return short if os.environ.get("PSLIB_CI") == "1" else full


def expect(x: Any, *dims: int | str, **names: int) -> dict[str, int]:
    """Assert a shape by axis letters and return the sizes bound so far.

    >>> expect(np.zeros((2, 5, 256)), "B", "N", 256, B=2)
    {'B': 2, 'N': 5}
    >>> expect(np.zeros((2, 5)), "B", "B")
    Traceback (most recent call last):
        ...
    AssertionError: expected shape (B, B) with B=2, got (2, 5): axis 1 is 5
    """
    shape, bound = tuple(x.shape), dict(names)
    wanted = f"expected shape ({', '.join(map(str, dims))})"
    if len(shape) != len(dims):
        raise AssertionError(f"{wanted}: {len(dims)} axes, got {shape}: {len(shape)} axes")
    for axis, (size, dim) in enumerate(zip(shape, dims, strict=True)):
        if size != (dim if isinstance(dim, int) else bound.setdefault(dim, size)):
            known = ", ".join(f"{name}={value}" for name, value in bound.items())
            raise AssertionError(f"{wanted}{' with ' + known if known else ''}, got {shape}: axis {axis} is {size}")
    return bound


def predict(question: str, truth: Any, my_guess: Any = None, *, tolerance: float = 0.0) -> None:
    """A prediction before the run: with ``my_guess=None`` the question, afterwards guess beside truth.

    ``tolerance`` is the relative distance at which a number still counts as a match.

    >>> predict("How many cells has a 4 x 6 map?", truth=24)
    Predict first: How many cells has a 4 x 6 map?
      Set my_guess and run this cell again, or go on.
    >>> predict("How many cells has a 4 x 6 map?", truth=24, my_guess=20)
    You said 20, the run gives 24: why?
    """
    if my_guess is None:
        print(f"Predict first: {question}\n  Set my_guess and run this cell again, or go on.")
        return
    close = my_guess == truth
    if not close and isinstance(truth, (int, float)) and isinstance(my_guess, (int, float)):
        close = abs(my_guess - truth) <= tolerance * abs(truth)
    print(f"You said {my_guess!r}, the run gives {truth!r}: {'that matches.' if close else 'why?'}")


class _NotDone(Exception):
    """An exercise stub returned None."""


def check(name: str, answer: Any, verify: Callable[[Any], Any]) -> None:
    """Check an exercise: "not done yet" while it is, or returns, None; else ``verify(answer)`` decides.

    ``verify`` raises AssertionError (``same`` does) with a message that says what to look at.

    >>> def half(x):
    ...     return None
    >>> check("Exercise 1", half, lambda answer: same(answer(4), 2, "divide by two"))
    Exercise 1: not done yet
    >>> check("Exercise 1", lambda x: x / 2, lambda answer: same(answer(4), 2, "divide by two"))
    Exercise 1: correct
    >>> check("Exercise 2", 5, lambda answer: same(answer, 6, "count again"))
    Traceback (most recent call last):
        ...
    AssertionError: Exercise 2: got 5, wanted 6: count again
    """

    def answered(*arguments: Any, **options: Any) -> Any:
        result = answer(*arguments, **options)
        if result is None:
            raise _NotDone
        return result

    try:
        if answer is None:
            raise _NotDone
        verify(answered if callable(answer) else answer)
    except _NotDone:
        print(f"{name}: not done yet")
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}" if str(error) else f"{name}: not right yet") from None
    else:
        print(f"{name}: correct")


def same(got: Any, want: Any, hint: str, *, atol: float = 1e-6) -> None:
    """Assert that two values, lists, arrays or tensors agree; ``hint`` says what to look at if not.

    >>> same([1.0, 2.0], [1.0, 2.0], "the order")
    """
    left, right = (value.detach().cpu().numpy() if hasattr(value, "detach") else value for value in (got, want))
    if isinstance(right, str) or right is None:
        equal = left == right
    else:
        try:
            left_array = np.asarray(left)
        except ValueError:  # rows of different lengths: a student's answer, to be answered with the hint
            raise AssertionError(f"got {_short(got)}, wanted {_short(want)}: {hint}") from None
        right_array = np.asarray(right)
        equal = left_array.shape == right_array.shape and bool(
            np.allclose(left_array, right_array, rtol=1e-6, atol=atol)
            if right_array.dtype.kind in "fiub" and left_array.dtype.kind in "fiub"
            else np.array_equal(left_array, right_array)
        )
    if not equal:
        raise AssertionError(f"got {_short(got)}, wanted {_short(want)}: {hint}")


def computed_now(details: str) -> None:
    """Banner: the numbers below were computed by this run."""
    _banner("COMPUTED NOW", details, "#009E73", "#EAF7F2")


def recorded(details: str) -> None:
    """Banner: the numbers below come from committed run records (say device, seeds, date)."""
    _banner("RECORDED", details, "#0072B2", "#E8F2F9")


def reported(details: str) -> None:
    """Banner: the numbers below are the papers' own (say paper and table)."""
    _banner("REPORTED", details, "#D55E00", "#FCF0E8")


def _banner(kind: str, details: str, color: str, background: str) -> None:
    from IPython.display import display

    markup = (f'<div style="border-left:6px solid {color};background:{background};color:#111;padding:4px 10px">'
              f"<b>{kind}</b>: {html.escape(details)}</div>")
    display({"text/html": markup, "text/plain": f"{kind}: {details}"}, raw=True)


def expected_time(notebook: str, profile: str) -> str:
    """One line from the recorded notebook times (written by ``pslib notebooks publish``)."""
    path = paths.results_dir() / "notebook-times.json"
    times = json.loads(path.read_text()) if path.is_file() else {}
    entry = times.get(f"{notebook}/{profile}")
    if entry is None:
        return f"expected time: not recorded yet for notebook {notebook} at {profile}"
    seconds = entry["seconds"]
    amount = f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
    return f"expected time: {amount} (RECORDED {entry['date']} on {entry['device']})"


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else text[:117] + "..."
