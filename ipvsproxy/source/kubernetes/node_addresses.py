"""The addresses of all nodes of the cluster, so that no Service takes one of them over.

They are listed at the start and then now and then: a watch would bring every node the status updates of every other.
A Table (https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables) of 5,000 Nodes is
about 1 MB where the Nodes themselves are tens of them, and resourceVersion=0 lets the server answer from its memory.

A Table tells only the first InternalIP and the first ExternalIP of each Node. On a dual-stack cluster the addresses of
the second family stay unknown but for those of the own Node, which is watched.

Nothing waits for the first answer. Until it is here the addresses of the own Node and of the API server are reserved,
and a Service that claims another node's is planned anew once it is.
"""

from __future__ import annotations

import contextlib
import random
import threading
from typing import TYPE_CHECKING, Final

import msgspec
import tenacity

from ipvsproxy.source.decode import NotAskedForError, read_node
from ipvsproxy.source.fields import usable_address
from ipvsproxy.source.kubernetes import messages
from ipvsproxy.source.kubernetes.client import JSON, ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.source.kubernetes.client import ApiServer, Limits

_PATH: Final = "/api/v1/nodes"
# A server that makes no Tables sends a list.
_ACCEPT: Final = f"{JSON};as=Table;v=v1;g=meta.k8s.io,{JSON}"
_KINDS: Final = ("meta.k8s.io/v1/Table", "v1/NodeList")
# As they are called in pkg/printers/internalversion of Kubernetes.
_COLUMNS: Final = frozenset({"Internal-IP", "External-IP"})


class NodeAddresses:
    """Lists the addresses of all nodes again and again, in the thread that calls `run`."""

    def __init__(
        self,
        api: ApiServer,
        put: Callable[[Iterable[Address]], None],
        limits: Limits,
        stopping: threading.Event,
        log: FilteringBoundLogger,
    ) -> None:
        """Prepare; each complete answer goes to `put`, and `run` ends soon after `stopping` is set."""
        self._api = api
        self._put = put
        self._limits = limits
        self._stopping = stopping
        self._log = log
        self._failing = False
        self.asked = threading.Event()
        """Set once the first list has come, or has failed."""

    def run(self) -> None:
        """List until stopped. While that fails the last answer stays, and the pauses grow to the usual period."""
        attempts = tenacity.Retrying(
            wait=tenacity.wait_random_exponential(self._limits.first_pause, self._limits.node_addresses),
            sleep=tenacity.sleep_using_event(self._stopping),
            stop=tenacity.stop_when_event_set(self._stopping),
            retry_error_callback=lambda _: None,
        )
        while not self._stopping.is_set():
            attempts(self._list)
            # Random, so that nodes which started together do not ask together for ever.
            self._stopping.wait(self._limits.node_addresses * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    def _list(self) -> None:
        try:
            addresses = frozenset(self._pages())
            self._put(addresses)
        except Exception as error:
            if not self._stopping.is_set():
                self._report_failure(error)
            raise
        finally:
            self.asked.set()
        if self._failing:
            self._failing = False
            self._log.info("node addresses listed again", url=self._api.url)
        self._log.debug("node addresses listed", addresses=len(addresses))

    def _pages(self) -> Iterator[Address]:
        """Yield the addresses of a whole list; a server that answers from its memory sends it in one page."""
        query = {"includeObject": "None", "limit": str(self._limits.page)}
        place = {"resourceVersion": "0"}
        while place:
            with self._api.get(_PATH, query | place, self._limits.answer, _ACCEPT) as response:
                page = messages.read_page(response.read(), *_KINDS)
            yield from _of_table(page) if page.is_table else _of_list(page)
            place = {"continue": page.metadata.continue_} if page.metadata.continue_ else {}

    def _report_failure(self, error: Exception) -> None:
        """Log the first of a row of failures."""
        if not self._failing:
            log = self._log.bind(url=self._api.url, reason=str(error))
            if isinstance(error, ApiError | msgspec.DecodeError | NotAskedForError):
                log.warning("node addresses not listed")
            else:
                log.error("node addresses failed unexpectedly", exc_info=error)
        self._failing = True


def _of_table(table: messages.Page) -> Iterator[Address]:
    columns = [index for index, column in enumerate(table.column_definitions) if column.name in _COLUMNS]
    if not columns:
        raise ApiError("the table of the nodes has no column of their addresses")
    for row in table.entries:
        # A row or cell that can't be read is one node's; "<none>" is no address either.
        with contextlib.suppress(msgspec.DecodeError):
            cells = messages.read_row(row).cells
            for cell in (cells[index] for index in columns if index < len(cells)):
                with contextlib.suppress(ValueError):
                    yield usable_address(cell if isinstance(cell, str) else "")


def _of_list(nodes: messages.Page) -> Iterator[Address]:
    for document in nodes.entries:
        node, _ = read_node(document)
        yield from node.addresses if node else ()
