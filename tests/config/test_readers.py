from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipvsproxy.config import readers
from ipvsproxy.config.settings import SETTINGS, LogFormat
from ipvsproxy.model.addresses import parse_network

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
