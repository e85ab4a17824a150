"""The batching client against kernels written for the test: one answer for each request, or none, or an error."""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.kernel.addresses import DummyInterface
from ipvsproxy.kernel.interface import KernelError, KernelUnavailableError
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.kernel.netlink import MAX_IN_FLIGHT, NETLINK_GENERIC, NetlinkClient, generic_family
from ipvsproxy.kernel.netlink_codec import (
    HEADER,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    decode_messages,
    encode_attribute,
    encode_message,
)
from tests.builders import address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ipvsproxy.kernel.netlink_codec import Message

    Answer = Callable[[Message], Iterable[bytes | OSError]]

KIND = 30
LOST = KernelError(errno.ENOBUFS, "the kernel's answer was lost")


def message(sequence: int, kind: int = KIND, payload: bytes = b"", flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def answer(sequence: int, code: int = 0, text: str = "") -> bytes:
    """Return what the kernel says to a request: an acknowledgement, or an error."""
    payload = (-code).to_bytes(4, "little", signed=True) + bytes(HEADER.size)
    flags = NLM_F_CAPPED
    if text:
        payload += encode_attribute(NLMSGERR_ATTR_MSG, text.encode() + b"\0")
        flags |= NLM_F_ACK_TLVS
    return message(sequence, NLMSG_ERROR, payload, flags)


def done(sequence: int, code: int = 0, flags: int = 0) -> bytes:
    return message(sequence, NLMSG_DONE, (-code).to_bytes(4, "little", signed=True), flags)


def acknowledge(request: Message) -> list[bytes]:
    return [answer(request.sequence)] if request.flags & NLM_F_ACK else []


def refuse_odd(request: Message) -> list[bytes]:
    """Refuse the requests whose payload is an odd number."""
    number = int.from_bytes(request.payload, "little")
    return (
        [answer(request.sequence, errno.EEXIST, f"{number} is odd")] if number % 2 else acknowledge(request)
    )


def numbered(count: int) -> list[bytes]:
    return [encode_message(KIND, 0, number.to_bytes(4, "little")) for number in range(count)]


class KernelSocket:
    """A socket with a kernel at its other end, which answers each request before `send` returns."""

    def __init__(self, kernel: Kernel) -> None:
        self.batches: list[list[Message]] = []
        self.closed = False
        self._kernel = kernel
        self._queue: deque[bytes | OSError] = deque()

    def send(self, data: bytearray) -> int:
        assert not self.closed
        self.batches.append(list(decode_messages(bytes(data))))
        for request in self.batches[-1]:
            self._queue.extend(self._kernel.answers(request))
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:  # noqa: ARG002 - a socket's signature
        assert not self.closed
        if not self._queue:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
        following = self._queue.popleft()
        if isinstance(following, OSError):
            raise following
        assert len(following) <= size
        return following

    def close(self) -> None:
        self.closed = True


class Kernel:
    """Opens sockets; the requests of all are in `batches`, one list for each send."""

    def __init__(self, answers: Answer = acknowledge) -> None:
        self.answers = answers
        self.sockets: list[KernelSocket] = []

    def open(self, protocol: int) -> KernelSocket:
        assert protocol >= 0
        self.sockets.append(KernelSocket(self))
        return self.sockets[-1]

    def client(self) -> NetlinkClient:
        return NetlinkClient(NETLINK_GENERIC, self.open)

    @property
    def batches(self) -> list[list[Message]]:
        return [batch for opened in self.sockets for batch in opened.batches]


def test_nothing_to_send_is_no_system_call() -> None:
    kernel = Kernel()
    assert kernel.client().execute([]) == {}
    assert kernel.batches == []


def test_the_last_request_of_a_batch_alone_asks_for_an_acknowledgement() -> None:
    kernel = Kernel()
    assert kernel.client().execute(numbered(5)) == {}
    (batch,) = kernel.batches
    assert [request.flags for request in batch] == [NLM_F_REQUEST] * 4 + [NLM_F_REQUEST | NLM_F_ACK]


def test_at_most_256_requests_are_in_flight_and_they_keep_their_order() -> None:
    kernel = Kernel()
    assert kernel.client().execute(numbered(600)) == {}
    assert [len(batch) for batch in kernel.batches] == [MAX_IN_FLIGHT, MAX_IN_FLIGHT, 88]
    payloads = [request.payload for batch in kernel.batches for request in batch]
    assert payloads == [number.to_bytes(4, "little") for number in range(600)]


def test_no_two_requests_have_the_same_sequence_number() -> None:
    kernel = Kernel()
    client = kernel.client()
    client.execute(numbered(300))
    client.ask(numbered(1)[0])
    client.execute(numbered(300))
    sequences = [request.sequence for batch in kernel.batches for request in batch]
    assert len(set(sequences)) == len(sequences) == 601
    assert 0 not in sequences


def test_sequence_numbers_begin_again_before_they_overflow() -> None:
    kernel = Kernel(refuse_odd)
    client = NetlinkClient(NETLINK_GENERIC, kernel.open, first_sequence=0xFFFFFFFF - MAX_IN_FLIGHT)
    assert list(client.execute(numbered(600))) == list(range(1, 600, 2))
    assert [batch[0].sequence for batch in kernel.batches] == [
        0xFFFFFFFF - MAX_IN_FLIGHT,
        1,
        1 + MAX_IN_FLIGHT,
    ]


def test_refused_requests_are_named_by_index_with_the_kernels_text() -> None:
    expected = {number: KernelError(errno.EEXIST, f"{number} is odd") for number in range(1, 600, 2)}
    assert Kernel(refuse_odd).client().execute(numbered(600)) == expected


def test_a_refused_last_request_ends_the_batch_without_an_acknowledgement() -> None:
    kernel = Kernel(refuse_odd)
    assert kernel.client().execute(numbered(4)) == {
        1: KernelError(errno.EEXIST, "1 is odd"),
        3: KernelError(errno.EEXIST, "3 is odd"),
    }
    assert len(kernel.sockets) == 1


def test_a_stale_answer_is_nobodys() -> None:
    stale = [answer(9999, errno.EINVAL), answer(0, errno.EINVAL), message(9999)]
    kernel = Kernel(lambda request: [*stale, *acknowledge(request)])
    client = kernel.client()
    assert client.execute(numbered(3)) == {}
    assert client.ask(numbered(1)[0]) == []


def test_an_answer_of_an_earlier_batch_is_not_of_a_later_one() -> None:
    sequences: list[int] = []

    def repeat_errors(request: Message) -> list[bytes]:
        sequences.append(request.sequence)
        return [*(answer(each, errno.EINVAL) for each in sequences[:-1]), *acknowledge(request)]

    client = Kernel(repeat_errors).client()
    assert client.execute(numbered(1)) == {}
    assert client.execute(numbered(1)) == {}


def test_after_an_overflow_what_has_no_answer_is_enobufs_and_what_has_one_keeps_it() -> None:
    def overflow(request: Message) -> list[bytes | OSError]:
        number = int.from_bytes(request.payload, "little")
        if number == 0:
            return [
                OSError(errno.ENOBUFS, "No buffer space available"),
                answer(request.sequence, errno.EEXIST),
            ]
        return [answer(request.sequence, errno.ENOENT)] if number == 1 else []

    kernel = Kernel(overflow)
    client = kernel.client()
    assert client.execute(numbered(4)) == {
        0: KernelError(errno.EEXIST),
        1: KernelError(errno.ENOENT),
        2: LOST,
        3: LOST,
    }
    kernel.answers = refuse_odd
    assert client.execute(numbered(2)) == {1: KernelError(errno.EEXIST, "1 is odd")}
    assert [opened.closed for opened in kernel.sockets] == [True, False]


def test_after_an_overflow_in_one_batch_the_following_ones_are_sent() -> None:
    def overflow_once(request: Message) -> list[bytes | OSError]:
        number = int.from_bytes(request.payload, "little")
        if number == 0:
            return [OSError(errno.ENOBUFS, "No buffer space available")]
        return [] if number < MAX_IN_FLIGHT else list(acknowledge(request))

    assert Kernel(overflow_once).client().execute(numbered(300)) == dict.fromkeys(range(MAX_IN_FLIGHT), LOST)


def test_a_request_that_the_kernel_never_answers_is_enobufs() -> None:
    kernel = Kernel(lambda _: [])
    client = kernel.client()
    assert client.execute(numbered(2)) == {0: LOST, 1: LOST}
    kernel.answers = acknowledge
    assert client.execute(numbered(2)) == {}


def test_a_batch_that_the_kernel_has_no_room_for_is_enobufs() -> None:
    class FullSocket(KernelSocket):
        def send(self, data: bytearray) -> int:
            raise OSError(errno.ENOBUFS, f"no room for {len(data)} bytes")

    client = NetlinkClient(NETLINK_GENERIC, lambda _: FullSocket(Kernel()))
    assert client.execute(numbered(2)) == {0: LOST, 1: LOST}


@pytest.mark.parametrize("method", ["send", "recv"])
def test_a_broken_socket_is_an_exception(method: str) -> None:
    class BrokenSocket(KernelSocket):
        def send(self, data: bytearray) -> int:
            if method == "send":
                raise OSError(errno.EBADF, "broken")
            return len(data)

        def recv(self, size: int, flags: int = 0) -> bytes:
            raise OSError(errno.EBADF, f"broken {size} {flags}")

    client = NetlinkClient(NETLINK_GENERIC, lambda _: BrokenSocket(Kernel()))
    with pytest.raises(OSError, match="broken"):
        client.execute(numbered(2))


def test_without_the_capability_every_kind_of_request_says_so() -> None:
    client = Kernel(lambda request: [answer(request.sequence, errno.EPERM)]).client()
    (request,) = numbered(1)
    for call in (
        lambda: client.execute([request]),
        lambda: client.ask(request),
        lambda: client.dump(request),
    ):
        with pytest.raises(KernelUnavailableError, match="CAP_NET_ADMIN"):
            call()


def test_a_question_returns_the_payloads_of_its_answers() -> None:
    kernel = Kernel(
        lambda request: [
            message(request.sequence, payload=b"abcd") + message(request.sequence, payload=b"efgh"),
            *acknowledge(request),
        ]
    )
    assert kernel.client().ask(numbered(1)[0]) == [b"abcd", b"efgh"]


def test_a_refused_question_is_an_os_error_with_the_kernels_text() -> None:
    client = Kernel(lambda request: [answer(request.sequence, errno.ENODEV, "no such interface")]).client()
    with pytest.raises(OSError, match="no such interface") as caught:
        client.ask(numbered(1)[0])
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize("lost", [[], [OSError(errno.ENOBUFS, "No buffer space available")]])
def test_a_lost_answer_to_a_question_is_enobufs_and_the_next_one_goes_through(lost: list[OSError]) -> None:
    kernel = Kernel(lambda _: lost)
    client = kernel.client()
    for ask in (client.ask, client.dump):
        with pytest.raises(OSError, match="answer was lost") as caught:
            ask(numbered(1)[0])
        assert caught.value.errno == errno.ENOBUFS
    kernel.answers = acknowledge
    assert client.ask(numbered(1)[0]) == []
    assert [opened.closed for opened in kernel.sockets] == [True, True, False]


def test_a_dump_is_asked_for_and_comes_in_the_kernels_chunks() -> None:
    kernel = Kernel(
        lambda request: [
            message(request.sequence, payload=b"1...") + message(request.sequence, payload=b"2..."),
            message(9999, payload=b"xxxx"),
            message(request.sequence, payload=b"3...") + done(request.sequence),
        ]
    )
    chunks = kernel.client().dump(numbered(1)[0])
    assert [payload for chunk in chunks for payload in chunk] == [b"1...", b"2...", b"3..."]
    assert chunks[0] == [b"1...", b"2..."]
    assert kernel.batches[0][0].flags == NLM_F_REQUEST | NLM_F_DUMP


def test_an_empty_dump_has_no_payloads() -> None:
    assert Kernel(lambda request: [done(request.sequence)]).client().dump(numbered(1)[0]) == []


@pytest.mark.parametrize("ending", [done, answer])
def test_a_failed_dump_is_an_os_error(ending: Callable[[int, int], bytes]) -> None:
    client = Kernel(lambda request: [ending(request.sequence, errno.EBUSY)]).client()
    with pytest.raises(OSError, match="busy") as caught:
        client.dump(numbered(1)[0])
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize("where", ["first message", "end"])
def test_an_interrupted_dump_is_begun_again(where: str) -> None:
    kernel = Kernel()

    def interrupt_twice(request: Message) -> list[bytes]:
        flags = NLM_F_DUMP_INTR if len(kernel.batches) <= 2 else 0
        return [
            message(request.sequence, payload=b"old.", flags=flags if where == "first message" else 0),
            done(request.sequence, flags=flags if where == "end" else 0),
        ]

    kernel.answers = interrupt_twice
    assert kernel.client().dump(numbered(1)[0]) == [[b"old."]]
    assert len(kernel.batches) == 3


def test_a_dump_that_is_interrupted_each_time_is_given_up() -> None:
    kernel = Kernel(lambda request: [done(request.sequence, flags=NLM_F_DUMP_INTR)])
    with pytest.raises(InterruptedError, match="5 times"):
        kernel.client().dump(numbered(1)[0])
    assert len(kernel.batches) == 5


def test_a_generic_family_is_found_by_its_name() -> None:
    def control(request: Message) -> list[bytes]:
        assert request.type == 0x10
        assert request.payload == b"\x03\x01\0\0" + encode_attribute(2, b"IPVS\0")
        found = b"\x01\x02\0\0" + encode_attribute(2, b"IPVS\0") + encode_attribute(1, b"\x25\0")
        return [message(request.sequence, 0x10, found), *acknowledge(request)]

    assert generic_family(Kernel(control).client(), "IPVS") == 0x25


def test_a_kernel_without_ipvs_is_told_apart_and_says_what_to_load() -> None:
    kernel = Kernel(lambda request: [answer(request.sequence, errno.ENOENT)])
    with pytest.raises(KernelUnavailableError, match="modprobe ip_vs"):
        IpvsNetlink(kernel.open)
    assert kernel.sockets[0].closed


def test_ipvs_that_may_not_be_changed_names_the_capability_at_once() -> None:
    def forbid(request: Message) -> list[bytes]:
        if request.type != 0x10:
            return [answer(request.sequence, errno.EPERM)]
        found = bytes(4) + encode_attribute(1, b"\x25\0")
        return [message(request.sequence, 0x10, found), *acknowledge(request)]

    kernel = Kernel(forbid)
    with pytest.raises(KernelUnavailableError, match="CAP_NET_ADMIN"):
        IpvsNetlink(kernel.open)
    assert kernel.sockets[0].closed


def test_a_kernel_without_dummy_interfaces_says_what_to_load() -> None:
    def no_dummy(request: Message) -> list[bytes]:
        code = errno.ENODEV if request.type == 18 else errno.EOPNOTSUPP
        return [answer(request.sequence, code)]

    with pytest.raises(KernelUnavailableError, match=r"kube-ipvs0 can't be made.*modprobe dummy"):
        DummyInterface(open_socket=Kernel(no_dummy).open).ensure_interface()


def test_an_interface_that_somebody_else_makes_at_the_same_time_is_taken() -> None:
    made: list[int] = []

    def race(request: Message) -> list[bytes]:
        if request.type == 16:
            made.append(7)
            return [answer(request.sequence, errno.EEXIST)]
        if not made:
            return [answer(request.sequence, errno.ENODEV)]
        link = bytes(16) + encode_attribute(18, encode_attribute(1, b"dummy\0"))
        return [message(request.sequence, 16, link), *acknowledge(request)]

    DummyInterface(open_socket=Kernel(race).open).ensure_interface()
    assert made == [7]


def test_an_interface_that_goes_while_its_addresses_are_read_has_none() -> None:
    def vanish(request: Message) -> list[bytes]:
        if request.type == 18:
            return [message(request.sequence, 16, bytes(16)), *acknowledge(request)]
        return [answer(request.sequence, errno.ENODEV)]

    assert DummyInterface(open_socket=Kernel(vanish).open).bound() == set()


def test_the_addresses_are_told_apart_where_the_kernel_dumps_those_of_all_interfaces() -> None:
    def ignore_the_filter(request: Message) -> list[bytes]:
        if request.type == 18:
            link = bytes((0, 0, 0, 0, 2, 0, 0, 0)) + bytes(8)
            return [message(request.sequence, 16, link), *acknowledge(request)]
        dumped = [
            message(request.sequence, 20, bytes((2, 32, 0, 0, index, 0, 0, 0)) + encode_attribute(2, each))
            for index, each in ((1, address("127.0.0.1")), (2, address("10.96.0.10")))
        ]
        return [*dumped, done(request.sequence)]

    interface = DummyInterface(open_socket=Kernel(ignore_the_filter).open)
    assert interface.bound() == {address("10.96.0.10")}
    assert interface.elsewhere().keys() == {address("127.0.0.1")}


@pytest.mark.parametrize("method", ["bound", "elsewhere", "ensure_interface"])
def test_other_errors_of_the_interface_come_out(method: str) -> None:
    addresses = DummyInterface(
        open_socket=Kernel(lambda request: [answer(request.sequence, errno.ENOMEM)]).open
    )
    with pytest.raises(OSError, match="memory"):
        getattr(addresses, method)()
