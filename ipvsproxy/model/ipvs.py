"""Virtual servers and real servers as the kernel's IPVS holds them, and the operations that change them.

The names and numbers are those of include/uapi/linux/ip_vs.h. Forwarding is always masquerading (NAT).
"""

import enum
from typing import NamedTuple

from ipvsproxy.model.addresses import Address, format_endpoint
from ipvsproxy.model.objects import Protocol


class ServiceFlag(enum.IntFlag):
    """IP_VS_SVC_F_*: flags of a virtual server that the agent sets. HASHED (0x2) is the kernel's own and never here."""

    PERSISTENT = 0x1
    ONE_PACKET = 0x4
    SCHEDULER_1 = 0x8
    SCHEDULER_2 = 0x10
    SCHEDULER_3 = 0x20


class VirtualServerKey(NamedTuple):
    """What identifies a virtual server in the kernel."""

    address: Address
    protocol: Protocol
    port: int

    def __str__(self) -> str:
        """Return `ADDRESS:PORT/PROTOCOL`."""
        return f"{format_endpoint(self.address, self.port)}/{self.protocol.name.lower()}"


class RealServer(NamedTuple):
    """One destination of a virtual server; address and port identify it there.

    A weight of 0 keeps its connections and gets no new ones. The thresholds bound its connections; 0 is unbounded.
    """

    address: Address
    port: int
    weight: int = 1
    upper_threshold: int = 0
    lower_threshold: int = 0

    def __str__(self) -> str:
        """Return `ADDRESS:PORT`."""
        return format_endpoint(self.address, self.port)


class VirtualServer(NamedTuple):
    """A virtual server and its real servers, as planned or as found in the kernel.

    `flags` is a combination of ServiceFlag; `timeout` is the persistence timeout in seconds, 0 without PERSISTENT.
    `real_servers` is sorted by address and port, so that equal states compare equal.
    """

    key: VirtualServerKey
    scheduler: str
    flags: int = 0
    timeout: int = 0
    real_servers: tuple[RealServer, ...] = ()


class RealServerStatus(NamedTuple):
    """A real server as a dump of the kernel shows it, with its connection counts.

    `persistent_connections` are its templates: the clients that persistence keeps with it.
    """

    real_server: RealServer
    active_connections: int
    inactive_connections: int
    persistent_connections: int = 0


class Traffic(NamedTuple):
    """What went through a virtual server or a real server: counts, or counts a second.

    `in` is from clients to the real server, `out` back to them; bytes are those of IP packets, headers included.
    """

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Statistics(NamedTuple):
    """The kernel's counters of a virtual server or a real server.

    `total` counts since it was made; a real server that left and came back within minutes may go on where it was.
    `per_second` is the kernel's estimate, to which the last 2 seconds contribute a quarter. The kernel brings both up
    to date every 2 seconds; while net.ipv4.vs.run_estimation is 0 they stay as they are.
    """

    total: Traffic = Traffic()
    per_second: Traffic = Traffic()


class Command(enum.IntEnum):
    """IPVS_CMD_*: the generic netlink commands that change a virtual server or a real server."""

    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    NEW_DEST = 5
    SET_DEST = 6
    DEL_DEST = 7


class IpvsOperation(NamedTuple):
    """One change of the kernel's IPVS tables.

    The *_SERVICE commands read `virtual_server` without its real servers; the *_DEST commands read its key only,
    and `real_server`, which they alone have.
    """

    command: Command
    virtual_server: VirtualServer
    real_server: RealServer | None = None
