"""What should be in the kernel beside what is there.

Pure: from the agent's report and the kernel's tables to what `ipvsproxy dump` shows. Without a report, and until the
agent is synced, there is nothing to compare with: what is shown then is what the kernel has of ours.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ipvsproxy.model.addresses import format_address
from ipvsproxy.model.firewall import FirewallSet, SourceList
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.items import describe
from ipvsproxy.model.objects import AddressKind
from ipvsproxy.observe import schema
from ipvsproxy.observe.desired import desired_virtual_servers, of_service
from ipvsproxy.observe.differences import compare_address, compare_element, compare_table
from ipvsproxy.observe.schema import DifferenceKind
from ipvsproxy.observe.selection import Selection
from ipvsproxy.observe.shown import About, KernelStatistics, Pair
from ipvsproxy.observe.words import by_address, by_element, by_key, mentions
from ipvsproxy.plan.desired import agent_port, elements_of
from ipvsproxy.plan.diff import list_of
from ipvsproxy.plan.ownership import guards, is_ours

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from ipvsproxy.kernel.interface import FirewallState
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.model.ipvs import RealServerStatus, VirtualServer
    from ipvsproxy.observe.desired import DesiredVirtualServer, Place

    _Sentences: TypeAlias = Sequence[tuple[Place | None, str]]

_EVERYTHING = Selection()
_NOT_COUNTED = KernelStatistics()


class KernelTables(NamedTuple):
    """What the kernel has: everybody's virtual servers without their real servers, addresses, the nftables table."""

    virtual_servers: Mapping[VirtualServerKey, VirtualServer]
    bound: AbstractSet[Address]
    elsewhere: AbstractSet[Address]
    firewall: FirewallState

    def owns(self, key: VirtualServerKey) -> bool:
        """Say whether the virtual server is ours: its address is on the dummy interface, or it is on record."""
        return is_ours(key, self.bound, self.firewall.elements)


