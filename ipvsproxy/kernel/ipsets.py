"""The kernel's ipsets, by pyroute2: their names, their members as far as kube-proxy's are concerned, and their end."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final, Self

from pyroute2.ipset import IPSet
from pyroute2.netlink.exceptions import IPSetError, NetlinkError
from pyroute2.netlink.nfnetlink.ipset import IPSET_ERR_BUSY

from ipvsproxy.model.addresses import parse_address
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# linux/netfilter/ipset/ip_set.h: leave the members out.
_LIST_HEADER: Final = 1 << 2
# nfnetlink answers so where the kernel has no ipsets.
_MISSING: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT})
_PROTOCOLS: Final = frozenset(Protocol)


class IpSets:
    """The ipsets of the network namespace of the thread that makes the object. OSError if the kernel refuses."""

    def __init__(self) -> None:
        """Open a socket; a kernel without ipsets has none of them, and that is no error."""
        self._open: Any = None
        make: Callable[[], Any] = IPSet
        try:
            self._open = make()
        except (NetlinkError, IPSetError) as error:
            if error.code not in _MISSING:
                raise OSError(error.code, os.strerror(error.code)) from error

    def __enter__(self) -> Self:
        """Return the object, whose socket the end of the `with` statement closes."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the socket."""
        if self._open is not None:
            self._open.close()

    def references(self) -> dict[str, int]:
        """Return the names of all sets, each with how many rules and other users it has."""
        return {
            message.get_attr("IPSET_ATTR_SETNAME"): message.get_attr("IPSET_ATTR_DATA").get_attr(
                "IPSET_ATTR_REFERENCES"
            )
            for message in self._messages(flags=_LIST_HEADER)
        }

    def ports(self, name: str) -> set[int]:
        """Return the members of a set of the type bitmap:port; none if there is no such set."""
        return {member.get_attr("IPSET_ATTR_PORT_FROM") for member in self._members(name)}

    def virtual_servers(self, name: str) -> set[VirtualServerKey]:
        """Return the members of a set of the type hash:ip,port; none if there is no such set."""
        found = set()
        for member in self._members(name):
            protocol = member.get_attr("IPSET_ATTR_PROTO")
            if protocol in _PROTOCOLS:
                ((_, text, *_),) = member.get_attr("IPSET_ATTR_IP_FROM")["attrs"]
                port = member.get_attr("IPSET_ATTR_PORT_FROM")
                found.add(VirtualServerKey(parse_address(text), Protocol(protocol), port))
        return found

    def destroy(self, name: str) -> None:
        """Remove a set; one that is not there is no error, one that a rule uses is OSError EBUSY."""
        if self._open is None:
            return
        try:
            self._open.destroy(name)
        except IPSetError as error:
            if error.code == IPSET_ERR_BUSY:
                raise OSError(errno.EBUSY, "a rule uses it") from error
            if error.code != errno.ENOENT:
                raise OSError(error.code, str(error)) from error

    def _members(self, name: str) -> Iterator[Any]:
        for message in self._messages(name=name):
            members = message.get_attr("IPSET_ATTR_ADT")
            if members:
                yield from (value[1] for value in members["attrs"])

    def _messages(self, **arguments: object) -> Iterator[Any]:
        if self._open is None:
            return
        try:
            yield from self._open.list(**arguments)
        except IPSetError as error:
            if error.code != errno.ENOENT:
                raise OSError(error.code, str(error)) from error
