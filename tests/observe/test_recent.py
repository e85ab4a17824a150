"""The last lines of the log, as the agent's socket gives them away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from ipvsproxy.config.settings import LogFormat, LogLevel
from ipvsproxy.observe.agent_socket import EVENTS_COMMAND, ask_events
from ipvsproxy.observe.log import Threshold, configure
from ipvsproxy.observe.recent import LONGEST, RecentEvents
from tests.observe.test_agent_socket import agent
from tests.observe.test_log import Recorder

if TYPE_CHECKING:
    from pathlib import Path


def lines(recent: RecentEvents) -> list[dict[str, Any]]:
    return [json.loads(bytes(line)) for line in recent.answer().events]


def test_lines_of_info_and_above_are_kept_as_json_whatever_is_written() -> None:
    recent, recorder = RecentEvents(), Recorder()
    log = configure(LogFormat.CONSOLE, Threshold(LogLevel.ERROR), recorder.stream, recent.hear)
    log.debug("one")
    log.info("two", service="default/web")
    log.warning("three")

    assert recorder.calls == []
    assert [(line["event"], line["level"]) for line in lines(recent)] == [
        ("two", "info"),
        ("three", "warning"),
    ]
    assert lines(recent)[0]["service"] == "default/web"
    assert list(lines(recent)[0]) == ["time", "level", "event", "service"]


def test_an_exception_is_kept_as_text() -> None:
    recent = RecentEvents()
    log = configure(LogFormat.CONSOLE, Threshold(LogLevel.INFO), Recorder().stream, recent.hear)
    try:
        raise LookupError("no such thing")  # noqa: TRY301 - it is logged here
    except LookupError:
        log.exception("sync failed")

    [line] = lines(recent)
    assert line["exception"].endswith("LookupError: no such thing")


def test_the_oldest_lines_make_room_and_are_counted() -> None:
    recent = RecentEvents(kept=2)
    for number in range(5):
        recent.hear({"event": str(number)})

    assert [line["event"] for line in lines(recent)] == ["3", "4"]
    assert recent.answer().dropped == 3


def test_a_line_that_is_very_long_is_kept_by_what_it_is_about() -> None:
    recent = RecentEvents()
    recent.hear({"time": "now", "level": "error", "event": "sync failed", "exception": "x" * LONGEST})

    [line] = lines(recent)
    assert line.keys() == {"time", "level", "event", "shortened"}
    assert line["shortened"] == f"{LONGEST + 67} bytes, the log has them"


def test_a_client_gets_them_over_the_socket(tmp_path: Path) -> None:
    recent = RecentEvents()
    recent.hear({"event": "first sync", "services": 3})
    with agent(tmp_path, {EVENTS_COMMAND: recent.answer}):
        assert ask_events(tmp_path) == [{"event": "first sync", "services": 3}]


def test_the_answer_names_the_version_of_its_schema() -> None:
    assert msgspec.to_builtins(RecentEvents().answer()) == {"schemaVersion": 1, "events": [], "dropped": 0}
