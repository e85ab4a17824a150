"""All settings that the table's rules may follow from, for Hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from ipvsproxy.model.addresses import Address, Family, format_address, parse_network
from ipvsproxy.plan.firewall import FirewallSettings, PodInterfaces, PodNetworks

if TYPE_CHECKING:
    from ipvsproxy.model.addresses import Network


@st.composite
def _networks(draw: st.DrawFn) -> Network:
    of = draw(st.sampled_from(Family))
    address = Address(draw(st.binary(min_size=of.bits // 8, max_size=of.bits // 8)))
    return parse_network(f"{format_address(address)}/{draw(st.integers(0, of.bits))}")


_NAMES = st.from_regex(r"[a-z][a-z0-9._-]{0,13}\*?", fullmatch=True)

FIREWALL_SETTINGS = st.builds(
    FirewallSettings,
    st.one_of(
        st.builds(PodNetworks, st.lists(_networks(), max_size=4, unique=True).map(tuple)),
        st.builds(PodInterfaces, _NAMES),
    ),
    st.booleans(),
    st.integers(0, 31),
)
