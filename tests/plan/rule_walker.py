"""What the chains at one hook do with one packet, in a word, given the elements of the sets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.firewall import SetElement
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.rules import ConnectionState, Verdict
from ipvsproxy.plan.trace.table import FirewallTable, HookPacket
from tests.builders import address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.firewall import ElementFields, FirewallSet
    from ipvsproxy.plan.rules import Chain

    Elements: TypeAlias = Mapping[FirewallSet, AbstractSet[ElementFields]]


@dataclasses.dataclass(frozen=True)
class Packet:
    """A packet at one hook; `arrives_by` and `leaves_by` are interfaces, the former "" for the node's processes."""

    source: str
    destination: str
    port: int = 80
    protocol: int = Protocol.TCP
    state: ConnectionState = ConnectionState.NEW
    mark: int = 0
    arrives_by: str = "eth0"
    leaves_by: str = "eth0"
    source_port: int = 40000
    is_reset: bool = False


class Passage(NamedTuple):
    """What became of a packet at a hook: the last word, None if no rule had one, and the mark that it left with.

    `redirected_to` is the destination that it left with, if that is another than it came with.
    """

    verdict: Verdict | None
    mark: int
    redirected_to: str | None = None


def pass_hook(hook: str, packet: Packet, chains: Iterable[Chain], elements: Elements) -> Passage:
    """Lead a packet through the chains at a hook, in the order of their priorities, until one drops it."""
    members = [SetElement(of, fields) for of, each in elements.items() for fields in each]
    came = HookPacket(
        address(packet.source),
        address(packet.destination),
        packet.protocol,
        packet.port,
        packet.mark,
        packet.state,
        packet.arrives_by or None,
        packet.leaves_by,
        source_port=packet.source_port,
        is_reset=packet.is_reset,
    )
    verdict, left, _ = FirewallTable(tuple(chains), members).at_hook(
        hook, came, settled=packet.state is not ConnectionState.NEW
    )
    if verdict is None and left.masqueraded:
        verdict = Verdict.MASQUERADE
    redirected_to = None if left.destination == came.destination else format_address(left.destination)
    return Passage(verdict, left.mark, redirected_to)
