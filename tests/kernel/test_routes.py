"""The way to an address, asked of a kernel that is written for the test."""

from __future__ import annotations

import errno
import struct

import pytest

from ipvsproxy.kernel import routes
from ipvsproxy.kernel.netlink_codec import encode_attribute
from ipvsproxy.kernel.routes import RTA_GATEWAY, RTA_OIF, RTA_PREFSRC, RTA_VIA, Route, decode_route
from ipvsproxy.model.addresses import Family
from tests.builders import address

LOOPBACK_INDEX = 1  # In every network namespace.


def answer(kind: int, *attributes: bytes) -> bytes:
    return struct.pack("=BBBBBBBBI", Family.IPV4, 32, 0, 0, 254, 3, 0, kind, 0) + b"".join(attributes)


def out_by(index: int) -> bytes:
    return encode_attribute(RTA_OIF, struct.pack("=I", index))


def test_a_route_has_an_interface_and_a_source() -> None:
    source = encode_attribute(RTA_PREFSRC, address("10.0.0.1"))
    assert decode_route(answer(1, out_by(LOOPBACK_INDEX), source)) == Route(
        "lo", address("10.0.0.1"), local=False
    )
    assert decode_route(answer(2, out_by(LOOPBACK_INDEX))) == Route("lo", None, local=True)


def test_a_router_is_the_next_hop_of_whichever_family_it_is() -> None:
    gateway = encode_attribute(RTA_GATEWAY, address("10.0.0.2"))
    assert decode_route(answer(1, out_by(LOOPBACK_INDEX), gateway)) == Route(
        "lo", None, local=False, next_hop=address("10.0.0.2")
    )
    via = encode_attribute(RTA_VIA, struct.pack("=H", Family.IPV6) + address("fe80::1"))
    decoded = decode_route(answer(1, out_by(LOOPBACK_INDEX), via))
    assert decoded
    assert decoded.next_hop == address("fe80::1")


def test_an_interface_that_went_away_has_no_name() -> None:
    assert decode_route(answer(1, out_by(0x7FFFFFFF))) == Route("", None, local=False)


@pytest.mark.parametrize("kind", [6, 7, 8], ids=["blackhole", "unreachable", "prohibit"])
def test_a_route_that_leads_nowhere_is_none(kind: int) -> None:
    assert decode_route(answer(kind)) is None


class Client:
    """A netlink client whose kernel refuses."""

    def __init__(self, code: int) -> None:
        self.code = code

    def ask(self, _: bytes) -> list[bytes]:
        raise OSError(self.code, "refused")


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL])
def test_without_a_route_there_is_none(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(routes, "NetlinkClient", lambda *_: Client(code))
    assert routes.Routes().to(address("10.0.0.1")) is None


def test_a_link_that_is_gone_is_not_up_and_a_neighbour_nobody_asked_for_is_not_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "NetlinkClient", lambda *_: Client(errno.ENODEV))
    assert not routes.Routes().is_up("eth9")
    monkeypatch.setattr(routes, "NetlinkClient", lambda *_: Client(errno.ENOENT))
    assert not routes.Routes().is_silent(address("10.0.0.2"), "lo")


def test_any_other_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "NetlinkClient", lambda *_: Client(errno.EPERM))
    asked = routes.Routes()
    for question in (
        lambda: asked.to(address("fd00::1")),
        lambda: asked.is_up("lo"),
        lambda: asked.is_silent(address("fd00::1"), "lo"),
    ):
        with pytest.raises(PermissionError):
            question()
