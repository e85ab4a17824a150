"""`ipvsproxy cleanup`: removes what is ipvsproxy's on this node, after showing it.

The order is the reverse of setting up: addresses, virtual servers, the interface, the chains in the host's own
firewall, and last the table that has the record of what is ours. So one that is interrupted can be run again, and
nothing of ours is ever off the record. A chain is ours by its name, with the table or without it.
"""

from __future__ import annotations

import contextlib
import errno
import sys
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from ipvsproxy.cli.answers import await_report
from ipvsproxy.cli.dialog import Dialog, counted, listed
from ipvsproxy.cli.lock import AgentLock, AlreadyRunningError, holder
from ipvsproxy.cli.privilege import require_operator
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.kernel.forwarding import Forwarding
from ipvsproxy.kernel.host_firewall import HostFirewallReader
from ipvsproxy.kernel.interface import FirewallError
from ipvsproxy.kernel.ipsets import IpSets
from ipvsproxy.kernel.nfnetlink import NfTables
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.ipvs import Command, IpvsOperation, VirtualServer
from ipvsproxy.plan.cleanup import NodeTables, removal_of_ours
from ipvsproxy.plan.firewall import TABLE, FirewallSettings
from ipvsproxy.plan.forwarding import find_ours
from ipvsproxy.plan.kube_proxy import IPSETS

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from pathlib import Path

    from ipvsproxy.cli.arguments.cleanup import CleanupArguments
    from ipvsproxy.cli.lock import Holder
    from ipvsproxy.kernel.host_firewall import HostFirewall
    from ipvsproxy.kernel.interface import KernelError, NodeKernel
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.plan.cleanup import Removal
    from ipvsproxy.plan.forwarding import Leftover

T = TypeVar("T")

INTERFACE: Final = "kube-ipvs0"
# What is gone already needs no removal.
_GONE: Final = frozenset({errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV})


def cleanup(arguments: CleanupArguments) -> int:
    """Remove what is ours, or what kube-proxy left; return the exit code."""
    require_operator()
    dialog = Dialog(sys.stdin, sys.stdout, sys.stderr, dry_run=arguments.dry_run, assume_yes=arguments.yes)

    def ask() -> AgentReport:
        return await_report(arguments.run_directory, sys.stderr)

    try:
        if arguments.kube_proxy:
            # What it needs takes long to import.
            from ipvsproxy.cli.kube_proxy import KubeProxyCleanup, open_leftovers  # noqa: PLC0415 - see above

            with open_leftovers() as leftovers:
                KubeProxyCleanup(dialog, open_node_kernel(FirewallSettings()), leftovers, ask).run()
        elif arguments.dry_run:
            _warn_of_agent(dialog)
            _remove_ours(dialog)
        else:
            with _no_agent(arguments.run_directory):
                _remove_ours(dialog)
    except FirewallError as error:
        raise IpvsProxyError(f"nftables can't be read or changed: {error}") from error
    except BrokenPipeError:
        # Of whoever read the output, not of the kernel.
        raise
    except OSError as error:
        raise IpvsProxyError(f"the kernel can't be read or changed: {error.strerror or error}") from error
    return dialog.exit_code


class HostChains(NamedTuple):
    """What finds the agent's chains in the host's own firewall, and what removes one, or raises FirewallError."""

    look: Callable[[], HostFirewall]
    remove: Callable[[Leftover], None]


def _remove_ours(dialog: Dialog) -> None:
    with IpSets() as ipsets:
        beside_mode_ipvs = not IPSETS.isdisjoint(ipsets.references())
    with contextlib.closing(NfTables()) as nf_tables:
        chains = HostChains(HostFirewallReader(nf_tables).look, Forwarding().remove)
        kernel = open_node_kernel(FirewallSettings())
        remove_ours(dialog, kernel, chains, beside_mode_ipvs=beside_mode_ipvs)


def remove_ours(dialog: Dialog, kernel: NodeKernel, chains: HostChains, *, beside_mode_ipvs: bool) -> None:
    """Show all that is ours, and remove it if that is wanted. OSError and FirewallError if the kernel can't be read.

    Beside kube-proxy's mode ipvs, which takes over addresses and virtual servers as they are, tables and chains go.
    """
    found = read_tables(kernel)
    removal = removal_of_ours(found)
    firewall = chains.look()
    in_firewall = find_ours(firewall.tables)
    for sentence in firewall.unseen:
        dialog.warn(f"whether the agent has a chain there is not known: {sentence}")
    if not found.has_table and not in_firewall:
        dialog.say("There is nothing of ipvsproxy's on this node.")
        if found.has_interface:
            dialog.say(
                f"{INTERFACE} is there, but no table inet {TABLE} that would have it on record: "
                "see `ipvsproxy cleanup --kube-proxy`."
            )
        return
    going, staying = described(removal), [*_staying(removal)]
    if beside_mode_ipvs:
        going, staying = [], going + staying
    tables = [f"the nftables table inet {TABLE}"] if found.has_table else []
    dialog.show("These go", [*going, *map(str, in_firewall), *tables])
    dialog.show("These stay", staying)
    if beside_mode_ipvs:
        dialog.say(
            "kube-proxy's ipsets are here: its mode ipvs serves by what stays, and deletes what no Service asks for.\n"
            "If it is not to run here any more, run `ipvsproxy cleanup --kube-proxy` next."
        )
    if dialog.agrees("Remove what goes?"):
        done = [] if beside_mode_ipvs else remove_virtual_servers(dialog, kernel, removal)
        done += _remove_chains(dialog, in_firewall, chains.remove)
        if dialog.failed and tables:
            dialog.fail(f"the table inet {TABLE} stays: it has the record of what stays; run this again")
        elif tables:
            kernel.firewall.remove()
            done += tables
        say_removed(dialog, done)


