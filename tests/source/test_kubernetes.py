"""What reaches the store from the Kubernetes API while all goes well."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.model.objects import ObjectKey
from tests import builders
from tests.api_server_http import event, status
from tests.api_server_objects import endpoint, endpoint_slice, node, service
from tests.api_server_state import ENDPOINT_SLICES, NODES, SERVICES
from tests.builders import WEB
from tests.source.following import BRISK, following

if TYPE_CHECKING:
    from pathlib import Path

    from tests.api_server import ApiServer
    from tests.api_server_http import Request
    from tests.api_server_state import Object

SELECTOR = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"


def labelled(contents: Object, label: str) -> Object:
    contents["metadata"]["labels"][label] = "other"
    return contents


def test_services_slices_and_the_own_node_reach_the_store(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
    web, slices = agent.store.state(WEB)
    assert web is not None
    assert web.cluster_ips == (builders.address("10.96.0.1"),)
    assert [each.address for each in slices[0].endpoints] == [builders.address("10.128.0.1")]
    assert agent.store.node == builders.node(pod_cidrs=("10.128.0.0/24",), ips=("192.0.2.1",))


def test_changes_and_deletions_follow_the_list(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")
        server.state.apply(service("web", "10.96.0.9"))
        server.state.apply(endpoint_slice("web-1", "web"))
        moved = builders.service("10.96.0.9").cluster_ips
        agent.wait_for(
            lambda: (
                (found := agent.store.state(WEB)).service
                and found.service.cluster_ips == moved
                and not found.slices[0].endpoints
            )
        )
        server.state.delete("Service", "default", "web")
        server.state.delete("EndpointSlice", "default", "web-1")
        agent.wait_for(lambda: agent.store.state(WEB) == (None, ()))
        assert agent.names() == {"mail"}


@pytest.mark.parametrize("resource", ["services", "endpointslices", "nodes"])
def test_the_store_stays_unsynced_until_all_is_received(
    server: ApiServer, tmp_path: Path, resource: str
) -> None:
    server.forbidden.add(resource)
    with following(server, tmp_path) as agent:
        for other in {"services", "endpointslices", "nodes"} - {resource}:
            agent.witness.log_line("list received", resource=other)
        agent.witness.log_line("API server refuses the credentials", resource=resource)
        assert not agent.store.synced
        server.forbidden.clear()
        agent.wait_until_synced()


def test_initial_events_take_the_place_of_a_list(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
    for resource in (SERVICES, ENDPOINT_SLICES, NODES):
        (query,) = server.asked(resource)
        assert query["sendInitialEvents"] == "true"


def test_objects_of_other_proxies_and_headless_ones_are_not_asked_for(
    server: ApiServer, tmp_path: Path
) -> None:
    server.state.apply(labelled(service("other", "10.96.0.3"), "service.kubernetes.io/service-proxy-name"))
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        assert agent.names() == {"web"}
    for query in (*server.asked(SERVICES), *server.asked(ENDPOINT_SLICES)):
        assert query["labelSelector"] == SELECTOR


def test_a_service_that_gets_another_proxys_label_is_gone(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.state.apply(labelled(service("web", "10.96.0.1"), "service.kubernetes.io/service-proxy-name"))
        agent.wait_for_names()


def test_a_slice_that_loses_its_service_is_gone(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        orphan = endpoint_slice("web-1", "web", endpoint("web-x", "10.128.0.1", "node-b"))
        del orphan["metadata"]["labels"]["kubernetes.io/service-name"]
        server.state.apply(orphan)
        agent.wait_for(lambda: not agent.store.state(WEB).slices)


def test_a_server_without_initial_events_is_listed_in_pages(server: ApiServer, tmp_path: Path) -> None:
    server.initial_events = False
    names = {"web"} | {f"s{number}" for number in range(6)}
    for number in range(6):
        server.state.apply(service(f"s{number}", f"10.96.1.{number}"))
    with following(server, tmp_path, dataclasses.replace(BRISK, page=3)) as agent:
        agent.wait_until_synced()
        assert agent.names() == names
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", *names)
    refused, *pages, watch = server.asked(SERVICES)
    assert "sendInitialEvents" in refused
    assert [query["limit"] for query in pages] == ["3", "3", "3"]
    assert ["continue" in query for query in pages] == [False, True, True]
    assert "resourceVersion" in watch


def test_pages_that_expire_half_way_are_replaced_by_a_list_in_one_piece(
    server: ApiServer, tmp_path: Path
) -> None:
    server.initial_events = False
    server.state.apply(service("mail", "10.96.0.2"))

    def expire(request: Request) -> None:
        if request.resource == "services" and "continue" in request.query:
            server.state.delete("Service", "default", "mail")
            server.state.compact()

    server.intercept = expire
    with following(server, tmp_path, dataclasses.replace(BRISK, page=1)) as agent:
        agent.wait_until_synced()
        assert agent.names() == {"web"}
    assert "limit" not in server.asked(SERVICES)[3]


def test_changes_before_the_end_of_the_initial_events_are_taken_in_their_order(
    server: ApiServer, tmp_path: Path
) -> None:
    server.state.apply(service("mail", "10.96.0.2"))

    def change() -> None:
        server.during_initial_events = lambda: None
        server.state.delete("Service", "default", "web")
        server.state.delete("Service", "default", "mail")
        server.state.apply(service("web", "10.96.0.7"))

    server.forbidden |= {"endpointslices", "nodes"}
    server.during_initial_events = change
    with following(server, tmp_path) as agent:
        agent.wait_for_names("web")
        web = agent.store.state(WEB).service
        assert web is not None
        assert web.cluster_ips == (builders.address("10.96.0.7"),)


def test_initial_events_that_never_end_give_way_to_pages(server: ApiServer, tmp_path: Path) -> None:
    server.during_initial_events = server.cut_all
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
    assert any("limit" in query for query in server.asked(SERVICES))


def test_a_broken_object_is_reported_and_harms_only_itself(server: ApiServer, tmp_path: Path) -> None:
    broken = service("broken", "10.96.0.300")
    server.state.apply(broken)
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        assert agent.names() == {"web"}
        (rejection,) = agent.store.rejections()
        assert rejection.key == ObjectKey("default", "broken")
        assert rejection.uid == broken["metadata"]["uid"]
        line = agent.witness.log_line("object rejected", object="default/broken")
        assert (line["kind"], line["field"]) == ("Service", "spec.clusterIPs[0]")
        server.state.apply(service("broken", "10.96.0.3"))
        agent.wait_for_names("broken", "web")
        assert not agent.store.rejections()


def test_a_held_object_that_breaks_keeps_its_last_good_state(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        good = agent.store.state(WEB)
        server.state.apply(service("web", "no address"))
        agent.witness.log_line("object rejected", object="default/web")
        assert agent.store.state(WEB) == good
        server.state.delete("Service", "default", "web")
        agent.wait_for_names()
        assert not agent.store.rejections()


def test_what_stays_broken_is_reported_once_through_events_and_lists(
    server: ApiServer, tmp_path: Path
) -> None:
    broken = service("broken", "10.96.0.300")
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.wait_for(lambda: len(server.watches) == 3)
        server.state.apply(broken)
        server.state.apply(broken)
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")
        server.state.apply(service("news", "10.96.0.3"))
        server.inject(SERVICES, event("ERROR", status(500, "list anew, please")))
        server.wait_for(lambda: "sendInitialEvents" in server.asked(SERVICES)[-1])
        agent.wait_for(lambda: len(agent.witness.log_lines("list received", resource="services")) == 2)
        server.state.apply(service("shop", "10.96.0.4"))
        agent.wait_for_names("mail", "news", "shop", "web")
    assert len(agent.witness.log_lines("object rejected")) == 1


@pytest.mark.parametrize("mended", [True, False])
def test_what_was_mended_or_deleted_and_breaks_again_is_reported_again(
    server: ApiServer, tmp_path: Path, *, mended: bool
) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.state.apply(service("web", "no address"))
        if mended:
            server.state.apply(service("web", "10.96.0.1"))
        else:
            server.state.delete("Service", "default", "web")
        server.state.apply(service("web", "no address"))
        agent.wait_for(lambda: len(agent.witness.log_lines("object rejected")) == 2)


def test_a_part_that_is_left_out_is_reported(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        endpoints = [endpoint("web-x", "10.128.0.1", "node-b"), endpoint("web-y", "0.0.0.0", "node-b")]
        server.state.apply(endpoint_slice("web-1", "web", *endpoints))
        line = agent.witness.log_line("object rejected", object="default/web-1")
        assert line["field"] == "endpoints[1].addresses[0]"


def test_an_event_that_comes_in_two_pieces_is_one_event(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.wait_for(lambda: len(server.watches) == 3)
        line = event("ADDED", json.dumps(service("mail", "10.96.0.2")).encode())
        server.inject(SERVICES, line[:100])
        server.inject(SERVICES, line[100:])
        agent.wait_for_names("mail", "web")


def test_a_change_of_the_own_node_arrives(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.state.apply(node(builders.NODE, {"topology.kubernetes.io/zone": "a"}))
        agent.wait_for(lambda: agent.store.node and agent.store.node.zone == "a")


def test_a_node_that_does_not_exist_is_reported_and_taken_once_it_does(
    server: ApiServer, tmp_path: Path
) -> None:
    server.state.delete("Node", "", builders.NODE)
    with following(server, tmp_path) as agent:
        line = agent.witness.log_line("the API server has no such node")
        assert line["node"] == builders.NODE
        agent.wait_for(lambda: agent.store.synced)
        assert agent.store.node is None
        server.state.apply(node(builders.NODE))
        agent.wait_until_synced()


def test_a_deleted_node_stays_known(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.state.delete("Node", "", builders.NODE)
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "web")
        assert agent.store.node
        agent.wait_for(lambda: not agent.store.node_exists)
        server.state.apply(node(builders.NODE, {"topology.kubernetes.io/zone": "a"}))
        agent.wait_for(lambda: agent.store.node and agent.store.node.zone == "a")
