"""Signals and failures that end the agent, whatever its main thread is about."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.cli.ending import ENDING, OTHERS, Ending
from ipvsproxy.config.settings import LogFormat, LogLevel
from ipvsproxy.observe.log import Threshold, configure
from netns_tests.deadline import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
SIGNALS = (*ENDING, *OTHERS)


@pytest.fixture
def ending() -> Iterator[Ending]:
    """Take the signals away from pytest, and give them back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield Ending()
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_wait(ending: Ending, number: signal.Signals) -> None:
    ending.take_signals()
    signal.raise_signal(number)
    assert ending.wait() is number


def test_signals_come_in_their_order(ending: Ending) -> None:
    ending.take_signals()
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.raise_signal(number)
    assert [ending.wait() for _ in range(3)] == [signal.SIGUSR1, signal.SIGHUP, signal.SIGINT]


@pytest.mark.parametrize("number", OTHERS)
def test_before_signals_are_taken_those_that_do_not_end_the_agent_do_nothing(
    ending: Ending, number: signal.Signals
) -> None:
    signal.raise_signal(number)
    ending.take_signals()
    signal.raise_signal(signal.SIGTERM)
    assert ending.wait() is signal.SIGTERM


def test_the_first_of_two_failures_is_raised(ending: Ending) -> None:
    first = LookupError("first")
    ending.fail(first)
    ending.fail(LookupError("second"))
    with pytest.raises(LookupError) as caught:
        ending.wait()
    assert caught.value is first


def test_signals_beyond_counting_are_not_waited_for(ending: Ending) -> None:
    ending.take_signals()
    for _ in range(1 << 17):
        signal.raise_signal(signal.SIGTERM)
    ending.fail(LookupError("last"))
    with pytest.raises(LookupError):
        ending.wait()


def test_before_signals_are_taken_sigterm_leaves_at_once(ending: Ending) -> None:
    del ending
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 0


class SignallingStream(io.BytesIO):
    """A log's stream during each of whose writes a SIGTERM arrives."""

    def write(self, line: Any, /) -> int:  # noqa: ANN401 - as in the class above
        os.kill(os.getpid(), signal.SIGTERM)
        return len(line)


def be_signalled_in_the_midst_of_a_line() -> None:
    ending = Ending()
    ending.take_signals()
    log = configure(LogFormat.JSON, Threshold(LogLevel.INFO), io.TextIOWrapper(SignallingStream()))
    log.info("starting")
    log.info("ending", signal=ending.wait())


def test_a_signal_in_the_midst_of_a_log_line_ends_the_wait() -> None:
    here = f"from {__name__} import {be_signalled_in_the_midst_of_a_line.__name__} as do; do()"
    # In a process of its own: one that waits for the log, which its own thread is writing, would never end.
    subprocess.run([sys.executable, "-c", here], check=True, cwd=REPOSITORY, timeout=PATIENCE)
