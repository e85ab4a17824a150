"""Where kernel modules are, told by files as distributions and containers have them."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.inspect_modules import read_modules
from ipvsproxy.plan.check.kernel import ModuleState

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "6.1.0-18-amd64"
CONFIGURATION = 'CONFIG_IP_VS=m\nCONFIG_NF_TABLES=y\n# CONFIG_DUMMY is not set\nCONFIG_NAME="x"\n'


class Machine:
    """A file system with nothing that tells of modules, to be filled."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str = "", *, compressed: bool = False) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())

    def write_index(self, built_in: str = "", loadable: str = "") -> None:
        self.write(f"lib/modules/{RELEASE}/modules.builtin", built_in)
        self.write(f"lib/modules/{RELEASE}/modules.dep", loadable)

    def state(self, name: str, *schedulers: str) -> ModuleState:
        return read_modules(RELEASE, schedulers, self.root).state(name)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_that_tells_nothing_leaves_everything_open(machine: Machine) -> None:
    assert machine.state("ip_vs") is ModuleState.UNKNOWN


def test_a_loaded_module_is_in_proc_modules(machine: Machine) -> None:
    machine.write("proc/modules", "ip_vs 163840 4 ip_vs_rr, Live 0x0\ndummy 16384 0 - Live 0x0\n")
    assert machine.state("dummy") is ModuleState.LOADED
    assert machine.state("ip_vs_rr") is ModuleState.UNKNOWN


@pytest.mark.parametrize(
    ("name", "trace"),
    [
        ("ip_vs", "proc/sys/net/ipv4/vs/conntrack"),
        ("nf_conntrack", "proc/sys/net/netfilter/nf_conntrack_max"),
        ("dummy", "proc/sys/net/ipv4/conf/kube-ipvs0/forwarding"),
    ],
)
def test_a_module_that_left_its_trace_is_in_the_kernel(machine: Machine, name: str, trace: str) -> None:
    machine.write(trace)
    assert machine.state(name) is ModuleState.LOADED


def test_a_scheduler_that_a_virtual_server_has_is_in_the_kernel(machine: Machine) -> None:
    assert machine.state("ip_vs_wlc", "wlc") is ModuleState.LOADED


def test_the_index_files_tell_what_is_built_in_and_what_can_be_loaded(machine: Machine) -> None:
    machine.write_index(
        "kernel/net/netfilter/nf_tables.ko\n",
        "kernel/net/netfilter/ipvs/ip_vs.ko.xz: kernel/net/netfilter/nf_conntrack.ko.xz\nkernel/net/sch-fq.ko:\n",
    )
    assert machine.state("nf_tables") is ModuleState.BUILT_IN
    assert machine.state("ip_vs") is ModuleState.LOADABLE
    assert machine.state("sch_fq") is ModuleState.LOADABLE
    # It is needed by another one, and has no line of its own.
    assert machine.state("nf_conntrack") is ModuleState.MISSING


@pytest.mark.parametrize(
    ("path", "compressed"), [("proc/config.gz", True), (f"boot/config-{RELEASE}", False)]
)
def test_without_index_files_the_kernels_configuration_tells(
    machine: Machine, *, path: str, compressed: bool
) -> None:
    machine.write(path, CONFIGURATION, compressed=compressed)
    assert machine.state("nf_tables") is ModuleState.BUILT_IN
    assert machine.state("ip_vs") is ModuleState.LOADABLE
    assert machine.state("dummy") is ModuleState.MISSING
    assert machine.state("ip_vs_twos") is ModuleState.MISSING


def test_a_module_that_was_configured_and_not_installed_is_missing(machine: Machine) -> None:
    machine.write("proc/config.gz", CONFIGURATION, compressed=True)
    machine.write_index()
    assert machine.state("ip_vs") is ModuleState.MISSING


def test_a_configuration_that_is_no_archive_is_as_good_as_none(machine: Machine) -> None:
    machine.write("proc/config.gz", "broken")
    assert machine.state("ip_vs") is ModuleState.UNKNOWN
