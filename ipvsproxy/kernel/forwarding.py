"""The agent's chain in tables of the host's firewall that drop what is forwarded: made and removed.

Each table is changed by its own means, in one transaction: by iptables-restore of its backend, or by nft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ipvsproxy.kernel.host_firewall import require_nft_name
from ipvsproxy.kernel.iptables import Iptables, completed, run_program
from ipvsproxy.plan.host_rules import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipvsproxy.kernel.nft import Completed
    from ipvsproxy.plan.forwarding import Accepting, Leftover

_TRANSACTION: Final = ("nft", "-f", "-")


class Forwarding:
    """Changes the firewall of the calling thread's network namespace."""

    def __init__(self, run: Callable[[Sequence[str], bytes], Completed] = run_program) -> None:
        """Take what runs programs."""
        self._run = run
        self._iptables = Iptables(run)

    def accept(self, wanted: Accepting, masquerade_bit: int) -> None:
        """Make the chain as it should be, and one rule that leads to it, the first of its base chain.

        FirewallError or KernelUnavailableError if it can't be; then nothing was changed.
        """
        table, base, chain = wanted.base.table, wanted.base.chain, wanted.chain
        mark = f"{1 << masquerade_bit:#x}"
        if table.backend is not Backend.NFTABLES:
            self._iptables.restore(
                table,
                [
                    f":{chain} - [0:0]",
                    f"-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                    f"-A {chain} -m mark --mark {mark}/{mark} -j ACCEPT",
                    *(f"-D {jump.text.removeprefix('-A ')}" for jump in wanted.jumps),
                    f"-I {base} 1 -j {chain}",
                ],
            )
            return
        place = f"{table.family} {require_nft_name(table.name)}"
        require_nft_name(base)
        self._transact(
            [
                f"add chain {place} {chain}",
                f"flush chain {place} {chain}",
                f"add rule {place} {chain} ct state established,related accept",
                f"add rule {place} {chain} meta mark and {mark} == {mark} accept",
                *(f"delete rule {place} {base} handle {jump.handle}" for jump in wanted.jumps),
                f"insert rule {place} {base} jump {chain}",
            ]
        )

    def remove(self, ours: Leftover) -> None:
        """Remove the chain and the rules that lead to it. FirewallError if it can't be; then nothing was changed."""
        table, chain = ours.table, ours.chain
        if table.backend is not Backend.NFTABLES:
            jumps = [f"-D {rule.text.removeprefix('-A ')}" for _, rule in ours.jumps]
            self._iptables.restore(table, [*jumps, f"-F {chain}", f"-X {chain}"])
            return
        place = f"{table.family} {require_nft_name(table.name)}"
        self._transact(
            [
                *(
                    f"delete rule {place} {require_nft_name(of)} handle {rule.handle}"
                    for of, rule in ours.jumps
                ),
                f"flush chain {place} {chain}",
                f"delete chain {place} {chain}",
            ]
        )

    def _transact(self, lines: Sequence[str]) -> None:
        completed(self._run(_TRANSACTION, "\n".join((*lines, "")).encode()), "nft")
