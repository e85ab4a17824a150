"""kube-proxy's command line, given to `ipvsproxy run`: what has an equivalent does the same, the rest does no harm."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.kube_proxy import WITHOUT_EFFECT
from ipvsproxy.cli.arguments.run import RunArguments
from ipvsproxy.errors import UsageError
from ipvsproxy.model.addresses import format_endpoint

# The flags of kube-proxy on Linux in its releases 1.28 to 1.36, with a value each: the reference pages of
# kubernetes.io, and the two hidden ones of ports.
FLAGS = """
--add_dir_header=false --alsologtostderr=true --bind-address=0.0.0.0 --bind-address-hard-fail=false
--boot-id-file=/proc/sys/kernel/random/boot_id --cleanup=false --cluster-cidr=10.244.0.0/16,fd00:10:244::/56
--config-sync-period=15m0s --conntrack-max-per-core=32768 --conntrack-min=131072 --conntrack-tcp-be-liberal=true
--conntrack-tcp-timeout-close-wait=1h0m0s --conntrack-tcp-timeout-established=24h0m0s --conntrack-udp-timeout=0s
--conntrack-udp-timeout-stream=0s --detect-local-mode=NodeCIDR --feature-gates=AllAlpha=true,AllBeta=false
--healthz-bind-address=0.0.0.0:10256 --healthz-port=10256 --hostname-override=node-1 --init-only=false
--iptables-localhost-nodeports=true --iptables-masquerade-bit=14 --iptables-min-sync-period=1s
--iptables-sync-period=30s --ipvs-exclude-cidrs=10.0.0.0/8 --ipvs-min-sync-period=1s --ipvs-scheduler=rr
--ipvs-strict-arp=true --ipvs-sync-period=30s --ipvs-tcp-timeout=2h22m --ipvs-tcpfin-timeout=5s --ipvs-udp-timeout=0s
--kube-api-burst=10 --kube-api-content-type=application/vnd.kubernetes.protobuf --kube-api-qps=5.5
--kubeconfig=/var/lib/kube-proxy/kubeconfig --log-flush-frequency=5s --log-json-info-buffer-size=0
--log-json-split-stream=false --log-text-info-buffer-size=3M --log-text-split-stream=false --log_backtrace_at=:0
--log_dir=/tmp --log_file=/var/log/kube-proxy.log --log_file_max_size=1800 --logging-format=text --logtostderr=true
--machine-id-file=/etc/machine-id --masquerade-all=true --master=https://203.0.113.1:6443
--metrics-bind-address=127.0.0.1:10249 --metrics-port=10249 --nodeport-addresses=primary --one_output=false
--oom-score-adj=-999 --pod-bridge-interface=cni0 --pod-interface-name-prefix=cali --profiling=false
--proxy-mode=ipvs --proxy-port-range=0-0 --show-hidden-metrics-for-version=1.35 --skip_headers=false
--skip_log_headers=false --stderrthreshold=2 --v=2 --version=false --vmodule=proxier=4,server*=2
--write-config-to=written.conf
""".split()  # noqa: SIM905 - sixty lines otherwise
BOOLEANS = [
    flag.name for flag in WITHOUT_EFFECT if flag.boolean and flag.name not in {"--cleanup", "--init-only"}
]


def run(*words: str) -> RunArguments:
    found = parse(["run", *words], hostname="node-1")
    assert isinstance(found, RunArguments)
    return found


def without_effect(*words: str) -> list[str]:
    return [phrase.partition(":")[0] for phrase in run(*words).layers.without_effect]


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == UsageError.exit_code
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_all_of_kube_proxys_flags_are_accepted_together() -> None:
    found = run(*FLAGS)

    config = found.config
    assert (config.scheduler, config.masquerade_all, config.strict_arp) == ("rr", True, True)
    assert (config.sync_period, config.min_sync_period, config.ipvs_tcp_timeout) == (30, 1, 8520)
    assert config.master == "https://203.0.113.1:6443"
    assert found.write_config_to == Path("written.conf")


@pytest.mark.parametrize("flag", FLAGS)
def test_each_flag_has_an_effect_or_a_reason_why_it_has_none(flag: str) -> None:
    name = flag.partition("=")[0].replace("_", "-")
    beside = ["--pod-bridge-interface=cni0"] if name == "--detect-local-mode" else []
    by_equals, by_space = run(flag, *beside), run(*flag.split("=", 1), *beside)

    assert by_equals == by_space
    has_reason = any(phrase.startswith(f"{name}: ") for phrase in by_equals.layers.without_effect)
    takes_effect = by_equals.layers.flags or by_equals.write_config_to
    assert bool(takes_effect) is not has_reason or name == "--version"


@pytest.mark.parametrize("name", BOOLEANS)
def test_a_boolean_flag_may_stand_alone_and_takes_gos_spellings(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([name], [f"{name}=false"], [f"{name}=T"], [f"{name}=0"]):
        assert without_effect(*words, "--ipvs-scheduler=lc") == [name]
    assert name in refusal(capsys, f"{name}=maybe")


@pytest.mark.parametrize("words", [["-v=2"], ["-v2"], ["-v", "2"], ["--v=2"], ["--v", "2"]])
def test_the_verbosity_may_be_given_as_kube_proxy_takes_it(words: list[str]) -> None:
    assert without_effect(*words) == ["--v"]


def test_a_flag_that_is_given_twice_is_named_once() -> None:
    assert without_effect("--v=2", "--oom-score-adj", "-998", "-v=4") == ["--v", "--oom-score-adj"]


@pytest.mark.parametrize("mode", ["iptables", "nftables", "kernelspace", "userspace", "IPVS", "x"])
def test_another_mode_is_refused(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, f"--proxy-mode={mode}")

    assert "--proxy-mode" in message
    assert repr(mode) in message


def test_no_mode_is_as_good_as_the_one() -> None:
    assert without_effect("--proxy-mode=") == without_effect("--proxy-mode", "ipvs") == ["--proxy-mode"]


@pytest.mark.parametrize("flag", ["--cleanup", "--cleanup=true", "--init-only", "--init-only=1"])
def test_what_would_end_kube_proxy_does_not_start_an_agent(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flag.partition("=")[0] in refusal(capsys, flag)


@pytest.mark.parametrize("flag", ["--version", "--version=true", "--version=raw"])
def test_the_version_is_printed_in_place_of_a_start(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(flag)

    assert not ended.value.code
    assert re.fullmatch(r"ipvsproxy \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_networks_of_node_ports_add_up_when_the_flag_is_repeated() -> None:
    repeated = run("--nodeport-addresses=10.0.0.0/8", "--nodeport-addresses=primary,fd00::/8").config

    assert repeated == run("--nodeport-addresses=primary,10.0.0.0/8,fd00::/8").config


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["--healthz-port=0"], None),
        (["--healthz-port=0", "--healthz-bind-address=127.0.0.1:9000"], None),
        (["--healthz-bind-address=127.0.0.1", "--healthz-port=9001"], "127.0.0.1:9001"),
        (["--healthz-port=9001", "--healthz-bind-address=127.0.0.1:9000"], "127.0.0.1:9000"),
        # As for kube-proxy, whose default address has a port.
        (["--healthz-port=9001"], "0.0.0.0:10256"),
    ],
)
@pytest.mark.parametrize(("server", "port"), [("healthz", 10256), ("metrics", 10249)])
def test_the_deprecated_ports_are_those_of_addresses_without_one(
    words: list[str], place: str | None, server: str, port: int
) -> None:
    config = run(*(word.replace("healthz", server) for word in words)).config

    found = config.healthz_bind_address if server == "healthz" else config.metrics_bind_address
    expected = place and place.replace("0.0.0.0:10256", f"127.0.0.1:{port}") if server == "metrics" else place
    assert (found and format_endpoint(*found)) == expected


@pytest.mark.parametrize("text", ["ftp://203.0.113.1", "https://", "a b", "https://[::1", "/path"])
def test_a_master_that_is_no_server_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--master" in refusal(capsys, f"--master={text}")


def test_the_help_is_not_about_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["run", "--help"])
    shown = set(re.findall(r"(?<!\S)-[-\w]+", capsys.readouterr().out))

    assert shown.isdisjoint({*(flag.name for flag in WITHOUT_EFFECT), "-v", "--healthz-port", "--version"})


def test_a_flag_of_nobody_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--udp-timeouts" in refusal(capsys, "--v=2", "--udp-timeouts=1s")


@pytest.mark.parametrize("command", [["check"], ["config", "show"]])
def test_the_commands_that_take_the_agents_flags_take_these_too(command: list[str]) -> None:
    for flag in FLAGS:
        if not flag.startswith(("--write-config-to", "--detect-local-mode")):
            assert not parse([*command, flag]).asks_agent or flag == "--version=false"  # type: ignore[attr-defined] # both have it
