"""The command line of `ipvsproxy check`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments.parser import Command, OutputFormat, add_output
from ipvsproxy.cli.arguments.run import add_run_flags, read_layers

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ipvsproxy.cli.arguments.parser import Parser
    from ipvsproxy.config.settings import Config

_EPILOG = """\
What is expected of the node follows from the configuration: that of the running agent, or with --config or with flags
of `ipvsproxy run`, what these would give, or the defaults. --run-directory alone says which agent to ask.
Nothing is changed. What can't be looked at is said to be unknown.

examples:
  ipvsproxy check
  ipvsproxy check --config /var/lib/kube-proxy/config.conf
  ipvsproxy check -o json

exit codes:
  0    nothing is worse than info
  1    something is an error, or the command failed; the last line on standard error says why
  2    a flag, a file or a field is wrong; one line on standard error names it
  3    something is a warning, and nothing an error
  77   not permitted: the command needs root; one line on standard error says so
  130  interrupted
"""


@dataclasses.dataclass(frozen=True, slots=True)
class CheckArguments:
    """What `ipvsproxy check` is asked to do; `config` is what the flags give.

    `asks_agent`: the command line says nothing but which agent to ask, so the configuration of a running one counts.
    `manifests` is where the agent would have its objects from, None for an API server.
    """

    output: OutputFormat
    config: Config
    asks_agent: bool
    manifests: Path | None = None

    def execute(self) -> int:
        """Look at the node."""
        from ipvsproxy.cli.check import check  # noqa: PLC0415 - imported late, as Arguments says

        return check(self)


def _read(namespace: argparse.Namespace, hostname: str) -> CheckArguments:
    layers = read_layers(namespace, hostname)
    asks_agent = not (namespace.manifests or layers.say_more_than_whom_to_ask)
    return CheckArguments(namespace.output, layers.read().config, asks_agent, namespace.manifests)


def _add_flags(parser: Parser) -> None:
    add_output(parser, OutputFormat.TABLE, OutputFormat.JSON)
    add_run_flags(parser)


COMMAND = Command(
    name="check",
    summary="look whether this node is fit for the agent, and whether the agent is well",
    usage="[-o table|json] [--run-directory DIR] [--config FILE] [FLAG of run ...]",
    description="Look at the kernel, its settings and tables, at others who are in the way, and at the agent; each"
    "\nfinding says what it means and how to mend it. It works before the agent was ever here, and without it.",
    epilog=_EPILOG,
    add_flags=_add_flags,
    read=_read,
)
