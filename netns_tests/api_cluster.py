"""A cluster whose objects come from an API server, on the loopback interface of the node whose agent runs."""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import subprocess
import uuid
from typing import TYPE_CHECKING, NamedTuple

from pyroute2.netlink.exceptions import NetlinkError

from ipvsproxy.observe.agent_socket import ask_report
from ipvsproxy.reconcile.planning import FOREIGN
from netns_tests import manifests, others
from netns_tests.bare_node import REPOSITORY, Node
from netns_tests.cluster import TOPOLOGY
from netns_tests.deadline import DeadlineError, await_that
from netns_tests.program import PROGRAM
from netns_tests.servers import HTTP_PORT, Servers
from netns_tests.topology import CLUSTER_CIDRS, Kind
from netns_tests.traffic import Answer, Target, failure_of
from tests.api_server_state import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from ipvsproxy.model.addresses import Family
    from netns_tests.bare_node import Agent
    from netns_tests.topology import Host, Network
    from tests.api_server import ApiServer
    from tests.api_server_state import Object

HTTP = manifests.Port("http", 80, HTTP_PORT)


class Complaint(NamedTuple):
    """What the agent says is wrong with an object: in `dump`, and with the object's uid in an Event.

    `foreign` if somebody else's virtual server is the reason.
    """

    kind: str
    name: str
    field: str
    reason: str
    foreign: bool = False


class ApiCluster:
    """The topology, with servers in every pod and outside, and the API server; the agent is yet to be started.

    Hosts by name, as in `cluster["web-1"]`.
    """

    def __init__(self, network: Network, servers: Servers, node: Node, api: ApiServer) -> None:
        """Take the parts, which somebody else ends."""
        self.network = network
        self.servers = servers
        self.node = node
        self.api = api

    @classmethod
    @contextlib.contextmanager
    def built(cls, directory: Path) -> Iterator[ApiCluster]:
        """Build it; the Nodes have the topology's names and addresses."""
        with TOPOLOGY.build() as network, Servers() as servers:
            for host in network.of(Kind.POD) + network.of(Kind.OUTSIDE):
                servers.start(host)
            node = Node(network["node-a"].namespace, directory)
            with node.api_server() as api:
                api.state.delete("Service", "default", "web")
                api.state.delete("EndpointSlice", "default", "web-1")
                cluster = cls(network, servers, node, api)
                for host in network.of(Kind.NODE):
                    cluster.put(manifests.node(host.name, addresses=host.addresses.values()))
                yield cluster

    def __getitem__(self, name: str) -> Host:
        """Return the host of that name."""
        return self.network[name]

    @property
    def host(self) -> Host:
        """The node whose agent runs."""
        return self["node-a"]

    def agent(self, *flags: str) -> Agent:
        """Start the agent, with more flags; a change is written at once."""
        return self.node.agent(
            *self.node.api_flags(self.api),
            f"--cluster-cidr={','.join(CLUSTER_CIDRS)}",
            "--min-sync-period=0s",
            *flags,
        )

    def put(self, *objects: Object) -> None:
        """Create objects, or replace them; each has a uid that follows from its kind and name."""
        for each in objects:
            contents = copy.deepcopy(each)
            contents["metadata"]["uid"] = uid(each["kind"], each["metadata"]["name"])
            self.api.state.apply(contents)

    def delete(self, *objects: Object) -> None:
        """Delete objects; one that is gone already is no error."""
        for each in objects:
            with contextlib.suppress(KeyError):
                self.api.state.delete(
                    each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]
                )

    def slice(self, service: str, family: Family, *pods: str) -> Object:
        """Return an EndpointSlice of a Service with these pods, which serve HTTP."""
        endpoints = [manifests.Endpoint(self[pod].addresses[family], self[pod].node) for pod in pods]
        return manifests.endpoint_slice(
            f"{service}-{family.name.lower()}", service, family, endpoints, [HTTP]
        )

    def dump(self, *options: str) -> str:
        """Return what `ipvsproxy dump` prints on the node."""
        with self.host.namespace.entered():
            return subprocess.run(
                [*PROGRAM, "dump", *options, self.node.run_directory_flag],
                capture_output=True,
                text=True,
                check=True,
                cwd=REPOSITORY,
            ).stdout

    def complaints(self) -> set[Complaint]:
        """Return all that the agent says is wrong with objects, to whoever asks it on its socket."""
        return {
            Complaint(each.kind, each.name, each.field, each.reason, each.foreign)
            for each in ask_report(self.node.run_directory).rejections
        }

    def notes(self, kind: str, name: str) -> list[str]:
        """Return the notes of the Events about an object, by its uid, sorted."""
        return sorted(
            event["note"]
            for event in self.api.state.objects(EVENTS)
            if (event["regarding"]["kind"], event["regarding"]["name"], event["regarding"].get("uid"))
            == (kind, name, uid(kind, name))
        )

    def kernel_lacks_scheduler(self, scheduler: str) -> bool:
        """Say whether the kernel refuses a virtual server for want of the scheduler."""
        target = Target("203.0.113.250", 1)
        try:
            others.add_virtual_server(self.host, target, scheduler, [])
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise
            return True
        others.delete_virtual_server(self.host, target)
        return False

    def await_complaints(self, *expected: Complaint) -> None:
        """Wait until these, and no others, are what the agent says, and until each field of them has its Event."""
        _await_equal(self.complaints, set(expected), "what the agent says of objects")
        for kind, name in {each[:2] for each in expected}:
            notes = _notes(each for each in expected if each[:2] == (kind, name))
            _await_equal(functools.partial(self.notes, kind, name), notes, f"the Events about {kind} {name}")

    def await_answer(self, origin: str, target: Target, pod: str) -> None:
        """Wait until a host's new connections are answered by a pod, or by the node itself."""
        _await_equal(lambda: answerer(self[origin], target), pod, f"who answers {origin} at {target}")


def answerer(origin: Host, target: Target, patience: float = 1.0) -> str:
    """Return the name of the server that answers a new connection, or what the client meets instead."""
    met = failure_of(origin, target, patience)
    return met.server if isinstance(met, Answer) else met


def _notes(complaints: Iterable[Complaint]) -> list[str]:
    """Return the notes of the Events about one object: one for each field and kind of reason."""
    reasons: dict[tuple[str, bool], list[str]] = {}
    for each in sorted(complaints):
        reasons.setdefault((each.field, each.foreign), []).append(each.reason)
    told = {place: FOREIGN if place[1] else "; ".join(every) for place, every in reasons.items()}
    return sorted(f"{field}: {note}" if field else note for (field, _), note in told.items())


def uid(kind: str, name: str) -> str:
    """Return the uid that an object has."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{kind}/{name}"))


def _await_equal(look: Callable[[], object], expected: object, what: str) -> None:
    """Wait until something is as expected; the failure says what it was at last."""
    found = [look()]

    def equal() -> bool:
        found[0] = look()
        return found[0] == expected

    try:
        await_that(equal, f"{what}: {expected}")
    except DeadlineError as error:
        raise DeadlineError(f"{error}; it is {found[0]}") from None