def read_tables(kernel: NodeKernel) -> NodeTables:
    """Read what the kernel has of everybody's. OSError and FirewallError if it can't be read."""
    # Whoever makes a virtual server puts it on record first: read after it, the record is there.
    keys = [each.key for chunk in kernel.ipvs.virtual_servers() for each in chunk]
    addresses, firewall = kernel.addresses, kernel.firewall
    return NodeTables(
        keys,
        addresses.bound(),
        addresses.elsewhere().keys(),
        firewall.read().elements,
        addresses.has_interface(),
        firewall.exists(),
    )


def described(removal: Removal) -> list[str]:
    """Return a line for each kind of what goes, but for tables."""
    lines = []
    if removal.addresses:
        count = counted(len(removal.addresses), "address", "addresses")
        lines.append(
            f"{count} on {INTERFACE}: {listed([format_address(each) for each in removal.addresses])}"
        )
    if removal.virtual_servers:
        count = counted(len(removal.virtual_servers), "virtual server")
        lines.append(f"{count}: {listed(removal.virtual_servers)}")
    if removal.interface:
        lines.append(f"the interface {INTERFACE}")
    return lines


def remove_virtual_servers(dialog: Dialog, kernel: NodeKernel, removal: Removal) -> list[str]:
    """Remove addresses, virtual servers and the interface; say what is refused, and return what was done.

    What builds on what is refused stays: the virtual servers of an address, and the interface of any.
    """
    done = []
    stuck = _left(kernel.addresses.apply((), removal.addresses))
    for address, error in stuck.items():
        dialog.fail(f"address {format_address(address)} stays: {error}")
    if removed := len(removal.addresses) - len(stuck):
        done.append(counted(removed, "address", "addresses"))
    if removed := _delete_virtual_servers(dialog, kernel, removal.virtual_servers, stuck):
        done.append(counted(removed, "virtual server"))
    if removal.interface and not stuck:
        try:
            kernel.addresses.remove_interface()
        except OSError as error:
            dialog.fail(f"the interface {INTERFACE} stays: {error.strerror or error}")
        else:
            done.append(f"the interface {INTERFACE}")
    return done


def _remove_chains(
    dialog: Dialog, ours: Sequence[Leftover], remove: Callable[[Leftover], None]
) -> Iterator[str]:
    for each in ours:
        try:
            remove(each)
        except FirewallError as error:
            dialog.fail(f"{each} stays: {error}")
        else:
            yield str(each)


def say_removed(dialog: Dialog, done: Sequence[str]) -> None:
    """Say what was removed, if anything was."""
    if done:
        dialog.say(f"Removed: {', '.join(done)}.")


def _delete_virtual_servers(
    dialog: Dialog, kernel: NodeKernel, keys: Sequence[VirtualServerKey], stuck: Container[Address]
) -> int:
    """Delete the virtual servers; return how many are gone."""
    ready = []
    for key in keys:
        if key.address in stuck:
            dialog.fail(f"virtual server {key} stays: its address could not be removed first")
        else:
            ready.append(key)
    refused = _left(
        kernel.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, VirtualServer(key, "")) for key in ready])
    )
    for index, error in refused.items():
        dialog.fail(f"virtual server {ready[index]} stays: {error}")
    return len(ready) - len(refused)


def _left(refused: Mapping[T, KernelError]) -> dict[T, KernelError]:
    """Return what is still there of what could not be removed."""
    return {each: error for each, error in refused.items() if error.code not in _GONE}


def _staying(removal: Removal) -> Iterator[str]:
    if removal.others:
        count = counted(len(removal.others), "virtual server")
        yield f"{count} of somebody else's: {listed(removal.others)}"
    yield "kernel settings (sysctl): what they were before the agent is not known"


@contextlib.contextmanager
def _no_agent(run_directory: Path) -> Iterator[None]:
    """Hold the agent's lock, so that none runs and none starts; IpvsProxyError names the one that does."""
    try:
        lock = AgentLock(run_directory)
    except AlreadyRunningError as error:
        raise IpvsProxyError(f"the agent would put everything back: {error}") from error
    try:
        yield
    finally:
        lock.release()


def _warn_of_agent(dialog: Dialog) -> None:
    found = holder()
    if found and found.may_be_agent:
        dialog.warn(
            f"{agent_process(found)} runs and would put everything back: without --dry-run this is refused"
        )


def agent_process(found: Holder) -> str:
    """Return `the agent, process 42,`; the number of a process of another PID namespace is not known."""
    return f"the agent, process {found.process or 'unknown'},"
