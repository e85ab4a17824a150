"""Elements of the firewall's sets, for Hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from ipvsproxy.model.addresses import Address, Family, Network
from ipvsproxy.model.firewall import MAPS, FirewallSet, SetElement, SourceList
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.firewall import NODE_ALONE
from ipvsproxy.plan.rules import MAP_KEY, SETS, FieldType
from ipvsproxy.plan.source_ranges import separate_networks

if TYPE_CHECKING:
    from collections.abc import Iterable

# Few enough that elements are often the same, or alike but for one field.
_VALUES = {
    FieldType.PROTOCOL: st.sampled_from(Protocol),
    FieldType.PORT: st.sampled_from([1, 80, 65535]),
}


def _addresses(family: Family) -> st.SearchStrategy[bytes]:
    length = family.bits // 8
    return st.sampled_from(
        [bytes(length), b"\xff" * length, *(bytes((10, *range(length - 2), each)) for each in range(3))]
    )


def _values(of: FieldType, family: Family) -> st.SearchStrategy[object]:
    if of is FieldType.ADDRESS:
        return _addresses(family).map(Address)
    if of is FieldType.SOURCE_LIST:
        # Of the lists, those are there whatever comes and goes.
        return st.sampled_from([each.name for each in NODE_ALONE if each.family is family])
    return _VALUES[of]


def _source_lists(family: Family) -> st.SearchStrategy[SetElement]:
    networks = st.lists(st.builds(_network, _addresses(family), st.integers(0, family.bits)), max_size=4)
    lists = st.builds(
        lambda ranges, admits_node: SourceList.of(
            family, separate_networks(tuple(ranges), family), admits_node=admits_node
        ),
        networks,
        st.booleans(),
    )
    others = lists.filter(lambda each: each not in NODE_ALONE)
    return others.map(lambda each: SetElement(FirewallSet.SOURCE_LISTS, (each,)))


def _network(within: bytes, prefix_length: int) -> Network:
    shift = 8 * len(within) - prefix_length
    return Network(Address((int.from_bytes(within) >> shift << shift).to_bytes(len(within))), prefix_length)


def _elements_of(each: FirewallSet, family: Family) -> st.SearchStrategy[SetElement]:
    fields = st.tuples(*(_values(of, family) for of in SETS[each]))
    return fields.map(lambda values: SetElement(each, values))


ANY_ELEMENT = st.one_of(
    *(_elements_of(each, family) for each in SETS for family in Family), *map(_source_lists, Family)
)
"""Any element of any set."""


def side_by_side(elements: Iterable[SetElement]) -> frozenset[SetElement]:
    """Return those of the elements that are in no other's way, which comes before them."""
    kept: list[SetElement] = []
    for element in elements:
        if not any(_in_the_way(other, element) for other in kept):
            kept.append(element)
    return frozenset(kept)


def _in_the_way(other: SetElement, element: SetElement) -> bool:
    same_key = (other.set, other.fields[:MAP_KEY]) == (element.set, element.fields[:MAP_KEY])
    return element.set in MAPS and same_key and other != element


ELEMENTS_SIDE_BY_SIDE = st.lists(ANY_ELEMENT, max_size=30).map(side_by_side)
"""Elements that the table can have all at once."""
