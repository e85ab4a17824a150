"""Connection tracking entries are forgotten on a real kernel, and what their clients send next is served."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from ipvsproxy.kernel.addresses import DummyInterface
from ipvsproxy.kernel.conntrack import ConntrackNetlink
from ipvsproxy.kernel.conntrack_codec import decode_destination, encode_get_destination
from ipvsproxy.kernel.fake_conntrack import ConntrackEntry
from ipvsproxy.kernel.interface import Flow
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.kernel.netlink import NetlinkClient
from ipvsproxy.kernel.netlink_codec import NLM_F_CREATE, NLM_F_EXCL, encode_message
from ipvsproxy.kernel.nfnetlink import NETLINK_NETFILTER
from ipvsproxy.model.addresses import Family, format_address
from ipvsproxy.model.ipvs import Command, IpvsOperation, RealServer, VirtualServerKey
from ipvsproxy.model.objects import Protocol
from netns_tests.deadline import PATIENCE, await_that
from netns_tests.namespaces import Namespace
from netns_tests.servers import DATAGRAM_PORT, Servers
from netns_tests.topology import Topology
from tests.builders import address, key, virtual_server
from tests.kernel.conntrack_kernel import NEW, SEEN_REPLY, dumped
from tests.kernel.contract_conntrack import ENTRY, ENTRY6, ConntrackContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from netns_tests.topology import Network

NODE = "node-a"
PODS = ("client", "first", "second")
# Outside of the networks that the topology knows: without a virtual server the node sends on what comes for them.
SERVICE_ADDRESSES = {Family.IPV4: "203.0.113.10", Family.IPV6: "2001:db8:113::10"}
PORT = 53
# The kernel tracks connections in a namespace once a rule there asks about them.
TRACKING = "table inet tracking { chain prerouting { type filter hook prerouting priority 0; ct state new accept; }; }"
MASQUERADING = """table inet masquerading {
    chain postrouting { type nat hook postrouting priority srcnat; udp dport 5353 masquerade; }
}"""


class KernelTable:
    """The entries of a namespace; the test is in it."""

    def __init__(self, conntrack: ConntrackNetlink) -> None:
        self.conntrack = conntrack

    def add(self, *entries: ConntrackEntry) -> None:
        with NetlinkClient(NETLINK_NETFILTER) as client:
            refused = client.execute(
                encode_message(NEW, NLM_F_CREATE | NLM_F_EXCL, dumped(each)) for each in entries
            )
        if any(error.code == errno.EOPNOTSUPP for error in refused.values()):
            pytest.skip("this kernel has no conntrack zones (CONFIG_NF_CONNTRACK_ZONES)")
        assert refused == {}

    def entries(self) -> set[ConntrackEntry]:
        return {entry for family in Family for entry in read_entries(family)}


def read_entries(family: Family) -> Iterator[ConntrackEntry]:
    """Read the entries of the family in the calling thread's namespace, but for those of protocols without ports."""
    socket_of: Callable[..., Any] = NFCTSocket
    with socket_of(nfgen_family=family) as netlink:
        for message in netlink.dump():
            client, answer = (_ends(message.get_attr(f"CTA_TUPLE_{each}")) for each in ("ORIG", "REPLY"))
            if client and answer:
                source, (to, port), protocol = client
                destination = VirtualServerKey(to, protocol, port)
                answered = bool(message.get_attr("CTA_STATUS") & SEEN_REPLY)
                yield ConntrackEntry(
                    source, destination, answer[0], message.get_attr("CTA_ZONE") or 0, answered
                )


def _ends(found: Any) -> Any:  # noqa: ANN401 - pyroute2 has no types
    """Return a tuple's source, destination and protocol; None without ports."""
    (_, source), (_, destination) = found.get_attr("CTA_TUPLE_IP")["attrs"]
    protocol = found.get_attr("CTA_TUPLE_PROTO")
    if protocol.get_attr("CTA_PROTO_SRC_PORT") is None:
        return None
    return (
        (address(source), protocol.get_attr("CTA_PROTO_SRC_PORT")),
        (address(destination), protocol.get_attr("CTA_PROTO_DST_PORT")),
        Protocol(protocol.get_attr("CTA_PROTO_NUM")),
    )


