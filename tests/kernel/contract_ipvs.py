"""What every implementation of `Ipvs` does: run on the fake everywhere, and on a kernel in netns_tests.

A subclass named Test* provides the fixture `ipvs`: empty tables, in a network namespace whose loopback interface is
up (without any address in the namespace the kernel refuses every IPv4 real server); and the fixture `timeouts`, which
returns the timeouts that are in force there.
"""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.interface import ConnectionTimeouts
from ipvsproxy.model.ipvs import (
    Command,
    IpvsOperation,
    RealServer,
    RealServerStatus,
    ServiceFlag,
    Statistics,
)
from ipvsproxy.model.objects import Protocol
from tests.builders import address, key, real_server, virtual_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.kernel.interface import Ipvs
    from ipvsproxy.model.ipvs import VirtualServer, VirtualServerKey

    Timeouts = Callable[[], ConnectionTimeouts]

WEB = key("10.96.0.1")
WEB6 = key("fd00:96::1")
FIRST = real_server("10.244.0.1")
SECOND = real_server("10.244.0.2")


def services(command: Command, *virtual_servers: VirtualServer) -> list[IpvsOperation]:
    return [IpvsOperation(command, each) for each in virtual_servers]


def destinations(command: Command, of: VirtualServer, *real_servers: RealServer) -> list[IpvsOperation]:
    return [IpvsOperation(command, of, each) for each in real_servers]


def create(ipvs: Ipvs, *virtual_servers: VirtualServer) -> None:
    """Create the virtual servers with their real servers."""
    for each in virtual_servers:
        operations = services(Command.NEW_SERVICE, each)
        operations += destinations(Command.NEW_DEST, each, *each.real_servers)
        assert ipvs.apply(operations) == {}


def codes(ipvs: Ipvs, operations: list[IpvsOperation]) -> dict[int, int]:
    """Apply the operations and return the errno of the refused ones by index."""
    return {index: error.code for index, error in ipvs.apply(operations).items()}


def dump(ipvs: Ipvs) -> set[VirtualServer]:
    return set(itertools.chain.from_iterable(ipvs.virtual_servers()))


def real_servers(ipvs: Ipvs, of: VirtualServerKey) -> list[RealServer]:
    return [status.real_server for status in ipvs.real_servers([of])[of]]


