"""Which kernel settings the data plane asks for."""

from __future__ import annotations

import pytest

from ipvsproxy.plan.sysctls import (
    ConntrackSettings,
    Ipv6Found,
    KernelSetting,
    KernelVersion,
    SysctlSettings,
    conntrack_maximum,
    parse_kernel_release,
    sysctl_plan,
)

RECENT = KernelVersion(6, 1)
ALWAYS = {
    "net.ipv4.vs.conntrack": "1",
    "net.ipv4.vs.expire_nodest_conn": "1",
    "net.ipv4.vs.expire_quiescent_template": "1",
    "net.ipv4.ip_forward": "1",
}
IPV6 = {"net.ipv6.conf.all.forwarding": "1"}
FOLLOWING_ROUTERS = {"eth0": "1", "eth0.100": "1", "eth1": "2", "eth2": "0"}
ALL_OF_CONNTRACK = ConntrackSettings(
    100_000, 7200, 60, tcp_be_liberal=True, udp_timeout=30, udp_stream_timeout=90
)


def values(settings: SysctlSettings) -> dict[str, str]:
    plan = sysctl_plan(settings)
    result = {setting.name: setting.value for setting in plan}
    assert len(result) == len(plan)
    return result


def test_a_recent_kernel_gets_what_ipvs_and_forwarding_need() -> None:
    assert values(SysctlSettings(RECENT)) == ALWAYS | IPV6


def test_a_kernel_without_ipv6_is_not_asked_to_forward_it() -> None:
    assert values(SysctlSettings(RECENT, ipv6=None)) == ALWAYS


@pytest.mark.parametrize("kernel", [(4, 18), (5, 4), (5, 8)])
def test_connections_are_not_reused_before_5_9(kernel: tuple[int, int]) -> None:
    reuse = {"net.ipv4.vs.conn_reuse_mode": "0"}
    assert values(SysctlSettings(KernelVersion(*kernel))) == ALWAYS | IPV6 | reuse


@pytest.mark.parametrize("kernel", [(5, 9), (5, 10), (6, 1), (10, 0)])
def test_connection_reuse_is_left_alone_from_5_9_on(kernel: tuple[int, int]) -> None:
    assert "net.ipv4.vs.conn_reuse_mode" not in values(SysctlSettings(KernelVersion(*kernel)))


