"""One agent on a node."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.lock import AgentLock, AlreadyRunningError
from ipvsproxy.errors import IpvsProxyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NOBODY = 65534
# Takes a name as another user and says so; ends with its standard input.
STRANGER = """
import os, socket, sys
os.setuid({user})
holder = socket.socket(socket.AF_UNIX, socket.SOCK_{kind})
holder.bind("\\0" + sys.argv[1])
if {listens}:
    holder.listen()
print("ready", flush=True)
sys.stdin.read()
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def name() -> str:
    """Return a name that nobody else in this network namespace has."""
    return f"ipvsproxy-{uuid.uuid4()}"


def test_the_second_agent_is_refused_and_told_who_the_first_is(tmp_path: Path, name: str) -> None:
    first = AgentLock(tmp_path / "run", name)
    with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()} holds .*agent.lock"):
        AgentLock(tmp_path / "run", name)
    first.release()


def test_another_run_directory_makes_no_room_for_a_second_agent(tmp_path: Path, name: str) -> None:
    first = AgentLock(tmp_path / "first", name)
    with pytest.raises(AlreadyRunningError) as refused:
        AgentLock(tmp_path / "second", name)
    assert str(refused.value) == (
        f"another agent runs in this network namespace already: process {os.getpid()} holds the socket @{name}; "
        "stop that one first"
    )
    first.release()


def test_a_refused_agent_leaves_its_own_run_directory_free(tmp_path: Path, name: str) -> None:
    first = AgentLock(tmp_path / "first", name)
    with pytest.raises(AlreadyRunningError):
        AgentLock(tmp_path / "second", name)
    first.release()
    AgentLock(tmp_path / "second", name).release()


def test_an_agent_that_is_started_again_and_again_is_refused_each_time(tmp_path: Path, name: str) -> None:
    first = AgentLock(tmp_path / "first", name)
    for _ in range(300):  # more than twice the connections that wait for a listening socket of Python's
        with pytest.raises(AlreadyRunningError):
            AgentLock(tmp_path / "second", name)
    first.release()


@needs_root
@pytest.mark.parametrize(("kind", "listens"), [("STREAM", True), ("STREAM", False), ("DGRAM", False)])
def test_an_unprivileged_process_with_the_name_keeps_no_agent_out(
    tmp_path: Path, name: str, kind: str, *, listens: bool
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STRANGER.format(user=NOBODY, kind=kind, listens=listens), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"ready\n"
        AgentLock(tmp_path, name).release()


def test_the_lock_is_free_again_after_its_release(tmp_path: Path, name: str) -> None:
    AgentLock(tmp_path, name).release()
    AgentLock(tmp_path, name).release()


def test_the_run_directory_is_for_its_owner_only(tmp_path: Path, name: str) -> None:
    AgentLock(tmp_path / "run", name).release()
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("others", "mode"), [((), 0o700), (("agent.lock", "agent.sock"), 0o700), (("sshd.pid",), 0o755)]
)
def test_a_run_directory_that_somebody_made_for_all_is_closed_unless_others_use_it(
    tmp_path: Path, name: str, others: Sequence[str], mode: int
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(0o755)
    for each in others:
        (directory / each).touch()
    AgentLock(directory, name).release()
    assert directory.stat().st_mode & 0o777 == mode


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IpvsProxyError, match=r"file/agent.lock: .*--run-directory"):
        AgentLock(tmp_path / "file", name)


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def hard_link(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("plant", [link, hard_link, pipe])
def test_a_lock_that_somebody_else_put_there_is_not_followed_and_named(
    tmp_path: Path, name: str, plant: Callable[[Path, Path], None]
) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    plant(tmp_path / "agent.lock", target)
    with pytest.raises(IpvsProxyError, match=r"/agent.lock: is a link or no regular file, .*: remove it$"):
        AgentLock(tmp_path, name)
    assert target.read_text() == "precious"
    (tmp_path / "agent.lock").unlink()
    AgentLock(tmp_path, name).release()


def test_a_lock_link_to_nothing_makes_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "agent.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IpvsProxyError, match="remove it"):
        AgentLock(tmp_path, name)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open", "mkdir", "pwrite"])
def test_a_full_run_directory_leaves_the_name_as_the_lock(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, "no room")

    with monkeypatch.context() as full:
        full.setattr(os, call, fail)
        first = AgentLock(tmp_path / "run", name)
    assert not first.is_written
    with pytest.raises(AlreadyRunningError):
        AgentLock(tmp_path / "another", name)
    first.release()
    second = AgentLock(tmp_path / "run", name)
    assert second.is_written
    second.release()
