"""IPVS tables and service addresses in memory, as strict as the kernel.

They refuse what Linux 6.1 refuses, with its errno, and check in the kernel's order; the contract suites of the tests
hold both to that. On top they fail on demand, and keep a log of what took effect: give the fakes one list to share, and
the order of changes across them can be read from it.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from ipvsproxy.kernel.interface import ConnectionTimeouts, KernelError, KernelUnavailableError
from ipvsproxy.model.addresses import Family, Holding, family, parse_network
from ipvsproxy.model.ipvs import Command, RealServerStatus, Statistics

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import IpvsOperation, RealServer, VirtualServer, VirtualServerKey

Key = TypeVar("Key")

# net/netfilter/ipvs; a service with "none" takes no connections.
SCHEDULERS = frozenset(
    ("rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos", "none")
)

_LONGEST_SCHEDULER_NAME = 15  # IP_VS_SCHEDNAME_MAXLEN, less the zero at its end
_HASHED = 0x2  # IP_VS_SVC_F_HASHED
_CHUNK = 64
_LONGEST_TIMEOUT = 0x7FFFFFFF // 1000  # INT_MAX / HZ

# Addresses that are no host's (ip_vs_new_dest()).
_NO_REAL_SERVERS = tuple(
    parse_network(text)
    for text in (
        "0.0.0.0/32",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "::ffff:0:0/96",
        "fe80::/10",
        "ff00::/8",
    )
)
# Addresses that no interface takes (ipv6_add_addr()).
_NO_INTERFACE_ADDRESSES = tuple(parse_network(text) for text in ("::/128", "::1/128", "ff00::/8"))


class AddressOperation(NamedTuple):
    """One change of the dummy interface, in the log: an address came (`bound`) or went."""

    address: Address
    bound: bool


class _RefusedError(Exception):
    """The kernel's answer to one change: the errno is its only argument."""


@dataclass(slots=True)
class _Entry:
    """A virtual server in the table; `statuses` and their counters by the real server's address and port."""

    virtual_server: VirtualServer
    statuses: dict[tuple[Address, int], RealServerStatus] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)
    real_server_statistics: dict[tuple[Address, int], Statistics] = field(default_factory=dict)


class _Failing(Generic[Key]):
    """Fails on demand; `Key` is what a change is about."""

    def __init__(self, log: list[object] | None) -> None:
        self.log: list[object] = [] if log is None else log
        self._refusals: dict[Key, list[int]] = {}
        self._errors: list[OSError] = []

    def refuse(self, key: Key, code: int, times: int = 1) -> None:
        """Refuse the next changes of `key` with the errno."""
        self._refusals[key] = [code] * times

    def fail_calls(self, error: OSError, calls: int = 1) -> None:
        """Raise the error from the next calls, as a socket that broke does; nothing takes effect then."""
        self._errors = [error] * calls

    def _begin_call(self) -> None:
        if self._errors:
            raise self._errors.pop()

    def _begin_change(self, key: Key) -> None:
        if self._refusals.get(key):
            raise _RefusedError(self._refusals[key].pop())


