"""Pictures of the programs at work, for the documents: `python -m netns_tests.screenshots DIRECTORY`, on a test kernel.

Each picture is what the real program shows in a terminal, on a node with real Services and traffic.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol, ServiceType, TrafficPolicy
from ipvsproxy.observe.agent_socket import ask_report
from netns_tests import manifests, others, tables
from netns_tests.cluster import Cluster
from netns_tests.deadline import await_that
from netns_tests.load import Load, Style
from netns_tests.manifests import PLAIN, Port, ServiceSpec
from netns_tests.servers import DATAGRAM_PORT, HTTP_PORT
from netns_tests.terminal import Terminal
from netns_tests.topology import Topology
from netns_tests.traffic import Connection, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.text import Text

HTTP = Port("http", 80, HTTP_PORT)
WEB = Target("10.96.0.10", 80)
LOAD_BALANCER = Target("198.19.0.10", 80)
DNS = Target("10.96.0.53", 53, Protocol.UDP)
FIREWALL = """
table inet filter {
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        ip daddr { 10.96.0.0/16, 198.19.0.10 } accept
    }
}
"""
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
    """A picture, how it comes about, and what it has to show; `goes_on` if the program does not end by itself."""

    name: str
    words: tuple[str, ...]
    columns: int
    rows: int
    shows: tuple[str, ...]
    goes_on: bool = False


PICTURES = (
    Picture("dump", ("dump",), 120, 60, ("DIFFERENCE",)),
    Picture("explain", ("explain", "outside", "to", "198.19.0.10:80"), 116, 60, ("result:",)),
    Picture("top", ("top",), 110, 12, ("  last ",), goes_on=True),
    Picture("check", ("check",), 116, 60, ("host-firewall",)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pictures into the directory; return 0."""
    parser = argparse.ArgumentParser(prog="python -m netns_tests.screenshots", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    directory: Path = parser.parse_args(arguments).directory
    directory.mkdir(parents=True, exist_ok=True)
    # The directory shows in a picture.
    scratch = Path("/run/node-a")
    scratch.mkdir()
    with Cluster.built(scratch, TOPOLOGY, sync_period="1h") as cluster:
        cluster.agent.flags = ("--conntrack-max-per-core=0", "--nodeport-addresses=198.51.100.0/24")
        cluster.agent.start()
        with _situation(cluster):
            for picture in PICTURES:
                if picture.name == "check":
                    _break_the_node(cluster)
                _draw(cluster, picture, directory / f"{picture.name}.svg")
                print(directory / f"{picture.name}.svg")
    return 0


@contextlib.contextmanager
def _situation(cluster: Cluster) -> Iterator[None]:
    """Let there be traffic, a drain, a Service without endpoints, one that is rejected, and a change by others."""
    web = ServiceSpec(
        type=ServiceType.LOAD_BALANCER,
        external_traffic_policy=TrafficPolicy.LOCAL,
        load_balancer_ips=("198.19.0.10",),
        external_ips=("203.0.113.9",),
    )
    serve = functools.partial(_serve, cluster)
    serve("web", WEB.address, HTTP._replace(node_port=30010), ("web-1", "web-2", "web-3", "web-4"), web)
    serve("kube-dns", DNS.address, Port("dns", 53, DATAGRAM_PORT, Protocol.UDP), ("web-5",))
    serve("api", "10.96.0.20", Port("https", 443, HTTP_PORT), ())
    serve("mail", "", Port("smtp", 25, HTTP_PORT), (), ServiceSpec(type=ServiceType.EXTERNAL_NAME))
    for target in (WEB, LOAD_BALANCER, DNS):
        is_bound = functools.partial(tables.has_address, cluster.node, target.address)
        await_that(is_bound, f"{target} is served")
    with contextlib.ExitStack() as stack:
        for _number in range(15):
            stack.enter_context(Connection(cluster["client"], WEB))
        for origin, target, style in (
            ("client", WEB, Style.KEPT_ALIVE),
            ("outside", LOAD_BALANCER, Style.EACH_ITS_OWN),
            ("client", DNS, Style.EACH_ITS_OWN),
        ):
            load = stack.enter_context(Load(cluster[origin], target, style, clients=1))
            load.go_on(100)
        serve("web", WEB.address, HTTP._replace(node_port=30010), ("web-1", "web-2", "web-3"), web)
        gone = (cluster["web-4"].addresses[Family.IPV4], HTTP_PORT)
        await_that(lambda: gone not in tables.serving(cluster.node)[WEB], "web-4 drains")
        ask_report(cluster.agent.run_directory)
        address = cluster["web-2"].addresses[Family.IPV4]
        others.delete_real_server(cluster.node, LOAD_BALANCER, address, HTTP_PORT)
        others.set_weight(cluster.node, WEB, address, HTTP_PORT, weight=5)
        yield


def _break_the_node(cluster: Cluster) -> None:
    """Change what the agent has set, and add a firewall, which lets the traffic pass all the same."""
    cluster.node.namespace.sysctl("net/ipv4/vs/expire_nodest_conn", "0")
    cluster.node.namespace.run("nft", "-f", "-", stdin=FIREWALL)


def _serve(
    cluster: Cluster, name: str, address: str, port: Port, pods: Sequence[str], spec: ServiceSpec = PLAIN
) -> None:
    """Write a Service with its endpoints; nothing is waited for."""
    endpoints = [cluster.endpoint(pod, Family.IPV4) for pod in pods]
    objects = [
        manifests.service(name, [address] if address else [], [port], spec),
        manifests.endpoint_slice(f"{name}-1", name, Family.IPV4, endpoints, [port]),
    ]
    if name == "kube-dns":
        for each in objects:
            each["metadata"]["namespace"] = "kube-system"
    cluster.agent.manifests.write(name, objects)


def _draw(cluster: Cluster, picture: Picture, file: Path) -> None:
    command = cluster.agent.command(*picture.words)
    with Terminal(command, picture.columns, picture.rows, cluster.node) as terminal:
        if not picture.goes_on:
            terminal.await_end()
        terminal.await_text(*picture.shows)
        lines = terminal.contents()
    file.write_text(_svg(picture, lines))


def _svg(picture: Picture, lines: Sequence[Text]) -> str:
    console = Console(record=True, width=picture.columns, file=io.StringIO(), force_terminal=True)
    for line in lines:
        *parts, last = _parts(line)
        for part in parts:
            console.print(part, soft_wrap=True, end="")
        console.print(last, soft_wrap=True)
    return console.export_svg(
        title=" ".join(("ipvsproxy", *picture.words)), code_format=_SVG, unique_id=picture.name
    )


def _parts(line: Text) -> Iterable[Text]:
    """Divide a line at its gaps, so that each column is put in its place, whatever the width of the font.

    Not all that draw SVG leave spaces as they are at the beginning of a text.
    """
    starts = [0, *(span.start for span in line.spans)]
    gaps = [match.span() for match in re.finditer(" {2,}", line.plain)]
    gaps += [(start, start + 1) for start in starts if line.plain[start : start + 1] == " "]
    return line.divide(sorted({offset for gap in gaps for offset in gap}))


if __name__ == "__main__":
    sys.exit(main())
