"""The privilege to change the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.interface import KernelUnavailableError
from ipvsproxy.kernel.preflight import require_net_admin

if TYPE_CHECKING:
    from pathlib import Path


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
