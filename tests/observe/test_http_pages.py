"""What is answered at metricsBindAddress, as kube-proxy answers it."""

from __future__ import annotations

import json

from ipvsproxy.observe.http_connection import Later
from ipvsproxy.observe.http_pages import Pages
from tests.observe.http_clients import get, http_server, loopback

CONFIGZ = {"kubeproxy.config.k8s.io": {"mode": "ipvs"}}


def test_each_path_has_kube_proxys_body_and_type() -> None:
    pages = Pages(lambda: CONFIGZ, lambda: b"up 1\n")
    with http_server() as server:
        port = server.listen(loopback(), pages.answer).port
        found = {
            path: get(port, path) for path in ("/healthz", "/proxyMode", "/configz", "/metrics", "/livez")
        }

    assert {path: answer.status for path, answer in found.items()} == dict.fromkeys(found, 200) | {
        "/livez": 404
    }
    assert found["/healthz"].body == b"ok"
    assert found["/proxyMode"].body == b"ipvs"
    assert found["/proxyMode"].headers["Content-Type"] == "text/plain; charset=utf-8"
    assert json.loads(found["/configz"].body) == CONFIGZ
    assert found["/configz"].headers["Content-Type"] == "application/json"
    assert found["/metrics"].body == b"up 1\n"
    assert found["/metrics"].headers["Content-Type"].startswith("text/plain; version=")


def test_the_metrics_are_made_aside() -> None:
    assert isinstance(Pages(dict, bytes).answer("/metrics"), Later)


def test_the_configuration_is_that_of_the_moment() -> None:
    moments = iter([{"first": 1}, {"second": 2}])
    pages = Pages(lambda: next(moments), bytes)
    bodies = [
        answer.body
        for _ in range(2)
        if (answer := pages.answer("/configz")) and not isinstance(answer, Later)
    ]
    assert bodies == [b'{"first":1}', b'{"second":2}']
