"""The differences between what should be and what is, of all that one packet may meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.firewall import FirewallSet
from ipvsproxy.model.objects import AddressKind
from ipvsproxy.observe.differences import (
    compare_address,
    compare_element,
    compare_real_servers,
    compare_table,
    compare_virtual_server,
)
from ipvsproxy.observe.traced import keys_met
from ipvsproxy.observe.words import by_element
from ipvsproxy.plan.desired import elements_of
from ipvsproxy.plan.ownership import guards

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.observe.desired import DesiredVirtualServer
    from ipvsproxy.observe.traced import KernelState


def differences_about(
    key: VirtualServerKey, desired: Mapping[VirtualServerKey, DesiredVirtualServer], kernel: KernelState
) -> Iterator[str]:
    """Yield the differences about what clients of an address and port may meet, in the words of `dump`.

    That is the table's rules, the virtual server, the one that some of its clients are redirected to, their addresses,
    and their elements in the table's sets.
    """
    yield from compare_table(intact=kernel.table.state.intact)
    wanted = {element for each in desired.values() for element in elements_of(each.planned)}
    every = wanted | kernel.elements
    service_addresses = {
        each.address for each, of in desired.items() if of.planned.kind is not AddressKind.NODE_PORT
    }
    for met in sorted({*keys_met(key, every)}, key=lambda each: (each != key, each)):
        yield from _of_virtual_server(desired.get(met), kernel, met)
        address = met.address
        if address in service_addresses or address in kernel.bound:
            yield from compare_address(
                address,
                desired=address in service_addresses,
                bound=address in kernel.bound,
                elsewhere=address in kernel.own,
            )
        about = [element for element in every if _is_about(element, met, desired.get(met))]
        for element in sorted(about, key=by_element):
            yield from compare_element(
                element,
                desired=element in wanted and not guards(element, kernel.own),
                found=element in kernel.elements,
            )


def _of_virtual_server(
    desired: DesiredVirtualServer | None, kernel: KernelState, key: VirtualServerKey
) -> Iterator[str]:
    found = kernel.found(key)
    if desired is None:
        yield from compare_virtual_server(None, found if kernel.owns(key) else None)
        return
    yield from compare_virtual_server(desired.virtual_server, found)
    if found:
        real_servers = compare_real_servers(
            desired.virtual_server, found, desired.excluded, drains=desired.drains
        )
        yield from (sentence for _, sentence in real_servers)


def _is_about(element: SetElement, key: VirtualServerKey, desired: DesiredVirtualServer | None) -> bool:
    if element.set is FirewallSet.SERVICE_ADDRESSES:
        return element.address == key.address
    if element.set is FirewallSet.LOCAL_ENDPOINTS:
        return desired is not None and element.address in desired.planned.local_endpoints
    return element.fields[:3] == key
