"""Services, EndpointSlices, Endpoints and Nodes from a directory of YAML and JSON files, in place of an API server.

The files whose names end in .yaml, .yml or .json are read, but for hidden ones and those in folders, and each change
of the directory is followed at once. What a file says stays in force while it does not parse, and while the directory
itself is away; what no file says any more is gone. Of two files that have the same object, the first by name counts.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.model.objects import EndpointSlice, Node, Service
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.source.directory import DirectoryWatch
from ipvsproxy.source.health import SourceHealth
from ipvsproxy.source.manifest_file import Manifest, ManifestError, keep_last_good, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.source.store import Store

# Editors save by moving the old file away and writing a new one: a file is gone when it has not come back for so long.
RETURN_TIME: Final = 0.2

_SUFFIXES: Final = (".yaml", ".yml", ".json")


class _File(NamedTuple):
    """The last good contents of a file, None if none were good yet, and the digest of the last ones, good or not."""

    manifest: Manifest | None
    digest: bytes


class ManifestSource:
    """Fills the store from a directory, in a thread of its own named `manifests`."""

    def __init__(  # noqa: PLR0913 - the time is a test's to say
        self,
        directory: Path,
        store: Store,
        node_name: str,
        log: FilteringBoundLogger,
        *,
        on_failure: Callable[[Exception], None] = lambda _: None,
        return_time: float = RETURN_TIME,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read before `start`. UsageError if there is no such directory.

        A Node named `node_name` in the manifests is the agent's own; without one it has just that name.
        `on_failure` is called, from the thread, with the error that ended it: nothing is followed any more then.
        `return_time` is how many seconds, by the `clock`, a file that was moved away or deleted has to come back
        unnoticed.
        """
        if not directory.is_dir():
            raise UsageError(f"{directory} is no directory: name one that contains manifests")
        self._directory = directory
        self._store = store
        self._node_name = node_name
        self._log = log
        self._on_failure = on_failure
        self._return_time = return_time
        self._clock = clock
        self._files: dict[str, _File] = {}
        self._absent: dict[str, float] = {}
        self._directory_was_read = False
        self._directory_is_away = False
        self.health = SourceHealth(clock)
        """Whether the directory is there."""
        self._directory_health = self.health.follow("manifests")
        self._duplicates: frozenset[Rejection] = frozenset()
        self._stopping = threading.Event()
        self._watch: DirectoryWatch | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to read and follow the directory; IpvsProxyError if the kernel refuses to watch it."""
        try:
            self._watch = DirectoryWatch(self._directory)
        except OSError as error:
            raise IpvsProxyError(
                f"can't watch {self._directory}: {error.strerror}: "
                "raise the sysctls fs.inotify.max_user_instances and fs.inotify.max_user_watches"
            ) from error
        self._thread = threading.Thread(target=self._run, args=(self._watch,), name="manifests", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Make the thread end soon; the store keeps what it has."""
        self._stopping.set()
        if self._watch is not None:
            self._watch.wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end after `stop`, at most for `timeout` seconds."""
        if self._thread is None or self._watch is None:
            return
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._watch.close()
            self._watch = None

    def _run(self, watch: DirectoryWatch) -> None:
        try:
            self._follow(watch)
        except Exception as error:  # noqa: BLE001 - whoever is told decides
            self._log.error(
                "manifests are not followed any more", directory=str(self._directory), exc_info=error
            )
            failure = IpvsProxyError(f"the manifests in {self._directory} are not followed any more: {error}")
            failure.__cause__ = error
            self._on_failure(failure)

    def _follow(self, watch: DirectoryWatch) -> None:
        """Read the directory, and what changes in it, until stopped."""
        changed = self._read_directory()
        while not self._stopping.is_set():
            if self._let_go() or changed:
                self._deliver()
            next_departure = min(self._absent.values(), default=None)
            patience = None if next_departure is None else max(0, next_departure - self._clock())
            seen = watch.wait(patience)
            changed = self._read_directory() if seen.everything else self._read_files(seen.names)

    def _read_directory(self) -> bool:
        """Read every file; return whether anything changed, as the first reading does."""
        try:
            present = [path.name for path in self._directory.iterdir()]
        except OSError as error:
            self._absent.clear()
            if not self._directory_is_away:
                self._directory_is_away = True
                self._directory_health.failed(f"{self._directory}: {error.strerror}")
                self._log.error(
                    "manifest directory is away, its objects stay",
                    directory=str(self._directory),
                    reason=error.strerror,
                )
            return False
        if self._directory_is_away or not self._directory_was_read:
            self._directory_health.connected()
        if self._directory_is_away:
            self._directory_is_away = False
            self._log.info("manifest directory is back", directory=str(self._directory))
        first, self._directory_was_read = not self._directory_was_read, True
        return self._read_files({*present, *self._files}) or first

    def _read_files(self, names: Collection[str]) -> bool:
        changed = False
        for name in sorted(names):
            if name.startswith(".") or not name.endswith(_SUFFIXES):
                continue
            try:
                data = self._read_file(name)
            except OSError as error:
                self._absent.pop(name, None)
                self._report_fault("manifest can't be read", name, reason=error.strerror)
                continue
            if data is not None:
                self._absent.pop(name, None)
                changed |= self._take(name, data)
            elif name in self._files:
                self._absent.setdefault(name, self._clock() + self._return_time)
        return changed

    def _read_file(self, name: str) -> bytes | None:
        """Return the contents; None for what is not there or no regular file."""
        path = self._directory / name
        try:
            return path.read_bytes() if path.is_file() else None
        except FileNotFoundError:
            return None

    def _take(self, name: str, data: bytes) -> bool:
        """Hold the file's new contents; return False if they are the old ones or do not parse."""
        digest = hashlib.blake2b(data, digest_size=16).digest()
        held = self._files.get(name, _File(None, b""))
        if held.digest == digest:
            return False
        try:
            manifest = read_manifest(name, data)
        except ManifestError as error:
            self._report_fault("manifest does not parse", name, line=error.line, reason=error.reason)
            self._files[name] = held._replace(digest=digest)
            return False
        self._files[name] = _File(keep_last_good(held.manifest or Manifest(), manifest), digest)
        self._report(name, manifest)
        return True

    def _let_go(self) -> bool:
        """Drop the files whose time to come back has run out; return whether there were any."""
        now = self._clock()
        gone = [name for name, deadline in self._absent.items() if deadline <= now]
        for name in gone:
            del self._absent[name]
            del self._files[name]
            self._log.info("manifest is gone, its objects too", file=name)
        return bool(gone)

    def _report_fault(self, event: str, name: str, **details: object) -> None:
        """Log that a file is of no use now, and what that means."""
        held = self._files.get(name)
        meaning = (
            "its objects stay" if held and held.manifest is not None else "and it has no last good content"
        )
        self._log.error(f"{event}, {meaning}", file=name, **details)

    def _report(self, name: str, manifest: Manifest) -> None:
        for line, kind in manifest.ignored:
            self._log.info("object ignored", kind=kind, file=name, line=line)
        for line, problem in manifest.unusable:
            self._log.error("document ignored", file=name, line=line, reason=problem)
        for found in manifest.objects:
            for rejection in found.rejections:
                self._log_rejection(rejection, file=name, line=found.line)

    def _log_rejection(self, rejection: Rejection, **place: object) -> None:
        self._log.warning(
            "object rejected",
            kind=rejection.kind,
            object=str(rejection.key),
            field=rejection.field,
            reason=rejection.reason,
            **place,
        )

    def _deliver(self) -> None:
        """Give the store what all files together say."""
        combined = combine(
            {name: file.manifest for name, file in self._files.items() if file.manifest is not None}
        )
        for rejection in sorted(combined.duplicates - self._duplicates):
            self._log_rejection(rejection)
        self._duplicates = combined.duplicates
        rejections = [*combined.rejections, *combined.duplicates]
        self._store.put_node_addresses(
            address for node in combined.nodes.values() for address in node.addresses
        )
        node = combined.nodes.get(self._node_name, Node(self._node_name))
        self._store.replace_node(
            node, [found for found in _of_kinds(rejections, "Node") if found.key.name == node.name]
        )
        self._store.replace_services(combined.services, _of_kinds(rejections, "Service"))
        self._store.replace_slices(combined.slices, _of_kinds(rejections, "EndpointSlice", "Endpoints"))


