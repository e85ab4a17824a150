"""What the words after `ipvsproxy dump` ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.dump import DumpArguments, ServicePlace
from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.errors import UsageError
from ipvsproxy.model.objects import ObjectKey, Protocol
from tests.builders import address

DIRECTORY = Path("/run/ipvsproxy")


def asked(*words: str) -> DumpArguments:
    arguments = parse(["dump", f"--run-directory={DIRECTORY}", *words])
    assert isinstance(arguments, DumpArguments)
    return arguments


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.96.0.10", ServicePlace(address("10.96.0.10"))),
        ("10.96.0.10:80", ServicePlace(address("10.96.0.10"), 80)),
        ("10.96.0.10:53/udp", ServicePlace(address("10.96.0.10"), 53, Protocol.UDP)),
        ("fd00::10", ServicePlace(address("fd00::10"))),
        ("fd00::10:80", ServicePlace(address("fd00::10:80"))),
        ("[fd00::10]:443", ServicePlace(address("fd00::10"), 443)),
        ("[fd00::10]:443/tcp", ServicePlace(address("fd00::10"), 443, Protocol.TCP)),
    ],
)
def test_an_address_is_asked_for_as_dump_prints_it(text: str, place: ServicePlace) -> None:
    assert asked("--address", text).address == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web",
        "10.96.0",
        "10.96.0.10:",
        "10.96.0.10:0",
        "10.96.0.10:65536",
        "10.96.0.10:80/icmp",
        "10.96.0.10:80 ",
        "10.96.0.10/32",
        "fd00::10:443/tcp",
        "[fd00::10",
        "[10.96.0.10]:80",
    ],
)
def test_what_is_no_address_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        asked("--address", text)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"ipvsproxy dump: --address: {' '.join(repr(text).split())} is not ADDRESS or ADDRESS:PORT, "
        "as in 10.96.0.10:80 or [fd00::10]:80\n"
    )


def test_an_endpoint_is_an_address_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("--endpoint=10.244.0.5").endpoint == address("10.244.0.5")
    with pytest.raises(SystemExit):
        asked("--endpoint=10.244.0.5:8080")
    assert capsys.readouterr().err == "ipvsproxy dump: --endpoint: '10.244.0.5:8080' is not an IP address\n"


def test_what_narrows_the_view_may_be_combined() -> None:
    words = ("-o", "wide", "--service=web", "--address=10.96.0.10", "--endpoint=10.244.0.5", "--diff")
    assert asked(*words) == DumpArguments(
        OutputFormat.WIDE,
        ObjectKey("default", "web"),
        DIRECTORY,
        ServicePlace(address("10.96.0.10")),
        address("10.244.0.5"),
        diff=True,
    )


@pytest.mark.parametrize(
    "other", ["--diff", "--output=json", "--service=web", "--address=10.96.0.10", "--endpoint=10.244.0.5"]
)
def test_a_bundle_is_of_everything(other: str) -> None:
    assert asked("--bundle=here.tar.gz").bundle == "here.tar.gz"
    with pytest.raises(UsageError, match="--bundle takes everything: it goes without any other flag"):
        asked("--bundle=here.tar.gz", other)


def test_a_bundle_without_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        asked("--bundle=")
    assert capsys.readouterr().err == "ipvsproxy dump: --bundle: '' is not the name of a file\n"
