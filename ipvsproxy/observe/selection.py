"""Which part of the node an operator asks `ipvsproxy dump` for, and what to say if there is no such part."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ipvsproxy.model.addresses import format_address, format_endpoint
from ipvsproxy.observe.words import by_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from collections.abc import Set as AbstractSet

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.objects import ObjectKey, Protocol
    from ipvsproxy.observe import schema


class Selection(NamedTuple):
    """What to show: all that fits each of these; None fits everything.

    A `port` is that of an `address`, a `protocol` that of a port.
    """

    service: ObjectKey | None = None
    address: Address | None = None
    port: int | None = None
    protocol: Protocol | None = None
    endpoint: Address | None = None

    @property
    def places(self) -> bool:
        """Whether it asks for an address or an endpoint."""
        return self.address is not None or self.endpoint is not None

    @property
    def flags(self) -> Iterator[str]:
        """What was asked for, as on the command line."""
        if self.service is not None:
            yield f"--service {self.service}"
        if self.address is not None:
            port, protocol = self.port, self.protocol
            address = format_address(self.address) if port is None else format_endpoint(self.address, port)
            yield f"--address {address}{f'/{protocol.name.lower()}' if protocol else ''}"
        if self.endpoint is not None:
            yield f"--endpoint {format_address(self.endpoint)}"

    def fits(self, key: VirtualServerKey) -> bool:
        """Say whether the virtual server is at the address and port that are asked for."""
        return (
            self.address in {None, key.address}
            and self.port in {None, key.port}
            and self.protocol in {None, key.protocol}
        )


def is_empty(dump: schema.Dump) -> bool:
    """Say whether there is nothing but what concerns the whole node."""
    return not (
        dump.virtual_servers or dump.addresses or dump.firewall.elements or dump.rejections or dump.failures
    )


def nothing_found(
    selection: Selection,
    virtual_servers: Collection[VirtualServerKey],
    ours: Collection[VirtualServerKey],
    elsewhere: AbstractSet[Address],
) -> str:
    """Return the line for an operator who asked for an address or an endpoint that there is nothing to show of.

    `virtual_servers` are everybody's, `ours` those that a Service asks for or the kernel has of ours, `elsewhere` the
    addresses of the node's own interfaces.
    """
    flags = list(selection.flags)
    if len(flags) > 1:
        return f"{' '.join(flags)}: no virtual server fits all of this; ask for one of them alone"
    (flag,) = flags
    if selection.endpoint is not None:
        return f"{flag}: no Service that is known here has such an endpoint, and no virtual server such a real server"
    at_address = selection._replace(port=None, protocol=None)
    if same_address := sorted(filter(at_address.fits, ours), key=by_key):
        return f"{flag}: nobody has this port; there is {', '.join(map(str, same_address))}"
    if theirs := sorted(filter(selection.fits, virtual_servers), key=by_key):
        return f"{flag}: virtual server {', '.join(map(str, theirs))} is not ipvsproxy's"
    if selection.address in elsewhere:
        return f"{flag}: the address is on an interface of the node's own, and there is nothing of ipvsproxy's at it"
    return f"{flag}: no Service that is known here has it, and there is nothing of ipvsproxy's at it"


def only_differences(dump: schema.Dump) -> schema.Dump:
    """Return what differs and nothing else; of what the agent says, what the kernel refused."""
    differences = dump.differences or []
    concerned = {each.service for each in differences}
    return msgspec.structs.replace(
        dump,
        services=[each for each in dump.services or () if f"{each.namespace}/{each.name}" in concerned],
        virtual_servers=list(_differing(dump)),
        addresses=[
            each
            for each in dump.addresses
            if (each.elsewhere or not each.desired if each.actual else each.desired and not each.elsewhere)
        ],
        firewall=msgspec.structs.replace(
            dump.firewall, elements=[each for each in dump.firewall.elements if each.desired != each.actual]
        ),
        rejections=[],
        warnings=[],
        host_firewall_chains=[],
    )


def _differing(dump: schema.Dump) -> Iterator[schema.VirtualServer]:
    for virtual_server in dump.virtual_servers:
        real_servers = [each for each in virtual_server.real_servers if each.differences]
        if virtual_server.differences or real_servers:
            yield msgspec.structs.replace(virtual_server, real_servers=real_servers)
