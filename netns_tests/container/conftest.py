"""The image under test, and containers of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from ipvsproxy import __version__
from netns_tests.deadline import PATIENCE
from netns_tests.kernel import docker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Testcontainers' own clean-up is one more image; the containers of these tests are removed by the fixtures.
testcontainers_config.ryuk_disabled = True


class Ended(NamedTuple):
    """How a container ended."""

    code: int
    output: str
    errors: str


@pytest.fixture(scope="session")
def image() -> str:
    name = os.environ.get("IPVSPROXY_IMAGE") or f"ipvsproxy:{__version__}"
    if reason := docker.without_image(name):
        pytest.skip(f"{reason}; `make container-test` brings what is needed")
    return name


class Containers:
    """Containers of the image that run until the end of a `with`."""

    def __init__(self, image: str) -> None:
        """Take the image's name; there are none yet."""
        self._image = image
        self._containers: list[DockerContainer] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove all of them, the last one first."""
        for container in reversed(self._containers):
            container.stop()

    def start(
        self, *command: str, volumes: Iterable[tuple[str, str, str]] = (), **how: object
    ) -> DockerContainer:
        """Start one; `how` is in the words of Docker's SDK for Python."""
        container = DockerContainer(self._image, volumes=list(volumes)).with_command(list(command))
        container.with_kwargs(**how)
        self._containers.append(container)
        return container.start()

    def run(self, *command: str, volumes: Iterable[tuple[str, str, str]] = ()) -> Ended:
        """Run one to its end, without a network or privileges."""
        container = self.start(*command, volumes=volumes, network_mode="none")
        code = container.get_wrapped_container().wait(timeout=PATIENCE)["StatusCode"]
        output, errors = container.get_logs()
        return Ended(code, output.decode(), errors.decode())


@pytest.fixture(scope="module")
def containers(image: str) -> Iterator[Containers]:
    with Containers(image) as containers:
        yield containers
