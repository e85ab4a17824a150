"""The IPVS adapter beside a bare loop that sends the same bytes ready-made, and the time to read them back.

Run it in a kernel with IPVS, as root: `python -m bench.netlink [SERVICES [ENDPOINTS]]`. Loop and adapter take turns,
each in a new network namespace; of the rounds the least disturbed counts.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from typing import NamedTuple

from bench.common import in_new_network_namespace, machine
from ipvsproxy.kernel.ipvs import IpvsNetlink
from ipvsproxy.kernel.ipvs_codec import IPVS_GENL_NAME, encode_operations
from ipvsproxy.kernel.netlink import NETLINK_GENERIC, NetlinkClient, generic_family, open_socket
from ipvsproxy.model.addresses import Address
from ipvsproxy.model.ipvs import Command, IpvsOperation, RealServer, VirtualServer, VirtualServerKey
from ipvsproxy.model.objects import Protocol

ROUNDS = 5
BARE_BATCH = 128
# The resync's.
SLICE = 64


class Figures(NamedTuple):
    """What the adapter took in one round, in seconds."""

    program: float
    read_virtual_servers: float
    read_real_servers: float
    longest_slice: float


def plan(services: int, endpoints: int) -> list[IpvsOperation]:
    """Return the operations for services of that many endpoints each."""
    operations = []
    for service in range(services):
        address = Address((0x0A600000 + service).to_bytes(4))
        virtual_server = VirtualServer(VirtualServerKey(address, Protocol.TCP, 80), "rr")
        operations.append(IpvsOperation(Command.NEW_SERVICE, virtual_server))
        for endpoint in range(endpoints):
            pod = Address((0x0B000000 + service * endpoints + endpoint).to_bytes(4))
            operations.append(IpvsOperation(Command.NEW_DEST, virtual_server, RealServer(pod, 8080)))
    return operations


def bare_loop(operations: list[IpvsOperation]) -> float:
    """Return the seconds to send ready-made datagrams, without asking for answers."""
    prepare_namespace()
    with NetlinkClient(NETLINK_GENERIC) as client:
        messages = list(encode_operations(operations, generic_family(client, IPVS_GENL_NAME)))
    datagrams = [b"".join(messages[at : at + BARE_BATCH]) for at in range(0, len(messages), BARE_BATCH)]
    with open_socket(NETLINK_GENERIC) as bare:
        began = time.perf_counter()
        for datagram in datagrams:
            bare.send(datagram)
        return time.perf_counter() - began


def encode_alone(operations: list[IpvsOperation]) -> float:
    """Return the seconds to encode and to throw away."""
    began = time.perf_counter()
    for _ in encode_operations(operations, message_type=30):
        pass
    return time.perf_counter() - began


def adapter(operations: list[IpvsOperation]) -> Figures:
    """Return the seconds to program everything and to read it back."""
    prepare_namespace()
    with IpvsNetlink() as ipvs:
        began = time.perf_counter()
        refused = ipvs.apply(operations)
        program = time.perf_counter() - began
        if refused:
            raise RuntimeError(f"{len(refused)} operations were refused: {next(iter(refused.values()))}")
        began = time.perf_counter()
        keys = [virtual_server.key for chunk in ipvs.virtual_servers() for virtual_server in chunk]
        read_virtual_servers = time.perf_counter() - began
        slices = []
        for at in range(0, len(keys), SLICE):
            began = time.perf_counter()
            ipvs.real_servers(keys[at : at + SLICE])
            slices.append(time.perf_counter() - began)
    return Figures(program, read_virtual_servers, sum(slices), max(slices))


def prepare_namespace() -> None:
    """Bring the loopback interface up: without any address the kernel takes no real servers."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def main() -> None:
    """Measure in turns and print the least disturbed figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("services", type=int, nargs="?", default=1000)
    parser.add_argument("endpoints", type=int, nargs="?", default=10)
    arguments = parser.parse_args()
    operations = plan(arguments.services, arguments.endpoints)
    bare, encode, programmed = [], [], []
    for _ in range(ROUNDS):
        bare.append(in_new_network_namespace(lambda: bare_loop(operations)))
        encode.append(encode_alone(operations))
        programmed.append(in_new_network_namespace(lambda: adapter(operations)))
    best = Figures(*(min(column) for column in zip(*programmed, strict=True)))
    each = 1e6 / len(operations)
    real_servers = len(operations) - arguments.services
    print(machine())
    print(f"{arguments.services} services of {arguments.endpoints} endpoints, {len(operations)} messages")
    print(f"bare loop              {min(bare) * each:8.2f} µs a message")
    print(f"encode alone           {min(encode) * each:8.2f} µs a message")
    print(f"encode, send, confirm  {best.program * each:8.2f} µs a message")
    print(f"ratio to the bare loop {best.program / min(bare):8.2f}")
    print(f"read virtual servers   {best.read_virtual_servers * 1e6 / arguments.services:8.2f} µs each")
    print(f"read real servers      {best.read_real_servers * 1e6 / max(real_servers, 1):8.2f} µs each")
    print(f"read back in all       {(best.read_virtual_servers + best.read_real_servers) * 1e3:8.1f} ms")
    print(f"longest slice of {SLICE}    {best.longest_slice * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
