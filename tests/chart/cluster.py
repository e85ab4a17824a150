"""As much of an API server as `helm install --dry-run=server` asks: its version, the kinds that it has, and no object.

As a program this is such installs: `python -m tests.chart.cluster CHART NAMESPACE` reads from its standard input, as
JSON, a list of pairs, the version of a cluster and values. It prints as many: the manifests, and why there are none.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kind(NamedTuple):
    """A kind of objects, and where it is."""

    group: str
    resource: str
    kind: str
    namespaced: bool = True

    @property
    def base(self) -> str:
        return f"/apis/{self.group}/v1" if self.group else "/api/v1"

    @property
    def group_version(self) -> str:
        return self.base.removeprefix("/apis/").removeprefix("/api/")


KINDS = (
    Kind("", "configmaps", "ConfigMap"),
    Kind("", "serviceaccounts", "ServiceAccount"),
    Kind("", "services", "Service"),
    Kind("apps", "daemonsets", "DaemonSet"),
    Kind("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", namespaced=False),
    Kind("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Kind("monitoring.coreos.com", "podmonitors", "PodMonitor"),
    Kind("monitoring.coreos.com", "servicemonitors", "ServiceMonitor"),
    Kind("monitoring.coreos.com", "prometheusrules", "PrometheusRule"),
)


def documents(version: str) -> dict[str, Any]:
    """Return what there is at each path of a server of that version, such as 1.34."""
    found: dict[str, Any] = {
        "/version": {"major": "1", "minor": version.partition(".")[2], "gitVersion": f"v{version}.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(_groups())},
    }
    specifications = {}
    for kind in KINDS:
        resources = found.setdefault(
            kind.base, {"kind": "APIResourceList", "groupVersion": kind.group_version, "resources": []}
        )
        resources["resources"].append(
            {
                "name": kind.resource,
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": ["get"],
            }
        )
        # A server that validates fields itself is not asked for their types.
        paths = found.setdefault(
            f"/openapi/v3{kind.base}", {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": {}}
        )
        paths["paths"][f"{kind.base}/{kind.resource}"] = {
            "patch": {
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": kind.group, "version": "v1", "kind": kind.kind},
            }
        }
        specifications[kind.base[1:]] = {"serverRelativeURL": f"/openapi/v3{kind.base}"}
    return found | {"/openapi/v3": {"paths": specifications}}


def _groups() -> Iterator[dict[str, Any]]:
    for group in dict.fromkeys(kind.group for kind in KINDS if kind.group):
        version = {"groupVersion": f"{group}/v1", "version": "v1"}
        yield {"name": group, "versions": [version], "preferredVersion": version}


@contextlib.contextmanager
def serving(version: str) -> Iterator[str]:
    """Serve while the context lasts, and give a kubeconfig."""
    contents = documents(version)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            missing = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "code": 404,
            }
            body = json.dumps(contents.get(path, missing)).encode()
            self.send_response(200 if path in contents else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
    try:
        yield json.dumps(
            {
                "kind": "Config",
                "apiVersion": "v1",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [
                    {"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
                ],
                "users": [{"name": "test", "user": {}}],
            }
        )
    finally:
        server.shutdown()
        server.server_close()


def install(chart: str, namespace: str, version: str, values: dict[str, Any]) -> tuple[str, str]:
    """Return the manifests of an install, or "", and why it is refused."""
    import helm_python  # noqa: PLC0415 - the server does without

    with (
        serving(version) as kubeconfig,
        helm_python.Config(
            kubeconfig_content=kubeconfig, namespace=namespace, storage_driver="memory"
        ) as config,
    ):
        try:
            release = config.install(chart, "ipvsproxy", values, namespace=namespace, dry_run="server")
        except helm_python.HelmError as error:
            return "", str(error)
    return str(release["manifest"]), ""


def main() -> None:
    """Install what the standard input says."""
    chart, namespace = sys.argv[1:]
    print(json.dumps([install(chart, namespace, *each) for each in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
