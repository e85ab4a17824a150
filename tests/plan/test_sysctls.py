"""Which kernel settings the data plane asks for."""

from __future__ import annotations

import pytest

from ipvsproxy.plan.sysctls import KernelVersion, SysctlSettings, parse_kernel_release, sysctl_plan

RECENT = KernelVersion(6, 1)
ALWAYS = {
    "net.ipv4.vs.conntrack": "1",
    "net.ipv4.vs.expire_nodest_conn": "1",
    "net.ipv4.vs.expire_quiescent_template": "1",
    "net.ipv4.ip_forward": "1",
}
IPV6 = {"net.ipv6.conf.all.forwarding": "1"}


def values(settings: SysctlSettings) -> dict[str, str]:
    plan = sysctl_plan(settings)
    result = {setting.name: setting.value for setting in plan}
    assert len(result) == len(plan)
    return result


def test_a_recent_kernel_gets_what_ipvs_and_forwarding_need() -> None:
    assert values(SysctlSettings(RECENT)) == ALWAYS | IPV6


def test_a_kernel_without_ipv6_is_not_asked_to_forward_it() -> None:
    assert values(SysctlSettings(RECENT, ipv6=False)) == ALWAYS


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


def test_every_setting_says_what_it_means_in_half_a_sentence() -> None:
    for setting in sysctl_plan(SysctlSettings(KernelVersion(4, 19), strict_arp=True)):
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
