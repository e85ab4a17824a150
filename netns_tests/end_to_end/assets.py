"""kube-apiserver and etcd as processes in the agent's namespace, from the folder that KUBEBUILDER_ASSETS names."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import urllib3

from netns_tests.deadline import PATIENCE, await_that
from netns_tests.end_to_end.certificates import Certificate, rsa_key
from netns_tests.end_to_end.kubernetes_api import (
    ADDRESS,
    PORT,
    SERVICE_NETWORK,
    Administration,
    KubernetesApi,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netns_tests.namespaces import Namespace

VARIABLE: Final = "KUBEBUILDER_ASSETS"
_PROGRAMS = ("etcd", "kube-apiserver")
_ETCD_PORT = 2379
_ETCD_PEER_PORT = 2380


def why_not() -> str | None:
    """Return why the programs can't be had, None if they can."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return f"{VARIABLE} names no folder with {' and '.join(_PROGRAMS)}"
    if not Path(folder).is_dir():
        return f"{VARIABLE} names {folder}, which is not there: a test kernel has a /tmp of its own"
    missing = [name for name in _PROGRAMS if not os.access(Path(folder, name), os.X_OK)]
    return f"{folder} has no program {', '.join(missing)}" if missing else None


class Process:
    """A program in a namespace, with its output in a file."""

    def __init__(self, namespace: Namespace, log: Path, command: Sequence[str]) -> None:
        """Start it."""
        self._log = log
        with namespace.entered(), log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)

    def await_that(self, condition: Any, description: str) -> None:  # noqa: ANN401 - as of `deadline`
        """Wait for something that it is to do; AssertionError with its output if it ends before."""

        def checked() -> object:
            assert self._process.poll() is None, f"it ended:\n{self._log.read_text(errors='replace')}"
            return condition()

        # kube-apiserver takes ten seconds in user-mode Linux, and minutes on an emulated processor.
        await_that(checked, description, 3 * PATIENCE)

    def end(self) -> None:
        """Have it end at once: kube-apiserver would otherwise wait a minute for the agent's watches to end."""
        self._process.kill()
        self._process.wait()


class Etcd:
    """etcd without TLS, for the API server alone."""

    def __init__(self, program: Path, namespace: Namespace, directory: Path) -> None:
        """Start it, and return once it answers."""
        self._namespace = namespace
        clients, peers = f"http://{ADDRESS}:{_ETCD_PORT}", f"http://{ADDRESS}:{_ETCD_PEER_PORT}"
        self.url = clients
        self._process = Process(
            namespace,
            directory / "etcd.log",
            [
                str(program),
                f"--data-dir={directory / 'etcd'}",
                f"--listen-client-urls={clients}",
                f"--advertise-client-urls={clients}",
                f"--listen-peer-urls={peers}",
                f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=default={peers}",
            ],
        )
        self._process.await_that(self._answers, "etcd answers")

    def compact(self) -> int:
        """Forget all revisions before the present one, and return that."""
        revision = int(self._ask("range", {"key": base64.b64encode(b"\0").decode()})["header"]["revision"])
        self._ask("compaction", {"revision": str(revision), "physical": True})
        return revision

    def end(self) -> None:
        self._process.end()

    def _answers(self) -> bool:
        try:
            self._ask("range", {"key": base64.b64encode(b"\0").decode()})
        except urllib3.exceptions.HTTPError:
            return False
        return True

    def _ask(self, what: str, request: dict[str, object]) -> Any:  # noqa: ANN401 - whatever etcd answers
        with (
            self._namespace.entered(),
            urllib3.HTTPConnectionPool(
                ADDRESS, _ETCD_PORT, retries=False, timeout=urllib3.Timeout(10)
            ) as pool,
        ):
            answer = pool.request("POST", f"/v3/kv/{what}", body=json.dumps(request))
        assert answer.status == 200, f"etcd: {what}: {answer.data.decode()}"
        return json.loads(answer.data)


class Assets(KubernetesApi):
    """The API server that these programs are."""

    def __init__(self, folder: Path, namespace: Namespace, directory: Path) -> None:
        """Start them, and return once the API server serves."""
        super().__init__(namespace, Administration(directory))
        self._directory = directory
        self._program = folder / "kube-apiserver"
        self._certificate = Certificate.made(directory)
        self._key = rsa_key(directory / "service-account.key")
        self._etcd = Etcd(folder / "etcd", namespace, directory)
        self._process: Process | None = None
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        """Return the API server, to be ended at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind."""
        self.stop()
        self._etcd.end()

    @property
    def certificate_authority(self) -> str:
        return self._certificate.path.read_text()

    def stop(self) -> None:
        if self._process:
            self._process.end()
            self._process = None

    def start(self) -> None:
        self._process = Process(self.namespace, self._directory / "kube-apiserver.log", self.command())
        self._process.await_that(self.is_ready, "the API server is ready")

    def compact(self) -> None:
        """Compact etcd; the cache of a new API server, which answers watches, begins there too."""
        self.stop()
        self._etcd.compact()
        self.start()

    def command(self) -> list[str]:
        """Return the command line of kube-apiserver."""
        files = self._administration
        return [
            str(self._program),
            f"--etcd-servers={self._etcd.url}",
            f"--bind-address={ADDRESS}",
            f"--advertise-address={ADDRESS}",
            f"--secure-port={PORT}",
            # An endpoint of the API server's own Service may not be on the loopback interface.
            "--endpoint-reconciler-type=none",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--tls-cert-file={self._certificate.path}",
            f"--tls-private-key-file={self._certificate.key}",
            f"--service-account-issuer=https://{ADDRESS}:{PORT}",
            f"--service-account-signing-key-file={self._key}",
            f"--service-account-key-file={self._key}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={files.tokens}",
            f"--audit-policy-file={files.policy}",
            f"--audit-log-path={files.log}",
        ]
