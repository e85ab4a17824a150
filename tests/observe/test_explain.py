"""What becomes of a packet, and what is said of it, in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.kernel.foreign_rules import ForeignRules
from ipvsproxy.kernel.host_firewall import HostFirewall
from ipvsproxy.kernel.listening import Listener
from ipvsproxy.kernel.nft_rules import ListedRules, UnknownRule
from ipvsproxy.kernel.routes import Route
from ipvsproxy.model.addresses import Family
from ipvsproxy.model.ipvs import RealServerStatus
from ipvsproxy.model.objects import (
    ObjectKey,
    Protocol,
    ServiceOptions,
    ServiceType,
    SlicePort,
    TrafficPolicy,
)
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.explain import is_owned, why_nobody_has
from ipvsproxy.observe.explain_schema import EndpointState, ExplainedOutcome
from ipvsproxy.observe.traced import Misrouted, keys_wanted
from ipvsproxy.plan.foreign_rules import ForeignRule, ForeignRuleKind
from ipvsproxy.plan.rules import Chain, Hook, Rule, Verdict
from ipvsproxy.plan.trace.values import KernelReason
from ipvsproxy.plan.view import Drain, DrainKey, Failure
from tests.builders import (
    NODE,
    address,
    endpoint,
    endpoint_slice,
    key,
    port,
    real_server,
    service,
    virtual_server,
)
from tests.host_tables import LEGACY_FILTER, tables
from tests.observe.explaining import NODE_ADDRESS, POD, STRANGER, kernel_state, told
from tests.observe.node import NOW, report_of, state, view_of

if TYPE_CHECKING:
    from ipvsproxy.model.ipvs import VirtualServerKey
    from ipvsproxy.model.items import Item
    from ipvsproxy.observe.explain_schema import Explanation
    from ipvsproxy.observe.traced import KernelState
    from ipvsproxy.source.store import ServiceState

SERVICE, BALANCER, HERE, THERE = "10.96.0.10", "192.0.2.10", "10.244.1.7", "10.244.2.7"
TARGET = key(SERVICE)
LOCAL = endpoint(HERE, node=NODE)
WEB = state(service(SERVICE, ports=(port(name="http"),)), endpoint_slice(LOCAL, THERE, ports=()))


def web(*endpoints: Any, **fields: Any) -> ServiceState:  # noqa: ANN401 - as the builders take them
    return state(service(SERVICE, **fields), endpoint_slice(*endpoints))


def balancer(*endpoints: Any, **fields: Any) -> ServiceState:  # noqa: ANN401 - as the builders take them
    return web(*endpoints, kind=ServiceType.LOAD_BALANCER, load_balancer_ips=(BALANCER,), **fields)


def without(kernel: KernelState, **changes: Any) -> KernelState:  # noqa: ANN401 - fields of KernelState
    return replace(kernel, **changes)


class TestResult:
    """The one sentence, and what the exit code follows from."""

    def test_endpoints_that_see_the_client(self) -> None:
        told_ = told(TARGET, kernel_state(web(LOCAL, THERE)))
        assert told_.result == f"answered by {HERE}:8080 or {THERE}:8080, seeing {POD} as the source"
        assert told_.is_well

    def test_endpoints_that_see_the_node(self) -> None:
        told_ = told(TARGET, kernel_state(web(LOCAL, THERE)), source=STRANGER)
        assert told_.result == (
            f"answered by {HERE}:8080 or {THERE}:8080, seeing {NODE_ADDRESS} (this node) as the source"
        )

    def test_an_endpoint_that_reaches_itself_sees_another_source_than_the_rest(self) -> None:
        told_ = told(TARGET, kernel_state(web(LOCAL, THERE)), source=HERE)
        assert told_.result == (
            f"answered by {HERE}:8080, seeing {NODE_ADDRESS} (this node) as the source, "
            f"or {THERE}:8080, seeing {HERE} as the source"
        )

    def test_an_address_of_the_node_that_is_not_known_by_name(self) -> None:
        told_ = told(TARGET, without(kernel_state(web(LOCAL)), routes={}), source=STRANGER)
        assert told_.result == f"answered by {HERE}:8080, seeing an address of this node as the source"

    def test_many_endpoints_are_counted(self) -> None:
        many = [endpoint(f"10.244.2.{number}") for number in range(10, 40)]
        told_ = told(TARGET, kernel_state(web(*many)))
        assert "10.244.2.18:8080 or 21 more, seeing" in told_.result

    @pytest.mark.parametrize(
        ("served", "target", "source", "outcome", "result"),
        [
            (
                web(endpoint(HERE, ready=False, serving=False)),
                TARGET,
                POD,
                ExplainedOutcome.REFUSED,
                "refused at once: no endpoint of Service default/web serves here: not ready",
            ),
            (
                state(service(SERVICE)),
                TARGET,
                POD,
                ExplainedOutcome.REFUSED,
                "refused at once: Service default/web has no endpoints for this port",
            ),
            (
                state(
                    service(SERVICE),
                    endpoint_slice(HERE, THERE, ports=(SlicePort("http", Protocol.TCP, 8080),)),
                ),
                TARGET,
                POD,
                ExplainedOutcome.REFUSED,
                (
                    "refused at once: Service default/web: 2 endpoints are known, none has the port, which has no name "
                    "(their ports: http)"
                ),
            ),
            (
                web(THERE, internal=TrafficPolicy.LOCAL),
                TARGET,
                POD,
                ExplainedOutcome.REFUSED,
                (
                    "refused at once: no endpoint of Service default/web serves here: "
                    "on another node, and internalTrafficPolicy is Local"
                ),
            ),
            (
                balancer(THERE, external=TrafficPolicy.LOCAL),
                key(BALANCER),
                STRANGER,
                ExplainedOutcome.DROPPED,
                (
                    "dropped without an answer: no endpoint of Service default/web serves here: "
                    "on another node, and externalTrafficPolicy is Local"
                ),
            ),
            (
                balancer(LOCAL, source_ranges=("198.51.100.0/24",)),
                key(BALANCER),
                STRANGER,
                ExplainedOutcome.DROPPED,
                f"dropped without an answer: {STRANGER} is in none of the allowed networks",
            ),
            (
                web(LOCAL),
                key(SERVICE, 81),
                POD,
                ExplainedOutcome.REFUSED,
                f"refused at once: no Service has port 81/tcp at {SERVICE}: it has 80/tcp (default/web)",
            ),
            (
                web(LOCAL),
                key(NODE_ADDRESS, 22),
                POD,
                ExplainedOutcome.REFUSED,
                (
                    "refused at once: no process of the node listens on the port, and no Service has port 22/tcp at "
                    f"{NODE_ADDRESS}: it has none at all"
                ),
            ),
        ],
    )
    def test_why_nobody_answers(
        self,
        served: ServiceState,
        target: VirtualServerKey,
        source: str,
        outcome: ExplainedOutcome,
        result: str,
    ) -> None:
        told_ = told(target, kernel_state(served), report_of(served), source)
        assert (told_.outcome, told_.result, told_.wanted, told_.differences) == (outcome, result, None, [])
        assert not told_.is_well

    def test_without_the_agent_there_are_no_reasons(self) -> None:
        told_ = told(TARGET, kernel_state(web(endpoint(HERE, ready=False, serving=False))))
        assert told_.result == (
            f"refused at once: virtual server {SERVICE}:80/tcp has no real server that takes new connections"
        )
        assert (told_.agent, told_.wanted, told_.differences) == (None, None, None)

    def test_a_process_of_the_node_that_listens_answers(self) -> None:
        listens = without(kernel_state(), listeners=[Listener(address(NODE_ADDRESS), Protocol.TCP, 22)])
        told_ = told(key(NODE_ADDRESS, 22), listens, source=STRANGER)
        assert (told_.outcome, told_.is_well) == (ExplainedOutcome.NODE, True)
        assert told_.result == "answered by the node itself: a process of the node listens on the port"


class TestAbout:
    """What is known of the address."""

    def sentences(self, served: ServiceState, target: str, source: str = STRANGER) -> list[str]:
        return told(key(target), kernel_state(served), report_of(served), source).about

    def test_the_service_the_kind_and_the_policy(self) -> None:
        served = web(LOCAL, ports=(port(name="http"),))
        assert self.sentences(served, SERVICE)[0] == (
            f"{SERVICE}:80/tcp is a clusterIP of Service default/web, port http, with internalTrafficPolicy Cluster"
        )

    def test_the_source_ranges_and_where_clients_inside_are_sent(self) -> None:
        served = balancer(
            LOCAL, external=TrafficPolicy.LOCAL, source_ranges=("198.51.100.0/24", "192.0.2.0/24")
        )
        assert self.sentences(served, BALANCER)[:3] == [
            (
                f"{BALANCER}:80/tcp is an IP of the load balancer of Service default/web, "
                "with externalTrafficPolicy Local"
            ),
            "its loadBalancerSourceRanges let in 192.0.2.0/24 and 198.51.100.0/24 only",
            f"clients inside the cluster are sent on to the ClusterIP, {SERVICE}:80",
        ]
        assert "nobody may connect" in self.sentences(balancer(LOCAL, source_ranges=()), BALANCER)[1]

    def test_affinity(self) -> None:
        assert self.sentences(web(LOCAL, affinity=600), SERVICE)[-1] == (
            f"virtual server {SERVICE}:80/tcp has the scheduler rr; a client that comes back within 10m stays with its "
            "endpoint, as long as that serves"
        )

    def test_a_virtual_server_of_somebody_else(self) -> None:
        theirs = key(NODE_ADDRESS, 8080)
        kernel = without(
            kernel_state(),
            virtual_servers={theirs: virtual_server(theirs)},
            statuses={theirs: [RealServerStatus(real_server(HERE), 0, 0)]},
        )
        told_ = told(theirs, kernel, report_of())
        assert told_.about[0] == (
            f"virtual server {NODE_ADDRESS}:8080/tcp is somebody else's: ipvsproxy did not make it and leaves it alone"
        )
        assert (told_.outcome, told_.differences, told_.wanted) == (ExplainedOutcome.ANSWERED, [], None)


class TestSteps:
    """The way, with what is behind each step."""

    def test_steps_behind_ipvs_are_told_once_for_all_real_servers_that_have_the_same(self) -> None:
        told_ = told(TARGET, kernel_state(web(LOCAL, THERE, endpoint("10.244.2.8"))), source=HERE)
        assert [way.real_servers for way in told_.ways] == [
            [f"{HERE}:8080"],
            [f"{THERE}:8080", "10.244.2.8:8080"],
        ]
        first, masquerade = told_.ways[0].steps
        assert (first.stage, first.effect, first.entries) == (
            "IPVS",
            "the destination becomes the real server",
            [f"virtual server {SERVICE}:80/tcp"],
        )
        assert (masquerade.chain, masquerade.entries) == (
            "masquerading",
            [f"element {HERE} . {HERE} of set local-endpoints-ipv4"],
        )

    def test_a_redirected_packet_meets_the_virtual_server_of_the_cluster_ip(self) -> None:
        served = balancer(THERE, external=TrafficPolicy.LOCAL)
        told_ = told(key(BALANCER), kernel_state(served), report_of(served))
        assert told_.steps[0].effect == f"the destination becomes {SERVICE}:80"
        assert [(each.address, each.state) for each in told_.endpoints] == [(THERE, EndpointState.ANSWERS)]

    def test_a_rule_that_drops_behind_ipvs_is_why_nobody_answers(self) -> None:
        kernel = kernel_state(web(LOCAL, THERE))
        assert kernel.table.rules
        drop = Chain("mine", Hook("filter", "postrouting", 50), (Rule("not today", (), Verdict.DROP),))
        table = kernel.table._replace(rules=ListedRules((*kernel.table.rules.chains, drop), ()))
        told_ = told(TARGET, without(kernel, table=table))
        assert told_.result == "dropped without an answer: not today"
        assert {each.state for each in told_.endpoints} == {EndpointState.UNREACHED}

    def test_a_rule_of_somebody_else_without_a_comment_has_words_all_the_same(self) -> None:
        kernel = kernel_state(web(LOCAL))
        assert kernel.table.rules
        chains = tuple(
            each._replace(rules=(Rule("", (), Verdict.DROP), *each.rules))
            if each.name == "prerouting"
            else each
            for each in kernel.table.rules.chains
        )
        table = kernel.table._replace(rules=ListedRules(chains, ()))
        told_ = told(TARGET, without(kernel, table=table))
        assert told_.steps[-1].reason == "a rule without a comment"
        assert told_.result == "dropped without an answer: a rule without a comment"


class TestEndpoints:
    """What new connections have of each endpoint."""

    def states(self, told_: Explanation) -> dict[str, tuple[EndpointState, str | None]]:
        return {each.address: (each.state, each.reason) for each in told_.endpoints}

    def test_those_that_do_not_serve_are_there_with_the_reason(self) -> None:
        served = web(LOCAL, endpoint(THERE, ready=False))
        assert self.states(told(TARGET, kernel_state(served), report_of(served))) == {
            HERE: (EndpointState.ANSWERS, "ready"),
            THERE: (EndpointState.EXCLUDED, "not ready"),
        }

    def test_those_that_drain_have_the_time_that_is_left(self) -> None:
        served = web(LOCAL)
        drains = {DrainKey(TARGET, address(THERE), 8080): Drain(NOW - 40, NOW + 860)}
        kernel = kernel_state(served)
        draining = RealServerStatus(real_server(THERE, weight=0), 1, 0)
        statuses = {TARGET: [*kernel.statuses[TARGET], draining]}
        report = report_of(served, view=view_of(served, drains=drains))
        told_ = told(TARGET, without(kernel, statuses=statuses), report)
        assert self.states(told_)[THERE] == (EndpointState.DRAINING, None)
        assert [each.drain_seconds_left for each in told_.endpoints] == [None, 860]
        assert (told_.differences, told_.wanted, told_.is_well) == ([], None, True)

    def test_those_that_are_full_get_nothing(self) -> None:
        served = web(LOCAL, THERE, options=ServiceOptions(maximum_connections=3))
        kernel = kernel_state(served)
        first, second = kernel.statuses[TARGET]
        some = {TARGET: [first._replace(active_connections=2, inactive_connections=1), second]}
        told_ = told(TARGET, without(kernel, statuses=some), report_of(served))
        assert self.states(told_)[HERE] == (EndpointState.FULL, "ready")
        assert told_.result.startswith(f"answered by {THERE}:8080, seeing")
        every = {TARGET: [each._replace(active_connections=3) for each in (first, second)]}
        full = told(TARGET, without(kernel, statuses=every), report_of(served))
        assert (
            full.result
            == "refused at once: each real server with a weight above 0 has its maximum of connections"
        )
        assert any("maximum-connections-per-endpoint" in sentence for sentence in full.next)


class TestDifferences:
    """What the agent wants, where the kernel has something else."""

    def test_a_missing_virtual_server(self) -> None:
        served = web(LOCAL)
        told_ = told(
            TARGET, without(kernel_state(served), virtual_servers={}, statuses={}), report_of(served)
        )
        missing = f"virtual server {SERVICE}:80/tcp is missing"
        assert told_.result == f"refused at once: {missing}"
        assert told_.wanted == (
            f"as the agent wants it, the packet would be answered by {HERE}:8080, seeing the client as the source, "
            f"but {missing}"
        )
        assert (told_.differences, told_.endpoints[0].state) == ([missing], EndpointState.MISSING)
        assert told_.next[0].startswith("the agent mends what differs at its next resync")

    def test_what_the_kernel_refused_is_told_with_the_next_try(self) -> None:
        served = web(LOCAL)
        failures: dict[Item, Failure] = {TARGET: Failure("EINVAL: Invalid argument", 3, NOW + 8, NOW)}
        report = report_of(served, view=view_of(served, failures=failures))
        told_ = told(TARGET, without(kernel_state(served), virtual_servers={}, statuses={}), report)
        assert told_.next[0] == (
            f"the kernel refused virtual server {SERVICE}:80/tcp: EINVAL: Invalid argument; "
            "the agent tries it again in 8s"
        )

    def test_a_missing_address(self) -> None:
        served = web(LOCAL)
        told_ = told(TARGET, without(kernel_state(served), bound=frozenset()), report_of(served))
        missing = f"address {SERVICE} is missing on the dummy interface"
        assert (told_.outcome, told_.differences) == (ExplainedOutcome.NOT_OURS, [missing])
        assert told_.result == f"sent elsewhere, for its destination is no address of this node: {missing}"

    def test_another_weight_that_changes_nothing_is_told_all_the_same(self) -> None:
        served = web(LOCAL)
        statuses = {TARGET: [RealServerStatus(real_server(HERE, weight=7), 0, 0)]}
        told_ = told(TARGET, without(kernel_state(served), statuses=statuses), report_of(served))
        assert told_.differences == [
            f"real server {HERE}:8080 of virtual server {SERVICE}:80/tcp has weight 7 instead of 1"
        ]
        assert (told_.wanted, told_.is_well) == (None, True)

    def test_elements_that_are_missing_or_too_many(self) -> None:
        served = balancer(LOCAL)
        kernel = kernel_state(served)
        guard = next(each for each in kernel.elements if each.set_name == "masqueraded-service-ports-ipv4")
        found = kernel.table.state._replace(elements=frozenset(kernel.elements - {guard}))
        told_ = told(
            key(BALANCER),
            without(kernel, table=kernel.table._replace(state=found)),
            report_of(served),
            STRANGER,
        )
        assert told_.differences == [
            f"element {BALANCER} . tcp . 80 of set masqueraded-service-ports-ipv4 is missing"
        ]

    def test_a_table_that_is_not_there(self) -> None:
        served = web(LOCAL)
        kernel = kernel_state(served)
        gone = kernel.table._replace(state=kernel.table.state._replace(intact=False), rules=None)
        told_ = told(TARGET, without(kernel, table=gone), report_of(served), STRANGER)
        assert told_.wanted
        assert told_.wanted.endswith("but table inet ipvsproxy is not as the agent makes it")
        assert (told_.outcome, told_.is_well) == (ExplainedOutcome.ANSWERED, False)
        assert any("table inet ipvsproxy is not there" in sentence for sentence in told_.next)

    def test_an_address_that_another_interface_has_is_neither_bound_nor_guarded(self) -> None:
        served = balancer(LOCAL)
        kernel = kernel_state(served)
        taken = address(BALANCER)
        elements = frozenset(each for each in kernel.elements if each.fields != (taken,))
        table = kernel.table._replace(state=kernel.table.state._replace(elements=elements))
        elsewhere = without(kernel, table=table, bound=kernel.bound - {taken}, own=kernel.own | {taken})
        told_ = told(key(BALANCER), elsewhere, report_of(served), STRANGER)
        assert (told_.outcome, told_.differences, told_.wanted) == (ExplainedOutcome.ANSWERED, [], None)
        listening = without(elsewhere, listeners=[Listener(taken, Protocol.TCP, 22)])
        of_node = told(key(BALANCER, 22), listening, report_of(served), STRANGER)
        assert (of_node.outcome, of_node.wanted) == (ExplainedOutcome.NODE, None)

    def test_clients_that_a_hashing_scheduler_keeps_with_a_draining_endpoint_are_refused_as_wanted(
        self,
    ) -> None:
        served = web(LOCAL, options=ServiceOptions(scheduler="dh"))
        kernel = kernel_state(served)
        draining = RealServerStatus(real_server(THERE, weight=0), 1, 0)
        report = report_of(
            served, view=view_of(served, drains={DrainKey(TARGET, address(THERE), 8080): Drain(NOW, NOW + 1)})
        )
        told_ = told(TARGET, without(kernel, statuses={TARGET: [*kernel.statuses[TARGET], draining]}), report)
        assert told_.result.startswith(
            f"refused at once for some clients, for others answered by {HERE}:8080"
        )
        assert (told_.wanted, told_.is_well) == (None, False)

    def test_another_service_is_not_spoken_of(self) -> None:
        other = state(service("10.96.0.99", of=ObjectKey("default", "other")))
        report = report_of(web(LOCAL), other)
        assert told(TARGET, kernel_state(web(LOCAL)), report).differences == []

    def test_a_virtual_server_that_no_service_asks_for(self) -> None:
        told_ = told(TARGET, kernel_state(web(LOCAL)), report_of())
        assert told_.differences
        assert f"virtual server {SERVICE}:80/tcp is there, and no Service asks for it" in told_.differences


def test_whose_address_a_foreign_virtual_server_holds_is_told_with_a_remedy() -> None:
    served = web(LOCAL)
    kernel = kernel_state(served)
    theirs = key(SERVICE, 443)
    foreign = without(
        kernel,
        bound=frozenset(),
        virtual_servers={theirs: virtual_server(theirs)},
        statuses={theirs: []},
        table=kernel.table._replace(state=kernel.table.state._replace(elements=frozenset())),
        own=kernel.own | {address(SERVICE)},
    )
    report = report_of(served, view=view_of(served, foreign=[theirs]))
    for asked_for in (theirs, TARGET):
        told_ = told(asked_for, foreign, report)
        assert any("Service default/web asks for it (spec.clusterIPs)" in each for each in told_.about)
        assert any("ipvsadm -D" in each for each in told_.next)
    assert not any("ipvsadm -D" in each for each in told(TARGET, kernel, report_of(served)).next)


class TestNodeName:
    """An agent that goes by another node's name takes the endpoints of its own node for another one's."""

    def advised(self, *endpoints: object, near: str) -> bool:
        served = web(*endpoints, internal=TrafficPolicy.LOCAL)
        told_ = told(TARGET, without(kernel_state(served), near={address(near)}), report_of(served))
        return any("--hostname-override" in sentence for sentence in told_.next)

    def test_an_endpoint_at_hand_that_counts_as_another_nodes_is_a_hint(self) -> None:
        theirs = endpoint(HERE, node="node-z")
        assert self.advised(theirs, near=HERE)
        assert not self.advised(theirs, near=THERE)
        assert not self.advised(theirs, endpoint(THERE, node=NODE, ready=False, serving=False), near=HERE)
        assert not self.advised(LOCAL, near=HERE)


class TestUnless:
    """What may make another end of it."""

    def firewalled(self, *rules: str, source: str | None = POD, **policies: str) -> Explanation:
        firewall = HostFirewall(tables(*rules, **policies))  # type: ignore[arg-type] # no chain is called `table`
        kernel = kernel_state(web(LOCAL))
        routes = {
            server.address: Route("cali1", None, local=False)
            for each in kernel.statuses.values()
            for server, *_ in each
        }
        return told(TARGET, without(kernel, host_firewall=firewall, routes=routes), source=source)

    def test_what_could_not_be_looked_at_makes_it_uncertain(self) -> None:
        firewall = HostFirewall(unseen=("iptables-legacy can't be looked at",))
        told_ = told(TARGET, without(kernel_state(web(LOCAL)), host_firewall=firewall))
        assert (told_.unless, told_.is_well) == (["iptables-legacy can't be looked at"], False)
        assert len(told_.next) == 1

    def test_a_firewall_of_the_host_that_drops_is_the_end_with_the_rule_and_what_to_do(self) -> None:
        told_ = self.firewalled(f"-A INPUT -d {SERVICE}/32 -j DROP")
        assert told_.outcome is ExplainedOutcome.DROPPED
        assert (told_.steps[-1].stage, told_.steps[-1].chain) == (
            "input",
            "INPUT of table ip filter (iptables-legacy)",
        )
        assert f"-A INPUT -d {SERVICE}/32 -j DROP" in told_.result
        assert f"iptables-legacy -D INPUT -d {SERVICE}/32 -j DROP" in told_.next[0]
        assert (told_.unless, told_.is_well) == ([], False)

    def test_what_to_do_lets_in_the_port_alone_and_ahead_of_ipvs_only(self) -> None:
        at_input = self.firewalled(INPUT="DROP")
        assert f"iptables-legacy -I INPUT -d {SERVICE} -p tcp --dport 80 -j ACCEPT" in at_input.next[0]

    @pytest.mark.parametrize("source", [POD, None])
    def test_behind_ipvs_it_lets_through_the_pods_networks(self, source: str | None) -> None:
        kernel = without(kernel_state(web(LOCAL)), host_firewall=HostFirewall(tables(OUTPUT="DROP")))
        (*_, step) = told(TARGET, kernel, report_of(web(LOCAL)), source).next
        assert "iptables-legacy -I OUTPUT -d 10.244.0.0/16 -j ACCEPT" in step

    def test_behind_ipvs_it_lets_through_endpoints_of_no_known_network_one_by_one(self) -> None:
        served = web(*(endpoint(f"192.0.2.{number}") for number in range(1, 6)))
        kernel = without(kernel_state(served), host_firewall=HostFirewall(tables(OUTPUT="DROP")))
        (step, *_) = told(TARGET, kernel).next
        for number in (1, 2, 3):
            assert f"iptables-legacy -I OUTPUT -d 192.0.2.{number} -p tcp --dport 8080 -j ACCEPT" in step
        assert ("192.0.2.4" in step, "2 more endpoints" in step) == (False, True)

    def test_what_else_may_drop_a_packet_that_is_dropped_is_not_told(self) -> None:
        undecided = "-A INPUT -m set --match-set blocked src -j DROP"
        drops = "-A FORWARD -j DROP"
        assert self.firewalled(undecided, drops).unless == []
        assert self.firewalled(undecided).unless != []
        seen = HostFirewall(tables(drops), ("iptables-legacy can't be looked at",))
        assert told(TARGET, without(kernel_state(web(LOCAL)), host_firewall=seen)).unless == []

    def test_one_that_refuses_is_a_refusal(self) -> None:
        assert self.firewalled("-A INPUT -p tcp -j REJECT").outcome is ExplainedOutcome.REFUSED

    @pytest.mark.parametrize(
        ("rules", "policies", "stage"),
        [
            ((), {"FORWARD": "DROP"}, "forward"),
            (("-A FORWARD -i cali1 -m conntrack --ctstate ESTABLISHED -j DROP",), {}, "forward"),
            (("-A FORWARD -p tcp -m tcp --sport 8080 -o veth0 -j DROP",), {}, "forward"),
            (("-A FORWARD -d 10.244.1.9/32 -j DROP",), {}, "forward"),
            (("-A OUTPUT -d 10.244.1.7/32 -p tcp -m tcp --dport 8080 -o cali1 -j DROP",), {}, "output"),
            (("-A INPUT -m conntrack --ctstate NEW -j DROP",), {}, "input"),
        ],
    )
    def test_each_hook_is_looked_at_that_the_packet_or_its_answer_passes(
        self, rules: tuple[str, ...], policies: dict[str, str], stage: str
    ) -> None:
        told_ = self.firewalled(*rules, **policies)
        steps = [*told_.steps, *(step for way in told_.ways for step in way.steps)]
        assert told_.outcome is ExplainedOutcome.DROPPED
        assert steps[-1].stage == stage

    @pytest.mark.parametrize(
        "rule",
        [
            "-A FORWARD -m conntrack --ctstate NEW -j DROP",
            "-A INPUT -m conntrack --ctstate ESTABLISHED -j DROP",
            "-A INPUT -s 192.0.2.0/24 -j DROP",
            "-A FORWARD -i eth0 -j DROP",
            "-A OUTPUT -o lo -j DROP",
        ],
    )
    def test_rules_for_other_packets_change_nothing(self, rule: str) -> None:
        assert self.firewalled(rule).is_well

    def test_a_rule_that_cant_be_judged_is_named_and_makes_it_uncertain(self) -> None:
        rule = "-A INPUT -m set --match-set blocked src -j DROP"
        told_ = self.firewalled(rule)
        assert told_.outcome is ExplainedOutcome.ANSWERED
        assert rule in told_.unless[0]
        assert not told_.is_well

    def test_the_answer_to_a_process_passes_input_and_no_forward(self) -> None:
        assert self.firewalled(source=None, FORWARD="DROP").is_well
        lets_through = "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"
        assert self.firewalled(lets_through, source=None, INPUT="DROP").is_well
        assert self.firewalled(source=None, INPUT="DROP").outcome is ExplainedOutcome.DROPPED

    def test_a_table_of_the_other_family_does_not_count(self) -> None:
        of_ipv6 = tables(INPUT="DROP", table=LEGACY_FILTER._replace(family="ip6"))
        firewall = HostFirewall(of_ipv6)
        assert told(TARGET, without(kernel_state(web(LOCAL)), host_firewall=firewall)).is_well

    def test_one_behind_a_refusal_of_ours_is_left_out(self) -> None:
        firewall = HostFirewall(tables(INPUT="DROP"))
        served = web(endpoint(HERE, ready=False, serving=False))
        assert told(TARGET, without(kernel_state(served), host_firewall=firewall)).unless == []

    def test_rules_of_others_that_the_packet_may_meet_first(self) -> None:
        early = ForeignRule(ForeignRuleKind.DESTINATION_NAT, "chain a of table ip b", "redirect", (), (80,))
        answers = ForeignRule(ForeignRuleKind.NOTRACK, "chain a of table ip b", "notrack", (), (8080,))
        other = ForeignRule(ForeignRuleKind.NOTRACK, "chain a of table ip b", "notrack", (), (53,))
        found = ForeignRules((early, answers, other), ("nft is gone",))
        told_ = told(TARGET, without(kernel_state(web(LOCAL)), foreign_rules=found))
        assert (told_.unless, told_.is_well) == ([str(early), str(answers)], False)
        assert told_.assumptions == ["nft is gone"]

    def test_a_rule_that_cant_be_followed(self) -> None:
        kernel = kernel_state(web(LOCAL))
        assert kernel.table.rules
        rules = kernel.table.rules._replace(unknown=(UnknownRule("input", "mine"),))
        told_ = told(TARGET, without(kernel, table=kernel.table._replace(rules=rules, strange=True)))
        assert told_.unless == [
            (
                "chain input of table inet ipvsproxy has a rule that the agent does not make, and that can't be "
                "followed: mine"
            ),
            "table inet ipvsproxy has elements such as the agent never adds, which can't be followed",
        ]
        assert not told_.is_well

    def test_masquerading_without_connection_tracking(self) -> None:
        kernel = without(kernel_state(web(LOCAL)), tracks_connections=False)
        assert told(TARGET, kernel).unless == []
        assert told(TARGET, kernel, source=STRANGER).unless[0].startswith("net.ipv4.vs.conntrack is 0")

    def test_a_redirection_without_connection_tracking(self) -> None:
        kernel = without(
            kernel_state(balancer(LOCAL, external=TrafficPolicy.LOCAL)), tracks_connections=False
        )
        assert told(key(BALANCER), kernel).unless[0].startswith("net.ipv4.vs.conntrack is 0: answers do not")

    def test_an_interface_that_does_not_forward_matters_to_clients_beyond_the_node(self) -> None:
        kernel = without(kernel_state(web(LOCAL)), not_forwarding={"eth0"})
        (unless,) = told(TARGET, kernel).unless
        assert unless.startswith("net.ipv4.conf.eth0.forwarding is 0: the node does not pass on")
        assert told(TARGET, kernel, source=None).unless == []
        assert told(TARGET, without(kernel, not_forwarding={"eth1"})).unless == []

    def test_a_next_hop_that_does_not_answer(self) -> None:
        kernel = without(kernel_state(web(LOCAL, THERE)), silent={address("203.0.113.254")})
        (unless,) = told(TARGET, kernel).unless
        assert unless.startswith(
            f"203.0.113.254, the next hop by eth0 to {HERE}:8080 and {THERE}:8080, did not"
        )
        directly = {address(HERE): Route("veth7", None, local=False)}
        kernel = without(kernel, routes=directly, silent={address(HERE)})
        assert (
            told(TARGET, kernel)
            .unless[0]
            .startswith(f"{HERE}, the next hop by veth7 to {HERE}:8080, did not")
        )

    def test_policy_routing_that_keeps_the_packet_as_it_is_or_as_it_is_marked(self) -> None:
        for source, masqueraded in ((POD, False), (STRANGER, True)):
            for kept in (False, True):
                kernel = without(kernel_state(web(LOCAL)), misrouted={Misrouted(address(HERE), kept)})
                assert bool(told(TARGET, kernel, source=source).unless) is (kept is masqueraded)

    def test_an_endpoint_of_this_node_on_which_nobody_listens(self) -> None:
        kernel = kernel_state(web(LOCAL))
        other = Listener(address("0.0.0.0"), Protocol.TCP, 8081)
        deaf = without(kernel, pod_listeners={address(HERE): [other, other._replace(protocol=Protocol.UDP)]})
        assert told(TARGET, deaf).unless[0].startswith(f"nobody listens at {HERE}:8080 (tcp)")
        heard = without(kernel, pod_listeners={address(HERE): [other._replace(port=8080)]})
        assert (told(TARGET, heard).unless, told(TARGET, heard).assumptions) == ([], [])

    def test_an_endpoint_at_the_nodes_own_address_is_heard_by_the_nodes_own_processes(self) -> None:
        served = web(endpoint(NODE_ADDRESS, node=NODE))
        kernel = kernel_state(served)
        assert told(TARGET, kernel).unless[0].startswith(f"nobody listens at {NODE_ADDRESS}:8080 (tcp)")
        listening = without(kernel, listeners=[Listener(address("0.0.0.0"), Protocol.TCP, 8080)])
        assert told(TARGET, listening).unless == []

    def test_a_pod_of_this_node_that_cant_be_looked_into_is_named_and_others_are_not(self) -> None:
        served = web(LOCAL, endpoint(THERE, node="node-b"))
        (assumed,) = told(TARGET, kernel_state(served), report_of(served)).assumptions
        assert assumed.startswith(
            f"somebody listens at {HERE}:8080 (tcp): whether that is so could not be seen"
        )
        told_ = told(TARGET, kernel_state(served), report_of(served))
        assert told_.is_well
        assert "does it listen on that port" in told_.next[0]

    def test_without_the_agent_whoever_is_not_behind_a_router_may_be_of_this_node(self) -> None:
        kernel = kernel_state(web(LOCAL, THERE))
        assert told(TARGET, kernel).assumptions == []
        directly = {**kernel.routes, address(HERE): Route("veth7", None, local=False)}
        assert len(told(TARGET, without(kernel, routes=directly)).assumptions) == 1

    def test_answers_to_clients_beyond_a_node_that_does_not_forward(self) -> None:
        kernel = without(kernel_state(web(LOCAL)), forwards=frozenset({Family.IPV6}))
        assert told(TARGET, kernel, source=STRANGER).unless == [
            "net.ipv4.ip_forward is not 1: the node does not pass answers on to clients beyond it; set it to 1"
        ]


class TestUnreached:
    """Endpoints that the node has no way to."""

    def unreached(self, route: Route | None, *endpoints: object) -> Explanation:
        served = web(*endpoints)
        kernel = kernel_state(served)
        routes = {**kernel.routes, address(HERE): route}
        return told(TARGET, without(kernel, routes=routes, down={"veth7"}), report_of(served))

    def test_without_a_route_ipvs_refuses(self) -> None:
        told_ = self.unreached(None, LOCAL)
        assert (told_.outcome, told_.is_well, told_.wanted) == (ExplainedOutcome.REFUSED, False, None)
        assert told_.result == f"refused at once: {KernelReason.NO_ROUTE}"
        assert [step.stage for step in told_.ways[0].steps] == ["IPVS", "routing"]
        assert told_.endpoints[0].state is EndpointState.UNREACHED
        assert f"ip route get {HERE}" in told_.next[0]

    def test_behind_an_interface_that_is_down_the_packet_ends(self) -> None:
        told_ = self.unreached(Route("veth7", None, local=False), LOCAL)
        assert (told_.outcome, told_.is_well) == (ExplainedOutcome.DROPPED, False)
        assert told_.ways[0].steps[-1].reason == KernelReason.LINK_DOWN
        assert "ip link show veth7" in told_.next[0]

    def test_others_answer_all_the_same(self) -> None:
        told_ = self.unreached(None, LOCAL, THERE)
        assert told_.result.startswith(
            f"refused at once for some clients, for others answered by {THERE}:8080"
        )
        assert not told_.is_well


def test_a_process_of_a_node_that_does_not_forward_has_its_answers() -> None:
    kernel = without(kernel_state(web(LOCAL)), forwards=frozenset({Family.IPV6}))
    explained = told(TARGET, kernel, source=None)
    assert (explained.outcome, explained.unless) == (ExplainedOutcome.ANSWERED, [])


def test_an_address_is_somebodys_if_the_node_has_it_or_a_service_asks_for_it() -> None:
    kernel, report = kernel_state(), report_of(web(LOCAL))
    assert is_owned(address(NODE_ADDRESS), kernel, None)
    assert is_owned(address(SERVICE), kernel, report)
    assert not is_owned(address(SERVICE), kernel, None)
    assert is_owned(address(SERVICE), kernel_state(web(LOCAL)), None)


def test_a_service_that_was_refused_an_address_is_named() -> None:
    rejection = Rejection(
        "Service",
        ObjectKey("default", "web"),
        "spec.externalIPs",
        "192.0.2.99 is in no network that is allowed",
    )
    report = report_of(rejections=[rejection])
    assert why_nobody_has(address("192.0.2.99"), report) == [str(rejection)]
    assert why_nobody_has(address("192.0.2.9"), report) == []
    assert why_nobody_has(address("192.0.2.99"), None) == []


def test_what_the_agent_sends_clients_on_to_is_read_too() -> None:
    report = report_of(balancer(LOCAL, external=TrafficPolicy.LOCAL))
    assert list(keys_wanted(key(BALANCER), report)) == [key(BALANCER), TARGET]
    assert list(keys_wanted(key(BALANCER, 81), report)) == [key(BALANCER, 81)]
    assert list(keys_wanted(TARGET, report)) == [TARGET]
