"""Where the tests of the image can run."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Place(enum.Enum):
    """Whose Docker and whose kernel."""

    HERE = "with this machine's Docker"
    """A Docker can be reached, and this machine's kernel, which is Docker's, has IPVS."""
    TEST_KERNEL = "with a Docker in a test kernel"
    """User-mode Linux, in which a Docker of its own is started."""
    NOWHERE = "not at all"


class Found(NamedTuple):
    """A place, and why it is taken: what is in the way of those before it."""

    place: Place
    reason: str


def find(
    docker_unreachable: Callable[[], str | None],
    no_ipvs_here: Callable[[], str | None],
    uml_kernel: Path | None,
    dockerd: str | None,
) -> Found:
    """Return where to run: here if there is all that is needed, else in user-mode Linux if Docker can run in it.

    The first two return a reason, or None if it is there; `uml_kernel` and `dockerd` are programs, None without them.
    """
    reason = docker_unreachable() or no_ipvs_here()
    if reason is None:
        return Found(Place.HERE, "Docker answers, and the kernel has IPVS")
    if uml_kernel is None:
        return Found(Place.NOWHERE, f"{reason}, and no user-mode kernel is named (IPVSPROXY_UML_KERNEL)")
    if dockerd is None:
        return Found(
            Place.NOWHERE,
            f"{reason}, and dockerd is not installed for the test kernel: "
            "apt-get install docker.io, which starts it here, too",
        )
    return Found(Place.TEST_KERNEL, reason)


def missing_packages(
    find_place: Callable[[str | None], Found],
    which: Callable[[str], str | None],
    *,
    starts_services: bool,
) -> list[str]:
    """Return the Debian packages without which there is no place, or no image; none where packages do not help.

    `find_place` is `find` for a given dockerd, `which` returns where a program is. Where installing a service starts
    it, a Docker would change the machine's own network: that is left to its owner.
    """
    place = find_place(which("dockerd") if starts_services else "dockerd").place
    packages = {"mmdebstrap": "mmdebstrap", "dockerd": "docker.io"}
    needed = {
        Place.HERE: ["mmdebstrap"],
        Place.TEST_KERNEL: ["mmdebstrap", "dockerd"],
        Place.NOWHERE: [],
    }
    return [packages[program] for program in needed[place] if which(program) is None]
