"""Decisions, as pure functions over the model's values.

* `endpoints`: who serves, and why the others do not.
* `services`: what one Service becomes in the kernel.
* `desired`: the plans of all Services put together.
* `diff`: from desired and actual state to operations in their order.
* `firewall`: the nftables table's chains, sets and rules.
* `sysctls`: the kernel settings that the data plane needs.
"""
