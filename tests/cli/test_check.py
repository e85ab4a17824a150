"""`ipvsproxy check`: its words, what it prints, and what becomes of what can't be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.check import CheckArguments
from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.check import guarded
from ipvsproxy.cli.check_text import render
from ipvsproxy.cli.layout import Look
from ipvsproxy.errors import NotPermittedError
from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.plan.check.finding import Check, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "check.md").read_text()
ERROR = Finding(
    Check.KERNEL_SETTING,
    Severity.ERROR,
    "net.ipv4.ip_forward is 0 and should be 1: the node does not pass IPv4 traffic on to pods",
    "sysctl -w net.ipv4.ip_forward=1",
    "net.ipv4.ip_forward",
)
OK = Finding(Check.NFT, Severity.OK, "nft 1.0.6, with JSON")


def arguments(*words: str) -> CheckArguments:
    found = parse(["check", *words], hostname="node-a")
    assert isinstance(found, CheckArguments)
    return found


def test_without_flags_the_agents_own_configuration_counts() -> None:
    found = arguments()
    assert (found.output, found.asks_agent, found.config.run_directory) == (
        OutputFormat.TABLE,
        True,
        Path("/run/ipvsproxy"),
    )
    assert arguments("--run-directory=/r", "-o", "json").asks_agent


def test_flags_of_run_and_a_file_say_what_is_expected(tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nipvs: {strictARP: true}\n"
    )
    found = arguments(f"--config={file}")
    assert (found.asks_agent, found.config.strict_arp) == (False, True)
    assert not arguments("--ipvs-scheduler", "wlc").asks_agent
    assert not arguments("--manifests", "/m").asks_agent


def test_a_format_that_check_does_not_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["check", "-o", "yaml"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("'yaml' is not one of table, json\n")


def test_off_a_terminal_a_finding_is_one_line_and_its_mend_another() -> None:
    assert render([ERROR, OK], Look()).splitlines() == [
        f"error    kernel-setting  {ERROR.meaning}",
        f"                         mend: {ERROR.mend}",
        "ok       nft             nft 1.0.6, with JSON",
        "",
        "1 error, 1 ok",
    ]


def test_on_a_terminal_it_is_as_wide_as_that_and_severities_have_colours() -> None:
    lines = render([ERROR, OK], Look(70, colours=True)).splitlines()
    assert lines[:3] == [
        "\x1b[31merror  \x1b[0m  kernel-setting  net.ipv4.ip_forward is 0 and should be 1: the",
        "                         node does not pass IPv4 traffic on to pods",
        "                         mend: sysctl -w net.ipv4.ip_forward=1",
    ]
    assert max(len(line) for line in lines if "\x1b" not in line) <= 70


@pytest.mark.parametrize(
    "error",
    [OSError(5, "broken"), ValueError("broken"), KernelUnavailableError("broken"), FirewallError("broken")],
)
def test_what_can_not_be_looked_at_is_unknown_and_what_was_found_before_counts(error: Exception) -> None:
    def look() -> Iterator[Finding]:
        yield OK
        raise error

    before, found = guarded(Check.NFT, look)
    assert before == OK
    assert (found.check, found.severity) == (Check.NFT, Severity.UNKNOWN)
    assert "broken" in found.meaning


def test_a_missing_permission_ends_everything() -> None:
    def look() -> list[Finding]:
        raise NotPermittedError("run as root")

    with pytest.raises(NotPermittedError):
        guarded(Check.AGENT, look)


@pytest.mark.parametrize("name", [*Check, *Severity])
def test_the_page_describes_every_check_and_severity(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def test_the_page_has_no_check_that_there_is_not() -> None:
    table = PAGE.partition("## What is looked at")[2].partition("\n## ")[0]
    names = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert names == list(Check)
