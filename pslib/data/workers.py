"""A pool of processes for drawing: it starts at once and ends with whoever started it."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

__all__ = ["process_pool"]


def process_pool(workers: int, start: Callable[..., None] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """``workers`` processes, each of which calls ``start(*arguments)`` before its first task.

    >>> with process_pool(2) as pool:
    ...     list(pool.map(abs, (-1, 2)))
    [1, 2]
    """
    # fork starts at once and works from scripts without a main guard; elsewhere take the platform's own way
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    return ProcessPoolExecutor(workers, context, _start_worker, (start, arguments))


def _start_worker(start: Callable[..., None] | None, arguments: tuple) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    # Workers of a killed parent would wait for work for ever, and with them the locks that they inherited.
    multiprocessing.parent_process().join()
    os._exit(1)
