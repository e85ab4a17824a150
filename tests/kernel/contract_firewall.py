"""What every implementation of `Firewall` and of `Sysctls` does: in memory everywhere, and on a kernel in netns_tests.

A subclass of FirewallContract provides the fixture `node`: a node without the table. One of SysctlsContract provides
`sysctls`, with net.ipv4.ip_forward at 0 and the folder net.ipv4.vs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipvsproxy.kernel.interface import FirewallError, FirewallState
from ipvsproxy.model.addresses import Family, parse_network
from ipvsproxy.model.firewall import FirewallSet, SetElement
from ipvsproxy.model.objects import Protocol as Transport
from ipvsproxy.plan.firewall import FirewallSettings, PodInterfaces, PodNetworks
from tests.builders import address, key, source_list
from tests.kernel.set_elements import ELEMENTS_SIDE_BY_SIDE

if TYPE_CHECKING:
    from ipvsproxy.kernel.interface import Firewall, Sysctls

PLAIN = FirewallSettings()
WITH_POD_NETWORKS = FirewallSettings(
    PodNetworks((parse_network("10.244.0.0/16"), parse_network("fd00:244::/56")))
)
WITH_POD_INTERFACES = FirewallSettings(PodInterfaces("cali*"))

ADDRESS = SetElement(FirewallSet.SERVICE_ADDRESSES, (address("10.96.0.1"),))
ADDRESS6 = SetElement(FirewallSet.SERVICE_ADDRESSES, (address("fd00:96::1"),))
PORT = SetElement(FirewallSet.SERVICE_PORTS, key("10.96.0.1"))
PORT6 = SetElement(FirewallSet.SERVICE_PORTS, key("fd00:96::1"))
WITHOUT_ENDPOINTS = SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, key("10.96.0.1", 81))
AGENT_PORT = SetElement(FirewallSet.AGENT_PORTS, (Transport.TCP, 10256))
ENDPOINT = SetElement(FirewallSet.LOCAL_ENDPOINTS, (address("10.244.1.2"), address("10.244.1.2")))


def listing(*networks: str, of: Family = Family.IPV4, admits_node: bool = False) -> SetElement:
    """Return a source list."""
    return SetElement(FirewallSet.SOURCE_LISTS, (source_list(*networks, of=of, admits_node=admits_node),))


def restriction(to: SetElement, of: str = "203.0.113.1") -> SetElement:
    """Return what leads from a port to a source list."""
    return SetElement(FirewallSet.RESTRICTED_PORTS, (*key(of), to.set_name))


def redirection(to: str, of: str = "203.0.113.1", port: int = 80) -> SetElement:
    return SetElement(FirewallSet.IN_CLUSTER_DESTINATIONS, (*key(of), address(to), port))


INSIDE = listing("10.0.0.0/8", "192.0.2.1/32", "192.0.2.2/31", "128.0.0.0/2")
WITH_NODE = listing("10.0.0.0/8", admits_node=True)
LISTS = (
    INSIDE,
    WITH_NODE,
    listing(),
    listing("0.0.0.0/0"),
    listing("0.0.0.0/1", "128.0.0.0/1"),
    listing("0.0.0.0/32", "255.255.255.255/32", "10.0.0.0/9", "10.128.0.0/9"),
    listing("2001:db8::/32", "::1/128", "8000::/1", of=Family.IPV6),
    listing("::/0", of=Family.IPV6),
    listing("::ffff:10.0.0.0/104", of=Family.IPV6),
    listing("2001:db8::/32", of=Family.IPV6, admits_node=True),
    listing(of=Family.IPV6),
)

EACH_SHAPE = frozenset(
    (
        *LISTS,
        *(
            restriction(each, of=f"{'203.0.113.' if each.family is Family.IPV4 else 'fd00:1::'}{number}")
            for number, each in enumerate(LISTS)
        ),
        restriction(INSIDE, of="203.0.113.99"),
        redirection("10.96.0.1"),
        redirection("10.96.0.1", of="203.0.113.2"),
        redirection("fd00:96::1", of="fd00:1::1"),
        *(
            SetElement(FirewallSet.OUTSIDE_DESTINATIONS, (*key(of, 30080, each), address(to), 80))
            for of, to in (("198.51.100.1", "10.96.0.1"), ("2001:db8::1", "fd00:96::1"))
            for each in Transport
        ),
        *(
            SetElement(each, key(to, 30000, Transport.SCTP))
            for each in (
                FirewallSet.PORTS_WITHOUT_LOCAL_ENDPOINTS,
                FirewallSet.MASQUERADED_PORTS,
                FirewallSet.LOCAL_PORTS,
            )
            for to in ("198.51.100.1", "2001:db8::1")
        ),
        ADDRESS,
        ADDRESS6,
        AGENT_PORT,
        PORT6,
        *(SetElement(FirewallSet.SERVICE_PORTS, key("10.96.0.1", 53, each)) for each in Transport),
        *(
            SetElement(FirewallSet.PORTS_WITHOUT_ENDPOINTS, key("fd00:96::1", 65535, each))
            for each in Transport
        ),
        ENDPOINT,
        SetElement(FirewallSet.LOCAL_ENDPOINTS, (address("fd00:244::2"), address("fd00:244::2"))),
        SetElement(FirewallSet.SERVICE_ADDRESSES, (address("::ffff:10.96.0.9"),)),
    )
)


class Node(Protocol):
    """A node whose nftables others change, too."""

    def firewall(self, settings: FirewallSettings = PLAIN) -> Firewall:
        """Return the firewall as an agent has it that starts now; earlier ones have ended."""

    def change_another_table(self) -> None:
        """Change something that is not the agent's."""

    def delete_table(self) -> None:
        """Delete the agent's table."""

    def edit_rules(self) -> None:
        """Change a rule of the agent's table."""

    def delete_set(self, of: FirewallSet) -> None:
        """Delete a set of the agent's table for both families, and the rules that refer to it."""

    def add_element(self, element: SetElement) -> None:
        """Add an element to a set of the agent's table."""


