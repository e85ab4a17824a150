"""The agent in its pod, through what happens to an API server and to the pod's credentials."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.addresses import Family
from netns_tests import manifests, tables
from netns_tests.deadline import await_that
from netns_tests.end_to_end.conftest import CONTROL_PLANES, OWN_WITHOUT_INITIAL_EVENTS
from netns_tests.end_to_end.control_plane import Right, account, granted
from netns_tests.end_to_end.pod import NODE
from netns_tests.traffic import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from netns_tests.bare_node import Agent
    from netns_tests.end_to_end.control_plane import Asked, ControlPlane, Object
    from netns_tests.end_to_end.pod import Pod

PORT = manifests.Port("http", 80, 8080)
ADDRESSES = {"web": "10.96.0.10", "mail": "10.96.0.11"}
FIRST, SECOND = "10.128.0.1", "10.128.0.2"
WATCHED = ("services", "endpointslices", "nodes")
WITH_LISTS = pytest.mark.parametrize(
    "control_plane", [*CONTROL_PLANES, OWN_WITHOUT_INITIAL_EVENTS], indirect=True
)
# Asked for where the API server sends no initial events.
LISTS = {Right("", "services", "list"), Right("discovery.k8s.io", "endpointslices", "list")}


def service(name: str, **annotations: str) -> Object:
    spec = manifests.ServiceSpec(
        annotations=tuple((f"ipvsproxy.io/{key}", value) for key, value in annotations.items())
    )
    return manifests.service(name, [ADDRESSES[name]], [PORT], spec)


def endpoints(name: str, *addresses: str) -> Object:
    of = [manifests.Endpoint(address) for address in addresses]
    return manifests.endpoint_slice(f"{name}-1", name, Family.IPV4, of, [PORT])


def await_served(pod: Pod, **expected: set[str]) -> None:
    """Wait until these Services, and none of the others, have these endpoints in the kernel."""

    def served() -> dict[str, set[str]]:
        found = tables.serving(pod.host)
        return {
            name: {address for address, _ in found[Target(cluster_ip, 80)]}
            for name, cluster_ip in ADDRESSES.items()
            if Target(cluster_ip, 80) in found
        }

    await_that(lambda: served() == expected, f"the kernel serves {expected}")


@pytest.fixture
def agent(control_plane: ControlPlane, pod: Pod) -> Iterator[Agent]:
    """Start an agent that serves one Service with one endpoint."""
    control_plane.put(manifests.node(NODE, addresses=["198.51.100.1"]))
    control_plane.put(service("web"), endpoints("web", FIRST))
    with pod.agent() as agent:
        agent.await_line("first sync")
        yield agent


def test_services_and_endpoints_are_followed(control_plane: ControlPlane, pod: Pod, agent: Agent) -> None:
    await_served(pod, web={FIRST})

    control_plane.put(endpoints("web", FIRST, SECOND))
    control_plane.put(service("mail"), endpoints("mail", SECOND))
    await_served(pod, web={FIRST, SECOND}, mail={SECOND})

    control_plane.delete(service("web"), endpoints("web"))
    await_served(pod, mail={SECOND})
    assert agent.process.poll() is None


def test_a_restart_of_the_api_server_changes_nothing_and_what_comes_after_is_followed(
    control_plane: ControlPlane, pod: Pod, agent: Agent
) -> None:
    control_plane.stop()
    for resource in WATCHED:
        agent.await_line("watch interrupted", resource=resource)
    await_served(pod, web={FIRST})

    control_plane.start()
    control_plane.put(endpoints("web", SECOND))
    await_served(pod, web={SECOND})
    assert not [line for line in agent.log() if line["level"] == "error"]


@WITH_LISTS
def test_what_happened_before_a_compaction_is_found_by_a_new_list(
    control_plane: ControlPlane, pod: Pod, agent: Agent
) -> None:
    agent.process.send_signal(signal.SIGSTOP)
    # So that what comes now is in no buffer of its connections.
    control_plane.stop()
    control_plane.start()
    control_plane.delete(service("web"), endpoints("web"))
    control_plane.put(service("mail"), endpoints("mail", SECOND))
    control_plane.compact()
    agent.process.send_signal(signal.SIGCONT)

    agent.await_line("resource version expired, listing anew", resource="services")
    await_served(pod, mail={SECOND})


def test_an_expired_token_is_reported_and_the_one_that_takes_its_place_is_used(
    control_plane: ControlPlane, pod: Pod, agent: Agent
) -> None:
    control_plane.expire_token()
    control_plane.stop()
    control_plane.start()
    for resource in WATCHED:
        line = agent.await_line("API server refuses the credentials", resource=resource)
        assert (line["status"], line["reason"]) == (401, "Unauthorized")
    await_served(pod, web={FIRST})

    pod.renew_token()
    control_plane.put(endpoints("web", SECOND))
    await_served(pod, web={SECOND})


def test_a_token_that_is_renewed_in_time_is_used_after_the_one_before_has_expired(
    control_plane: ControlPlane, pod: Pod, agent: Agent
) -> None:
    pod.renew_token()
    control_plane.stop()
    control_plane.start()
    control_plane.put(endpoints("web", SECOND))

    await_served(pod, web={SECOND})
    assert agent.process.poll() is None


@WITH_LISTS
def test_nothing_that_the_agent_asks_for_is_forbidden_and_nothing_that_it_may_is_unused(
    control_plane: ControlPlane, agent: Agent
) -> None:
    control_plane.put(service("web", scheduler="random"))

    def refused() -> list[Asked]:
        return [each for each in control_plane.asked() if not each.allowed]

    def told_of() -> set[str]:
        events = [each for each in control_plane.events() if each.get("reportingController") == "ipvsproxy"]
        return {each["regarding"]["kind"] for each in events}

    told = {"Node", "Service"}
    await_that(lambda: refused() or told_of() == told, "Events about the node and the Service are there")

    assert refused() == []
    lists = any(
        line["event"] == "API server sends no initial events, listing in pages" for line in agent.log()
    )
    assert granted(account()) - {each.right for each in control_plane.asked()} == (set() if lists else LISTS)
