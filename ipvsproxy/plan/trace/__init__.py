"""What becomes of a packet, worked out from the tables alone: the first packet of a connection, step by step.

* `path`: the way through the kernel: hooks, routing, IPVS, and out again.
* `table`: what one hook of the nftables table does with a packet.
* `shapes`: which rules the tracer can follow; any other is an error, so that it never answers wrongly.
* `values`: the packet, the state, and the trace with its outcome.
"""

from ipvsproxy.plan.trace.path import trace

__all__ = ["trace"]
