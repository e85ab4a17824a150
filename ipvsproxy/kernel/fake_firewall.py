"""The table `inet ipvsproxy` in memory, as strict as nft: all or nothing, with others who change nftables too.

The contract suite of the tests holds it to what nft does. On top it fails on demand, and keeps a log of what took
effect, which it can share with the other fakes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, assert_never

from ipvsproxy.kernel.interface import FirewallError, FirewallState
from ipvsproxy.model.firewall import MAPS, FirewallSet, SourceList
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.firewall import NODE_ALONE, FirewallSettings
from ipvsproxy.plan.rules import MAP_KEY, SETS, FieldType

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ipvsproxy.model.firewall import SetElement

_MAX_PORT = 65535


class FirewallChange(NamedTuple):
    """One transaction, in the log: the elements that came and went, by a change or by an installation."""

    add: frozenset[SetElement]
    remove: frozenset[SetElement]


@dataclass(slots=True)
class _Table:
    """A table: the settings that its rules follow from, None if somebody edited them."""

    settings: FirewallSettings | None
    elements: frozenset[SetElement]
    sets: set[FirewallSet] = field(default_factory=lambda: set(FirewallSet))


class FakeFirewall:
    """The table in memory; `log` has a FirewallChange for each transaction that changed elements.

    `runs` counts the runs of nft. Others are played by the methods beyond those of the interface.
    """

    def __init__(
        self,
        log: list[object] | None = None,
        settings: FirewallSettings = FirewallSettings(),  # noqa: B008 - an immutable value
    ) -> None:
        """Begin without the table; changes are appended to `log`."""
        self.log: list[object] = [] if log is None else log
        self.runs = 0
        self._settings = settings
        self._table: _Table | None = None
        self._generation = 1
        self._known: int | None = None
        self._refusals: list[str] = []
        self._errors: list[Exception] = []

    def reopen(self, settings: FirewallSettings | None = None) -> None:
        """Forget what an agent forgets that ends; the next one may have other settings."""
        self._known = None
        self._settings = settings or self._settings

    def refuse(self, message: str = "Error: Could not process rule: No buffer space", times: int = 1) -> None:
        """Refuse the next transactions with nft's message; nothing of them takes effect."""
        self._refusals = [message] * times

    def fail_calls(self, error: Exception, calls: int = 1) -> None:
        """Raise the error from the next calls, as if nft or the kernel were out of reach."""
        self._errors = [error] * calls

    def change_another_table(self) -> None:
        """Change something in nftables that is not the agent's."""
        self._generation += 1

    def delete_table(self) -> None:
        """Delete the agent's table."""
        self._generation += 1
        self._table = None

    def edit_rules(self) -> None:
        """Change a rule of the agent's table; LookupError if it is not there."""
        self._generation += 1
        self._present().settings = None

    def delete_set(self, of: FirewallSet) -> None:
        """Delete a set of the agent's table, and the rules that refer to it."""
        self.edit_rules()
        table = self._present()
        table.sets.discard(of)
        table.elements = frozenset(element for element in table.elements if element.set is not of)

    def add_element(self, element: SetElement) -> None:
        """Add an element to a set of the agent's table."""
        self._generation += 1
        self._present().elements |= {element}

    def use(self, settings: FirewallSettings) -> None:
        """Take other settings for the rules: the table is not intact before it is installed again, if they differ."""
        self._begin_call()
        if settings != self._settings:
            self._settings = settings
            self._known = None

    def install(self, elements: Collection[SetElement]) -> None:
        """Replace the whole table, rules and elements, in one transaction; FirewallError if it is refused."""
        self._begin_call()
        self._begin_transaction()
        before = self._table.elements if self._table else frozenset()
        after = frozenset(elements)
        table = _Table(self._settings, before)
        _check(table, after)
        _check_room((), after)
        _check_lists(after, after)
        self._table = table
        self._generation += 1
        self._apply(table, after - before, before - after)
        self._known = self._generation

    def read(self) -> FirewallState:
        """Return what the kernel has; a table that is not there is empty and not intact."""
        self._begin_call()
        self.runs += 1
        self._known = None
        if self._table is None:
            return FirewallState(frozenset(), intact=False)
        intact = self._table.settings == self._settings
        if intact:
            self._known = self._generation
        return FirewallState(self._table.elements, intact)

    def change(self, add: Collection[SetElement], remove: Collection[SetElement]) -> None:
        """Change elements in one transaction, all or nothing; FirewallError if it is refused.

        Elements are removed before others are added, and of these source lists last and first. Adding what is there and
        removing what is not are no errors, unless a map's key has another value, a port leads to a source list that is
        not there, or to one that goes. Without changes no program runs.
        """
        self._begin_call()
        if not add and not remove:
            return
        known = self._known == self._generation
        self._begin_transaction()
        if self._table is None:
            raise FirewallError("Error: No such file or directory")
        _check(self._table, (*add, *remove))
        before = self._table.elements
        # As nft does it: what is to be removed is added first, and source lists go last and come first.
        _check_room(before, remove)
        _check_lists(remove, {*before, *remove})
        between = before.difference(remove)
        _check_unused(remove, between)
        _check_room(between, add)
        _check_lists(add, {*between, *add})
        self._apply(self._table, frozenset(add) - before, frozenset(remove) & before - frozenset(add))
        if known:
            self._known = self._generation

    def exists(self) -> bool:
        """Say whether there is a table, whatever is in it."""
        self._begin_call()
        return self._table is not None

    def remove(self) -> None:
        """Remove the table; one that is not there is no error. FirewallError if that is refused."""
        self._begin_call()
        self._begin_transaction()
        if self._table:
            self.log.append(FirewallChange(frozenset(), self._table.elements))
            self.delete_table()
        self._known = None

    def changed_by_others(self) -> bool:
        """Say whether the table, without a look at it, may have changed but by this object's own transactions."""
        self._begin_call()
        return self._known != self._generation

    def _begin_call(self) -> None:
        if self._errors:
            raise self._errors.pop()

    def _begin_transaction(self) -> None:
        self.runs += 1
        self._known = None
        if self._refusals:
            raise FirewallError(self._refusals.pop())

    def _apply(self, table: _Table, add: frozenset[SetElement], remove: frozenset[SetElement]) -> None:
        if add or remove:
            table.elements = (table.elements - remove) | add
            self._generation += 1
            self.log.append(FirewallChange(add, remove))

    def _present(self) -> _Table:
        if self._table is None:
            raise LookupError("the table is not there")
        return self._table


