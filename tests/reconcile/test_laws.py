"""The laws of docs/architecture.md under random Services, faults, meddling and restarts.

After every step the order of what took effect is checked against the laws; at the end, once faults stop, the kernel
must be exactly what a fresh plan asks for, and what is somebody else's must be as it was.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ipvsproxy.kernel.fake import AddressOperation
from ipvsproxy.kernel.fake_firewall import FirewallChange
from ipvsproxy.model.firewall import FirewallSet
from ipvsproxy.model.ipvs import Command, IpvsOperation, VirtualServerKey
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.plan.desired import elements_of
from ipvsproxy.plan.services import plan_service
from tests.builders import address, endpoint_slice, key, port, real_server, service, virtual_server
from tests.reconcile.world import SETTINGS, World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipvsproxy.model.addresses import Address
    from ipvsproxy.model.firewall import SetElement
    from ipvsproxy.model.ipvs import VirtualServer
    from ipvsproxy.model.objects import EndpointSlice, Service

CLUSTER_IPS = [f"10.96.0.{number}" for number in range(1, 4)]
PODS = [f"10.244.0.{number}" for number in range(1, 4)]
NAMES = [ObjectKey("default", name) for name in ("a", "b", "c")]
PORTS = (80, 443)
# At an address that no Service claims: the agent must not even look at it.
FOREIGN = virtual_server(key("10.96.99.1"), real_server("192.0.2.1"), scheduler="wlc")


class Laws(RuleBasedStateMachine):
    """A node on which everything happens."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.services: dict[ObjectKey, Service] = {}
        self.slices: dict[ObjectKey, EndpointSlice] = {}
        self.recorded: set[VirtualServerKey] = set()
        self.present: set[VirtualServerKey] = set()
        self.bound: set[Address] = set()
        self.deleted_by_others: set[VirtualServerKey] = set()
        self.foreign: dict[VirtualServerKey, VirtualServer] = {}

    @initialize()
    def begin(self) -> None:
        self._create(FOREIGN)
        self.world.taken_log()
        self.world.list_objects()

    @rule(
        name=st.sampled_from(NAMES),
        cluster_ips=st.lists(st.sampled_from(CLUSTER_IPS), unique=True, max_size=2),
        ports=st.lists(st.sampled_from(PORTS), unique=True, min_size=1, max_size=2),
        created=st.integers(0, 2),
    )
    def put_service(self, name: ObjectKey, cluster_ips: list[str], ports: list[int], created: int) -> None:
        value = service(*cluster_ips, of=name, ports=tuple(port(each) for each in ports), created=created)
        self.services[name] = value
        self.world.put(value)

    @rule(name=st.sampled_from(NAMES), pods=st.lists(st.sampled_from(PODS), unique=True))
    def put_slice(self, name: ObjectKey, pods: list[str]) -> None:
        value = endpoint_slice(*pods, of=name, name=f"{name.name}-1")
        self.slices[name] = value
        self.world.put(value)

    @rule(name=st.sampled_from(NAMES))
    def remove_service(self, name: ObjectKey) -> None:
        self.services.pop(name, None)
        self.world.store.remove_service(name)
        self.world.settle()

    @rule(seconds=st.sampled_from((1.0, 5.0, 31.0)))
    def pass_time(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(
        cluster_ip=st.sampled_from(CLUSTER_IPS),
        number=st.sampled_from(PORTS),
        code=st.sampled_from((errno.ENOMEM, errno.EPERM, errno.ENOBUFS)),
    )
    def refuse_virtual_server(self, cluster_ip: str, number: int, code: int) -> None:
        self.world.ipvs.refuse(key(cluster_ip, number), code)

    @rule(cluster_ip=st.sampled_from(CLUSTER_IPS))
    def refuse_address(self, cluster_ip: str) -> None:
        self.world.addresses.refuse(address(cluster_ip), errno.EPERM)

    @rule(times=st.integers(1, 3))
    def refuse_firewall(self, times: int) -> None:
        self.world.firewall.refuse(times=times)

    @rule(count=st.integers(1, 3))
    def lose_answers(self, count: int) -> None:
        self.world.ipvs.lose_answers(count)

    @rule(
        cluster_ip=st.sampled_from(CLUSTER_IPS),
        number=st.sampled_from(PORTS),
        pod=st.sampled_from(PODS),
        active=st.integers(0, 1),
    )
    def have_connections(self, cluster_ip: str, number: int, pod: str, active: int) -> None:
        found = self.world.ipvs.state().get(key(cluster_ip, number))
        if found and any(each.address == address(pod) for each in found.real_servers):
            self.world.ipvs.set_connections(found.key, address(pod), 8080, active)

    @rule(cluster_ip=st.sampled_from(CLUSTER_IPS), number=st.sampled_from(PORTS))
    def somebody_deletes_a_virtual_server_of_ours(self, cluster_ip: str, number: int) -> None:
        operation = IpvsOperation(Command.DEL_SERVICE, virtual_server(key(cluster_ip, number)))
        if operation.virtual_server.key not in self.foreign:
            self._meddle(lambda: self.world.ipvs.apply([operation]))

    @rule(cluster_ip=st.sampled_from(CLUSTER_IPS), number=st.sampled_from(PORTS))
    def somebody_creates_a_virtual_server_and_a_resync_sees_it(self, cluster_ip: str, number: int) -> None:
        self.end_faults()
        self.world.advance(31.0)
        self.check_the_order()
        at = key(cluster_ip, number)
        if all(each.address != at.address for each in self.present | self.recorded):
            foreign = virtual_server(at, *FOREIGN.real_servers, scheduler="wlc")
            self._meddle(lambda: self._create(foreign))
            self.world.advance(31.0)

    @rule(
        broken=st.sampled_from(("ipvs", "addresses", "firewall")),
        calls=st.integers(1, 3),
    )
    def adapter_breaks(self, broken: str, calls: int) -> None:
        getattr(self.world, broken).fail_calls(OSError(errno.EIO, "broken"), calls)

    @rule()
    def somebody_deletes_the_interface(self) -> None:
        self._meddle(self.world.addresses.delete_interface)

    @rule()
    def the_agent_starts_over(self) -> None:
        self.world.restart()
        self.world.list_objects(*self.services.values(), *self.slices.values())

    def _create(self, foreign: VirtualServer) -> None:
        operations = [IpvsOperation(Command.NEW_SERVICE, foreign)]
        operations += [IpvsOperation(Command.NEW_DEST, foreign, each) for each in foreign.real_servers]
        self.world.ipvs.apply(operations)
        # Refusals on demand meet everybody.
        if created := self.world.ipvs.state().get(foreign.key):
            self.foreign[foreign.key] = created

    def _meddle(self, action: object) -> None:
        self.check_the_order()
        assert callable(action)
        with contextlib.suppress(OSError):
            action()
        self.world.taken_log()
        self.deleted_by_others |= self.present - set(self.world.ipvs.state())
        self.present = set(self.world.ipvs.state()) - self.foreign.keys()
        if self.world.addresses.kind is None:
            self.bound = set()

    @invariant()
    def check_the_order(self) -> None:
        for entry in self.world.taken_log():
            match entry:
                case FirewallChange():
                    assert not _recorded(entry.remove) & self.present, "the record outlives"
                    self.recorded -= _recorded(entry.remove)
                    self.recorded |= _recorded(entry.add)
                case AddressOperation(bound=True):
                    # The agent learns of what others deleted from the next resync.
                    served = {each.address for each in self.present | self.deleted_by_others}
                    assert entry.address in served, "the address comes last"
                    self.bound.add(entry.address)
                case AddressOperation():
                    self.bound.discard(entry.address)
                case IpvsOperation():
                    self._check_operation(entry)

    def _check_operation(self, operation: IpvsOperation) -> None:
        at = operation.virtual_server.key
        assert at not in self.foreign, "somebody else's"
        assert at in self.recorded, "on record whenever it is changed"
        if operation.command is Command.NEW_SERVICE:
            self.present.add(at)
        elif operation.command is Command.DEL_SERVICE:
            self.present.discard(at)
            wanted = {each for value in self.services.values() for each in value.cluster_ips}
            served = {each.address for each in self.present} | wanted
            assert at.address in served or at.address not in self.bound, "the address goes first"

    def end_faults(self) -> None:
        for cluster_ip in CLUSTER_IPS:
            self.world.addresses.refuse(address(cluster_ip), 0, times=0)
            for number in PORTS:
                self.world.ipvs.refuse(key(cluster_ip, number), 0, times=0)
        self.world.firewall.refuse(times=0)
        self.world.ipvs.lose_answers(0)
        for broken in (self.world.ipvs, self.world.addresses, self.world.firewall):
            broken.fail_calls(OSError(), 0)

    def teardown(self) -> None:
        """Let faults end and connections too, and compare the kernel with a fresh plan."""
        self.end_faults()
        for _ in range(40):
            self.world.advance(31.0)
        self.check_the_order()
        expected = {}
        elements: set[SetElement] = set()
        for name in sorted(self.services, key=lambda each: (self.services[each].created, each)):
            plan = plan_service(
                self.services[name], [self.slices[name]] if name in self.slices else [], SETTINGS.plan
            )
            for at, planned in plan.virtual_servers.items():
                if at not in expected and all(at.address != each.address for each in self.foreign):
                    expected[at] = planned.virtual_server
                    elements |= set(elements_of(planned))
        assert self.world.ipvs.state() == expected | self.foreign
        assert self.world.addresses.bound() == {each.address for each in expected}
        assert self.world.firewall.read().elements == elements


def _recorded(elements: Iterable[SetElement]) -> set[VirtualServerKey]:
    return {VirtualServerKey(*each.fields) for each in elements if each.set is FirewallSet.SERVICE_PORTS}


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
