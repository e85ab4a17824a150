"""inotify queues an event before the system call that causes it returns, so `wait(0)` sees all that was done."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.source.directory import Changed, DirectoryWatch
from netns_tests.deadline import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTHING = Changed(frozenset(), everything=False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "manifests"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def watch(directory: Path) -> Iterator[DirectoryWatch]:
    watch = DirectoryWatch(directory)
    yield watch
    watch.close()


def names(*expected: str) -> Changed:
    return Changed(frozenset(expected), everything=False)


def test_an_untouched_directory_has_no_changes(directory: Path, watch: DirectoryWatch) -> None:
    assert watch.wait(0) == NOTHING
    (directory / "..").resolve().joinpath("elsewhere.yaml").write_text("a")
    list(directory.iterdir())
    assert watch.wait(0) == NOTHING


def test_a_file_counts_as_changed_when_its_writer_closes_it(directory: Path, watch: DirectoryWatch) -> None:
    with (directory / "web.yaml").open("w") as file:
        assert watch.wait(0) == NOTHING
        file.write("half")
        file.flush()
        assert watch.wait(0) == NOTHING
    assert watch.wait(0) == names("web.yaml")
    assert watch.wait(0) == NOTHING


def test_a_file_that_is_put_there_complete_counts_as_changed(directory: Path, watch: DirectoryWatch) -> None:
    (directory / "temporary").write_text("a")
    watch.wait(0)
    (directory / "temporary").rename(directory / "web.yaml")
    assert watch.wait(0) == names("temporary", "web.yaml")
    (directory / "linked.yaml").hardlink_to(directory / "web.yaml")
    assert "linked.yaml" in watch.wait(0).names


def test_a_file_that_goes_counts_as_changed(directory: Path, watch: DirectoryWatch) -> None:
    (directory / "web.yaml").write_text("a")
    watch.wait(0)
    (directory / "web.yaml").unlink()
    assert watch.wait(0) == names("web.yaml")


def test_a_file_that_becomes_readable_counts_as_changed(directory: Path, watch: DirectoryWatch) -> None:
    (directory / "web.yaml").write_text("a")
    watch.wait(0)
    (directory / "web.yaml").chmod(0o644)
    assert watch.wait(0) == names("web.yaml")


@pytest.mark.parametrize("folder", [True, False])
def test_a_folder_or_link_that_changes_may_change_everything(
    directory: Path, watch: DirectoryWatch, *, folder: bool
) -> None:
    if folder:
        (directory / "current").mkdir()
    else:
        (directory / "current").symlink_to("elsewhere")
    assert watch.wait(0).everything
    (directory / "current").rename(directory / "..data")
    assert watch.wait(0).everything


def test_a_directory_that_is_moved_away_and_back_is_followed(directory: Path, watch: DirectoryWatch) -> None:
    away = directory.with_name("away")
    directory.rename(away)
    assert watch.wait(0).everything
    (away / "web.yaml").write_text("a")
    assert watch.wait(0) == NOTHING
    away.rename(directory)
    assert watch.wait(0).everything
    (directory / "dns.yaml").write_text("a")
    assert watch.wait(0) == names("dns.yaml")


def test_a_directory_that_is_removed_and_made_anew_is_followed(
    directory: Path, watch: DirectoryWatch
) -> None:
    directory.rmdir()
    assert watch.wait(0).everything
    directory.mkdir()
    assert watch.wait(0).everything
    (directory / "web.yaml").write_text("a")
    assert watch.wait(0) == names("web.yaml")


def test_a_folder_on_the_way_that_goes_and_comes_back_is_noticed(
    directory: Path, watch: DirectoryWatch
) -> None:
    etc = directory.parent
    etc.rename(etc.with_name("away"))
    assert watch.wait(0).everything
    etc.mkdir()
    assert watch.wait(0).everything
    directory.mkdir()
    assert watch.wait(0).everything
    (directory / "web.yaml").write_text("a")
    assert watch.wait(0) == names("web.yaml")


def test_a_directory_that_comes_and_goes_needs_no_more_watches_each_time(
    directory: Path, watch: DirectoryWatch
) -> None:
    def watches() -> int:
        files = Path("/proc/self/fdinfo").iterdir()
        return sum(path.read_text().count("inotify wd:") for path in files if path.exists())

    before = watches()
    for number in range(3):
        directory.rename(directory.with_name(f"away-{number}"))
        watch.wait(0)
        directory.mkdir()
        watch.wait(0)
    assert watches() == before


def test_a_directory_may_come_after_its_watch(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    watch = DirectoryWatch(directory)
    directory.mkdir(parents=True)
    while watch.wait(0).everything:
        pass
    (directory / "web.yaml").write_text("a")
    assert watch.wait(0) == names("web.yaml")
    watch.close()


def test_a_link_to_the_directory_is_followed_when_it_points_elsewhere(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        (tmp_path / "releases" / version).mkdir(parents=True)
    link = tmp_path / "manifests"
    link.symlink_to("releases/v1")
    watch = DirectoryWatch(link)
    (tmp_path / "releases" / "v1" / "web.yaml").write_text("a")
    assert watch.wait(0).names == {"web.yaml"}

    (tmp_path / "new").symlink_to("releases/v2")
    (tmp_path / "new").rename(link)
    assert watch.wait(0).everything
    (tmp_path / "releases" / "v1" / "web.yaml").write_text("b")
    assert watch.wait(0) == NOTHING
    (tmp_path / "releases" / "v2" / "web.yaml").write_text("b")
    assert watch.wait(0).names == {"web.yaml"}

    (tmp_path / "releases" / "v2").rename(tmp_path / "releases" / "v3")
    assert watch.wait(0).everything
    (tmp_path / "releases" / "v3").rename(tmp_path / "releases" / "v2")
    assert watch.wait(0).everything
    watch.close()


def test_a_queue_that_overflowed_may_hide_any_change(directory: Path, watch: DirectoryWatch) -> None:
    with open("/proc/sys/fs/inotify/max_queued_events", encoding="ascii") as file:  # noqa: PTH123
        limit = int(file.read())
    path = directory / "web.yaml"
    for _ in range(limit // 2 + 1):
        # Two different events in turn: the kernel merges equal ones.
        path.touch()
        path.unlink()
    assert watch.wait(0).everything


def test_wake_ends_the_wait_under_way_or_the_next_one(watch: DirectoryWatch) -> None:
    watch.wake()
    assert watch.wait(None) == NOTHING
    ended: list[Changed] = []
    waiting = threading.Thread(target=lambda: ended.append(watch.wait(None)), daemon=True)
    waiting.start()
    watch.wake()
    waiting.join(PATIENCE)
    assert ended == [NOTHING]


def test_a_closed_watch_keeps_no_file_open(directory: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - the count is what matters
    DirectoryWatch(directory).close()
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208
