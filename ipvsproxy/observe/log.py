"""The log: one event a line, with fields, for a machine (JSON) or for a person at a terminal.

Each line has `time` (ISO 8601, UTC), `level`, `event` and the fields of the event. The libraries' warnings, which
come through the standard library's logging, become events too. No line has credentials in it.

Whoever else wants to know of the lines listens: it hears those of level info and above, whatever the log's own level
is, with plain values only.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import TimeStamper, add_log_level, format_exc_info

from ipvsproxy.config.settings import LogFormat, LogLevel
from ipvsproxy.observe.printable import printable, printable_json, printable_lines
from ipvsproxy.observe.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO, TextIO

    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

    # Called by whatever thread logs, with the fields of a line: it keeps them as they are, and takes no long.
    Listener: TypeAlias = Callable[[EventDict], None]

_PLAIN = (int, float, bool, type(None))
# The names that structlog has for levels, and their order; "critical" is nobody's setting.
_ORDER: Final = {name: order for order, name in enumerate([*LogLevel, "critical"])}


class Threshold:
    """The least important lines that are written; any thread may change it while others log."""

    def __init__(self, level: LogLevel) -> None:
        """Begin with a level."""
        self.level = level

    def neighbour(self, by: int) -> LogLevel:
        """Return the level that is so many levels on, less important ones being before; or else the last one there."""
        levels = list(LogLevel)
        return levels[min(max(levels.index(self.level) + by, 0), len(levels) - 1)]

    def admits(self, level: str) -> bool:
        """Say whether lines of that level, in structlog's words, are written."""
        return _ORDER[level] >= _ORDER[self.level]


def configure(
    log_format: LogFormat, threshold: Threshold, stream: TextIO, *listeners: Listener
) -> FilteringBoundLogger:
    """Return the logger that writes to `stream`, each line with one call, and send the libraries' warnings to it.

    A later call takes the libraries' warnings away from the loggers of the calls before.
    """
    log = _logger(log_format, threshold, stream, listeners)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _LibraryMessages)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryMessages(log))
    logging.captureWarnings(capture=True)
    return log


def _logger(
    log_format: LogFormat, threshold: Threshold, stream: TextIO, listeners: tuple[Listener, ...]
) -> FilteringBoundLogger:
    """Build the pipeline; nothing in it is global."""
    on_terminal = stream.isatty()
    rendering: list[Processor]
    if log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and on_terminal):
        console = ConsoleRenderer(
            colors=on_terminal, exception_formatter=plain_traceback, sort_keys=False, timestamp_key="time"
        )
        rendering = [_escape, console, _encode_text]
    else:
        rendering = [_encode_json]

    def drop_unheard(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if event["level"] == LogLevel.DEBUG and not threshold.admits(LogLevel.DEBUG):
            raise structlog.DropEvent
        return event

    def tell(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if event["level"] != LogLevel.DEBUG:
            for listener in listeners:
                listener(event)
        if not threshold.admits(event["level"]):
            raise structlog.DropEvent
        return event

    logger = structlog.wrap_logger(
        structlog.BytesLogger(cast("BinaryIO", _LossyStream(stream.buffer))),
        processors=[
            add_log_level,
            drop_unheard,
            TimeStamper(fmt="iso", utc=True, key="time"),
            _order,
            format_exc_info,
            _render_values,
            tell,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LogLevel.DEBUG),
        context_class=dict,
    )
    return cast("FilteringBoundLogger", logger.bind())


class _LossyStream:
    """Lets go what can't be written: an agent goes on without its log, whether its reader is gone or the disk full."""

    def __init__(self, stream: BinaryIO) -> None:
        """Take the stream, past whose buffer lines are written: nothing unwritten is left for the process's end."""
        self._stream = getattr(stream, "raw", stream)

    def write(self, line: bytes) -> None:
        """Write a line, or as much of it as there is room for."""
        with contextlib.suppress(OSError):
            while line:
                # None from a stream that is full and does not wait.
                line = line[self._stream.write(line) or len(line) :]

    def flush(self) -> None:
        """Do nothing: no line waits here."""


class _LibraryMessages(logging.Handler):
    """Turns the records of the standard library's logging into events."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        """Take warnings and what is worse."""
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record, under the next lower level that structlog has a name for."""
        try:
            level = min(record.levelno // 10 * 10, logging.CRITICAL)
            self._log.log(
                level,
                "message of a library",
                logger=record.name,
                message=record.getMessage(),
                exc_info=record.exc_info,
            )
        except Exception:  # noqa: BLE001 - as all handlers do: a library must not fail because its message is malformed
            self.handleError(record)


def _order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the fields into the order of the line, the exception last."""
    ordered = {"time": event.pop("time"), "level": event.pop("level"), "event": event.pop("event")}
    exc_info = event.pop("exc_info", None)
    ordered.update(event)
    if exc_info:
        ordered["exc_info"] = exc_info
    return ordered


def _render_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace values that are objects by their text, and credentials in texts."""
    return {name: _rendered(value) for name, value in event.items()}


def _rendered(value: object) -> object:
    """Return the value as JSON has it: an object's own `str()` goes before the fact that it is a tuple or an enum."""
    if type(value) in _PLAIN:
        return value
    if type(value) in {list, tuple}:
        return [_rendered(item) for item in cast("list[object]", value)]
    if type(value) is dict:
        return {str(key): _rendered(item) for key, item in value.items()}
    # File names may have bytes that are no characters, which no line can be written with.
    return redact(str(value)).encode(errors="backslashreplace").decode()


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what no one can see; the console shows lists and the like by their repr(), which does so itself."""
    return {
        name: (printable_lines if name == "exception" else printable)(value)
        if isinstance(value, str)
        else value
        for name, value in event.items()
    }


def _encode_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return printable_json(msgspec.json.encode(event).decode()).encode()


def _encode_text(_logger: WrappedLogger, _method: str, line: object) -> bytes:
    return str(line).encode()
