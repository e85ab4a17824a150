"""What kube-proxy left in the kernel, and its removal: ipsets by netlink, nftables by nft, the rest by iptables-legacy.

What iptables-nft made are tables of nftables, so the agent's own nft reads them and changes them: neither iptables-nft
nor ipset has to be installed. The tables of iptables-legacy, whose names are in /proc/net, only its own programs know.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.kernel.iptables import LEGACY_FAMILIES, Iptables, completed, legacy_tables
from ipvsproxy.kernel.nft import run_nft
from ipvsproxy.model.addresses import Family
from ipvsproxy.plan.host_rules import Backend, TableName
from ipvsproxy.plan.kube_proxy import (
    IPSETS,
    NFT_TABLES,
    NODE_PORT_SETS,
    PORT_SETS,
    Jump,
    Leftovers,
    NamedPorts,
    Table,
    is_chain,
    set_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ipvsproxy.kernel.nft import Completed
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.plan.kube_proxy import TableRemoval

_LIST_CHAINS: Final = ("nft", "-j", "-n", "list", "chains")
_LIST_TABLES: Final = ("nft", "-j", "list", "tables")
_LIST_TABLE: Final = ("nft", "-j", "-n", "-t", "list", "table")
_TRANSACTION: Final = ("nft", "-f", "-")
# nftables lets go of removed rules' ipsets some milliseconds after the transaction; this is for all of them.
_RELEASE_SECONDS: Final = 2.0
_RELEASE_PAUSE: Final = 0.02


class IpSets(Protocol):
    """What is needed of the kernel's ipsets; `kernel.ipsets` has it. OSError if the kernel refuses."""

    def references(self) -> Mapping[str, int]:
        """Return the names of all sets, each with how many rules and other users it has."""

    def ports(self, name: str) -> set[int]:
        """Return the members of a set of ports; none if there is no such set."""

    def virtual_servers(self, name: str) -> set[VirtualServerKey]:
        """Return the members of a set of addresses, protocols and ports; none if there is no such set."""

    def destroy(self, name: str) -> None:
        """Remove a set; one that is not there is no error, one that a rule uses is OSError EBUSY."""


class _Chain(msgspec.Struct):
    family: str
    table: str
    name: str
    policy: str = ""


class _Rule(msgspec.Struct):
    chain: str
    handle: int
    expr: list[dict[str, object]] = []


class _TableName(msgspec.Struct):
    family: str
    name: str


class _Object(msgspec.Struct):
    """One thing of a listing, such as {"chain": {"family": "ip", …}}; those of other kinds are empty."""

    table: _TableName | None = None
    chain: _Chain | None = None
    rule: _Rule | None = None


class _Output(msgspec.Struct):
    nftables: list[_Object]


_decoder = msgspec.json.Decoder(_Output)


def running_process(proc: Path = Path("/proc")) -> int | None:
    """Return the number of a process kube-proxy of this network namespace; None if none is to be seen."""
    here = (proc / "thread-self/ns/net").stat()
    for process in proc.glob("[0-9]*"):
        # It may end in the meantime.
        with contextlib.suppress(OSError):
            if (process / "comm").read_text() == "kube-proxy\n" and os.path.samestat(
                here, (process / "ns/net").stat()
            ):
                return int(process.name)
    return None


def has_ipsets() -> bool:
    """Say whether kube-proxy's mode ipvs has its ipsets in the calling thread's network namespace.

    Its virtual servers at the node's addresses are explained by them. OSError if the kernel does not say.
    """
    # It takes memory, and few agents ever ask.
    from ipvsproxy.kernel.ipsets import IpSets as NetlinkIpSets  # noqa: PLC0415 - see above

    with NetlinkIpSets() as ipsets:
        return not IPSETS.isdisjoint(ipsets.references())


