"""The service addresses on the agent's dummy interface, over rtnetlink.

An address on it makes the kernel take packets to the address for its own, so that IPVS sees them. The interface stays
down: no route but the local ones comes of its addresses then, and they serve all the same.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Self

from ipvsproxy.kernel.address_codec import (
    decode_address,
    decode_link,
    encode_changes,
    encode_delete_link,
    encode_get_addresses,
    encode_get_link,
    encode_new_dummy,
)
from ipvsproxy.kernel.interface import KernelError, KernelUnavailableError
from ipvsproxy.kernel.netlink import NETLINK_ROUTE, NetlinkClient, open_socket
from ipvsproxy.model.addresses import Holding

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ipvsproxy.kernel.address_codec import InterfaceAddress, Link
    from ipvsproxy.kernel.netlink import DatagramSocket
    from ipvsproxy.model.addresses import Address


_KIND = "dummy"


class DummyInterface:
    """The dummy interface of one network namespace: that of the thread that makes the object."""

    def __init__(
        self, name: str = "kube-ipvs0", open_socket: Callable[[int], DatagramSocket] = open_socket
    ) -> None:
        """Open a netlink socket; the interface need not be there yet."""
        self._name = name
        self._client = NetlinkClient(NETLINK_ROUTE, open_socket)

    def __enter__(self) -> Self:
        """Return the object, whose socket the end of the `with` statement closes."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the socket."""
        self.close()

    def close(self) -> None:
        """Close the socket; the interface and its addresses stay."""
        self._client.close()

    def ensure_interface(self) -> None:
        """Create the dummy interface unless it is there; KernelUnavailableError if it is of another kind."""
        self._require_dummy(self._find() or self._create())

    def has_interface(self) -> bool:
        """Say whether the dummy interface is there; KernelUnavailableError if it is of another kind."""
        link = self._find()
        if link is not None:
            self._require_dummy(link)
        return link is not None

    def remove_interface(self) -> None:
        """Remove the dummy interface with its addresses; one that is not there is no error. OSError if refused."""
        if self.has_interface():
            self._client.ask(encode_delete_link(self._name))

    def bound(self) -> set[Address]:
        """Return the addresses on the dummy interface, IPv6 link-local ones left out; empty without the interface."""
        link = self._find()
        if link is None:
            return set()
        try:
            found = list(self._dump(link.interface_index))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return set()
        # A kernel without NETLINK_GET_STRICT_CHK dumps the addresses of all interfaces.
        return {each.address for each in found if each.interface_index == link.interface_index}

    def elsewhere(self) -> dict[Address, Holding]:
        """Return the addresses on all other interfaces, IPv6 link-local ones left out, and how they are held."""
        link = self._find()
        own_index = link.interface_index if link else 0
        held: dict[Address, Holding] = {}
        for each in self._dump():
            if each.interface_index != own_index and held.get(each.address) is not Holding.WITH_NETWORK:
                held[each.address] = each.holding
        return held

    def apply(self, add: Collection[Address], remove: Collection[Address]) -> dict[Address, KernelError]:
        """Remove, then add addresses as /32 and /128; return the refused ones.

        The kernel's errors: EEXIST and EADDRNOTAVAIL as in the interface; EACCES where IPv6 is disabled on the
        interface, EOPNOTSUPP where the kernel has none; ENODEV without the interface.
        """
        link = self._find()
        if link is None:
            missing = KernelError(errno.ENODEV, f"interface {self._name} is missing")
            return dict.fromkeys((*remove, *add), missing)
        errors = self._client.execute(encode_changes(link.interface_index, add, remove))
        addresses = (*remove, *add)
        return {addresses[index]: error for index, error in errors.items()}

    def _require_dummy(self, link: Link) -> None:
        if link.kind != _KIND:
            raise KernelUnavailableError(
                f"interface {self._name} is of kind {link.kind or 'physical'}, not {_KIND}: "
                "remove or rename it"
            )

    def _find(self) -> Link | None:
        """Return the interface; None if there is none of the name."""
        try:
            return self._get()
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return None

    def _get(self) -> Link:
        """Return the interface; OSError ENODEV if there is none of the name."""
        (answer,) = self._client.ask(encode_get_link(self._name))
        return decode_link(answer)

    def _create(self) -> Link:
        """Create the interface and return it."""
        try:
            self._client.ask(encode_new_dummy(self._name))
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise KernelUnavailableError(
                f"interface {self._name} can't be made, the kernel has no dummy interfaces: "
                "load the module with `modprobe dummy`"
            ) from None
        return self._get()

    def _dump(self, interface_index: int = 0) -> Iterator[InterfaceAddress]:
        """Yield the addresses of the interface of that index; 0 for those of all."""
        for payloads in self._client.dump(encode_get_addresses(interface_index)):
            for payload in payloads:
                address = decode_address(payload)
                if address:
                    yield address
