"""The adapters keep the contracts on a real kernel, and the fake decides as the kernel does."""

from __future__ import annotations

import errno
import itertools
import json
import socket
import subprocess
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from pyroute2.ipvs import IPVS, IPVSService

from ipvsproxy.kernel.address_codec import encode_new_dummy
from ipvsproxy.kernel.addresses import DummyInterface
from ipvsproxy.kernel.fake import FakeIpvs
from ipvsproxy.kernel.interface import ConnectionTimeouts, KernelError
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.kernel.ipvs_codec import encode_operations
from ipvsproxy.kernel.netlink import (
    GENL_HEADER_SIZE,
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    NetlinkClient,
    generic_family,
    open_socket,
)
from ipvsproxy.kernel.netlink_codec import decode_attributes, encode_message
from ipvsproxy.model.ipvs import Command, IpvsOperation, RealServer, RealServerStatus, Statistics
from netns_tests.deadline import PATIENCE, await_that
from netns_tests.namespaces import Namespace
from tests.builders import address, key, virtual_server
from tests.kernel.contract_addresses import IPV4, IPV6, AddressesContract
from tests.kernel.contract_ipvs import WEB, IpvsContract, create, dump, services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipvsproxy.kernel.interface import Ipvs
    from ipvsproxy.model.ipvs import VirtualServer


def new_namespace() -> Iterator[Namespace]:
    """Yield a namespace with its loopback interface up, and stay in it."""
    with Namespace("contract") as entered, entered.entered():
        entered.run("ip", "link", "set", "lo", "up")
        yield entered


namespace = pytest.fixture(new_namespace)


@pytest.fixture
def ipvs(namespace: Namespace) -> Iterator[IpvsNetlink]:  # noqa: ARG001 - the test is in it
    with IpvsNetlink() as opened:
        yield opened


@pytest.fixture
def timeouts(namespace: Namespace) -> Iterator[Callable[[], ConnectionTimeouts]]:  # noqa: ARG001 - the test is in it
    """Read the timeouts by IPVS_CMD_GET_CONFIG."""
    with NetlinkClient(NETLINK_GENERIC) as client:
        request = encode_message(generic_family(client, "IPVS"), 0, bytes((13, 1, 0, 0)))

        def read() -> ConnectionTimeouts:
            (answer,) = client.ask(request)
            values = decode_attributes(answer, GENL_HEADER_SIZE)
            return ConnectionTimeouts(*(int.from_bytes(values[kind], sys.byteorder) for kind in (4, 5, 6)))

        yield read


class TestKernelIpvs(IpvsContract):
    pass


class KernelNode:
    def __init__(self, namespace: Namespace, addresses: DummyInterface) -> None:
        self.addresses = addresses
        self._namespace = namespace
        namespace.run("ip", "link", "add", "other", "type", "dummy")

    def bind_elsewhere(self, text: str) -> None:
        self._namespace.run("ip", "address", "add", text, "dev", "other")

    def occupy_name(self) -> None:
        self._namespace.run("ip", "link", "add", "kube-ipvs0", "type", "bridge")

    def delete_interface(self) -> None:
        self._namespace.run("ip", "link", "delete", "kube-ipvs0")

    def disable_ipv6(self) -> None:
        self._namespace.sysctl("net/ipv6/conf/kube-ipvs0/disable_ipv6", "1")


@pytest.fixture
def node(namespace: Namespace) -> Iterator[KernelNode]:
    with DummyInterface() as addresses:
        yield KernelNode(namespace, addresses)


class TestKernelAddresses(AddressesContract):
    pass


def test_virtual_servers_by_firewall_mark_or_of_other_protocols_are_not_in_the_dump(
    namespace: Namespace, ipvs: Ipvs
) -> None:
    create(ipvs, virtual_server(WEB))
    service: Callable[..., Any] = IPVSService
    with namespace.netlink(IPVS) as others:
        others.service("add", service=service(fwmark=7, af=socket.AF_INET, netmask="255.255.255.255"))
        others.service("add", service=service(addr="10.96.0.9", port=80, protocol=socket.IPPROTO_ESP))
        assert len(list(others.service("dump"))) == 3
    assert dump(ipvs) == {virtual_server(WEB)}


