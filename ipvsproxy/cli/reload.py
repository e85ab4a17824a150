"""The configuration of the running agent: what is in effect, and what becomes of a file that is read again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ipvsproxy.config.document import configz
from ipvsproxy.config.reload import decide
from ipvsproxy.errors import UsageError
from ipvsproxy.observe.configuration import configuration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.config.layers import Effective, Layers
    from ipvsproxy.config.reload import Change
    from ipvsproxy.config.settings import Config
    from ipvsproxy.observe.configuration import Configuration


class RunningConfiguration:
    """Read again by one thread, asked by any."""

    def __init__(
        self, layers: Layers, effective: Effective, manifests: Path | None, log: FilteringBoundLogger
    ) -> None:
        """Begin with what was read at the start."""
        self._layers = layers
        self._manifests = manifests
        self._log = log
        self._lock = threading.Lock()
        self._read = self._effective = effective
        self._waiting: tuple[Change, ...] = ()
        self._error = ""

    def configz(self) -> dict[str, object]:
        """Return it as /configz shows it."""
        return configz(self._effective)

    def answer(self) -> Configuration:
        """Return it for the agent's socket."""
        with self._lock:
            effective, waiting, error = self._effective, self._waiting, self._error
        return configuration(effective, self._layers.file, self._manifests, waiting, error)

    def reload(self, apply: Callable[[Config], None], *, asked: bool = False) -> None:
        """Read the file again; call `apply` with what the agent is to go by from now on, if that is something else.

        A file that is wrong changes nothing. What is said of a file is said once, unless somebody `asked`.
        """
        log = self._log.bind(file=str(self._layers.file))
        error = ""
        try:
            read = self._layers.read()
        except UsageError as refusal:
            read, error = self._read, str(refusal)
        is_news = asked or (read, error) != (self._read, self._error)
        result = decide(self._effective, read)
        if result.live:
            apply(result.effective.config)
        with self._lock:
            self._read, self._error = read, error
            self._effective, self._waiting = result.effective, result.restart
        if not is_news:
            return
        if error:
            log.error("configuration refused, the one before stays in effect", reason=error)
            return
        for change in result.live:
            log.info("configuration changed", setting=str(change.setting), old=change.old, new=change.new)
        for change in result.restart:
            log.warning(
                "restart needed",
                setting=str(change.setting),
                old=change.old,
                new=change.new,
                meaning="the agent takes this over when it starts, until then the old value holds",
            )
        if read.ignored:
            log.warning("configuration fields without effect", fields=list(read.ignored))
        if read.remarks:
            log.warning("configuration passed over in part", remarks=list(read.remarks))
        log.info(
            "configuration read again", changed=len(result.live), waiting_for_restart=len(result.restart)
        )
