"""The command line of `ipvsproxy config`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments.parser import EXIT_CODES, Command, OutputFormat, add_output, readable
from ipvsproxy.cli.arguments.run import add_run_flags, read_layers

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from ipvsproxy.cli.arguments.parser import Parser
    from ipvsproxy.config.layers import Effective, Layers

_EPILOG = """\
Without flags it shows what the running agent goes by, as it says itself: a flag, the file as it was when the agent last
took it over, or the default. With --config or with flags of `ipvsproxy run`, it shows what these would give;
--run-directory alone says which agent to ask.

examples:
  ipvsproxy config show
  ipvsproxy config show -o json
  ipvsproxy config show --config /var/lib/kube-proxy/config.conf --ipvs-scheduler wlc
"""


@dataclasses.dataclass(frozen=True, slots=True)
class ConfigArguments:
    """What `ipvsproxy config show` is asked to show: what the flags give, or if there are none, what an agent has."""

    layers: Layers
    effective: Effective
    output: OutputFormat
    manifests: Path | None = None

    @property
    def asks_agent(self) -> bool:
        """Whether the command line says nothing but which agent to ask."""
        return not (self.manifests or self.layers.say_more_than_whom_to_ask)

    def execute(self) -> int:
        """Show it."""
        from ipvsproxy.cli.config import show_config  # noqa: PLC0415 - imported late, as Arguments says

        return show_config(self)


def _read(namespace: argparse.Namespace, hostname: str) -> ConfigArguments:
    layers = read_layers(namespace, hostname)
    return ConfigArguments(layers, layers.read(), namespace.output, namespace.manifests)


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "action",
        metavar="show",
        choices=("show",),
        type=readable(_read_action),
        help="show each setting, and where it comes from",
    )
    add_output(parser, OutputFormat.TABLE, OutputFormat.JSON, OutputFormat.YAML)
    add_run_flags(parser)


def _read_action(text: str) -> str:
    if text != "show":
        raise ValueError(f"the one action is `ipvsproxy config show`; {text!r} is none")
    return text


COMMAND = Command(
    name="config",
    summary="show the configuration in effect, and where each value comes from",
    usage="show [-o table|json|yaml] [--run-directory DIR | --config FILE | FLAG ...]",
    description="Show the configuration in effect: each setting, its value, and the flag, the field of the file or"
    "\nthe default that it comes from.",
    epilog=f"{_EPILOG}\n{EXIT_CODES}",
    add_flags=_add_flags,
    read=_read,
)
