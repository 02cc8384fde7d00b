"""``pslib doctor``: one line a check, [ok], [warn] or [fail], and what to do about it.

A bug report begins with its output.
"""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version

from pslib import paths
from pslib.errors import UserError

__all__ = ["Line", "browser_path", "checks", "report"]

Line = tuple[str, str]  # (ok | warn | fail, text)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
                "/Applications/Chromium.app/Contents/MacOS/Chromium")
GIB = 1024**3


def report() -> int:
    """Print every check; 1 if one failed, else 0."""
    lines = checks()
    for state, text in lines:
        print(f"[{state}]{' ' * (5 - len(state))}{text}")
    return int(any(state == "fail" for state, _ in lines))


def checks() -> list[Line]:
    """All lines; a check that breaks becomes a [fail] line of its own, so one defect hides no other."""
    lines: list[Line] = []
    for check in CHECKS:
        try:
            lines += check()
        except UserError as error:
            lines.append(("fail", str(error)))
        except Exception as error:  # a report about a broken machine must not break with it
            lines.append(("fail", f"{check.__name__.strip('_')}: {type(error).__name__}: {error}"))
    return lines


def browser_path() -> str | None:
    """A Chrome or Chromium on this machine: ``PSLIB_BROWSER``, else the usual names; None if there is none."""
    named = os.environ.get("PSLIB_BROWSER")
    if named:
        return shutil.which(named)  # a path or a name; a folder is none
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    return found or next((path for path in APPLICATIONS if os.path.exists(path)), None)


def _python() -> list[Line]:
    text = f"python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return [("ok", text)] if sys.version_info >= (3, 11) else [("fail", f"{text}: pslib needs 3.11 or newer")]


def _packages() -> list[Line]:
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in requires("pslib") or []]
    except PackageNotFoundError:
        return [("fail", "pslib is not installed: run `make venv`, or `pip install -e .` in the checkout")]
    lines: list[Line] = []
    for requirement in needed:
        optional = requirement.marker is not None
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            lines.append(("warn" if optional else "fail",
                          f"{requirement.name} is missing{' (tests need it)' if optional else ''}: run `make venv`"))
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            lines.append(("fail", f"{requirement.name} {found} is outside {requirement.specifier}: run `make venv`"))
        elif not optional:
            lines.append(("ok", f"{requirement.name} {found}"))
    return lines


def _device() -> list[Line]:
    import torch

    if not torch.cuda.is_available():
        return [("ok", f"torch device: CPU, {torch.get_num_threads()} threads (profile tiny needs no more)")]
    free, total = torch.cuda.mem_get_info()
    return [("ok", f"torch device: {torch.cuda.get_device_name(0)}, {free / GIB:.0f} of {total / GIB:.0f} GiB free")]


def _machine() -> list[Line]:
    cores = os.cpu_count() or 1
    lines = [("ok" if cores >= 2 else "warn", f"{cores} cores{'' if cores >= 2 else ': times are measured on 2'}")]
    memory = _memory_bytes()
    if memory:
        enough = memory >= 3.5 * GIB
        advice = "" if enough else ": 4 are advised"
        lines.append(("ok" if enough else "warn", f"{memory / GIB:.1f} GiB memory{advice}"))
    return lines


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None  # Windows has no sysconf


def _disk() -> list[Line]:
    free = shutil.disk_usage(paths.root()).free / GIB
    return [("ok" if free >= 2 else "warn", f"{free:.0f} GiB free on the disk of {paths.root().name}"
             + ("" if free >= 2 else ": drawing the sets and running the series wants 2"))]


def _data() -> list[Line]:
    from pslib.notebook import data_state

    lines: list[Line] = []
    for profile in ("tiny", "small"):
        states = data_state(profile)
        missing = [name for name, state in states.items() if state is None]
        command = f"`pslib data make --profile {profile}`"
        if not missing:
            lines.append(("ok", f"data {profile}: {', '.join(states)} made"))
        elif profile == "tiny" or len(missing) < len(states):
            lines.append(("warn", f"data {profile}: {', '.join(missing)} not made: run {command}"))
        else:
            lines.append(("ok", f"data {profile}: not made (optional; {command} draws it)"))
    return lines


def _weights() -> list[Line]:
    return _listed("weights", sorted(path.name for path in paths.weights_dir().glob("*.safetensors")))


def _records() -> list[Line]:
    count = 0
    for path in sorted(paths.results_dir().rglob("*.json")):
        try:
            json.loads(path.read_text())
        except ValueError:
            return [("fail", f"record {path.relative_to(paths.root())} is not JSON: restore it with `git checkout`")]
        count += 1
    return [("ok" if count else "warn", f"records: {count} files in data/results")]


def _listed(what: str, names: list[str]) -> list[Line]:
    return [("ok" if names else "warn", f"{what}: {', '.join(names) if names else 'none in data/' + what}")]


def _browser() -> list[Line]:
    found, named = browser_path(), os.environ.get("PSLIB_BROWSER")
    missing = f"PSLIB_BROWSER={named} is no program" if named else "no Chrome or Chromium found"
    return [("ok", f"browser: {found}") if found else
            ("warn", f"browser: {missing}, browser tests are skipped (PSLIB_BROWSER names one)")]


CHECKS: tuple[Callable[[], list[Line]], ...] = (
    _python, _packages, _device, _machine, _disk, _data, _weights, _records, _browser)
