"""`ipvsproxy cleanup`, on a kernel in memory: what it shows, asks, removes and says."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.cleanup import CleanupArguments
from ipvsproxy.cli.cleanup import HostChains, remove_ours
from ipvsproxy.cli.dialog import Dialog, listed
from ipvsproxy.cli.kube_proxy import Access, KubeProxyCleanup
from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.kernel.fake import AddressOperation, FakeAddresses, FakeIpvs
from ipvsproxy.kernel.fake_conntrack import FakeConntrack
from ipvsproxy.kernel.fake_firewall import FakeFirewall, FirewallChange
from ipvsproxy.kernel.host_firewall import HostFirewall
from ipvsproxy.kernel.interface import FirewallError, NodeKernel
from ipvsproxy.kernel.kube_proxy import KubeProxyReader, KubeProxyRemover
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.ipvs import Command, IpvsOperation
from ipvsproxy.model.objects import ServiceType
from ipvsproxy.observe.agent_socket import AgentNotRunningError
from ipvsproxy.plan.ownership import record_of
from tests.builders import address, endpoint_slice, key, port, service, virtual_server
from tests.host_tables import tables
from tests.kernel.kube_proxys import (
    BY_IPTABLES_NFT,
    LIST_NAT,
    NAT_CHAINS,
    NOTHING,
    TRANSACTION,
    FakeIpSets,
    FakePrograms,
    chain,
    listing,
    rule,
)
from tests.observe.node import report_of, state, view_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.plan.forwarding import Leftover

CLUSTER_IP, NODE_PORT, SOMEBODYS = key("10.96.0.10"), key("203.0.113.1", 30080), key("192.0.2.1", 8080)
WEB = state(
    service("10.96.0.10", kind=ServiceType.NODE_PORT, ports=(port(80, node_port=30080),)),
    endpoint_slice("10.244.1.7"),
)


class Node:
    """A kernel in memory with virtual servers, addresses and, if there are elements, our table."""

    def __init__(
        self,
        *virtual_servers: VirtualServerKey,
        bound: Iterable[str] = (),
        records: Iterable[VirtualServerKey] | None = (),
    ) -> None:
        self.log: list[object] = []
        self.ipvs = FakeIpvs(self.log)
        self.addresses = FakeAddresses(self.log)
        self.firewall = FakeFirewall(self.log)
        self.kernel = NodeKernel(self.ipvs, self.addresses, self.firewall, FakeConntrack())
        self.addresses.other_addresses = {address("203.0.113.1"), address("192.0.2.1")}
        self.addresses.ensure_interface()
        self.addresses.apply([address(each) for each in bound], [])
        self.ipvs.apply(
            [IpvsOperation(Command.NEW_SERVICE, virtual_server(each)) for each in virtual_servers]
        )
        if records is not None:
            self.firewall.install([record_of(each) for each in records])
        self.log.clear()
        self.host_firewall = HostFirewall()
        self.removed: list[str] = []
        self.refusal: FirewallError | None = None
        self.chains = HostChains(lambda: self.host_firewall, self._remove)

    def _remove(self, ours: Leftover) -> None:
        if self.refusal:
            raise self.refusal
        self.removed.append(str(ours))


class Terminal(io.StringIO):
    """Somebody at a terminal, who types this."""

    def isatty(self) -> bool:
        return True


class Conversation:
    """A dialog, and what was written in it."""

    def __init__(self, typed: str = "", *, dry_run: bool = False, yes: bool = False) -> None:
        self.output, self.errors = io.StringIO(), io.StringIO()
        self.dialog = Dialog(Terminal(typed), self.output, self.errors, dry_run=dry_run, assume_yes=yes)

    @property
    def said(self) -> str:
        return self.output.getvalue()

    @property
    def complained(self) -> str:
        return self.errors.getvalue()

    @property
    def exit_code(self) -> int:
        return self.dialog.exit_code


def ours() -> Node:
    return Node(CLUSTER_IP, NODE_PORT, SOMEBODYS, bound=["10.96.0.10"], records=[CLUSTER_IP, NODE_PORT])


CHAIN = "chain IPVSPROXY-FORWARD of table ip filter (iptables-legacy)"
WITH_CHAIN = HostFirewall(
    tables("-A FORWARD -j IPVSPROXY-FORWARD", "-A IPVSPROXY-FORWARD -j ACCEPT", FORWARD="DROP")
)
SHOWN = """\
These go:
  1 address on kube-ipvs0: 10.96.0.10
  2 virtual servers: 10.96.0.10:80/tcp, 203.0.113.1:30080/tcp
  the interface kube-ipvs0
  the nftables table inet ipvsproxy
