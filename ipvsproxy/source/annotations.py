"""What a Service's annotations ask of the agent: those whose names begin with `ipvsproxy.io/`.

None makes a Service unusable: one with a wrong value counts as not given, and a reason says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from ipvsproxy.config.durations import parse_duration
from ipvsproxy.config.readers import read_scheduler
from ipvsproxy.model.ipvs import ServiceFlag
from ipvsproxy.model.objects import ServiceOptions
from ipvsproxy.source.fields import UnusableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Value = TypeVar("Value")

PREFIX: Final = "ipvsproxy.io/"
SCHEDULER: Final = f"{PREFIX}scheduler"
SCHEDULER_FLAGS: Final = f"{PREFIX}scheduler-flags"
DRAIN_TIMEOUT: Final = f"{PREFIX}drain-timeout"
MAXIMUM_CONNECTIONS: Final = f"{PREFIX}maximum-connections-per-endpoint"
ANNOTATIONS: Final = (SCHEDULER, SCHEDULER_FLAGS, DRAIN_TIMEOUT, MAXIMUM_CONNECTIONS)

# u_threshold of struct ip_vs_dest_user_kern has 32 bits (net/ip_vs.h); connections are counted in a signed number.
HIGHEST_THRESHOLD: Final = 2**31 - 1
# Go's time.Duration counts nanoseconds in a signed number of 64 bits: 292 years.
LONGEST_DURATION: Final = 2**63 / 10**9
# The API lets annotations be 256 KiB long. No value that means something comes near this.
LONGEST_VALUE: Final = 100

# ipvsadm(8), --sched-flags: bits of any scheduler, and the names that two schedulers have for them.
_FLAGS: Final[Mapping[str, tuple[ServiceFlag, str | None]]] = {
    "flag-1": (ServiceFlag.SCHEDULER_1, None),
    "flag-2": (ServiceFlag.SCHEDULER_2, None),
    "flag-3": (ServiceFlag.SCHEDULER_3, None),
    "sh-fallback": (ServiceFlag.SCHEDULER_1, "sh"),
    "sh-port": (ServiceFlag.SCHEDULER_2, "sh"),
    "mh-fallback": (ServiceFlag.SCHEDULER_1, "mh"),
    "mh-port": (ServiceFlag.SCHEDULER_2, "mh"),
}

_NO_OPTIONS: Final = ServiceOptions()


def read_options(annotations: object, left_out: list[UnusableError]) -> ServiceOptions:
    """Return what metadata.annotations asks for; what is wrong or unknown of it counts as not given."""
    if not isinstance(annotations, dict):
        return _NO_OPTIONS
    own = {
        name: text for name, text in annotations.items() if isinstance(name, str) and name.startswith(PREFIX)
    }
    if not own:
        return _NO_OPTIONS

    def read(name: str, reader: Callable[[str], Value], default: Value) -> Value:
        if name not in own:
            return default
        try:
            return reader(_text(own[name]))
        except ValueError as error:
            left_out.append(UnusableError(_field(name), error))
            return default

    scheduler = read(SCHEDULER, read_scheduler, None)
    options = ServiceOptions(
        scheduler,
        read(SCHEDULER_FLAGS, lambda text: _read_flags(text, scheduler), 0),
        read(DRAIN_TIMEOUT, _read_drain_timeout, None),
        read(MAXIMUM_CONNECTIONS, _read_maximum_connections, 0),
    )
    unknown = f"is not known: {', '.join(ANNOTATIONS)} are"
    left_out += [UnusableError(_field(name), unknown) for name in own if name not in ANNOTATIONS]
    return options


def _field(name: str) -> str:
    return f"metadata.annotations[{name}]"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a string: put the value in quotes")  # noqa: TRY004 - a value is wrong, no code is
    if len(value) > LONGEST_VALUE:
        raise ValueError(f"is longer than {LONGEST_VALUE} characters")
    return value


def _read_flags(text: str, scheduler: str | None) -> int:
    flags = 0
    for name in (part.strip() for part in text.split(",")):
        if name not in _FLAGS:
            raise ValueError(f"{name!r} is not a scheduler flag: {', '.join(_FLAGS)}")
        flag, of_scheduler = _FLAGS[name]
        if scheduler and of_scheduler not in (None, scheduler):
            raise ValueError(
                f"{name!r} is a flag of scheduler {of_scheduler}, and {SCHEDULER} says {scheduler}"
            )
        flags |= flag
    return int(flags)


def _read_drain_timeout(text: str) -> float:
    seconds = parse_duration(text)
    if seconds > LONGEST_DURATION:
        raise ValueError(f"{text!r} is longer than a duration can be, which is 292 years")
    return seconds


def _read_maximum_connections(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= HIGHEST_THRESHOLD:
        raise ValueError(f"{text!r} is not a number from 1 to {HIGHEST_THRESHOLD}")
    return int(text)
