"""Processes that end with whoever started them, and a pool of such for drawing, which starts at once."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

__all__ = ["end_with_starter", "process_pool"]


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
    _end_after(multiprocessing.parent_process().join)
    if start is not None:
        start(*arguments)


def end_with_starter() -> None:
    """Of a program whose standard input is a pipe: end it as soon as nobody holds the other end any more."""
    _end_after(lambda: os.read(0, 1))  # not sys.stdin, whose lock a process forked meanwhile would inherit


def _end_after(parent: Callable[[], object]) -> None:
    # Workers of a killed parent would wait for work for ever or go on, and with them the locks that they hold.
    def wait() -> None:
        parent()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
