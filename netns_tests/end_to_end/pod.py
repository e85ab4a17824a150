"""The agent with what the kubelet gives its pod: a ServiceAccount's files, and where the API server is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from netns_tests.bare_node import Agent, Node
from netns_tests.end_to_end.control_plane import ACCOUNT_NAMESPACE
from netns_tests.topology import Host, Kind

if TYPE_CHECKING:
    from netns_tests.end_to_end.control_plane import ControlPlane

NODE = "node-a"

_SCRIPT = Path(__file__).with_name("pod.sh")


class Pod:
    """A node whose agent is in a pod: the agent's files are below `directory`."""

    def __init__(self, control_plane: ControlPlane, directory: Path) -> None:
        """Prepare the files, with a first token."""
        self._control_plane = control_plane
        self._node = Node(control_plane.namespace, directory)
        self._account = directory / "serviceaccount"
        self._account.mkdir()
        (self._account / "ca.crt").write_text(control_plane.certificate_authority)
        (self._account / "namespace").write_text(ACCOUNT_NAMESPACE)
        self.renew_token()
        self.host = Host(name=NODE, kind=Kind.NODE, namespace=control_plane.namespace)

    def renew_token(self) -> None:
        """Put a new token in the place of the one that there is, as the kubelet does: at once as a whole."""
        draft = self._account / "..draft"
        draft.write_text(self._control_plane.new_token())
        draft.replace(self._account / "token")

    def agent(self) -> Agent:
        """Start the agent; a change is written at once."""
        variables = (
            "KUBERNETES_SERVICE_HOST=127.0.0.1",
            f"KUBERNETES_SERVICE_PORT={self._control_plane.port}",
        )
        return Agent(
            self._node,
            [f"--hostname-override={NODE}", "--min-sync-period=0s"],
            wrapper=["sh", str(_SCRIPT), str(self._account), "env", *variables],
        )
