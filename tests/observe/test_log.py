from __future__ import annotations

import io
import json
import logging
import re
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.config.settings import LogFormat, LogLevel
from ipvsproxy.model.objects import ObjectKey, ServiceType
from ipvsproxy.observe.log import Threshold, configure

if TYPE_CHECKING:
    from collections.abc import Iterator


class Recorder(io.BytesIO):
    """What a stream writes into, call by call; it may pass for a terminal."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.calls: list[bytes] = []
        self._terminal = terminal
        self.stream = io.TextIOWrapper(self)

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - as in the class above
        self.calls.append(bytes(data))
        return len(data)

    def isatty(self) -> bool:
        return self._terminal

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.calls]

    @property
    def text(self) -> str:
        return b"".join(self.calls).decode()


@pytest.fixture(autouse=True)
def _own_standard_logging() -> Iterator[None]:
    """Leave the standard library's logging as it was."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    # Another test may have taken the warnings, which it has not given back, and pytest has since.
    logging.captureWarnings(capture=False)
    yield
    root.handlers[:] = handlers
    logging.captureWarnings(capture=False)


def fail() -> None:
    raise LookupError("no such thing")


def test_a_line_has_time_level_and_event_before_the_fields() -> None:
    recorder = Recorder()
    log = configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream)

    log.bind(thread="reconciler").warning("object rejected", kind="Service", port=80, tried=True, field=None)

    assert re.fullmatch(
        rb'\{"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","level":"warning","event":"object rejected",'
        rb'"thread":"reconciler","kind":"Service","port":80,"tried":true,"field":null\}\n',
        recorder.calls[0],
    )


def test_an_object_in_a_field_is_its_text() -> None:
    recorder = Recorder()
    log = configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream)
    key = ObjectKey("default", "web")

    log.info(
        "seen",
        object=key,
        type=ServiceType.CLUSTER_IP,
        list=[key, 1],
        map={key: key},
        error=OSError(2, "gone"),
    )

    [event] = recorder.events
    assert event["object"] == "default/web"
    assert event["type"] == "ClusterIP"
    assert event["list"] == ["default/web", 1]
    assert event["map"] == {"default/web": "default/web"}
    assert event["error"] == "[Errno 2] gone"


def test_an_exception_is_one_field_of_one_line() -> None:
    recorder = Recorder()
    log = configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream)
    try:
        fail()
    except LookupError:
        log.exception("sync failed", service="default/web")

    [event] = recorder.events
    assert event["level"] == "error"
    assert event["service"] == "default/web"
    assert event["exception"].startswith("Traceback")
    assert event["exception"].endswith("LookupError: no such thing")


def test_lines_below_the_level_are_not_written() -> None:
    recorder = Recorder()
    log = configure(LogFormat.JSON, Threshold(LogLevel.WARNING), recorder.stream)

    log.debug("one")
    log.info("two")
    log.warning("three")
    log.error("four")

    assert [event["event"] for event in recorder.events] == ["three", "four"]


def test_lines_of_many_threads_do_not_mix() -> None:
    recorder = Recorder()
    log = configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream)

    def write(thread: int) -> None:
        for number in range(100):
            log.info("line", thread=thread, number=number)

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    written = [(event["thread"], event["number"]) for event in recorder.events]
    assert sorted(written) == [(thread, number) for thread in range(4) for number in range(100)]


@pytest.mark.parametrize(
    ("log_format", "terminal", "is_json"),
    [
        (LogFormat.AUTO, False, True),
        (LogFormat.AUTO, True, False),
        (LogFormat.JSON, True, True),
        (LogFormat.CONSOLE, False, False),
    ],
)
def test_auto_is_for_a_person_on_a_terminal_only(
    log_format: LogFormat, *, terminal: bool, is_json: bool
) -> None:
    recorder = Recorder(terminal=terminal)

    configure(log_format, Threshold(LogLevel.INFO), recorder.stream).info("started")

    assert recorder.text.startswith("{") is is_json


def test_the_console_has_fields_as_key_and_value_and_colours_on_a_terminal_only() -> None:
    plain, coloured = Recorder(), Recorder(terminal=True)
    for recorder in (plain, coloured):
        log = configure(LogFormat.CONSOLE, Threshold(LogLevel.INFO), recorder.stream)
        log.info("started", version="1.0", reason="it is time", object=ObjectKey("default", "web"))

    assert re.search(
        r"\[info +\] started +version=1\.0 reason='it is time' object=default/web\n$", plain.text
    )
    assert "\x1b[" not in plain.text
    assert "\x1b[" in coloured.text


