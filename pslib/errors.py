"""What a user can mend, and how it is told.

Everything a student or researcher can get wrong (a missing file, a misspelt profile, a box outside its
image) ends in a :class:`UserError` whose message is one sentence: what is wrong, with the file or value,
and what to do about it.  The command line prints the sentence and exits with code 2.
"""

import difflib
import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "NotFiniteError",
    "UnreadableError",
    "UserError",
    "mendable",
    "remedy",
    "require_choice",
    "require_writable",
]

MANY = 25  # from so many names on, a list of all hides the one that was meant
MENDABLE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.ENOTDIR: "choose a folder, not a file",
    errno.EISDIR: "choose a file, not a folder",
    errno.EEXIST: "a file or a broken link is in the way: remove it, or choose another folder",
    errno.ELOOP: "a link leads to itself: remove it, or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


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
    if not names:
        raise UserError(f"unknown {what} {value!r}: there is none to choose from.")
    if len(names) > MANY:
        near = ", ".join(difflib.get_close_matches(str(value), names, n=3, cutoff=0.0))
        raise UserError(f"unknown {what} {value!r}, none of the {len(names)} there are: choose one (nearest: {near}).")
    listed = ", ".join(names[:-1]) + (" or " if len(names) > 1 else "") + names[-1]
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.0)
    raise UserError(f"unknown {what} {value!r}: choose {listed} (nearest: {near[0]}).")


def mendable(error: OSError) -> str | None:
    """What the system refused and what to do about it, without a full stop; None if no user could mend it.

    >>> mendable(PermissionError(errno.EACCES, "Permission denied", "/srv/a"))
    '/srv/a: Permission denied: choose a folder you may write to'
    """
    if error.errno not in MENDABLE:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror}: {MENDABLE[error.errno]}"


def remedy(error: Exception) -> str:
    """What to do about a file that could not be written; libraries tell a full disk in errors of their own."""
    return MENDABLE.get(getattr(error, "errno", None), "free some space")


def require_writable(*folders: Path) -> None:
    """Make the folders, and raise UserError if nothing can be written there: before the work, not after it."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            told = mendable(error) or f"{error.strerror or error}: choose another folder"
            raise UserError(f"nothing can be written to {folder} ({told}).") from None
