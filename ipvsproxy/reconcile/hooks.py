"""Whom the loop tells of what it does."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from ipvsproxy.model.objects import ObjectKey
    from ipvsproxy.model.reasons import Rejection
    from ipvsproxy.plan.node import NodeFacts
    from ipvsproxy.plan.services import HealthCheck
    from ipvsproxy.plan.view import Round
    from ipvsproxy.reconcile.apply import Shuffle

Arguments = TypeVarTuple("Arguments")
Answer = TypeVar("Answer")


class Hooks(NamedTuple):
    """Whom the loop tells of what it does; all are called in its thread, and none may take long.

    `kube_proxy_is_here` says whether kube-proxy's own records are on the node: its virtual servers explain themselves
    then. `prepare` is called once before anything is written, `succeeded` when everything was compared with the kernel,
    `observe` after each round. `shuffle` puts real servers that come into the order in which schedulers begin with
    them.
    """

    prepare: Callable[[], None] = lambda: None
    succeeded: Callable[[], None] = lambda: None
    rejected: Callable[[Rejection], None] = lambda _: None
    kube_proxy_is_here: Callable[[], bool] = lambda: False
    health_check_changed: Callable[[ObjectKey, HealthCheck | None], None] = lambda *_: None
    node_changed: Callable[[NodeFacts], None] = lambda _: None
    observe: Callable[[Round], None] = lambda _: None
    shuffle: Shuffle = random.shuffle


def tell(
    log: FilteringBoundLogger, hook: Callable[[Unpack[Arguments]], Answer], *arguments: *Arguments
) -> Answer | None:
    """Call a hook and return its answer; what goes wrong there is no reason to leave the kernel alone, and is None."""
    try:
        return hook(*arguments)
    except Exception:
        log.exception("hook of the reconciler failed", hook=str(hook))
        return None
