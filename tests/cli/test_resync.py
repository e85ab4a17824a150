"""`ipvsproxy resync`: what it prints of the agent's answer."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.resync import ResyncArguments
from ipvsproxy.cli.resync import show
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.observe.agent_socket import AgentSilentError
from ipvsproxy.observe.schema import SCHEMA_VERSION, ResyncResult

DONE = ResyncResult(SCHEMA_VERSION, 0.0123, {}, [])


def test_an_agent_that_had_nothing_to_repair_is_one_line() -> None:
    output = io.StringIO()
    assert show(lambda: DONE, output) == 0
    assert output.getvalue().count("\n") == 1
    assert "12.3 ms" in output.getvalue()


def test_what_was_repaired_is_listed_by_kind() -> None:
    output = io.StringIO()
    repaired = {"virtual servers created": 1, "addresses added": 2}
    result = ResyncResult(SCHEMA_VERSION, 0.0123, repaired, [])
    assert show(lambda: result, output) == 0
    assert output.getvalue().splitlines()[1:] == ["  virtual servers created: 1", "  addresses added: 2"]


def test_what_fails_is_listed_and_is_an_error() -> None:
    output = io.StringIO()
    result = ResyncResult(SCHEMA_VERSION, 0.0123, {}, ["10.96.0.1: EACCES"])
    with pytest.raises(IpvsProxyError) as caught:
        show(lambda: result, output)
    assert caught.value.exit_code == 1
    assert "failing: 10.96.0.1: EACCES\n" in output.getvalue()


def test_a_comparison_that_failed_is_an_error_with_the_reason() -> None:
    output = io.StringIO()
    result = ResyncResult(SCHEMA_VERSION, 0.0, {}, [], error="nft is broken")
    with pytest.raises(IpvsProxyError, match="nft is broken"):
        show(lambda: result, output)
    assert output.getvalue() == ""


def test_an_agent_that_stays_silent_is_an_error_that_says_what_to_do() -> None:
    def say_nothing() -> ResyncResult:
        raise AgentSilentError("the agent has not answered for 75 s")

    with pytest.raises(IpvsProxyError, match="start it again") as caught:
        show(say_nothing, io.StringIO())
    assert caught.value.exit_code == 1


def test_the_agent_to_ask_is_found_by_its_run_directory() -> None:
    assert parse(["resync", "--run-directory", "/r"]) == ResyncArguments(Path("/r"))
