"""What all tests share: no display, and no test that is left out by accident.

Under ``CI=true`` a skipped test fails unless its reason is registered in ``EXPECTED_SKIPS``: a suite that
skips its way to green proves nothing.
"""

import os

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

# The beginnings of reasons for which a test may be skipped even in CI, each with why.
EXPECTED_SKIPS = (
    "needs a GPU",  # CI has none; `make test` on a machine with one runs them
)


def unexpected_skip(reason: str) -> bool:
    """True if CI must not accept this skip."""
    reason = reason.removeprefix("Skipped: ")
    return os.environ.get("CI") == "true" and not reason.startswith(EXPECTED_SKIPS)


def _fail_if_unexpected(report) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if unexpected_skip(reason):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI=true for an unregistered reason ({reason}): see tests/conftest.py"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _fail_if_unexpected(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _fail_if_unexpected(report)
    return report
