"""Who else is on the node: kube-proxy or what it left, another agent, whoever has a port that the agent needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.plan.check.finding import Check, Finding, Severity, unknown
from ipvsproxy.plan.firewall import BEFORE_OTHERS
from ipvsproxy.plan.foreign_rules import ForeignRuleKind, that_meet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.plan.foreign_rules import ForeignRule
    from ipvsproxy.plan.host_rules import TableName
    from ipvsproxy.plan.kube_proxy import Leftovers

CLEANUP: Final = "ipvsproxy cleanup --kube-proxy"


class AgentName(NamedTuple):
    """The process that holds the agent's name in the network namespace, 0 if it is out of sight."""

    process: int
    may_be_agent: bool


class Port(NamedTuple):
    """A TCP port that the agent listens on, what for, and whether somebody has it."""

    number: int
    purpose: str
    held: bool


def judge_kube_proxy(process: int | None, *, in_use: bool) -> Finding:
    """Judge the process kube-proxy, None if there is none to be seen; `in_use`: the agent was here."""
    if process is None:
        return Finding(
            Check.KUBE_PROXY, Severity.OK, "no kube-proxy runs, as far as processes can be seen from here"
        )
    mend = f"stop it on this node (a DaemonSet: by its node selector); then {CLEANUP}"
    if in_use:
        return Finding(
            Check.KUBE_PROXY,
            Severity.ERROR,
            f"kube-proxy runs, process {process}: it and the agent undo each other's work",
            mend,
        )
    return Finding(
        Check.KUBE_PROXY,
        Severity.WARNING,
        f"kube-proxy runs, process {process}: stop it before the agent starts",
        mend,
    )


def judge_leftovers(
    leftovers: Leftovers,
    virtual_servers: Collection[VirtualServerKey],
    kept: Mapping[tuple[TableName, str], str],
    *,
    running: bool,
) -> list[Finding]:
    """Judge what kube-proxy left; `virtual_servers` are those that are its and not ours. `running`: it still is.

    `kept` are the chains that `cleanup --kube-proxy` leaves, each with the reason.
    """
    findings = [Finding(Check.KUBE_PROXY_LEFTOVERS, Severity.UNKNOWN, each) for each in leftovers.unseen]
    if not running:
        findings += [
            Finding(
                Check.KUBE_PROXY_LEFTOVERS,
                Severity.INFO,
                f"chain {chain} of kube-proxy's, of {table}, stays: {reason}",
                about=f"{table.family} {table.name} {chain}",
            )
            for (table, chain), reason in kept.items()
        ]
    going = leftovers.chains if running else [each for each in leftovers.chains if each not in kept]
    parts = [
        _counted(len(going), "chain of iptables", "chains of iptables"),
        _counted(len(leftovers.ipsets), "ipset", "ipsets"),
        _counted(len(leftovers.tables), "nftables table", "nftables tables"),
        _counted(len(virtual_servers), "virtual server", "virtual servers"),
    ]
    there = ", ".join(part for part in parts if part)
    if not there:
        return findings or [
            Finding(Check.KUBE_PROXY_LEFTOVERS, Severity.OK, "nothing of kube-proxy's was found")
        ]
    if running:
        return [
            *findings,
            Finding(Check.KUBE_PROXY_LEFTOVERS, Severity.INFO, f"of the kube-proxy that runs: {there}"),
        ]
    return [
        Finding(
            Check.KUBE_PROXY_LEFTOVERS,
            Severity.WARNING,
            f"kube-proxy left {there}: what it left still decides about packets, and nobody keeps it up to date",
            f"{CLEANUP} --dry-run; then {CLEANUP}",
        ),
        *findings,
    ]


def judge_foreign_rules(
    rules: Sequence[ForeignRule], unseen: Sequence[str], places: Iterable[tuple[Address, int]]
) -> list[Finding]:
    """Judge rules of others that come before the agent's own; `places` are those of virtual and of real servers."""
    findings = [
        Finding(Check.FOREIGN_RULES, Severity.WARNING, str(rule), _MENDS[rule.kind], rule.place)
        for rule in that_meet(rules, places)
    ]
    findings += [Finding(Check.FOREIGN_RULES, Severity.UNKNOWN, each) for each in unseen]
    if findings:
        return findings
    return [
        Finding(
            Check.FOREIGN_RULES,
            Severity.OK,
            "no rule of others keeps service traffic from connection tracking, or translates it first",
        )
    ]


_MENDS: Final = {
    ForeignRuleKind.NOTRACK: "leave service addresses and ports, and those of endpoints, out of the rule",
    ForeignRuleKind.DESTINATION_NAT: (
        f"give the chain a priority above {BEFORE_OTHERS} (dstnat is -100), or leave service traffic out of the rule"
    ),
}


def judge_ports(ports: Sequence[Port]) -> list[Finding]:
    """Judge the ports that an agent would listen on; none runs, so whoever has them is somebody else."""
    findings = [
        Finding(
            Check.PORT,
            Severity.WARNING,
            f"somebody listens on TCP port {port.number}, where the agent is to answer {port.purpose}: "
            "kube-proxy does so, for one",
            f"ss -ltnp sport = :{port.number}",
            str(port.number),
        )
        for port in ports
        if port.held
    ]
    if findings or not ports:
        return findings
    return [
        Finding(Check.PORT, Severity.OK, f"free: TCP port {' and '.join(str(port.number) for port in ports)}")
    ]


def judge_name(holder: AgentName | None, answering: int | None, *, silent: bool = False) -> Finding:
    """Judge who holds the agent's name; `answering` is the process of the agent that answers, None if none does.

    `silent`: somebody listens on the agent's socket, and does not say who.
    """
    if holder is None or holder.process == answering:
        return Finding(Check.OTHER_AGENT, Severity.OK, "no other agent runs in this network namespace")
    process = f"process {holder.process}" if holder.process else "a process that can't be seen from here"
    if not holder.may_be_agent:
        return Finding(
            Check.OTHER_AGENT,
            Severity.WARNING,
            f"{process} has taken the agent's name, the socket @ipvsproxy, and is not root: agents are not kept apart",
            "ss -xlp src @ipvsproxy",
        )
    # Of another PID namespace: the number that the agent itself has is not the one that is seen from here.
    if answering is not None:
        return Finding(
            Check.OTHER_AGENT,
            Severity.INFO,
            f"the agent's name is held by {process}, and the agent that answers calls itself {answering}: "
            "one agent in a container, seen from outside, or two in different network namespaces",
            "ss -xlp src @ipvsproxy",
        )
    if silent:
        return unknown(
            Check.OTHER_AGENT,
            f"{process} has the agent's name, and the agent does not say whether it is that one",
        )
    return Finding(
        Check.OTHER_AGENT,
        Severity.ERROR,
        f"an agent runs in this network namespace, {process}, with another run directory than this one",
        "ipvsproxy check --run-directory DIR, with the one that it was started with",
    )


def _counted(number: int, one: str, many: str) -> str:
    if not number:
        return ""
    return f"{number} {one if number == 1 else many}"