These stay:
  1 virtual server of somebody else's: 192.0.2.1:8080/tcp
  kernel settings (sysctl): what they were before the agent is not known
"""
REMOVED = (
    "Removed: 1 address, 2 virtual servers, the interface kube-ipvs0, the nftables table inet ipvsproxy.\n"
)


class TestChainsInTheHostsFirewall:
    def test_are_shown_and_removed_before_the_table(self) -> None:
        node, conversation = ours(), Conversation(yes=True)
        node.host_firewall = WITH_CHAIN
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert conversation.said.count(CHAIN) == 2
        assert (node.removed, conversation.exit_code) == ([CHAIN], 0)

    def test_go_even_if_nothing_else_is_left(self) -> None:
        node, conversation = Node(records=None), Conversation(yes=True)
        node.host_firewall = WITH_CHAIN
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert (node.removed, conversation.exit_code) == ([CHAIN], 0)
        assert "nftables table" not in conversation.said

    def test_one_that_is_refused_is_told_and_the_table_stays_so_that_it_is_run_again(self) -> None:
        node, conversation = ours(), Conversation(yes=True)
        node.host_firewall, node.refusal = WITH_CHAIN, FirewallError("the lock is held")
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert f"{CHAIN} stays: the lock is held" in conversation.complained
        assert (node.firewall.exists(), conversation.exit_code) == (True, 1)

    def test_what_could_not_be_looked_at_is_told(self) -> None:
        node, conversation = ours(), Conversation(yes=True)
        node.host_firewall = HostFirewall(unseen=("no program",))
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert "no program" in conversation.complained


class TestOurs:
    def test_is_shown_and_removed_in_the_reverse_order_of_setting_up(self) -> None:
        node, conversation = ours(), Conversation(yes=True)
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert (conversation.said, conversation.complained) == (SHOWN + REMOVED, "")
        assert conversation.exit_code == 0
        kinds = [each.command if isinstance(each, IpvsOperation) else type(each) for each in node.log]
        assert kinds == [AddressOperation, Command.DEL_SERVICE, Command.DEL_SERVICE, FirewallChange]
        assert set(node.ipvs.state()) == {SOMEBODYS}
        assert node.addresses.kind is None
        assert not node.firewall.exists()

    def test_is_only_shown_in_a_dry_run(self) -> None:
        node, conversation = ours(), Conversation(dry_run=True)
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert conversation.said == SHOWN
        assert (node.log, conversation.exit_code) == ([], 0)

    @pytest.mark.parametrize(
        ("typed", "removes"), [("y\n", True), ("YES\n", True), ("n\n", False), ("", False)]
    )
    def test_goes_if_somebody_at_a_terminal_says_so(self, typed: str, *, removes: bool) -> None:
        node, conversation = ours(), Conversation(typed)
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        question = "Remove what goes? [y/N] "
        assert conversation.said == SHOWN + question + (REMOVED if removes else "Nothing was removed.\n")
        assert conversation.exit_code == (0 if removes else 1)
        assert bool(node.log) is removes

    def test_needs_a_terminal_or_a_flag(self) -> None:
        with pytest.raises(UsageError, match="there is no terminal to ask on: add --yes, or --dry-run"):
            Dialog(io.StringIO("y\n"), io.StringIO(), io.StringIO(), dry_run=False, assume_yes=False)

    def test_is_nothing_without_the_table_even_with_the_interface(self) -> None:
        node, conversation = Node(CLUSTER_IP, bound=["10.96.0.10"], records=None), Conversation(yes=True)
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert conversation.said == (
            "There is nothing of ipvsproxy's on this node.\n"
            "kube-ipvs0 is there, but no table inet ipvsproxy that would have it on record: "
            "see `ipvsproxy cleanup --kube-proxy`.\n"
        )
        assert (node.log, conversation.exit_code) == ([], 0)

    def test_that_the_kernel_refuses_stays_with_what_builds_on_it_and_the_record_and_the_rest_goes(
        self,
    ) -> None:
        other = key("10.96.0.11")
        node = Node(CLUSTER_IP, other, NODE_PORT, bound=["10.96.0.10", "10.96.0.11"], records=[NODE_PORT])
        node.addresses.refuse(address("10.96.0.10"), errno.EPERM)
        node.ipvs.refuse(NODE_PORT, errno.EBUSY)
        conversation = Conversation(yes=True)
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert conversation.complained == (
            "ipvsproxy: address 10.96.0.10 stays: EPERM: Operation not permitted\n"
            "ipvsproxy: virtual server 10.96.0.10:80/tcp stays: its address could not be removed first\n"
            "ipvsproxy: virtual server 203.0.113.1:30080/tcp stays: EBUSY: Device or resource busy\n"
            "ipvsproxy: the table inet ipvsproxy stays: it has the record of what stays; run this again\n"
        )
        assert conversation.said.endswith("\nRemoved: 1 address, 1 virtual server.\n")
        assert conversation.exit_code == 1
        assert node.firewall.read().elements == {record_of(NODE_PORT)}
        again = Conversation(yes=True)
        remove_ours(again.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert again.exit_code == 0
        assert node.ipvs.state() == {}

    def test_is_left_to_kube_proxy_where_its_mode_ipvs_is_back_but_for_the_table(self) -> None:
        node, conversation = ours(), Conversation(yes=True)
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=True)
        assert conversation.said == (
            "These go:\n"
            "  the nftables table inet ipvsproxy\n"
            "These stay:\n"
            "  1 address on kube-ipvs0: 10.96.0.10\n"
            "  2 virtual servers: 10.96.0.10:80/tcp, 203.0.113.1:30080/tcp\n"
            "  the interface kube-ipvs0\n"
            "  1 virtual server of somebody else's: 192.0.2.1:8080/tcp\n"
            "  kernel settings (sysctl): what they were before the agent is not known\n"
            "kube-proxy's ipsets are here: its mode ipvs serves by what stays, and deletes what no Service asks for.\n"
            "If it is not to run here any more, run `ipvsproxy cleanup --kube-proxy` next.\n"
            "Removed: the nftables table inet ipvsproxy.\n"
        )
        assert ([type(each) for each in node.log], conversation.exit_code) == ([FirewallChange], 0)
        assert node.addresses.kind == "dummy"
        assert not node.firewall.exists()

    def test_that_goes_by_itself_meanwhile_is_no_failure(self) -> None:
        node, conversation = ours(), Conversation(yes=True)
        node.ipvs.refuse(CLUSTER_IP, errno.ESRCH)
        node.addresses.refuse(address("10.96.0.10"), errno.EADDRNOTAVAIL)
        remove_ours(conversation.dialog, node.kernel, node.chains, beside_mode_ipvs=False)
        assert conversation.exit_code == 0


class TestWords:
    def test_say_what_is_to_be_removed_and_how(self) -> None:
        words = ["cleanup", "--kube-proxy", "--dry-run", "--run-directory", "/run/other"]
        assert parse(words) == CleanupArguments(
            kube_proxy=True, dry_run=True, yes=False, run_directory=Path("/run/other")
        )
        default = CleanupArguments(
            kube_proxy=False, dry_run=False, yes=True, run_directory=Path("/run/ipvsproxy")
        )
        assert parse(["cleanup", "-y"]) == parse(["cleanup", "--yes"]) == default

    def test_that_contradict_each_other_are_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            parse(["cleanup", "--yes", "--dry-run"])
        assert ended.value.code == 2
        assert capsys.readouterr().err == "ipvsproxy cleanup: --dry-run: not allowed with argument -y/--yes\n"


def test_of_many_things_a_few_are_named() -> None:
    assert listed(range(4)) == "0, 1, 2, 3"
    assert listed(range(10_000)) == "0, 1, 2, 3 and 9,996 more"


class KubeProxys:
    """What kube-proxy left beside a node's tables, and an agent or none."""

    def __init__(self, node: Node, *reports: AgentReport, process: int | None = None) -> None:
        self.node = node
        self.ipsets = FakeIpSets({"KUBE-NODE-PORT-TCP": {30080}, "KUBE-LOOP-BACK": set(), "mine": set()})
        self.programs = FakePrograms(BY_IPTABLES_NFT)
        self.pauses = 0
        self._reports = list(reports)
        self._process = process

    def clean_up(self, conversation: Conversation, proc_net: Path) -> None:
        reader = KubeProxyReader(self.ipsets, self.programs, proc_net)
        remover = KubeProxyRemover(self.ipsets, self.programs, lambda _: None)
        access = Access(reader, remover, lambda: self._process)
        KubeProxyCleanup(conversation.dialog, self.node.kernel, access, self._ask, self._pause).run()

    def _ask(self) -> AgentReport:
        if not self._reports:
            raise AgentNotRunningError("the agent is not running, nobody listens on /run/agent.sock")
        return self._reports.pop(0) if len(self._reports) > 1 else self._reports[0]

    def _pause(self, _: float) -> None:
        self.pauses += 1


