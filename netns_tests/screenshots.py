"""Pictures of the programs at work, for the documents: `python -m netns_tests.screenshots DIRECTORY`, on a test kernel.

Each picture is what the real program shows in a terminal, on a node with real Services and traffic.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol, ServiceType, TrafficPolicy
from netns_tests import others
from netns_tests.cluster import Cluster, ServiceUnderTest
from netns_tests.load import Load, Style
from netns_tests.manifests import Port
from netns_tests.servers import DATAGRAM_PORT, HTTP_PORT
from netns_tests.terminal import Terminal
from netns_tests.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text

TOPOLOGY = Topology(
    nodes={"node-a": ("web-1", "web-2", "client"), "node-b": ("web-3", "web-4", "web-5")},
    outside=("outside",),
)

# As rich's CONSOLE_SVG_FORMAT, without the font that a browser would have to fetch.
_SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <style>
    .{unique_id}-matrix {{
        font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
        font-size: {char_height}px;
        line-height: {line_height}px;
        font-variant-east-asian: full-width;
    }}
    .{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
    </g>
</svg>
"""


class Picture(NamedTuple):
    """A picture, and how it comes about; a program that goes on is left with `q` once `shows` is on the screen."""

    name: str
    words: tuple[str, ...]
    columns: int
    rows: int
    shows: tuple[str, ...] = ()


PICTURES = (
    Picture("dump", ("dump",), 130, 60),
    Picture("explain", ("explain", "outside", "192.0.2.10:80"), 110, 80),
    Picture("top", ("top",), 120, 24, ("default/web",)),
    Picture("check", ("check",), 110, 60),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures into the directory; return 0."""
    parser = argparse.ArgumentParser(prog="python -m netns_tests.screenshots", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    directory: Path = parser.parse_args(arguments).directory
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, Cluster.built(Path(scratch), TOPOLOGY) as cluster:
        cluster.agent.start()
        with _situation(cluster):
            for picture in PICTURES:
                _draw(cluster, picture, directory / f"{picture.name}.svg")
                print(directory / f"{picture.name}.svg")
    return 0


@contextlib.contextmanager
def _situation(cluster: Cluster) -> Iterator[None]:
    """Let there be traffic, a drain, a Service without endpoints, and something that others changed."""
    web = _service(cluster, "web", 10, [Port("http", 80, HTTP_PORT)])
    web.become(ServiceType.LOAD_BALANCER, external_traffic_policy=TrafficPolicy.LOCAL)
    web.set_endpoints("web-1", "web-2", "web-3", "web-4")
    dns = _service(cluster, "dns", 11, [Port("dns", 53, DATAGRAM_PORT, Protocol.UDP)])
    dns.set_endpoints("web-5")
    _service(cluster, "api", 12, [Port("https", 443, HTTP_PORT)]).set_endpoints()
    client = cluster["client"]
    with (
        Load(client, web.target(Family.IPV4), Style.KEPT_ALIVE) as kept,
        Load(client, web.target(Family.IPV6), Style.EACH_ITS_OWN) as new,
    ):
        for load in (kept, new):
            load.go_on(300)
        web.set_endpoints("web-1", "web-2", "web-3")
        address = cluster["web-2"].addresses[Family.IPV4]
        others.delete_real_server(cluster.node, web.target(Family.IPV4), address, HTTP_PORT)
        yield


def _service(cluster: Cluster, name: str, number: int, ports: Sequence[Port]) -> ServiceUnderTest:
    addresses = {Family.IPV4: f"10.96.0.{number}", Family.IPV6: f"fd00:10:96::{number:x}"}
    return ServiceUnderTest(cluster, name, addresses, ports, number=number)


def _draw(cluster: Cluster, picture: Picture, file: Path) -> None:
    command = cluster.agent.command(*picture.words)
    with Terminal(command, picture.columns, picture.rows, cluster.node) as terminal:
        if picture.shows:
            terminal.await_text(*picture.shows)
        else:
            terminal.await_end()
        lines = terminal.contents()
    file.write_text(_svg(picture, lines))


def _svg(picture: Picture, lines: Sequence[Text]) -> str:
    console = Console(record=True, width=picture.columns, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(line, soft_wrap=True)
    return console.export_svg(
        title=" ".join(("ipvsproxy", *picture.words)), code_format=_SVG, unique_id=picture.name
    )


if __name__ == "__main__":
    sys.exit(main())
