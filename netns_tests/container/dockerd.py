"""A Docker of one's own in a test kernel, in memory: nothing of it outlives that kernel."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from netns_tests.deadline import DeadlineError, await_that
from netns_tests.kernel import docker

if TYPE_CHECKING:
    from collections.abc import Iterator

_STORAGE = Path("/tmp/docker")  # noqa: S108 - a tmpfs of the test kernel
_LOG = Path("/tmp/dockerd.log")  # noqa: S108 - the same
_START_SECONDS = 120
_STOP_SECONDS = 30

# No bridge and no rules: the containers of these tests have a network of their own, or the test kernel's.
_COMMAND = (
    *("dockerd", f"--data-root={_STORAGE}", "--exec-root=/run/docker", "--storage-driver=overlay2"),
    *("--bridge=none", "--iptables=false", "--ip6tables=false"),
)


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Keep a dockerd running inside the `with`, on /var/run/docker.sock."""
    _mount("cgroup2", Path("/sys/fs/cgroup"))
    _STORAGE.mkdir()
    _mount("tmpfs", _STORAGE, "-o", "size=75%")
    # Where it keeps a key.
    _mount("tmpfs", Path("/etc/docker"))
    with _LOG.open("wb") as log:
        process = subprocess.Popen(_COMMAND, stdout=log, stderr=log)
    try:
        try:
            await_that(
                lambda: process.poll() is not None or docker.unreachable() is None,
                "dockerd answers",
                _START_SECONDS,
            )
        except DeadlineError as error:
            raise RuntimeError(f"{error}; its log:\n{_LOG.read_text()}") from None
        if process.poll() is not None:
            raise RuntimeError(f"dockerd ended; its log:\n{_LOG.read_text()}")
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        process.kill()
        process.wait()


def _mount(kind: str, directory: Path, *options: str) -> None:
    subprocess.run(["mount", "-t", kind, *options, kind, str(directory)], check=True)
