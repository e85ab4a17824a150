"""`ipvsproxy dump --bundle`: an archive that is there whole or not at all, whatever can't be had."""

from __future__ import annotations

import errno
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.cli.bundle import Collected, Part, Sources, collect, new_file, run_program, write_archive
from ipvsproxy.errors import IpvsProxyError, UsageError
from ipvsproxy.kernel.interface import KernelUnavailableError, NodeKernel
from ipvsproxy.observe import schema
from ipvsproxy.observe.agent_socket import OtherSchemaError
from tests.cli.test_dump import NOT_RUNNING, the_kernel, the_report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ipvsproxy.observe.configuration import Configuration
    from ipvsproxy.observe.schema import AgentReport
    from ipvsproxy.plan.firewall import FirewallSettings

EVENTS: list[dict[str, object]] = [{"event": "first sync", "services": 3}, {"event": "synced"}]


def unanswered() -> Configuration:
    raise NOT_RUNNING


def open_kernel(settings: FirewallSettings) -> NodeKernel:
    kernel = the_kernel()
    kernel.firewall.reopen(settings)
    return NodeKernel(*kernel)


def printed(command: Sequence[str]) -> bytes:
    return f"{' '.join(command)}\n".encode()


def sources(root: Path) -> Sources:
    return Sources(the_report, lambda: EVENTS, unanswered, open_kernel, printed, root)


def collected(of: Sources) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the contents and the reasons, by the parts' names."""
    parts = collect(of, io.StringIO())
    return (
        {each.part.name: each.content for each in parts if not each.missing},
        {each.part.name: each.missing for each in parts if each.missing},
    )


def test_what_the_agent_says_and_the_kernel_has_is_collected(tmp_path: Path) -> None:
    contents, missing = collected(sources(tmp_path))
    assert json.loads(contents["dump.json"])["agent"]["pid"] == 4711
    assert b"REAL SERVER" in contents["dump.txt"]
    assert json.loads(contents["report.json"])["schemaVersion"] == schema.SCHEMA_VERSION
    assert [json.loads(line) for line in contents["events.jsonl"].splitlines()] == EVENTS
    assert contents["nft-ruleset.txt"] == b"nft -a list ruleset\n"
    assert b"nft: nft --version" in contents["versions.txt"]
    assert b"msgspec " in contents["versions.txt"]
    assert missing["config.json"] == str(NOT_RUNNING)


def test_files_of_proc_are_taken_as_they_are_and_missing_ones_are_said(tmp_path: Path) -> None:
    net = tmp_path / "proc" / "net"
    net.mkdir(parents=True)
    (net / "ip_vs").write_text("IP Virtual Server\n")
    contents, missing = collected(sources(tmp_path))
    assert contents["ip_vs.txt"] == b"IP Virtual Server\n"
    assert missing["ip_vs_stats.txt"] == "No such file or directory"


def test_settings_are_those_of_ipvs_and_those_that_the_agent_may_set(tmp_path: Path) -> None:
    vs = tmp_path / "proc" / "sys" / "net" / "ipv4" / "vs"
    vs.mkdir(parents=True)
    (vs / "conntrack").write_text("1\n")
    (vs / "run_estimation").write_text("0\n")
    lines = collected(sources(tmp_path))[0]["sysctls.txt"].decode().splitlines()
    assert "net.ipv4.vs.conntrack = 1" in lines
    assert "net.ipv4.vs.run_estimation = 0" in lines
    assert "net.netfilter.nf_conntrack_max = (No such file or directory)" in lines
    assert lines == sorted(lines)


@pytest.mark.parametrize("error", [NOT_RUNNING, OtherSchemaError("the agent answers in schema version 99")])
def test_without_a_report_the_kernel_is_dumped_alone(tmp_path: Path, error: IpvsProxyError) -> None:
    def ask() -> AgentReport:
        raise error

    contents, missing = collected(sources(tmp_path)._replace(ask_report=ask))
    assert json.loads(contents["dump.json"])["agent"] is None
    assert missing["report.json"] == str(error)


def test_without_a_kernel_the_rest_is_there(tmp_path: Path) -> None:
    def no_kernel(_: FirewallSettings) -> NodeKernel:
        raise KernelUnavailableError("the kernel has no IPVS")

    contents, missing = collected(sources(tmp_path)._replace(open_kernel=no_kernel))
    assert "report.json" in contents
    assert missing["dump.json"] == missing["dump.txt"] == "the kernel has no IPVS"


def test_a_fault_of_the_programs_own_costs_one_part(tmp_path: Path) -> None:
    def broken() -> list[dict[str, object]]:
        raise ZeroDivisionError

    contents, missing = collected(sources(tmp_path)._replace(ask_events=broken))
    assert missing["events.jsonl"] == "ZeroDivisionError"
    assert "versions.txt" in contents


def test_each_part_is_a_line_of_progress(tmp_path: Path) -> None:
    progress = io.StringIO()
    parts = collect(sources(tmp_path), progress)
    lines = progress.getvalue().splitlines()
    assert len(lines) == len(parts)
    assert lines[0] == "ipvsproxy: collected dump.json"
    assert f"ipvsproxy: no config.json: {NOT_RUNNING}" in lines


def test_the_archive_has_one_folder_with_the_manifest_first() -> None:
    there = Collected(Part("a.txt", "what a is", bytes), b"content")
    gone = Collected(Part("b.txt", "what b is", bytes), b"", "nobody has it")
    written = io.BytesIO()
    write_archive(written, "ipvsproxy-node-a", [there, gone])
    written.seek(0)
    with tarfile.open(fileobj=written) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == ["ipvsproxy-node-a/MANIFEST", "ipvsproxy-node-a/a.txt"]
        assert {member.mode for member in members} == {0o600}
        manifest, content = (archive.extractfile(member) for member in members)
        assert manifest is not None
        assert content is not None
        assert manifest.read().decode().splitlines()[2:] == [
            "a.txt: what a is, 7 bytes",
            "b.txt: what b is, missing: nobody has it",
        ]
        assert content.read() == b"content"


def test_a_file_is_there_at_the_end_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with new_file(path) as stream:
        stream.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "bundle"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_already_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(b"theirs")
    with (
        pytest.raises(UsageError, match="bundle: the file is there already: give another name"),
        new_file(path),
    ):
        pass
    assert path.read_bytes() == b"theirs"


def test_a_file_that_comes_in_the_meantime_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with pytest.raises(IpvsProxyError, match="can't be written: File exists"), new_file(path):
        path.write_bytes(b"theirs")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"theirs"


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "none" / "bundle"
    with (
        pytest.raises(IpvsProxyError, match="bundle: the file can't be written: No such file"),
        new_file(path),
    ):
        pass


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(IpvsProxyError, match="the file can't be written: No space left on device"),
        new_file(tmp_path / "bundle"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("no-such-program-at-all",), "the program no-such-program-at-all is not installed"),
        (("sh", "-c", "echo no such table >&2; exit 3"), "sh ended with exit code 3: no such table"),
        (("sh", "-c", "exit 3"), "sh ended with exit code 3: it said nothing"),
    ],
)
def test_a_program_that_prints_nothing_says_why(command: Sequence[str], reason: str) -> None:
    with pytest.raises(IpvsProxyError, match=reason):
        run_program(command)


def test_a_program_has_no_input_and_its_output_is_the_part() -> None:
    assert run_program(("sh", "-c", "cat; echo done")) == b"done\n"
