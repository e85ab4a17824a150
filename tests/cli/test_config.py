"""`ipvsproxy config show`, and `--write-config-to`: what they print, and whose configuration it is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.config import ConfigArguments
from ipvsproxy.cli.config import show, table, write_config
from ipvsproxy.cli.layout import Look
from ipvsproxy.config.layers import Layers, combine
from ipvsproxy.config.reload import decide
from ipvsproxy.errors import UsageError
from ipvsproxy.observe.agent_socket import AgentNotRunningError, AgentSilentError
from ipvsproxy.observe.configuration import configuration

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipvsproxy.observe.configuration import Configuration

HEADER = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


def arguments(*words: str) -> ConfigArguments:
    found = parse(["config", "show", *words], hostname="node-1")
    assert isinstance(found, ConfigArguments)
    return found


def shown(found: ConfigArguments, question: Callable[[], Configuration]) -> tuple[str, str]:
    output, errors = io.StringIO(), io.StringIO()
    assert show(found, question, output, errors) == 0
    return output.getvalue(), errors.getvalue()


def nobody() -> Configuration:
    raise AgentNotRunningError("the agent is not running, nobody listens on /run/x")


def unasked() -> Configuration:
    raise AssertionError("the agent was asked")


def row(printed: str, flag: str) -> list[str]:
    [line] = [line for line in printed.splitlines() if line.startswith(f"{flag} ")]
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


def test_without_flags_the_agent_says_what_it_goes_by() -> None:
    theirs = configuration(combine({"scheduler": "wlc"}, None, "node-1"), None, Path("/m"))
    printed, said = shown(arguments("--run-directory", "/r"), lambda: theirs)

    assert said == "ipvsproxy: this is what the running agent goes by\n"
    assert row(printed, "--ipvs-scheduler") == [
        "--ipvs-scheduler",
        "wlc",
        "flag --ipvs-scheduler",
        "ipvs.scheduler",
    ]
    assert row(printed, "--manifests") == ["--manifests", "/m", "flag --manifests", "-"]
    assert row(printed, "--cluster-cidr") == ["--cluster-cidr", "-", "default", "clusterCIDR"]


def test_without_flags_and_agent_the_defaults_are_shown_and_that_is_said() -> None:
    printed, said = shown(arguments(), nobody)

    assert said == (
        "ipvsproxy: the agent is not running, nobody listens on /run/x: these are the defaults, "
        "what `run` without flags goes by\n"
    )
    assert row(printed, "--hostname-override") == [
        "--hostname-override",
        "node-1",
        "default, the host's name",
        "hostnameOverride",
    ]


def test_an_agent_that_does_not_answer_is_an_error() -> None:
    def silent() -> Configuration:
        raise AgentSilentError("the agent does not answer")

    with pytest.raises(AgentSilentError):
        show(arguments(), silent, io.StringIO(), io.StringIO())


def test_with_a_file_and_flags_it_shows_what_these_give_and_asks_nobody(tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(HEADER + "mode: iptables\nipvs: {scheduler: wlc, syncPeriod: 1m}\n")
    printed, said = shown(arguments("--config", str(file), "--ipvs-scheduler=sh"), unasked)

    assert said == "ipvsproxy: this is what these flags give, no agent was asked\n"
    assert printed.splitlines()[0].split() == ["SETTING", "VALUE", "FROM", "FIELD", "OF", "THE", "FILE"]
    assert row(printed, "--config") == ["--config", str(file), "flag --config", "-"]
    assert row(printed, "--ipvs-scheduler")[1:3] == ["sh", "flag --ipvs-scheduler"]
    assert row(printed, "--sync-period")[1:3] == ["1m", f"{file}: ipvs.syncPeriod"]
    assert printed.endswith("\n\nwithout effect here: mode\n")


def test_what_was_passed_over_of_a_file_stands_below_the_table(tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(HEADER + "bogus: 1\nipvs: {scheduler: rr, scheduler: wlc}\n")
    printed, _ = shown(arguments("--config", str(file)), unasked)

    assert [line.split(": ")[:3] for line in printed.splitlines()[-2:]] == [
        ["passed over", str(file), "bogus"],
        ["passed over", str(file), "ipvs.scheduler"],
    ]


def test_flags_of_kube_proxy_without_effect_are_named() -> None:
    printed, said = shown(arguments("--v=2", "--masquerade-all"), unasked)

    assert row(printed, "--masquerade-all")[1] == "true"
    assert [line.split(": ")[1:3] for line in said.splitlines()[1:]] == [["without effect here", "--v"]]


def test_a_file_that_is_wrong_is_an_error_of_the_words(tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(HEADER + "mode: 1\n")
    with pytest.raises(UsageError, match="mode: expected str, got int"):
        arguments("--config", str(file))


def test_what_waits_for_a_restart_and_why_a_file_was_refused_stand_below_the_table() -> None:
    before = combine({}, None, "node-1")
    result = decide(before, combine({"kubeconfig": Path("/k")}, None, "node-1"))
    printed = table(
        configuration(result.effective, Path("/c"), None, result.restart, "/c: bogus: unknown field"), Look()
    )

    assert printed.splitlines()[-3:] == [
        "",
        "restart needed: /c: clientConnection.kubeconfig is /k by now",
        "the file as it is now was refused, what was read before it stays in effect: /c: bogus: unknown field",
    ]


def test_on_a_narrow_terminal_a_setting_stands_above_its_value() -> None:
    lines = table(configuration(combine({}, None, "node-1"), None, None), Look(60)).splitlines()
    first = lines.index("--ipvs-scheduler")
    assert lines[first + 1] == "    ipvs.scheduler, value rr, from default"
    assert lines[lines.index("--drain-timeout") + 1] == "    value 15m, from default"


def test_json_and_yaml_have_the_same_fields() -> None:
    as_json, _ = shown(arguments("-o", "json", "--ipvs-scheduler", "wlc"), unasked)
    as_yaml, _ = shown(arguments("-o", "yaml", "--ipvs-scheduler", "wlc"), unasked)

    found = json.loads(as_json)
    assert found == yaml.safe_load(as_yaml)
    assert (found["schemaVersion"], found["file"], found["fileError"]) == (1, None, "")
    [scheduler] = [each for each in found["settings"] if each["flag"] == "--ipvs-scheduler"]
    assert scheduler == {
        "flag": "--ipvs-scheduler",
        "field": "ipvs.scheduler",
        "value": "wlc",
        "layer": "flag",
        "origin": "flag --ipvs-scheduler",
        "afterRestart": None,
    }


def test_a_written_configuration_names_what_the_file_has_no_field_for(tmp_path: Path) -> None:
    file, errors = tmp_path / "written.conf", io.StringIO()

    layers = Layers({"drain_timeout": 60.0, "strict_arp": True}, None, "node-1")
    assert write_config(layers.read(), file, errors) == 0
    assert (
        errors.getvalue()
        == f"ipvsproxy: {file} has no fields for these, give them as flags: --drain-timeout=1m\n"
    )
    assert combine({}, file, "node-1").config.strict_arp


def test_a_configuration_that_the_file_can_hold_is_written_without_a_word(tmp_path: Path) -> None:
    errors = io.StringIO()
    assert write_config(combine({}, None, "node-1"), tmp_path / "written.conf", errors) == 0
    assert errors.getvalue() == ""


@pytest.mark.parametrize("words", [["config"], ["config", "edit"], ["config", "show", "-o", "wide"]])
def test_other_words_are_refused_in_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
