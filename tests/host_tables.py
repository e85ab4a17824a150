"""Tables of a host's firewall, in the words of iptables."""

from __future__ import annotations

from ipvsproxy.kernel.iptables_rules import HOOKS, parse_save
from ipvsproxy.plan.host_rules import Backend, BaseChain, HostTables, TableName

LEGACY_FILTER = TableName(Backend.LEGACY, "ip", "filter")


def tables(*lines: str, table: TableName = LEGACY_FILTER, **policies: str) -> HostTables:
    """Return a table with these rules, each `-A CHAIN …`, and with these policies of its built-in chains."""
    built_in = HOOKS[table.name]
    head = [f":{chain} {policies.get(chain, 'ACCEPT')} [0:0]" for chain in built_in]
    head += [f":{chain} - [0:0]" for chain in {line.split()[1] for line in lines} - built_in.keys()]
    saved = parse_save("\n".join((*head, *lines)), table.name)
    return HostTables(
        tuple(
            BaseChain(table, chain, chain.lower(), built_in[chain], drops)
            for chain, drops in saved.policies.items()
        ),
        {(table, chain): rules for chain, rules in saved.rules.items()},
    )


def joined(*several: HostTables) -> HostTables:
    """Return all of these tables together."""
    return HostTables(
        tuple(base for each in several for base in each.base_chains),
        {name: rules for each in several for name, rules in each.rules.items()},
    )
