from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipvsproxy import __version__
from ipvsproxy.cli.arguments import COMMANDS, parse
from ipvsproxy.cli.arguments.dump import DumpArguments
from ipvsproxy.cli.arguments.parser import OutputFormat, read_object_key
from ipvsproxy.cli.arguments.run import RunArguments
from ipvsproxy.cli.main import exit_code, main
from ipvsproxy.config.settings import Config, DetectLocalMode, LogFormat, LogLevel
from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.model.addresses import parse_address, parse_network
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.model.selection import NodePortAddresses


def run(*words: str) -> RunArguments:
    arguments = parse(["run", *words], hostname="Node-1")
    assert isinstance(arguments, RunArguments)
    return arguments


def dump(*words: str) -> DumpArguments:
    arguments = parse(["dump", *words])
    assert isinstance(arguments, DumpArguments)
    return arguments


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the one line that the program writes before it ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        parse(words)
    written = capsys.readouterr()
    assert ended.value.code == 2
    assert written.out == ""
    assert written.err.count("\n") == 1
    return written.err.rstrip()


def test_run_alone_watches_the_api_server_as_the_pods_service_account() -> None:
    arguments = run()

    assert arguments.config == Config(node_name="node-1")
    assert (arguments.manifests, arguments.write_config_to) == (None, None)


def test_every_flag_of_run_has_its_place_in_the_configuration() -> None:
    arguments = run(
        *("--manifests", "/m", "--hostname-override", "Worker", "--cluster-cidr", "10.0.0.0/8,fd00::/64"),
        *(
            "--masquerade-all",
            "--iptables-masquerade-bit",
            "15",
            "--ipvs-scheduler",
            "wlc",
            "--ipvs-strict-arp",
        ),
        *(
            "--sync-period",
            "1m",
            "--min-sync-period=0s",
            "--drain-timeout",
            "0s",
            "--run-directory",
            "/r",
        ),
        *("--ipvs-tcp-timeout", "2h", "--ipvs-tcpfin-timeout", "90s", "--ipvs-udp-timeout", "5m"),
        *("--nodeport-addresses", "primary", "--allowed-external-ips", "192.0.2.0/24"),
        *("--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix", "cali"),
        *("--pod-bridge-interface", "cni0"),
        *("--conntrack-max-per-core", "1000", "--conntrack-min", "0", "--conntrack-tcp-be-liberal"),
        *("--conntrack-tcp-timeout-established", "2h", "--conntrack-tcp-timeout-close-wait", "60s"),
        *("--conntrack-udp-timeout", "30s", "--conntrack-udp-timeout-stream", "90s"),
        *("--healthz-bind-address", "127.0.0.1:10300", "--metrics-bind-address", "0.0.0.0"),
        *("--write-config-to", "/w"),
        *("--log-format", "json", "--log-level", "debug"),
    )

    assert arguments.config == Config(
        node_name="worker",
        cluster_cidrs=(parse_network("10.0.0.0/8"), parse_network("fd00::/64")),
        masquerade_all=True,
        masquerade_bit=15,
        scheduler="wlc",
        strict_arp=True,
        sync_period=60.0,
        min_sync_period=0.0,
        drain_timeout=0.0,
        ipvs_tcp_timeout=7200,
        ipvs_tcp_fin_timeout=90,
        ipvs_udp_timeout=300,
        node_port_addresses=NodePortAddresses(primary=True),
        allowed_external_ips=(parse_network("192.0.2.0/24"),),
        detect_local_mode=DetectLocalMode.INTERFACE_NAME_PREFIX,
        pod_interface_name_prefix="cali",
        pod_bridge_interface="cni0",
        conntrack_max_per_core=1000,
        conntrack_min=0,
        conntrack_tcp_be_liberal=True,
        conntrack_tcp_established_timeout=7200,
        conntrack_tcp_close_wait_timeout=60,
        conntrack_udp_timeout=30,
        conntrack_udp_stream_timeout=90,
        healthz_bind_address=(parse_address("127.0.0.1"), 10300),
        metrics_bind_address=(parse_address("0.0.0.0"), 10249),
        run_directory=Path("/r"),
        log_format=LogFormat.JSON,
        log_level=LogLevel.DEBUG,
    )
    assert (arguments.manifests, arguments.write_config_to) == (Path("/m"), Path("/w"))


def test_kube_proxys_names_of_the_periods_are_known_too() -> None:
    assert run("--ipvs-sync-period", "10s", "--ipvs-min-sync-period", "2s") == run(
        "--sync-period", "10s", "--min-sync-period", "2s"
    )


def test_what_is_on_by_default_can_be_switched_off_by_a_word() -> None:
    config = run("--allowed-external-ips", "none", "--healthz-bind-address", "none").config

    assert (config.allowed_external_ips, config.healthz_bind_address) == ((), None)


def test_a_flag_can_take_back_what_the_file_switches_on(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n"
        "iptables: {masqueradeAll: true}\nipvs: {strictARP: true}\n"
    )

    arguments = run("--config", str(file), "--masquerade-all=false")

    assert arguments.config == Config(node_name="node-1", strict_arp=True)
    assert arguments.effective.ignored == ("mode",)
    assert arguments.layers.read() == arguments.effective