def test_an_open_connection_is_counted(namespace: Namespace, ipvs: Ipvs, node: KernelNode) -> None:
    namespace.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    server_address = RealServer(address("192.0.2.1"), 8080)
    create(ipvs, virtual_server(WEB, server_address))
    node.addresses.ensure_interface()
    assert node.addresses.apply([WEB.address], []) == {}
    with (
        socket.create_server(("192.0.2.1", 8080)),
        socket.create_connection(("10.96.0.1", 80), timeout=PATIENCE),
    ):
        assert ipvs.real_servers([WEB]) == {WEB: [RealServerStatus(server_address, 1, 0)]}


def test_what_goes_through_is_counted_at_the_virtual_server_and_at_its_real_server(
    namespace: Namespace, ipvs: Ipvs, node: KernelNode
) -> None:
    namespace.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    serving, idle = RealServer(address("192.0.2.1"), 8080), RealServer(address("192.0.2.1"), 8081, weight=0)
    create(ipvs, virtual_server(WEB, serving, idle))
    node.addresses.ensure_interface()
    assert node.addresses.apply([WEB.address], []) == {}
    with socket.create_server(("192.0.2.1", 8080)):
        for _ in range(3):
            socket.create_connection(("10.96.0.1", 80), timeout=PATIENCE).close()
    await_that(
        lambda: ipvs.virtual_server_statistics()[WEB].total.connections == 3, "three connections are counted"
    )
    statistics = ipvs.virtual_server_statistics()[WEB]
    assert ipvs.real_server_statistics([WEB]) == {
        WEB: {(serving.address, serving.port): statistics, (idle.address, idle.port): Statistics()}
    }
    # At least SYN, ACK and FIN of 40 bytes or more each, and SYN+ACK.
    total, per_second = statistics
    assert total.packets_in >= 9
    assert total.packets_out >= 3
    assert total.bytes_in >= 9 * 40
    assert total.bytes_out >= 3 * 40
    assert per_second.packets_in > 0
    assert per_second.bytes_in > per_second.packets_in


def test_the_interface_stays_down_and_its_addresses_are_single_hosts(
    namespace: Namespace, node: KernelNode
) -> None:
    node.addresses.ensure_interface()
    assert node.addresses.apply([IPV4, IPV6], []) == {}
    (shown,) = json.loads(namespace.run("ip", "-json", "-details", "address", "show", "kube-ipvs0"))
    assert shown["linkinfo"]["info_kind"] == "dummy"
    assert "UP" not in shown["flags"]
    assert "NOARP" in shown["flags"]
    assert [(each["local"], each["prefixlen"]) for each in shown["addr_info"]] == [
        ("10.96.0.1", 32),
        ("fd00:96::1", 128),
    ]
    assert not any("tentative" in each for each in shown["addr_info"])


def test_a_service_address_is_never_chosen_as_the_source_of_other_traffic(
    namespace: Namespace, node: KernelNode
) -> None:
    node.addresses.ensure_interface()
    assert node.addresses.apply([IPV4, IPV6], []) == {}
    (shown,) = json.loads(namespace.run("ip", "-json", "address", "show", "kube-ipvs0"))
    ipv4, ipv6 = shown["addr_info"]
    assert ipv4["scope"] == "host"
    assert ipv6["deprecated"]
    assert ipv6["valid_life_time"] == 0xFFFFFFFF


def test_the_kernels_own_text_explains_a_refusal() -> None:
    names = ["kube-ipvs0-is-too-long", "lo"]
    with NetlinkClient(NETLINK_ROUTE) as client:
        assert client.execute(map(encode_new_dummy, names)) == {
            0: KernelError(errno.ERANGE, "Attribute failed policy validation"),
            1: KernelError(errno.EEXIST),
        }


