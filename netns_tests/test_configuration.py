"""The configuration of an agent that runs: shown, changed in its file, by signals, and over HTTP."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import ServiceType
from netns_tests import tables
from netns_tests.bare_node import Node
from netns_tests.cluster import Cluster
from netns_tests.deadline import await_that
from netns_tests.namespaces import Namespace
from netns_tests.program import PROGRAM, run_to_end
from netns_tests.traffic import Connection
from tests.api_server_state import EVENTS
from tests.observe.http_clients import get, refuses

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from netns_tests.bare_node import Agent

HEADER = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


class ConfigMap:
    """A configuration file in a directory as the kubelet mounts a ConfigMap: a change renames a symbolic link."""

    def __init__(self, directory: Path, text: str) -> None:
        """Write the first version."""
        directory.mkdir()
        self._directory = directory
        self._version = 0
        self.file = directory / "config.conf"
        self.file.symlink_to("..data/config.conf")
        self.write(text)

    @property
    def flag(self) -> str:
        """The flag that names the file."""
        return f"--config={self.file}"

    def write(self, text: str) -> None:
        """Put another version in the place of the one before, in one step."""
        self._version += 1
        version = self._directory / f"..{self._version}"
        version.mkdir()
        (version / "config.conf").write_text(HEADER + text)
        link = self._directory / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self._directory / "..data")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Namespace("node") as namespace:
        yield Node(namespace, tmp_path)


@pytest.fixture
def config_map(tmp_path: Path) -> ConfigMap:
    return ConfigMap(tmp_path / "configuration", "ipvs: {scheduler: wlc}\n")


@pytest.fixture
def agent(node: Node, config_map: ConfigMap) -> Iterator[Agent]:
    """Return an agent on manifests, of which there are none, that has compared everything."""
    with node.agent(node.manifests_flag, config_map.flag, "--drain-timeout=2m") as running:
        running.await_line("first sync")
        yield running


def run(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    with node.namespace.entered():
        return run_to_end([*PROGRAM, *words])


def settings(node: Node) -> dict[str, dict[str, Any]]:
    """Return what `config show -o json` says of each setting, by its flag."""
    shown = run(node, "config", "show", "-o", "json", node.run_directory_flag)
    assert shown.returncode == 0, shown.stderr
    return {each["flag"]: each for each in json.loads(shown.stdout)["settings"]}


def kernel_setting(node: Node, name: str) -> str:
    with node.namespace.entered():
        return Path("/proc/sys", name).read_text().strip()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


def test_config_show_says_what_the_running_agent_goes_by_and_where_it_comes_from(
    node: Node, config_map: ConfigMap, agent: Agent
) -> None:
    assert agent.process.poll() is None
    shown = run(node, "config", "show", node.run_directory_flag)

    assert (shown.returncode, shown.stderr) == (0, "ipvsproxy: this is what the running agent goes by\n")
    rows = [cells(line) for line in shown.stdout.splitlines()]
    assert rows[0] == ["SETTING", "VALUE", "FROM", "FIELD OF THE FILE"]
    assert ["--config", str(config_map.file), "flag --config", "-"] in rows
    assert ["--ipvs-scheduler", "wlc", f"{config_map.file}: ipvs.scheduler", "ipvs.scheduler"] in rows
    assert ["--drain-timeout", "2m", "flag --drain-timeout", "-"] in rows
    assert ["--sync-period", "30s", "default", "ipvs.syncPeriod"] in rows


def test_an_agent_starts_with_kube_proxys_own_words_and_says_once_which_do_nothing(
    node: Node, config_map: ConfigMap
) -> None:
    config_map.write("ipvs: {scheduler: rr, scheduler: lc, bogus: 1}\nmode: iptables\n")
    words = (
        "--proxy-mode=ipvs",
        "--v=2",
        "--oom-score-adj",
        "-998",
        "--masquerade-all",
        "--log_dir=/x",
        "--v=4",
    )
    with node.agent(node.manifests_flag, config_map.flag, *words) as running:
        flags = running.await_line("flags of kube-proxy without effect")["flags"]
        fields = running.await_line("configuration fields without effect")["fields"]
        remarks = running.await_line("configuration passed over in part")["remarks"]
        running.await_line("first sync")
        shown = settings(node)

    names = [each.partition(":")[0] for each in flags]
    assert names == ["--proxy-mode", "--v", "--oom-score-adj", "--log-dir"]
    assert fields == ["mode"]
    assert [each.partition(":")[0] for each in remarks] == ["ipvs.bogus", "ipvs.scheduler"]
    assert shown["--masquerade-all"]["value"] == "true"
    assert shown["--ipvs-scheduler"]["value"] == "lc"


def test_config_show_without_an_agent_shows_the_defaults_and_says_so(node: Node) -> None:
    shown = run(node, "config", "show", node.run_directory_flag)

    assert shown.returncode == 0
    assert shown.stderr == (
        f"ipvsproxy: the agent is not running, nobody listens on {node.run_directory}/agent.sock: "
        "these are the defaults, what `run` without flags goes by\n"
    )
    assert ["--ipvs-scheduler", "rr", "default", "ipvs.scheduler"] in map(cells, shown.stdout.splitlines())


def test_kernel_settings_and_addresses_of_a_changed_file_are_taken_over(
    node: Node, config_map: ConfigMap, agent: Agent
) -> None:
    with node.namespace.entered():
        assert get(10249, "/proxyMode").body == b"ipvs"
    assert kernel_setting(node, "net/ipv4/conf/all/arp_ignore") == "0"

    config_map.write(
        "ipvs: {scheduler: wlc, strictARP: true}\nmetricsBindAddress: 127.0.0.1:9100\nhealthzBindAddress: none\n"
    )

    changed = agent.await_line("configuration changed", setting="--ipvs-strict-arp (ipvs.strictARP)")
    assert (changed["old"], changed["new"]) == ("false", "true")
    agent.await_line("configuration read again", changed=3, waiting_for_restart=0)
    assert kernel_setting(node, "net/ipv4/conf/all/arp_ignore") == "1"
    with node.namespace.entered():
        found = json.loads(get(9100, "/configz").body)["kubeproxy.config.k8s.io"]
        assert (found["ipvs"]["strictARP"], found["healthzBindAddress"]) == (True, "none")
        assert refuses(10249)
        assert refuses(10256)


def test_other_rules_of_a_changed_file_replace_those_of_the_table(
    node: Node, config_map: ConfigMap, agent: Agent
) -> None:
    def rules() -> str:
        return node.namespace.run("nft", "list", "table", "inet", "ipvsproxy")

    assert "0x00004000" in rules()

    config_map.write("ipvs: {scheduler: wlc}\niptables: {masqueradeBit: 13}\n")

    agent.await_line("configuration changed", old="14", new="13")
    await_that(lambda: "0x00002000" in rules(), "the rules have the other bit")
    assert "0x00004000" not in rules()


def test_a_broken_file_is_one_line_and_what_was_before_it_stays(
    node: Node, config_map: ConfigMap, agent: Agent
) -> None:
    config_map.write("ipvs: {scheduler: wlc, strictARP: maybe}\n")

    refused = agent.await_line("configuration refused, the one before stays in effect")
    assert refused["reason"] == f"{config_map.file}: ipvs.strictARP: expected bool, got str"
    shown = run(node, "config", "show", node.run_directory_flag).stdout
    assert shown.splitlines()[-1] == (
        f"the file as it is now was refused, what was read before it stays in effect: {refused['reason']}"
    )
    config_map.write("ipvs: {scheduler: sh}\n")
    agent.await_line("configuration changed", new="sh")
    assert settings(node)["--ipvs-scheduler"]["value"] == "sh"
    assert len([line for line in agent.log() if line["event"] == refused["event"]]) == 1


def test_what_needs_a_restart_is_named_and_taken_over_by_the_next_start(
    node: Node, config_map: ConfigMap, agent: Agent
) -> None:
    config_map.write("ipvs: {scheduler: wlc}\nhostnameOverride: node-b\n")

    needed = agent.await_line("restart needed", new="node-b")
    assert needed["setting"] == "--hostname-override (hostnameOverride)"
    name = settings(node)["--hostname-override"]
    assert (name["value"], name["afterRestart"]) == (needed["old"], "node-b")
    assert run(node, "config", "show", node.run_directory_flag).stdout.splitlines()[-1] == (
        f"restart needed: {config_map.file}: hostnameOverride is node-b by now"
    )
    assert agent.end() == 0
    with node.agent(node.manifests_flag, config_map.flag) as restarted:
        restarted.await_line("first sync")
        name = settings(node)["--hostname-override"]
        assert (name["value"], name["afterRestart"]) == ("node-b", None)


def test_signals_change_the_level_and_have_the_file_read_again(agent: Agent) -> None:
    def send(number: signal.Signals, event: str, **fields: object) -> None:
        os.kill(agent.process.pid, number)
        agent.await_line(event, **fields)

    send(signal.SIGUSR1, "log level changed", to="debug")
    send(signal.SIGHUP, "configuration read again", changed=0)
    send(signal.SIGUSR2, "log level changed", to="info")
    send(signal.SIGUSR2, "log level changed", to="warning")
    assert agent.end() == 0
    assert agent.log()[-1]["event"] == "log level changed"


def test_sighup_without_a_file_says_so_and_the_agent_goes_on(node: Node) -> None:
    with node.agent() as agent:
        agent.await_line("first sync")
        os.kill(agent.process.pid, signal.SIGHUP)
        agent.await_line("no configuration file to read again")
        assert agent.end() == 0


def test_the_metrics_address_answers_as_kube_proxys_does(node: Node, agent: Agent) -> None:
    assert agent.process.poll() is None
    with node.namespace.entered():
        found = {path: get(10249, path) for path in ("/healthz", "/proxyMode", "/configz", "/none")}
        ready = get(10256, "/readyz")
        assert refuses(10249, "127.0.0.2")
    assert {path: answer.status for path, answer in found.items()} == {
        "/healthz": 200,
        "/proxyMode": 200,
        "/configz": 200,
        "/none": 404,
    }
    assert (found["/healthz"].body, found["/proxyMode"].body) == (b"ok", b"ipvs")
    configz = json.loads(found["/configz"].body)
    assert list(configz) == ["kubeproxy.config.k8s.io"]
    assert configz["kubeproxy.config.k8s.io"]["ipvs"]["scheduler"] == "wlc"
    assert (ready.status, ready.body) == (200, b"ready\n")


def test_what_is_the_matter_with_a_node_is_told_on_it(node: Node, config_map: ConfigMap) -> None:
    with (
        node.api_server() as server,
        node.agent(*node.api_flags(server), config_map.flag) as agent,
    ):
        agent.await_line("first sync")
        config_map.write("ipvs: {scheduler: best}\n")
        agent.await_line("configuration refused, the one before stays in effect")

        def told() -> dict[str, dict[str, Any]]:
            return {
                event["reason"]: event
                for event in server.state.objects(EVENTS)
                if event["regarding"]["kind"] == "Node"
            }

        await_that(lambda: {"Starting", "ConfigurationRefused"} <= told().keys(), "both Events are written")
        start, refused = told()["Starting"], told()["ConfigurationRefused"]
    assert start["type"] == "Normal"
    assert start["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": "node-a"}
    assert refused["type"] == "Warning"
    assert refused["note"].startswith("the configuration before it stays in effect: ")
    assert "'best' is not an IPVS scheduler" in refused["note"]


def test_another_scheduler_is_taken_over_in_place_while_connections_go_on(tmp_path: Path) -> None:
    config_map = ConfigMap(tmp_path / "configuration", "ipvs: {scheduler: rr}\n")
    with Cluster.built(tmp_path) as cluster:
        cluster.agent.flags = (config_map.flag,)
        cluster.agent.start()
        service = cluster.new_service("web-1", "web-2")
        service.become(ServiceType.CLUSTER_IP)
        service.await_pods("web-1", "web-2")
        target = service.target(Family.IPV4)
        assert tables.virtual_servers(cluster.node)[target].settings == "rr"
        with Connection(cluster["client"], target) as connection:
            server = connection.ask().server
            config_map.write("ipvs: {scheduler: lc}\n")
            await_that(
                lambda: tables.virtual_servers(cluster.node)[target].settings == "lc",
                "the kernel has the other scheduler",
            )
            assert connection.ask().server == server
            assert sum(each.active_connections for each in real_servers(cluster, target)) == 1
        [synced] = [line for line in cluster.agent.logged("synced") if line.get("virtual_servers_changed")]
        assert not any(name.endswith(("_created", "_added", "_deleted")) for name in synced)


def real_servers(cluster: Cluster, target: Any) -> list[tables.RealServer]:  # noqa: ANN401 - see traffic.Target
    return tables.virtual_servers(cluster.node)[target].real_servers
