"""The addresses by which the agent reaches the API server, so that no Service takes one of them over.

A Service with such an address as its external or load balancer's IP would bind it on this node. Agent and kubelet would
be cut off, and the agent could never hear that the claim is gone. A virtual IP in front of the control plane is no
endpoint of the Service `default/kubernetes`, so the cluster does not tell these addresses. They are:

* what the configuration names as the API server's host, and its proxy's: an address, or all that a name leads to;
* the peers of the connections in use, and of the last one.

A name is looked up by a thread of its own, at the start and when a request has failed: it may lead elsewhere by then.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.addresses import Address


def resolve(host: str) -> frozenset[Address]:
    """Return the addresses that a name leads to, as the node looks it up; OSError if it leads nowhere."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return frozenset(filter(None, (address_of(place) for *_, place in found)))


def address_of(place: tuple[object, ...]) -> Address | None:
    """Return the address in a socket's name; None for one that is not of the Internet's families."""
    try:
        return parse_address(str(place[0]).partition("%")[0])
    except (ValueError, IndexError):
        return None


class Reach:
    """Knows the addresses. `run` belongs to one thread, all else may be called from any."""

    def __init__(
        self,
        put: Callable[[frozenset[Address]], None],
        look_up: Callable[[str], frozenset[Address]],
        log: FilteringBoundLogger,
    ) -> None:
        """Begin with none. All that are known go to `put` when they change; `look_up` is as `resolve`."""
        self._put = put
        self._look_up = look_up
        self._log = log
        self._lock = threading.Lock()
        self._hosts: dict[str, frozenset[Address]] = {}
        self._peers: Counter[Address] = Counter()
        self._last_peer: frozenset[Address] = frozenset()
        self._doubted = threading.Event()
        self._stopping = False
        self._failing: set[str] = set()
        self.known = threading.Event()
        """Set once each name was looked up, with or without success."""

    def go_by(self, hosts: Iterable[str]) -> None:
        """Take what the configuration names in place of what it named before: addresses count at once."""
        with self._changed():
            self._hosts = {host: self._hosts.get(host) or _literal(host) for host in hosts}
        self.doubt()

    @contextlib.contextmanager
    def used(self, peer: Address | None) -> Iterator[None]:
        """Count the other end of a connection as in use."""
        if peer is None:
            yield
            return
        with self._changed():
            self._peers[peer] += 1
            self._last_peer = frozenset((peer,))
        try:
            yield
        finally:
            with self._changed():
                self._peers[peer] -= 1

    def doubt(self) -> None:
        """Have the names looked up again, soon: a request has failed."""
        self._doubted.set()

    def stop(self) -> None:
        """Make `run` return once it has looked up what it is at."""
        self._stopping = True
        self._doubted.set()

    def run(self) -> None:
        """Look the names up, now and whenever that is called for, until stopped."""
        while self._doubted.wait() and not self._stopping:
            self._doubted.clear()
            for host in [host for host in self._hosts if not _literal(host)]:
                self._resolve(host)
            self.known.set()

    def _resolve(self, host: str) -> None:
        """Look one name up; the last answer stays while that fails."""
        try:
            found = self._look_up(host)
        except (OSError, UnicodeError) as error:
            if host not in self._failing:
                self._failing.add(host)
                self._log.warning("name of the API server not found", host=host, reason=str(error))
            return
        self._failing.discard(host)
        with self._changed():
            if host in self._hosts:
                self._hosts[host] = found

    @contextlib.contextmanager
    def _changed(self) -> Iterator[None]:
        """Hold the lock for a change, and tell what is known after it."""
        with self._lock:
            yield
            self._put(frozenset(+self._peers).union(self._last_peer, *self._hosts.values()))


def _literal(host: str) -> frozenset[Address]:
    """Return the address that the text is; none if it is a name."""
    address = address_of((host,))
    return frozenset((address,)) if address else frozenset()
