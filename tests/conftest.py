"""What holds for all unit tests."""

from __future__ import annotations

from tests import hypothesis_profile


def pytest_configure() -> None:
    hypothesis_profile.load()
