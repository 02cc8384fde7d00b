"""When was a claim written down?  Read from git, so that nobody has to take it on trust.

A claim that is fitted to its results proves nothing.  The ledger therefore names, beside the commits its records were
computed at, the commit since which the claim has stood: same signs, measure, kind and margin, on the same rows of the
table or on the same variants (a row may be renamed, or be trained longer, without being another claim).
"""

import ast
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any

from pslib import paths
from pslib.errors import UserError
from pslib.experiments.registry import Claim, Experiment

__all__ = ["claims_in", "commit_of_claim", "is_ancestor", "keys_of"]

CLAIM_FILES = ("pslib/experiments/alignps.py", "pslib/experiments/ian.py", "pslib/experiments/roi_alignps.py")
CLAIM_CLASS = "pslib/experiments/registry.py"  # holds the defaults that a claim leaves out
_PARTS = ("name", "rows", "claims")
Key = tuple[str, str, tuple[tuple[str, float], ...], str, str, float]


def keys_of(experiment: str, rows: Mapping[str, str], claim: Claim) -> frozenset[Key]:
    """What makes it the same claim, once by rows and once by variants: wording and sources may be improved."""
    rule = (claim.measure, claim.kind, float(claim.margin))
    by_row = tuple(sorted((row, float(sign)) for row, sign in claim.contrast.items()))
    by_variant = tuple(sorted((rows.get(row, ""), float(sign)) for row, sign in claim.contrast.items()))
    return frozenset({(experiment, "rows", by_row, *rule), (experiment, "variants", by_variant, *rule)})


def claims_in(source: str, defaults: Mapping[str, Any]) -> frozenset[Key]:
    """Keys of all claims that a file of experiments holds.

    Only the expressions that name an experiment, its rows and its claims are evaluated: the rest of an old file need
    not fit today's code.  ``defaults`` are the values of fields that a claim leaves out, see :func:`defaults_in`.

    >>> text = 'E = Experiment(name="e", rows={"a": "v"}, claims=(Claim("c", "text", {"a": 1}, margin=3.0),))'
    >>> sorted(claims_in(text, {"measure": "map", "kind": "difference", "margin": 2.0}))[0]
    ('e', 'rows', (('a', 1.0),), 'map', 'difference', 3.0)
    """

    def claim(name: str, text: str, contrast: Mapping[str, float], **fields: Any) -> Claim:
        return Claim(name, text, contrast, **{**defaults, **fields})

    def better(first: str, second: str, text: str, **fields: Any) -> Claim:
        return claim("", text, {first: 1, second: -1}, **fields)

    # Older versions spell it with an underscore.
    known = {"__builtins__": {}, "Claim": claim, "better": better, "_better": better}
    found: set[Key] = set()
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Experiment"):
            continue
        wanted = {item.arg: ast.Expression(item.value) for item in node.keywords if item.arg in _PARTS}
        try:
            name, rows, claims = (eval(compile(wanted[part], "<git>", "eval"), known) for part in _PARTS)
        except (KeyError, NameError, TypeError, ValueError, UserError):  # written in words that are no longer known
            continue
        for one in claims:
            found |= keys_of(name, rows, one)
    return frozenset(found)


def defaults_in(source: str) -> dict[str, Any]:
    """The default values of :class:`Claim`'s fields in a version of the registry."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == "Claim":
            return {
                item.target.id: item.value.value
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Constant)
            }
    return {}


@cache
def _versions() -> tuple[tuple[str, frozenset[Key]], ...]:
    """Commits that touched a claim or its defaults, newest first, each with the claims that stood after it."""
    if _git("rev-parse", "--is-shallow-repository") != "false":
        return ()  # no git, or a clone that does not know when anything began
    found = []
    for commit in _git("log", "--topo-order", "--format=%H", "--", *CLAIM_FILES, CLAIM_CLASS).split():
        defaults = defaults_in(_git("show", f"{commit}:{CLAIM_CLASS}") or "")
        keys: set[Key] = set()
        for path in CLAIM_FILES:
            keys |= claims_in(_git("show", f"{commit}:{path}") or "", defaults)
        found.append((commit[:12], frozenset(keys)))
    return tuple(found)


@cache
def _since(keys: frozenset[Key]) -> str:
    commit = ""
    for version, stood in _versions():
        if not keys & stood:
            break
        commit = version
    return commit


def commit_of_claim(experiment: Experiment, claim: Claim, by: str = "") -> str:
    """The first commit (12 digits) from which on the claim stood as it stands now; empty without git or uncommitted.

    With ``by="variants"`` the same variants must have been compared all the time: a row that was given another schedule
    begins anew then.
    """
    keys = keys_of(experiment.name, experiment.rows, claim)
    return _since(frozenset(key for key in keys if not by or key[1] == by))


@cache
def is_ancestor(earlier: str, later: str) -> bool | None:
    """True if commit ``earlier`` is ``later`` or precedes it, False if not, None if git does not know either."""
    if not earlier or not later:
        return None
    code = _run("merge-base", "--is-ancestor", earlier, later)[0]
    return {0: True, 1: False}.get(code)


def _git(*arguments: str) -> str:
    code, answer = _run(*arguments)
    return answer if code == 0 else ""


def _run(*arguments: str) -> tuple[int, str]:
    """Exit code and answer of git about the checkout; code 128 where there is no git."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=paths.root(), capture_output=True, text=True, encoding="utf-8", timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return 128, ""
    return done.returncode, done.stdout.strip()