class FakeIpvs(_Failing["VirtualServerKey"]):
    """IPVS tables in memory; `log` has the operations that took effect, in their order.

    `refuse` is for the operations on a virtual server and on its real servers. `timeouts` are those in force.
    """

    def __init__(self, log: list[object] | None = None) -> None:
        """Begin with empty tables; operations are appended to `log`."""
        super().__init__(log)
        self.timeouts = ConnectionTimeouts(tcp=900, tcp_fin=120, udp=300)
        self._table: dict[VirtualServerKey, _Entry] = {}
        self._answers_to_lose = 0

    def lose_answers(self, count: int) -> None:
        """Report ENOBUFS for the next operations, whatever becomes of them."""
        self._answers_to_lose = count

    def set_connections(
        self,
        key: VirtualServerKey,
        address: Address,
        port: int,
        active: int,
        inactive: int = 0,
        persistent: int = 0,
    ) -> None:
        """Let the real server have connections; KeyError if it is not there."""
        statuses = self._table[key].statuses
        server = statuses[address, port].real_server
        statuses[address, port] = RealServerStatus(server, active, inactive, persistent)

    def set_statistics(
        self,
        key: VirtualServerKey,
        statistics: Statistics,
        address: Address | None = None,
        port: int | None = None,
    ) -> None:
        """Set the counters of a virtual server, or with address and port of its real server; KeyError without it."""
        entry = self._table[key]
        if address is None or port is None:
            entry.statistics = statistics
        else:
            server = entry.statuses[address, port].real_server
            entry.real_server_statistics[server.address, server.port] = statistics

    def state(self) -> dict[VirtualServerKey, VirtualServer]:
        """Return all virtual servers with their real servers."""
        return {
            key: entry.virtual_server._replace(
                real_servers=tuple(sorted(status.real_server for status in entry.statuses.values()))
            )
            for key, entry in self._table.items()
        }

    def apply(self, operations: Sequence[IpvsOperation]) -> dict[int, KernelError]:
        """Apply the operations in their order; return the refused ones by their index."""
        self._begin_call()
        errors: dict[int, KernelError] = {}
        for index, operation in enumerate(operations):
            try:
                self._begin_change(operation.virtual_server.key)
                self._apply(operation)
                self.log.append(operation)
            except _RefusedError as refused:
                errors[index] = KernelError(*refused.args)
            if self._answers_to_lose:
                self._answers_to_lose -= 1
                errors[index] = KernelError(errno.ENOBUFS, "the kernel's answer was lost")
        return errors

    def virtual_servers(self) -> Iterator[list[VirtualServer]]:
        """Return all virtual servers as they are now, without their real servers, in chunks."""
        self._begin_call()
        virtual_servers = iter([entry.virtual_server for entry in self._table.values()])
        return iter(lambda: list(islice(virtual_servers, _CHUNK)), [])

    def existing(self, keys: Iterable[VirtualServerKey]) -> set[VirtualServerKey]:
        """Return those of the keys that have a virtual server."""
        self._begin_call()
        return {key for key in keys if key in self._table}

    def real_servers(
        self, keys: Sequence[VirtualServerKey]
    ) -> dict[VirtualServerKey, list[RealServerStatus]]:
        """Return the real servers of each virtual server, sorted by address and port; a missing one has no entry."""
        self._begin_call()
        return {key: sorted(self._table[key].statuses.values()) for key in keys if key in self._table}

    def virtual_server_statistics(self) -> dict[VirtualServerKey, Statistics]:
        """Return the counters of all virtual servers."""
        self._begin_call()
        return {key: entry.statistics for key, entry in self._table.items()}

    def real_server_statistics(
        self, keys: Sequence[VirtualServerKey]
    ) -> dict[VirtualServerKey, dict[tuple[Address, int], Statistics]]:
        """Return the counters of each virtual server's real servers; a missing virtual server has no entry."""
        self._begin_call()
        return {key: dict(self._table[key].real_server_statistics) for key in keys if key in self._table}

    def set_timeouts(self, timeouts: ConnectionTimeouts) -> None:
        """Set how long idle connections are kept, all or nothing; OSError EINVAL for more than the kernel can count."""
        self._begin_call()
        if max(timeouts) > _LONGEST_TIMEOUT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        pairs = zip(timeouts, self.timeouts, strict=True)
        self.timeouts = ConnectionTimeouts(*(new or current for new, current in pairs))

    def _apply(self, operation: IpvsOperation) -> None:
        """Apply one operation, with the checks of ip_vs_genl_set_cmd() in their order."""
        command, virtual_server, real_server = operation
        describes = command in {Command.NEW_SERVICE, Command.SET_SERVICE}
        if describes and len(virtual_server.scheduler.encode()) > _LONGEST_SCHEDULER_NAME:
            raise _RefusedError(errno.EINVAL)
        entry = self._table.get(virtual_server.key)
        if command is Command.NEW_SERVICE:
            if entry:
                raise _RefusedError(errno.EEXIST)
            entry = _Entry(virtual_server)
        elif not entry:
            raise _RefusedError(errno.ESRCH)
        if describes and virtual_server.scheduler not in SCHEDULERS:
            raise _RefusedError(errno.ENOENT)
        if real_server:
            _apply_to_real_server(entry, command, real_server)
        elif command is Command.DEL_SERVICE:
            del self._table[virtual_server.key]
        else:
            flags = virtual_server.flags & ~_HASHED
            entry.virtual_server = virtual_server._replace(flags=flags, real_servers=())
            self._table[virtual_server.key] = entry


