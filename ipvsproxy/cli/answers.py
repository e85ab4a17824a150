"""What the commands that show something have in common: the agent is asked, the kernel is read, JSON is written."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

import msgspec

from ipvsproxy.cli.notices import notify
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.kernel.interface import FirewallError
from ipvsproxy.observe.agent_socket import (
    ANSWER_TIMEOUT,
    REPORT_COMMAND,
    AgentNotRunningError,
    AgentSilentError,
    ask,
)
from ipvsproxy.observe.printable import printable_json
from ipvsproxy.observe.schema import AgentReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TextIO

    from ipvsproxy.observe.agent_socket import Answer

_UNUSUAL: Final = 2.0  # seconds


def await_report(directory: Path, notices: TextIO) -> AgentReport:
    """Return the agent's report, as `await_answer` does."""
    return await_answer(directory, REPORT_COMMAND, AgentReport, notices)


def await_answer(
    directory: Path,
    command: str,
    answer_type: type[Answer],
    notices: TextIO,
    patience: float = ANSWER_TIMEOUT,
    unusual: float = _UNUSUAL,
) -> Answer:
    """Return the agent's answer to a command; errors as `ask_report`. A line says what is waited for.

    The agent has `patience` seconds to answer, and the line comes after `unusual` ones.
    """
    line = f"the agent has not answered for {unusual:g} s; waiting up to {patience:g} s"
    notice = threading.Timer(unusual, notify, [notices, line])
    notice.daemon = True
    notice.start()
    try:
        return ask(directory, command, answer_type, patience)
    finally:
        notice.cancel()


def ask_agent(ask: Callable[[], AgentReport]) -> tuple[AgentReport | None, str]:
    """Return the agent's report, None if there is none; and why nothing is known to be desired, "" if it is.

    An agent that is not synced reports, but not what it wants. OtherSchemaError and NotPermittedError are raised.
    """
    try:
        report = ask()
    except (AgentNotRunningError, AgentSilentError) as error:
        return None, str(error)
    return report, "" if report.agent.synced else "the agent has not compared everything with the kernel yet"


@contextlib.contextmanager
def reading_kernel() -> Iterator[None]:
    """Raise what keeps the kernel from being read as IpvsProxyError, which says so."""
    try:
        yield
    except FirewallError as error:
        raise IpvsProxyError(f"the nftables table can't be read: {error}") from error
    except OSError as error:
        raise IpvsProxyError(f"the kernel can't be read: {error.strerror or error}") from error


def as_json(document: msgspec.Struct) -> str:
    """Return a document as JSON for programs and people."""
    return printable_json(msgspec.json.format(msgspec.json.encode(document).decode(), indent=2)) + "\n"


def as_yaml(document: msgspec.Struct) -> str:
    """Return a document as YAML, with escapes for all that is no ASCII."""
    import yaml  # noqa: PLC0415 - few ask for it

    return yaml.dump(msgspec.to_builtins(document), Dumper=yaml.CSafeDumper, sort_keys=False)
