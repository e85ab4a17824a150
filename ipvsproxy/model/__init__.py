"""Values that every layer shares: immutable, hashable, without I/O and without libraries.

* `addresses`: IP addresses and networks in the bytes that the kernel uses.
* `objects`: what the agent knows of Services, EndpointSlices and its Node.
* `ipvs`: virtual servers, real servers and the operations on them.
* `selection`: which of the node's addresses serve node ports.
* `firewall`: the sets of the nftables table and their elements.
* `items`: what the agent keeps in the kernel, and the words for it.
* `reasons`: why something is as it is, in the words that logs, `dump` and tests share.
"""