def test_without_another_name_the_node_has_the_hosts() -> None:
    arguments = parse(["run"])

    assert isinstance(arguments, RunArguments)
    assert arguments.config.node_name == os.uname().nodename.lower()


def test_dump_shows_a_table_of_all_services_unless_told_otherwise() -> None:
    assert dump() == DumpArguments(OutputFormat.TABLE, None, Path("/run/ipvsproxy"))
    assert dump("-o", "yaml", "--service", "kube-system/dns", "--run-directory", "/r") == DumpArguments(
        OutputFormat.YAML, ObjectKey("kube-system", "dns"), Path("/r")
    )


def test_a_service_without_a_namespace_is_of_the_namespace_default() -> None:
    assert read_object_key("web") == ObjectKey("default", "web")


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "a/b/c", "A/b", "a b", "-a/b", "a/b-"])
def test_what_is_no_name_of_a_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not NAMESPACE/NAME"):
        read_object_key(text)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "ipvsproxy: a command is missing: run, dump, "),
        ("fly", "ipvsproxy: COMMAND: invalid choice: 'fly' (choose from "),
        ("--foo", "ipvsproxy: unknown flag --foo; ipvsproxy --help lists the flags"),
        ("run --foo", "ipvsproxy run: unknown flag --foo; ipvsproxy run --help lists the flags"),
        ("run --foo=bar", "ipvsproxy run: unknown flag --foo; ipvsproxy run --help lists the flags"),
        ("run --foo bar", "ipvsproxy run: unknown flag --foo; ipvsproxy run --help lists the flags"),
        ("run --conf x", "ipvsproxy run: unknown flag --conf; ipvsproxy run --help lists the flags"),
        ("run web", "ipvsproxy run: unknown argument web; ipvsproxy run --help lists the flags"),
        ("dump --config x", "ipvsproxy dump: unknown flag --config; ipvsproxy dump --help lists the flags"),
        ("run --config", "ipvsproxy run: --config: expected one argument"),
        (
            "run --sync-period abc",
            "ipvsproxy run: --sync-period/--ipvs-sync-period: 'abc' is not a duration such as 30s or 1m30s",
        ),
        ("run --masquerade-all=2", "ipvsproxy run: --masquerade-all: '2' is not true or false"),
        (
            "run --kubeconfig a --manifests b",
            "ipvsproxy run: --manifests: not allowed with argument --kubeconfig",
        ),
        ("dump --service a/b/c", "ipvsproxy dump: --service: 'a/b/c' is not NAMESPACE/NAME"),
        ("dump -o xml", "ipvsproxy dump: -o/--output: 'xml' is not one of table, wide, json, yaml"),
    ],
)
def test_a_word_that_is_wrong_is_named_in_one_line(
    words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capsys, *words.split()).startswith(line)


def test_a_flag_with_a_line_break_in_it_is_still_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "run", "--a\nb").startswith("ipvsproxy run: unknown flag --a b;")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"ipvsproxy {__version__}\n"


@pytest.mark.parametrize("command", [[], *([each.name] for each in COMMANDS)])
def test_the_help_has_examples_and_the_exit_codes(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([*command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "\nexamples:\n  ipvsproxy " in text
    assert "\nexit codes:\n  0 " in text


def test_a_file_that_is_wrong_ends_the_program_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", "/nonexistent.yaml"]) == 2
    assert capsys.readouterr().err == "ipvsproxy: /nonexistent.yaml: No such file or directory\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (IpvsProxyError("no IPVS\nin this kernel"), 1, "ipvsproxy: no IPVS in this kernel\n"),
        (UsageError("wrong"), 2, "ipvsproxy: wrong\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_becomes_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert exit_code(fail) == code
    assert capsys.readouterr().err == line


def test_a_command_that_ends_well_has_its_own_exit_code() -> None:
    assert exit_code(lambda: 3) == 3


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    program = (
        "import sys; from ipvsproxy.cli.main import exit_code;sys.exit(exit_code(lambda: print('line') or 0))"
    )
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as stdout:
        ended = subprocess.run(
            [sys.executable, "-c", program], stdout=stdout, stderr=subprocess.PIPE, check=False
        )

    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")  # noqa: PTH110 - at import
def test_an_output_that_can_not_be_written_is_one_line() -> None:
    program = "import sys; from ipvsproxy.cli.main import exit_code;sys.exit(exit_code(lambda: print('x' * 9000) or 0))"
    with open("/dev/full", "wb") as stdout:  # noqa: PTH123 - a device
        ended = subprocess.run(
            [sys.executable, "-c", program], stdout=stdout, stderr=subprocess.PIPE, check=False
        )

    line = b"ipvsproxy: the output can't be written: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, line)


def test_an_error_that_nobody_put_into_words_is_no_matter_of_the_output() -> None:
    def fail() -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file descriptor"):
        exit_code(fail)


def test_help_and_version_import_no_library() -> None:
    program = (
        "import sys; from ipvsproxy.cli import main; from ipvsproxy.cli.arguments import parse; parse(['run']);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    imported = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, text=True
    ).stdout.split()

    assert not {"kubernetes", "msgspec", "pyroute2", "rich", "structlog", "tenacity", "yaml"} & set(imported)
