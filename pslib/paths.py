"""Where things lie, decided in one place.

Everything is found from the repository root, so a notebook may run in ``notebooks/`` or as a copy in
``build/notebooks``.  ``PSLIB_ROOT`` names another root (tests use it).
"""

import os
from pathlib import Path

from pslib.errors import UserError

__all__ = ["root", "synthetic_dir", "weights_dir", "results_dir", "reported_dir", "notebooks_dir", "build_dir"]


def root() -> Path:
    """The repository root: ``PSLIB_ROOT``, else the checkout this package lies in, else the one around the
    working directory.

    >>> (root() / "pyproject.toml").is_file()
    True
    """
    named = os.environ.get("PSLIB_ROOT")
    if named:
        if not Path(named).is_dir():
            raise UserError(f"PSLIB_ROOT={named} is no folder: set it to a checkout of pslib, or unset it.")
        return Path(named).resolve()
    here = Path.cwd().resolve()
    for folder in (Path(__file__).resolve().parents[1], here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "pslib").is_dir():
            return folder
    raise UserError(f"no pslib checkout around {here}: change into the repository, or set PSLIB_ROOT to it.")


def synthetic_dir(profile: str | None = None) -> Path:
    """``data/synthetic``, or one profile's folder in it: drawn by ``pslib data make``, ignored by git."""
    folder = root() / "data" / "synthetic"
    return folder / profile if profile else folder


def weights_dir() -> Path:
    """``data/weights``: small trained weights, committed."""
    return root() / "data" / "weights"


def results_dir() -> Path:
    """``data/results``: run records, committed; pages only read them."""
    return root() / "data" / "results"


def reported_dir() -> Path:
    """``data/reported``: the numbers the papers print."""
    return root() / "data" / "reported"


def notebooks_dir() -> Path:
    """``notebooks``: the committed, executed series."""
    return root() / "notebooks"


def build_dir() -> Path:
    """``build``: whatever live runs leave behind, ignored by git."""
    return root() / "build"
