"""`ipvsproxy cleanup --kube-proxy`: removes what kube-proxy left, while the agent that took its place serves on.

Virtual servers at addresses on kube-ipvs0 are the agent's from its first sync on, with the connections that they have.
Those at other addresses, node ports above all, are on record nowhere but in kube-proxy's ipsets. They are put on the
agent's record here, and its next comparison with the kernel takes them over as they are. Only then do kube-proxy's
rules go, which masquerade for them until the agent's do.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.cli.cleanup import agent_process, described, read_tables, remove_virtual_servers, say_removed
from ipvsproxy.cli.dialog import counted, listed
from ipvsproxy.cli.lock import holder
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.kernel.interface import FirewallError
from ipvsproxy.kernel.ipsets import IpSets
from ipvsproxy.kernel.kube_proxy import KubeProxyReader, KubeProxyRemover, running_process
from ipvsproxy.observe.agent_socket import AgentNotRunningError
from ipvsproxy.observe.desired import desired_virtual_servers
from ipvsproxy.plan.cleanup import removal_of_kube_proxys
from ipvsproxy.plan.kube_proxy import removal_of
from ipvsproxy.plan.ownership import record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ipvsproxy.cli.dialog import Dialog
    from ipvsproxy.kernel.interface import NodeKernel
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.plan.cleanup import Removal
    from ipvsproxy.plan.kube_proxy import Leftovers, TableRemoval

# The agent compares everything with the kernel every sync period, 30 s by default.
_TAKE_OVER_SECONDS: Final = 120.0
_TAKE_OVER_PAUSE: Final = 0.5


class Access(NamedTuple):
    """What reads and what removes kube-proxy's, and what finds its process."""

    reader: KubeProxyReader
    remover: KubeProxyRemover
    running: Callable[[], int | None] = running_process


@contextlib.contextmanager
def open_leftovers() -> Iterator[Access]:
    """Open what there is of kube-proxy's, in the calling thread's network namespace."""
    with IpSets() as ipsets:
        yield Access(KubeProxyReader(ipsets), KubeProxyRemover(ipsets))


