"""The rules of the host's own firewall: read by nft, iptables-nft-save and iptables-legacy-save.

The base chains are listed first, and then the tables that have some which can drop. Those that iptables-nft made are
read by its own program, too, since nft can't say what its extensions ask for. That a table of iptables-legacy exists is
told by the names in /proc/net; only its own program can list it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.kernel.host_firewall_listing import is_dormant, parse_chains, parse_table
from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.kernel.iptables import LEGACY_FAMILIES, Iptables, completed, legacy_tables, run_program
from ipvsproxy.kernel.iptables_rules import HOOKS, parse_save
from ipvsproxy.plan.firewall import TABLE
from ipvsproxy.plan.host_rules import Backend, BaseChain, HostTables, TableName

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipvsproxy.kernel.host_firewall_listing import ListedChain
    from ipvsproxy.kernel.nft import Completed, GenerationSource
    from ipvsproxy.plan.host_rules import Rule

_LIST_CHAINS: Final = ("nft", "-j", "-n", "list", "chains")
# Without the elements of named sets.
_LIST_TABLE: Final = ("nft", "-j", "-n", "-t", "list", "table")
# The JSON has no text of rules, and nft 1.0 does not have the flags of a table right in it.
_LIST_TEXT: Final = ("nft", "-a", "-n", "-t", "list", "table")
_OWN: Final = ("inet", TABLE)
_IPTABLES_NAT: Final = "nat"
# What nft takes for a name, in its scanner; iptables allows others.
_NFT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9/\\_.-]*")


class HostFirewall(NamedTuple):
    """The host's tables, and sentences, without a full stop, about what could not be looked at."""

    tables: HostTables = HostTables()
    unseen: tuple[str, ...] = ()


class _Read(NamedTuple):
    """One table: its base chains and the rules of all its chains."""

    name: TableName
    base_chains: Sequence[BaseChain]
    rules: dict[str, list[Rule]]


class HostFirewallReader:
    """Looks at the firewall of the calling thread's network namespace, for one thread."""

    def __init__(
        self,
        nf_tables: GenerationSource,
        run: Callable[[Sequence[str], bytes], Completed] = run_program,
        proc_net: Path = Path("/proc/thread-self/net"),
    ) -> None:
        """Take what tells whether nftables changed, what runs programs, and the folder that stands for /proc/net."""
        self._nf_tables = nf_tables
        self._run = run
        self._iptables = Iptables(run)
        self._proc_net = proc_net
        # What nftables was found to have, and the generation that it had then.
        self._known: tuple[int, list[_Read], list[str]] | None = None

    def look(self) -> HostFirewall:
        """Return the tables; what can't be found out is said, and no exception.

        Nothing of nftables is read again as long as nobody changed anything in it.
        """
        reads, unseen = self._look_at_nftables()
        for family in LEGACY_FAMILIES:
            more, more_unseen = self._look_at_legacy(family)
            reads, unseen = reads + more, unseen + more_unseen
        return HostFirewall(
            HostTables(
                tuple(base for read in reads for base in read.base_chains),
                {(read.name, chain): rules for read in reads for chain, rules in read.rules.items()},
            ),
            tuple(unseen),
        )

    # --- nftables ---

    def _look_at_nftables(self) -> tuple[list[_Read], list[str]]:
        try:
            generation = self._nf_tables.generation()
            if self._known is None or self._known[0] != generation:
                self._known = (generation, *self._list_nftables())
        except (OSError, KernelUnavailableError, FirewallError) as error:
            return [], [f"nftables can't be looked at: {error}"]
        return self._known[1], self._known[2]

    def _list_nftables(self) -> tuple[list[_Read], list[str]]:
        reads: list[_Read] = []
        unseen: list[str] = []
        for (family, table), chains in self._base_chains().items():
            try:
                reads.append(self._read_nftables(family, table, chains))
            except FirewallError as error:
                # Whoever has it may have removed it in the meantime.
                if (family, table) in self._base_chains():
                    unseen.append(f"table {family} {table} can't be looked at: {error}")
        return reads, unseen

    def _base_chains(self) -> dict[tuple[str, str], list[ListedChain]]:
        """Return the base chains that can drop, by family and name of their table, without those of our own."""
        try:
            chains = parse_chains(self._nft(_LIST_CHAINS))
        except ValueError as error:
            raise FirewallError(f"nft printed chains that can't be read: {error}") from error
        found: dict[tuple[str, str], list[ListedChain]] = {}
        for chain in chains:
            name = (chain.family, chain.table)
            of_iptables_nat = chain.table == _IPTABLES_NAT and chain.type == _IPTABLES_NAT
            if name != _OWN and not (of_iptables_nat and chain.chain.isupper()):
                found.setdefault(name, []).append(chain)
        return found

    def _read_nftables(self, family: str, table: str, chains: Sequence[ListedChain]) -> _Read:
        backend, saved = Backend.NFTABLES, None
        if all(HOOKS.get(table, {}).get(chain.chain) == chain.priority for chain in chains):
            backend = Backend.IPTABLES_NFT
            try:
                saved = parse_save(self._iptables.save(TableName(backend, family, table)), table)
            except FirewallError:
                # The program is not here. What nft can't say of a rule is a condition that is not known.
                pass
            except ValueError:
                # Somebody has put rules of nft's own there, for which iptables-nft does not touch the table.
                backend = Backend.NFTABLES
        name = TableName(backend, family, table)
        place = (family, require_nft_name(table))
        text = self._nft((*_LIST_TEXT, *place)).decode(errors="replace")
        if is_dormant(text):
            return _Read(name, (), {})
        try:
            rules = parse_table(self._nft((*_LIST_TABLE, *place)), text, saved)
        except ValueError as error:
            raise FirewallError(f"nft printed rules that can't be read: {error}") from error
        return _Read(name, [each.of(name) for each in chains], rules)

    def _nft(self, command: Sequence[str]) -> bytes:
        return completed(self._run(command, b""), "nft")

    # --- iptables-legacy ---

    def _look_at_legacy(self, family: str) -> tuple[list[_Read], list[str]]:
        reads: list[_Read] = []
        try:
            for name in legacy_tables(self._proc_net, family):
                if name.name in HOOKS:
                    reads.append(self._read_legacy(name))  # noqa: PERF401 - what comes before an error counts
        except (FirewallError, ValueError, OSError) as error:
            return reads, [
                (
                    f"the tables of iptables-legacy ({family}) can't be looked at: {error}: "
                    f"see `{'ip6tables' if family == 'ip6' else 'iptables'}-legacy-save` on the host"
                )
            ]
        return reads, []

    def _read_legacy(self, name: TableName) -> _Read:
        saved, hooks = parse_save(self._iptables.save(name), name.name), HOOKS[name.name]
        base_chains = [
            BaseChain(name, chain, chain.lower(), hooks[chain], drops)
            for chain, drops in saved.policies.items()
        ]
        return _Read(name, base_chains, saved.rules)


def require_nft_name(name: str) -> str:
    """Return the name of a table or chain; FirewallError if nft's scanner takes no such word for one."""
    if not _NFT_NAME.fullmatch(name):
        raise FirewallError(f"nft can't read or change what has such a name: {name!r}")
    return name
