"""The command line: from the words to typed values, or to one line that says which word is wrong.

Each command is declared in a module of its own; COMMANDS has them in the order of the help.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ipvsproxy import __version__
from ipvsproxy.cli.arguments import check, cleanup, completion, config, dump, explain, resync, run, top
from ipvsproxy.cli.arguments.parser import EXIT_CODES, Parser

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipvsproxy.cli.arguments.parser import Arguments

COMMANDS = (
    run.COMMAND,
    dump.COMMAND,
    explain.COMMAND,
    config.COMMAND,
    top.COMMAND,
    check.COMMAND,
    resync.COMMAND,
    cleanup.COMMAND,
    completion.COMMAND,
)

_HELP = "help"

_EXAMPLES = """\
examples:
  ipvsproxy run --config /var/lib/kube-proxy/config.conf
      take kube-proxy's place with its own configuration
  ipvsproxy run --manifests ./manifests --hostname-override node-1
      take the objects from YAML files, without an API server
  ipvsproxy dump -o wide
      show what the agent has programmed, and what it rejected
  ipvsproxy config show
      show what the agent is set to, and by which flag or field
"""


def parse(argv: Sequence[str], hostname: str | None = None) -> Arguments:
    """Return what the words after the program's name ask for; `hostname` is the host's own name.

    SystemExit with code 2 after one line on standard error if a word is wrong, and with code 0 after --help or
    --version. UsageError if the configuration file is wrong, or settings contradict each other.
    """
    top, commands = parsers()
    # `ipvsproxy help dump` is `ipvsproxy dump --help`.
    words = [*argv[1:], "--help"] if argv[:1] == [_HELP] else argv
    namespace, unknown = top.parse_known_args([_with_dashes(word) for word in words])
    if unknown:
        commands.get(namespace.command, top).refuse(unknown[0])
    if namespace.command is None:
        *others, last = commands
        top.error(f"a command is missing: {', '.join(others)} or {last}; {top.prog} --help describes them")
    (chosen,) = (command for command in COMMANDS if command.name == namespace.command)
    return chosen.read(namespace, hostname or os.uname().nodename)


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """Return the parser of the whole command line, and those of the commands by their names."""
    top = Parser(
        "ipvsproxy",
        "%(prog)s COMMAND [FLAG ...]",
        "The node agent that programs the kernel's IPVS load balancer from Kubernetes Services.",
        f"{_EXAMPLES}\n{EXIT_CODES}",
    )
    top.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}", help="print the version"
    )
    subparsers = top.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    commands = {}
    for command in COMMANDS:
        parser = commands[command.name] = subparsers.add_parser(
            command.name,
            prog=f"ipvsproxy {command.name}",
            help=command.summary,
            usage=f"%(prog)s {command.usage}",
            description=command.description,
            epilog=command.epilog,
        )
        command.add_flags(parser)
    helping = subparsers.add_parser(
        _HELP,
        prog=f"ipvsproxy {_HELP}",
        help="describe a command and its flags",
        usage="%(prog)s [COMMAND]",
        description="Describe a command and its flags, or without a command, all commands.",
        epilog=EXIT_CODES,
    )
    helping.add_argument("topic", metavar="COMMAND", nargs="?", choices=list(commands), help="the command")
    return top, commands


def _with_dashes(word: str) -> str:
    """Return a flag whose name may be spelt with underscores, as kube-proxy's may, in its usual spelling."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word