WITHOUT_IT, WITH_IT = report_of(WEB, view=view_of(WEB, foreign=[NODE_PORT])), report_of(WEB)
RULES_SHOWN = """\
These go:
  1 chain of table ip nat (iptables-nft): KUBE-SERVICES
  2 ipsets: KUBE-LOOP-BACK, KUBE-NODE-PORT-TCP
"""
RULES_REMOVED = "Removed: 1 chain, 2 ipsets.\n"


class TestKubeProxys:
    def test_virtual_servers_are_handed_over_before_its_rules_go(self, tmp_path: Path) -> None:
        node = Node(CLUSTER_IP, NODE_PORT, SOMEBODYS, bound=["10.96.0.10"], records=[CLUSTER_IP])
        left, conversation = KubeProxys(node, WITHOUT_IT, WITHOUT_IT, WITH_IT), Conversation(yes=True)
        left.clean_up(conversation, tmp_path)
        assert conversation.said == (
            "The agent, process 4711, takes these over, or removes what no Service asks for:\n"
            "  1 virtual server: 203.0.113.1:30080/tcp\n"
            f"{RULES_SHOWN}"
            "Waiting until the agent has taken them over, at its next comparison with the kernel.\n"
            f"{RULES_REMOVED}"
        )
        assert (conversation.complained, conversation.exit_code) == ("", 0)
        assert left.pauses == 1
        assert node.log == [
            FirewallChange(frozenset({SetElement(FirewallSet.SERVICE_PORTS, NODE_PORT)}), frozenset())
        ]
        assert [command for command, _ in left.programs.fed] == [TRANSACTION]
        assert set(left.ipsets.sets) == {"mine"}

    def test_one_that_the_agent_removes_counts_as_taken_over(self, tmp_path: Path) -> None:
        node = Node(CLUSTER_IP, NODE_PORT, bound=["10.96.0.10"], records=[CLUSTER_IP])
        left, conversation = KubeProxys(node, WITHOUT_IT), Conversation(yes=True)
        change = node.firewall.change

        def change_and_remove(add: list[SetElement], remove: list[SetElement]) -> None:
            change(add, remove)
            node.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, virtual_server(NODE_PORT))])

        node.kernel = node.kernel._replace(firewall=node.firewall)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node.firewall, "change", change_and_remove)
            left.clean_up(conversation, tmp_path)
        assert conversation.exit_code == 0
        assert left.pauses == 0

    def test_rules_stay_if_the_agent_does_not_take_over(self, tmp_path: Path) -> None:
        node = Node(CLUSTER_IP, NODE_PORT, bound=["10.96.0.10"], records=[CLUSTER_IP])
        left = KubeProxys(node, WITHOUT_IT)
        with pytest.raises(
            IpvsProxyError,
            match=r"not taken over 1 virtual server within 120 s: 203.0.113.1:30080/tcp; kube-proxy's rules stay",
        ):
            left.clean_up(Conversation(yes=True), tmp_path)
        assert left.programs.fed == []
        assert len(left.ipsets.sets) == 3

    def test_all_goes_with_a_warning_where_no_agent_is_and_was(self, tmp_path: Path) -> None:
        node = Node(CLUSTER_IP, NODE_PORT, SOMEBODYS, bound=["10.96.0.10"], records=None)
        left, conversation = KubeProxys(node), Conversation(yes=True)
        left.clean_up(conversation, tmp_path)
        assert conversation.complained == (
            "ipvsproxy: no agent runs on this node: what kube-proxy served ends with this, connections included; "
            "to keep it, start the agent first, and then run this again\n"
        )
        assert conversation.said.endswith(
            "Removed: 1 address, 2 virtual servers, the interface kube-ipvs0, 1 chain, 2 ipsets.\n"
        )
        assert set(node.ipvs.state()) == {SOMEBODYS}

    def test_nothing_changes_in_a_dry_run_and_it_may_run_beside_kube_proxy(self, tmp_path: Path) -> None:
        left, conversation = KubeProxys(ours(), WITH_IT, process=77), Conversation(dry_run=True)
        left.clean_up(conversation, tmp_path)
        assert conversation.said == RULES_SHOWN
        assert conversation.complained == (
            "ipvsproxy: kube-proxy runs, process 77, and would put everything back: without --dry-run this is refused\n"
        )
        assert (left.node.log, left.programs.fed, conversation.exit_code) == ([], [], 0)

    def test_refused_while_kube_proxy_runs(self, tmp_path: Path) -> None:
        with pytest.raises(
            IpvsProxyError, match="kube-proxy runs, process 77, and would put everything back: stop it"
        ):
            KubeProxys(ours(), WITH_IT, process=77).clean_up(Conversation(yes=True), tmp_path)

    def test_refused_before_the_agent_has_compared_everything(self, tmp_path: Path) -> None:
        report = report_of(WEB, view=view_of(WEB, synced=False))
        with pytest.raises(IpvsProxyError, match="the agent has not compared everything with the kernel yet"):
            KubeProxys(ours(), report).clean_up(Conversation(yes=True), tmp_path)

    def test_says_when_there_is_nothing(self, tmp_path: Path) -> None:
        left, conversation = KubeProxys(ours(), WITH_IT), Conversation(yes=True)
        left.ipsets.sets.clear()
        left.programs.outputs = NOTHING
        left.clean_up(conversation, tmp_path)
        assert conversation.said == "Nothing of kube-proxy's was found on this node.\n"
        assert conversation.exit_code == 0

    def test_finding_nothing_where_not_all_could_be_looked_at_is_told_as_that(self, tmp_path: Path) -> None:
        (tmp_path / "ip_tables_names").write_text("nat\n")
        left, conversation = KubeProxys(ours(), WITH_IT), Conversation(yes=True)
        left.ipsets.sets.clear()
        left.programs.outputs = NOTHING
        left.clean_up(conversation, tmp_path)
        assert conversation.said == (
            "Nothing of kube-proxy's was found on this node, as far as it could be looked at.\n"
        )
        assert conversation.exit_code == 1

    def test_what_is_refused_is_told_one_by_one_and_the_rest_goes(self, tmp_path: Path) -> None:
        left, conversation = KubeProxys(ours(), WITH_IT), Conversation(yes=True)
        left.programs.refusals[TRANSACTION] = "Error: Could not process rule: Device or resource busy"
        left.ipsets.busy["KUBE-LOOP-BACK"] = 1000
        left.clean_up(conversation, tmp_path)
        assert conversation.complained == (
            "ipvsproxy: 1 chain of table ip nat (iptables-nft): not removed: "
            "Error: Could not process rule: Device or resource busy\n"
            "ipvsproxy: ipset KUBE-LOOP-BACK: not removed: a rule uses it\n"
        )
        assert conversation.said.endswith("Removed: 1 ipset.\n")
        assert conversation.exit_code == 1

    def test_what_others_need_is_shown_and_stays_without_a_question(self, tmp_path: Path) -> None:
        left, conversation = KubeProxys(ours(), WITH_IT), Conversation("")
        left.ipsets.sets.clear()
        left.programs.outputs[LIST_NAT] = listing(
            *NAT_CHAINS, chain("MINE"), rule("MINE", 9, {"goto": {"target": "KUBE-SERVICES"}})
        )
        left.clean_up(conversation, tmp_path)
        assert conversation.said == (
            "These stay:\n"
            "  chain KUBE-SERVICES of table ip nat (iptables-nft): "
            "chain MINE leads to it, which is not kube-proxy's\n"
        )
        assert (left.programs.fed, conversation.exit_code) == ([], 0)

    def test_what_could_not_be_looked_at_is_told_with_exit_code_1(self, tmp_path: Path) -> None:
        (tmp_path / "ip_tables_names").write_text("nat\n")
        left, conversation = KubeProxys(ours(), WITH_IT), Conversation(yes=True)
        left.clean_up(conversation, tmp_path)
        assert conversation.complained == (
            "ipvsproxy: the tables of iptables-legacy (ip) can't be looked at: "
            "iptables-legacy-save is not installed where this runs; "
            "run this on the host, or in a privileged container\n"
        )
        assert conversation.exit_code == 1

    def test_a_kernel_that_can_not_be_read_is_told_by_whoever_called(self, tmp_path: Path) -> None:
        node = ours()
        node.firewall.fail_calls(FirewallError("Error: no"))
        with pytest.raises(FirewallError):
            KubeProxys(node, WITH_IT).clean_up(Conversation(yes=True), tmp_path)
