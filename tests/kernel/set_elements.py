"""Elements of the firewall's sets, for Hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from ipvsproxy.model.addresses import Address, Family, Network
from ipvsproxy.model.firewall import MAPS, FirewallSet, SetElement
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.rules import MAP_KEY, SETS, FieldType

if TYPE_CHECKING:
    from collections.abc import Iterable

# Few enough that elements are often the same, or alike but for one field.
_VALUES = {
    FieldType.PROTOCOL: st.sampled_from(Protocol),
    FieldType.PORT: st.sampled_from([1, 80, 65535]),
}


def _values(of: FieldType, family: Family) -> st.SearchStrategy[object]:
    length = family.bits // 8
    addresses = st.sampled_from(
        [bytes(length), b"\xff" * length, *(bytes((10, *range(length - 2), each)) for each in range(3))]
    )
    if of is FieldType.ADDRESS:
        return addresses.map(Address)
    if of is FieldType.NETWORK:
        return st.builds(_network, addresses, st.integers(0, family.bits))
    return _VALUES[of]


def _network(within: bytes, prefix_length: int) -> Network:
    shift = 8 * len(within) - prefix_length
    return Network(Address((int.from_bytes(within) >> shift << shift).to_bytes(len(within))), prefix_length)


def _elements_of(each: FirewallSet, family: Family) -> st.SearchStrategy[SetElement]:
    fields = st.tuples(*(_values(of, family) for of in SETS[each]))
    return fields.map(lambda values: SetElement(each, values))


ANY_ELEMENT = st.one_of(*(_elements_of(each, family) for each in FirewallSet for family in Family))
"""Any element of any set."""


def side_by_side(elements: Iterable[SetElement]) -> frozenset[SetElement]:
    """Return those of the elements that are in no other's way, which comes before them."""
    kept: list[SetElement] = []
    for element in elements:
        if not any(_in_the_way(other, element) for other in kept):
            kept.append(element)
    return frozenset(kept)


def _in_the_way(other: SetElement, element: SetElement) -> bool:
    if (other.set, other.fields[:MAP_KEY]) != (element.set, element.fields[:MAP_KEY]) or other == element:
        return False
    last, others_last = element.fields[-1], other.fields[-1]
    if isinstance(last, Network) and isinstance(others_last, Network):
        return last.contains(others_last.address) or others_last.contains(last.address)
    return element.set in MAPS


ELEMENTS_SIDE_BY_SIDE = st.lists(ANY_ELEMENT, max_size=30).map(side_by_side)
"""Elements that the table can have all at once."""
