"""What all tests share."""

from __future__ import annotations

import pytest


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Write lone surrogates as escapes: what tests of hostile text log or show must reach xdist's controller."""
    report = yield
    report.sections = [(title, _sendable(text)) for title, text in report.sections]
    if report.longrepr is not None and not isinstance(report.longrepr, tuple):
        text = str(report.longrepr)
        if text != _sendable(text):
            report.longrepr = _sendable(text)
    return report