class KubeProxyReader:
    """Reads what kube-proxy left in the calling thread's network namespace."""

    def __init__(
        self,
        ipsets: IpSets,
        run: Callable[[Sequence[str], bytes], Completed] = run_nft,
        proc_net: Path = Path("/proc/thread-self/net"),
    ) -> None:
        """Take the ipsets, what runs programs, and the folder that stands for /proc/net."""
        self._ipsets = ipsets
        self._run = run
        self._iptables = Iptables(run)
        self._proc_net = proc_net

    def look(self) -> Leftovers:
        """Return the names of what is there; what can't be found out is said, and no exception."""
        unseen: list[str] = []
        ipsets: tuple[str, ...] = ()
        chains: list[tuple[TableName, str]] = []
        tables: tuple[tuple[str, str], ...] = ()
        with _telling(unseen, "ipsets can't be looked at: "):
            ipsets = self._ipset_names()
        with _telling(unseen, "nftables can't be looked at: "):
            chains += self._nft_chains()
            tables = self._nft_tables()
        for table in self._legacy_tables(unseen):
            chains += ((table.name, chain) for chain in table.chains)
        theirs = sorted(name for name in chains if is_chain(name[0].name, name[1]))
        return Leftovers(ipsets, tuple(theirs), tables, tuple(unseen))

    def tables(self) -> list[Table]:
        """Return the tables of iptables that have chains of kube-proxy's, whole; those that can't be seen are left out.

        FirewallError if nft fails.
        """
        names = dict.fromkeys(name for name, chain in self._nft_chains() if is_chain(name.name, chain))
        legacy = self._legacy_tables([])
        return [
            *map(self._nft_table, names),
            *(each for each in legacy if any(is_chain(each.name.name, chain) for chain in each.chains)),
        ]

    def named_ports(self) -> NamedPorts:
        """Return what its ipsets name. OSError if they can't be read."""
        node_ports = {
            (of, protocol): self._ipsets.ports(set_name(name, of))
            for of in Family
            for protocol, name in NODE_PORT_SETS.items()
        }
        exact = {
            key
            for of in Family
            for name in PORT_SETS
            for key in self._ipsets.virtual_servers(set_name(name, of))
        }
        return NamedPorts(node_ports, exact)

    def _ipset_names(self) -> tuple[str, ...]:
        return tuple(sorted(IPSETS.intersection(self._ipsets.references())))

    def _nft_tables(self) -> tuple[tuple[str, str], ...]:
        found = {(each.table.family, each.table.name) for each in self._listing(_LIST_TABLES) if each.table}
        return tuple(name for name in NFT_TABLES if name in found)

    def _nft_chains(self) -> list[tuple[TableName, str]]:
        return [
            (TableName(Backend.IPTABLES_NFT, each.chain.family, each.chain.table), each.chain.name)
            for each in self._listing(_LIST_CHAINS)
            if each.chain and each.chain.family in {"ip", "ip6"}
        ]

    def _nft_table(self, name: TableName) -> Table:
        listing = self._listing((*_LIST_TABLE, name.family, name.name))
        chains = [each.chain for each in listing if each.chain]
        rules = [each.rule for each in listing if each.rule]
        return Table(
            name,
            frozenset(chain.name for chain in chains),
            tuple(
                Jump(rule.chain, target, str(rule.handle))
                for rule in rules
                if (target := _target_of(rule.expr)) is not None
            ),
            any(chain.name == "FORWARD" and chain.policy == "drop" for chain in chains)
            or any(rule.chain == "FORWARD" and _drops_all(rule.expr) for rule in rules),
        )

    def _legacy_tables(self, unseen: list[str]) -> list[Table]:
        tables: list[Table] = []
        for family in LEGACY_FAMILIES:
            # It needs CAP_NET_RAW, for one, which the agent's container need not have.
            where = "run this on the host, or in a privileged container"
            with _telling(
                unseen, f"the tables of iptables-legacy ({family}) can't be looked at: ", f"; {where}"
            ):
                tables += self._saved(family)
        return tables

    def _saved(self, family: str) -> list[Table]:
        """Return the tables that iptables-legacy has of one IP version; FirewallError without its programs."""
        return [
            _parse_save(self._iptables.save(name), name) for name in legacy_tables(self._proc_net, family)
        ]

    def _listing(self, command: Sequence[str]) -> list[_Object]:
        try:
            return _decoder.decode(self._output(command)).nftables
        except msgspec.DecodeError as error:
            raise FirewallError(f"nft printed what can't be read: {error}") from error

    def _output(self, command: Sequence[str]) -> bytes:
        return completed(self._run(command, b""), command[0])


