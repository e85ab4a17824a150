"""Decisions, as pure functions over the model's values.

* `endpoints`: who serves, and why the others do not.
* `services`: what one Service becomes in the kernel.
* `source_ranges`: who may use a load balancer's address.
* `node`: what plans depend on of the node, and which addresses no Service may take over.
* `node_addresses`: the node's addresses that serve node ports.
* `desired`: the plans of all Services put together, and who gets what two claim.
* `ownership`: what in the kernel is ours.
* `diff`: from desired and actual state to operations in their order.
* `rules`: the shapes that the nftables table is made of.
* `firewall`: the nftables table's chains and rules.
* `trace`: what becomes of a packet, worked out from these rules and tables alone.
* `host_rules`: what rules of the host's own firewall do with a packet.
* `host_firewall`: which of its chains drop service traffic.
* `forwarding`: which of its tables need the agent's own chain.
* `sysctls`: the kernel settings that the data plane needs.
* `service_change`: what changed of a Service, in words.
* `view`: the reconciler's state at one moment and its rounds, for those who show them.
"""
