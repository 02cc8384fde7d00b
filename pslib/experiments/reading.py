"""Reading records' files and folders so that one which cannot be read is never taken for absent or damaged."""

import fnmatch
import os
from pathlib import Path

from pslib.errors import UnreadableError

__all__ = ["bytes_of", "contents"]


def bytes_of(path: Path) -> bytes:
    """The bytes of a file.

    Raises FileNotFoundError or IsADirectoryError if there is no such file, UnreadableError if it cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise
    except OSError as error:
        raise UnreadableError(path, error) from None


def contents(folder: Path, pattern: str = "*") -> list[Path]:
    """What lies in a folder under a name that fits ``pattern``, by name; nothing where there is no such folder.

    Raises UnreadableError where the folder cannot be read: ``glob`` would find it empty.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UnreadableError(folder, error) from None
    return [folder / name for name in sorted(fnmatch.filter(names, pattern))]
