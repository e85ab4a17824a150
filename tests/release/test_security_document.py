"""SECURITY.md names the tests that hold its claims, and all of them exist."""

from __future__ import annotations

import re

import pytest

from tests.release.versions import REPOSITORY

_TEXT = (REPOSITORY / "SECURITY.md").read_text()
_TESTS = re.findall(r"^- `(\S+\.py)::(test_\w+)`$", _TEXT, re.MULTILINE)
_SENTENCES = re.findall(r"^- `netns_tests/cases\.py: (.+)`$", _TEXT, re.MULTILINE)


def test_every_claim_has_its_tests() -> None:
    claims = re.split(r"^\*\*", _TEXT.partition("## What is not defended")[0], flags=re.MULTILINE)[1:]

    assert len(claims) > 10
    assert [claim.partition("**")[0] for claim in claims if "\n- `" not in claim] == []
    assert len(_TESTS) + len(_SENTENCES) == _TEXT.count("\n- `")


@pytest.mark.parametrize(("file", "name"), _TESTS)
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    assert re.search(rf"^\s*def {name}\(", (REPOSITORY / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("sentence", _SENTENCES)
def test_a_section_that_is_named_exists(sentence: str) -> None:
    assert f'"{sentence}",' in (REPOSITORY / "netns_tests" / "cases.py").read_text()


def test_the_agent_never_lets_packets_from_outside_reach_the_loopback_network() -> None:
    sources = (REPOSITORY / "ipvsproxy").rglob("*.py")

    assert [path for path in sources if "route_localnet" in path.read_text()] == []
