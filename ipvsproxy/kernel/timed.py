"""The kernel's adapters with a stopwatch at each call: how long netlink and nft take, for whoever measures."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ipvsproxy.kernel.interface import NodeKernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ipvsproxy.kernel.interface import Addresses, Conntrack, Firewall, Ipvs


class Call(NamedTuple):
    """A call to the kernel: through which adapter, and whether it reads or changes."""

    adapter: str
    access: str


READ, CHANGE = "read", "change"

# By the adapter's name and the method's; what asks nothing of the kernel is not here.
TIMED: Mapping[str, Mapping[str, str]] = {
    "ipvs": {"apply": CHANGE, "virtual_servers": READ, "existing": READ, "real_servers": READ},
    "addresses": {"ensure_interface": CHANGE, "bound": READ, "elsewhere": READ, "apply": CHANGE},
    "nftables": {"install": CHANGE, "read": READ, "change": CHANGE},
    "conntrack": {"forget": CHANGE},
}


def timed(kernel: NodeKernel, record: Callable[[Call, float], None]) -> NodeKernel:
    """Return the same kernel, with `record` told of each call and its seconds, in the thread that makes it.

    A call that fails is one too. A dump is read at the call; what its reader does with it does not count.
    """
    return NodeKernel(
        cast("Ipvs", _Timed("ipvs", kernel.ipvs, record)),
        cast("Addresses", _Timed("addresses", kernel.addresses, record)),
        cast("Firewall", _Timed("nftables", kernel.firewall, record)),
        cast("Conntrack", _Timed("conntrack", kernel.conntrack, record)),
    )


class _Timed:
    """An adapter whose methods of TIMED are timed; all others are the adapter's own."""

    def __init__(self, name: str, adapter: object, record: Callable[[Call, float], None]) -> None:
        self._adapter = adapter
        for method, access in TIMED[name].items():
            tell = functools.partial(record, Call(name, access))
            setattr(self, method, _time(getattr(adapter, method), tell))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the adapter has
        return getattr(self._adapter, name)


def _time(function: Callable[..., Any], tell: Callable[[float], None]) -> Callable[..., Any]:
    def timed_call(*arguments: Any) -> Any:  # noqa: ANN401 - whatever the method takes and returns
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            tell(time.perf_counter() - began)

    return timed_call
