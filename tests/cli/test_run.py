"""The program as a process, where it can't do its work: what it says, its exit code, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipvsproxy.cli.lock import AgentLock
from ipvsproxy.config.settings import LogFormat
from ipvsproxy.kernel.interface import KernelUnavailableError
from ipvsproxy.kernel.ipvs import IpvsNetlink
from netns_tests.deadline import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "ipvsproxy")
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
FIRST_PROCESS = ("unshare", "--pid", "--fork", "--kill-child")
NO_IPVS = "the kernel has no IPVS: load the module with `modprobe ip_vs`, or boot a kernel with CONFIG_IP_VS"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root")


def has_ipvs() -> bool:
    try:
        IpvsNetlink().close()
    except KernelUnavailableError:
        return False
    return True


# All that the agent makes, and that the kernel says of it. What is not there is said on standard error.
LOOK = "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding; ip -brief address; nft list ruleset"


class Ended(NamedTuple):
    """How the program ended, and the node's state before and after."""

    code: int
    stdout: str
    stderr: str
    before: str
    after: str


class Node:
    """An empty network namespace for each run of the program, with a run directory and manifests of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.run_directory = directory / "run"
        self.manifests = directory / "manifests"
        self.manifests.mkdir()

    def run(
        self, *words: str, wrapper: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
    ) -> Ended:
        """Run `ipvsproxy run` to its end."""
        changes = [f"{name}={value}" for name, value in (environment or {}).items()]
        command = [
            *wrapper,
            "env",
            *changes,
            *PROGRAM,
            "run",
            f"--run-directory={self.run_directory}",
            *words,
        ]
        script = (
            "sysctl -qw net.ipv4.ip_forward=0\n"
            f"({LOOK}) >before 2>&1\n"
            f'PYTHONPATH="{REPOSITORY}" "$@" >stdout 2>stderr\n'
            "echo $? >code\n"
            f"({LOOK}) >after 2>&1\n"
        )
        subprocess.run(
            ["unshare", "--net", "sh", "-c", script, "sh", *command],
            check=True,
            cwd=self.directory,
            timeout=PATIENCE,
        )
        code, *texts = (
            (self.directory / name).read_text() for name in ("code", "stdout", "stderr", "before", "after")
        )
        return Ended(int(code), *texts)

    def with_manifests(
        self, *words: str, wrapper: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
    ) -> Ended:
        """Run it on the manifests, of which there are none."""
        return self.run(f"--manifests={self.manifests}", *words, wrapper=wrapper, environment=environment)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def assert_refused(ended: Ended, code: int, line: str) -> None:
    """Hold the program to one line and an untouched kernel."""
    assert (ended.code, ended.stdout, ended.stderr) == (code, "", f"ipvsproxy: {line}\n")
    assert ended.before == ended.after


# --- words and files ---


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("run", "--bogus=1"), "ipvsproxy run: unknown flag --bogus; ipvsproxy run --help lists the flags"),
        (
            ("run", "--sync-period", "soon"),
            "ipvsproxy run: --sync-period/--ipvs-sync-period: 'soon' is not a duration such as 30s or 1m30s",
        ),
        (("run", "--config", "config"), "ipvsproxy: config: ipvs.strictARP: expected bool, got int"),
        (("run", "--config", "none"), "ipvsproxy: none: No such file or directory"),
    ],
)
def test_a_wrong_word_or_field_is_named_in_one_line(
    tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    (tmp_path / "config").write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nipvs: {strictARP: 1}\n"
    )
    ended = subprocess.run(
        [*PROGRAM, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"{line}\n")


@needs_root
@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (None, "No such file or directory"),
        ("current-context: x\n", ""),
    ],
)
def test_a_kubeconfig_that_cant_be_used_is_named_with_the_reason(
    node: Node, contents: str | None, reason: str
) -> None:
    file = node.directory / "kubeconfig"
    if contents is not None:
        file.write_text(contents)
    ended = node.run(f"--kubeconfig={file}")
    assert (ended.code, ended.stdout) == (2, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"ipvsproxy: kubeconfig {file}: {reason}")
    assert ended.before == ended.after


@needs_root
def test_outside_of_a_pod_a_kubeconfig_is_asked_for(node: Node) -> None:
    ended = node.run(environment={"KUBERNETES_SERVICE_HOST": ""})
    assert ended.code == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("ipvsproxy: no service account of a pod: ")
    assert line.endswith("Outside of a pod, give --kubeconfig FILE")


# --- the node ---


@needs_root
@pytest.mark.skipif(has_ipvs(), reason="this kernel has IPVS")
@pytest.mark.parametrize("log_format", LogFormat)
def test_without_ipvs_one_line_says_what_to_load_and_nothing_is_made(
    node: Node, log_format: LogFormat
) -> None:
    assert_refused(node.with_manifests(f"--log-format={log_format}"), 1, NO_IPVS)


@needs_root
def test_without_net_admin_one_line_says_what_to_give_and_nothing_is_made(node: Node) -> None:
    ended = node.with_manifests(wrapper=WITHOUT_NET_ADMIN)
    assert_refused(
        ended,
        1,
        "CAP_NET_ADMIN is missing: run as root, or give the container the capability NET_ADMIN",
    )
    assert not node.run_directory.exists()


@needs_root
def test_without_the_program_nft_one_line_says_what_to_install_and_nothing_is_made(node: Node) -> None:
    assert_refused(
        node.with_manifests(environment={"PATH": str(node.directory)}),
        1,
        "the program nft can't be run: install the package nftables where the agent runs, with nft on its PATH",
    )


@needs_root
def test_an_nft_that_cant_print_json_is_found_before_anything_is_made(node: Node) -> None:
    nft = node.directory / "nft"
    nft.write_text("#!/bin/sh\necho 'Error: JSON support not compiled-in' >&2\nexit 1\n")
    nft.chmod(0o755)
    assert_refused(
        node.with_manifests(environment={"PATH": f"{node.directory}:/usr/bin:/bin"}),
        1,
        "the program nft can't be used, `nft -j list tables inet` fails: Error: JSON support not compiled-in: "
        "install the package nftables, 1.0 or later",
    )


@needs_root
def test_a_second_agent_names_the_first_and_leaves(node: Node) -> None:
    lock = AgentLock(node.run_directory, f"ipvsproxy-test-{os.getpid()}")
    assert_refused(
        node.with_manifests(),
        1,
        f"another agent runs on this node already: process {os.getpid()} holds {node.run_directory}/agent.lock; "
        "stop that one first",
    )
    lock.release()


@needs_root
@pytest.mark.skipif(has_ipvs(), reason="this kernel has IPVS")
def test_a_start_that_failed_does_not_stand_in_the_way_of_the_next(node: Node) -> None:
    first = node.with_manifests()
    assert node.with_manifests() == first
    AgentLock(node.run_directory, f"ipvsproxy-test-{os.getpid()}").release()


@needs_root
@pytest.mark.parametrize("parent", ["file", "/proc"])
def test_a_run_directory_that_cant_be_made_is_named_with_the_flag(node: Node, parent: str) -> None:
    (node.directory / "file").touch()
    node.run_directory = node.directory / parent / "run"
    ended = node.with_manifests()
    assert ended.code == 1
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"ipvsproxy: {node.run_directory}/agent.lock: ")
    assert line.endswith("; run as root, or choose a directory with --run-directory")


# --- signals and streams ---


@needs_root
def test_the_first_process_of_a_container_can_be_terminated_while_it_still_starts(node: Node) -> None:
    kubeconfig = node.directory / "kubeconfig"
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "interactiveMode": "Never",
        "command": "sh",
        "args": ["-c", "kill -TERM 1; sleep 100"],
    }
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "x", "user": {"exec": plugin}}],
            }
        )
    )
    ended = node.run(f"--kubeconfig={kubeconfig}", wrapper=FIRST_PROCESS)
    assert (ended.code, ended.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(closed: str) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, "run", "--bogus"]
    assert subprocess.run(command, check=False, cwd=REPOSITORY, capture_output=True).returncode == 2