class FakeAddresses(_Failing["Address"]):
    """A dummy interface in memory; `log` has an AddressOperation for each change.

    `kind` is that of the interface, None while it is missing; `ipv6_disabled` is its setting disable_ipv6;
    `other_addresses` are those of all other interfaces, which hold `lone_addresses` of them without a network.
    """

    def __init__(self, log: list[object] | None = None) -> None:
        """Begin without the interface; changes are appended to `log`."""
        super().__init__(log)
        self.kind: str | None = None
        self.ipv6_disabled = False
        self.other_addresses: set[Address] = set()
        self.lone_addresses: set[Address] = set()
        self._bound: set[Address] = set()

    def delete_interface(self) -> None:
        """Delete the interface, and with it its addresses, as somebody else does."""
        self.kind = None
        self._bound.clear()

    def ensure_interface(self) -> None:
        """Create the dummy interface unless it is there; KernelUnavailableError if it is of another kind."""
        self._begin_call()
        self.kind = self.kind or "dummy"
        self._require_dummy()

    def has_interface(self) -> bool:
        """Say whether the dummy interface is there; KernelUnavailableError if it is of another kind."""
        self._begin_call()
        if self.kind is not None:
            self._require_dummy()
        return self.kind is not None

    def remove_interface(self) -> None:
        """Remove the dummy interface with its addresses; one that is not there is no error."""
        if self.has_interface():
            self.log += (AddressOperation(address, bound=False) for address in self._bound)
            self.delete_interface()

    def bound(self) -> set[Address]:
        """Return the addresses on the dummy interface; empty without the interface."""
        self._begin_call()
        return set(self._bound)

    def elsewhere(self) -> dict[Address, Holding]:
        """Return the addresses on the node's other interfaces, and how they are held."""
        self._begin_call()
        return {
            address: Holding.ALONE if address in self.lone_addresses else Holding.WITH_NETWORK
            for address in self.other_addresses
        }

    def apply(self, add: Collection[Address], remove: Collection[Address]) -> dict[Address, KernelError]:
        """Remove, then add addresses; return the refused ones."""
        self._begin_call()
        operations = [AddressOperation(address, bound=False) for address in remove]
        operations += [AddressOperation(address, bound=True) for address in add]
        errors: dict[Address, KernelError] = {}
        for operation in operations:
            try:
                self._begin_change(operation.address)
                self._apply(operation)
                self.log.append(operation)
            except _RefusedError as refused:
                errors[operation.address] = KernelError(*refused.args)
        return errors

    def _require_dummy(self) -> None:
        if self.kind != "dummy":
            raise KernelUnavailableError(f"interface kube-ipvs0 is of kind {self.kind}, not dummy")

    def _apply(self, operation: AddressOperation) -> None:
        """Bind or remove one address, with the kernel's checks in their order."""
        address, bound = operation
        if self.kind is None:
            raise _RefusedError(errno.ENODEV)
        if not bound:
            if address not in self._bound:
                raise _RefusedError(errno.EADDRNOTAVAIL)
            self._bound.remove(address)
            return
        if any(network.contains(address) for network in _NO_INTERFACE_ADDRESSES):
            raise _RefusedError(errno.EADDRNOTAVAIL)
        if self.ipv6_disabled and family(address) is Family.IPV6:
            raise _RefusedError(errno.EACCES)
        if address in self._bound:
            raise _RefusedError(errno.EEXIST)
        self._bound.add(address)


def _apply_to_real_server(entry: _Entry, command: Command, real_server: RealServer) -> None:
    """Apply an operation on a real server of a virtual server that is there."""
    place = (real_server.address, real_server.port)
    if command is Command.DEL_DEST:
        if place not in entry.statuses:
            raise _RefusedError(errno.ENOENT)
        del entry.statuses[place], entry.real_server_statistics[place]
        return
    # Only tunnels lead from one family to the other.
    if family(real_server.address) is not family(entry.virtual_server.key.address):
        raise _RefusedError(errno.EINVAL)
    if real_server.weight < 0 or real_server.lower_threshold > real_server.upper_threshold:
        raise _RefusedError(errno.ERANGE)
    status = entry.statuses.get(place)
    if command is Command.SET_DEST:
        if not status:
            raise _RefusedError(errno.ENOENT)
        entry.statuses[place] = status._replace(real_server=real_server)
        return
    if status:
        raise _RefusedError(errno.EEXIST)
    if any(network.contains(real_server.address) for network in _NO_REAL_SERVERS):
        raise _RefusedError(errno.EINVAL)
    entry.statuses[place] = RealServerStatus(real_server, 0, 0)
    entry.real_server_statistics[place] = Statistics()
