"""What the agent answers beside its health, at metricsBindAddress: for monitoring, and for who looks for kube-proxy.

The paths and bodies are those of serveMetrics in kube-proxy's cmd/kube-proxy/app/server.go.
"""

from __future__ import annotations

import http
from typing import TYPE_CHECKING, Final

import msgspec

from ipvsproxy.observe.http_connection import Later, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROXY_MODE: Final = "ipvs"
# Prometheus' text format, as prometheus_client's CONTENT_TYPE_PLAIN_0_0_4 has it.
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Pages:
    """Answers by path; asked by the server's thread."""

    def __init__(
        self,
        configz: Callable[[], Mapping[str, object]],
        metrics: Callable[[], bytes],
    ) -> None:
        """Take what says the configuration in effect, which is quick, and what makes the metrics, which is not."""
        self._configz = configz
        self._metrics = metrics

    def answer(self, path: str) -> Response | Later | None:
        """Answer /metrics, /healthz, /proxyMode and /configz.

        /healthz says no more than that somebody answers; the health of the node is asked for at healthzBindAddress.
        """
        match path:
            case "/metrics":
                return Later(lambda: Response(http.HTTPStatus.OK, self._metrics(), METRICS_TYPE))
            case "/healthz":
                return Response(http.HTTPStatus.OK, b"ok")
            case "/proxyMode":
                return Response(http.HTTPStatus.OK, PROXY_MODE.encode())
            case "/configz":
                return Response(http.HTTPStatus.OK, msgspec.json.encode(self._configz()), "application/json")
            case _:
                return None
