"""Connection tracking over ctnetlink: the entries of flows whose endpoint or virtual server came or went.

An entry outlives the real server that it leads to, and IPVS drops the datagram that comes with it. An entry of the time
before a virtual server keeps the client's traffic from being masqueraded, and each packet renews it. A flow begins anew
without its entry.

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
from ipvsproxy.kernel.interface import Flow
from ipvsproxy.kernel.netlink import NetlinkClient, open_socket
from ipvsproxy.kernel.nfnetlink import NETLINK_NETFILTER
from ipvsproxy.model.addresses import family

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from ipvsproxy.kernel.conntrack_codec import Entry
    from ipvsproxy.kernel.netlink import DatagramSocket
    from ipvsproxy.model.addresses import Family
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import Protocol

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
        try:
            found = self._matching(set(flows))
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

    def _matching(self, flows: AbstractSet[Flow]) -> set[Entry]:
        """Return the entries of these flows."""
        destinations = {flow.destination for flow in flows}
        found: set[Entry] = set()
        for payload in self._dump(flows):
            if decode_destination(payload) not in destinations:
                continue
            entry = decode_entry(payload)
            if entry and not flows.isdisjoint(_flows_of(entry)):
                found.add(entry)
        return found

    def _dump(self, flows: Iterable[Flow]) -> Iterator[bytes]:
        """Yield the entries of those flows, with others among them, and some of them twice."""
        alike: dict[tuple[Family, Protocol, bool], set[VirtualServerKey]] = {}
        for destination, _, unanswered in flows:
            kind = family(destination.address), destination.protocol, unanswered
            alike.setdefault(kind, set()).add(destination)
        for (of_family, protocol, unanswered), group in alike.items():
            questions = {encode_get_destination(each, unanswered=unanswered) for each in group}
            if len(questions) > _MAX_QUESTIONS:
                questions = {encode_get_protocol(of_family, protocol, unanswered=unanswered)}
            for question in questions:
                yield from itertools.chain.from_iterable(self._client.dump(question))


def _flows_of(entry: Entry) -> Iterator[Flow]:
    """Yield all flows that the entry is of."""
    for endpoint in (None, entry.endpoint):
        yield Flow(entry.destination, endpoint)
        if not entry.answered:
            yield Flow(entry.destination, endpoint, unanswered=True)