class IpvsContract:
    def test_empty_tables_have_no_virtual_servers(self, ipvs: Ipvs) -> None:
        assert dump(ipvs) == set()

    @pytest.mark.parametrize("text", ["10.96.0.1", "fd00:96::1"])
    @pytest.mark.parametrize("protocol", Protocol)
    def test_a_new_virtual_server_is_in_the_dump(self, ipvs: Ipvs, text: str, protocol: Protocol) -> None:
        new = virtual_server(key(text, 53, protocol), scheduler="wlc")
        create(ipvs, new)
        assert dump(ipvs) == {new}

    @pytest.mark.parametrize("of", [WEB, WEB6])
    def test_persistence_is_read_back_with_its_timeout(self, ipvs: Ipvs, of: VirtualServerKey) -> None:
        new = virtual_server(of, flags=ServiceFlag.PERSISTENT, timeout=10800)
        create(ipvs, new)
        assert dump(ipvs) == {new}

    def test_flags_of_the_scheduler_are_read_back(self, ipvs: Ipvs) -> None:
        flags = ServiceFlag.SCHEDULER_1 | ServiceFlag.SCHEDULER_2
        create(ipvs, virtual_server(WEB, scheduler="sh", flags=flags))
        assert {each.flags for each in dump(ipvs)} == {flags}

    def test_the_same_address_and_port_may_serve_each_protocol(self, ipvs: Ipvs) -> None:
        virtual_servers = [virtual_server(key("10.96.0.1", 53, protocol), FIRST) for protocol in Protocol]
        create(ipvs, *virtual_servers)
        assert dump(ipvs) == {each._replace(real_servers=()) for each in virtual_servers}
        assert ipvs.apply(services(Command.DEL_SERVICE, virtual_servers[0])) == {}
        assert list(ipvs.real_servers([each.key for each in virtual_servers])) == [
            each.key for each in virtual_servers[1:]
        ]

    def test_a_virtual_server_is_edited_in_place(self, ipvs: Ipvs) -> None:
        create(ipvs, virtual_server(WEB, FIRST, SECOND))
        edited = virtual_server(WEB, scheduler="sh", flags=ServiceFlag.PERSISTENT, timeout=60)
        assert ipvs.apply(services(Command.SET_SERVICE, edited)) == {}
        assert dump(ipvs) == {edited}
        assert real_servers(ipvs, WEB) == [FIRST, SECOND]
        assert ipvs.apply(services(Command.SET_SERVICE, virtual_server(WEB))) == {}
        assert dump(ipvs) == {virtual_server(WEB)}

    def test_a_virtual_server_takes_its_real_servers_with_it(self, ipvs: Ipvs) -> None:
        create(ipvs, virtual_server(WEB, FIRST))
        assert ipvs.apply(services(Command.DEL_SERVICE, virtual_server(WEB))) == {}
        assert ipvs.real_servers([WEB]) == {}
        create(ipvs, virtual_server(WEB))
        assert ipvs.real_servers([WEB]) == {WEB: []}

    def test_creating_a_virtual_server_twice_is_eexist(self, ipvs: Ipvs) -> None:
        create(ipvs, virtual_server(WEB))
        again = services(Command.NEW_SERVICE, virtual_server(WEB, scheduler="no-such"))
        assert codes(ipvs, again) == {0: errno.EEXIST}
        assert dump(ipvs) == {virtual_server(WEB)}

    @pytest.mark.parametrize("of", [WEB, WEB6])
    def test_everything_else_on_a_missing_virtual_server_is_esrch(
        self, ipvs: Ipvs, of: VirtualServerKey
    ) -> None:
        missing = virtual_server(of, scheduler="no-such")
        bad = RealServer(address("10.244.0.1"), 80, weight=-1)
        operations = services(Command.SET_SERVICE, missing) + services(Command.DEL_SERVICE, missing)
        for command in (Command.NEW_DEST, Command.SET_DEST, Command.DEL_DEST):
            operations += destinations(command, missing, bad)
        assert codes(ipvs, operations) == dict.fromkeys(range(5), errno.ESRCH)

    def test_an_unknown_scheduler_is_enoent_and_changes_nothing(self, ipvs: Ipvs) -> None:
        create(ipvs, virtual_server(WEB))
        operations = [
            *services(Command.NEW_SERVICE, virtual_server(WEB6, scheduler="no-such")),
            *services(Command.SET_SERVICE, virtual_server(WEB, scheduler="no-such")),
            *services(Command.SET_SERVICE, virtual_server(WEB, scheduler="")),
        ]
        assert codes(ipvs, operations) == dict.fromkeys(range(3), errno.ENOENT)
        assert dump(ipvs) == {virtual_server(WEB)}

    def test_a_schedulers_name_of_more_than_15_letters_is_einval(self, ipvs: Ipvs) -> None:
        operations = [
            *services(Command.NEW_SERVICE, virtual_server(WEB, scheduler="x" * 15)),
            *services(Command.NEW_SERVICE, virtual_server(WEB, scheduler="x" * 16)),
            *services(Command.SET_SERVICE, virtual_server(WEB, scheduler="x" * 16)),
        ]
        assert codes(ipvs, operations) == {0: errno.ENOENT, 1: errno.EINVAL, 2: errno.EINVAL}

    def test_real_servers_come_sorted_with_their_settings_and_without_connections(self, ipvs: Ipvs) -> None:
        servers = [
            RealServer(address("10.244.0.9"), 80, weight=0),
            RealServer(address("10.244.0.9"), 79, weight=65535, upper_threshold=20, lower_threshold=10),
            RealServer(address("10.244.0.10"), 8080),
            RealServer(address("10.244.0.1"), 65535, weight=2, upper_threshold=7),
        ]
        create(ipvs, virtual_server(WEB, *servers))
        assert ipvs.real_servers([WEB]) == {WEB: [RealServerStatus(each, 0, 0) for each in sorted(servers)]}

    def test_an_ipv6_virtual_server_has_ipv6_real_servers(self, ipvs: Ipvs) -> None:
        servers = [real_server("fd00:244::2"), real_server("fd00:244::1", 53, weight=3), real_server("::1")]
        create(ipvs, virtual_server(WEB6, *servers))
        assert real_servers(ipvs, WEB6) == sorted(servers)

    def test_more_real_servers_than_one_answer_holds_are_all_read(self, ipvs: Ipvs) -> None:
        servers = [real_server(f"10.244.{number >> 8}.{number & 0xFF}") for number in range(1, 401)]
        create(ipvs, virtual_server(WEB, *servers), virtual_server(WEB6))
        assert real_servers(ipvs, WEB) == servers

    def test_of_many_keys_those_with_a_virtual_server_are_named_with_and_without_real_servers(
        self, ipvs: Ipvs
    ) -> None:
        there = (
            virtual_server(WEB, FIRST),
            virtual_server(WEB6),
            virtual_server(key("10.96.0.2", 53, Protocol.UDP)),
        )
        create(ipvs, *there)
        missing = [key("10.96.0.1", port) for port in range(1000, 1600)]
        asked = [*missing[:300], WEB, *missing[300:], WEB6, key("10.96.0.2", 53), there[2].key]
        assert ipvs.existing(asked) == {each.key for each in there}
        assert ipvs.existing([missing[0], WEB, missing[1], WEB6]) == {WEB, WEB6}
        assert ipvs.existing([]) == set()

    def test_a_missing_virtual_server_has_no_entry_and_an_empty_one_has(self, ipvs: Ipvs) -> None:
        create(ipvs, virtual_server(WEB))
        assert ipvs.real_servers([WEB6, WEB]) == {WEB: []}
        assert ipvs.real_servers([]) == {}

    def test_a_real_server_is_edited_in_place_and_deleted(self, ipvs: Ipvs) -> None:
        web = virtual_server(WEB, FIRST, SECOND)
        create(ipvs, web)
        draining = FIRST._replace(weight=0, upper_threshold=5, lower_threshold=5)
        assert ipvs.apply(destinations(Command.SET_DEST, web, draining)) == {}
        assert real_servers(ipvs, WEB) == [draining, SECOND]
        assert ipvs.apply(destinations(Command.DEL_DEST, web, FIRST)) == {}
        assert real_servers(ipvs, WEB) == [SECOND]

    def test_a_real_server_twice_is_eexist_and_a_missing_one_enoent(self, ipvs: Ipvs) -> None:
        web = virtual_server(WEB, FIRST)
        create(ipvs, web)
        operations = [
            *destinations(Command.NEW_DEST, web, FIRST._replace(weight=7)),
            *destinations(Command.SET_DEST, web, SECOND),
            *destinations(Command.DEL_DEST, web, SECOND),
            *destinations(Command.DEL_DEST, web, FIRST._replace(port=1)),
        ]
        assert codes(ipvs, operations) == {0: errno.EEXIST, 1: errno.ENOENT, 2: errno.ENOENT, 3: errno.ENOENT}
        assert real_servers(ipvs, WEB) == [FIRST]

    @pytest.mark.parametrize(
        "bad",
        [
            FIRST._replace(weight=-1),
            FIRST._replace(upper_threshold=1, lower_threshold=2),
            FIRST._replace(lower_threshold=1),
        ],
    )
    def test_a_bad_weight_or_threshold_is_erange_before_anything_else(
        self, ipvs: Ipvs, bad: RealServer
    ) -> None:
        web = virtual_server(WEB, FIRST)
        create(ipvs, web)
        operations = [
            *destinations(Command.NEW_DEST, web, bad, bad._replace(port=1)),
            *destinations(Command.SET_DEST, web, bad, bad._replace(port=1)),
        ]
        assert codes(ipvs, operations) == dict.fromkeys(range(4), errno.ERANGE)
        assert real_servers(ipvs, WEB) == [FIRST]
        assert ipvs.apply(destinations(Command.DEL_DEST, web, bad)) == {}

    @pytest.mark.parametrize(("of", "other"), [(WEB, "fd00:244::1"), (WEB6, "10.244.0.1")])
    def test_a_real_server_of_the_other_family_is_einval(
        self, ipvs: Ipvs, of: VirtualServerKey, other: str
    ) -> None:
        web = virtual_server(of)
        create(ipvs, web)
        operations = [
            *destinations(Command.NEW_DEST, web, real_server(other)),
            *destinations(Command.SET_DEST, web, real_server(other)),
            *destinations(Command.DEL_DEST, web, real_server(other)),
        ]
        assert codes(ipvs, operations) == {0: errno.EINVAL, 1: errno.EINVAL, 2: errno.ENOENT}

    @pytest.mark.parametrize(
        ("of", "text"),
        [
            (WEB, "0.0.0.0"),
            (WEB, "224.0.0.1"),
            (WEB, "239.255.255.255"),
            (WEB, "255.255.255.255"),
            (WEB6, "::"),
            (WEB6, "::ffff:10.244.0.1"),
            (WEB6, "fe80::1"),
            (WEB6, "ff02::1"),
        ],
    )
    def test_an_address_that_no_host_has_is_einval(self, ipvs: Ipvs, of: VirtualServerKey, text: str) -> None:
        web = virtual_server(of)
        create(ipvs, web)
        operations = [
            *destinations(Command.NEW_DEST, web, real_server(text)),
            *destinations(Command.SET_DEST, web, real_server(text)),
        ]
        assert codes(ipvs, operations) == {0: errno.EINVAL, 1: errno.ENOENT}

    def test_operations_take_effect_in_their_order(self, ipvs: Ipvs) -> None:
        web = virtual_server(WEB, FIRST)
        create(ipvs, web)
        operations = [
            *services(Command.DEL_SERVICE, web),
            *services(Command.NEW_SERVICE, web._replace(scheduler="wrr")),
            *destinations(Command.NEW_DEST, web, SECOND),
            *destinations(Command.SET_DEST, web, SECOND._replace(weight=5)),
        ]
        assert ipvs.apply(operations) == {}
        assert dump(ipvs) == {virtual_server(WEB, scheduler="wrr")}
        assert real_servers(ipvs, WEB) == [SECOND._replace(weight=5)]

    def test_no_operations_are_no_work(self, ipvs: Ipvs) -> None:
        assert ipvs.apply([]) == {}

    def test_refused_operations_are_named_by_index_and_the_others_take_effect(self, ipvs: Ipvs) -> None:
        virtual_servers = [virtual_server(key("10.96.0.1", port)) for port in range(1, 1001)]
        refused = {0, 1, 254, 255, 256, 257, 511, 512, 998, 999}
        operations = [
            IpvsOperation(
                Command.NEW_SERVICE, each._replace(scheduler="no-such") if index in refused else each
            )
            for index, each in enumerate(virtual_servers)
        ]
        assert codes(ipvs, operations) == dict.fromkeys(refused, errno.ENOENT)
        assert dump(ipvs) == {each for index, each in enumerate(virtual_servers) if index not in refused}

    def test_every_operation_of_many_may_be_refused(self, ipvs: Ipvs) -> None:
        operations = services(Command.DEL_SERVICE, *[virtual_server(key("10.96.0.1", 1))] * 600)
        assert codes(ipvs, operations) == dict.fromkeys(range(600), errno.ESRCH)

    def test_a_dump_comes_in_chunks_and_shows_the_moment_of_the_call(self, ipvs: Ipvs) -> None:
        virtual_servers = [virtual_server(key("10.96.0.1", port)) for port in range(1, 1001)]
        create(ipvs, *virtual_servers)
        chunks = ipvs.virtual_servers()
        found = next(chunks)
        assert 0 < len(found) <= 200
        assert ipvs.apply(services(Command.DEL_SERVICE, *found)) == {}
        found += itertools.chain.from_iterable(chunks)
        assert len(found) == 1000
        assert set(found) == set(virtual_servers)

    def test_an_abandoned_dump_is_in_nobodys_way(self, ipvs: Ipvs) -> None:
        virtual_servers = [virtual_server(key("10.96.0.1", port)) for port in range(1, 301)]
        create(ipvs, *virtual_servers)
        next(ipvs.virtual_servers())
        assert dump(ipvs) == set(virtual_servers)

    def test_what_was_just_made_has_counted_nothing(self, ipvs: Ipvs) -> None:
        create(ipvs, virtual_server(WEB, FIRST, SECOND), virtual_server(WEB6))
        assert ipvs.virtual_server_statistics() == {WEB: Statistics(), WEB6: Statistics()}
        assert ipvs.real_server_statistics([WEB6, WEB]) == {
            WEB6: {},
            WEB: {(each.address, each.port): Statistics() for each in (FIRST, SECOND)},
        }

    def test_what_is_not_there_has_no_counters(self, ipvs: Ipvs) -> None:
        web = virtual_server(WEB, FIRST, SECOND)
        create(ipvs, web)
        assert ipvs.apply(destinations(Command.DEL_DEST, web, FIRST)) == {}
        assert ipvs.real_server_statistics([WEB6, WEB]) == {
            WEB: {(SECOND.address, SECOND.port): Statistics()}
        }
        assert ipvs.apply(services(Command.DEL_SERVICE, web)) == {}
        assert ipvs.virtual_server_statistics() == {}
        assert ipvs.real_server_statistics([WEB]) == {}

    def test_the_counters_of_more_virtual_servers_than_one_answer_holds_are_all_read(
        self, ipvs: Ipvs
    ) -> None:
        virtual_servers = [virtual_server(key("10.96.0.1", port)) for port in range(1, 301)]
        create(ipvs, *virtual_servers)
        assert ipvs.virtual_server_statistics() == {each.key: Statistics() for each in virtual_servers}

    def test_timeouts_are_set_in_place_of_the_kernels_own(self, ipvs: Ipvs, timeouts: Timeouts) -> None:
        assert timeouts() == ConnectionTimeouts(tcp=900, tcp_fin=120, udp=300)
        ipvs.set_timeouts(ConnectionTimeouts(tcp=7200, tcp_fin=60, udp=30))
        assert timeouts() == ConnectionTimeouts(tcp=7200, tcp_fin=60, udp=30)

    def test_a_timeout_of_zero_leaves_what_is_set(self, ipvs: Ipvs, timeouts: Timeouts) -> None:
        ipvs.set_timeouts(ConnectionTimeouts(tcp_fin=60))
        ipvs.set_timeouts(ConnectionTimeouts(udp=30))
        ipvs.set_timeouts(ConnectionTimeouts())
        assert timeouts() == ConnectionTimeouts(tcp=900, tcp_fin=60, udp=30)

    def test_one_timeout_that_is_too_long_is_einval_and_changes_none(
        self, ipvs: Ipvs, timeouts: Timeouts
    ) -> None:
        before = timeouts()
        with pytest.raises(OSError, match="Invalid argument") as caught:
            ipvs.set_timeouts(ConnectionTimeouts(tcp=60, udp=0x7FFFFFFF))
        assert caught.value.errno == errno.EINVAL
        assert timeouts() == before
