"""The runner `docker`: a privileged container of the agent's image, on the kernel of a Docker that can be reached.

The container is started and followed by `docker_container`, which is the machine's process. Python, nft and all other
programs are the image's; the tests and what they import come from the working tree, which is mounted.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import docker
from docker.constants import DEFAULT_UNIX_SOCKET
from docker.errors import APIError, ContainerError, DockerException, ImageNotFound

from netns_tests.kernel.machine import Machine

if TYPE_CHECKING:
    from netns_tests.kernel.machine import Guest

# Whoever does not answer by then is no help; a container of a large image takes seconds to make.
_TIMEOUT = 60


def unreachable() -> str | None:
    """Return why there is no Docker to be used, None if it answers."""
    nobody = f"no Docker answers at {os.environ.get('DOCKER_HOST') or 'its usual socket'}"
    if not _listens(os.environ.get("DOCKER_HOST") or DEFAULT_UNIX_SOCKET):
        return nobody
    try:
        docker.from_env(timeout=_TIMEOUT).ping()
    except DockerException:
        return nobody
    return None


def _listens(host: str) -> bool:
    """Say whether somebody listens on a unix socket; of other addresses the client itself has to find out.

    The client leaves a socket open where nobody does.
    """
    scheme, _, path = host.partition("://")
    if not scheme.endswith("unix"):
        return True
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(f"/{path.lstrip('/')}") == 0


def without_image(image: str) -> str | None:
    """Return why there is no Docker with this image, None if there is."""
    if reason := unreachable():
        return reason
    try:
        docker.from_env(timeout=_TIMEOUT).images.get(image)
    except ImageNotFound:
        return f"Docker has no image {image}: `make image`, or `make image-rootfs image-import`, makes it"
    return None


def why_not(image: str) -> str | None:
    """Return why a container of this image can't be used, None if it can."""
    if reason := without_image(image):
        return reason
    try:
        # It needs IPVS, and says in one line what is missing.
        docker.from_env(timeout=_TIMEOUT).containers.run(
            image, ["dump"], privileged=True, network_mode="none", remove=True
        )
    except ContainerError as error:
        return f"Docker's kernel: {_last_line(error.stderr)}"
    except APIError as error:
        return f"Docker starts no privileged container: {error.explanation}"
    return None


def machine(image: str, guest: Guest) -> Machine:
    """Return the container of this image; nothing boots, so it starts within seconds."""
    python = ["{}.{}".format(*sys.version_info), sys.base_prefix]
    return Machine(
        f"a privileged container of {image}",
        [
            *(sys.executable, "-m", "netns_tests.kernel.docker_container"),
            *(image, str(guest.repository), str(guest.exchange / "alive")),
            *guest.argv("docker", *python),
        ],
    )


def _last_line(text: bytes) -> str:
    return next(reversed(text.decode(errors="replace").splitlines()), "(it says nothing)")