def test_strict_arp_is_set_on_request() -> None:
    strict = {"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}
    assert values(SysctlSettings(RECENT, strict_arp=True)) == ALWAYS | IPV6 | strict


class TestRouterAdvertisements:
    def test_are_followed_on_when_forwarding_is_switched_on(self) -> None:
        assert values(SysctlSettings(RECENT, Ipv6Found("0", FOLLOWING_ROUTERS))) == ALWAYS | IPV6 | {
            "net/ipv6/conf/eth0/accept_ra": "2",
            "net/ipv6/conf/eth0.100/accept_ra": "2",
        }

    def test_are_seen_to_before_forwarding_is_switched_on(self) -> None:
        names = [
            setting.name for setting in sysctl_plan(SysctlSettings(RECENT, Ipv6Found("0", {"eth0": "1"})))
        ]
        assert names.index("net/ipv6/conf/eth0/accept_ra") < names.index("net.ipv6.conf.all.forwarding")

    @pytest.mark.parametrize("forwarding", ["1", "2"])
    def test_are_left_alone_where_forwarding_is_on_already(self, forwarding: str) -> None:
        assert values(SysctlSettings(RECENT, Ipv6Found(forwarding, FOLLOWING_ROUTERS))) == ALWAYS | IPV6

    def test_say_whose_routes_are_at_stake(self) -> None:
        plan = sysctl_plan(SysctlSettings(RECENT, Ipv6Found("0", {"eth0": "1"})))
        meanings = [setting.meaning for setting in plan if setting.name.endswith("accept_ra")]
        assert meanings == [
            "eth0 has no default route from router advertisements as soon as the node forwards IPv6",
        ]


class TestConnectionTracking:
    def test_is_left_alone_without_settings(self) -> None:
        assert not any("conntrack_" in name for name in values(SysctlSettings(RECENT)))

    def test_gets_every_setting_that_is_given(self) -> None:
        assert values(SysctlSettings(RECENT, conntrack=ALL_OF_CONNTRACK)) == ALWAYS | IPV6 | {
            "net.netfilter.nf_conntrack_max": "100000",
            "net.netfilter.nf_conntrack_buckets": "25000",
            "net.netfilter.nf_conntrack_tcp_timeout_established": "7200",
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait": "60",
            "net.netfilter.nf_conntrack_udp_timeout": "30",
            "net.netfilter.nf_conntrack_udp_timeout_stream": "90",
            "net.netfilter.nf_conntrack_tcp_be_liberal": "1",
        }

    def test_may_have_more_room_than_asked_for(self) -> None:
        plan = sysctl_plan(SysctlSettings(RECENT, conntrack=ALL_OF_CONNTRACK))
        at_least = [setting.name for setting in plan if setting.at_least and "conntrack" in setting.name]
        assert at_least == [
            "net.netfilter.nf_conntrack_max",
            "net.netfilter.nf_conntrack_buckets",
        ]

    @pytest.mark.parametrize(
        ("max_per_core", "minimum", "cpus", "maximum"),
        [
            (32768, 131072, 2, 131072),
            (32768, 131072, 8, 262144),
            (100, 0, 2, 200),
            (0, 131072, 8, 0),
        ],
    )
    def test_has_room_by_the_number_of_cpus(
        self, max_per_core: int, minimum: int, cpus: int, maximum: int
    ) -> None:
        assert conntrack_maximum(max_per_core, minimum, cpus) == maximum


@pytest.mark.parametrize(("found", "met"), [("1000", True), ("1001", True), ("0", False), ("999", False)])
def test_what_is_a_minimum_is_met_by_more(found: str, met: object) -> None:
    assert KernelSetting("x", "1000", "", at_least=True).is_met(found) is met


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("net.ipv4.conf.all.arp_ignore", ("1", "2", "3", "8")),
        ("net.ipv4.conf.all.arp_announce", ("2",)),
        ("net.ipv6.conf.all.forwarding", ("1", "2")),
        ("net.netfilter.nf_conntrack_max", ("0", "100000", "200000")),
        ("net.netfilter.nf_conntrack_buckets", ("25000", "30000")),
    ],
)
def test_what_is_stricter_or_more_is_left_as_it_is_and_what_is_less_is_not(
    name: str, found: tuple[str, ...]
) -> None:
    plan = sysctl_plan(SysctlSettings(RECENT, strict_arp=True, conntrack=ALL_OF_CONNTRACK))
    (setting,) = (each for each in plan if each.name == name)
    assert all(setting.is_met(each) for each in found)
    assert not setting.is_met(str(int(setting.value) - 1) if setting.value != "1" else "0")


@pytest.mark.parametrize(("found", "met"), [("1000", True), ("1001", False), ("0", False), ("a b", False)])
def test_what_is_no_minimum_is_met_by_itself(found: str, met: object) -> None:
    assert KernelSetting("x", "1000", "").is_met(found) is met


def test_every_setting_says_what_it_means_in_half_a_sentence() -> None:
    found = Ipv6Found("0", {"eth0": "1"})
    for setting in sysctl_plan(
        SysctlSettings(KernelVersion(4, 19), found, strict_arp=True, conntrack=ALL_OF_CONNTRACK)
    ):
        assert setting.meaning
        assert setting.meaning[0].islower()
        assert not setting.meaning.endswith(".")


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.1.0-18-amd64", (6, 1)),
        ("5.15.0-1053-azure", (5, 15)),
        ("4.18.0-553.el8_10.x86_64", (4, 18)),
        ("6.10-rc1", (6, 10)),
    ],
)
def test_a_release_is_read_to_its_second_number(release: str, version: tuple[int, int]) -> None:
    assert parse_kernel_release(release) == version


@pytest.mark.parametrize("release", ["", "linux", "6", "v6.1"])
def test_what_is_no_release_is_refused_by_name(release: str) -> None:
    with pytest.raises(ValueError, match=f"'{release}' is not a kernel's release"):
        parse_kernel_release(release)