class KubeProxyRemover:
    """Removes what kube-proxy left; FirewallError or OSError for what is refused, and nothing of it has gone then."""

    def __init__(
        self,
        ipsets: IpSets,
        run: Callable[[Sequence[str], bytes], Completed] = run_nft,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the ipsets, what runs programs, and what waits for some seconds."""
        self._ipsets = ipsets
        self._run = run
        self._pause = pause
        self._patience = _RELEASE_SECONDS

    def remove_from_table(self, removal: TableRemoval) -> None:
        """Remove chains of a table of iptables, and the rules that lead to them, in one transaction."""
        if removal.table.backend is Backend.IPTABLES_NFT:
            self._transaction(_nft_text(removal))
            return
        Iptables(self._run).restore(
            removal.table,
            [
                *(f"-D {jump.rule}" for jump in removal.jumps),
                *(f"-F {chain}" for chain in removal.chains),
                *(f"-X {chain}" for chain in removal.chains),
            ],
        )

    def remove_table(self, family: str, name: str) -> None:
        """Remove a table of nftables; one that is not there is no error."""
        self._transaction(f"add table {family} {name}\ndelete table {family} {name}\n")

    def destroy_ipset(self, name: str) -> None:
        """Remove an ipset; one that is not there is no error. OSError EBUSY if a rule uses it, and goes on to."""
        while True:
            try:
                self._ipsets.destroy(name)
            except OSError as error:
                if error.errno != errno.EBUSY or self._patience <= 0:
                    raise
                self._pause(_RELEASE_PAUSE)
                self._patience -= _RELEASE_PAUSE
            else:
                return

    def _transaction(self, text: str) -> None:
        completed(self._run(_TRANSACTION, text.encode()), "nft")


@contextlib.contextmanager
def _telling(unseen: list[str], what: str, more: str = "") -> Iterator[None]:
    """Put what can't be read into words, and go on behind the block."""
    try:
        yield
    except (OSError, KernelUnavailableError, FirewallError) as error:
        unseen.append(f"{what}{error}{more}")


def _target_of(statements: Iterable[Mapping[str, object]]) -> str | None:
    """Return the chain that a rule leads to; None if it leads to none."""
    for statement in statements:
        for kind in ("jump", "goto"):
            match statement.get(kind):
                case {"target": str(target)}:
                    return target
    return None


def _drops_all(statements: Iterable[Mapping[str, object]]) -> bool:
    """Say whether a rule has no condition and drops or refuses."""
    decisive = [each for each in statements if not each.keys() <= {"counter", "log"}]
    match decisive:
        case [{"drop": _} | {"reject": _} | {"xt": {"type": "target", "name": "REJECT"}}]:
            return True
    return False


def _nft_text(removal: TableRemoval) -> str:
    place = f"{removal.table.family} {removal.table.name}"
    lines = [f"delete rule {place} {jump.chain} handle {jump.rule}" for jump in removal.jumps]
    lines += [f"flush chain {place} {chain}" for chain in removal.chains]
    lines += [f"delete chain {place} {chain}" for chain in removal.chains]
    return "\n".join(lines) + "\n"


def _parse_save(text: str, name: TableName) -> Table:
    """Return the table that iptables-legacy-save prints."""
    chains, jumps, forward_drops = set[str](), list[Jump](), False
    for line in text.splitlines():
        if line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            chains.add(chain)
            forward_drops |= (chain, policy) == ("FORWARD", "DROP")
        elif line.startswith("-A "):
            _, chain, *options = shlex.split(line)
            forward_drops |= chain == "FORWARD" and options[:2] in (["-j", "DROP"], ["-j", "REJECT"])
            for option, target in itertools.pairwise(options):
                if option in {"-j", "-g"}:
                    jumps.append(Jump(chain, target, line.removeprefix("-A ")))
    return Table(
        name, frozenset(chains), tuple(jump for jump in jumps if jump.target in chains), forward_drops
    )