class FirewallContract:
    def test_without_the_table_there_is_nothing_and_it_is_not_intact(self, node: Node) -> None:
        assert node.firewall().read() == FirewallState(frozenset(), intact=False)

    def test_an_installed_table_is_intact_and_has_the_elements_of_every_shape(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install(EACH_SHAPE)
        assert firewall.read() == FirewallState(EACH_SHAPE, intact=True)

    def test_an_installation_replaces_what_was_there(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS, PORT])
        firewall.install([PORT, ENDPOINT])
        assert firewall.read() == FirewallState(frozenset((PORT, ENDPOINT)), intact=True)

    def test_a_refused_installation_leaves_the_table_as_it_was(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS])
        with pytest.raises(FirewallError):
            firewall.install([PORT, SetElement(FirewallSet.SERVICE_PORTS, key("10.96.0.1", 70000))])
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=True)

    def test_a_removed_table_is_gone_with_its_elements_and_nothing_is_no_error(self, node: Node) -> None:
        firewall = node.firewall()
        assert not firewall.exists()
        firewall.remove()
        firewall.install([ADDRESS, PORT6])
        assert firewall.exists()
        firewall.remove()
        assert not firewall.exists()
        assert firewall.changed_by_others()
        assert firewall.read() == FirewallState(frozenset(), intact=False)

    def test_elements_come_and_go_in_one_change(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS, PORT, PORT6])
        firewall.change([ADDRESS6, ENDPOINT, WITHOUT_ENDPOINTS], [PORT, PORT6])
        assert firewall.read() == FirewallState(
            frozenset((ADDRESS, ADDRESS6, ENDPOINT, WITHOUT_ENDPOINTS)), intact=True
        )

    def test_adding_what_is_there_and_removing_what_is_not_are_no_errors(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS])
        firewall.change([ADDRESS, PORT], [ADDRESS6, PORT6, ENDPOINT])
        assert firewall.read() == FirewallState(frozenset((ADDRESS, PORT)), intact=True)

    @pytest.mark.parametrize("present", [ADDRESS, PORT6, INSIDE, WITH_NODE, redirection("10.96.0.1")])
    def test_an_element_may_be_named_twice(self, node: Node, present: SetElement) -> None:
        firewall = node.firewall()
        firewall.install([present, present])
        firewall.change([present, present], [])
        assert firewall.read() == FirewallState(frozenset((present,)), intact=True)
        firewall.change([], [present, present])
        assert firewall.read() == FirewallState(frozenset(), intact=True)
        firewall.change([], [present])
        assert firewall.read() == FirewallState(frozenset(), intact=True)

    @pytest.mark.parametrize("present", [ADDRESS, PORT6, INSIDE, WITH_NODE, redirection("10.96.0.1")])
    def test_an_element_that_goes_and_comes_in_one_change_is_there(
        self, node: Node, present: SetElement
    ) -> None:
        absent = [WITHOUT_ENDPOINTS, listing("11.0.0.0/8"), redirection("10.96.0.1", of="203.0.113.9")]
        firewall = node.firewall()
        firewall.install([present])
        firewall.change([present, *absent], [present, *absent])
        assert firewall.read().elements == {present, *absent}

    def test_a_key_of_a_map_gets_another_value_in_one_change(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([redirection("10.96.0.1")])
        firewall.change([redirection("10.96.0.2")], [redirection("10.96.0.1")])
        assert firewall.read() == FirewallState(frozenset((redirection("10.96.0.2"),)), intact=True)

    @pytest.mark.parametrize(
        ("add", "remove"),
        [([redirection("10.96.0.2")], []), ([], [redirection("10.96.0.2")])],
        ids=["adding", "removing"],
    )
    def test_a_change_that_forgets_a_keys_value_is_refused(
        self, node: Node, add: list[SetElement], remove: list[SetElement]
    ) -> None:
        firewall = node.firewall()
        firewall.install([redirection("10.96.0.1")])
        with pytest.raises(FirewallError, match="File exists"):
            firewall.change([PORT, *add], remove)
        assert firewall.read() == FirewallState(frozenset((redirection("10.96.0.1"),)), intact=True)

    def test_two_values_for_a_key_are_refused(self, node: Node) -> None:
        firewall = node.firewall()
        both = [redirection("10.96.0.1"), redirection("10.96.0.2")]
        with pytest.raises(FirewallError, match="File exists"):
            firewall.install(both)
        firewall.install([ADDRESS])
        with pytest.raises(FirewallError, match="File exists"):
            firewall.change(both, [])
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=True)

    def test_a_port_is_led_to_a_new_list_and_the_old_one_goes_in_one_change(self, node: Node) -> None:
        old, new = listing("10.0.0.0/8"), listing("10.0.0.0/16", "10.1.0.0/16", "10.255.255.255/32")
        firewall = node.firewall()
        firewall.install([old, restriction(old)])
        firewall.change([new, restriction(new)], [old, restriction(old)])
        assert firewall.read() == FirewallState(frozenset((new, restriction(new))), intact=True)

    def test_a_list_may_be_for_many_ports_and_is_there_once(self, node: Node) -> None:
        elements = frozenset((INSIDE, *(restriction(INSIDE, of=f"203.0.113.{each}") for each in range(9))))
        firewall = node.firewall()
        firewall.install([INSIDE])
        firewall.change(elements, [])
        assert firewall.read() == FirewallState(elements, intact=True)
        firewall.change([], elements - {INSIDE, restriction(INSIDE)})
        assert firewall.read() == FirewallState(frozenset((INSIDE, restriction(INSIDE))), intact=True)
        firewall.change([], [restriction(INSIDE), INSIDE])
        assert firewall.read() == FirewallState(frozenset(), intact=True)

    def test_a_list_that_a_port_leads_to_is_not_removed(self, node: Node) -> None:
        elements = frozenset((INSIDE, restriction(INSIDE)))
        firewall = node.firewall()
        firewall.install(elements)
        with pytest.raises(FirewallError, match="busy"):
            firewall.change([PORT], [INSIDE])
        assert firewall.read() == FirewallState(elements, intact=True)

    @pytest.mark.parametrize("lacking", [INSIDE, WITH_NODE, listing(of=Family.IPV6)])
    def test_no_port_is_led_to_a_list_that_is_not_there(self, node: Node, lacking: SetElement) -> None:
        led = restriction(lacking, of="203.0.113.1" if lacking.family is Family.IPV4 else "fd00:1::1")
        firewall = node.firewall()
        with pytest.raises(FirewallError, match="No such file or directory"):
            firewall.install([led])
        firewall.install([ADDRESS])
        for add, remove in (([PORT, led], []), ([PORT], [led]), ([PORT, led], [lacking])):
            with pytest.raises(FirewallError, match="No such file or directory"):
                firewall.change(add, remove)
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=True)

    def test_a_port_leads_to_one_list(self, node: Node) -> None:
        elements = frozenset((INSIDE, WITH_NODE, restriction(INSIDE)))
        firewall = node.firewall()
        firewall.install(elements)
        for add, remove in (([restriction(WITH_NODE)], []), ([], [restriction(WITH_NODE)])):
            with pytest.raises(FirewallError, match="File exists"):
                firewall.change([PORT, *add], remove)
        assert firewall.read() == FirewallState(elements, intact=True)

    def test_networks_of_different_lists_may_overlap(self, node: Node) -> None:
        elements = frozenset((listing("10.0.0.0/8"), listing("10.1.0.0/16"), listing("0.0.0.0/0")))
        firewall = node.firewall()
        firewall.install([])
        firewall.change(elements, [])
        assert firewall.read() == FirewallState(elements, intact=True)

    @settings(max_examples=20)
    @given(ELEMENTS_SIDE_BY_SIDE, st.data())
    def test_whatever_comes_and_goes_is_read_back(
        self, node: Node, elements: frozenset[SetElement], data: st.DataObject
    ) -> None:
        chosen = st.sets(st.sampled_from(sorted(elements)), max_size=10) if elements else st.just(set())
        installed, remove, add = (data.draw(chosen) for _ in range(3))
        firewall = node.firewall()
        firewall.install(installed)
        assert firewall.read() == FirewallState(frozenset(installed), intact=True)
        firewall.change(add, remove)
        assert firewall.read() == FirewallState(frozenset(installed - remove | add), intact=True)

    def test_a_refused_change_applies_nothing_and_calls_for_a_look(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS, PORT])
        with pytest.raises(FirewallError):
            firewall.change(
                [ADDRESS6, SetElement(FirewallSet.SERVICE_PORTS, key("10.96.0.1", 70000))], [PORT]
            )
        assert firewall.changed_by_others()
        assert firewall.read() == FirewallState(frozenset((ADDRESS, PORT)), intact=True)

    def test_a_change_without_the_table_is_refused(self, node: Node) -> None:
        with pytest.raises(FirewallError, match="No such file or directory"):
            node.firewall().change([ADDRESS], [])

    def test_a_change_without_one_of_the_sets_is_refused_as_a_whole(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS])
        node.delete_set(FirewallSet.LOCAL_ENDPOINTS)
        with pytest.raises(FirewallError, match="No such file or directory"):
            firewall.change([PORT, ENDPOINT], [ADDRESS])
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=False)

    def test_no_change_needs_no_table(self, node: Node) -> None:
        node.firewall().change([], [])

    def test_a_restarted_agent_finds_the_table_intact(self, node: Node) -> None:
        node.firewall().install([ADDRESS, PORT])
        node.firewall().change([ENDPOINT], [PORT])
        assert node.firewall().read() == FirewallState(frozenset((ADDRESS, ENDPOINT)), intact=True)

    def test_an_agent_with_other_rules_finds_the_elements_and_the_table_not_intact(self, node: Node) -> None:
        node.firewall(PLAIN).install([ADDRESS, PORT])
        restarted = node.firewall(WITH_POD_NETWORKS)
        assert restarted.read() == FirewallState(frozenset((ADDRESS, PORT)), intact=False)
        restarted.install([ADDRESS])
        assert restarted.read() == FirewallState(frozenset((ADDRESS,)), intact=True)

    def test_other_settings_call_for_another_installation(self, node: Node) -> None:
        firewall = node.firewall(PLAIN)
        firewall.install([ADDRESS])
        firewall.use(WITH_POD_INTERFACES)
        assert firewall.changed_by_others()
        firewall.change([PORT], [])
        assert firewall.changed_by_others()
        assert firewall.read() == FirewallState(frozenset((ADDRESS, PORT)), intact=False)
        assert firewall.changed_by_others()
        firewall.install([ADDRESS])
        assert not firewall.changed_by_others()
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=True)
        assert node.firewall(WITH_POD_INTERFACES).read().intact

    def test_the_same_settings_change_nothing(self, node: Node) -> None:
        firewall = node.firewall(WITH_POD_NETWORKS)
        firewall.install([ADDRESS])
        firewall.use(WITH_POD_NETWORKS)
        assert not firewall.changed_by_others()
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=True)

    def test_a_table_is_intact_under_the_settings_that_it_was_installed_with(self, node: Node) -> None:
        firewall = node.firewall(PLAIN)
        firewall.install([ADDRESS])
        firewall.use(WITH_POD_NETWORKS)
        firewall.use(PLAIN)
        assert firewall.changed_by_others()
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=True)
        assert not firewall.changed_by_others()

    def test_rules_that_others_edited_are_found_also_after_a_restart_and_replaced(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS])
        node.edit_rules()
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=False)
        restarted = node.firewall()
        assert restarted.read() == FirewallState(frozenset((ADDRESS,)), intact=False)
        restarted.install([ADDRESS])
        assert restarted.read() == FirewallState(frozenset((ADDRESS,)), intact=True)

    def test_a_deleted_table_is_found_and_installed_again(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS])
        node.delete_table()
        assert firewall.changed_by_others()
        assert firewall.read() == FirewallState(frozenset(), intact=False)
        firewall.install([ADDRESS])
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=True)

    def test_elements_of_others_are_read_and_can_be_removed(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS])
        node.add_element(PORT6)
        assert firewall.read() == FirewallState(frozenset((ADDRESS, PORT6)), intact=True)
        firewall.change([], [PORT6])
        assert firewall.read() == FirewallState(frozenset((ADDRESS,)), intact=True)

    def test_an_agent_that_has_not_looked_yet_must_look(self, node: Node) -> None:
        assert node.firewall().changed_by_others()
        node.firewall().install([ADDRESS])
        assert node.firewall().changed_by_others()

    def test_installing_settles_what_others_did(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS])
        assert not firewall.changed_by_others()
        node.delete_table()
        firewall.install([ADDRESS])
        assert not firewall.changed_by_others()

    def test_a_table_that_is_not_intact_calls_for_a_look_until_it_is_installed(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.read()
        assert firewall.changed_by_others()
        firewall.install([ADDRESS])
        node.edit_rules()
        firewall.read()
        assert firewall.changed_by_others()
        firewall.install([ADDRESS])
        assert not firewall.changed_by_others()

    def test_the_agents_own_changes_are_not_those_of_others(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS])
        firewall.change([PORT], [ADDRESS])
        firewall.change([PORT], [ADDRESS])
        firewall.change([], [])
        assert not firewall.changed_by_others()

    def test_any_change_by_others_shows_until_the_table_is_read(self, node: Node) -> None:
        firewall = node.firewall()
        firewall.install([ADDRESS])
        node.change_another_table()
        assert firewall.changed_by_others()
        firewall.change([PORT], [])
        assert firewall.changed_by_others()
        firewall.read()
        assert not firewall.changed_by_others()


class SysctlsContract:
    def test_what_is_set_is_got(self, sysctls: Sysctls) -> None:
        assert sysctls.get("net.ipv4.ip_forward") == "0"
        sysctls.set("net.ipv4.ip_forward", "1")
        assert sysctls.get("net.ipv4.ip_forward") == "1"

    def test_slashes_are_as_good_as_dots(self, sysctls: Sysctls) -> None:
        sysctls.set("net/ipv4/ip_forward", "1")
        assert sysctls.get("net.ipv4.ip_forward") == sysctls.get("net/ipv4/ip_forward") == "1"

    def test_a_setting_that_the_kernel_does_not_have_is_none_and_can_not_be_set(
        self, sysctls: Sysctls
    ) -> None:
        assert sysctls.get("net.ipv4.vs.no_such_setting") is None
        with pytest.raises(OSError, match="no_such_setting"):
            sysctls.set("net.ipv4.vs.no_such_setting", "0")
        assert sysctls.get("net.ipv4.vs.no_such_setting") is None
