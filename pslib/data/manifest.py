"""``manifest.json`` of a set that pslib wrote: read in one place, and told from anybody else's.

A drawn set says its ``plan`` and ``fingerprint``, a set of the paper's layout its ``settings``; both say which ``set``
they are.  Other people call files ``manifest.json`` too, so the name alone says nothing.
"""

import json
from pathlib import Path
from typing import Any

from pslib.errors import UnreadableError, UserError

__all__ = ["damaged", "drawn_with", "read_manifest"]


def read_manifest(root: Path | str) -> dict[str, Any] | None:
    """What ``manifest.json`` in the folder ``root`` says, None where there is none.

    Raises UserError if it is damaged: no JSON object, or one with nothing in it; UnreadableError if it is there but
    cannot be read, whole or not.
    """
    path = Path(root) / "manifest.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, ValueError, RecursionError):
        content = None
    except OSError as error:
        raise UnreadableError(path, error) from None
    if not isinstance(content, dict) or not content:
        raise damaged(root)
    return content


def damaged(root: Path | str) -> UserError:
    """The sentence about a manifest that is no manifest."""
    return UserError(
        f"{Path(root) / 'manifest.json'} is damaged: remove that folder and draw the set again with 'pslib data make', "
        "or remove the file if pslib did not draw the set."
    )


def drawn_with(manifest: dict[str, Any] | None) -> str | None:
    """Profile and seed of a set that pslib wrote, in words; None for a set that it did not.

    >>> drawn_with({"profile": "tiny", "seed": 20, "set": "prw"})
    'drawn, profile tiny, seed 20'
    >>> drawn_with({"by": "me"}) is None
    True
    """
    if manifest is None or not {"profile", "seed", "set"} <= manifest.keys():
        return None
    return f"drawn, profile {manifest['profile']}, seed {manifest['seed']}"
