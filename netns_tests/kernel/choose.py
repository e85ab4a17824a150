"""Which runner is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from netns_tests.kernel.machine import KernelRunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from netns_tests.kernel.machine import RunnerName


def choose(
    wanted: Literal["auto"] | RunnerName,
    why_not_host: Callable[[], str | None],
    why_not_docker: Callable[[], str | None],
    uml_kernel: Path | None,
) -> tuple[RunnerName, str]:
    """Return the runner and why it is taken.

    By itself: this machine's kernel where it can be used, else that of a Docker which has the image, else user-mode
    Linux where one is named, else virtme. `why_not_host` and `why_not_docker` are asked only when the answer matters.
    Raises KernelRunError when `wanted` can't be had.
    """
    if wanted == "uml" and uml_kernel is None:
        raise KernelRunError(
            "the runner uml needs a kernel: name one with --uml-kernel or IPVSPROXY_UML_KERNEL"
        )
    if wanted in {"uml", "virtme"}:
        return wanted, "it was asked for"
    if wanted == "docker":
        if reason := why_not_docker():
            raise KernelRunError(f"the runner docker can't be used: {reason}")
        return "docker", "it was asked for"
    reason = why_not_host()
    if reason is None:
        return "host", "it has IPVS"
    if wanted == "host":
        raise KernelRunError(f"the runner host can't be used: {reason}")
    if why_not_docker() is None:
        return "docker", f"{reason}, and Docker's has it"
    return ("virtme" if uml_kernel is None else "uml"), reason