class Comparison:
    """The report beside the kernel's tables: what is selected of the report, and what is there and nothing asks for.

    What nothing asks for is of no Service: with a Service selected it is left out.
    """

    def __init__(
        self, report: schema.AgentReport | None, tables: KernelTables, selection: Selection = _EVERYTHING
    ) -> None:
        """Gather what there is to compare."""
        self._report = of_service(report, selection.service) if report and selection.service else report
        self._tables = tables
        self._selection = selection
        self._comparable = report is not None and report.agent.synced
        self._virtual_servers: dict[VirtualServerKey, DesiredVirtualServer | None] = {}
        # With the Service that asks for it; None if nothing does.
        self._addresses: dict[Address, str | None] = {}
        self._elements: dict[SetElement, str | None] = {}
        if self._report and self._comparable:
            self._add_desired(self._report)
        if selection.service is None:
            self._add_strays()

    @property
    def ours(self) -> list[VirtualServerKey]:
        """The virtual servers that a Service asks for, or that the kernel has of ours, wherever they are."""
        return list(self._virtual_servers)

    @property
    def virtual_servers(self) -> list[VirtualServerKey]:
        """The virtual servers of the kernel whose real servers `dump` needs."""
        return [
            key
            for key in self._virtual_servers
            if key in self._tables.virtual_servers and self._selection.fits(key)
        ]

    def dump(
        self,
        real_servers: Mapping[VirtualServerKey, Sequence[RealServerStatus]],
        statistics: KernelStatistics = _NOT_COUNTED,
    ) -> schema.Dump:
        """Return what there is to show; a virtual server that `real_servers` lacks has gone in the meantime."""
        pairs = list(self._pairs(real_servers))
        if self._selection.places:
            self._narrow(pairs)
        addresses, elements = (
            sorted(self._addresses, key=by_address),
            sorted(self._elements, key=by_element),
        )
        of_addresses = {address: list(self._compare_address(address)) for address in addresses}
        of_elements = {element: list(self._compare_element(element)) for element in elements}
        said = _Said(of_addresses, of_elements, self._tables.firewall.elements, self._failures(pairs))
        sentences = {pair.key: list(pair.differences()) for pair in pairs}
        comparable, bound, elsewhere = self._comparable, self._tables.bound, self._tables.elsewhere
        present = self._tables.firewall.elements
        return schema.Dump(
            schema.SCHEMA_VERSION,
            agent=self._report.agent if self._report else None,
            watches=self._report.watches if self._report else [],
            services=self._services(pairs) if comparable else None,
            source_lists=self._source_lists(pairs),
            virtual_servers=[
                pair.shown(
                    present, said.about(pair, sentences[pair.key]), statistics, self._selection.endpoint
                )
                for pair in pairs
            ],
            addresses=[
                schema.ServiceAddress(
                    format_address(address),
                    desired=self._addresses[address] is not None,
                    actual=address in bound,
                    elsewhere=address in elsewhere,
                )
                for address in addresses
            ],
            firewall=schema.FirewallTable(
                self._tables.firewall.intact if comparable else None,
                [
                    schema.Element(
                        element.set_name,
                        text,
                        desired=self._elements[element] is not None,
                        actual=element in present,
                    )
                    for element in elements
                    for text in _texts(element)
                ],
            ),
            differences=list(self._differences(pairs, sentences, said)) if comparable else None,
            rejections=self._rejections(pairs),
            failures=list(said.failures),
            warnings=_warnings(self._report) if self._report else [],
            host_firewall_chains=self._report.host_firewall.chains if self._report else [],
        )

    def _add_desired(self, report: schema.AgentReport) -> None:
        self._elements.update((agent_port(port), "") for port in report.agent_ports)
        for desired in desired_virtual_servers(report):
            key = desired.virtual_server.key
            self._virtual_servers[key] = desired
            if desired.planned.kind is not AddressKind.NODE_PORT:
                self._addresses.setdefault(key.address, desired.service)
            for element in elements_of(desired.planned):
                if not guards(element, self._tables.elsewhere):
                    self._elements.setdefault(element, desired.service)

    def _add_strays(self) -> None:
        """Add what is ours in the kernel and nothing asks for."""
        for key in filter(self._tables.owns, self._tables.virtual_servers):
            self._virtual_servers.setdefault(key, None)
        for address in self._tables.bound:
            self._addresses.setdefault(address, None)
        for element in self._tables.firewall.elements:
            self._elements.setdefault(element, None)

    def _pairs(self, real_servers: Mapping[VirtualServerKey, Sequence[RealServerStatus]]) -> Iterator[Pair]:
        """Yield the virtual servers that are selected by Service, and those that no Service asks for last."""
        endpoint, comparable = self._selection.endpoint, self._comparable
        in_order = sorted(
            (item for item in self._virtual_servers.items() if self._selection.fits(item[0])),
            key=lambda item: (item[1] is None, item[1].service if item[1] else "", by_key(item[0])),
        )
        for key, desired in in_order:
            found, statuses = self._tables.virtual_servers.get(key), real_servers.get(key)
            if found and statuses is not None:
                found = found._replace(real_servers=tuple(status.real_server for status in statuses))
                by_place = {status.real_server[:2]: status for status in statuses}
                pair = Pair(key, desired, found, by_place, comparable)
            elif desired:
                pair = Pair(key, desired, None, {}, comparable)
            else:
                continue
            if endpoint is None or pair.has_endpoint(endpoint):
                yield pair

    def _narrow(self, pairs: Sequence[Pair]) -> None:
        """Leave out addresses and elements that neither were asked for nor belong to these virtual servers."""
        selection, keys = self._selection, {pair.key for pair in pairs}
        endpoint = selection.endpoint
        addresses = {key.address for key in keys}
        if selection.address is not None and selection.port is None and endpoint is None:
            addresses.add(selection.address)
        endpoints = (
            {endpoint}
            if endpoint is not None
            else {place[0] for pair in pairs if pair.desired for place in pair.desired.endpoints}
        )

        def belongs(element: SetElement) -> bool:
            if element.set is FirewallSet.SOURCE_LISTS:
                return element.set_name in lists
            if element.set is FirewallSet.LOCAL_ENDPOINTS:
                return element.address in endpoints
            key = _key(element)
            if key is None:
                return element.address in addresses
            return key in keys if endpoint is not None else selection.fits(key)

        self._addresses = {each: owner for each, owner in self._addresses.items() if each in addresses}
        lists: set[str] = set()
        # Which source lists belong is known by the ports that lead to them.
        lists.update(name for each in self._elements if belongs(each) for name in list_of(each))
        self._elements = {each: owner for each, owner in self._elements.items() if belongs(each)}

    def _source_lists(self, pairs: Iterable[Pair]) -> dict[str, list[str]]:
        """Return the networks of the source lists that these virtual servers name."""
        lists = self._report.source_lists if self._report else {}
        named = {pair.desired.reported.source_list for pair in pairs if pair.desired}
        return {name: networks for name, networks in lists.items() if name in named}

    def _services(self, pairs: Iterable[Pair]) -> list[schema.ServiceSummary]:
        services = self._report.services if self._report else []
        if self._selection.places:
            owners = {pair.desired.service for pair in pairs if pair.desired}
            services = [each for each in services if str(each) in owners]
        return [
            schema.ServiceSummary(each.namespace, each.name, each.type, each.not_programmed)
            for each in services
        ]

    def _rejections(self, pairs: Iterable[Pair]) -> list[schema.Rejection]:
        """Return the rejections: of the Services that are shown, and those that are about what was asked for."""
        rejections = self._report.rejections if self._report else []
        if not self._selection.places:
            return rejections
        asked = [each for each in (self._selection.address, self._selection.endpoint) if each is not None]
        owners = {pair.desired.service for pair in pairs if pair.desired}
        return [
            each
            for each in rejections
            if each.service in owners or any(mentions(each.reason, address) for address in asked)
        ]

    def _failures(self, pairs: Iterable[Pair]) -> Sequence[schema.Failure]:
        failures = self._report.failures if self._report else []
        selection = self._selection
        if not failures or not selection.places:
            return failures
        items = {
            *map(describe, self._addresses),
            *map(describe, self._elements),
            *(describe(pair.key) for pair in pairs),
        }
        alone = None
        if selection.endpoint is not None:
            alone = format_address(selection.endpoint)
        elif selection.address is not None and selection.port is None:
            alone = format_address(selection.address)
        return [each for each in failures if each.item in items or each.address == alone]

    def _differences(
        self, pairs: Iterable[Pair], of_pairs: Mapping[VirtualServerKey, _Sentences], said: _Said
    ) -> Iterator[schema.Difference]:
        """Yield what differs; of real servers what is about the endpoint, if one is asked for."""
        for sentence in compare_table(intact=self._tables.firewall.intact):
            yield schema.Difference(None, sentence, DifferenceKind.RULES)
        endpoint = self._selection.endpoint
        for pair in pairs:
            service = pair.desired.service if pair.desired else None
            for place, sentence in of_pairs[pair.key]:
                if place is None or endpoint in {None, place[0]}:
                    kind = DifferenceKind.REAL_SERVER if place else DifferenceKind.VIRTUAL_SERVER
                    yield schema.Difference(service, sentence, kind)
        for address, sentences in said.of_addresses.items():
            for sentence in sentences:
                yield schema.Difference(self._addresses[address], sentence, DifferenceKind.ADDRESS)
        for element, sentences in said.of_elements.items():
            for sentence in sentences:
                yield schema.Difference(self._elements[element], sentence, DifferenceKind.ELEMENT)

    def _compare_address(self, address: Address) -> Iterator[str]:
        if self._comparable:
            yield from compare_address(
                address,
                desired=self._addresses[address] is not None,
                bound=address in self._tables.bound,
                elsewhere=address in self._tables.elsewhere,
            )

    def _compare_element(self, element: SetElement) -> Iterator[str]:
        if self._comparable:
            desired, found = self._elements[element] is not None, element in self._tables.firewall.elements
            yield from compare_element(element, desired=desired, found=found)


