"""Kernel settings, below a folder that stands for /proc/sys."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.interface import KernelError
from ipvsproxy.kernel.sysctl import (
    AppliedSettings,
    ProcSysctls,
    SysctlFailure,
    apply_settings,
    find_settings,
    read_ipv6,
)
from ipvsproxy.plan.check.settings import FoundSetting
from ipvsproxy.plan.sysctls import Ipv6Found, KernelSetting, KernelVersion, SysctlSettings, sysctl_plan
from tests.kernel.contract_firewall import SysctlsContract

if TYPE_CHECKING:
    from pathlib import Path

CONNTRACK = KernelSetting("net.ipv4.vs.conntrack", "1", "nothing is masqueraded")
FORWARD = KernelSetting("net.ipv4.ip_forward", "1", "nothing is forwarded")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "net/ipv4/vs").mkdir(parents=True)
    (tmp_path / "net/ipv4/vs/conntrack").write_text("0\n")
    (tmp_path / "net/ipv4/ip_forward").write_text("1\n")
    (tmp_path / "net/ipv4/conf/eth0.100").mkdir(parents=True)
    (tmp_path / "net/ipv4/conf/eth0.100/arp_ignore").write_text("8\n")
    return tmp_path


class RecordingSysctls(ProcSysctls):
    """Settings that note what is written, and refuse what they are told to."""

    def __init__(self, root: Path, unreadable: str = "", unwritable: str = "") -> None:
        super().__init__(root)
        self.written: list[tuple[str, str]] = []
        self._unreadable = unreadable
        self._unwritable = unwritable

    def get(self, name: str) -> str | None:
        if name == self._unreadable:
            raise PermissionError(errno.EACCES, "Permission denied")
        return super().get(name)

    def set(self, name: str, value: str) -> None:
        if name == self._unwritable:
            raise OSError(errno.EROFS, "Read-only file system")
        self.written.append((name, value))
        super().set(name, value)


class TestProcSysctls(SysctlsContract):
    @pytest.fixture
    def sysctls(self, root: Path) -> ProcSysctls:
        (root / "net/ipv4/ip_forward").write_text("0\n")
        return ProcSysctls(root)


@pytest.mark.parametrize("name", ["net.ipv4.conf.eth0/100.arp_ignore", "net/ipv4/conf/eth0.100/arp_ignore"])
def test_the_first_separator_says_what_the_other_one_means(root: Path, name: str) -> None:
    assert ProcSysctls(root).get(name) == "8"


def test_only_what_differs_is_written(root: Path) -> None:
    sysctls = RecordingSysctls(root)
    assert apply_settings(sysctls, [CONNTRACK, FORWARD]) == AppliedSettings([(CONNTRACK, "0")], [])
    assert sysctls.written == [("net.ipv4.vs.conntrack", "1")]
    assert apply_settings(sysctls, [CONNTRACK, FORWARD]) == AppliedSettings([], [])
    assert len(sysctls.written) == 1


def test_what_can_not_be_set_is_returned_and_the_rest_is_set(root: Path) -> None:
    (root / "net/ipv4/ip_forward").write_text("0\n")
    missing = KernelSetting("net.ipv6.conf.all.forwarding", "1", "no IPv6")
    sysctls = RecordingSysctls(root, unwritable=CONNTRACK.name)
    assert apply_settings(sysctls, [missing, CONNTRACK, FORWARD]) == AppliedSettings(
        [(FORWARD, "0")],
        [
            SysctlFailure(missing, None, KernelError(errno.ENOENT)),
            SysctlFailure(CONNTRACK, "0", KernelError(errno.EROFS)),
        ],
    )
    assert sysctls.get(FORWARD.name) == "1"


def test_what_can_not_be_read_is_not_written(root: Path) -> None:
    sysctls = RecordingSysctls(root, unreadable=CONNTRACK.name)
    failure = SysctlFailure(CONNTRACK, None, KernelError(errno.EACCES))
    assert apply_settings(sysctls, [CONNTRACK]) == AppliedSettings([], [failure])
    assert sysctls.written == []


def test_a_failure_is_one_line_with_its_consequence() -> None:
    assert str(SysctlFailure(CONNTRACK, "0", KernelError(errno.EROFS))) == (
        "net.ipv4.vs.conntrack can't be set to 1, it is 0: EROFS: Read-only file system; nothing is masqueraded"
    )
    assert str(SysctlFailure(CONNTRACK, None, KernelError(errno.ENOENT))) == (
        "net.ipv4.vs.conntrack can't be set to 1: ENOENT: No such file or directory; nothing is masqueraded"
    )


def test_what_is_a_minimum_is_not_lowered(root: Path) -> None:
    (root / "net/netfilter").mkdir()
    maximum = root / "net/netfilter/nf_conntrack_max"
    maximum.write_text("262144\n")
    lower = KernelSetting("net.netfilter.nf_conntrack_max", "131072", "", at_least=True)
    assert apply_settings(ProcSysctls(root), [lower]).made == []
    assert maximum.read_text() == "262144\n"
    assert apply_settings(ProcSysctls(root), [lower._replace(value="524288")]).failures == []
    assert maximum.read_text().startswith("524288")


@pytest.mark.parametrize(("before", "after"), [("0", "1"), ("1", "1"), ("2", "2"), ("8", "8")])
def test_an_operators_stricter_arp_settings_are_not_lowered(root: Path, before: str, after: str) -> None:
    folder = root / "net/ipv4/conf/all"
    folder.mkdir()
    (folder / "arp_ignore").write_text(f"{before}\n")
    (folder / "arp_announce").write_text("1\n")
    plan = sysctl_plan(SysctlSettings(KernelVersion(6, 1), strict_arp=True))
    apply_settings(ProcSysctls(root), [each for each in plan if ".arp_" in each.name])
    assert (folder / "arp_ignore").read_text().strip() == after
    assert (folder / "arp_announce").read_text().strip() == "2"


ROUTES = """\
00000000000000000000000000000000 00 {0} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003 eth0.100
00000000000000000000000000000000 00 {0} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth1
00000000000000000000000000000000 00 {0} 00 fe800000000000000000000000000002 00000400 00000001 00000000 00000003     eth2
20010db8006400000000000000000000 40 {0} 00 {0} 00000100 00000001 00000000 00040001     eth3
00000000000000000000000000000000 00 {0} 00 {0} ffffffff 00000001 00000000 00200200       lo
""".format("0" * 32)


class TestIpv6:
    @pytest.fixture
    def ipv6(self, root: Path) -> Path:
        """Return the folder with the settings of IPv6, in which no packet is forwarded."""
        folder = root / "net/ipv6/conf"
        names = {"all": 1, "default": 1, "eth0.100": 1, "eth1": 0, "eth2": 1, "eth3": 1, "lo": 1}
        for interface, accept_ra in names.items():
            (folder / interface).mkdir(parents=True)
            (folder / interface / "accept_ra").write_text(f"{accept_ra}\n")
        (folder / "all/forwarding").write_text("0\n")
        return folder

    @pytest.fixture
    def routes(self, tmp_path: Path) -> Path:
        """Return a file with routes by advertisements through eth0.100 and eth1, and others."""
        path = tmp_path / "ipv6_route"
        path.write_text(ROUTES)
        return path

    def test_is_absent_where_the_kernel_has_none(self, root: Path, routes: Path) -> None:
        assert read_ipv6(ProcSysctls(root), routes) is None

    @pytest.mark.usefixtures("ipv6")
    def test_is_read_for_each_interface_with_a_default_route_by_advertisements(
        self, root: Path, routes: Path
    ) -> None:
        assert read_ipv6(ProcSysctls(root), routes) == Ipv6Found("0", {"eth0.100": "1", "eth1": "0"})

    def test_has_no_routes_that_matter_where_the_node_forwards_already(
        self, root: Path, ipv6: Path, routes: Path
    ) -> None:
        (ipv6 / "all/forwarding").write_text("1\n")
        assert read_ipv6(ProcSysctls(root), routes) == Ipv6Found("1")

    @pytest.mark.usefixtures("ipv6")
    def test_without_a_file_of_routes_no_interface_is_touched(self, root: Path, tmp_path: Path) -> None:
        assert read_ipv6(ProcSysctls(root), tmp_path / "none") == Ipv6Found("0")

    @pytest.mark.usefixtures("ipv6")
    def test_is_read_without_an_interface_that_goes_meanwhile(self, root: Path, routes: Path) -> None:
        going = RecordingSysctls(root, unreadable="net/ipv6/conf/eth0.100/accept_ra")
        assert read_ipv6(going, routes) == Ipv6Found("0", {"eth1": "0"})

    def test_keeps_its_default_routes_when_forwarding_is_switched_on(
        self, root: Path, ipv6: Path, routes: Path
    ) -> None:
        sysctls = RecordingSysctls(root)
        plan = sysctl_plan(SysctlSettings(KernelVersion(6, 1), read_ipv6(sysctls, routes)))
        apply_settings(sysctls, plan)
        assert [write for write in sysctls.written if "ipv6" in write[0]] == [
            ("net/ipv6/conf/eth0.100/accept_ra", "2"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ]
        assert (ipv6 / "eth0.100/accept_ra").read_text().startswith("2")
        assert (ipv6 / "eth2/accept_ra").read_text() == "1\n"


def test_settings_are_found_as_they_are_and_nothing_is_written(root: Path) -> None:
    missing = KernelSetting("net.ipv4.vs.nothing", "1", "")
    assert find_settings(ProcSysctls(root), [CONNTRACK, FORWARD, missing]) == [
        FoundSetting(CONNTRACK, "0", writable=True),
        FoundSetting(FORWARD, "1", writable=True),
        FoundSetting(missing, None, writable=False),
    ]
    assert (root / "net/ipv4/vs/conntrack").read_text() == "0\n"
