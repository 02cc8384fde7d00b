"""The allocator's switch: harmless where it cannot work."""

import ctypes
import sys

import pytest

from pslib.training.memory import keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_it_says_whether_the_c_library_listened(monkeypatch):
    assert keep_freed_memory() in (True, False)  # False on musl
    monkeypatch.setattr(ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert keep_freed_memory() is False


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked a C library"))
    assert keep_freed_memory() is False
