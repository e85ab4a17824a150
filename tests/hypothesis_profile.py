"""The one profile of Hypothesis, for unit tests and packet tests alike."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def load() -> None:
    """Load it before tests are collected, because `settings` in a test module take over what is loaded then.

    How long an example takes depends on what else the machine does, so it is no reason to fail. The fixtures that the
    contract suites share between examples are empty again after each.
    """
    settings.register_profile(
        "any-machine",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("any-machine")
