"""k3s in a container of Docker's, its server alone; the agent runs in the container's network namespace."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import urllib.parse
from typing import TYPE_CHECKING, Final, Self

from netns_tests.deadline import await_that
from netns_tests.end_to_end.kubernetes_api import (
    PORT,
    SERVICE_NETWORK,
    Administration,
    KubernetesApi,
    RequestFailedError,
)
from netns_tests.namespaces import Namespace

if TYPE_CHECKING:
    from pathlib import Path

# Another version by IPVSPROXY_K3S_IMAGE.
IMAGE: Final = "rancher/k3s:v1.34.1-k3s1"
VARIABLE: Final = "IPVSPROXY_K3S_IMAGE"

_FILES: Final = "/test"
_AUTHORITY: Final = "/var/lib/rancher/k3s/server/tls/server-ca.crt"
# The container, and with it the namespace, outlives the server, which runs unless it is told to wait.
_LOOP: Final = f"""
while :; do
    while [ -e {_FILES}/held ]; do sleep 0.1; done
    k3s server "$@" & echo $! > {_FILES}/server.pid
    wait $!
done
"""

_ARGUMENTS: Final = (
    "--disable-agent",
    "--disable-cloud-controller",
    "--disable-helm-controller",
    "--disable=coredns,local-storage,metrics-server,servicelb,traefik",
    f"--https-listen-port={PORT}",
    f"--service-cidr={SERVICE_NETWORK}",
    f"--kube-apiserver-arg=token-auth-file={_FILES}/tokens.csv",
    f"--kube-apiserver-arg=audit-policy-file={_FILES}/policy.json",
    f"--kube-apiserver-arg=audit-log-path={_FILES}/audit.log",
)


@functools.cache
def why_not() -> str | None:
    """Return why there can be no such container, None if there can; the image is fetched if it has to be."""
    address = urllib.parse.urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if address.scheme != "unix":
        return f"Docker has to be on this machine, DOCKER_HOST is {address.geturl()}"
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.path)
        except OSError as error:
            return f"Docker can't be reached at {address.path}: {error.strerror}"
    try:
        import docker  # noqa: PLC0415 - only where it is asked for
        import testcontainers.core.container  # noqa: F401, PLC0415 - the same
    except ImportError as error:
        return str(error)
    image = os.environ.get(VARIABLE, IMAGE)
    with contextlib.closing(docker.from_env()) as client:
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            try:
                client.images.pull(image)
            except docker.errors.DockerException as error:
                return f"Docker can't pull {image}: {error}"
    return None


class NamespaceOfProcess(Namespace):
    """The network namespace of a process."""

    def __init__(self, process: int) -> None:
        """Open it."""
        self.name = f"process {process}"
        self._descriptor = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class K3s(KubernetesApi):
    """The API server of k3s."""

    def __init__(self, directory: Path) -> None:
        """Start the container, and return once the API server serves."""
        from testcontainers.core.config import testcontainers_config  # noqa: PLC0415 - only where it is asked for
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - the same

        # Testcontainers' own clean-up is one more image.
        testcontainers_config.ryuk_disabled = True
        self._held = directory / "held"
        administration = Administration(directory)
        # Not testcontainers' K3SContainer: that waits for a node, and there is none.
        self._container = (
            DockerContainer(os.environ.get(VARIABLE, IMAGE))
            .with_volume_mapping(str(directory), _FILES, "rw")
            .with_kwargs(privileged=True, entrypoint=["sh", "-c", _LOOP, "k3s"])
            .with_command(list(_ARGUMENTS))
        )
        self._container.start()
        try:
            container = self._container.get_wrapped_container()
            container.reload()
            namespace = NamespaceOfProcess(container.attrs["State"]["Pid"])
            super().__init__(namespace, administration)
            await_that(self.is_ready, "the API server is ready")
        except BaseException:
            self._container.stop()
            raise

    def __enter__(self) -> Self:
        """Return the API server, to be ended at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no container behind."""
        self.namespace.close()
        self._container.stop()

    @property
    def certificate_authority(self) -> str:
        return self._run("cat", _AUTHORITY)

    def stop(self) -> None:
        self._held.touch()
        # At once: told to end it might wait for the agent's watches.
        self._run("sh", "-c", f"kill -KILL $(cat {_FILES}/server.pid)")
        await_that(lambda: not self.is_ready(), "the API server has ended")

    def start(self) -> None:
        self._held.unlink()
        await_that(self.is_ready, "the API server is ready")

    def compact(self) -> None:
        """Begin the cache of a new server, which answers watches, at the present; the database stays as it is."""
        self.stop()
        self.start()

    def _run(self, *command: str) -> str:
        code, output = self._container.exec(list(command))
        if code:
            raise RequestFailedError(f"{command}: {output.decode()}")
        return str(output.decode())
