"""What tests of sources share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import builders
from tests.api_server import ApiServer
from tests.api_server_objects import endpoint, endpoint_slice, node, service

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Serve one Service, its EndpointSlice and two Nodes."""
    with ApiServer() as server:
        server.state.apply(node(builders.NODE))
        server.state.apply(node("node-b"))
        server.state.apply(service("web", "10.96.0.1"))
        server.state.apply(endpoint_slice("web-1", "web", endpoint("web-x", "10.128.0.1", "node-b")))
        yield server
