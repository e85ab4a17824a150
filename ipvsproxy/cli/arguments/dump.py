"""The command line of `ipvsproxy dump`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments.parser import (
    EXIT_CODES,
    Command,
    OutputFormat,
    add_output,
    add_run_directory,
    read_object_key,
    readable,
)

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ipvsproxy.cli.arguments.parser import Parser
    from ipvsproxy.model.objects import ObjectKey

_EPILOG = """\
examples:
  ipvsproxy dump
  ipvsproxy dump -o yaml --service kube-system/kube-dns
"""


@dataclasses.dataclass(frozen=True, slots=True)
class DumpArguments:
    """What `ipvsproxy dump` is asked to show; `service` None: all of them."""

    output: OutputFormat
    service: ObjectKey | None
    run_directory: Path

    def execute(self) -> int:
        """Show it."""
        from ipvsproxy.cli.dump import dump  # noqa: PLC0415 - imported late, as Arguments says

        return dump(self)


def _read(namespace: argparse.Namespace, _hostname: str) -> DumpArguments:
    return DumpArguments(namespace.output, namespace.service, namespace.run_directory)


def _add_flags(parser: Parser) -> None:
    add_output(parser, *OutputFormat)
    parser.add_argument(
        "--service",
        metavar="NAMESPACE/NAME",
        type=readable(read_object_key),
        help="this Service only; a NAME alone is of the namespace default (default: all Services)",
    )
    add_run_directory(parser)


COMMAND = Command(
    name="dump",
    summary="show what is programmed into this node's kernel, and whether it is what should be",
    usage="[-o table|wide|json|yaml] [--service NAMESPACE/NAME] [--run-directory DIR]",
    description="Show what is programmed into this node's kernel, beside what the agent wants there, what drains"
    "\nand what it rejected, with reasons. Without an agent that runs, show the kernel's state alone.",
    epilog=f"{_EPILOG}\n{EXIT_CODES}",
    add_flags=_add_flags,
    read=_read,
)
