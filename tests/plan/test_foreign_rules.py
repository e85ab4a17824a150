"""Which rules of others count, and which service traffic may fit them."""

from __future__ import annotations

import pytest

from ipvsproxy.model.addresses import parse_network
from ipvsproxy.plan.foreign_rules import BaseChain, ForeignRule, ForeignRuleKind, kinds_in, that_meet
from tests.builders import address

NOTRACK, NAT = ForeignRuleKind.NOTRACK, ForeignRuleKind.DESTINATION_NAT
DNS, WEB = (address("10.96.0.10"), 53), (address("fd00:96::1"), 80)


@pytest.mark.parametrize(
    ("chain", "kinds"),
    [
        (BaseChain("ip", "raw", "PREROUTING", "filter", "prerouting", -300), {NOTRACK}),
        (BaseChain("inet", "mine", "out", "filter", "output", -201), {NOTRACK}),
        (BaseChain("inet", "mine", "late", "filter", "prerouting", -200), set()),
        (BaseChain("ip", "nat", "PREROUTING", "nat", "prerouting", -100), set()),
        (BaseChain("ip", "mine", "early", "nat", "prerouting", -111), {NAT}),
        (BaseChain("ip6", "mine", "early", "nat", "output", -150), {NAT}),
        (BaseChain("ip", "mine", "late", "nat", "output", -110), set()),
        (BaseChain("ip", "mine", "post", "nat", "postrouting", -150), set()),
        (BaseChain("inet", "ipvsproxy", "prerouting", "filter", "prerouting", -300), set()),
    ],
)
def test_what_comes_too_late_does_not_count(chain: BaseChain, kinds: set[ForeignRuleKind]) -> None:
    assert kinds_in(chain) == kinds


@pytest.mark.parametrize(
    ("networks", "ports", "met"),
    [
        ((), (), [DNS, WEB]),
        ((), (53,), [DNS]),
        (("10.96.0.0/16",), (), [DNS]),
        (("10.96.0.0/16",), (80,), []),
        (("169.254.20.10/32",), (53,), []),
        (("10.96.0.10/32", "fd00::/8"), (53, 80), [DNS, WEB]),
    ],
)
def test_a_rule_is_met_by_what_fits_all_its_conditions(
    networks: tuple[str, ...], ports: tuple[int, ...], met: list[tuple[bytes, int]]
) -> None:
    rule = ForeignRule(NOTRACK, "table", "text", tuple(map(parse_network, networks)), ports)
    assert [place for place in (DNS, WEB) if that_meet([rule], [place])] == met
    assert that_meet([rule], [DNS, WEB]) == ([rule] if met else [])
