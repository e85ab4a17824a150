"""What is looked at before anything is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.interface import FirewallError, KernelUnavailableError
from ipvsproxy.kernel.nft import Completed
from ipvsproxy.kernel.preflight import (
    read_nft_program,
    read_privileges,
    require_net_admin,
    require_nftables,
)
from ipvsproxy.plan.check.kernel import NftProgram, Privileges

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class NfTables:
    """nf_tables that answers, or fails as it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def generation(self) -> int:
        if self._error:
            raise self._error
        return 1

    def has_table(self, name: str) -> bool:
        raise NotImplementedError


@pytest.mark.parametrize("mask", ["000001ffffffffff", "0000000000001000"])
def test_a_process_with_net_admin_passes(tmp_path: Path, mask: str) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tipvsproxy\nCapInh:\t0000000000000000\nCapEff:\t{mask}\n")
    require_net_admin(status)


@pytest.mark.parametrize("mask", ["0000000000000000", "00000000a80425fb"])
def test_without_net_admin_the_error_says_what_to_do(tmp_path: Path, mask: str) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tipvsproxy\nCapEff:\t{mask}\n")
    with pytest.raises(KernelUnavailableError, match="CAP_NET_ADMIN is missing: run as root"):
        require_net_admin(status)


def test_an_nft_that_lists_tables_passes_and_is_asked_for_no_more_than_that() -> None:
    commands: list[Sequence[str]] = []

    def run(command: Sequence[str], text: bytes) -> Completed:
        assert not text
        commands.append(command)
        return Completed(0, b'{"nftables": []}', b"")

    require_nftables(NfTables(), run)
    assert commands == [("nft", "-j", "list", "tables", "inet")]


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (b"Error: JSON support not compiled-in\nmore\n", "Error: JSON support not compiled-in"),
        (b"", "exit code 3"),
    ],
)
def test_an_nft_that_fails_is_refused_with_its_reason(errors: bytes, reason: str) -> None:
    with pytest.raises(KernelUnavailableError) as caught:
        require_nftables(NfTables(), lambda *_: Completed(3, b"", errors))
    assert str(caught.value) == (
        f"the program nft can't be used, `nft -j list tables inet` fails: {reason}: "
        "install the package nftables, 1.0 or later"
    )


def test_an_nft_that_hangs_is_refused() -> None:
    def run(*_: object) -> Completed:
        raise FirewallError("nft did not end within 60 seconds")

    with pytest.raises(KernelUnavailableError, match="the program nft can't be used: nft did not end within"):
        require_nftables(NfTables(), run)


def test_a_kernel_without_nf_tables_is_refused_before_nft_runs() -> None:
    def run(*_: object) -> Completed:
        pytest.fail("nft runs")

    with pytest.raises(KernelUnavailableError, match="no nf_tables"):
        require_nftables(NfTables(KernelUnavailableError("the kernel has no nf_tables")), run)


@pytest.mark.parametrize(
    ("mask", "users", "expected"),
    [
        (
            "000001ffffffffff",
            "0 0 4294967295",
            Privileges(may_configure_network=True, may_load_modules=True, initial_user_namespace=True),
        ),
        (
            "0000000000001000",
            "0 100000 65536",
            Privileges(may_configure_network=True, may_load_modules=False, initial_user_namespace=False),
        ),
        (
            "0000000000000000",
            "0 0 4294967295",
            Privileges(may_configure_network=False, may_load_modules=False, initial_user_namespace=True),
        ),
    ],
)
def test_privileges_are_told_by_capabilities_and_the_map_of_users(
    tmp_path: Path, mask: str, users: str, expected: Privileges
) -> None:
    (tmp_path / "status").write_text(f"CapEff:\t{mask}\n")
    (tmp_path / "uid_map").write_text(f"         {users}\n")
    assert read_privileges(tmp_path) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            b"nftables v1.0.6 (Lester Gooch #5)\n  cli:\t\teditline\n  json:\t\tyes\n",
            NftProgram((1, 0, 6), json=True),
        ),
        (b"nftables v0.9.8 (E.D.S.)\n  json:\t\tno\n", NftProgram((0, 9, 8), json=False)),
    ],
)
def test_nft_says_its_version_and_whether_it_has_json(output: bytes, expected: NftProgram) -> None:
    assert read_nft_program(lambda *_: Completed(0, output, b"")) == expected


def test_an_nft_that_is_not_there_is_none_and_one_that_does_not_say_is_an_error() -> None:
    def missing(*_: object) -> Completed:
        raise KernelUnavailableError("no nft")

    assert read_nft_program(missing) is None
    with pytest.raises(ValueError, match="does not say its version"):
        read_nft_program(lambda *_: Completed(1, b"", b"usage"))
