"""Commands that wait for the agent's answer."""

from __future__ import annotations

import io
import socket
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.answers import await_answer, await_report
from ipvsproxy.observe.agent_socket import RESYNC_COMMAND, SOCKET_NAME, AgentNotRunningError, AgentSilentError
from ipvsproxy.observe.schema import ResyncResult

if TYPE_CHECKING:
    from pathlib import Path


class Ending(io.StringIO):
    """Where notices go; the first one ends the connection of the agent that does not answer."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__()
        self._listening = listening

    def write(self, text: str) -> int:
        written = super().write(text)
        self._listening.accept()[0].close()
        return written


def test_whoever_waits_for_an_agent_that_hangs_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / SOCKET_NAME))
        listening.listen()
        notices = Ending(listening)
        with pytest.raises(AgentSilentError):
            await_answer(tmp_path, RESYNC_COMMAND, ResyncResult, notices, patience=75, unusual=0.01)
    assert notices.getvalue() == "ipvsproxy: the agent has not answered for 0.01 s; waiting up to 75 s\n"


def test_nothing_is_said_without_an_agent(tmp_path: Path) -> None:
    notices = io.StringIO()
    with pytest.raises(AgentNotRunningError):
        await_report(tmp_path, notices)
    assert notices.getvalue() == ""