class KubeProxyCleanup:
    """One run of the command."""

    def __init__(
        self,
        dialog: Dialog,
        kernel: NodeKernel,
        access: Access,
        ask: Callable[[], AgentReport],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take whom to speak to, the kernel, how to ask the agent for its report, and what waits for some seconds."""
        self._dialog = dialog
        self._kernel = kernel
        self._access = access
        self._ask = ask
        self._pause = pause

    def run(self) -> None:
        """Show what is there, and remove it if that is wanted. OSError and FirewallError if it can't be read."""
        self._refuse_beside_kube_proxy()
        agent = self._agent()
        reader = self._access.reader
        found = reader.look()
        removals = [removal_of(table) for table in reader.tables()]
        removal = removal_of_kube_proxys(
            read_tables(self._kernel), reader.named_ports(), agent_runs=agent is not None
        )
        for sentence in found.unseen:
            self._dialog.fail(sentence)
        if not found and not removal:
            so_far = ", as far as it could be looked at" if found.unseen else ""
            self._dialog.say(f"Nothing of kube-proxy's was found on this node{so_far}.")
        elif self._show(found, removals, removal, agent) and self._dialog.agrees("Remove what goes?"):
            if agent is None:
                done = remove_virtual_servers(self._dialog, self._kernel, removal)
            else:
                done = []
                self._hand_over(removal.virtual_servers)
            say_removed(self._dialog, [*done, *self._remove_rules(found, removals)])

    def _refuse_beside_kube_proxy(self) -> None:
        process = self._access.running()
        if process is None:
            return
        sentence = f"kube-proxy runs, process {process}, and would put everything back"
        if not self._dialog.dry_run:
            raise IpvsProxyError(f"{sentence}: stop it first")
        self._dialog.warn(f"{sentence}: without --dry-run this is refused")

    def _agent(self) -> AgentReport | None:
        """Return the report of the agent that runs; IpvsProxyError if there is no telling what it wants."""
        try:
            report = self._ask()
        except AgentNotRunningError as error:
            found = holder()
            if found and found.may_be_agent:
                raise IpvsProxyError(
                    f"{agent_process(found)} runs, but {error}: name its directory with --run-directory"
                ) from error
            return None
        if not report.agent.synced:
            raise IpvsProxyError(
                "the agent has not compared everything with the kernel yet: wait for `first sync` in its log, "
                "then run this again"
            )
        return report

    def _show(
        self, found: Leftovers, removals: Sequence[TableRemoval], removal: Removal, agent: AgentReport | None
    ) -> bool:
        """Show what goes and what stays; say whether there is anything to do."""
        handed_over = removal.virtual_servers if agent else ()
        going = [
            *(() if agent else described(removal)),
            *(
                f"{counted(len(each.chains), 'chain')} of {each.table}: {listed(each.chains)}"
                for each in removals
                if each.chains
            ),
            *(f"the nftables table {family} {name}" for family, name in found.tables),
        ]
        if found.ipsets:
            going.append(f"{counted(len(found.ipsets), 'ipset')}: {listed(found.ipsets)}")
        if agent and handed_over:
            self._dialog.show(
                f"The agent, process {agent.agent.pid}, takes these over, or removes what no Service asks for",
                [f"{counted(len(handed_over), 'virtual server')}: {listed(handed_over)}"],
            )
        self._dialog.show("These go", going)
        self._dialog.show(
            "These stay",
            (
                f"chain {chain} of {each.table}: {reason}"
                for each in removals
                for chain, reason in sorted(each.kept.items())
            ),
        )
        if going and agent is None:
            self._dialog.warn(
                "no agent runs on this node: what kube-proxy served ends with this, connections included; "
                "to keep it, start the agent first, and then run this again"
            )
        return bool(going or handed_over)

    def _hand_over(self, keys: Sequence[VirtualServerKey]) -> None:
        """Have the agent take over the virtual servers; IpvsProxyError, before anything goes, if it does not."""
        if not keys:
            return
        self._kernel.firewall.change([record_of(key) for key in keys], [])
        self._dialog.say(
            "Waiting until the agent has taken them over, at its next comparison with the kernel."
        )
        pending = set(keys)
        patience = _TAKE_OVER_SECONDS
        while pending := self._not_taken_over(pending):
            if patience <= 0:
                raise IpvsProxyError(
                    f"the agent has not taken over {counted(len(pending), 'virtual server')} within "
                    f"{_TAKE_OVER_SECONDS:g} s: {listed(sorted(pending))}; kube-proxy's rules stay; "
                    "see `ipvsproxy dump`, then run this again"
                )
            self._pause(_TAKE_OVER_PAUSE)
            patience -= _TAKE_OVER_PAUSE

    def _not_taken_over(self, keys: set[VirtualServerKey]) -> set[VirtualServerKey]:
        """Return those of the virtual servers that the agent neither has nor has removed."""
        wanted = {desired.virtual_server.key for desired in desired_virtual_servers(self._ask())}
        return self._kernel.ipvs.existing(keys - wanted)

    def _remove_rules(self, found: Leftovers, removals: Sequence[TableRemoval]) -> Iterator[str]:
        """Remove chains, tables and then the ipsets that they used; yield what was done, say what is refused."""
        remover = self._access.remover
        chains = 0
        for removal in removals:
            what = f"{counted(len(removal.chains), 'chain')} of {removal.table}"
            if removal.chains and self._done(what, partial(remover.remove_from_table, removal)):
                chains += len(removal.chains)
        if chains:
            yield counted(chains, "chain")
        for family, name in found.tables:
            what = f"the nftables table {family} {name}"
            if self._done(what, partial(remover.remove_table, family, name)):
                yield what
        ipsets = [
            name for name in found.ipsets if self._done(f"ipset {name}", partial(remover.destroy_ipset, name))
        ]
        if ipsets:
            yield counted(len(ipsets), "ipset")

    def _done(self, what: str, remove: Callable[[], None]) -> bool:
        try:
            remove()
        except FirewallError as error:
            self._dialog.fail(f"{what}: not removed: {error}")
        except OSError as error:
            self._dialog.fail(f"{what}: not removed: {error.strerror or error}")
        else:
            return True
        return False
