from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.config import readers
from ipvsproxy.config.settings import SETTINGS, LogFormat
from ipvsproxy.model.addresses import parse_address, parse_network
from ipvsproxy.model.selection import NodePortAddresses

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_networks_of_the_pods_are_at_most_one_for_each_family() -> None:
    assert readers.read_networks("10.244.0.0/16,fd00::/64") == (
        parse_network("10.244.0.0/16"),
        parse_network("fd00::/64"),
    )
    with pytest.raises(ValueError, match=r"'10.0.0.0/8,11.0.0.0/8' has more than one network of a family"):
        readers.read_networks("10.0.0.0/8,11.0.0.0/8")


def test_networks_may_stand_apart_by_a_blank() -> None:
    assert readers.read_networks("10.244.0.0/16, fd00::/64") == readers.read_networks(
        "10.244.0.0/16,fd00::/64"
    )


def test_allowed_networks_are_any_number_of_any_family() -> None:
    assert readers.read_allowed_networks("192.0.2.0/24, 198.51.100.0/24,2001:db8::/32") == (
        parse_network("192.0.2.0/24"),
        parse_network("198.51.100.0/24"),
        parse_network("2001:db8::/32"),
    )


def test_no_network_at_all_is_allowed_by_a_word_of_its_own() -> None:
    assert readers.read_allowed_networks("none") == ()


@pytest.mark.parametrize(
    ("text", "selection"),
    [
        ("all", NodePortAddresses()),
        ("primary", NodePortAddresses(primary=True)),
        ("10.0.0.0/8", NodePortAddresses(networks=(parse_network("10.0.0.0/8"),))),
        (
            "10.0.0.0/8, fd00::/8",
            NodePortAddresses(networks=(parse_network("10.0.0.0/8"), parse_network("fd00::/8"))),
        ),
        ("primary,10.0.0.0/8", NodePortAddresses(primary=True, networks=(parse_network("10.0.0.0/8"),))),
        ("10.0.0.0/8,all,primary", NodePortAddresses()),
        (
            "localhost",
            NodePortAddresses(networks=(parse_network("127.0.0.0/8"), parse_network("::1/128"))),
        ),
    ],
)
def test_addresses_of_node_ports_are_networks_and_words(text: str, selection: NodePortAddresses) -> None:
    assert readers.read_node_port_addresses(text) == selection


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("0.0.0.0:10256", "0.0.0.0", 10256),
        ("192.0.2.1:80", "192.0.2.1", 80),
        ("[::]:65535", "::", 65535),
        ("[fe80::1]:1", "fe80::1", 1),
        ("192.0.2.1", "192.0.2.1", 10256),
        ("2001:db8::1", "2001:db8::1", 10256),
    ],
)
def test_an_address_to_listen_on_may_do_without_a_port(text: str, address: str, port: int) -> None:
    assert readers.read_healthz_address(text) == (parse_address(address), port)


def test_nowhere_to_listen_on_has_a_word_of_its_own() -> None:
    assert readers.read_healthz_address("none") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("30s", 30), ("24h", 86400), ("1.2s", 2), ("1ns", 1), ("2147483647s", 2**31 - 1)],
)
def test_a_timeout_of_the_kernel_is_in_whole_seconds(text: str, seconds: int) -> None:
    assert readers.read_timeout(text) == seconds


@pytest.mark.parametrize("number", [0, 32768, 2147483647])
def test_a_count_is_a_number_of_32_bits(number: int) -> None:
    assert readers.read_count(str(number)) == number


@pytest.mark.parametrize("name", ["", "cni0", "br-1", "eth0.100", "fifteen-letters"])
def test_an_interface_has_a_name_of_up_to_fifteen_characters(name: str) -> None:
    assert readers.read_bridge_interface(name) == name


@pytest.mark.parametrize("prefix", ["", "cali", "fourteen-chars"])
def test_a_prefix_of_interfaces_is_shorter_than_a_name(prefix: str) -> None:
    assert readers.read_interface_name_prefix(prefix) == prefix


