"""The narrow interfaces through which the reconciler reaches the kernel.

The adapters of this package implement them over netlink, nft and /proc/sys; `kernel.fake` implements them
in memory, as strictly. tests/kernel/contract_*.py hold both to the same behaviour.

Every error of a single change is a `KernelError` value, so that one refused change never hides the others;
an exception means that nothing at all is known about what was asked.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ipvsproxy.errors import IpvsProxyError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from ipvsproxy.model.addresses import Address, Holding
    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.model.ipvs import (
        IpvsOperation,
        RealServerStatus,
        Statistics,
        VirtualServer,
        VirtualServerKey,
    )
    from ipvsproxy.plan.firewall import FirewallSettings


class KernelError(NamedTuple):
    """Why the kernel refused one change: its errno, and the extended acknowledgement's text where it gave one."""

    code: int
    message: str = ""

    def __str__(self) -> str:
        """Return `ENOENT: No such file or directory`, with the kernel's own text where there is one."""
        name = errno.errorcode.get(self.code, str(self.code))
        return f"{name}: {self.message or os.strerror(self.code)}"


class KernelUnavailableError(IpvsProxyError):
    """The kernel, or the program `nft`, can't do what the agent needs at all."""


UNREACHABLE: Final = (OSError, KernelUnavailableError)
"""What the adapters raise when nothing is known of what was asked."""


class ConnectionTimeouts(NamedTuple):
    """How long IPVS keeps idle connections, in seconds; 0 leaves what is set. `tcp_fin` counts after the first FIN."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0


class Flow(NamedTuple):
    """The connection tracking entries of all clients of a service port; with an endpoint, of those it serves.

    `destination` is what clients sent their first packet to. `endpoint` is what their packets go to, (address, port);
    without NAT that is the destination itself. `unanswered` leaves out the entries that have seen a reply.
    """

    destination: VirtualServerKey
    endpoint: tuple[Address, int] | None = None
    unanswered: bool = False


class Ipvs(Protocol):
    """IPVS tables of one network namespace (linux/ip_vs.h, generic netlink family IPVS)."""

    def apply(self, operations: Sequence[IpvsOperation]) -> dict[int, KernelError]:
        """Apply the operations in their order; return the refused ones by their index.

        ENOBUFS as an error means that the answers were lost: the operation may or may not have been done.

        The kernel's errors: EEXIST (NEW_* of what is there), ESRCH (any other command on a virtual server that is
        not there), ENOENT (SET_DEST or DEL_DEST of a real server that is not there, an unknown scheduler), ERANGE (a
        weight or a threshold), EINVAL.
        """

    def virtual_servers(self) -> Iterator[list[VirtualServer]]:
        """Dump all virtual servers, everybody's, without their real servers, in chunks of a few dozen."""

    def existing(self, keys: Iterable[VirtualServerKey]) -> set[VirtualServerKey]:
        """Return those of the keys that have a virtual server, whoever made it."""

    def real_servers(
        self, keys: Sequence[VirtualServerKey]
    ) -> dict[VirtualServerKey, list[RealServerStatus]]:
        """Return the real servers of each virtual server, sorted by address and port; a missing one has no entry."""

    def virtual_server_statistics(self) -> dict[VirtualServerKey, Statistics]:
        """Return the counters of all virtual servers, everybody's, by one dump."""

    def real_server_statistics(
        self, keys: Sequence[VirtualServerKey]
    ) -> dict[VirtualServerKey, dict[tuple[Address, int], Statistics]]:
        """Return the counters of each virtual server's real servers, by address and port, with a dump for each key.

        A missing virtual server has no entry.
        """

    def set_timeouts(self, timeouts: ConnectionTimeouts) -> None:
        """Set how long idle connections are kept; OSError if the kernel refuses."""


class Conntrack(Protocol):
    """Connection tracking of one network namespace (linux/netfilter/nfnetlink_conntrack.h)."""

    def forget(self, flows: Collection[Flow]) -> int:
        """Delete the entries of these flows, in both directions; return how many there were. OSError if that fails.

        The next packet of a flow begins a new one then, which IPVS sends to a real server that it has.
        """


class Addresses(Protocol):
    """The service addresses on the agent's dummy interface (default kube-ipvs0)."""

    def ensure_interface(self) -> None:
        """Create the dummy interface unless it is there; KernelUnavailableError if it is of another kind."""

    def has_interface(self) -> bool:
        """Say whether the dummy interface is there; KernelUnavailableError if it is of another kind."""

    def remove_interface(self) -> None:
        """Remove the dummy interface with its addresses; one that is not there is no error. OSError if refused."""

    def bound(self) -> set[Address]:
        """Return the addresses on the dummy interface, but for IPv6 link-local ones; empty without the interface."""

    def elsewhere(self) -> dict[Address, Holding]:
        """Return the addresses on the node's other interfaces, but for IPv6 link-local ones, and how they are held.

        Of an address on two of them, WITH_NETWORK counts.
        """

    def apply(self, add: Collection[Address], remove: Collection[Address]) -> dict[Address, KernelError]:
        """Remove, then add addresses as /32 and /128; return the refused ones.

        Adding what is there and removing what is not are EEXIST and EADDRNOTAVAIL; ENODEV without the interface.
        """


class FirewallState(NamedTuple):
    """The table as the kernel has it: the elements of its sets, and whether all the rest is as `install` leaves it.

    The elements are the record of what is ours, so they are read from a table of another version too.
    """

    elements: frozenset[SetElement]
    intact: bool


class Firewall(Protocol):
    """The nftables table `inet ipvsproxy`."""

    def install(self, elements: Collection[SetElement]) -> None:
        """Replace the whole table, rules and elements, in one transaction; FirewallError if it is refused."""

    def read(self) -> FirewallState:
        """Return what the kernel has; a table that is not there is empty and not intact."""

    def change(self, add: Collection[SetElement], remove: Collection[SetElement]) -> None:
        """Change elements in one transaction, all or nothing; FirewallError if it is refused.

        Adding what is there and removing what is not are no errors. A port can't lead to a source list that is not
        there, and a list that a port leads to can't be removed. Without changes no program runs.
        """

    def use(self, settings: FirewallSettings) -> None:
        """Take other settings for the rules: the table is not intact before it is installed again, if they differ."""

    def exists(self) -> bool:
        """Say whether there is a table of the name, whatever is in it."""

    def remove(self) -> None:
        """Remove the table; one that is not there is no error. FirewallError if that is refused."""

    def changed_by_others(self) -> bool:
        """Say, without reading the table, whether it may have changed but by this object's own calls.

        True until `read` has found the table intact or `install` has made it so.
        """


class FirewallError(Exception):
    """nft refused a transaction; nothing of it was applied. The message is nft's first line."""


class Sysctls(Protocol):
    """Kernel settings below /proc/sys, named with dots or slashes as sysctl(8) does."""

    def get(self, name: str) -> str | None:
        """Return the value, None where this kernel has no such setting."""

    def set(self, name: str, value: str) -> None:
        """Write the value; OSError when the kernel or the file system refuses."""


class NodeKernel(NamedTuple):
    """What the reconciler changes, of one network namespace."""

    ipvs: Ipvs
    addresses: Addresses
    firewall: Firewall
    conntrack: Conntrack