class TestKernelConntrack(ConntrackContract):
    @pytest.fixture
    def table(self) -> Iterator[KernelTable]:
        with Namespace("conntrack") as namespace, namespace.entered(), ConntrackNetlink() as conntrack:
            yield KernelTable(conntrack)


@pytest.mark.parametrize(("entry", "length"), [(ENTRY, 56), (ENTRY6, 80)], ids=["IPv4", "IPv6"])
def test_the_kernel_begins_an_entry_with_its_original_tuple(entry: ConntrackEntry, length: int) -> None:
    with Namespace("conntrack") as namespace, namespace.entered(), ConntrackNetlink() as conntrack:
        KernelTable(conntrack).add(entry)
        with NetlinkClient(NETLINK_NETFILTER) as client:
            ((found,),) = client.dump(encode_get_destination(entry.destination))
    assert decode_destination(found[:length]) == entry.destination


def test_a_part_of_nfnetlink_that_the_kernel_lacks_is_einval() -> None:
    with NetlinkClient(NETLINK_NETFILTER) as client, pytest.raises(OSError, match="Invalid") as caught:
        client.dump(encode_message(0xFF << 8 | 1, 0, bytes(4)))
    assert caught.value.errno == errno.EINVAL


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Build a node with IPVS, and with pods of which two answer datagrams."""
    with contextlib.ExitStack() as stack:
        built = stack.enter_context(Topology({NODE: PODS}).build())
        servers = stack.enter_context(Servers())
        for pod in PODS[1:]:
            servers.start(built[pod])
        for setting in ("conntrack", "expire_nodest_conn"):
            built[NODE].namespace.sysctl(f"net/ipv4/vs/{setting}", "1")
        built[NODE].namespace.run("nft", TRACKING)
        yield built


class UdpService:
    """A service address of one family on the node, and a client that keeps its port."""

    def __init__(self, network: Network, family: Family, stack: contextlib.ExitStack) -> None:
        self.key = key(SERVICE_ADDRESSES[family], PORT, Protocol.UDP)
        self._network = network
        self._family = family
        with network[NODE].namespace.entered():
            self.conntrack = stack.enter_context(ConntrackNetlink())
            self._ipvs = stack.enter_context(IpvsNetlink())
            self._addresses = stack.enter_context(DummyInterface())
        self._stack = stack

    def endpoint(self, pod: str) -> tuple[Any, int]:
        return address(self._network[pod].addresses[self._family]), DATAGRAM_PORT

    def create(self) -> None:
        self._apply(Command.NEW_SERVICE)
        self._addresses.ensure_interface()
        assert self._addresses.apply([self.key.address], []) == {}
        self._stack.callback(self._remove)
        route = ("ip", "route", "get", SERVICE_ADDRESSES[self._family])
        # The kernel makes the route to an IPv6 address a moment after it has acknowledged the address.
        await_that(
            lambda: self._network[NODE].namespace.run(*route).startswith("local"),
            "the service address is the node's",
        )

    def add(self, pod: str) -> None:
        self._apply(Command.NEW_DEST, RealServer(*self.endpoint(pod)))

    def delete(self, pod: str) -> None:
        self._apply(Command.DEL_DEST, RealServer(*self.endpoint(pod)))

    def client(self) -> Client:
        with self._network["client"].namespace.entered():
            return self._stack.enter_context(Client(self._family))

    def entries(self) -> list[ConntrackEntry]:
        """Return the entries of the service port."""
        with self._network[NODE].namespace.entered():
            return [each for each in read_entries(self._family) if each.destination == self.key]

    def masquerade(self) -> None:
        """Masquerade what goes to endpoints from now on."""
        run = self._network[NODE].namespace.run
        run("nft", MASQUERADING)
        self._stack.callback(run, "nft", "delete table inet masquerading")

    def _apply(self, command: Command, server: RealServer | None = None) -> None:
        assert self._ipvs.apply([IpvsOperation(command, virtual_server(self.key), server)]) == {}

    def _remove(self) -> None:
        self._addresses.apply([], [self.key.address])
        self._apply(Command.DEL_SERVICE)
        self.conntrack.forget([Flow(self.key)])


class Client(socket.socket):
    """A client's datagram socket: all that it sends to one address is one flow."""

    def __init__(self, family: Family) -> None:
        super().__init__(family, socket.SOCK_DGRAM)
        self.settimeout(PATIENCE)

    def tell(self, to: VirtualServerKey) -> None:
        """Send a datagram."""
        self.sendto(b"?", (format_address(to.address), to.port))

    def ask(self, to: VirtualServerKey) -> tuple[str, str]:
        """Send one datagram; return who answers, and whom it sees."""
        self.tell(to)
        name, source, _ = self.recv(4096).decode().split()
        return name, source


