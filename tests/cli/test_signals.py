"""What signals do to an agent that runs, beside ending it."""

from __future__ import annotations

import signal

from ipvsproxy.cli.run import _signals
from ipvsproxy.config.settings import LogFormat, LogLevel
from ipvsproxy.observe.log import Threshold, configure
from tests.observe.test_log import Recorder


def test_sigusr1_logs_more_and_sigusr2_less_and_the_log_says_so() -> None:
    recorder, threshold = Recorder(), Threshold(LogLevel.INFO)
    log = configure(LogFormat.JSON, threshold, recorder.stream)
    actions = _signals(None, threshold, log)

    for number in [signal.SIGUSR1] * 2 + [signal.SIGUSR2] * 4 + [signal.SIGUSR1]:
        actions[number]()

    assert [line["to"] for line in recorder.events] == [
        "debug",
        "debug",
        "info",
        "warning",
        "error",
        # At error there is no less, and a line that says so would not be written.
        "warning",
    ]
    assert {(line["event"], line["level"]) for line in recorder.events} == {("log level changed", "warning")}
    assert threshold.level is LogLevel.WARNING


def test_sighup_without_a_file_says_what_is_missing() -> None:
    recorder = Recorder()
    log = configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream)

    _signals(None, Threshold(LogLevel.INFO), log)[signal.SIGHUP]()

    [line] = recorder.events
    assert (line["event"], line["remedy"]) == (
        "no configuration file to read again",
        "start the agent with --config FILE",
    )
