"""What the command lines of all commands have in common: how a command is declared, its parser, its readers."""

from __future__ import annotations

import argparse
import enum
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from ipvsproxy.config.readers import read_boolean, read_node_port_addresses
from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.errors import UsageError
from ipvsproxy.model.objects import ObjectKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.config.declaration import Setting
    from ipvsproxy.model.selection import NodePortAddresses

EXIT_CODES = """\
exit codes:
  0    done
  1    it failed; the last line on standard error says why
  2    a flag, a file or a field is wrong; one line on standard error names it
  77   not permitted: the command needs root; one line on standard error says so
  130  interrupted
"""
# RFC 1123 labels and subdomains, as the API has them; the API checks their lengths.
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class OutputFormat(enum.StrEnum):
    """How a command prints; not every command knows all of them."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class Arguments(Protocol):
    """What a command is asked to do."""

    def execute(self) -> int:
        """Do it; return the exit code.

        The command's own module is imported here and not before: its libraries take longer than --version.
        """


class Command(NamedTuple):
    """How a command is declared.

    `add_flags` adds them to the command's parser, `read` makes the arguments of what was parsed, with the host's own
    name; it may raise UsageError. Texts keep their lines; `usage` has what stands behind the program's name.
    """

    name: str
    summary: str
    usage: str
    description: str
    epilog: str
    add_flags: Callable[[Parser], None]
    read: Callable[[argparse.Namespace, str], Arguments]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which knows flags by their full names only."""

    def __init__(self, prog: str, usage: str, description: str, epilog: str) -> None:
        """Set what the help shows; description and epilog keep their lines."""
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """End the program with one line, without argparse's summary of the usage."""
        self.exit(
            UsageError.exit_code, f"{self.prog}: {' '.join(message.removeprefix('argument ').split())}\n"
        )

    def refuse(self, word: str) -> NoReturn:
        """End the program for a word that nothing claims."""
        kind, name = ("flag", word.partition("=")[0]) if word.startswith("-") else ("argument", word)
        self.error(f"unknown {kind} {name}; {self.prog} --help lists the flags")


class _AddToList(argparse.Action):
    """Adds the networks to those that the same flag gave before, as kube-proxy's does."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401 - what the type of the flag returns
        _option: str | None = None,
    ) -> None:
        before: NodePortAddresses | None = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, before.or_those_of(values) if before else values)


def add_setting(target: argparse._ActionsContainer, setting: Setting) -> None:
    """Add a setting's flag, which leaves no trace when it is not given; alone, a flag of true or false is true."""
    field = f"[{setting.path}] " if setting.path else ""
    default = f"(default: {setting.default})" if setting.default else ""
    boolean = setting.reader is read_boolean
    target.add_argument(
        *setting.flags,
        action=_AddToList if setting.reader is read_node_port_addresses else "store",
        dest=setting.name,
        metavar=setting.metavar,
        type=readable(setting.read),
        default=argparse.SUPPRESS,
        nargs="?" if boolean else None,
        const=True if boolean else None,
        help=f"{setting.meaning} {field}{default}".rstrip(),
    )


def add_run_directory(parser: Parser) -> None:
    """Add --run-directory, with its default, for a command that asks the agent."""
    setting = SETTINGS["run_directory"]
    add_setting(parser, setting)
    parser.set_defaults(run_directory=setting.read(""))


def add_service(parser: Parser) -> None:
    """Add --service, for a command that shows one or all."""
    parser.add_argument(
        "--service",
        metavar="NAMESPACE/NAME",
        type=readable(read_object_key),
        help="this Service only; a NAME alone is of the namespace default (default: all Services)",
    )


def add_output(parser: Parser, *formats: OutputFormat) -> None:
    """Add -o/--output for these formats, of which the first is the default."""

    def read(text: str) -> OutputFormat:
        if text not in formats:
            raise ValueError(f"{text!r} is not one of {', '.join(formats)}")
        return OutputFormat(text)

    parser.add_argument(
        "-o",
        "--output",
        metavar="FORMAT",
        type=readable(read),
        choices=formats,
        default=formats[0],
        help=f"{', '.join(formats)} (default: {formats[0]})",
    )


def readable(reader: Callable[[str], object]) -> Callable[[str], object]:
    """Return a reader whose phrase of what is wrong gets through argparse, behind the flag's name."""

    def read(text: str) -> object:
        try:
            return reader(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def read_object_key(text: str) -> ObjectKey:
    """Read NAMESPACE/NAME, or NAME of the namespace `default`."""
    namespace, slash, name = text.rpartition("/")
    namespace = namespace if slash else "default"
    if not _OBJECT_NAME.fullmatch(namespace) or not _OBJECT_NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not NAMESPACE/NAME")
    return ObjectKey(namespace, name)
