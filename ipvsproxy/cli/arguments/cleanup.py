"""The command line of `ipvsproxy cleanup`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments.parser import Command, add_run_directory

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ipvsproxy.cli.arguments.parser import Parser

_EPILOG = """\
examples:
  ipvsproxy cleanup --dry-run
      show what is ipvsproxy's on this node
  ipvsproxy cleanup --yes
      remove it without a question, after the agent was stopped
  ipvsproxy cleanup --kube-proxy
      show what kube-proxy left, ask, and remove it, while the agent serves on

exit codes:
  0    done, or nothing was there to remove
  1    something stays, or the answer was no; standard error says what and why
  2    a flag is wrong, or there is no terminal to ask on; one line on standard error says so
  77   not permitted: the command needs root; one line on standard error says so
  130  interrupted: run it again, it goes on where it was
"""


@dataclasses.dataclass(frozen=True, slots=True)
class CleanupArguments:
    """What `ipvsproxy cleanup` is asked to remove: what is ours, or what kube-proxy left."""

    kube_proxy: bool
    dry_run: bool
    yes: bool
    run_directory: Path

    def execute(self) -> int:
        """Remove it."""
        from ipvsproxy.cli.cleanup import cleanup  # noqa: PLC0415 - imported late, as Arguments says

        return cleanup(self)


def _read(namespace: argparse.Namespace, _hostname: str) -> CleanupArguments:
    return CleanupArguments(namespace.kube_proxy, namespace.dry_run, namespace.yes, namespace.run_directory)


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "--kube-proxy",
        action="store_true",
        help="in place of what is ipvsproxy's, remove what kube-proxy left: its chains, ipsets and tables, "
        "and the virtual servers that no agent has",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="show it, and change nothing")
    how.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_run_directory(parser)


COMMAND = Command(
    name="cleanup",
    summary="remove what is ipvsproxy's on this node, or what kube-proxy left",
    usage="[--kube-proxy] [--dry-run | --yes] [--run-directory DIR]",
    description="Remove exactly what is ipvsproxy's on this node, after showing it: virtual servers, service addresses,"
    "\nthe interface kube-ipvs0 and the nftables table inet ipvsproxy. Refused while the agent runs."
    "\nWith --kube-proxy, remove what kube-proxy left instead; the agent may run, and should.",
    epilog=_EPILOG,
    add_flags=_add_flags,
    read=_read,
)
