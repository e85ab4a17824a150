"""The command line of `ipvsproxy completion`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments.parser import EXIT_CODES, Command

if TYPE_CHECKING:
    import argparse

    from ipvsproxy.cli.arguments.parser import Parser

_SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\
examples:
  ipvsproxy completion bash > /etc/bash_completion.d/ipvsproxy
  ipvsproxy completion zsh > /usr/local/share/zsh/site-functions/_ipvsproxy
  ipvsproxy completion fish > /etc/fish/completions/ipvsproxy.fish
"""


@dataclasses.dataclass(frozen=True, slots=True)
class CompletionArguments:
    """What `ipvsproxy completion` is asked to print: the script for this shell."""

    shell: str

    def execute(self) -> int:
        """Print the script."""
        from ipvsproxy.cli.completion import print_completion  # noqa: PLC0415 - imported late, as Arguments says

        return print_completion(self.shell)


def _read(namespace: argparse.Namespace, _: str) -> CompletionArguments:
    return CompletionArguments(namespace.shell)


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "shell",
        metavar="SHELL",
        choices=_SHELLS,
        help=f"the shell: {', '.join(_SHELLS[:-1])} or {_SHELLS[-1]}",
    )


COMMAND = Command(
    name="completion",
    summary="print a script that lets a shell complete ipvsproxy's commands and flags",
    usage="bash|zsh|fish",
    description="Print a script for a shell. With it the shell completes commands, flags, files and fixed values.",
    epilog=f"{_EPILOG}\n{EXIT_CODES}",
    add_flags=_add_flags,
    read=_read,
)
