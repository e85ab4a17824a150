"""One agent on a node."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.lock import AgentLock, AlreadyRunningError
from ipvsproxy.errors import IpvsProxyError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_second_agent_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = AgentLock(tmp_path / "run")
    with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} holds .*agent.lock"):
        AgentLock(tmp_path / "run")
    first.release()


def test_the_lock_is_free_again_after_its_release(tmp_path: Path) -> None:
    AgentLock(tmp_path).release()
    AgentLock(tmp_path).release()


def test_the_run_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    AgentLock(tmp_path / "run").release()
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IpvsProxyError, match=r"file/agent.lock: .*--run-directory"):
        AgentLock(tmp_path / "file")