class _Said:
    """What is said of addresses and elements, and by which virtual server somebody looks for it."""

    def __init__(
        self,
        of_addresses: Mapping[Address, Sequence[str]],
        of_elements: Mapping[SetElement, Sequence[str]],
        present: AbstractSet[SetElement],
        failures: Sequence[schema.Failure],
    ) -> None:
        """Take the sentences, the elements that the kernel has, and what it refused."""
        self.of_addresses = of_addresses
        self.of_elements = of_elements
        self.failures = failures
        self._present = present
        self._elements: dict[VirtualServerKey | Address, list[SetElement]] = defaultdict(list)
        for element in of_elements:
            about = _key(element) or element.address
            if about is not None and element.set is not FirewallSet.LOCAL_ENDPOINTS:
                self._elements[about].append(element)

    def about(self, pair: Pair, sentences: _Sentences) -> About:
        """Return what there is to say of a virtual server; `sentences` are those about it and its real servers."""
        key = pair.key
        elements = [*self._elements.get(key.address, ()), *self._elements.get(key, ())]
        differences: list[str] = []
        of_real_servers: dict[Place, list[str]] = {}
        for place, sentence in sentences:
            (differences if place is None else of_real_servers.setdefault(place, [])).append(sentence)
        differences += self.of_addresses.get(key.address, ())
        for element in elements:
            differences += self.of_elements[element]
        failures: list[schema.Failure] = []
        if self.failures:
            items = {describe(key), describe(key.address), *map(describe, elements)}
            failures = [each for each in self.failures if each.item in items]
        sets = sorted({element.set_name for element in elements if element in self._present})
        return About(sets, differences, failures, of_real_servers)


def _texts(element: SetElement) -> Iterable[str]:
    """Return what is in the element's set, as nft(8) writes it: a source list is a set with its networks."""
    first = element.fields[0]
    return map(str, first.networks) if isinstance(first, SourceList) else (str(element),)


def _key(element: SetElement) -> VirtualServerKey | None:
    """Return the address, protocol and port that the element begins with, None if it has an address alone."""
    fields = element.fields
    return VirtualServerKey(*fields[:3]) if len(fields) > 2 else None  # noqa: PLR2004 - those three


def _warnings(report: schema.AgentReport) -> list[str]:
    return [*report.warnings, *report.host_firewall.failed, *report.host_firewall.warnings]
