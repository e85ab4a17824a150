"""What `nft -j -n list table inet ipvsproxy` prints (libnftables-json(5)), taken apart.

The elements of the sets are the record of what is ours. All the rest is either as the agent installed it or not: a
digest of it says which, without any knowledge of how a version of nft prints a rule. Right after an installation the
agent leaves that digest in the table, as the name of an empty chain, where it is found after a restart.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ipvsproxy.kernel.nft_text import SET_NAMES
from ipvsproxy.model.addresses import Network, family, parse_address, parse_network
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import ElementFields

DIGEST_PREFIX = "digest-"
"""What the name of the chain begins with that is left in the table."""

_DIGEST_LENGTH = 32

_SETS_AND_MAPS = ("set", "map")
_PROTOCOLS = {int(each): each for each in Protocol}
_SET_OF_NAME = {name: key for key, name in SET_NAMES.items()}


class Listing(NamedTuple):
    """A table as nft lists it.

    `strange` says that there are elements such as the agent never adds. `digest_name` is the name of the chain to be
    left in the table, and `recorded` those of its kind that are there.
    """

    elements: frozenset[SetElement]
    strange: bool
    digest_name: str
    recorded: tuple[str, ...]

    @property
    def intact(self) -> bool:
        """Say whether the table is as it was when its digest was recorded."""
        return not self.strange and self.recorded == (self.digest_name,)


class _Output(msgspec.Struct):
    """The output as a whole: objects such as {"rule": {"family": "inet", …}}."""

    nftables: list[dict[str, dict[str, Any]]]


_decoder = msgspec.json.Decoder(_Output)
_encoder = msgspec.json.Encoder(order="deterministic")


def parse_listing(output: bytes, rules: str) -> Listing:
    """Take a listing apart; `rules`, the text that installs the table without elements, goes into the digest.

    Raise ValueError (msgspec.DecodeError) for what is no listing.
    """
    elements: set[SetElement] = set()
    strange = False
    recorded: list[str] = []
    others: list[tuple[str, str, dict[str, Any]]] = []
    for each in _decoder.decode(output).nftables:
        for kind, body in each.items():
            if kind == "metainfo":
                continue
            body.pop("handle", None)
            if kind in _SETS_AND_MAPS:
                strange |= not _take_elements(body, elements)
            name = body.get("name", "")
            if kind == "chain" and name.startswith(DIGEST_PREFIX):
                recorded.append(name)
            else:
                others.append((kind, body.get("chain", name), body))
    # The order matters among the rules of a chain, and is nft's own affair between other things.
    others.sort(key=lambda other: other[:2])
    digest = hashlib.sha256(rules.encode() + _encoder.encode(others)).hexdigest()
    digest_name = DIGEST_PREFIX + digest[:_DIGEST_LENGTH]
    return Listing(frozenset(elements), strange, digest_name, tuple(recorded))


def _take_elements(body: dict[str, Any], elements: set[SetElement]) -> bool:
    """Move a set's elements from its body to `elements`; say whether all are such as the agent adds."""
    listed = body.pop("elem", ())
    key = _SET_OF_NAME.get(body.get("name", ""))
    if key is None:
        return not listed
    of = key[0]
    parse = _PARSERS[of]
    clean = True
    for element in listed:
        try:
            elements.add(SetElement(of, parse(element)))
        # Elements of other shapes: with a timeout or a comment, other ranges, unknown protocols.
        except (KeyError, TypeError, ValueError):
            clean = False
    return clean


def _address(element: Any) -> tuple[Address]:  # noqa: ANN401 - any JSON
    return (parse_address(element),)


def _two_addresses(element: Any) -> tuple[Address, Address]:  # noqa: ANN401 - any JSON
    first, second = element["concat"]
    return (parse_address(first), parse_address(second))


def _port(element: Any) -> tuple[Address, Protocol, int]:  # noqa: ANN401 - any JSON
    address, protocol, port = element["concat"]
    return (parse_address(address), _PROTOCOLS[protocol], int(port))


def _protocol_and_port(element: Any) -> tuple[Protocol, int]:  # noqa: ANN401 - any JSON
    protocol, port = element["concat"]
    return (_PROTOCOLS[protocol], int(port))


def _port_and_network(element: Any) -> tuple[Address, Protocol, int, Network]:  # noqa: ANN401 - any JSON
    address, protocol, port, network = element["concat"]
    return (parse_address(address), _PROTOCOLS[protocol], int(port), _network(network))


def _port_to_port(element: Any) -> tuple[Address, Protocol, int, Address, int]:  # noqa: ANN401 - any JSON
    port, destination = element
    address, number = destination["concat"]
    return (*_port(port), parse_address(address), int(number))


def _network(value: Any) -> Network:  # noqa: ANN401 - any JSON
    """Return the network; nft may print one of a single address as that, and any as its first and last address."""
    if isinstance(value, str):
        address = parse_address(value)
        return Network(address, family(address).bits)
    if "prefix" in value:
        return parse_network(f"{value['prefix']['addr']}/{value['prefix']['len']}")
    ends = (ipaddress.ip_address(parse_address(end)) for end in value["range"])
    (network,) = ipaddress.summarize_address_range(*ends)
    return parse_network(str(network))


_PARSERS: dict[FirewallSet, Callable[[Any], ElementFields]] = {
    FirewallSet.SERVICE_ADDRESSES: _address,
    FirewallSet.SERVICE_PORTS: _port,
    FirewallSet.PORTS_WITHOUT_ENDPOINTS: _port,
    FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS: _port,
    FirewallSet.MASQUERADED_PORTS: _port,
    FirewallSet.LOCAL_PORTS: _port,
    FirewallSet.RESTRICTED_PORTS: _port,
    FirewallSet.ALLOWED_SOURCES: _port_and_network,
    FirewallSet.IN_CLUSTER_DESTINATIONS: _port_to_port,
    FirewallSet.OUTSIDE_DESTINATIONS: _port_to_port,
    FirewallSet.LOCAL_ENDPOINTS: _two_addresses,
    FirewallSet.AGENT_PORTS: _protocol_and_port,
}
