"""The fixtures of the packet tests, and the node's state beside every failure."""

from __future__ import annotations

import functools
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol
from netns_tests.cluster import Cluster
from netns_tests.emulation import IS_EMULATED, each_seventh
from tests import hypothesis_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from netns_tests.cluster import ServiceUnderTest


# What the working tree's tests need on a machine, and the agent's image has no use for.
_NOT_IN_THE_IMAGE = frozenset({"ipset", "openssl", "sysctl"})
_IN_DOCKER = Path("/.dockerenv").exists()


def pytest_configure() -> None:
    hypothesis_profile.load()
    if os.geteuid() != 0 or not Path("/proc/net/ip_vs").exists():
        pytest.exit(
            "these tests need root on a kernel with IPVS: run them with `make netns-test`", returncode=2
        )
    # One process holds all namespaces, and the sockets of all servers in them.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose what is tried on an emulated processor, of each test something; who names a test gets all of it."""
    if not IS_EMULATED or config.option.keyword or any("::" in argument for argument in config.args):
        return
    choosing = [item for item in items if not item.get_closest_marker("chosen")]
    kept = dict(zip(choosing, each_seventh(item.nodeid for item in choosing), strict=True))
    config.hook.pytest_deselected(items=[item for item in choosing if not kept[item]])
    items[:] = [item for item in items if kept.get(item, True)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if _IN_DOCKER and isinstance(error, FileNotFoundError) and error.filename in _NOT_IN_THE_IMAGE:
        report.outcome = "skipped"
        report.longrepr = (
            str(item.path),
            item.location[1] or 0,
            f"Skipped: the image has no {error.filename}",
        )
        return report
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and report.when == "call" and isinstance(cluster, Cluster):
        report.sections.extend(cluster.state().items())
    return report


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.built(tmp_path_factory.mktemp("cluster")) as built:
        built.agent.start()
        yield built


@pytest.fixture
def new_service(cluster: Cluster) -> Iterator[Callable[..., ServiceUnderTest]]:
    """Make Services for one test."""
    services: list[ServiceUnderTest] = []

    def new(*pods: str) -> ServiceUnderTest:
        services.append(cluster.new_service(*pods))
        return services[-1]

    yield new
    if not cluster.agent.runs:
        cluster.agent.start()
    for service in services:
        service.remove()


@pytest.fixture(params=list(Family), ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    return cast("Family", request.param)


@pytest.fixture(params=[Protocol.TCP, Protocol.UDP], ids=lambda protocol: protocol.name)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return cast("Protocol", request.param)


@pytest.fixture(scope="module")
def service_of(cluster: Cluster) -> Callable[..., ServiceUnderTest]:
    """Make Services that the tests of a module share, one for each set of pods: no test may change them."""
    return functools.cache(cluster.new_service)