def _check(table: _Table, elements: Collection[SetElement]) -> None:
    """Raise FirewallError for an element that nft would not take."""
    for element in elements:
        if element.set not in table.sets:
            raise FirewallError(f"Error: No such file or directory: {element.set}")
        if not _fits(element):
            raise FirewallError(f"Error: Could not resolve or out of range: {element}")


def _check_room(present: Iterable[SetElement], add: Collection[SetElement]) -> None:
    """Raise FirewallError if a key of a map, of one of the elements that are to be added, has another value."""
    added = {(element.set, element.fields[:MAP_KEY]) for element in add if element.set in MAPS}
    if not added:
        return
    taken: dict[tuple[object, ...], SetElement] = {}
    for element in (*present, *add):
        place = (element.set, element.fields[:MAP_KEY])
        if place in added and taken.setdefault(place, element) != element:
            raise FirewallError(f"Error: Could not process rule: File exists: {element}")


def _check_lists(elements: Iterable[SetElement], present: Collection[SetElement]) -> None:
    """Raise FirewallError for an element that leads to a source list which is not there."""
    leading = [element for element in elements if element.set is FirewallSet.RESTRICTED_PORTS]
    if not leading:
        return
    names = {each.name for each in NODE_ALONE}
    names |= {element.set_name for element in present if element.set is FirewallSet.SOURCE_LISTS}
    for element in leading:
        if element.fields[-1] not in names:
            raise FirewallError(f"Error: Could not process rule: No such file or directory: {element}")


def _check_unused(remove: Iterable[SetElement], present: Iterable[SetElement]) -> None:
    """Raise FirewallError for a source list that is to go, and that an element leads to which stays."""
    names = {element.set_name for element in remove if element.set is FirewallSet.SOURCE_LISTS}
    if not names:
        return
    for element in present:
        if element.set is FirewallSet.RESTRICTED_PORTS and element.fields[-1] in names:
            raise FirewallError(f"Error: Could not process rule: Device or resource busy: {element}")


def _fits(element: SetElement) -> bool:
    """Say whether the element has the shape of its set."""
    fields: tuple[object, ...] = element.fields
    first = element.fields[0]
    if isinstance(first, SourceList) or element.set is FirewallSet.SOURCE_LISTS:
        return (
            element.set is FirewallSet.SOURCE_LISTS and fields == (first,) and isinstance(first, SourceList)
        )
    types = SETS[element.set]
    length = len(element.address or b"")
    return len(fields) == len(types) and all(
        _is_a(field_type, value, length) for value, field_type in zip(fields, types, strict=True)
    )


def _is_a(field_type: FieldType, value: object, length: int) -> bool:
    """Say whether the value is of the type; `length` is that of an address in bytes."""
    match field_type:
        case FieldType.ADDRESS:
            return isinstance(value, bytes) and len(value) == length
        case FieldType.PROTOCOL:
            return isinstance(value, Protocol)
        case FieldType.PORT:
            return isinstance(value, int) and 0 <= value <= _MAX_PORT
        case FieldType.SOURCE_LIST:
            return isinstance(value, str)
        case _:
            assert_never(field_type)