def test_lost_answers_are_reported_and_the_next_batch_goes_through(namespace: Namespace) -> None:  # noqa: ARG001 - the test is in it
    def open_small_socket(protocol: int) -> socket.socket:
        opened = open_socket(protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        return opened

    with NetlinkClient(NETLINK_GENERIC, open_small_socket) as client:
        message_type = generic_family(client, "IPVS")
        missing = services(Command.DEL_SERVICE, *[virtual_server(WEB)] * 256)
        found = client.execute(encode_operations(missing, message_type))
        assert list(found) == list(range(256))
        assert {error.code for error in found.values()} == {errno.ESRCH, errno.ENOBUFS}
        assert found[0].code == errno.ESRCH
        assert found[255].code == errno.ENOBUFS
        new = services(Command.NEW_SERVICE, virtual_server(WEB), virtual_server(WEB))
        assert client.execute(encode_operations(new, message_type)) == {1: KernelError(errno.EEXIST)}


def test_a_family_that_the_kernel_has_not_is_enoent() -> None:
    with NetlinkClient(NETLINK_GENERIC) as client, pytest.raises(FileNotFoundError):
        generic_family(client, "NO_SUCH_FAMILY")


@pytest.mark.parametrize(
    "statement",
    [
        "from ipvsproxy.kernel.ipvs import IpvsNetlink as Adapter; Adapter()",
        "from ipvsproxy.kernel.addresses import DummyInterface as Adapter; Adapter().ensure_interface()",
    ],
)
def test_without_the_capability_the_error_names_it(statement: str) -> None:
    drop = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    ended = subprocess.run(
        [*drop, sys.executable, "-c", statement], capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines()[-1].startswith("ipvsproxy.kernel.interface.KernelUnavailableError")
    assert "CAP_NET_ADMIN" in ended.stderr


KEYS = [key("10.96.0.1"), key("10.96.0.1", 53), key("fd00:96::1")]


def any_virtual_server(random: Random) -> VirtualServer:
    return virtual_server(
        random.choice(KEYS),
        scheduler=random.choice(["rr", "wlc", "sh", "none", "no-such", "", "far-too-long-a-name"]),
        flags=random.choice([0, 0x1, 0x4, 0x18, 0x3D]),
        timeout=random.choice([0, 1, 10800, 86400]),
    )


def any_real_server(random: Random) -> RealServer:
    return RealServer(
        address(random.choice(["10.244.0.1", "10.244.0.2", "fd00:244::1", "224.0.0.1", "ff02::1"])),
        random.choice([0, 80, 65535]),
        random.choice([-1, 0, 1, 65535]),
        random.choice([0, 1, 2, 2]),
        random.choice([0, 0, 1, 2]),
    )


def any_operation(random: Random) -> IpvsOperation:
    # Few deletions of virtual servers: an empty table refuses everything alike.
    if random.random() < 0.3:
        command = random.choice([Command.NEW_SERVICE] * 5 + [Command.SET_SERVICE] * 4 + [Command.DEL_SERVICE])
        return IpvsOperation(command, any_virtual_server(random))
    command = random.choice([Command.NEW_DEST, Command.SET_DEST, Command.DEL_DEST])
    return IpvsOperation(command, any_virtual_server(random), any_real_server(random))


@pytest.mark.parametrize("seed", range(10))
def test_the_fake_answers_and_ends_as_the_kernel_does(ipvs: Ipvs, seed: int) -> None:
    random, fake = Random(seed), FakeIpvs()  # noqa: S311 - no secrets
    for _ in range(20):
        operations = [any_operation(random) for _ in range(100)]
        assert ipvs.apply(operations) == fake.apply(operations)
        found = {each.key: each for each in dump(ipvs)}
        assert found == {each.key: each for each in itertools.chain.from_iterable(fake.virtual_servers())}
        assert ipvs.real_servers(KEYS) == fake.real_servers(KEYS)
