"""`ipvsproxy dump --bundle`: an archive for a bug report, of what the agent says and what the kernel has.

What can't be had is a line in the archive's MANIFEST, and the rest is there all the same. No file that may hold a
secret is ever opened: neither a kubeconfig, nor a token, nor a process's environment.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

import msgspec

from ipvsproxy import __version__
from ipvsproxy.cli.answers import as_json
from ipvsproxy.cli.dump import look_at_kernel
from ipvsproxy.cli.layout import Look
from ipvsproxy.cli.notices import notify
from ipvsproxy.cli.tables import Detail, render
from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.kernel.node import open_node_kernel
from ipvsproxy.kernel.sysctl import ProcSysctls
from ipvsproxy.observe.agent_socket import CONFIG_COMMAND, ask, ask_events, ask_report
from ipvsproxy.observe.configuration import Configuration
from ipvsproxy.plan.sysctls import ConntrackSettings, KernelVersion, SysctlSettings, sysctl_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

    from ipvsproxy.kernel.interface import NodeKernel
    from ipvsproxy.observe.schema import AgentReport, Dump
    from ipvsproxy.plan.firewall import FirewallSettings

MANIFEST: Final = "MANIFEST"
STANDARD_OUTPUT: Final = "-"
_PROGRAM_TIMEOUT: Final = 60.0  # seconds
# Whatever the agent may set, and all that IPVS has.
_EVERY_SETTING: Final = SysctlSettings(
    KernelVersion(0, 0),
    strict_arp=True,
    conntrack=ConntrackSettings(1, 1, 1, tcp_be_liberal=True, udp_timeout=1, udp_stream_timeout=1),
)
_SETTINGS_OF_IPVS: Final = "net/ipv4/vs"


class Part(NamedTuple):
    """A file of the archive; `read` may raise whatever keeps it from being had."""

    name: str
    meaning: str
    read: Callable[[], str | bytes]


class Collected(NamedTuple):
    """A part with its content, or with the reason why there is none."""

    part: Part
    content: bytes
    missing: str = ""


class Sources(NamedTuple):
    """Where the parts come from: the agent, the kernel, programs that are run, and the file system's root."""

    ask_report: Callable[[], AgentReport]
    ask_events: Callable[[], list[dict[str, object]]]
    ask_configuration: Callable[[], Configuration]
    open_kernel: Callable[[FirewallSettings], NodeKernel]
    run: Callable[[Sequence[str]], bytes]
    root: Path = Path("/")


def bundle(file: str, run_directory: Path) -> int:
    """Write the archive to a new file, or to standard output; return the exit code."""
    sources = Sources(
        functools.partial(ask_report, run_directory),
        functools.partial(ask_events, run_directory),
        functools.partial(ask, run_directory, CONFIG_COMMAND, Configuration),
        open_node_kernel,
        run_program,
    )
    name = f"ipvsproxy-{platform.node()}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    if file == STANDARD_OUTPUT:
        if sys.stdout.isatty():
            raise UsageError(f"--bundle {file}: standard output is a terminal: send it to a file")
        write_archive(sys.stdout.buffer, name, collect(sources, sys.stderr))
    else:
        with new_file(Path(file)) as stream:
            write_archive(stream, name, collect(sources, sys.stderr))
        notify(sys.stderr, f"{file} is written; {MANIFEST} in it says what is there")
    return 0


def collect(sources: Sources, progress: TextIO) -> list[Collected]:
    """Read all parts, with a line on `progress` for each."""
    collected = []
    for part in parts(sources):
        one = _read(part)
        what = f"no {part.name}: {one.missing}" if one.missing else f"collected {part.name}"
        notify(progress, what)
        progress.flush()
        collected.append(one)
    return collected


def parts(sources: Sources) -> Iterator[Part]:
    """Yield the parts in the order in which they are read: first what changes fastest."""

    @functools.cache
    def report() -> AgentReport:
        return sources.ask_report()

    @functools.cache
    def dump() -> Dump:
        try:
            said = report()
        except IpvsProxyError:
            said = None
        return look_at_kernel(said, sources.open_kernel, ProcSysctls(sources.root / "proc/sys"))

    yield Part("dump.json", "what `ipvsproxy dump -o json` shows", lambda: as_json(dump()))
    yield Part(
        "dump.txt", "what `ipvsproxy dump -o wide` shows", lambda: render(dump(), Detail(wide=True), Look())
    )
    yield Part("report.json", "what the agent wants, and why", lambda: as_json(report()))
    yield Part("events.jsonl", "the last lines of the agent's log", lambda: _lines(sources.ask_events()))
    yield Part("config.json", "the configuration in effect", lambda: as_json(sources.ask_configuration()))
    for name, meaning, command in _PROGRAMS:
        yield Part(name, meaning, functools.partial(sources.run, command))
    for name, path in _FILES:
        yield Part(name, f"/{path}", (sources.root / path).read_bytes)
    yield Part("sysctls.txt", "kernel settings", lambda: _sysctls(sources.root / "proc/sys"))
    yield Part("versions.txt", "of the kernel, programs and libraries", lambda: _versions(sources.run))


