"""Health check node ports: load balancers ask each node whether it has endpoints of a Service.

A Service of type LoadBalancer with externalTrafficPolicy Local has a port of its own for that on every node. Any path
on it answers 200 while the node has ready endpoints of the Service and the agent is healthy, and 503 otherwise, as
kube-proxy does (pkg/proxy/healthcheck/service_health.go).
"""

from __future__ import annotations

import http
import json
import threading
from functools import partial
from typing import TYPE_CHECKING

from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.http_connection import Response
from ipvsproxy.observe.http_server import Place, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.observe.http_server import HttpServer, Listener
    from ipvsproxy.plan.services import HealthCheck

FIELD = "spec.healthCheckNodePort"


class NodePortHealth:
    """The health check node ports of all Services; every method may be called from any thread.

    Of several Services with one port the oldest has it, or the first by name, until it leaves.
    """

    def __init__(
        self,
        server: HttpServer,
        is_healthy: Callable[[], bool],
        log: FilteringBoundLogger,
        on_rejection: Callable[[Rejection], None] = lambda _: None,
    ) -> None:
        """Listen on nothing before `listen_on`.

        `is_healthy` tells of the agent, at each request; `on_rejection` is called for each rejection that comes.
        """
        self._server = server
        self._is_healthy = is_healthy
        self._log = log
        self._on_rejection = on_rejection
        self._lock = threading.Lock()
        self._addresses: frozenset[Address | None] = frozenset()
        self._checks: dict[ObjectKey, HealthCheck] = {}
        self._claims: dict[int, list[ObjectKey]] = {}
        self._listeners: dict[int, dict[Address | None, Listener]] = {}
        self._rejections: dict[ObjectKey, Rejection] = {}

    def update(self, service: ObjectKey, check: HealthCheck | None) -> None:
        """Take in what a Service's health check is now; None for one that has none, or none any more."""
        with self._lock:
            before = self._checks.pop(service, None)
            if check:
                self._checks[service] = check
            if before and check and before._replace(local_endpoints=check.local_endpoints) == check:
                return
            if before:
                self._claims[before.port].remove(service)
                self._settle(before.port)
            if not check:
                self._rejections.pop(service, None)
            else:
                claims = self._claims.setdefault(check.port, [])
                claims.append(service)
                claims.sort(key=lambda claim: (self._checks[claim].created, claim))
                self._settle(check.port)

    def listen_on(self, addresses: Collection[Address] | None) -> None:
        """Listen on these of the node's addresses, None for all; listeners on those that stay are left alone."""
        with self._lock:
            self._addresses = frozenset([None] if addresses is None else addresses)
            self._settle_all()

    def retry(self) -> None:
        """Try again to listen where it was impossible."""
        with self._lock:
            self._settle_all()

    def rejections(self) -> list[Rejection]:
        """Return which Services have no health check, or not on all addresses, and why."""
        with self._lock:
            return list(self._rejections.values())

    def _settle_all(self) -> None:
        for port in list(self._claims):
            self._settle(port)

    def _settle(self, port: int) -> None:
        """Listen on a port where and while it is wanted, and note what its Services do not get."""
        claims = self._claims[port]
        wanted = self._addresses if claims else frozenset()
        listeners = self._listeners.setdefault(port, {})
        # All addresses and one of them exclude each other, so the old ones go first.
        for address in listeners.keys() - wanted:
            listeners.pop(address).close()
        failures = []
        for address in sorted(wanted - listeners.keys(), key=lambda address: address or b""):
            place = Place(address, port)
            try:
                listeners[address] = self._server.listen(place, partial(self._answer, port))
            except OSError as error:
                failures.append(f"can't listen on {place} ({reason(error)})")
        if not claims:
            del self._claims[port], self._listeners[port]
            return
        more = f", nor on {len(failures) - 1} more" if len(failures) > 1 else ""
        self._note(claims[0], port, f"{failures[0]}{more}" if failures else "")
        for service in claims[1:]:
            self._note(service, port, f"{port} is the health check node port of {claims[0]} already")

    def _note(self, service: ObjectKey, port: int, problem: str) -> None:
        """Keep what is wrong with a Service's health check, "" for nothing; tell of it when that changes."""
        before = self._rejections.pop(service, None)
        if problem:
            rejection = Rejection("Service", service, FIELD, problem, self._checks[service].uid)
            self._rejections[service] = rejection
            if before != rejection:
                self._log.warning("health check not served", service=str(service), port=port, reason=problem)
                self._on_rejection(rejection)
        elif before:
            self._log.info("health check served after all", service=str(service), port=port)

    def _answer(self, port: int, _path: str) -> Response | None:
        with self._lock:
            claims = self._claims.get(port)
            if not claims:
                return None
            service = claims[0]
            count = self._checks[service].local_endpoints
        healthy = self._is_healthy()
        body = {
            "service": {"namespace": service.namespace, "name": service.name},
            "localEndpoints": count,
            "serviceProxyHealthy": healthy,
        }
        return Response(
            http.HTTPStatus.OK if count and healthy else http.HTTPStatus.SERVICE_UNAVAILABLE,
            json.dumps(body, separators=(",", ":")).encode(),
            "application/json",
            (("X-Load-Balancing-Endpoint-Weight", str(count)),),
        )
