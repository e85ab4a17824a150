"""Source lists go along with the ports that lead to them: they come before the first, and go with the last.

A list that is not light, see `plan.source_ranges`, takes the kernel so long that nobody should wait for it, and so much
that it may be refused. It is put off, to be added alone when there is nothing else to do. Until then its ports lead
where they led before, or else to the list that lets nobody in.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.plan.desired import leading_to
from ipvsproxy.plan.diff import list_of
from ipvsproxy.plan.source_ranges import NOBODY, is_light

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from ipvsproxy.model.firewall import SourceList
    from ipvsproxy.plan.desired import Desired
    from ipvsproxy.plan.diff import KnownElements


class ElementChange(NamedTuple):
    """Elements to add and to remove in one transaction, and those of ports whose source list is put off."""

    add: list[SetElement]
    remove: list[SetElement]
    put_off: list[SetElement]


def with_source_lists(
    add: Iterable[SetElement],
    remove: Iterable[SetElement],
    known: KnownElements,
    desired: Desired,
    *,
    any_list: bool,
) -> ElementChange:
    """Return the change with the source lists that it needs; those that are not light only if it may be `any_list`.

    The elements to add are desired ones. The restriction of a port that is to have one stays until another takes its
    place, and a list stays while a port leads to it.
    """
    coming: dict[SetElement, None] = {}
    put_off: list[SetElement] = []
    restricted: set[VirtualServerKey] = set()
    for element in add:
        if element.set is FirewallSet.SOURCE_LISTS:
            continue
        if element.set is FirewallSet.RESTRICTED_PORTS:
            key, source_list = _port(element), _list_behind(element, desired)
            if not (any_list or is_light(source_list) or _as_element(source_list) in known):
                put_off.append(element)
                if known.value(FirewallSet.RESTRICTED_PORTS, key):
                    continue
                source_list = NOBODY[source_list.family]
            restricted.add(key)
            if _as_element(source_list) not in known:
                coming[_as_element(source_list)] = None
            coming[leading_to(source_list, key)] = None
        else:
            coming[element] = None
    going: dict[SetElement, None] = {}
    for element in remove:
        is_restriction = element.set is FirewallSet.RESTRICTED_PORTS
        if not (is_restriction and _stays(_port(element), restricted, desired)):
            going[element] = None
    left = Counter(name for element in going for name in list_of(element))
    needed = {name for element in coming for name in list_of(element)}
    unused: list[SetElement] = [
        unneeded
        for name in left.keys() | {each.set_name for each in going if each.set is FirewallSet.SOURCE_LISTS}
        if known.leading_to[name] <= left[name]
        and name not in needed
        and (unneeded := known.list_named(name))
    ]
    kept = [element for element in going if element.set is not FirewallSet.SOURCE_LISTS]
    return ElementChange(list(coming), [*kept, *unused], put_off)


def installable(desired: Desired, known: Container[SetElement]) -> tuple[set[SetElement], list[SetElement]]:
    """Return what a new table is to have, and the elements whose source list is put off.

    A list that is `known` to be in the table has been taken by the kernel before, and is not put off.
    """
    elements = set(desired.elements)
    put_off: list[SetElement] = []
    for element in desired.elements:
        if element.set is not FirewallSet.RESTRICTED_PORTS:
            continue
        source_list = _list_behind(element, desired)
        if not is_light(source_list) and _as_element(source_list) not in known:
            nobody = NOBODY[source_list.family]
            elements -= {element, _as_element(source_list)}
            elements |= {leading_to(nobody, _port(element)), _as_element(nobody)}
            put_off.append(element)
    return elements, put_off


def _stays(key: VirtualServerKey, restricted: Container[VirtualServerKey], desired: Desired) -> bool:
    """Say whether a port is to be restricted, and no other restriction takes the place of the one it has."""
    planned = desired.virtual_servers.get(key)
    return planned is not None and planned.allowed_sources is not None and key not in restricted


def _port(element: SetElement) -> VirtualServerKey:
    return VirtualServerKey(*element.fields[:3])


def _list_behind(element: SetElement, desired: Desired) -> SourceList:
    """Return the source list that a desired element leads to."""
    source_list = desired.virtual_servers[_port(element)].allowed_sources
    if source_list is None:
        raise LookupError(f"{element} is not desired")
    return source_list


def _as_element(source_list: SourceList) -> SetElement:
    return SetElement(FirewallSet.SOURCE_LISTS, (source_list,))
