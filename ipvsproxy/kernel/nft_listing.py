"""What `nft -j -n list table inet ipvsproxy` prints (libnftables-json(5)), taken apart.

The elements of the sets are the record of what is ours. All the rest is either as the agent installed it or not: a
digest of it says which, without any knowledge of how a version of nft prints a rule. Right after an installation the
agent leaves that digest in the table, as the name of an empty chain, where it is found after a restart.

Source lists come and go after the installation, each with a set, a chain and its rules. The digest covers one of each
family that is always there, and every other one is as it should be if nft prints it as that one, but for its name. Its
networks are as they should be if they lead to its name.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from ipvsproxy.kernel.nft_text import SET_NAMES
from ipvsproxy.model.addresses import Network, family, parse_address, parse_network
from ipvsproxy.model.firewall import FirewallSet, SetElement, SourceList, named_source_list
from ipvsproxy.model.objects import Protocol
from ipvsproxy.plan.firewall import NODE_ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipvsproxy.model.addresses import Address, Family
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

# A kind of nftables' objects, and one as nft prints it, without its handle.
_Printed: TypeAlias = tuple[str, dict[str, Any]]

_ALWAYS_THERE = {each.name for each in NODE_ALONE}
# The rule about the node's own processes, plan.firewall.
_NODE_RULE = 1


def parse_listing(output: bytes, rules: str) -> Listing:
    """Take a listing apart; `rules`, the text that installs the table without elements, goes into the digest.

    Raise ValueError (msgspec.DecodeError) for what is no listing.
    """
    elements: set[SetElement] = set()
    strange = False
    recorded: list[str] = []
    others: list[tuple[str, str, dict[str, Any]]] = []
    lists: dict[str, list[_Printed]] = {}
    for each in _decoder.decode(output).nftables:
        for kind, body in each.items():
            if kind == "metainfo":
                continue
            body.pop("handle", None)
            name = body.get("name", "")
            place = body.get("chain", name)
            if named_source_list(place):
                lists.setdefault(place, []).append((kind, body))
                if place not in _ALWAYS_THERE:
                    continue
            elif kind in _SETS_AND_MAPS:
                strange |= not _take_elements(body, elements)
            if kind == "chain" and name.startswith(DIGEST_PREFIX):
                recorded.append(name)
            else:
                others.append((kind, place, body))
    strange |= not _take_lists(lists, elements)
    # The order matters among the rules of a chain, and is nft's own affair between other things.
    others.sort(key=lambda other: other[:2])
    digest = hashlib.sha256(rules.encode() + _encoder.encode(others)).hexdigest()
    digest_name = DIGEST_PREFIX + digest[:_DIGEST_LENGTH]
    return Listing(frozenset(elements), strange, digest_name, tuple(recorded))


def _take_lists(lists: dict[str, list[_Printed]], elements: set[SetElement]) -> bool:
    """Add the source lists to `elements`; say whether all are such as the agent adds."""
    clean = True
    wanted: dict[tuple[Family, bool] | None, bytes] = {}
    for each in NODE_ALONE:
        objects = lists.get(each.name, [])
        rules = [printed for printed in objects if printed[0] == "rule"]
        without = [printed for printed in objects if printed not in rules[_NODE_RULE : _NODE_RULE + 1]]
        wanted[each.family, True] = _shape(each.name, objects)
        wanted[each.family, False] = _shape(each.name, without)
    for name, objects in lists.items():
        found = _source_list(name, objects)
        if found is None or found.name != name or _shape(name, objects) != wanted[named_source_list(name)]:
            clean = False
        elif found not in NODE_ALONE:
            elements.add(SetElement(FirewallSet.SOURCE_LISTS, (found,)))
    return clean


def _source_list(name: str, objects: Iterable[_Printed]) -> SourceList | None:
    """Return the source list that is in the set of this name, None if there is none such as the agent adds."""
    kind = named_source_list(name)
    listed = [network for _, body in objects for network in body.get("elem", ())]
    try:
        return SourceList.of(kind[0], map(_network, listed), admits_node=kind[1]) if kind else None
    # Elements of other shapes: with a timeout or a comment, other ranges.
    except (KeyError, TypeError, ValueError):
        return None


def _shape(name: str, objects: Iterable[_Printed]) -> bytes:
    """Return what nft prints of a source list, without its name and its networks."""
    # The order matters among the rules, which are printed in it.
    in_order = sorted(objects, key=lambda printed: printed[0])
    bare = [(kind, {key: value for key, value in body.items() if key != "elem"}) for kind, body in in_order]
    return _encoder.encode(bare).replace(name.encode(), b"")


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


def _port_to_port(element: Any) -> tuple[Address, Protocol, int, Address, int]:  # noqa: ANN401 - any JSON
    port, destination = element
    address, number = destination["concat"]
    return (*_port(port), parse_address(address), int(number))


def _port_to_list(element: Any) -> tuple[Address, Protocol, int, str]:  # noqa: ANN401 - any JSON
    port, verdict = element
    name = verdict["jump"]["target"]
    if not named_source_list(name):
        raise ValueError(f"{name} is no source list")
    return (*_port(port), name)


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
    FirewallSet.KEPT_PORTS: _port,
    FirewallSet.RESTRICTED_PORTS: _port_to_list,
    FirewallSet.IN_CLUSTER_DESTINATIONS: _port_to_port,
    FirewallSet.OUTSIDE_DESTINATIONS: _port_to_port,
    FirewallSet.LOCAL_ENDPOINTS: _two_addresses,
    FirewallSet.AGENT_PORTS: _protocol_and_port,
}
