"""The adapters to the kernel: bytes, errno and nft's text, and no Kubernetes.

* `interface`: what the reconciler asks of the kernel; all else here is behind it.
* `node`: the kernel of one node put together.
* `timed`: the same with a stopwatch.
* `preflight`: what is looked at before anything is touched.
* `ipvs`, `ipvs_codec`: virtual servers and real servers.
* `addresses`, `address_codec`: service addresses on the dummy interface, and the node's own.
* `address_notices`: the kernel's word that the node's addresses change.
* `nft`, `nft_text`, `nft_listing`: the nftables table, by the program `nft`: written, and read back.
* `nfnetlink`: what nf_tables answers without a program.
* `conntrack`, `conntrack_codec`: connection tracking entries that have to go.
* `host_firewall`, `host_firewall_listing`, `iptables_rules`: the host's own firewall, read; `forwarding`: the agent's
  chain there; `iptables`: the programs for both.
* `sysctl`: kernel settings.
* `netlink`, `netlink_codec`: the netlink client that all of them share, and its framing.
* `fake`, `fake_firewall`, `fake_conntrack`: the same in memory, as strict as the kernel.
"""
