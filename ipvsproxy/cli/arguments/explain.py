"""The command line of `ipvsproxy explain`."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments.parser import (
    Command,
    OutputFormat,
    add_output,
    add_run_directory,
    add_setting,
    read_object_key,
)
from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.errors import UsageError
from ipvsproxy.model.addresses import parse_address
from ipvsproxy.model.ipvs import VirtualServerKey
from ipvsproxy.model.objects import Protocol
from ipvsproxy.observe.clients import HostAt, HostOutside, PodNamed, ProcessOfNode, ServiceNamed

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ipvsproxy.cli.arguments.parser import Parser
    from ipvsproxy.observe.clients import Client

_EPILOG = """\
CLIENT is an IP address, `node` for a process of this node, `outside` for any host outside the cluster, or
`pod NAMESPACE/NAME`, which the API server is asked for. The protocol is tcp unless /udp or /sctp follows the port.
Of a Service, named by NAMESPACE/SERVICE and the name or number of a port, the address is taken by which such a client
connects: the clusterIP, but for `outside` and hosts outside the cluster the load balancer's IP, the external IP or the
node port. Instead of `to` there may be '->' in quotes, or nothing.

examples:
  ipvsproxy explain outside 10.96.0.10:80
  ipvsproxy explain outside to default/web:http
  ipvsproxy explain 2001:db8:7::1 to '[2001:db8::10]:443'
  ipvsproxy explain pod default/web-1 to 10.96.0.10:53/udp --kubeconfig /etc/kubernetes/kubelet.conf
  ipvsproxy explain 'node -> 10.96.0.1:443' -o json

exit codes:
  0    every endpoint that may be chosen answers, or the node itself does
  1    the packet, or that to some endpoint, is refused or dropped, or may be by a rule that can't be followed, or the
       agent wants something else of it; or the command failed, and the last line on standard error says why
  2    a word is wrong, or nobody has the address, or there is no such Service or port; one line on standard error
       says so
  77   not permitted: the command needs root; one line on standard error says so
  130  interrupted
"""
_DESTINATION = re.compile(
    r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<ipv4>[^:/]*)):(?P<port>[0-9]{1,5})(?:/(?P<protocol>[a-z]+))?"
)
# A port's name has a letter (IANA_SVC_NAME, RFC 6335).
_SERVICE = re.compile(
    r"(?P<name>[a-z0-9-]+/[a-z0-9-]+)(?::(?P<port>[a-z0-9-]+))?(?:/(?P<protocol>[A-Za-z]+))?"
)
_LAST_PORT = 65535
# The first bytes of multicast addresses, by the length of an address.
_MULTICAST = {4: range(224, 240), 16: range(255, 256)}
_BROADCAST = parse_address("255.255.255.255")


@dataclasses.dataclass(frozen=True, slots=True)
class ExplainArguments:
    """What `ipvsproxy explain` is asked: what becomes of a client's packet to an address and port, or to a Service."""

    client: Client
    destination: VirtualServerKey | ServiceNamed
    output: OutputFormat
    kubeconfig: Path | None
    run_directory: Path

    def execute(self) -> int:
        """Find it out, and say it."""
        from ipvsproxy.cli.explain import explain_packet  # noqa: PLC0415 - imported late, as Arguments says

        return explain_packet(self)


def read_question(text: str) -> tuple[Client, VirtualServerKey | ServiceNamed]:
    """Read `CLIENT to DESTINATION`; ValueError says what is wrong."""
    words = [word for word in text.replace("->", " ").split() if word != "to"]
    if words and words[-1] == "-":
        raise ValueError(
            "the shell took the > of -> for a redirection, into a file named like the destination: "
            "write `to` instead, or quote the arrow"
        )
    match words:
        case ["pod", name, destination]:
            return PodNamed(read_object_key(name)), read_destination(destination)
        case [client, destination]:
            return _read_client(client), read_destination(destination)
    raise ValueError(f"{text!r} is not CLIENT to ADDRESS:PORT or CLIENT to NAMESPACE/SERVICE")


def read_destination(text: str) -> VirtualServerKey | ServiceNamed:
    """Read `ADDRESS:PORT`, with brackets around an IPv6 address, or `NAMESPACE/SERVICE[:PORT]`.

    /PROTOCOL may follow.
    """
    protocols = {protocol.name.lower(): protocol for protocol in Protocol}
    service = _SERVICE.fullmatch(text)
    if service and (service["protocol"] or "tcp").lower() in protocols:
        key = read_object_key(service["name"])
        return ServiceNamed(key, service["port"] or "", protocols.get((service["protocol"] or "").lower()))
    found = _DESTINATION.fullmatch(text.lower())
    if not found or (found["protocol"] or "tcp") not in protocols:
        raise ValueError(
            f"{text!r} is not ADDRESS:PORT, [IPV6-ADDRESS]:PORT, NAMESPACE/SERVICE or NAMESPACE/SERVICE:PORT, "
            "or one of these with /udp or /sctp"
        )
    port = int(found["port"])
    if not 1 <= port <= _LAST_PORT:
        raise ValueError(f"{text!r}: a port is from 1 to {_LAST_PORT}")
    return VirtualServerKey(
        parse_address(found["ipv6"] or found["ipv4"]), protocols[found["protocol"] or "tcp"], port
    )


def _read_client(text: str) -> Client:
    if text == "node":
        return ProcessOfNode()
    if text == "outside":
        return HostOutside()
    try:
        address = parse_address(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no client: an IP address, node, outside, or pod NAMESPACE/NAME"
        ) from None
    if not any(address) or address[0] in _MULTICAST[len(address)] or address == _BROADCAST:
        raise ValueError(f"{text!r} is no client: no host sends from that address")
    return HostAt(address)


def _read(namespace: argparse.Namespace, _hostname: str) -> ExplainArguments:
    try:
        client, destination = read_question(" ".join((*namespace.words, namespace.arrow)).strip())
    except ValueError as error:
        raise UsageError(str(error)) from None
    kubeconfig = getattr(namespace, "kubeconfig", None)
    return ExplainArguments(client, destination, namespace.output, kubeconfig, namespace.run_directory)


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "words", metavar="CLIENT to DESTINATION", nargs="+", help="who connects, and what to; see below"
    )
    # As a word of its own it looks like a flag; what follows it is the address then.
    parser.add_argument("->", dest="arrow", metavar="DESTINATION", default="", help="instead of `to`")
    add_output(parser, OutputFormat.TABLE, OutputFormat.JSON)
    add_setting(parser, SETTINGS["kubeconfig"])
    add_run_directory(parser)


COMMAND = Command(
    name="explain",
    summary="say what becomes of a client's packet to an address and port, step by step, and why",
    usage="CLIENT to ADDRESS:PORT|NAMESPACE/SERVICE[:PORT] [-o table|json] [--kubeconfig FILE] [--run-directory DIR]",
    description="Follow the first packet of a connection through this node's kernel as it is now, with the rule and\n"
    "the entry behind each step, and say who answers it and which source they see, or why nobody does;\n"
    "and where the agent wants something else. Nothing is sent, and nothing is changed.",
    epilog=_EPILOG,
    add_flags=_add_flags,
    read=_read,
)
