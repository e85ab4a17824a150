from __future__ import annotations

import queue
import resource
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.model.addresses import parse_address
from ipvsproxy.model.objects import Node, ObjectKey
from ipvsproxy.source.directory import DirectoryWatch
from ipvsproxy.source.manifest_file import read_manifest
from ipvsproxy.source.manifests import ManifestSource, combine
from netns_tests.deadline import PATIENCE
from tests.builders import NODE, WEB
from tests.source.following import ObservedStore, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.source.manifest_file import Manifest

RETURN_TIME = 3600.0


class Events:
    """The log's events, in the order of their happening."""

    def __init__(self) -> None:
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        self.log: FilteringBoundLogger = structlog.wrap_logger(None, processors=[self._keep])

    def _keep(self, _logger: object, level: str, event: MutableMapping[str, Any]) -> str:
        self._queue.put({**event, "level": level})
        raise structlog.DropEvent

    def until(self, text: str) -> dict[str, Any]:
        """Wait for the event of this text, dropping those before it."""
        while True:
            event = self._queue.get(timeout=PATIENCE)
            if event["event"] == text:
                return event

    def rest(self) -> list[dict[str, Any]]:
        """Return what has happened and was not looked at."""
        return [self._queue.get_nowait() for _ in range(self._queue.qsize())]


def service(name: str = "web", address: str = "10.96.0.10", port: int = 80) -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{clusterIP: {address}, ports: [{{port: {port}}}]}}\n"
    )


class FailingStore(ObservedStore):
    """A store that fails when it is told to, as none does."""

    trouble: Exception | None = None

    def replace_node(self, node: Node | None, rejected: Iterable[Rejection] = ()) -> None:
        if self.trouble:
            raise self.trouble
        super().replace_node(node, rejected)


