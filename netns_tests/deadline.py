"""Waiting for something to become true, with a limit that only a fault reaches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 600.0
"""Seconds until a test gives up. They are many, because a test must not fail on a slow machine."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


class DeadlineError(AssertionError):
    """What had to become true did not."""


def await_that(condition: Callable[[], object], description: str, patience: float = PATIENCE) -> None:
    """Return once the condition holds; DeadlineError with the description, a sentence, if it never does."""
    end = time.monotonic() + patience
    pause = _FIRST_PAUSE
    while not condition():
        if time.monotonic() > end:
            raise DeadlineError(f"not within {patience:g} s: {description}")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)
