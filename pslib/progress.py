"""Progress that stays readable: a bar for people, plain lines for committed pages.

A bar in an executed notebook is dead once the kernel is gone and shows "0 %" for ever.  With
``PSLIB_PLAIN=1`` (set whenever notebooks are executed for a page) four plain lines take its place.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["plain", "progress", "say"]


def plain() -> bool:
    """True if ``PSLIB_PLAIN=1``: no bars, plain lines instead."""
    return os.environ.get("PSLIB_PLAIN") == "1"


def progress(iterable: Iterable, desc: str = "", total: int | None = None) -> Any:
    """Iterate with a progress bar; ``.set_postfix(loss=...)`` on the returned object shows values beside it.

    >>> import os; before = os.environ.get("PSLIB_PLAIN"); os.environ["PSLIB_PLAIN"] = "1"
    >>> for step in progress(range(8), "draw"):
    ...     pass
    draw: 25 % (2 of 8)
    draw: 50 % (4 of 8)
    draw: 75 % (6 of 8)
    draw: 100 % (8 of 8)
    >>> _ = os.environ.pop("PSLIB_PLAIN") if before is None else os.environ.update(PSLIB_PLAIN=before)
    """
    if plain():
        return _PlainProgress(iterable, desc, total)
    from tqdm.auto import tqdm

    return tqdm(iterable, desc=desc, total=total)


def say(text: str) -> None:
    """Print a line at once, above the bar where one is shown."""
    if plain():
        print(text, flush=True)
        return
    from tqdm.auto import tqdm

    tqdm.write(text)


class _PlainProgress:
    """Prints one line each time another quarter of ``total`` is done; one line at the end if unknown."""

    def __init__(self, iterable: Iterable, desc: str, total: int | None):
        self.iterable = iterable
        self.desc = desc or "progress"
        self.total = total if total is not None else (len(iterable) if hasattr(iterable, "__len__") else None)
        self.values: dict[str, Any] = {}

    def set_postfix(self, **values: Any) -> None:
        """Show these values beside the next line."""
        self.values.update(values)

    def __iter__(self) -> Iterator:
        done = quarter = 0
        for done, item in enumerate(self.iterable, start=1):
            yield item
            if self.total and 4 * done // self.total > quarter:
                quarter = 4 * done // self.total
                print(f"{self.desc}: {25 * quarter} % ({done} of {self.total}){self._beside()}", flush=True)
        if not self.total and done:
            print(f"{self.desc}: {done} done{self._beside()}", flush=True)

    def _beside(self) -> str:
        shown = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                 for name, value in self.values.items()]
        return ": " + ", ".join(shown) if shown else ""
