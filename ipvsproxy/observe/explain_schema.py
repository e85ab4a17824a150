"""What `ipvsproxy explain` finds out, as docs/explain.md describes it.

Field names, Services and addresses are written as in `observe.schema`, and the version counts in the same way.
"""

import enum

from ipvsproxy.model.objects import TrafficPolicy
from ipvsproxy.observe.schema import AddressKindName, AgentInfo, Schema

EXPLANATION_VERSION = 1


class ExplainedClient(Schema, frozen=True):
    """Who connects: as it was asked, with the source of its packets and the interface that they arrive by.

    `address` is None if the node has no address to send with, `interface` for a process of the node.
    """

    asked: str
    address: str | None
    interface: str | None


class ExplainedDestination(Schema, frozen=True):
    """What it connects to; who asks for it is None where no Service is known to."""

    address: str
    port: int
    protocol: str
    service: str | None
    port_name: str | None
    kind: AddressKindName | None
    traffic_policy: TrafficPolicy | None


class ExplainedStep(Schema, frozen=True):
    """One step: `reason` is the duty of the chain's rule, or what the kernel goes by where `chain` is None.

    `entries` are the entries of sets and tables behind it.
    """

    stage: str
    chain: str | None
    reason: str
    effect: str
    entries: list[str]


class ExplainedWay(Schema, frozen=True):
    """What becomes of the packet behind IPVS: the steps are the same to each of these real servers."""

    real_servers: list[str]
    steps: list[ExplainedStep]


class EndpointState(enum.StrEnum):
    """What new connections of this client have of an endpoint.

    ANSWERS gets them; UNREACHED is chosen, and they do not come to it; FULL has its maximum of connections; DRAINING
    keeps those that it has; MISSING should get them, and is not in the kernel; EXCLUDED does not serve.
    """

    ANSWERS = "answers"
    UNREACHED = "unreached"
    FULL = "full"
    DRAINING = "draining"
    MISSING = "missing"
    EXCLUDED = "excluded"


class ExplainedEndpoint(Schema, frozen=True):
    """A real server, or an endpoint that is none. `sees` is the source address that it sees, if it answers.

    `reason` is why the endpoint serves or does not; None if it is no endpoint, or without the agent. Counts are None
    if it is not in the kernel, `drain_seconds_left` unless it drains and the agent knows of it.
    """

    address: str
    port: int
    state: EndpointState
    reason: str | None
    sees: str | None
    masqueraded: bool
    weight: int | None
    maximum_connections: int | None
    active_connections: int | None
    inactive_connections: int | None
    drain_seconds_left: int | None

    def __str__(self) -> str:
        """Return `ADDRESS:PORT`."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class ExplainedOutcome(enum.StrEnum):
    """What the client meets."""

    ANSWERED = "answered"
    REFUSED = "refused"
    DROPPED = "dropped"
    NODE = "answeredByNode"
    NOT_OURS = "notForThisNode"


class Explanation(Schema, frozen=True):
    """The whole answer; lists of sentences are without full stops.

    `wanted` says what would become of the packet as the agent wants it, None if that is the same or not known;
    `differences` is None without an agent.
    `unless` is what could not be followed, and may make another end of it.
    """

    schema_version: int
    agent: AgentInfo | None
    client: ExplainedClient
    destination: ExplainedDestination
    about: list[str]
    assumptions: list[str]
    steps: list[ExplainedStep]
    ways: list[ExplainedWay]
    endpoints: list[ExplainedEndpoint]
    outcome: ExplainedOutcome
    result: str
    unless: list[str]
    wanted: str | None
    differences: list[str] | None
    next: list[str]

    @property
    def is_well(self) -> bool:
        """Whether every endpoint that may be chosen answers, for certain, and as the agent wants it."""
        answered = self.outcome in {ExplainedOutcome.ANSWERED, ExplainedOutcome.NODE}
        return answered and not self.unless and self.wanted is None