def test_the_console_shows_an_exception_in_the_same_write() -> None:
    recorder = Recorder()
    log = configure(LogFormat.CONSOLE, Threshold(LogLevel.INFO), recorder.stream)
    try:
        fail()
    except LookupError:
        log.exception("sync failed")

    [call] = recorder.calls
    assert call.endswith(b"LookupError: no such thing\n")


def test_warnings_of_libraries_become_events_and_their_chatter_does_not() -> None:
    recorder = Recorder()
    configure(LogFormat.JSON, Threshold(LogLevel.DEBUG), recorder.stream)

    logging.getLogger("urllib3.connectionpool").warning("Retrying after %s", "a timeout")
    logging.getLogger("urllib3.connectionpool").info("Starting new connection")
    logging.getLogger("odd").log(logging.ERROR + 5, "between two levels")

    events = [
        (event["level"], event["event"], event["logger"], event["message"]) for event in recorder.events
    ]
    assert events == [
        ("warning", "message of a library", "urllib3.connectionpool", "Retrying after a timeout"),
        ("error", "message of a library", "odd", "between two levels"),
    ]


def test_an_exception_that_a_library_logs_is_a_field() -> None:
    recorder = Recorder()
    configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream)
    try:
        fail()
    except LookupError:
        logging.getLogger("library").exception("failed")

    [event] = recorder.events
    assert event["exception"].endswith("LookupError: no such thing")


def test_a_malformed_message_does_not_break_the_library_that_logs_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorder = Recorder()
    others = logging.getLogger().handlers[:]
    configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream)
    [handler] = set(logging.getLogger().handlers) - set(others)

    handler.handle(logging.LogRecord("library", logging.WARNING, "file", 1, "%d of them", ("many",), None))

    assert recorder.calls == []
    assert "'%d of them'" in capsys.readouterr().err


def test_warnings_of_the_interpreter_become_events() -> None:
    recorder = Recorder()
    configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("insecure", UserWarning, stacklevel=1)

    [event] = recorder.events
    assert event["logger"] == "py.warnings"
    assert "UserWarning: insecure" in event["message"]


def test_configuring_again_takes_the_libraries_warnings_along() -> None:
    before, after = Recorder(), Recorder()
    configure(LogFormat.JSON, Threshold(LogLevel.INFO), before.stream)
    configure(LogFormat.JSON, Threshold(LogLevel.INFO), after.stream)

    logging.getLogger("library").warning("once")

    assert before.calls == []
    assert len(after.calls) == 1


def test_a_log_that_cannot_be_written_costs_its_lines_only() -> None:
    # Whoever tries to write to it finds it full; what is buffered would fail at the end of the process.
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - no path of a file
        log = configure(LogFormat.JSON, Threshold(LogLevel.INFO), full)
        log.warning("object rejected")
        logging.getLogger("library").warning("once")


def test_a_line_that_is_taken_in_parts_is_written_to_its_end() -> None:
    class Narrow(Recorder):
        def write(self, data: Any, /) -> int:  # noqa: ANN401 - as in the class above
            return super().write(data[:10])

    recorder = Narrow()
    configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream).info("a long line", field="x" * 100)

    assert json.loads(recorder.text)["field"] == "x" * 100
    assert len(recorder.calls) > 10


def test_the_level_can_change_while_others_log() -> None:
    recorder, threshold = Recorder(), Threshold(LogLevel.WARNING)
    log = configure(LogFormat.JSON, threshold, recorder.stream)

    log.info("one")
    threshold.level = threshold.neighbour(-1)
    log.info("two")
    log.debug("three")
    threshold.level = threshold.neighbour(-1)
    log.debug("four")
    threshold.level = threshold.neighbour(1)
    log.debug("five")

    assert threshold.level is LogLevel.INFO
    assert [event["event"] for event in recorder.events] == ["two", "four"]


def test_there_is_nothing_beyond_debug_and_error() -> None:
    assert Threshold(LogLevel.DEBUG).neighbour(-1) is LogLevel.DEBUG
    assert Threshold(LogLevel.ERROR).neighbour(1) is LogLevel.ERROR


def test_listeners_hear_what_is_of_info_and_above_with_plain_values() -> None:
    heard: list[dict[str, Any]] = []
    log = configure(
        LogFormat.CONSOLE,
        Threshold(LogLevel.ERROR),
        Recorder().stream,
        lambda event: heard.append(dict(event)),
    )
    log.debug("one")
    log.info("two", object=ObjectKey("default", "web"))

    assert [(event["event"], event["level"], event["object"]) for event in heard] == [
        ("two", "info", "default/web")
    ]