class Scene:
    """A directory, a store that a running source fills from it, and the source's clock."""

    def __init__(self, directory: Path, *, return_time: float = 0) -> None:
        self.directory = directory
        self.events = Events()
        self.witness = Witness()
        self.store = FailingStore(self.witness)
        self.now = 0.0
        self.failures: queue.Queue[Exception] = queue.Queue()
        self.source = ManifestSource(
            directory,
            self.store,
            NODE,
            self.events.log,
            on_failure=self.failures.put,
            return_time=return_time,
            clock=lambda: self.now,
        )
        self._markers = 0

    def start(self) -> None:
        self.source.start()
        self.until(lambda: self.store.synced)

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until the store fulfils the condition."""
        self.witness.wait_for(reached)

    def until_address(self, address: str | None, of: ObjectKey = WEB) -> None:
        self.until(lambda: self.address(of) == address)

    def settle(self) -> None:
        """Wait until the store has all that was done up to here."""
        # When the second marker is in, all that was delivered with the first is.
        for _ in range(2):
            self._markers += 1
            name = f"marker-{self._markers}"
            self.write(f"zz-{name}.yaml", service(name, f"10.96.255.{self._markers}"))
            self.until_address(f"10.96.255.{self._markers}", ObjectKey("default", name))

    def address(self, of: ObjectKey = WEB) -> str | None:
        found = self.store.state(of).service
        if found is None:
            return None
        (address,) = found.cluster_ips
        return ".".join(map(str, address))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def scene(directory: Path) -> Iterator[Scene]:
    scene = Scene(directory)
    yield scene
    scene.source.stop()
    scene.source.join(PATIENCE)


@pytest.fixture
def slow_scene(directory: Path) -> Iterator[Scene]:
    """Return a scene where files have time to come back."""
    scene = Scene(directory, return_time=RETURN_TIME)
    yield scene
    scene.source.stop()
    scene.source.join(PATIENCE)


def test_every_manifest_of_the_directory_is_read_at_the_start(scene: Scene) -> None:
    scene.write("a.yaml", service("a"))
    scene.write("b.yml", service("b"))
    scene.write(
        "c.json",
        '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}, "spec": {"clusterIP": "None"}}',
    )
    for ignored in (".hidden.yaml", "notes.txt", "a.yaml~"):
        scene.write(ignored, service("ignored"))
    (scene.directory / "folder.yaml").mkdir()
    (scene.directory / "folder").mkdir()
    scene.write("folder/d.yaml", service("ignored"))
    scene.start()
    assert [of.name for of in scene.store.service_keys()] == ["a", "b", "c"]


def test_an_empty_directory_is_a_complete_answer(scene: Scene) -> None:
    scene.start()
    assert scene.store.service_keys() == []
    assert scene.store.node == Node(NODE)


def test_a_file_that_is_rewritten_in_place_is_read_again(scene: Scene) -> None:
    scene.write("web.yaml", service())
    scene.start()
    scene.write("web.yaml", service(address="10.96.0.11"))
    scene.until_address("10.96.0.11")


def test_a_file_that_is_replaced_by_renaming_is_read_again(scene: Scene) -> None:
    scene.write("web.yaml", service())
    scene.start()
    scene.write(".web.yaml.new", service(address="10.96.0.11"))
    (scene.directory / ".web.yaml.new").rename(scene.directory / "web.yaml")
    scene.until_address("10.96.0.11")


def test_a_new_file_is_read_and_the_objects_of_a_deleted_one_are_gone(scene: Scene) -> None:
    scene.start()
    scene.write("web.yaml", service())
    scene.until_address("10.96.0.10")
    (scene.directory / "web.yaml").unlink()
    scene.until_address(None)
    assert scene.events.until("manifest is gone, its objects too")["file"] == "web.yaml"


def test_a_config_map_volume_changes_all_at_once(scene: Scene) -> None:
    """Every file is a link through `..data`, a link that the kubelet swaps (pkg/volume/util/atomic_writer.go)."""
    for version, address in (("..v1", "10.96.0.10"), ("..v2", "10.96.0.11")):
        (scene.directory / version).mkdir()
        scene.write(f"{version}/web.yaml", service(address=address))
    (scene.directory / "..data").symlink_to("..v1")
    (scene.directory / "web.yaml").symlink_to("..data/web.yaml")
    scene.start()
    assert scene.address() == "10.96.0.10"
    (scene.directory / "..data_tmp").symlink_to("..v2")
    (scene.directory / "..data_tmp").rename(scene.directory / "..data")
    scene.until_address("10.96.0.11")


def test_an_editor_that_moves_the_old_file_away_first_takes_nothing_down(slow_scene: Scene) -> None:
    scene = slow_scene
    scene.write("web.yaml", service())
    scene.start()
    (scene.directory / "web.yaml").rename(scene.directory / "web.yaml~")
    scene.settle()
    assert scene.address() == "10.96.0.10"
    with (scene.directory / "web.yaml").open("w") as file:
        scene.settle()
        assert scene.address() == "10.96.0.10"
        file.write(service(address="10.96.0.11"))
    scene.until_address("10.96.0.11")
    scene.now += 2 * RETURN_TIME
    scene.settle()
    assert scene.address() == "10.96.0.11"


def test_a_file_is_gone_when_it_has_not_come_back_in_time(slow_scene: Scene) -> None:
    scene = slow_scene
    scene.write("web.yaml", service())
    scene.start()
    (scene.directory / "web.yaml").unlink()
    scene.now = RETURN_TIME - 1
    scene.settle()
    assert scene.address() == "10.96.0.10"
    scene.now = 2 * RETURN_TIME
    scene.settle()
    assert scene.address() is None


def test_a_file_is_not_missed_before_the_directory_is_back(slow_scene: Scene) -> None:
    scene = slow_scene
    scene.write("web.yaml", service())
    scene.start()
    (scene.directory / "web.yaml").unlink()
    scene.settle()
    away = scene.directory.with_name("away")
    scene.directory.rename(away)
    scene.events.until("manifest directory is away, its objects stay")
    scene.now += 2 * RETURN_TIME
    away.rename(scene.directory)
    scene.events.until("manifest directory is back")
    scene.settle()
    assert scene.address() == "10.96.0.10"


def test_a_file_that_does_not_parse_keeps_its_last_good_contents(scene: Scene) -> None:
    scene.write("web.yaml", service())
    scene.start()
    scene.write("web.yaml", service() + "a: b: c\n")
    event = scene.events.until("manifest does not parse, its objects stay")
    assert (event["level"], event["file"], event["line"]) == ("error", "web.yaml", 5)
    scene.settle()
    assert scene.address() == "10.96.0.10"
    scene.write("web.yaml", service(address="10.96.0.11"))
    scene.until_address("10.96.0.11")


def test_a_file_that_cannot_be_read_keeps_its_last_good_contents(scene: Scene) -> None:
    scene.write("web.yaml", service())
    scene.start()
    # Reading the first byte of a process's memory is an I/O error for everybody.
    (scene.directory / "new").symlink_to("/proc/self/mem")
    (scene.directory / "new").rename(scene.directory / "web.yaml")
    event = scene.events.until("manifest can't be read, its objects stay")
    assert (event["level"], event["file"], event["reason"]) == ("error", "web.yaml", "Input/output error")
    scene.settle()
    assert scene.address() == "10.96.0.10"


def test_a_file_that_never_parsed_hides_no_other(scene: Scene) -> None:
    scene.write("bad.yaml", "{")
    scene.write("web.yaml", service())
    scene.start()
    assert scene.address() == "10.96.0.10"


def test_a_file_that_was_never_good_is_not_said_to_keep_anything(scene: Scene) -> None:
    scene.write("bad.yaml", "{")
    (scene.directory / "unreadable.yaml").symlink_to("/proc/self/mem")
    scene.start()
    assert [(event["event"], event["file"]) for event in scene.events.rest()] == [
        ("manifest does not parse, and it has no last good content", "bad.yaml"),
        ("manifest can't be read, and it has no last good content", "unreadable.yaml"),
    ]


def test_a_fault_is_told_once_for_each_change_of_the_file(scene: Scene) -> None:
    scene.write("bad.yaml", "{")
    scene.write("web.yaml", service(port=0))
    scene.start()
    (scene.directory / "bad.yaml").touch()
    (scene.directory / "web.yaml").touch()
    (scene.directory / "folder").mkdir()
    scene.settle()
    told = [event["file"] for event in scene.events.rest() if event["level"] != "info"]
    assert told == ["bad.yaml", "web.yaml"]
    scene.write("bad.yaml", "[")
    event = scene.events.until("manifest does not parse, and it has no last good content")
    assert event["file"] == "bad.yaml"


def test_a_rejected_object_is_told_with_its_place_and_listed_and_keeps_its_last_good_state(
    scene: Scene,
) -> None:
    scene.write("web.yaml", service())
    scene.start()
    scene.write("web.yaml", "# too high\n" + service(port=70000))
    event = scene.events.until("object rejected")
    assert event == {
        "level": "warning",
        "event": "object rejected",
        "kind": "Service",
        "object": "default/web",
        "field": "spec.ports[0].port",
        "reason": "70000 is not from 1 to 65535",
        "file": "web.yaml",
        "line": 2,
    }
    scene.settle()
    assert scene.address() == "10.96.0.10"
    (rejection,) = scene.store.rejections()
    assert str(rejection) == "Service default/web: spec.ports[0].port: 70000 is not from 1 to 65535"
    scene.write("web.yaml", service())
    scene.settle()
    assert scene.store.rejections() == []


def test_endpoints_that_became_unreadable_keep_their_slices(scene: Scene) -> None:
    endpoints = (
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\nsubsets:\n- addresses: [{ip: 192.0.2.1}]\n"
    )
    scene.write("web.yaml", service() + "---\n" + endpoints)
    scene.start()
    before = scene.store.state(WEB).slices
    assert len(before) == 1
    scene.write("web.yaml", service() + "---\n" + endpoints.replace("[{ip: 192.0.2.1}]", "5"))
    scene.settle()
    assert scene.store.state(WEB).slices == before
    assert [(found.kind, found.field) for found in scene.store.rejections()] == [
        ("Endpoints", "subsets[0].addresses")
    ]


def test_what_the_agent_has_no_use_for_is_told_with_its_place(scene: Scene) -> None:
    scene.write("web.yaml", service() + "---\napiVersion: apps/v1\nkind: Deployment\n---\nwords\n")
    scene.start()
    ignored = scene.events.until("object ignored")
    assert (ignored["level"], ignored["kind"], ignored["line"]) == ("info", "apps/v1/Deployment", 6)
    unusable = scene.events.until("document ignored")
    assert (unusable["level"], unusable["file"], unusable["line"]) == ("error", "web.yaml", 9)


def test_names_of_files_that_are_no_text_are_told_in_a_way_that_can_be_written(scene: Scene) -> None:
    scene.write("a\udcff.yaml", service("web", "10.96.0.1"))
    scene.write("b\udcfe.yaml", service("web", "10.96.0.2"))
    scene.start()
    (rejection,) = scene.store.rejections()
    assert scene.address() == "10.96.0.1"
    assert rejection.reason.encode().count(b"\\udc") == 2


def test_of_an_object_in_two_files_the_first_by_name_counts_and_the_other_is_told(scene: Scene) -> None:
    scene.write("b.yaml", service(address="10.96.0.11"))
    scene.write("c.yaml", service(address="10.96.0.12"))
    scene.start()
    assert scene.address() == "10.96.0.11"
    assert (
        scene.events.until("object rejected")["reason"] == "b.yaml:1 has it, so that in c.yaml:1 is ignored"
    )
    scene.write("a.yaml", service(address="10.96.0.10"))
    scene.until_address("10.96.0.10")
    scene.settle()
    assert [found.reason for found in scene.store.rejections()] == [
        "a.yaml:1 has it, so that in b.yaml:1 is ignored",
        "a.yaml:1 has it, so that in c.yaml:1 is ignored",
    ]
    assert len([event for event in scene.events.rest() if event["event"] == "object rejected"]) == 2
    for name in ("a.yaml", "b.yaml"):
        (scene.directory / name).unlink()
    scene.until_address("10.96.0.12")
    scene.settle()
    assert scene.store.rejections() == []


def test_the_manifest_of_the_own_node_counts_and_those_of_others_do_not(scene: Scene) -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {{name: {}, labels: {{topology.kubernetes.io/zone: {}}}}}\n"
    scene.write("nodes.yaml", node.format("node-b", "b"))
    scene.start()
    assert scene.store.node == Node(NODE)
    scene.write("nodes.yaml", node.format("node-b", "b") + "---\n" + node.format(NODE, "a"))
    scene.until(lambda: scene.store.node == Node(NODE, zone="a"))
    scene.write("nodes.yaml", node.format("node-b", "b"))
    scene.until(lambda: scene.store.node == Node(NODE))


def test_the_addresses_of_all_nodes_of_the_directory_are_known(scene: Scene) -> None:
    node = (
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\n"
        "status: {{addresses: [{{type: InternalIP, address: {}}}]}}\n"
    )
    scene.write("nodes.yaml", node.format(NODE, "192.0.2.1") + "---\n" + node.format("node-b", "192.0.2.2"))
    scene.start()
    assert scene.store.node_addresses == {parse_address("192.0.2.1"), parse_address("192.0.2.2")}
    scene.write("nodes.yaml", node.format("node-b", "192.0.2.3"))
    scene.settle()
    assert scene.store.node_addresses == {parse_address("192.0.2.3")}


def test_what_is_wrong_with_the_own_node_is_listed_and_with_others_is_not(scene: Scene) -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\nspec: {{podCIDRs: [nonsense]}}\n"
    scene.write("nodes.yaml", node.format("node-b") + "---\n" + node.format(NODE))
    scene.start()
    scene.settle()
    assert [(found.key.name, found.field) for found in scene.store.rejections()] == [
        (NODE, "spec.podCIDRs[0]")
    ]


def test_an_own_node_that_is_wrong_from_the_start_holds_nothing_up(scene: Scene) -> None:
    scene.write(
        "node.yaml", f"apiVersion: v1\nkind: Node\nmetadata: {{name: {NODE}}}\nspec: {{podCIDRs: 5}}\n"
    )
    scene.write("web.yaml", service())
    scene.start()
    assert scene.address() == "10.96.0.10"
    assert scene.store.node == Node(NODE)
    assert [found.field for found in scene.store.rejections()] == ["spec.podCIDRs"]


def test_objects_stay_while_the_directory_is_away_and_follow_it_when_it_is_back(scene: Scene) -> None:
    scene.write("web.yaml", service())
    scene.write("old.yaml", service("old", "10.96.0.20"))
    scene.start()
    away = scene.directory.with_name("away")
    scene.directory.rename(away)
    event = scene.events.until("manifest directory is away, its objects stay")
    assert (event["level"], event["directory"]) == ("error", str(scene.directory))
    assert scene.address() == "10.96.0.10"
    (health,) = scene.source.health.states()
    assert (health.resource, health.connected) == ("manifests", False)
    assert health.error == f"{scene.directory}: No such file or directory"

    (away / "old.yaml").unlink()
    (away / "web.yaml").write_text(service(address="10.96.0.11"))
    away.rename(scene.directory)
    scene.events.until("manifest directory is back")
    scene.until_address("10.96.0.11")
    scene.until_address(None, ObjectKey("default", "old"))
    (health,) = scene.source.health.states()
    assert (health.connected, health.error) == (True, None)
    scene.settle()


def test_a_directory_that_is_removed_and_made_anew_is_read_again(scene: Scene) -> None:
    scene.start()
    shutil.rmtree(scene.directory)
    scene.events.until("manifest directory is away, its objects stay")
    scene.directory.mkdir()
    scene.write("web.yaml", service())
    scene.until_address("10.96.0.10")


def test_a_link_to_the_directory_may_be_pointed_elsewhere(tmp_path: Path) -> None:
    for version, address in (("v1", "10.96.0.10"), ("v2", "10.96.0.11")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "web.yaml").write_text(service(address=address))
    link = tmp_path / "current"
    link.symlink_to("v1")
    scene = Scene(link)
    scene.start()
    assert scene.address() == "10.96.0.10"
    (tmp_path / "new").symlink_to("v2")
    (tmp_path / "new").rename(link)
    scene.until_address("10.96.0.11")
    scene.source.stop()
    scene.source.join(PATIENCE)


@pytest.mark.parametrize("file", [True, False])
def test_a_directory_that_is_none_is_refused_by_name(tmp_path: Path, *, file: bool) -> None:
    path = tmp_path / "manifests"
    if file:
        path.write_text("")
    with pytest.raises(UsageError, match=f"^{path} is no directory: name one that contains manifests$"):
        Scene(path)


def test_a_kernel_without_room_for_another_watch_is_an_error_that_says_what_to_raise(directory: Path) -> None:
    DirectoryWatch(directory).close()  # so that nothing but the watch itself needs a file
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(IpvsProxyError, match="Too many open files: raise the sysctls") as refused:
            Scene(directory).source.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert str(directory) in str(refused.value)


def test_the_thread_has_a_name_and_ends_when_it_is_told_to(scene: Scene) -> None:
    scene.start()
    (thread,) = [each for each in threading.enumerate() if each.name == "manifests"]
    scene.source.stop()
    scene.source.join(PATIENCE)
    assert not thread.is_alive()


def test_a_thread_that_fails_is_told_of_and_logged_once(scene: Scene) -> None:
    scene.start()
    scene.events.rest()
    trouble = RuntimeError("no room")
    scene.store.trouble = trouble
    scene.write("web.yaml", service())
    failure = scene.failures.get(timeout=PATIENCE)
    assert isinstance(failure, IpvsProxyError)
    assert str(failure) == f"the manifests in {scene.directory} are not followed any more: no room"
    (event,) = scene.events.rest()
    assert (event["event"], event["level"]) == ("manifests are not followed any more", "error")
    assert event["exc_info"] is trouble


def test_a_source_that_was_not_started_can_be_stopped(directory: Path) -> None:
    source = Scene(directory).source
    source.stop()
    source.join()


def test_manifests_are_combined_in_the_order_of_their_names() -> None:
    def manifest(address: str) -> Manifest:
        return read_manifest("any.yaml", service(address=address).encode())

    combined = combine({"10.yaml": manifest("10.96.0.12"), "1.yaml": manifest("10.96.0.11")})
    assert [found.cluster_ips for found in combined.services] == [(parse_address("10.96.0.11"),)]
    assert [found.reason for found in combined.duplicates] == [
        "1.yaml:1 has it, so that in 10.yaml:1 is ignored"
    ]


def test_an_object_that_one_file_has_twice_counts_once() -> None:
    text = service() + "---\n" + service(address="10.96.0.11")
    combined = combine({"web.yaml": read_manifest("web.yaml", text.encode())})
    assert [found.cluster_ips for found in combined.services] == [(parse_address("10.96.0.10"),)]
    assert len(combined.duplicates) == 1
