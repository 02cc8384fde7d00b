"""The one exception a user can cause.

Everything a student or researcher can get wrong (a missing file, a misspelt profile, a box outside its
image) ends in a :class:`UserError` whose message is one sentence: what is wrong, with the file or value,
and what to do about it.  The command line prints the sentence and exits with code 2.
"""

import difflib
import os
from collections.abc import Iterable

__all__ = ["NotFiniteError", "UnreadableError", "UserError", "require_choice"]

MANY = 25  # from so many names on, a list of all hides the one that was meant


class UserError(Exception):
    """A mistake that the user can mend; ``str(error)`` is one sentence naming the value and the remedy."""


class NotFiniteError(UserError):
    """A model made infinite or undefined numbers: what a diverged training leaves."""


class UnreadableError(UserError):
    """A file or folder that is there and may be whole, but cannot be read just now: a reason to stop, not to drop it.

    >>> str(UnreadableError("x.json", PermissionError(13, "Permission denied")))
    'x.json: Permission denied: make it readable, then run the command again.'
    """

    def __init__(self, path: os.PathLike | str, error: OSError):
        super().__init__(f"{os.fspath(path)}: {error.strerror}: make it readable, then run the command again.")


def require_choice(what: str, value: str, choices: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``choices``, else raise with the nearest names.

    >>> require_choice("profile", "tiny", ["tiny", "small"])
    'tiny'
    >>> require_choice("profile", "tyni", ["tiny", "small"])
    Traceback (most recent call last):
        ...
    pslib.errors.UserError: unknown profile 'tyni': choose tiny or small (nearest: tiny).
    >>> require_choice("letter", "alpha", [*"abcdefghijklmnopqrstuvwxyz"])
    Traceback (most recent call last):
        ...
    pslib.errors.UserError: unknown letter 'alpha', none of the 26 there are: choose one (nearest: p, l, h).
    """
    names = list(choices)
    if value in names:
        return value
    if len(names) > MANY:
        near = ", ".join(difflib.get_close_matches(str(value), names, n=3, cutoff=0.0))
        raise UserError(f"unknown {what} {value!r}, none of the {len(names)} there are: choose one (nearest: {near}).")
    listed = ", ".join(names[:-1]) + (" or " if len(names) > 1 else "") + names[-1]
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.0)
    raise UserError(f"unknown {what} {value!r}: choose {listed} (nearest: {near[0]}).")