class Combined(NamedTuple):
    """What several manifests say together; `duplicates` are the rejections of objects that another has too."""

    services: list[Service]
    slices: list[EndpointSlice]
    nodes: dict[str, Node]
    rejections: list[Rejection]
    duplicates: frozenset[Rejection]


def combine(manifests: Mapping[str, Manifest]) -> Combined:
    """Combine manifests by their files' names: of an object that several have, the first counts."""
    values: list[Service | EndpointSlice | Node] = []
    rejections: list[Rejection] = []
    duplicates: set[Rejection] = set()
    places: dict[tuple[str, ObjectKey], str] = {}
    for name, manifest in sorted(manifests.items()):
        for found in manifest.objects:
            # A file's name may have bytes that are no characters.
            place = f"{name}:{found.line}".encode(errors="backslashreplace").decode()
            identity = (found.kind, found.key)
            if identity in places:
                reason = f"{places[identity]} has it, so that in {place} is ignored"
                duplicates.add(Rejection(found.kind, found.key, "", reason))
                continue
            places[identity] = place
            values += found.values
            rejections += found.rejections
    return Combined(
        [value for value in values if isinstance(value, Service)],
        [value for value in values if isinstance(value, EndpointSlice)],
        {value.name: value for value in values if isinstance(value, Node)},
        rejections,
        frozenset(duplicates),
    )


def _of_kinds(rejections: Iterable[Rejection], *kinds: str) -> list[Rejection]:
    return [rejection for rejection in rejections if rejection.kind in kinds]