@pytest.fixture
def service(network: Network, family: Family) -> Iterator[UdpService]:
    with contextlib.ExitStack() as stack:
        yield UdpService(network, family, stack)


def test_ipvs_makes_the_endpoint_the_source_of_replies(service: UdpService) -> None:
    service.create()
    service.add("first")
    service.client().ask(service.key)
    (entry,) = service.entries()
    assert entry.endpoint == service.endpoint("first")


def forget_first(service: UdpService, flows: int) -> None:
    """Forget the flows of the real server that was deleted, as many as the kernel has not expired itself.

    It does so in its own time, with expire_nodest_conn (expire_nodest_conn_handler(), ip_vs_ctl.c).
    """
    assert service.conntrack.forget([Flow(service.key, service.endpoint("first"))]) <= flows
    assert service.endpoint("first") not in [each.endpoint for each in service.entries()]


def test_the_next_datagram_after_an_endpoint_is_gone_finds_a_living_one(service: UdpService) -> None:
    service.create()
    service.add("first")
    client = service.client()
    assert client.ask(service.key)[0] == "first"
    service.add("second")
    assert client.ask(service.key)[0] == "first"
    service.delete("first")
    forget_first(service, 1)
    assert client.ask(service.key)[0] == "second"


def test_flows_of_the_other_endpoint_keep_their_entry(service: UdpService) -> None:
    service.create()
    service.add("first")
    service.add("second")
    clients = [service.client() for _ in range(4)]
    served_by = {client: client.ask(service.key)[0] for client in clients}
    assert sorted(served_by.values()) == ["first", "first", "second", "second"]
    service.delete("first")
    forget_first(service, 2)
    assert [each.endpoint for each in service.entries()] == [service.endpoint("second")] * 2
    assert {client.ask(service.key)[0] for client in clients} == {"second"}


def test_a_masqueraded_flow_is_forgotten_by_its_endpoint(service: UdpService) -> None:
    service.masquerade()
    service.create()
    service.add("first")
    service.client().ask(service.key)
    assert service.conntrack.forget([Flow(service.key, service.endpoint("first"))]) == 1
    assert service.entries() == []


def test_a_flow_from_before_the_virtual_server_is_masqueraded_once_it_is_forgotten(
    network: Network, service: UdpService, family: Family
) -> None:
    service.masquerade()
    client = service.client()
    client.tell(service.key)
    await_that(lambda: len(service.entries()) == 1, "the node tracks the datagram that it sent on")
    service.create()
    service.add("first")
    assert client.ask(service.key)[1] == network["client"].addresses[family]
    assert service.conntrack.forget([Flow(service.key)]) == 1
    assert client.ask(service.key)[1] in network[NODE].own(family)