_PROGRAMS: Final = (
    ("nft-ruleset.txt", "nft -a list ruleset", ("nft", "-a", "list", "ruleset")),
    ("addresses.json", "ip -d -j address", ("ip", "-d", "-j", "address")),
    ("links.json", "ip -d -j link", ("ip", "-d", "-j", "link")),
    ("rules-ipv4.json", "ip -4 -d -j rule", ("ip", "-4", "-d", "-j", "rule")),
    ("rules-ipv6.json", "ip -6 -d -j rule", ("ip", "-6", "-d", "-j", "rule")),
    (
        "routes-ipv4.json",
        "ip -4 -d -j route show table all",
        ("ip", "-4", "-d", "-j", "route", "show", "table", "all"),
    ),
    (
        "routes-ipv6.json",
        "ip -6 -d -j route show table all",
        ("ip", "-6", "-d", "-j", "route", "show", "table", "all"),
    ),
)
_FILES: Final = (
    ("ip_vs.txt", "proc/net/ip_vs"),
    ("ip_vs_stats.txt", "proc/net/ip_vs_stats"),
    ("conntrack-count.txt", "proc/sys/net/netfilter/nf_conntrack_count"),
    ("conntrack-statistics.txt", "proc/net/stat/nf_conntrack"),
    ("modules.txt", "proc/modules"),
)


def run_program(command: Sequence[str]) -> bytes:
    """Return what the program prints; IpvsProxyError says why there is nothing."""
    try:
        ended = subprocess.run(  # noqa: S603 - fixed arguments
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_PROGRAM_TIMEOUT
        )
    except FileNotFoundError as error:
        raise IpvsProxyError(f"the program {command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise IpvsProxyError(f"{command[0]} did not end within {_PROGRAM_TIMEOUT:g} seconds") from error
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise IpvsProxyError(
            f"{command[0]} ended with exit code {ended.returncode}: {said or 'it said nothing'}"
        )
    return ended.stdout


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield what is to become the file, for root alone; it is there at the end of the block, whole or not at all.

    UsageError if there is something of that name already, IpvsProxyError if there can be no such file.
    """
    if os.path.lexists(path):
        raise UsageError(f"--bundle {path}: the file is there already: give another name")
    try:
        # Mode 0600, from the beginning.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            # Unlike a rename, this never replaces anything.
            os.link(stream.name, path)
    except OSError as error:
        raise IpvsProxyError(
            f"--bundle {path}: the file can't be written: {error.strerror or error}"
        ) from error


def write_archive(stream: IO[bytes], name: str, collected: Sequence[Collected]) -> None:
    """Write the parts as a compressed archive, in a folder of the name, the manifest first."""
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        contents = [(each.part.name, each.content) for each in collected if not each.missing]
        for file, content in [(MANIFEST, _manifest(name, collected).encode()), *contents]:
            member = tarfile.TarInfo(f"{name}/{file}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(content))


def _read(part: Part) -> Collected:
    try:
        content = part.read()
    except OSError as error:
        return Collected(part, b"", error.strerror or str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts are worth having
        return Collected(part, b"", " ".join(str(error).split()) or type(error).__name__)
    return Collected(part, content if isinstance(content, bytes) else content.encode())


def _manifest(name: str, collected: Sequence[Collected]) -> str:
    lines = [f"{name}, by ipvsproxy {__version__}", ""]
    for part, content, missing in collected:
        lines.append(
            f"{part.name}: {part.meaning}, " + (f"missing: {missing}" if missing else f"{len(content)} bytes")
        )
    return "\n".join(lines) + "\n"


def _lines(events: Sequence[dict[str, object]]) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)


def _sysctls(root: Path) -> str:
    names = {setting.name.replace(".", "/") for setting in sysctl_plan(_EVERY_SETTING)}
    names |= {str(path.relative_to(root)) for path in (root / _SETTINGS_OF_IPVS).glob("*") if path.is_file()}
    return "".join(f"{name.replace('/', '.')} = {_setting(root / name)}\n" for name in sorted(names))


def _setting(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        return f"({error.strerror})"


def _versions(run: Callable[[Sequence[str]], bytes]) -> str:
    lines = [f"kernel: {' '.join(platform.uname())}", f"python: {sys.version}"]
    for command in (("nft", "--version"), ("ip", "-V")):
        try:
            lines.append(f"{command[0]}: {run(command).decode(errors='replace').strip()}")
        except IpvsProxyError as error:
            lines.append(f"{command[0]}: {error}")
    libraries = {f"{each.name} {each.version}" for each in importlib.metadata.distributions()}
    return "\n".join([f"ipvsproxy: {__version__}", *lines, "", *sorted(libraries)]) + "\n"
