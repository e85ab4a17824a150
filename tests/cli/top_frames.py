"""Frames of `ipvsproxy top`: a Service that is busy, one that drains, one without endpoints."""

from __future__ import annotations

from ipvsproxy.cli.top_source import Frame
from ipvsproxy.model.ipvs import Traffic
from ipvsproxy.model.objects import Protocol
from ipvsproxy.observe.schema import AgentInfo
from ipvsproxy.observe.traffic import Look, Names, RealServerLook, VirtualServerLook
from tests.builders import NODE, address, key

AGENT = AgentInfo("0.1.0", 4711, NODE, synced=True)

_WEB, _SHOP, _DNS, _API = (
    key("10.96.0.10"),
    key("10.96.0.30"),
    key("10.96.0.53", 53, Protocol.UDP),
    key("fd00:10:96::20", 443),
)
_KEYS = (_WEB, _SHOP, _DNS, _API)
_NAMES = Names(
    {_WEB: "default/web", _SHOP: "default/shop", _DNS: "kube-system/kube-dns", _API: "default/api"},
    {(_SHOP, (address("10.244.1.9"), 8080)): 962.1},
)


def _look(at: float, *totals: Traffic) -> Look:
    """Return a look; `totals` are those of the first real server of web, of the second one, of shop and of dns."""
    first, second, shop, dns = totals
    web = Traffic(*map(sum, zip(first, second, strict=True)))
    return Look(
        at,
        {
            _WEB: VirtualServerLook(
                web,
                {
                    (address("10.244.0.5"), 8080): RealServerLook(1, 120, 31, first),
                    (address("10.244.1.7"), 8080): RealServerLook(1, 95, 12, second),
                },
            ),
            _SHOP: VirtualServerLook(
                shop,
                {
                    (address("10.244.1.8"), 8080): RealServerLook(1, 3, 0, shop),
                    (address("10.244.1.9"), 8080): RealServerLook(0, 1, 0, Traffic()),
                },
            ),
            _DNS: VirtualServerLook(dns, {(address("10.244.1.2"), 53): RealServerLook(1, 0, 44, dns)}),
            _API: VirtualServerLook(Traffic(), {}),
        },
    )


_BEFORE = _look(100.0, Traffic(), Traffic(), Traffic(), Traffic())
_AFTER = _look(
    102.1,
    Traffic(520, 40_000, 61_000, 5_200_000, 310_000_000),
    Traffic(20, 20_000, 31_000, 2_600_000, 155_000_000),
    Traffic(1, 12, 11, 900, 14_000),
    Traffic(84, 84, 84, 5_900, 12_100),
)

FIRST = Frame(None, _BEFORE, _NAMES, _KEYS, AGENT, "", counting=True)
FRAME = Frame(_BEFORE, _AFTER, _NAMES, _KEYS, AGENT, "", counting=True)
WITHOUT_AGENT = Frame(
    _BEFORE,
    _AFTER,
    Names({}, {}),
    _KEYS,
    None,
    "the agent is not running, nobody listens on /run/ipvsproxy/agent.sock",
    counting=False,
)
