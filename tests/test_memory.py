"""The allocator's switch: asked for once each, believed when it says no, harmless where it is not there."""

import ctypes
import sys
from types import SimpleNamespace

import pytest

from pslib.training.memory import keep_freed_memory


@pytest.mark.parametrize("answers", [(1, 1), (1, 0), (0, 1)])
def test_both_thresholds_are_raised_and_a_refusal_is_told(monkeypatch, answers):
    asked = {}

    def mallopt(name, value):
        asked[name] = value
        return answers[len(asked) - 1]

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert keep_freed_memory() is all(answers)
    # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h; both are C ints.
    assert set(asked) <= {-3, -1} and all(2**27 < value < 2**31 for value in asked.values())
    if all(answers):
        assert set(asked) == {-3, -1}


def test_a_missing_c_library_is_no_error(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert keep_freed_memory() is False


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("asked a C library"))
    assert keep_freed_memory() is False
