"""When was a claim written down?  Read from git, so that nobody has to take it on trust.

A claim that is fitted to its results proves nothing.  The ledger therefore names, beside the commits its records were
computed at, the commit since which the claim has stood with its rows, signs, measure, kind and margin.  The files
of earlier commits are read as syntax trees, never run.
"""

import ast
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any

from pslib import paths
from pslib.experiments.registry import Claim

__all__ = ["claims_in", "commit_of_claim", "is_ancestor"]

CLAIM_FILES = ("pslib/experiments/alignps.py",)
CLAIM_CLASS = "pslib/experiments/registry.py"  # holds the defaults that a claim leaves out
Key = tuple[str, tuple[tuple[str, float], ...], str, str, float]


def key_of(experiment: str, claim: Claim) -> Key:
    """What makes it the same claim: wording and sources may be improved afterwards."""
    return (
        experiment,
        tuple(sorted((row, float(sign)) for row, sign in claim.contrast.items())),
        claim.measure,
        claim.kind,
        float(claim.margin),
    )


def claims_in(source: str, defaults: Mapping[str, Any]) -> set[Key]:
    """Keys of all claims that a file of experiments holds; what is no plain literal is left out.

    ``defaults`` are the values of fields that a claim leaves out, see :func:`defaults_in`.

    >>> text = 'E = Experiment(name="e", claims=(Claim("c", "text", {"a": 1, "b": -1}, margin=3.0),))'
    >>> claims_in(text, {"measure": "map", "kind": "difference", "margin": 2.0})
    {('e', (('a', 1.0), ('b', -1.0)), 'map', 'difference', 3.0)}
    """
    found: set[Key] = set()
    for node in ast.walk(ast.parse(source)):
        if not _calls(node, "Experiment"):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        name, claims = given.get("name"), given.get("claims")
        for call in claims.elts if isinstance(claims, ast.Tuple) else ():
            try:
                claim = _read_claim(call, defaults)
                if claim is not None:
                    found.add(key_of(ast.literal_eval(name), claim))
            except (ValueError, TypeError):
                continue
    return found


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


def _calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _read_claim(call: ast.AST, defaults: Mapping[str, Any]) -> Claim | None:
    given = {k.arg: ast.literal_eval(k.value) for k in call.keywords} if isinstance(call, ast.Call) else {}
    if _calls(call, "_better"):
        first, second, text = map(ast.literal_eval, call.args)
        given |= {"name": "", "text": text, "contrast": {first: 1, second: -1}}
    elif _calls(call, "Claim"):
        given |= dict(zip(("name", "text", "contrast"), map(ast.literal_eval, call.args), strict=False))
    else:
        return None
    return Claim(**{**defaults, **given})


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
def _since(key: Key) -> str:
    commit = ""
    for version, keys in _versions():
        if key not in keys:
            break
        commit = version
    return commit


def commit_of_claim(experiment: str, claim: Claim) -> str:
    """The first commit (12 digits) from which on the claim stood as it stands now; empty without git or uncommitted."""
    return _since(key_of(experiment, claim))


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
