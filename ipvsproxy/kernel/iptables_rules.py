"""What iptables-save prints of a table, taken apart as far as `plan.host_rules` can judge it."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.model.addresses import parse_network
from ipvsproxy.plan.host_rules import UNKNOWN, Condition, Field, Masked, Rule, State, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ipvsproxy.plan.host_rules import Values

HOOKS: Final[Mapping[str, Mapping[str, int]]] = {
    "raw": {"PREROUTING": -300, "OUTPUT": -300},
    "mangle": dict.fromkeys(("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"), -150),
    "filter": dict.fromkeys(("INPUT", "FORWARD", "OUTPUT"), 0),
    "security": dict.fromkeys(("INPUT", "FORWARD", "OUTPUT"), 50),
}
"""The tables that can drop, each with its built-in chains and their priority (linux/netfilter_ipv4.h).

The table `nat` refuses rules that drop.
"""

PROTOCOLS: Final[Mapping[str, int]] = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "icmpv6": 58,
    "sctp": 132,
    "udplite": 136,
}

_VERDICTS: Final = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.REJECT,
    "RETURN": Verdict.RETURN,
}
# Behind these, a packet goes on with the next rule (iptables-extensions(8)).
_GOING_ON: Final = frozenset(
    {
        *(
            "AUDIT",
            "CHECKSUM",
            "CLASSIFY",
            "CONNMARK",
            "CONNSECMARK",
            "CT",
            "DSCP",
            "ECN",
            "HL",
            "HMARK",
            "IDLETIMER",
        ),
        *(
            "LED",
            "LOG",
            "MARK",
            "NFLOG",
            "NOTRACK",
            "RATEEST",
            "SECMARK",
            "SET",
            "TCPMSS",
            "TCPOPTSTRIP",
            "TEE",
            "TOS",
        ),
        *("TRACE", "TTL", "ULOG"),
    }
)
# Modules that hold for every packet unless an option says more.
_MODULES: Final = frozenset(
    {
        *("tcp", "udp", "sctp", "dccp", "udplite", "icmp", "icmp6"),
        *("conntrack", "state", "mark", "comment", "multiport", "addrtype"),
    }
)


class SavedTable(NamedTuple):
    """A table: the built-in chains, each with whether its policy drops, and the lines of the rules of all chains."""

    policies: Mapping[str, bool]
    lines: Mapping[str, list[str]]

    @property
    def rules(self) -> dict[str, list[Rule]]:
        """The rules of all chains that decide anything."""
        return {
            chain: [rule for line in lines for rule in self.parse(line)]
            for chain, lines in self.lines.items()
        }

    def parse(self, line: str) -> Iterator[Rule]:
        """Yield the rule of a line, if it decides anything."""
        _, _, *options = shlex.split(line)
        for index, (before, option, target) in enumerate(
            zip(["", *options], options, options[1:], strict=False)
        ):
            if option in {"-j", "-g"} and before != "--comment":
                conditions = tuple(_conditions(options[:index]))
                if target in self.lines:
                    verdict = Verdict.JUMP if option == "-j" else Verdict.GOTO
                    yield Rule(verdict, conditions, target, line)
                elif target not in _GOING_ON:
                    yield Rule(_VERDICTS.get(target, Verdict.OTHER), conditions, text=line)
                return


def parse_save(text: str, table: str) -> SavedTable:
    """Return the table that `iptables-save -t TABLE` prints; ValueError for other text."""
    policies: dict[str, bool] = {}
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            lines[chain] = []
            if chain in HOOKS[table]:
                policies[chain] = policy == "DROP"
        elif line.startswith("-A "):
            lines.setdefault(line.split(maxsplit=2)[1], []).append(line)
    if not policies:
        raise ValueError(f"there is no table {table}")
    return SavedTable(policies, lines)


def _conditions(options: Sequence[str]) -> Iterator[Condition]:
    module, inside = "", True
    words = iter(options)
    for word in words:
        if word == "!":
            inside = False
            continue
        if word == "-m":
            module = next(words, "")
            if module not in _MODULES:
                yield UNKNOWN
        elif word == "--comment":
            next(words, None)
        elif (module, word) in _OPTIONS or ("", word) in _OPTIONS:
            field, read = _OPTIONS.get((module, word)) or _OPTIONS["", word]
            values: tuple[Values, ...] = ()
            with contextlib.suppress(ValueError, KeyError):
                values = tuple(read(next(words, "")))
            yield Condition(field, values, inside) if values else UNKNOWN
        elif word.startswith("-"):
            yield UNKNOWN
        inside = True


def _networks(text: str) -> Iterator[Values]:
    yield parse_network(text)


def _interfaces(text: str) -> Iterator[Values]:
    yield f"{text[:-1]}*" if text.endswith("+") else text


def _protocols(text: str) -> Iterator[Values]:
    yield int(text) if text.isdigit() else PROTOCOLS[text]


def _ports(text: str) -> Iterator[Values]:
    for part in text.split(","):
        first, colon, last = part.partition(":")
        yield range(int(first), int(last) + 1) if colon else int(first)


def _states(text: str) -> Iterator[Values]:
    return (State(name.lower()) for name in text.split(","))


def _marks(text: str) -> Iterator[Values]:
    value, slash, mask = text.partition("/")
    yield Masked(int(mask, 0) if slash else 0xFFFFFFFF, int(value, 0))


def _types(text: str) -> Iterator[Values]:
    return iter(text.lower().split(","))


# By module, "" for those that need none.
_OPTIONS: Final[Mapping[tuple[str, str], tuple[Field, Callable[[str], Iterator[Values]]]]] = {
    ("", "-s"): (Field.SOURCE, _networks),
    ("", "-d"): (Field.DESTINATION, _networks),
    ("", "-i"): (Field.ARRIVES_BY, _interfaces),
    ("", "-o"): (Field.LEAVES_BY, _interfaces),
    ("", "-p"): (Field.PROTOCOL, _protocols),
    **{
        (module, option): (field, _ports)
        for module in ("tcp", "udp", "sctp", "dccp", "udplite", "multiport")
        for option, field in {
            "--sport": Field.SOURCE_PORT,
            "--sports": Field.SOURCE_PORT,
            "--dport": Field.DESTINATION_PORT,
            "--dports": Field.DESTINATION_PORT,
        }.items()
    },
    ("conntrack", "--ctstate"): (Field.STATE, _states),
    ("state", "--state"): (Field.STATE, _states),
    ("mark", "--mark"): (Field.MARK, _marks),
    ("addrtype", "--dst-type"): (Field.DESTINATION_TYPE, _types),
}
