"""The command line of `ipvsproxy dump`."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, NamedTuple

from ipvsproxy.cli.arguments.parser import (
    Command,
    OutputFormat,
    add_output,
    add_run_directory,
    add_service,
    readable,
)
from ipvsproxy.errors import UsageError
from ipvsproxy.model.addresses import parse_address
from ipvsproxy.model.objects import Protocol

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ipvsproxy.cli.arguments.parser import Parser
    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.objects import ObjectKey

_EPILOG = """\
What is given together has to fit together: --service default/web --endpoint 10.244.1.7 shows this endpoint's part of
this Service. --service needs an agent that runs.

examples:
  ipvsproxy dump
      everything that is programmed, and everything that is not as it should be
  ipvsproxy dump -o wide --service kube-system/kube-dns
      one Service with its addresses, set elements and the endpoints that do not serve
  ipvsproxy dump --address 10.96.0.10:80
      what there is at an address of a Service, also one that was rejected
  ipvsproxy dump --endpoint 10.244.1.7
      which Services send connections to a pod, and which do not, with the reason
  ipvsproxy dump --diff || echo "the kernel differs"
  ipvsproxy dump --bundle node-a.tar.gz
      collect what a bug report needs
  kubectl exec POD -- ipvsproxy dump --bundle - > node-a.tar.gz

exit codes:
  0    done; with --diff: nothing differs
  1    it failed, and the last line on standard error says why; with --diff also: something differs
  2    a flag is wrong, or nobody has the Service, the address or the endpoint; one line on standard error says which
  77   not permitted: the command needs root; one line on standard error says so
  130  interrupted
"""
# An endpoint as it is printed: ADDRESS:PORT/PROTOCOL, with brackets around an IPv6 address.
_PLACE = re.compile(
    r"(?:\[(?P<ipv6>[^\]]*:[^\]]*)\]|(?P<ipv4>[^:\[\]/]*)):(?P<port>[0-9]{1,5})(?:/(?P<protocol>tcp|udp|sctp))?"
)
_MAXIMUM_PORT = 65535


class ServicePlace(NamedTuple):
    """What `--address` names: an address, with a port and a protocol if only those are meant."""

    address: Address
    port: int | None = None
    protocol: Protocol | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class DumpArguments:
    """What `ipvsproxy dump` is asked to show; None where nothing is asked for.

    `bundle` is the file that is written instead, `-` for standard output.
    """

    output: OutputFormat
    service: ObjectKey | None
    run_directory: Path
    address: ServicePlace | None = None
    endpoint: Address | None = None
    diff: bool = False
    bundle: str | None = None

    def execute(self) -> int:
        """Show it."""
        from ipvsproxy.cli.dump import dump  # noqa: PLC0415 - imported late, as Arguments says

        return dump(self)


def read_place(text: str) -> ServicePlace:
    """Read ADDRESS, ADDRESS:PORT or ADDRESS:PORT/PROTOCOL; an IPv6 address before a port is in brackets."""
    wrong = f"{text!r} is not ADDRESS or ADDRESS:PORT, as in 10.96.0.10:80 or [fd00::10]:80"
    found = _PLACE.fullmatch(text)
    try:
        if found is None:
            return ServicePlace(parse_address(text))
        address, port = parse_address(found["ipv6"] or found["ipv4"]), int(found["port"])
    except ValueError:
        raise ValueError(wrong) from None
    if not 0 < port <= _MAXIMUM_PORT:
        raise ValueError(wrong)
    return ServicePlace(address, port, Protocol[found["protocol"].upper()] if found["protocol"] else None)


def _read_file(text: str) -> str:
    if not text:
        raise ValueError("'' is not the name of a file")
    return text


def _read(namespace: argparse.Namespace, _hostname: str) -> DumpArguments:
    arguments = DumpArguments(
        namespace.output,
        namespace.service,
        namespace.run_directory,
        namespace.address,
        namespace.endpoint,
        namespace.diff,
        namespace.bundle,
    )
    alone = DumpArguments(OutputFormat.TABLE, None, namespace.run_directory, bundle=namespace.bundle)
    if namespace.bundle is not None and arguments != alone:
        raise UsageError("--bundle takes everything: it goes without any other flag but --run-directory")
    return arguments


def _add_flags(parser: Parser) -> None:
    add_output(parser, *OutputFormat)
    add_service(parser)
    parser.add_argument(
        "--address",
        metavar="ADDRESS[:PORT]",
        type=readable(read_place),
        help="only what is at this address of Services, or of the node; [ADDRESS]:PORT for IPv6",
    )
    parser.add_argument(
        "--endpoint",
        metavar="ADDRESS",
        type=readable(parse_address),
        help="only what concerns the endpoint, or real server, of this address",
    )
    parser.add_argument(
        "--diff",
        action="store_true",
        help="only what differs from what the agent wants; exit code 1 if anything does",
    )
    parser.add_argument(
        "--bundle",
        metavar="FILE",
        type=readable(_read_file),
        help="write an archive for a bug report instead, states, rules, versions and recent events, to a new FILE "
        "(.tar.gz), or to standard output if FILE is -",
    )
    add_run_directory(parser)


COMMAND = Command(
    name="dump",
    summary="show what is programmed into this node's kernel, and whether it is what should be",
    usage="[-o table|wide|json|yaml] [--service NAMESPACE/NAME] [--address ADDRESS[:PORT]]\n"
    "                      [--endpoint ADDRESS] [--diff] [--bundle FILE] [--run-directory DIR]",
    description="Show what is programmed into this node's kernel, beside what the agent wants there, what drains"
    "\nand what it rejected, with reasons. Without an agent that runs, show the kernel's state alone.",
    epilog=_EPILOG,
    add_flags=_add_flags,
    read=_read,
)
