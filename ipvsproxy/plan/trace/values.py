"""The packet that is traced, the state that it meets, and the trace: every step with its reason, and the outcome."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.addresses import family
from ipvsproxy.model.items import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import RealServer, VirtualServer, VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.plan.host_firewall import HostFirewallFinding
    from ipvsproxy.plan.trace.table import FirewallTable


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection.

    `protocol` is IANA's number, `port` the destination's, 0 where the protocol has none; ICMP is an echo request.
    `arrives_by` is the name of the interface, None for a packet of a process of the node. Such a process may leave
    the choice of its source to the kernel: None.
    """

    destination: Address
    protocol: int
    port: int = 0
    source: Address | None = None
    arrives_by: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a packet that can't be."""
        if self.source is None:
            if self.arrives_by is not None:
                raise ValueError("a packet that arrives by an interface has a source")
        elif family(self.source) is not family(self.destination):
            raise ValueError("a packet's source and destination are of one family")


class TracedState(NamedTuple):
    """What decides about packets to services, planned or as found in the kernel.

    `bound` are the addresses on the dummy interface, `own` those that the node has otherwise; of these, the first of a
    family that is no loopback address is the source of what the node sends to others. `listening` are the protocols and
    ports that processes of the node listen on, at all addresses. `full` are the real servers that have as many
    connections as they may have. `unreached` are the addresses of real servers that the node can't send to, and why:
    NO_ROUTE or LINK_DOWN. `ways` are the interfaces by which the node reaches real servers, as far as they are known.
    """

    table: FirewallTable
    virtual_servers: Mapping[VirtualServerKey, VirtualServer]
    bound: AbstractSet[Address]
    own: Sequence[Address]
    listening: AbstractSet[tuple[int, int]] = frozenset()
    full: AbstractSet[tuple[VirtualServerKey, RealServer]] = frozenset()
    unreached: Mapping[Address, KernelReason] = {}
    ways: Mapping[Address, str] = {}


class Outcome(enum.StrEnum):
    """What the client sees of it."""

    ANSWERED = "answered by an endpoint"
    REFUSED = "refused at once"
    DROPPED = "dropped without an answer"
    NODE = "answered by the node itself"
    NOT_OURS = "not for this node"


class SourceSeen(enum.StrEnum):
    """Which source address an endpoint sees. `CLIENT` is the packet's, as it was sent."""

    CLIENT = "the client's own"
    MASQUERADED = "the node's, masqueraded"


class Answer(NamedTuple):
    """An endpoint that may get the connection."""

    address: Address
    port: int
    source: SourceSeen


class Stage(enum.StrEnum):
    """Where on its way a packet is; the hooks have netfilter's names."""

    SOURCE = "source"
    PREROUTING = "prerouting"
    ROUTING = "routing"
    INPUT = "input"
    IPVS = "IPVS"
    OUTPUT = "output"
    POSTROUTING = "postrouting"
    FORWARD = "forward"
    NODE = "node"


class KernelReason(enum.StrEnum):
    """Why the kernel itself does something with the packet, where no rule does."""

    SOURCE_GIVEN = "the process chose its source"
    SOURCE_OF_LOCAL = "the destination is an address of the node, which a process has for its source then"
    SOURCE_OF_OTHER = "the destination is no address of the node"
    NO_SOURCE = "the node has no address of the family"
    BOUND = "the destination is bound on the dummy interface"
    OWN = "the destination is an address of the node"
    NOT_LOCAL = "the destination is no address of the node"
    NO_VIRTUAL_SERVER = "no virtual server has this address, protocol and port"
    NO_REAL_SERVERS = "the virtual server has no real server with a weight above 0"
    FULL = "each real server with a weight above 0 has its maximum of connections"
    HASHED = "the scheduler keeps to its choice of a real server that has weight 0 now"
    SCHEDULED = "the virtual server has a real server with a weight above 0"
    NO_ROUTE = "the node has no route to the real server, or one that leads nowhere"
    LINK_DOWN = "the interface that leads to the real server is down"
    REAL_SERVER_OF_NODE = "the real server has an address of the node"
    ECHO = "the kernel answers pings"
    LISTENING = "a process of the node listens on the port"
    NOT_LISTENING = "no process of the node listens on the port"


class Step(NamedTuple):
    """One step on the way.

    `reason` is the duty of the rule of `chain`, or what the kernel itself goes by, with chain "". `effect` is what
    became of the packet. `items` are the entries of sets and tables behind it. Once IPVS has put in a real server, each
    of them is followed, and `real_server` says which. `host_drop` is the chain of the host's own firewall that
    drops the packet here; `undecided` says that it can't be told whether one does.
    """

    stage: Stage
    reason: str
    effect: str
    chain: str = ""
    items: tuple[Item, ...] = ()
    real_server: RealServer | None = None
    host_drop: HostFirewallFinding | None = None
    undecided: bool = False

    def __str__(self) -> str:
        """Return one line: `STAGE, chain CHAIN: REASON (ITEMS): EFFECT`."""
        chain = f", chain {self.chain}" if self.chain else ""
        items = f" ({', '.join(map(describe, self.items))})" if self.items else ""
        return f"{self.stage}{chain}: {self.reason}{items}: {self.effect}"


class Trace(NamedTuple):
    """The way of a packet.

    `outcome` is ANSWERED only if each real server that IPVS may choose gets the connection; `answers` are those that
    do, sorted by address and port. Every one with a weight above 0 may be chosen that is not full. `source` is what the
    packet was sent with, None if the node has no address to send it with.
    """

    source: Address | None
    steps: tuple[Step, ...]
    outcome: Outcome
    answers: tuple[Answer, ...] = ()

    @property
    def undecided(self) -> tuple[Step, ...]:
        """The chains of the host's own firewall that may make another end of it, each once."""
        steps = (step._replace(real_server=None) for step in self.steps if step.undecided)
        return tuple(dict.fromkeys(steps))

    @property
    def host_drops(self) -> tuple[HostFirewallFinding, ...]:
        """The chains of the host's own firewall that drop it for certain, each once."""
        return tuple(dict.fromkeys(step.host_drop for step in self.steps if step.host_drop))
