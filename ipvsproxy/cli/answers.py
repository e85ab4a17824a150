"""What the commands that show something have in common: the agent is asked, the kernel is read, JSON is written."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.kernel.interface import FirewallError
from ipvsproxy.observe.agent_socket import AgentNotRunningError, AgentSilentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.observe.schema import AgentReport


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
    return msgspec.json.format(msgspec.json.encode(document).decode(), indent=2) + "\n"
