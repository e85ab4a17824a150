"""Which log lines are told on the agent's own Node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.config.settings import LogFormat, LogLevel
from ipvsproxy.model.notices import Notice
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.observe.log import Threshold, configure
from ipvsproxy.observe.node_events import NodeEvents
from tests.observe.test_log import Recorder

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


def heard(told: list[Notice]) -> FilteringBoundLogger:
    events = NodeEvents("node-1")
    log = configure(LogFormat.JSON, Threshold(LogLevel.ERROR), Recorder().stream, events.hear)
    log.warning("restart needed", setting="before anybody listens", old="", new="")
    events.publish(told.append)
    return log


def test_the_start_is_told_as_kube_proxy_tells_it() -> None:
    told: list[Notice] = []
    heard(told).info("starting", version="1.2.3", node="node-1")

    assert told == [
        Notice(
            "Node",
            ObjectKey("", "node-1"),
            "Starting",
            "ipvsproxy 1.2.3 programs this node's Services",
            warning=False,
            uid="node-1",
        )
    ]


def test_what_an_operator_should_mend_is_a_warning_in_the_words_of_the_log() -> None:
    told: list[Notice] = []
    log = heard(told)
    log.error("first sync failed", reason="Operation not permitted", next_try_in_seconds=1.0)
    log.warning("host firewall drops", chain="INPUT", meaning="chain INPUT drops service traffic")
    log.warning("host firewall not changed", reason="no program")
    log.warning(
        "kernel setting not made",
        setting="net/ipv4/vs/conntrack",
        wanted="1",
        found="0",
        reason="Read-only file system",
        meaning="nothing is masqueraded",
    )
    log.warning("IPVS timeouts not set", tcp=1, tcp_fin=0, udp=0, reason="EPERM")
    log.error(
        "HTTP server not listening", setting="healthzBindAddress", address="port 10256", reason="in use"
    )
    log.error(
        "configuration refused, the one before stays in effect", file="/c", reason="/c: bogus: unknown field"
    )
    log.warning("restart needed", setting="--kubeconfig", old="/a", new="/b", meaning="…")

    assert all(notice.warning for notice in told)
    assert [(notice.reason, notice.note) for notice in told] == [
        ("FirstSyncFailed", "no Service is programmed yet: Operation not permitted"),
        ("HostFirewallDrops", "chain INPUT drops service traffic"),
        ("HostFirewallDrops", "no program"),
        (
            "KernelSettingNotMade",
            "net/ipv4/vs/conntrack can't be set to 1, it is 0: Read-only file system; nothing is masqueraded",
        ),
        ("KernelSettingNotMade", "the timeouts of IPVS can't be set: EPERM"),
        ("NotListening", "healthzBindAddress: port 10256 can't be had: in use"),
        ("ConfigurationRefused", "the configuration before it stays in effect: /c: bogus: unknown field"),
        ("RestartNeeded", "--kubeconfig is /b by now, and /a until the agent is restarted"),
    ]


def test_other_lines_and_those_before_somebody_publishes_are_not_told() -> None:
    told: list[Notice] = []
    log = heard(told)
    log.info("first sync", services=3)
    log.debug("starting", version="x")

    assert told == []
