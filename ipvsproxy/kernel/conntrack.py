"""Connection tracking over ctnetlink: the entries of flows whose endpoint or virtual server came or went.

An entry outlives the real server that it leads to, and IPVS drops the datagram that comes with it; an entry of the time
before a virtual server keeps the client's traffic from being masqueraded. Without its entry a flow begins anew.

The kernel filters a dump by the original destination. Its filter by the source of replies, which is the endpoint, reads
the wrong flags; so the endpoint is compared here, and all else too, for what a kernel's filter lets through.
"""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING, Self

from ipvsproxy.kernel.conntrack_codec import (
    decode_destination,
    decode_entry,
    encode_delete,
    encode_get_destination,
    encode_get_protocol,
)
from ipvsproxy.kernel.netlink import NetlinkClient, open_socket
from ipvsproxy.kernel.nfnetlink import NETLINK_NETFILTER
from ipvsproxy.model.addresses import family

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import TypeAlias

    from ipvsproxy.kernel.conntrack_codec import Entry
    from ipvsproxy.kernel.interface import Flow
    from ipvsproxy.kernel.netlink import DatagramSocket
    from ipvsproxy.model.addresses import Address, Family
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import Protocol

    # None among a destination's endpoints stands for all of them.
    _Endpoints: TypeAlias = dict[VirtualServerKey, set[tuple[Address, int] | None]]

# Each dump walks the kernel's whole table, whatever it is filtered by. Beyond about so many, one dump of all entries of
# an address family and a protocol takes less time (6 to 30, by the size of the table, with 10,000 entries).
_MAX_QUESTIONS = 8


class ConntrackNetlink:
    """The connection tracking of one network namespace: that of the thread that makes the object."""

    def __init__(self, open_socket: Callable[[int], DatagramSocket] = open_socket) -> None:
        """Open a netlink socket."""
        self._client = NetlinkClient(NETLINK_NETFILTER, open_socket)

    def __enter__(self) -> Self:
        """Return the object, whose socket the end of the `with` statement closes."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the socket."""
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._client.close()

    def forget(self, flows: Collection[Flow]) -> int:
        """Delete the entries of these flows, in both directions; return how many there were. OSError if that fails.

        Entries of other zones than 0 stay: IPVS has no part in them.
        """
        endpoints: _Endpoints = {}
        for destination, endpoint in flows:
            endpoints.setdefault(destination, set()).add(endpoint)
        try:
            found = self._matching(endpoints)
            errors = self._client.execute(map(encode_delete, found))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise OSError(
                errno.EINVAL,
                "the kernel does not let connection tracking be changed: "
                "load the module with `modprobe nf_conntrack_netlink`",
            ) from None
        for refusal in errors.values():
            # It has timed out since, or another one has taken its place.
            if refusal.code != errno.ENOENT:
                raise OSError(refusal.code, f"connection tracking entries can't be deleted: {refusal}")
        return len(found) - len(errors)

    def _matching(self, endpoints: _Endpoints) -> set[Entry]:
        """Return the entries to those destinations that have one of their endpoints."""
        found: set[Entry] = set()
        for payload in self._dump(endpoints):
            destination = decode_destination(payload)
            wanted = endpoints.get(destination) if destination else None
            entry = decode_entry(payload) if wanted else None
            if wanted and entry and (None in wanted or entry.endpoint in wanted):
                found.add(entry)
        return found

    def _dump(self, destinations: Iterable[VirtualServerKey]) -> Iterator[bytes]:
        """Yield the entries to those destinations, with others among them, and some of them twice."""
        alike: dict[tuple[Family, Protocol], list[VirtualServerKey]] = {}
        for each in destinations:
            alike.setdefault((family(each.address), each.protocol), []).append(each)
        for (of_family, protocol), group in alike.items():
            questions = set(map(encode_get_destination, group))
            if len(questions) > _MAX_QUESTIONS:
                questions = {encode_get_protocol(of_family, protocol)}
            for question in questions:
                yield from itertools.chain.from_iterable(self._client.dump(question))