def test_a_node_has_its_name_in_lower_case() -> None:
    assert readers.read_node_name(" Node-1.Example ") == "node-1.example"


@pytest.mark.parametrize(
    "scheduler",
    ["rr", "wrr", "lc", "wlc", "sh", "dh", "mh", "sed", "nq", "lblc", "lblcr", "fo", "ovf", "twos"],
)
def test_each_scheduler_of_the_kernel_is_known(scheduler: str) -> None:
    assert readers.read_scheduler(scheduler) == scheduler


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("false", False), ("True", True), ("FALSE", False)]
)
def test_a_boolean_is_true_or_false(text: str, value: object) -> None:
    assert readers.read_boolean(text) is value


@pytest.mark.parametrize("bit", [0, 14, 31])
def test_a_bit_of_the_mark_is_one_of_thirty_two(bit: int) -> None:
    assert readers.read_mark_bit(str(bit)) == bit


@pytest.mark.parametrize(
    ("reader", "text", "reason"),
    [
        (readers.read_boolean, "yes", "'yes' is not true or false"),
        (readers.read_node_name, "  ", "'  ' is not the name of a Node"),
        (readers.read_networks, "10.0.0.1", "'10.0.0.1' is not a network in CIDR notation"),
        (readers.read_networks, "10.0.0.0/8,", "'' is not a network in CIDR notation"),
        (readers.read_scheduler, "random", "'random' is not an IPVS scheduler: rr, wrr, lc"),
        (readers.read_mark_bit, "32", "'32' is not a bit of the packet mark: 0 to 31"),
        (readers.read_mark_bit, "-1", "'-1' is not a bit of the packet mark"),
        (readers.read_mark_bit, "\N{SUPERSCRIPT TWO}", "is not a bit of the packet mark"),
        (readers.read_allowed_networks, "none,10.0.0.0/8", "'none' is not a network in CIDR notation"),
        (
            readers.read_node_port_addresses,
            "10.0.0.1",
            "'10.0.0.1' is not a network in CIDR notation: the prefix length is 0 to 32, nor primary, localhost",
        ),
        (
            readers.read_node_port_addresses,
            "10.0.0.0/8,",
            "'' is not a network in CIDR notation, nor primary",
        ),
        (
            readers.read_healthz_address,
            "10256",
            "'10256' is not an address and a port such as 0.0.0.0:10256",
        ),
        (readers.read_healthz_address, ":10256", "is not an address and a port"),
        (readers.read_healthz_address, "localhost:80", "is not an address and a port"),
        (readers.read_healthz_address, "0.0.0.0:0", "is not an address and a port"),
        (readers.read_healthz_address, "0.0.0.0:65536", "is not an address and a port"),
        (readers.read_healthz_address, "[0.0.0.0]:80", "is not an address and a port"),
        (readers.read_bridge_interface, "a/b", "'a/b' is not the name of an interface"),
        (readers.read_bridge_interface, "cali*", r"'cali\*' is not the name of an interface"),
        (readers.read_bridge_interface, "sixteen-letters!", "is not the name of an interface"),
        (readers.read_interface_name_prefix, "cali*", r"'cali\*' is not how the names of interfaces begin"),
        (readers.read_interface_name_prefix, "fifteen-letters", "up to 14 characters"),
        (readers.read_count, "-1", "'-1' is not a number: 0 to 2147483647"),
        (readers.read_count, "2147483648", "is not a number"),
        (readers.read_timeout, "-1s", "'-1s' is not a duration such as"),
        (readers.read_timeout, "2147483648s", "is longer than the kernel can count: 2147483647s"),
        (readers.read_period, "0s", "'0s' is not a duration of more than zero"),
        (readers.read_period, "abc", "'abc' is not a duration such as"),
        (readers.one_of(LogFormat), "xml", "'xml' is not one of auto, json, console"),
    ],
)
def test_a_value_that_is_wrong_is_quoted_with_what_would_be_right(
    reader: Callable[[str], object], text: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        reader(text)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_empty_text_is_the_default_of_every_setting(name: str) -> None:
    setting = SETTINGS[name]

    assert setting.read("") == setting.reader(setting.default)
