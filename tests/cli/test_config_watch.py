"""When the configuration file counts as changed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.config_watch import LONGEST, QUIET, ConfigurationWatch
from ipvsproxy.source.directory import Changed
from netns_tests.deadline import PATIENCE
from tests.observe.http_clients import Events

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path("/etc/ipvsproxy/config.conf")
NOTHING = Changed(frozenset(), everything=False)
OURS = Changed(frozenset({"config.conf"}), everything=False)
OTHER = Changed(frozenset({"kubeconfig"}), everything=False)
SWAPPED = Changed(frozenset({"..data"}), everything=True)


class Directory:
    """A directory in which what the test says happens, one thing for each wait; the clock goes on by the waits."""

    def __init__(self, *changes: Changed) -> None:
        self.changes = list(changes)
        self.waits: list[float | None] = []
        self.now = 0.0
        self.read: list[bool] = []
        self.watch = ConfigurationWatch(
            FILE, self.on_change, Events().log, clock=lambda: self.now, open_watch=lambda _: self
        )

    def on_change(self, asked: bool) -> None:  # noqa: FBT001 - as the watch calls it
        self.read.append(asked)

    def wait(self, timeout: float | None) -> Changed:
        self.waits.append(timeout)
        self.now += timeout or 0
        return self.changes.pop(0) if self.changes else NOTHING

    def wake(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("change", [OURS, SWAPPED])
def test_a_file_is_read_once_it_was_quiet(change: Changed) -> None:
    directory = Directory(change, OURS, OURS)
    directory.watch.step()

    assert directory.read == [False]
    assert directory.waits == [None, QUIET, QUIET, QUIET]


def test_what_happens_to_other_files_is_nothing() -> None:
    directory = Directory(OTHER)
    directory.watch.step()

    assert directory.read == []


def test_a_file_that_never_is_quiet_is_read_all_the_same() -> None:
    directory = Directory(*[OURS] * 1000)
    directory.watch.step()

    assert directory.read == [False]
    assert LONGEST <= directory.now < LONGEST + 2 * QUIET


def test_who_asks_has_it_read_without_a_change() -> None:
    directory = Directory()
    directory.watch.ask()
    directory.watch.step()
    directory.watch.step()

    assert directory.read == [True]


@pytest.fixture
def read() -> threading.Semaphore:
    return threading.Semaphore(0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory as the kubelet makes it of a ConfigMap."""
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "config.conf").write_text("one")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "config.conf").symlink_to("..data/config.conf")
    return tmp_path


@pytest.fixture
def watching(directory: Path, read: threading.Semaphore) -> Iterator[ConfigurationWatch]:
    clock = iter(range(0, 10_000, 10))
    watch = ConfigurationWatch(
        directory / "config.conf", lambda _: read.release(), Events().log, clock=lambda: float(next(clock))
    )
    watch.start()
    yield watch
    watch.stop()
    watch.join(PATIENCE)


@pytest.mark.usefixtures("watching")
def test_a_config_map_that_the_kubelet_swaps_is_noticed(directory: Path, read: threading.Semaphore) -> None:
    (directory / "..2").mkdir()
    (directory / "..2" / "config.conf").write_text("two")
    (directory / "..data_tmp").symlink_to("..2")
    (directory / "..data_tmp").rename(directory / "..data")

    assert read.acquire(timeout=PATIENCE)


@pytest.mark.usefixtures("watching")
def test_a_file_that_an_editor_replaces_is_noticed(directory: Path, read: threading.Semaphore) -> None:
    (directory / ".config.swp").write_text("two")
    (directory / ".config.swp").rename(directory / "config.conf")

    assert read.acquire(timeout=PATIENCE)


def refused(_: Path) -> Directory:
    raise OSError(28, "No space left on device")


def test_where_the_kernel_refuses_to_watch_asking_is_what_remains(read: threading.Semaphore) -> None:
    events = Events()
    watch = ConfigurationWatch(
        FILE, lambda _: read.release(), events.log, clock=lambda: 0.0, open_watch=refused
    )
    watch.start()
    watch.ask()
    assert read.acquire(timeout=PATIENCE)
    watch.stop()
    watch.join(PATIENCE)
    assert events.capture.entries == [
        {
            "event": "configuration file not watched",
            "log_level": "warning",
            "file": str(FILE),
            "reason": "No space left on device",
            "remedy": "send SIGHUP to the agent after a change",
        }
    ]


def test_a_reading_that_fails_is_logged_and_is_not_the_last(read: threading.Semaphore) -> None:
    def fail(_: bool) -> None:  # noqa: FBT001 - as the watch calls it
        read.release()
        raise LookupError

    events = Events()
    watch = ConfigurationWatch(FILE, fail, events.log, clock=lambda: 0.0, open_watch=refused)
    watch.start()
    for _ in range(2):
        watch.ask()
        assert read.acquire(timeout=PATIENCE)
    watch.stop()
    watch.join(PATIENCE)
    assert events.names[1:] == ["configuration not read again"] * 2
