"""What holds for all unit tests."""

from __future__ import annotations

import signal

from tests import hypothesis_profile


def pytest_configure() -> None:
    hypothesis_profile.load()
    # A shell has what it starts in the background ignore SIGINT, and so would the programs that tests start and end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
