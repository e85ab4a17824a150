"""The command line: from the words to typed values, or to one line that says which word is wrong.

The flags of `run` come from `config.settings`; here are those that no other layer has.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ipvsproxy import __version__
from ipvsproxy.config.declaration import Group
from ipvsproxy.config.layers import combine
from ipvsproxy.config.readers import one_of, read_boolean
from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.errors import UsageError
from ipvsproxy.model.objects import ObjectKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipvsproxy.config.declaration import Setting
    from ipvsproxy.config.settings import Config

_EXIT_CODES = """\
exit codes:
  0    done
  1    it failed; the last line on standard error says why
  2    a flag, a file or a field is wrong; one line on standard error names it
  130  interrupted
"""
_EXAMPLES = """\
examples:
  ipvsproxy run --config /var/lib/kube-proxy/config.conf
      take kube-proxy's place with its own configuration
  ipvsproxy run --manifests ./manifests --hostname-override node-1
      take the objects from YAML files, without an API server
  ipvsproxy dump -o wide
      show what the agent has programmed, and what it rejected
"""
_RUN_EPILOG = """\
The name in brackets is the field of KubeProxyConfiguration (--config). A flag goes before the file, the file before
the default. Fields of the file that have no effect here are named in one warning; an unknown field is an error.
DURATION is written as 30s, 1m30s or 0s. BOOL is true or false; the flag alone is true.

examples:
  ipvsproxy run --config /var/lib/kube-proxy/config.conf
  ipvsproxy run --kubeconfig /etc/kubernetes/kube-proxy.conf --cluster-cidr 10.244.0.0/16,fd00:10:244::/56
  ipvsproxy run --manifests ./manifests --hostname-override node-1 --ipvs-scheduler wlc --log-format console
"""
_DUMP_EPILOG = """\
examples:
  ipvsproxy dump
  ipvsproxy dump -o yaml --service kube-system/kube-dns
"""
# RFC 1123 labels and subdomains, as the API has them; the API checks their lengths.
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class OutputFormat(enum.StrEnum):
    """How `dump` prints."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


@dataclasses.dataclass(frozen=True, slots=True)
class RunArguments:
    """What `ipvsproxy run` is asked to do.

    The objects come from the directory `manifests`, or if that is None from the API server that `config.kubeconfig`
    says. `config_file` is the KubeProxyConfiguration that was read, and `ignored_fields` are its fields that ask for
    something and have no effect here, for the one warning.
    """

    config: Config
    manifests: Path | None = None
    config_file: Path | None = None
    ignored_fields: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class DumpArguments:
    """What `ipvsproxy dump` is asked to show; `service` None: all of them."""

    output: OutputFormat
    service: ObjectKey | None
    run_directory: Path


def parse(argv: Sequence[str], hostname: str | None = None) -> RunArguments | DumpArguments:
    """Return what the words after the program's name ask for; `hostname` is the host's own name.

    SystemExit with code 2 after one line on standard error if a word is wrong, and with code 0 after --help or
    --version. UsageError if the configuration file is wrong, or settings contradict each other.
    """
    top, commands = _parsers()
    namespace, unknown = top.parse_known_args(argv)
    if unknown:
        commands.get(namespace.command, top).refuse(unknown[0])
    if namespace.command is None:
        top.error(f"a command is missing: {' or '.join(commands)}; {top.prog} --help describes them")
    if namespace.command == "dump":
        return DumpArguments(namespace.output, namespace.service, namespace.run_directory)
    flags = {name: getattr(namespace, name) for name in SETTINGS if hasattr(namespace, name)}
    config, ignored = combine(flags, namespace.config, hostname or os.uname().nodename)
    return RunArguments(config, namespace.manifests, namespace.config, ignored)


def read_service(text: str) -> ObjectKey:
    """Read NAMESPACE/NAME, or NAME of the namespace `default`."""
    namespace, slash, name = text.rpartition("/")
    namespace = namespace if slash else "default"
    if not _OBJECT_NAME.fullmatch(namespace) or not _OBJECT_NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not NAMESPACE/NAME")
    return ObjectKey(namespace, name)


class _Parser(argparse.ArgumentParser):
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


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser of the whole command line, and those of the commands by name."""
    top = _Parser(
        "ipvsproxy",
        "%(prog)s COMMAND [FLAG ...]",
        "The node agent that programs the kernel's IPVS load balancer from Kubernetes Services.",
        f"{_EXAMPLES}\n{_EXIT_CODES}",
    )
    top.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}", help="print the version"
    )
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    run = commands.add_parser(
        "run",
        prog="ipvsproxy run",
        help="run the agent on this node",
        usage="%(prog)s [--kubeconfig FILE | --manifests DIR] [--config FILE] [FLAG ...]",
        description="Program Services into this node's kernel, and keep them so, until a signal stops the agent."
        "\nEvery rule stays in place when it stops.",
        epilog=f"{_RUN_EPILOG}\n{_EXIT_CODES}",
    )
    dump = commands.add_parser(
        "dump",
        prog="ipvsproxy dump",
        help="show what is programmed into this node's kernel, and whether it is what should be",
        usage="%(prog)s [-o table|wide|json|yaml] [--service NAMESPACE/NAME] [--run-directory DIR]",
        description="Show what is programmed into this node's kernel, beside what the agent wants there, what drains"
        "\nand what it rejected, with reasons. Without an agent that runs, show the kernel's state alone.",
        epilog=f"{_DUMP_EPILOG}\n{_EXIT_CODES}",
    )
    _add_run_flags(run)
    _add_dump_flags(dump)
    return top, {"run": run, "dump": dump}


def _add_run_flags(parser: _Parser) -> None:
    """Add the flag of every setting, and what only the command line can say."""
    groups = {group: parser.add_argument_group(group) for group in Group}
    source = groups[Group.SOURCE].add_mutually_exclusive_group()
    for setting in SETTINGS.values():
        _add_setting(source if setting.name == "kubeconfig" else groups[setting.group], setting)
    source.add_argument(
        "--manifests",
        metavar="DIR",
        type=Path,
        help="take Services, EndpointSlices and the Node from the YAML files of this directory, as they change",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), read as it is",
    )


def _add_dump_flags(parser: _Parser) -> None:
    """Add the flags of `dump`."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FORMAT",
        type=_type(one_of(OutputFormat)),
        default=OutputFormat.TABLE,
        help=f"{', '.join(OutputFormat)} (default: {OutputFormat.TABLE})",
    )
    parser.add_argument(
        "--service",
        metavar="NAMESPACE/NAME",
        type=_type(read_service),
        help="this Service only; a NAME alone is of the namespace default (default: all Services)",
    )
    setting = SETTINGS["run_directory"]
    _add_setting(parser, setting)
    parser.set_defaults(run_directory=setting.read(""))


def _add_setting(target: argparse._ActionsContainer, setting: Setting) -> None:
    """Add a setting's flag, which leaves no trace when it is not given; alone, a flag of true or false is true."""
    field = f"[{setting.path}] " if setting.path else ""
    default = f"(default: {setting.default})" if setting.default else ""
    boolean = setting.reader is read_boolean
    target.add_argument(
        *setting.flags,
        dest=setting.name,
        metavar=setting.metavar,
        type=_type(setting.read),
        default=argparse.SUPPRESS,
        nargs="?" if boolean else None,
        const=True if boolean else None,
        help=f"{setting.meaning} {field}{default}".rstrip(),
    )


def _type(reader: Callable[[str], object]) -> Callable[[str], object]:
    """Return a reader whose phrase of what is wrong gets through argparse, behind the flag's name."""

    def read(text: str) -> object:
        try:
            return reader(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
