"""The kernel's IPVS tables over generic netlink."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Self, TypeVar

from ipvsproxy.kernel.interface import KernelUnavailableError
from ipvsproxy.kernel.ipvs_codec import (
    IPVS_GENL_NAME,
    decode_real_server,
    decode_real_server_statistics,
    decode_virtual_server,
    decode_virtual_server_statistics,
    encode_get_destinations,
    encode_get_info,
    encode_get_service,
    encode_get_services,
    encode_operations,
    encode_set_timeouts,
)
from ipvsproxy.kernel.netlink import NETLINK_GENERIC, NetlinkClient, generic_family, open_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ipvsproxy.kernel.interface import ConnectionTimeouts, KernelError
    from ipvsproxy.kernel.netlink import DatagramSocket
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import (
        IpvsOperation,
        RealServerStatus,
        Statistics,
        VirtualServer,
        VirtualServerKey,
    )

Decoded = TypeVar("Decoded")

# Beyond so many keys a dump of everything takes less time than a question for each.
_MAX_QUESTIONS = 64


class IpvsNetlink:
    """The IPVS tables of one network namespace: that of the thread that makes the object."""

    def __init__(self, open_socket: Callable[[int], DatagramSocket] = open_socket) -> None:
        """Open a netlink socket; KernelUnavailableError without IPVS in the kernel, or without CAP_NET_ADMIN."""
        self._client = NetlinkClient(NETLINK_GENERIC, open_socket)
        try:
            self._message_type = generic_family(self._client, IPVS_GENL_NAME)
            # Anyone may look the family up, but only those who may change the tables get an answer from it.
            self._client.ask(encode_get_info(self._message_type))
        except FileNotFoundError:
            self.close()
            raise KernelUnavailableError(
                "the kernel has no IPVS: load the module with `modprobe ip_vs`, or boot a kernel with CONFIG_IP_VS"
            ) from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the object, whose socket the end of the `with` statement closes."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the socket."""
        self.close()

    def close(self) -> None:
        """Close the socket; the tables stay."""
        self._client.close()

    def apply(self, operations: Iterable[IpvsOperation]) -> dict[int, KernelError]:
        """Apply the operations in their order; return the refused ones by their index.

        ENOBUFS as an error means that the answers were lost: the operation may or may not have been done.
        Operations on one virtual server are encoded fastest when they follow each other and share the object.
        """
        return self._client.execute(encode_operations(operations, self._message_type))

    def virtual_servers(self) -> Iterator[list[VirtualServer]]:
        """Return all virtual servers, everybody's, without their real servers, in chunks of a few dozen.

        They are as they were at the call: the kernel's answer is read to its end then, and decoded chunk by chunk.
        Those that no key identifies are left out: by firewall mark, or of a protocol that Kubernetes does not know.
        """
        chunks = self._client.dump(encode_get_services(self._message_type))
        return (
            [server for server in map(decode_virtual_server, payloads) if server is not None]
            for payloads in chunks
        )

    def existing(self, keys: Iterable[VirtualServerKey]) -> set[VirtualServerKey]:
        """Return those of the keys that have a virtual server, whoever made it; OSError if an answer was lost."""
        asked = list(keys)
        if len(asked) > _MAX_QUESTIONS:
            listed = {each.key for chunk in self.virtual_servers() for each in chunk}
            return listed.intersection(asked)
        errors = self._client.execute(encode_get_service(key, self._message_type) for key in asked)
        for error in errors.values():
            if error.code != errno.ESRCH:
                raise OSError(error.code, str(error))
        return {key for index, key in enumerate(asked) if index not in errors}

    def real_servers(
        self, keys: Sequence[VirtualServerKey]
    ) -> dict[VirtualServerKey, list[RealServerStatus]]:
        """Return the real servers of each virtual server, sorted by address and port; a missing one has no entry.

        One dump for each: the kernel refuses a second one over the same socket before the first is at its end.
        """
        return {key: sorted(found) for key, found in self._destinations(keys, decode_real_server)}

    def virtual_server_statistics(self) -> dict[VirtualServerKey, Statistics]:
        """Return the counters of all virtual servers, everybody's; those that no key identifies are left out."""
        chunks = self._client.dump(encode_get_services(self._message_type))
        decoded = (decode_virtual_server_statistics(payload) for payloads in chunks for payload in payloads)
        return dict(each for each in decoded if each is not None)

    def real_server_statistics(
        self, keys: Sequence[VirtualServerKey]
    ) -> dict[VirtualServerKey, dict[tuple[Address, int], Statistics]]:
        """Return the counters of each virtual server's real servers; a missing virtual server has no entry."""
        return {key: dict(found) for key, found in self._destinations(keys, decode_real_server_statistics)}

    def set_timeouts(self, timeouts: ConnectionTimeouts) -> None:
        """Set how long idle connections are kept, all or nothing; OSError EINVAL for more than the kernel can count.

        It counts ticks in 31 bits: 2,147,483 seconds with the shortest ones, of a millisecond.
        """
        self._client.ask(encode_set_timeouts(timeouts, self._message_type))

    def _destinations(
        self, keys: Iterable[VirtualServerKey], decode: Callable[[bytes], Decoded]
    ) -> Iterator[tuple[VirtualServerKey, list[Decoded]]]:
        """Yield the decoded real servers of each virtual server that is there."""
        for key in keys:
            chunks = self._client.dump(encode_get_destinations(key, self._message_type))
            found = [decode(payload) for payloads in chunks for payload in payloads]
            # The kernel answers alike for a virtual server without real servers and for one that is not there.
            if found or self.existing([key]):
                yield key, found
