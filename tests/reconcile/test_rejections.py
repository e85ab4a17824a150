"""Which parts of Services that they do not get are told, for Events, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.ipvs import Command, IpvsOperation
from ipvsproxy.model.objects import ObjectKey, ServiceType
from tests.builders import addresses, key, port, service, virtual_server
from tests.reconcile.world import SETTINGS, World

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any


def logged(world: World) -> list[MutableMapping[str, Any]]:
    return [each for each in world.events.entries if each["event"] == "part of a service rejected"]


class TestEvents:
    """Of each Service one for each field and kind of reason, and none for what kube-proxy left."""

    NODE_PORTS = service(
        "10.96.0.1",
        kind=ServiceType.NODE_PORT,
        ports=(port(80, "a", node_port=30080), port(81, "b", node_port=30081)),
    )
    ADDRESSES = ("198.51.100.1", "198.51.100.2")

    def changing_over(self, **hooks: Callable[[], bool]) -> World:
        """Return a node with virtual servers of somebody else's at all node ports of the Service."""
        world = World(hooks=hooks)
        world.addresses.other_addresses.update(addresses(*self.ADDRESSES))
        theirs = [key(each, number) for each in self.ADDRESSES for number in (30080, 30081)]
        world.ipvs.apply([IpvsOperation(Command.NEW_SERVICE, virtual_server(each)) for each in theirs])
        world.list_objects(self.NODE_PORTS)
        return world

    def test_somebody_elses_virtual_servers_are_one_event_whatever_their_addresses_and_ports(self) -> None:
        (told,) = self.changing_over().rejected
        assert (told.field, told.foreign) == ("spec.ports[].nodePort", True)
        assert not any(each in told.reason for each in (*self.ADDRESSES, "30080"))

    def test_while_kube_proxys_records_are_there_they_are_none_and_the_rejections_stay(self) -> None:
        here = [True]
        world = self.changing_over(kube_proxy_is_here=lambda: here[0])
        assert world.rejected == []
        assert len(logged(world)) == 4
        world.advance(30)
        assert world.rejected == []
        here[0] = False
        world.advance(30)
        assert [each.field for each in world.rejected] == ["spec.ports[].nodePort"]
        world.advance(30)
        assert len(world.rejected) == 1

    def test_where_nobody_can_say_whether_they_are_there_it_is_told(self) -> None:
        def broken() -> bool:
            raise OSError(5, "broken")

        assert len(self.changing_over(kube_proxy_is_here=broken).rejected) == 1

    def test_what_is_served_by_then_is_not_told(self) -> None:
        here = [True]
        world = self.changing_over(kube_proxy_is_here=lambda: here[0])
        theirs = [key(each, number) for each in self.ADDRESSES for number in (30080, 30081)]
        world.ipvs.apply([IpvsOperation(Command.DEL_SERVICE, virtual_server(each)) for each in theirs])
        here[0] = False
        world.advance(60)
        assert world.rejected == []

    def test_all_reasons_of_a_field_are_one_event(self) -> None:
        world = World(SETTINGS._replace(plan=SETTINGS.plan._replace(allowed_external_ips=())))
        world.list_objects(service("10.96.0.1", external_ips=("203.0.113.8", "203.0.113.9")))
        assert len(logged(world)) == 2
        (told,) = world.rejected
        assert all(each in told.reason for each in ("203.0.113.8", "203.0.113.9"))

    def test_kinds_of_reasons_and_services_have_events_of_their_own(self) -> None:
        world = World(SETTINGS._replace(plan=SETTINGS.plan._replace(allowed_external_ips=())))
        world.list_objects(
            *(
                service("10.96.0.1", of=ObjectKey("default", name), external_ips=("203.0.113.8",))
                for name in ("web", "shop")
            )
        )
        assert sorted((each.key.name, each.field) for each in world.rejected) == [
            ("shop", "spec.externalIPs"),
            ("web", "spec.clusterIPs"),
            ("web", "spec.externalIPs"),
        ]
