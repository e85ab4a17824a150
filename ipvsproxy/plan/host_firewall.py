"""Whether a firewall of the host drops service traffic, and where.

Such traffic is judged by what is certain about it. A client's packet to a service address passes prerouting and, since
it is for the node itself, input; a process's packet passes output. What IPVS sends on to an endpoint passes output and
postrouting, never forward. An answer comes in at prerouting and passes forward and postrouting. Each base chain on the
way may drop it, whatever the others say: `accept` ends that one chain only.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.model.addresses import Family, family
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.host_rules import (
    DROPS,
    SOME_INTERFACE,
    Backend,
    Field,
    State,
    judge,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.plan.host_rules import (
        BaseChain,
        End,
        HostTables,
        Judgement,
        Known,
        Packet,
        TableName,
    )

HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")
FORWARD: Final = "forward"
"""The hook that answers of endpoints pass."""

IPVS: Final = {"input": 99, "output": -98}
"""Where IPVS takes packets to virtual servers: ip_vs_ops4 and ip_vs_ops6, ip_vs_core.c."""

_FEW: Final = 3
_OF_SERVICE: Final = frozenset({Field.DESTINATION, Field.DESTINATION_PORT})
_COMMANDS: Final = {"ip": "iptables", "ip6": "ip6tables"}
_SUFFIXES: Final = {Backend.LEGACY: "-legacy", Backend.IPTABLES_NFT: "-nft"}


class Traffic(enum.Enum):
    """What a chain may drop: packets to services, what IPVS sends on to endpoints, and the answers of endpoints."""

    TO_SERVICE = enum.auto()
    TO_ENDPOINT = enum.auto()
    ANSWER = enum.auto()


class HostFirewallFinding(NamedTuple):
    """A base chain that drops service traffic, and by what.

    `served` are the first of the virtual servers that it drops packets to, and `number` is how many those are; none if
    it is all traffic of that kind. `undecided` are the rules, as text, of which it can't be told what they do with it.
    `traffic` are the kinds that it drops, and `family` is that of the packets, the first one if both are dropped.
    """

    base: BaseChain
    end: End
    served: tuple[str, ...] = ()
    number: int = 0
    undecided: tuple[str, ...] = ()
    traffic: tuple[Traffic, ...] = (Traffic.TO_SERVICE,)
    family: Family = Family.IPV4

    def __str__(self) -> str:
        """Return one sentence, without a full stop: what drops, why, and what to do."""
        return f"{self.meaning}; to mend it: `{self.command}`{self._more}"

    @property
    def meaning(self) -> str:
        """What drops, and why: a sentence without a full stop."""
        unless = ""
        if self.undecided:
            more = f", and {len(self.undecided) - _FEW} more" if len(self.undecided) > _FEW else ""
            unless = f"; what these rules do could not be judged: {', '.join(self.undecided[:_FEW])}{more}"
        place = f"{self.base}, at the hook {self.base.hook} with priority {self.base.priority},"
        return f"{place} drops {self._what}: {self.end.why}{unless}"

    @property
    def _what(self) -> str:
        if self.number:
            more = f" and {self.number - len(self.served)} more" if self.number > len(self.served) else ""
            return f"what is sent to {', '.join(self.served)}{more}"
        return "answers of endpoints" if self.base.hook == FORWARD else "service traffic"

    @property
    def mend(self) -> str:
        """What to do: a command, and whatever else there is to let in."""
        return f"{self.command}{self._more}"

    @property
    def _more(self) -> str:
        if self._is_of_service:
            return ""
        if self.base.hook == "input":
            return (
                "; the same for known connections, external and load balancers' IPs, node ports and health check node "
                "ports (30000 to 32767), and TCP port 10256, where the agent answers health checks"
            )
        return "".join(f"; `{self._command_for(each)}`" for each in self.traffic[1:])

    @property
    def _is_of_service(self) -> bool:
        """Whether the rule that drops is about some service, and so may go."""
        conditions = self.end.rule.conditions if self.end.rule else ()
        return any(each.field in _OF_SERVICE and each.inside for each in conditions)

    @property
    def command(self) -> str:
        """The command that removes the rule that drops some service, or accepts service traffic ahead of what drops."""
        table, rule = self.base.table, self.end.rule
        if rule and self._is_of_service:
            if table.backend is Backend.NFTABLES:
                return f"nft delete rule {table.family} {table.name} {self.end.chain} handle {rule.handle}"
            return f"{_program(table)} -D {rule.text.removeprefix('-A ')}"
        return self._command_for(self.traffic[0])

    def _command_for(self, traffic: Traffic) -> str:
        """Return the command that accepts this traffic ahead of what drops."""
        table, chain, known = self.base.table, self.base.chain, traffic is Traffic.ANSWER
        cidr = "POD-CIDR" if traffic is Traffic.TO_ENDPOINT else "SERVICE-CIDR"
        if table.backend is Backend.NFTABLES:
            of = "ip6" if table.family == "ip6" or self.family is Family.IPV6 else "ip"
            condition = "ct state established,related" if known else f"{of} daddr {cidr}"
            return f"nft insert rule {table.family} {table.name} {chain} {condition} accept"
        condition = "-m conntrack --ctstate RELATED,ESTABLISHED" if known else f"-d {cidr}"
        return f"{_program(table)} -I {chain} {condition} -j ACCEPT"


def _program(table: TableName) -> str:
    of_table = "" if table.name == "filter" else f" -t {table.name}"
    return f"{_COMMANDS[table.family]}{_SUFFIXES[table.backend]}{of_table}"


def find_drops(tables: HostTables, served: Collection[VirtualServerKey]) -> list[HostFirewallFinding]:
    """Return what drops service traffic: packets to the virtual servers, to endpoints, and their answers.

    Without any virtual server, packets to service addresses are judged by what all of them have in common.
    """
    found: dict[tuple[object, ...], HostFirewallFinding] = {}
    for each in (finding for of in Family for finding in _find(tables, of, served)):
        # One end may drop several kinds of traffic, and a table of the family inet has both families.
        same = found.setdefault((each.base, each.end, each.served, each.number), each)
        found[each.base, each.end, each.served, each.number] = same._replace(
            undecided=tuple(dict.fromkeys(same.undecided + each.undecided)),
            traffic=tuple(dict.fromkeys(same.traffic + each.traffic)),
        )
    return list(found.values())


def _find(
    tables: HostTables, of: Family, served: Collection[VirtualServerKey]
) -> Iterator[HostFirewallFinding]:
    keys = [key for key in served if family(key.address) is of]
    if served and not keys:
        return
    for hook in HOOKS:
        for base in tables.at(hook, of):
            for traffic, packet in _packets(hook, of):
                to_service = Field.DESTINATION_TYPE in packet
                new = packet[Field.STATE] is State.NEW
                if to_service and new and base.priority >= IPVS.get(hook, base.priority + 1):
                    continue
                if judge(tables, base, packet).passes:
                    continue
                if keys and to_service:
                    yield from _of_served(tables, base, packet, traffic, keys)
                    continue
                for protocol in sorted({key.protocol for key in keys} or Protocol):
                    judgement = judge(tables, base, {**packet, Field.PROTOCOL: protocol})
                    # Which addresses endpoints have is not known here, so their networks may be let through.
                    by_place = traffic is Traffic.TO_ENDPOINT and any(
                        condition.field is Field.DESTINATION
                        for rule in judgement.undecided
                        for condition in rule.conditions
                    )
                    if judgement.default.verdict in DROPS and not by_place:
                        yield _finding(base, judgement, of, traffic)


def _packets(hook: str, of: Family) -> Iterator[tuple[Traffic, Packet]]:
    """Yield what is certain about service traffic at a hook: of packets to services, to endpoints, and of answers."""
    fields: dict[Field, Known] = {Field.FAMILY: of}
    to_service = {**fields, Field.STATE: State.NEW, Field.DESTINATION_TYPE: "local"}
    to_endpoint = {**fields, Field.STATE: State.NEW, Field.ARRIVES_BY: ""}
    answer = {**fields, Field.STATE: State.ESTABLISHED, Field.ARRIVES_BY: SOME_INTERFACE}
    if hook in {"prerouting", "input"}:
        yield Traffic.TO_SERVICE, {**to_service, Field.ARRIVES_BY: SOME_INTERFACE}
    if hook == "output":
        yield Traffic.TO_SERVICE, {**to_service, Field.ARRIVES_BY: "", Field.LEAVES_BY: "lo"}
    if hook in {"output", "postrouting"}:
        yield Traffic.TO_ENDPOINT, {**to_endpoint, Field.LEAVES_BY: SOME_INTERFACE}
    if hook == "prerouting":
        yield Traffic.ANSWER, answer
    # To a process of the node, whose source is the service address itself.
    if hook == "input":
        yield Traffic.ANSWER, {**answer, Field.DESTINATION_TYPE: "local"}
    if hook in {FORWARD, "postrouting"}:
        yield Traffic.ANSWER, {**answer, Field.LEAVES_BY: SOME_INTERFACE}


def _of_served(
    tables: HostTables,
    base: BaseChain,
    packet: Packet,
    traffic: Traffic,
    keys: Collection[VirtualServerKey],
) -> Iterator[HostFirewallFinding]:
    """Yield a finding for each end that drops packets to virtual servers, or answers to processes that use them."""
    found: dict[str, tuple[Judgement, list[VirtualServerKey]]] = {}
    for key in keys:
        sent = {**packet, Field.DESTINATION: key.address, Field.PROTOCOL: key.protocol}
        if packet[Field.STATE] is State.NEW:
            sent[Field.DESTINATION_PORT] = key.port
        judgement = judge(tables, base, sent)
        if judgement.default.verdict in DROPS:
            found.setdefault(judgement.default.why, (judgement, []))[1].append(key)
    for judgement, dropped in found.values():
        everything = len(dropped) == len(keys)
        yield _finding(
            base, judgement, family(next(iter(keys)).address), traffic, () if everything else dropped
        )


def _finding(
    base: BaseChain,
    judgement: Judgement,
    of: Family,
    traffic: Traffic,
    dropped: Collection[VirtualServerKey] = (),
) -> HostFirewallFinding:
    return HostFirewallFinding(
        base,
        judgement.default._replace(perhaps=None),
        tuple(map(str, sorted(dropped)[:_FEW])),
        len(dropped),
        tuple(rule.text for rule in judgement.undecided),
        (traffic,),
        of,
    )
