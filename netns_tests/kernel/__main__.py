"""The command line: run a command in a kernel that has IPVS.

Its output goes to standard output as it comes, all about the kernel to standard error. Exit code: the command's own;
124 after a time-out, 125 when the kernel did not run the command to its end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ipvsproxy import __version__
from netns_tests.kernel import docker, host, uml, virtme
from netns_tests.kernel.choose import choose
from netns_tests.kernel.exchange import Exchange, command_script
from netns_tests.kernel.machine import Guest, KernelRunError
from netns_tests.kernel.supervise import contained, supervise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from netns_tests.kernel.machine import Machine, RunnerName

REPOSITORY = Path(__file__).resolve().parents[2]


def parser(environment: Mapping[str, str] = os.environ) -> argparse.ArgumentParser:
    """Return the flags' description; some defaults come from the environment."""
    result = argparse.ArgumentParser(prog="python -m netns_tests.kernel", description=__doc__)
    result.add_argument(
        "--runner",
        choices=["auto", "host", "docker", "virtme", "uml"],
        default="auto",
        help="auto: host if this machine's kernel has IPVS, else docker if there is one with the image and IPVS, "
        "else uml if a kernel is named, else virtme",
    )
    result.add_argument(
        "--missing-packages",
        action="store_true",
        help="print the Debian packages that the runner lacks; run nothing",
    )
    result.add_argument(
        "--timeout",
        type=float,
        default=1800,
        metavar="SECONDS",
        help="the command is stopped when it writes nothing for so long (%(default)s)",
    )
    result.add_argument("--memory", default="2G", help="the test kernel's (%(default)s); host has its own")
    result.add_argument("--junit", type=Path, metavar="FILE", help="write pytest's JUnit report there")
    result.add_argument(
        "--uml-kernel",
        type=Path,
        default=environment.get("IPVSPROXY_UML_KERNEL") or None,
        metavar="FILE",
        help="a user-mode Linux binary (default: the environment's IPVSPROXY_UML_KERNEL)",
    )
    result.add_argument(
        "--image",
        default=environment.get("IPVSPROXY_IMAGE") or f"ipvsproxy:{__version__}",
        metavar="NAME",
        help="of the runner docker (default: the environment's IPVSPROXY_IMAGE, or %(default)s)",
    )
    result.add_argument("command", nargs="*", metavar="COMMAND", help="run as root, in the working tree")
    return result


def command_environment(inherited: Mapping[str, str], exchange: Exchange, *, junit: bool) -> dict[str, str]:
    """Return the command's environment: ours, and what it can't see itself because it writes to a file."""
    environment = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **inherited}
    if junit:
        addopts = [inherited.get("PYTEST_ADDOPTS", ""), f"--junitxml={exchange.junit}"]
        environment["PYTEST_ADDOPTS"] = " ".join(filter(None, addopts))
    if sys.stdout.isatty():
        environment.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
        environment.setdefault("FORCE_COLOR", "1")
    return environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; return the exit code."""
    usage = parser()
    options = usage.parse_args(arguments)
    if not (options.command or options.missing_packages):
        usage.error("no COMMAND given")
    # As Ctrl-C does: what is running is stopped and what was written is removed on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        runner, reason = choose(
            options.runner, host.why_not, partial(docker.why_not, options.image), options.uml_kernel
        )
        if options.missing_packages:
            print(*_missing_packages(runner))
            return 0
        with _exchange() as exchange:
            return _run(runner, reason, exchange, options)
    except KernelRunError as error:
        _announce(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(runner: RunnerName, reason: str, exchange: Exchange, options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise KernelRunError("root is needed, whichever kernel it is")
    environment = command_environment(os.environ, exchange, junit=options.junit is not None)
    exchange.write_command(command_script(options.command, environment, REPOSITORY))
    machine = _machine(runner, Guest(REPOSITORY, exchange.directory), options)
    _announce(f"starting {machine.description}, because {reason}")
    machine = machine._replace(argv=contained(machine.argv))
    exit_code = supervise(machine, exchange, options.timeout, sys.stdout.buffer, _announce)
    if options.junit is not None:
        if not exchange.junit.exists():
            raise KernelRunError(f"the command ended with exit code {exit_code} and wrote no JUnit report")
        shutil.copyfile(exchange.junit, options.junit)
    return exit_code


def _missing_packages(runner: RunnerName) -> list[str]:
    return virtme.missing_packages() if runner == "virtme" else []


def _machine(runner: RunnerName, guest: Guest, options: argparse.Namespace) -> Machine:
    match runner:
        case "host":
            return host.machine(guest)
        case "docker":
            return docker.machine(options.image, guest)
        case "uml":
            return uml.machine(options.uml_kernel, guest, options.memory)
        case "virtme":
            if missing := _missing_packages(runner):
                raise KernelRunError(
                    f"the runner virtme needs Debian packages: apt-get install {' '.join(missing)}"
                )
            virtme.compile_sources(guest.repository)
            return virtme.machine(virtme.debian_kernel(_announce), guest, options.memory)


@contextlib.contextmanager
def _exchange() -> Iterator[Exchange]:
    """Make the folder of one run, below the working tree: the one place that every machine can write to."""
    build = REPOSITORY / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kernel-", dir=build) as name:
        yield Exchange(Path(name))


def _announce(message: str) -> None:
    print(f"test kernel: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
