"""Who listens, as /proc/net tells it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.listening import Listener, listeners, listeners_of
from ipvsproxy.model.objects import Protocol
from tests.builders import address

if TYPE_CHECKING:
    from pathlib import Path

# The kernel prints the words of an address as numbers of the host's.
pytestmark = pytest.mark.skipif(sys.byteorder == "big", reason="the samples are of a little-endian machine")

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = "00000000:00000000 00:00000000 00000000     0        0 25 1 0000000000000000 100 0 0 10 0\n"
TCP = (
    f"{HEAD}   0: 0100007F:1F90 00000000:0000 0A {REST}"
    f"   1: 0A01F40A:0050 0B01F40A:A2C4 01 {REST}"
    f"   2: 00000000:0016 00000000:0000 0A {REST}"
)
TCP6 = (
    f"{HEAD}   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A {REST}"
    f"   1: 0000000000000000FFFF00000A01F40A:0051 00000000000000000000000000000000:0000 0A {REST}"
    f"   2: 000010FD960000000000000001000000:0052 00000000000000000000000000000000:0000 0A {REST}"
)
UDP = f"{HEAD}   0: 00000000:0035 00000000:0000 07 {REST}   1: 0100007F:0044 0200007F:0045 01 {REST}"
SCTP = (
    " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n"
    "(ptr) (ptr) 2   10  58   7000      0    25 0000:0000:0000:0000:0000:0000:0000:0000 \n"
    "(ptr) (ptr) 2   10  59   7001      0    26 127.0.0.1 10.244.1.10 \n"
    "(ptr) (ptr) 2   7   60   7002      0    27 0.0.0.0 \n"
)


@pytest.fixture
def proc_net(tmp_path: Path) -> Path:
    for name, text in (("tcp", TCP), ("tcp6", TCP6), ("udp", UDP)):
        (tmp_path / name).write_text(text)
    (tmp_path / "sctp").mkdir()
    (tmp_path / "sctp" / "eps").write_text(SCTP)
    return tmp_path


def test_sockets_that_listen_are_found_and_no_others(proc_net: Path) -> None:
    assert listeners(proc_net) == {
        Listener(address("127.0.0.1"), Protocol.TCP, 8080),
        Listener(address("0.0.0.0"), Protocol.TCP, 22),
        Listener(address("::"), Protocol.TCP, 443),
        Listener(address("10.244.1.10"), Protocol.TCP, 81),
        Listener(address("fd10:0:0:96::1"), Protocol.TCP, 82),
        Listener(address("0.0.0.0"), Protocol.UDP, 53),
        Listener(address("::"), Protocol.SCTP, 7000),
        Listener(address("127.0.0.1"), Protocol.SCTP, 7001),
        Listener(address("10.244.1.10"), Protocol.SCTP, 7001),
    }


def test_a_kernel_without_ipv6_and_sctp_has_none_of_them(proc_net: Path) -> None:
    (proc_net / "tcp6").unlink()
    (proc_net / "sctp" / "eps").unlink()
    assert {each.protocol for each in listeners(proc_net)} == {Protocol.TCP, Protocol.UDP}


@pytest.mark.parametrize(
    ("listening_at", "heard"),
    [
        ("10.0.0.1", {"10.0.0.1"}),
        ("0.0.0.0", {"10.0.0.1", "10.0.0.2"}),
        ("::", {"10.0.0.1", "10.0.0.2", "fd00::1"}),
        ("fd00::1", {"fd00::1"}),
    ],
)
def test_a_socket_hears_what_is_sent_to_its_address_or_to_all(listening_at: str, heard: set[str]) -> None:
    listener = Listener(address(listening_at), Protocol.TCP, 80)
    assert {to for to in ("10.0.0.1", "10.0.0.2", "fd00::1") if listener.hears(address(to))} == heard


FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
Local:
  +-- 0.0.0.0/0 2 0 2
     |-- 10.244.1.10
        /32 host LOCAL
     |-- 10.244.1.255
        /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
"""
IF_INET6 = "fd0002440000000100000000000000aa 02 40 00 80     eth0\n"


def test_who_listens_in_another_namespace_is_seen_by_any_process_of_it(tmp_path: Path) -> None:
    own = tmp_path / "thread-self/ns/net"
    for process in ("thread-self", "1", "20", "21", "30"):
        for folder in ("ns", "net"):
            (tmp_path / process / folder).mkdir(parents=True)
    own.touch()
    (tmp_path / "1/ns/net").hardlink_to(own)
    (tmp_path / "20/ns/net").touch()
    (tmp_path / "21/ns/net").hardlink_to(tmp_path / "20/ns/net")
    (tmp_path / "20/net/fib_trie").write_text(FIB_TRIE)
    (tmp_path / "20/net/if_inet6").write_text(IF_INET6)
    (tmp_path / "20/net/tcp").write_text(TCP)
    # What is asked of process 30, which has ended, has no answer.
    pod = {address("10.244.1.10"), address("fd00:244:0:1::aa")}
    others = {address("10.244.1.11"), address("10.244.1.255")}
    heard = {
        Listener(address("127.0.0.1"), Protocol.TCP, 8080),
        Listener(address("0.0.0.0"), Protocol.TCP, 22),
    }
    assert listeners_of(pod | others, tmp_path) == dict.fromkeys(pod, heard)
    assert listeners_of(set(), tmp_path) == {}
