"""loadBalancerSourceRanges with many ports and networks, and while they change: never open, never closed in between."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Self

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from ipvsproxy.plan.source_ranges import LIGHT, MAXIMUM_NETWORKS
from netns_tests import tables
from netns_tests.addressing import Via
from netns_tests.deadline import await_that
from netns_tests.load import Load, Style
from netns_tests.manifests import Port
from netns_tests.servers import HTTP_PORT
from netns_tests.traffic import Failure, NoAnswerError, failure_of, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from netns_tests.cluster import Cluster, ServiceUnderTest
    from netns_tests.topology import Host
    from netns_tests.traffic import Target

    NewService = Callable[..., ServiceUnderTest]

OUTSIDE = ("192.0.2.0/26", "2001:db8:1::/64")
STRANGER = ("192.0.2.64/26", "2001:db8:2::/64")
LOAD_BALANCER_IP = Via.LOAD_BALANCER_IP

# What a version of the agent before source lists left in the kernel for one port.
EARLIER_TABLE = """\
add table inet ipvsproxy
delete table inet ipvsproxy
table inet ipvsproxy {{
    set service-addresses-ipv4 {{ type ipv4_addr; elements = {{ {addresses} }}; }}
    set service-ports-ipv4 {{ type ipv4_addr . inet_proto . inet_service; elements = {{ {ports} }}; }}
    set masqueraded-service-ports-ipv4 {{
        type ipv4_addr . inet_proto . inet_service; elements = {{ {at} }};
    }}
    set restricted-service-ports-ipv4 {{
        type ipv4_addr . inet_proto . inet_service; elements = {{ {at} }};
    }}
    set allowed-sources-ipv4 {{
        type ipv4_addr . inet_proto . inet_service . ipv4_addr; flags interval;
        elements = {{ {at} . 192.0.2.0/26 }};
    }}
    chain prerouting {{
        type filter hook prerouting priority -150; policy accept;
        ct state != new return
        ip daddr . meta l4proto . th dport @restricted-service-ports-ipv4 ip daddr . meta l4proto . th dport . ip saddr != @allowed-sources-ipv4 drop
        ip daddr . meta l4proto . th dport @masqueraded-service-ports-ipv4 meta mark set meta mark | 0x00004000
    }}
    chain masquerading {{
        type nat hook postrouting priority 100; policy accept;
        meta mark & 0x00004000 != 0 masquerade fully-random
    }}
}}
"""  # noqa: E501 - a rule is one line


class Knocking:
    """A host that tries to connect all the time, from the start to the end of a `with` block."""

    def __init__(self, origin: Host, target: Target) -> None:
        self.answers = 0
        self.tries = 0
        self._origin = origin
        self._target = target
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._knock)

    def __enter__(self) -> Self:
        """Begin to knock."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End after the try that is under way."""
        self._stopping.set()
        self._thread.join()

    def _knock(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(NoAnswerError):
                request(self._origin, self._target, patience=0.02)
                self.answers += 1
            self.tries += 1


def balanced(
    new_service: NewService, *pods: str, source_ranges: tuple[str, ...] = OUTSIDE
) -> ServiceUnderTest:
    """Make a Service with a load balancer, and wait until the node has it."""
    service = new_service(*pods)
    become(service, source_ranges)
    service.await_pods(*pods, via=LOAD_BALANCER_IP)
    return service


def become(service: ServiceUnderTest, source_ranges: tuple[str, ...], **fields: object) -> None:
    service.become(ServiceType.LOAD_BALANCER, source_ranges=source_ranges, **fields)


def await_answer(origin: Host, target: Target) -> None:
    await_that(lambda: not isinstance(failure_of(origin, target, patience=0.5), Failure), f"{target} answers")


def await_silence(origin: Host, target: Target) -> None:
    await_that(
        lambda: failure_of(origin, target, patience=0.5) is Failure.SILENCE, f"{target} does not answer"
    )


def networks(count: int) -> tuple[str, ...]:
    """Return so many networks, which are apart and have none of the hosts."""
    return tuple(f"100.{64 + (n >> 14)}.{n >> 6 & 255}.{(n & 63) * 4}/30" for n in range(count))


def list_sizes(node: Host) -> list[int]:
    """Return how many networks the sets of the IPv4 source lists have, in order."""
    sizes: dict[str, int] = {}
    name = ""
    for line in tables.ruleset(node).splitlines():
        words = line.split()
        if words[:1] in (["set"], ["chain"], ["map"]):
            name = words[1] if words[0] == "set" and words[1].startswith("sources-ipv4-") else ""
        if name:
            sizes[name] = sizes.get(name, 0) + line.count("/")
    return sorted(sizes.values())


def await_lists(node: Host, *sizes: int) -> None:
    """Wait until the IPv4 source lists have so many networks."""
    await_that(lambda: list_sizes(node) == list(sizes), f"there are source lists of {sizes} networks")


def test_every_port_has_the_ranges(cluster: Cluster, new_service: NewService, family: Family) -> None:
    service = balanced(new_service, "web-1")
    for port in (80, 81):
        at = service.target(family, port=port, via=LOAD_BALANCER_IP)
        assert request(cluster["outside"], at).server == "web-1"
        assert failure_of(cluster["stranger"], at, patience=0.5) is Failure.SILENCE


def test_two_services_at_one_ip_have_their_own_ranges_at_their_ports(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    first, second = balanced(new_service, "web-1"), new_service("web-2")
    second.ports = [Port("other", 8080, HTTP_PORT)]
    become(second, STRANGER, load_balancer_ips=first.spec.load_balancer_ips, external_ips=())
    second.write_pods("web-2")
    second.await_pods("web-2", via=LOAD_BALANCER_IP)
    of_first = first.target(family, via=LOAD_BALANCER_IP)
    of_second = of_first._replace(port=8080)
    assert request(cluster["outside"], of_first).server == "web-1"
    assert request(cluster["stranger"], of_second).server == "web-2"
    for origin, target in (("stranger", of_first), ("outside", of_second)):
        assert failure_of(cluster[origin], target, patience=0.5) is Failure.SILENCE


def test_services_with_the_same_ranges_share_a_list_which_goes_with_the_last(
    cluster: Cluster, new_service: NewService
) -> None:
    first, second = balanced(new_service, "web-1"), balanced(new_service, "web-2")
    assert list_sizes(cluster.node) == [1]
    become(first, STRANGER)
    await_that(lambda: list_sizes(cluster.node) == [1, 1], "each has a list of its own")
    become(first, ())
    become(second, ())
    await_that(lambda: list_sizes(cluster.node) == [], "nobody needs a list")


def test_ranges_that_change_are_never_open_and_never_closed_in_between(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = balanced(new_service, "web-1", "web-2")
    target = service.target(family, via=LOAD_BALANCER_IP)
    with (
        Load(cluster["outside"], target, Style.EACH_ITS_OWN) as load,
        Knocking(cluster["stranger"], target) as stranger,
    ):
        for number in range(1, 25):
            become(service, (*OUTSIDE, *networks(number)))
            await_lists(cluster.node, number + 1)
        load.go_on(30)
        tried = stranger.tries
        await_that(lambda: stranger.tries > tried + 3, "the stranger goes on")
    assert load.failures == []
    assert stranger.answers == 0


def test_a_restart_and_a_table_that_somebody_edited_open_and_close_nothing(
    cluster: Cluster, new_service: NewService, family: Family
) -> None:
    service = balanced(new_service, "web-1", "web-2")
    target = service.target(family, via=LOAD_BALANCER_IP)
    with (
        Load(cluster["outside"], target, Style.EACH_ITS_OWN) as load,
        Knocking(cluster["stranger"], target) as stranger,
    ):
        for edit in (False, True):
            cluster.agent.terminate()
            become(service, (*OUTSIDE, "100.64.0.0/10") if edit else OUTSIDE)
            if edit:
                cluster.node.namespace.run("nft", "add", "rule", "inet", "ipvsproxy", "input", "counter")
            cluster.agent.start()
            await_lists(cluster.node, 1 + edit)
            load.go_on(30)
    assert load.failures == []
    assert stranger.answers == 0


def test_the_table_of_an_earlier_version_is_replaced_and_opens_and_closes_nothing(
    cluster: Cluster, new_service: NewService
) -> None:
    service = balanced(new_service, "web-1", "web-2")
    target = service.target(Family.IPV4, via=LOAD_BALANCER_IP)
    with (
        Load(cluster["outside"], target, Style.EACH_ITS_OWN) as load,
        Knocking(cluster["stranger"], target) as stranger,
    ):
        cluster.agent.terminate()
        every = [each for each in tables.virtual_servers(cluster.node) if each.family is Family.IPV4]
        ports = {f"{each.address} . {each.protocol:d} . {each.port}" for each in every}
        earlier = EARLIER_TABLE.format(
            addresses=", ".join({each.address for each in every if each.address != "198.51.100.1"}),
            ports=", ".join(ports),
            at=f"{target.address} . 6 . {target.port}",
        )
        cluster.node.namespace.run("nft", "-f", "-", stdin=earlier)
        load.go_on(10)
        cluster.agent.start()
        await_that(lambda: list_sizes(cluster.node) == [1], "the source list is there")
        load.go_on(30)
    assert load.failures == []
    assert stranger.answers == 0


def test_the_last_of_very_many_ports_answers_from_the_ranges_only(
    cluster: Cluster, new_service: NewService
) -> None:
    service = new_service("web-1")
    service.ports = [Port(f"p{number}", number, HTTP_PORT) for number in range(1, 1601)]
    become(service, OUTSIDE, external_ips=())
    service.write_pods("web-1")
    last = service.target(Family.IPV4, port=1600, via=LOAD_BALANCER_IP)
    await_answer(cluster["outside"], last)
    assert failure_of(cluster["stranger"], last, patience=0.5) is Failure.SILENCE
    assert failure_of(cluster["outside"], last._replace(port=1601)) is Failure.REFUSED
    assert request(cluster["client"], service.target(Family.IPV4, port=1600)).server == "web-1"
    assert list_sizes(cluster.node) == [1]


@pytest.mark.parametrize("count", [LIGHT + 1, MAXIMUM_NETWORKS - 1])
def test_very_many_ranges_are_let_in_beside_services_that_do_not_wait_for_them(
    cluster: Cluster, new_service: NewService, count: int
) -> None:
    service = balanced(new_service, "web-1")
    target = service.target(Family.IPV4, via=LOAD_BALANCER_IP)
    become(service, (*networks(count), "192.0.2.64/26"))
    other = new_service("web-2")
    assert request(cluster["client"], other.target(Family.IPV4)).server == "web-2"
    await_answer(cluster["stranger"], target)
    assert failure_of(cluster["outside"], target, patience=0.5) is Failure.SILENCE
    assert list_sizes(cluster.node)[-1] == count + 1


def test_more_ranges_than_the_kernel_takes_in_time_close_the_ip_and_nothing_else(
    cluster: Cluster, new_service: NewService
) -> None:
    service = balanced(new_service, "web-1")
    target = service.target(Family.IPV4, via=LOAD_BALANCER_IP)
    become(service, (*networks(MAXIMUM_NETWORKS), *OUTSIDE))
    await_silence(cluster["outside"], target)
    assert request(cluster["outside"], service.target(Family.IPV4, via=Via.EXTERNAL_IP)).server == "web-1"
    assert request(cluster["client"], new_service("web-2").target(Family.IPV4)).server == "web-2"
    # Of IPv6 there are few.
    assert request(cluster["outside"], service.target(Family.IPV6, via=LOAD_BALANCER_IP)).server == "web-1"
    assert f"{MAXIMUM_NETWORKS} are the maximum" in cluster.agent.dump()
