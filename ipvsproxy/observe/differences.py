"""The difference between what should be and what is, as sentences; no sentence where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.config.durations import format_duration
from ipvsproxy.model.addresses import format_endpoint
from ipvsproxy.model.items import describe
from ipvsproxy.observe.schema import RealServerState
from ipvsproxy.observe.words import flag_names
from ipvsproxy.plan.firewall import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.model.ipvs import RealServer, VirtualServer
    from ipvsproxy.observe.desired import Place

# The fields of model.ipvs.RealServer behind its address and port.
_NUMBERS = ("weight", "maximum connections", "lower threshold")


def state_of(wanted: RealServer | None, found: RealServer | None, *, drains: bool) -> RealServerState:
    """Return the state of a real server, or of an endpoint that is none; `drains` if those that leave drain."""
    if found is None:
        return RealServerState.EXCLUDED if wanted is None else RealServerState.MISSING
    if wanted is not None:
        return RealServerState.SERVING if found == wanted else RealServerState.DIFFERS
    return RealServerState.DRAINING if drains and found.weight == 0 else RealServerState.UNWANTED


def compare_virtual_server(wanted: VirtualServer | None, found: VirtualServer | None) -> Iterator[str]:
    """Compare a virtual server without its real servers."""
    if wanted is None:
        if found is not None:
            yield f"{describe(found.key)} is there, and no Service asks for it"
    elif found is None:
        yield f"{describe(wanted.key)} is missing"
    else:
        yield from (f"{describe(wanted.key)} has {difference}" for difference in _settings(wanted, found))


def compare_real_servers(
    wanted: VirtualServer, found: VirtualServer, excluded: Mapping[Place, str], *, drains: bool
) -> Iterator[tuple[Place, str]]:
    """Compare the real servers of a virtual server; each sentence comes with the one that it is about.

    `excluded` are its endpoints that do not serve, with the reasons; `drains` if real servers that leave drain.
    """
    if wanted.real_servers == found.real_servers:
        return
    name = describe(wanted.key)
    desired = {server[:2]: server for server in wanted.real_servers}
    actual = {server[:2]: server for server in found.real_servers}
    for place in sorted(desired.keys() | actual.keys()):
        real_server = f"real server {format_endpoint(*place)} of {name}"
        servers = desired.get(place), actual.get(place)
        state = state_of(*servers, drains=drains)
        if state is RealServerState.MISSING:
            yield place, f"{real_server} is missing"
        elif state is RealServerState.UNWANTED:
            yield place, f"{real_server} is there, {_why_unwanted(excluded.get(place))}"
        for difference in _numbers(*servers):
            yield place, f"{real_server} has {difference}"


def compare_table(*, intact: bool) -> Iterator[str]:
    """Say so if chains, rules or sets are not as the agent makes them."""
    if not intact:
        yield f"table inet {TABLE} is not as the agent makes it"


def compare_address(address: Address, *, desired: bool, bound: bool, elsewhere: bool) -> Iterator[str]:
    """Compare an address: whether the dummy interface has it, and whether another interface does."""
    name = describe(address)
    if desired and not bound and not elsewhere:
        yield f"{name} is missing on the dummy interface"
    elif bound and not desired:
        yield f"{name} is on the dummy interface, and no Service asks for it"
    elif bound and elsewhere:
        yield f"{name} is on the dummy interface, although another interface has it"


def compare_element(element: SetElement, *, desired: bool, found: bool) -> Iterator[str]:
    """Compare an element of the firewall's sets."""
    if desired and not found:
        yield f"{describe(element)} is missing"
    elif found and not desired:
        yield f"{describe(element)} is there, and no Service asks for it"


def _settings(wanted: VirtualServer, found: VirtualServer) -> Iterator[str]:
    if found.scheduler != wanted.scheduler:
        yield f"scheduler {found.scheduler} instead of {wanted.scheduler}"
    if found.flags != wanted.flags:
        yield f"flags {_flags(found)} instead of {_flags(wanted)}"
    if found.timeout != wanted.timeout:
        timeouts = format_duration(found.timeout), format_duration(wanted.timeout)
        yield "persistence timeout {} instead of {}".format(*timeouts)


def _why_unwanted(excluded: str | None) -> str:
    if excluded:
        return f"although its endpoint does not serve: {excluded}"
    return "and no endpoint asks for it"


def _numbers(wanted: RealServer | None, found: RealServer | None) -> Iterator[str]:
    if wanted and found:
        for name, should_be, is_ in zip(_NUMBERS, wanted[2:], found[2:], strict=True):
            if should_be != is_:
                yield f"{name} {is_} instead of {should_be}"


def _flags(virtual_server: VirtualServer) -> str:
    return ",".join(flag_names(virtual_server.flags)) or "none"
