"""Objects and answers of the API server that decoders trip over: each harms itself at most."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from ipvsproxy.model.objects import ObjectKey
from tests import builders
from tests.api_server_http import AnswerError, event, status
from tests.api_server_objects import endpoint_slice, node, service
from tests.api_server_state import ENDPOINT_SLICES, NODES, SERVICES
from tests.builders import WEB
from tests.source.following import BRISK, following
from tests.source.malformed import BROKEN, HARMLESS, with_managed_fields

if TYPE_CHECKING:
    from pathlib import Path

    from tests.api_server import ApiServer
    from tests.api_server_http import Request
    from tests.api_server_state import Resource
    from tests.source.following import Agent

MAIL = ObjectKey("default", "mail")

harmless = pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
broken = pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
by_events_or_pages = pytest.mark.parametrize("initial_events", [True, False], ids=["initial events", "pages"])


def lists(agent: Agent, resource: Resource) -> int:
    return len(agent.witness.log_lines("list received", resource=resource.name))


@harmless
@by_events_or_pages
def test_a_list_is_read_whatever_the_fields_have_that_nobody_uses(
    server: ApiServer, tmp_path: Path, text: bytes, *, initial_events: bool
) -> None:
    server.initial_events = initial_events
    server.state.apply(with_managed_fields(service("mail", "10.96.0.2"), text))
    server.state.apply(with_managed_fields(endpoint_slice("mail-1", "mail"), text))
    server.state.apply(with_managed_fields(node(builders.NODE), text))
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        assert agent.names() == {"mail", "web"}
        assert len(agent.store.state(MAIL).slices) == 1
        agent.wait_for(lambda: not agent.store.rejections())


@harmless
def test_an_event_is_read_whatever_the_fields_have_that_nobody_uses(
    server: ApiServer, tmp_path: Path, text: bytes
) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.wait_for(lambda: len(server.watches) == 3)
        server.state.apply(with_managed_fields(service("mail", "10.96.0.2"), text))
        agent.wait_for_names("mail", "web")
        server.state.apply(with_managed_fields(service("web", "10.96.0.9"), text))
        agent.wait_for(lambda: (web := agent.store.state(WEB).service) and web.cluster_ips == moved)
        server.state.delete("Service", "default", "mail")
        agent.wait_for_names("web")
        agent.wait_for(lambda: not agent.store.rejections())
    assert len(server.asked(SERVICES)) == 1


moved = builders.service("10.96.0.9").cluster_ips


@broken
@by_events_or_pages
def test_an_item_that_is_no_json_is_rejected_by_name_and_the_others_of_the_list_count(
    server: ApiServer, tmp_path: Path, text: bytes, *, initial_events: bool
) -> None:
    server.initial_events = initial_events
    server.state.apply(with_managed_fields(service("mail", "10.96.0.2"), text))
    server.state.apply(service("shop", "10.96.0.3"))
    with following(server, tmp_path, dataclasses.replace(BRISK, page=2)) as agent:
        agent.wait_until_synced()
        assert agent.names() == {"shop", "web"}
        (rejection,) = agent.store.rejections()
        assert (rejection.kind, rejection.key) == ("Service", MAIL)
        assert rejection.uid == service("mail", "10.96.0.2")["metadata"]["uid"]
        server.state.apply(service("mail", "10.96.0.2"))
        agent.wait_for_names("mail", "shop", "web")
        agent.wait_for(lambda: not agent.store.rejections())


@broken
def test_an_event_whose_object_is_no_json_leaves_that_object_as_it_was_and_the_watch_goes_on(
    server: ApiServer, tmp_path: Path, text: bytes
) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.wait_for(lambda: len(server.watches) == 3)
        good = agent.store.state(WEB)
        server.state.apply(with_managed_fields(service("web", "10.96.0.9"), text))
        agent.witness.log_line("object rejected", object="default/web")
        assert agent.store.state(WEB) == good
        server.cut_all()
        server.wait_for(lambda: len(server.asked(SERVICES)) == 2)
        assert server.asked(SERVICES)[-1]["resourceVersion"] == str(server.state.revision)
        server.state.apply(with_managed_fields(service("mail", "10.96.0.2"), text))
        server.state.apply(service("shop", "10.96.0.3"))
        agent.wait_for_names("shop", "web")
        server.state.delete("Service", "default", "web")
        server.state.delete("Service", "default", "mail")
        agent.wait_for_names("shop")
        agent.wait_for(lambda: not agent.store.rejections())
    assert len(agent.witness.log_lines("object rejected", object="default/web")) == 1
    assert lists(agent, SERVICES) == 1


def test_a_field_in_use_that_is_nested_deeply_is_rejected_by_its_path(
    server: ApiServer, tmp_path: Path
) -> None:
    deep = service("mail", "10.96.0.2")
    deep["spec"]["ports"] = msgspec.Raw(b"[" * 2_000 + b"]" * 2_000)
    server.state.apply(deep)
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        assert [(found.key, found.field) for found in agent.store.rejections()] == [(MAIL, "spec.ports[0]")]


def test_a_resource_version_that_is_none_leaves_the_place_where_it_was(
    server: ApiServer, tmp_path: Path
) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.wait_for(lambda: len(server.watches) == 3)
        mail = service("mail", "10.96.0.2")
        mail["metadata"] |= {"resourceVersion": 7, "annotations": {"a": 5}}
        server.inject(SERVICES, event("ADDED", json.dumps(mail).encode()))
        agent.wait_for_names("mail", "web")
        place = str(server.state.revision)
        server.cut_all()
        server.wait_for(lambda: len(server.asked(SERVICES)) == 2)
        assert server.asked(SERVICES)[-1]["resourceVersion"] == place


def test_rows_of_the_table_of_nodes_that_can_not_be_read_cost_their_node_alone(
    server: ApiServer, tmp_path: Path
) -> None:
    rows = [b'{"cells":["192.0.2.9"],"object":%s}' % text for text in HARMLESS.values()]
    rows += [b'{"cells":["192.0.2.7",%s]}' % text for text in BROKEN.values() if text]
    rows += [b"5", b'{"cells":{}}', b'{"cells":[7]}', b'{"cells":["192.0.2.8"]}']
    server.table_answer = (
        b'{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":[{"name":"Internal-IP"}],'
        b'"rows":[%s]}' % b",".join(rows)
    )
    with following(server, tmp_path) as agent:
        agent.wait_for(
            lambda: agent.store.node_addresses == set(builders.addresses("192.0.2.8", "192.0.2.9"))
        )


# --- answers that are none ---

ANSWERS = {
    "a Status": status(200, "the proxy has no backend"),
    "metadata alone": b'{"metadata":{}}',
    "nothing": b"{}",
    "null": b"null",
    "an array": b"[]",
    "no kind": b'{"apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[]}',
    "another kind": b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[]}',
    "an object": b'{"kind":"%(kind)s","apiVersion":"%(version)s","metadata":{"resourceVersion":"9"},"items":[]}',
    "another version": b'{"kind":"%(kind)sList","apiVersion":"v2","metadata":{"resourceVersion":"9"},"items":[]}',
    "no items": b'{"kind":"%(kind)sList","apiVersion":"%(version)s","metadata":{"resourceVersion":"9"}}',
    "items of another type": b'{"kind":"%(kind)sList","apiVersion":"%(version)s","metadata":'
    b'{"resourceVersion":"9"},"items":{}}',
    "no resource version": b'{"kind":"%(kind)sList","apiVersion":"%(version)s","metadata":{},"items":[]}',
    "items of another kind": b'{"kind":"%(kind)sList","apiVersion":"%(version)s","metadata":'
    b'{"resourceVersion":"9"},"items":[{"kind":"Pod","apiVersion":"v1"}]}',
    "half a list": b'{"kind":"%(kind)sList","apiVersion":"%(version)s","metadata":{"resourceVersion":"9"},"items":[',
    "more than a list": b'{"kind":"%(kind)sList","apiVersion":"%(version)s","metadata":{"resourceVersion":"9"},'
    b'"items":[]}{}',
}


def filled(answer: bytes, resource: Resource) -> bytes:
    return answer % {b"kind": resource.kind.encode(), b"version": resource.api_version.encode()}


def answer_lists(server: ApiServer, resource: Resource, answer: bytes, *, second_page: bool = False) -> None:
    """Answer lists of the resource, or their second pages, with this."""

    def intercept(request: Request) -> None:
        if (
            request.resource == resource.name
            and request.verb == "list"
            and not request.table
            and ("continue" in request.query) is second_page
        ):
            raise AnswerError(answer)

    server.intercept = intercept


@pytest.mark.parametrize("resource", [SERVICES, ENDPOINT_SLICES, NODES], ids=lambda resource: resource.name)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_not_the_list_leaves_everything_as_it_is(
    server: ApiServer, tmp_path: Path, resource: Resource, answer: bytes
) -> None:
    server.initial_events = False
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.wait_for(lambda: len(server.watches) == 3)
        held = agent.store.state(WEB), agent.store.node
        answer_lists(server, resource, filled(answer, resource))
        server.inject(resource, event("ERROR", status(500, "list anew, please")))
        agent.witness.log_line("API server sent what was not asked for", resource=resource.name)
        assert (agent.store.state(WEB), agent.store.node) == held
        assert lists(agent, resource) == 1
        server.intercept = lambda _: None
        agent.wait_for(lambda: lists(agent, resource) == 2)
        assert (agent.store.state(WEB), agent.store.node) == held


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_second_page_that_is_none_spoils_the_list(server: ApiServer, tmp_path: Path, answer: bytes) -> None:
    server.initial_events = False
    server.state.apply(service("mail", "10.96.0.2"))
    answer_lists(server, SERVICES, filled(answer, SERVICES), second_page=True)
    with following(server, tmp_path, dataclasses.replace(BRISK, page=1)) as agent:
        agent.witness.log_line("API server sent what was not asked for", resource="services")
        assert not agent.store.synced
        server.intercept = lambda _: None
        agent.wait_for_names("mail", "web")


def test_an_items_field_that_is_null_is_an_empty_list(server: ApiServer, tmp_path: Path) -> None:
    """As Go writes a slice that was never made."""
    server.initial_events = False
    answer = b'{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":null}'
    answer_lists(server, SERVICES, answer % server.state.revision)
    with following(server, tmp_path) as agent:
        agent.wait_for(lambda: agent.store.synced)
        assert agent.names() == set()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ANSWERS["a Status"], "a v1/Status came for a v1/ServiceList: the proxy has no backend"),
        (ANSWERS["metadata alone"], "an answer without a kind came for a v1/ServiceList"),
        (filled(ANSWERS["no items"], SERVICES), "a v1/ServiceList without its items came"),
        (filled(ANSWERS["items of another kind"], SERVICES), "a v1/Pod came for a v1/Service"),
    ],
)
def test_the_reason_says_what_came_in_place_of_the_list(
    server: ApiServer, tmp_path: Path, answer: bytes, reason: str
) -> None:
    server.initial_events = False
    answer_lists(server, SERVICES, answer)
    with following(server, tmp_path) as agent:
        line = agent.witness.log_line("API server sent what was not asked for", resource="services")
        assert line["reason"] == reason
        assert reason in [each.error for each in agent.source.health.states()]


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
@pytest.mark.parametrize("resource", [SERVICES, ENDPOINT_SLICES, NODES], ids=lambda resource: resource.name)
def test_an_event_about_an_object_of_another_kind_changes_nothing_and_leads_to_a_new_list(
    server: ApiServer, tmp_path: Path, resource: Resource, kind: str
) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.wait_for(lambda: len(server.watches) == 3)
        held = agent.store.state(WEB), agent.store.node
        name = {SERVICES: "web", ENDPOINT_SLICES: "web-1", NODES: builders.NODE}[resource]
        pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}}
        server.inject(resource, event(kind, json.dumps(pod).encode()))
        line = agent.witness.log_line("API server sent what was not asked for", resource=resource.name)
        assert line["reason"] == f"a v1/Pod came for a {resource.api_version}/{resource.kind}"
        agent.wait_for(lambda: lists(agent, resource) == 2)
        assert (agent.store.state(WEB), agent.store.node) == held
        agent.wait_for(lambda: not agent.store.rejections())


def test_an_error_event_that_says_nothing_leads_to_a_new_list(server: ApiServer, tmp_path: Path) -> None:
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.wait_for(lambda: len(server.watches) == 3)
        server.inject(SERVICES, event("ERROR", b"5"))
        agent.wait_for(lambda: lists(agent, SERVICES) == 2)
        assert agent.witness.log_line("watch interrupted", resource="services")["reason"]


@pytest.mark.parametrize("initial_events", [True, False])
def test_another_node_is_never_taken_for_the_own_one(
    server: ApiServer, tmp_path: Path, *, initial_events: bool
) -> None:
    """As a proxy would send it that drops the field selector."""
    server.initial_events = initial_events
    with following(server, tmp_path) as agent:
        agent.wait_until_synced()
        server.wait_for(lambda: len(server.watches) == 3)
        held = agent.store.node
        server.inject(NODES, event("MODIFIED", json.dumps(node("node-b")).encode()))
        line = agent.witness.log_line("API server sent what was not asked for", resource="nodes")
        assert line["reason"] == f"node node-b came for node {builders.NODE}"
        agent.wait_for(lambda: lists(agent, NODES) == 2)
        assert agent.store.node == held
    others = {
        "kind": "NodeList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "9"},
        "items": [node("node-b")],
    }
    server.initial_events = False
    answer_lists(server, NODES, json.dumps(others).encode())
    with following(server, tmp_path) as agent:
        agent.witness.log_line("API server sent what was not asked for", resource="nodes")
        assert agent.store.node is None
