"""Two looks at the kernel's counters, and the rows that they make."""

from __future__ import annotations

import pytest

from ipvsproxy.model.ipvs import Traffic
from ipvsproxy.model.objects import ObjectKey, Protocol
from ipvsproxy.observe.traffic import (
    Grouping,
    Look,
    Names,
    Order,
    Rates,
    RealServerLook,
    Row,
    VirtualServerLook,
    Wanted,
    in_order,
    matching,
    names_of,
    rows_of,
    state_of,
    total_of,
)
from ipvsproxy.plan.view import Drain, DrainKey
from tests.builders import address, endpoint_slice, key, service
from tests.observe.node import NOW, report_of, state, view_of

WEB = key("10.96.0.10")
WEB_EXTERNAL = key("192.0.2.10")
DNS = key("10.96.0.53", 53, Protocol.UDP)
THEIRS = key("10.99.0.1")
NAMES = Names({WEB: "default/web", WEB_EXTERNAL: "default/web", DNS: "kube-system/dns"}, {})
FIRST, SECOND = (address("10.244.0.1"), 8080), (address("10.244.0.2"), 8080)
OURS = (WEB, WEB_EXTERNAL, DNS)


def counted(number: int) -> Traffic:
    return Traffic(number, 10 * number, 5 * number, 1000 * number, 500 * number)


def rate(number: float) -> Rates:
    return Rates(number, 10 * number, 5 * number, 1000 * number, 500 * number)


def server(total: int | None = None, active: int = 0, inactive: int = 0, weight: int = 1) -> RealServerLook:
    return RealServerLook(weight, active, inactive, None if total is None else counted(total))


def virtual_server(total: int, **real_servers: RealServerLook) -> VirtualServerLook:
    places = {"first": FIRST, "second": SECOND}
    return VirtualServerLook(counted(total), {places[name]: each for name, each in real_servers.items()})


def rows(
    before: Look | None,
    after: Look,
    by: Grouping = Grouping.SERVICE,
    wanted: Wanted = Wanted(),  # noqa: B008 - immutable
    names: Names = NAMES,
) -> dict[str, Row]:
    """Return the rows by their names."""
    found = rows_of(before, after, names, OURS, by, wanted)
    by_name = {f"{row.name} {row.endpoint_name or row.virtual_server or ''}".strip(): row for row in found}
    assert len(by_name) == len(found)
    return by_name


BEFORE = Look(
    100.0,
    {
        WEB: virtual_server(10, first=server(4), second=server(6)),
        WEB_EXTERNAL: virtual_server(0, first=server(0), second=server(0)),
        DNS: virtual_server(7, first=server(7)),
        THEIRS: virtual_server(0),
    },
)
AFTER = Look(
    104.0,
    {
        WEB: virtual_server(18, first=server(8, active=2, inactive=5), second=server(10, active=1, weight=0)),
        WEB_EXTERNAL: virtual_server(4, first=server(4, active=3), second=server(0, weight=0)),
        DNS: virtual_server(7, first=server(7)),
        THEIRS: virtual_server(900),
    },
)


def test_a_services_rates_are_what_all_its_virtual_servers_counted_in_a_second() -> None:
    found = rows(BEFORE, AFTER)
    assert found == {
        "default/web": Row("default/web", None, None, 1, 1, None, 6, 5, rate(3.0)),
        "kube-system/dns": Row("kube-system/dns", None, None, 1, 0, None, 0, 0, rate(0)),
    }


def test_an_endpoints_rates_are_its_own_at_all_addresses_of_the_service() -> None:
    found = rows(BEFORE, AFTER, Grouping.ENDPOINT)
    assert {name: (row.rates, row.active_connections) for name, row in found.items()} == {
        "default/web 10.244.0.1:8080": (rate(2.0), 5),
        "default/web 10.244.0.2:8080": (rate(1.0), 1),
        "kube-system/dns 10.244.0.1:8080": (rate(0), 0),
    }
    assert state_of(found["default/web 10.244.0.2:8080"]) == "draining"


def test_by_virtual_server_each_address_is_a_row_with_its_service() -> None:
    found = rows(BEFORE, AFTER, Grouping.VIRTUAL_SERVER).values()
    assert {(row.virtual_server, row.service, row.rates) for row in found} == {
        (WEB, "default/web", rate(2.0)),
        (WEB_EXTERNAL, "default/web", rate(1.0)),
        (DNS, "kube-system/dns", rate(0)),
    }


def test_without_a_look_before_nothing_is_known_of_rates() -> None:
    found = rows(None, AFTER)
    assert {row.rates for row in found.values()} == {None}
    assert total_of(list(found.values())).rates is None
    assert found["default/web"].active_connections == 6


def test_without_names_each_virtual_server_is_a_row_of_its_own() -> None:
    found = rows(BEFORE, AFTER, names=Names({}, {}))
    assert {row.name for row in found.values()} == {str(each) for each in OURS}


def test_a_virtual_server_that_was_made_again_has_counted_from_nothing() -> None:
    after = Look(104.0, {WEB: virtual_server(2, first=server(2), second=server(0))})
    assert rows(BEFORE, after)["default/web"].rates == rate(0.5)
    assert rows(BEFORE, after, Grouping.ENDPOINT)["default/web 10.244.0.1:8080"].rates == rate(0.5)


def test_one_counter_that_went_back_is_enough_to_count_all_from_nothing() -> None:
    after = Look(101.0, {WEB: VirtualServerLook(Traffic(11, 90, 60, 11000, 6000), {})})
    assert rows(BEFORE, after)["default/web"].rates == Rates(11, 90, 60, 11000, 6000)


def test_a_new_virtual_server_has_counted_since_the_look_before() -> None:
    before = Look(100.0, {})
    assert rows(before, AFTER)["default/web"].rates == rate(22 / 4)


def test_a_real_server_that_came_back_may_have_old_counters_and_has_no_rates_yet() -> None:
    before = Look(100.0, {WEB: virtual_server(0, second=server(0))})
    after = Look(101.0, {WEB: virtual_server(1, first=server(2117), second=server(1))})
    found = rows(before, after, Grouping.ENDPOINT)
    assert found["default/web 10.244.0.1:8080"].rates == rate(0)
    assert found["default/web 10.244.0.2:8080"].rates == rate(1)


@pytest.mark.parametrize("by", Grouping)
def test_rates_are_never_negative_and_two_looks_at_once_have_none(by: Grouping) -> None:
    found = rows(AFTER, BEFORE._replace(at=104.0), by).values()
    assert {row.rates for row in found} == {rate(0)}
    found = rows(AFTER, BEFORE._replace(at=105.0), by).values()
    assert all(min(row.rates or (-1,)) >= 0 for row in found)


def test_what_drains_has_the_time_that_is_left_to_the_last_of_it() -> None:
    names = NAMES._replace(drain_ends={(WEB, SECOND): 130.0, (WEB_EXTERNAL, SECOND): 164.5})
    row = rows(BEFORE, AFTER, names=names)["default/web"]
    assert (state_of(row), row.drain_seconds_left) == ("1 draining", 60.5)
    assert rows(BEFORE, AFTER._replace(at=200.0), names=names)["default/web"].drain_seconds_left == 0


def test_an_endpoint_with_several_ports_counts_once() -> None:
    places = {(address("10.244.0.1"), port): server() for port in (80, 81, 82)}
    after = Look(104.0, {WEB: VirtualServerLook(counted(0), places)})
    assert rows(None, after)["default/web"].serving == 1


def test_a_service_whose_endpoints_all_left_has_none() -> None:
    row = rows(None, Look(104.0, {WEB: virtual_server(0)}))["default/web"]
    assert (row.serving, state_of(row)) == (0, "no endpoints")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(service=ObjectKey("default", "web")), {"default/web"}),
        (Wanted(namespace="kube-system"), {"kube-system/dns"}),
        (Wanted(namespace="kube"), set()),
        (Wanted(endpoint=SECOND[0]), {"default/web"}),
        (Wanted(namespace="kube-system", endpoint=SECOND[0]), set()),
        (Wanted(endpoint=address("10.244.0.9")), set()),
    ],
)
def test_only_what_is_wanted_has_rows(wanted: Wanted, names: set[str]) -> None:
    assert rows(BEFORE, AFTER, wanted=wanted).keys() == names


def test_one_endpoint_is_shown_without_its_neighbours() -> None:
    found = rows(BEFORE, AFTER, Grouping.ENDPOINT, Wanted(endpoint=SECOND[0]))
    assert found.keys() == {"default/web 10.244.0.2:8080"}


def test_the_total_is_the_sum_of_the_rows() -> None:
    total = total_of(list(rows(BEFORE, AFTER, Grouping.ENDPOINT).values()))
    assert total == Row(None, None, None, 2, 1, None, 6, 5, rate(3.0))
    assert total_of([]) == Row(None, None, None, 0, 0, None, 0, 0, None)


def row(name: str, active: int, rates: Rates) -> Row:
    return Row(name, None, None, 1, 0, None, active, 10 - active, rates)


ROWS = (
    row("b", 1, Rates(3, 1, 0, 0, 9)),
    row("a", 1, Rates(1, 0, 2, 4, 4)),
    row("c", 7, Rates(2, 0, 0, 0, 0)),
)


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (Order.BYTES, "bac"),
        (Order.PACKETS, "abc"),
        (Order.CONNECTIONS, "bca"),
        (Order.ACTIVE, "cab"),
        (Order.INACTIVE, "abc"),
        (Order.NAME, "abc"),
    ],
)
def test_rows_are_sorted_from_the_largest_and_equal_ones_by_name(order: Order, names: str) -> None:
    assert "".join(each.name for each in in_order(ROWS, order)) == names


def test_the_other_way_round_equal_rows_are_still_by_name() -> None:
    assert "".join(each.name for each in in_order(ROWS, Order.ACTIVE, reverse=True)) == "abc"
    assert "".join(each.name for each in in_order(ROWS, Order.NAME, reverse=True)) == "cba"


def test_addresses_are_sorted_by_number() -> None:
    keys = [key("10.96.0.10", 80), key("10.96.0.9", 443), key("fd00::1"), key("10.96.0.9", 80)]
    unnamed = [Row(None, each, None, 1, 0, None, 0, 0, None) for each in keys]
    assert [each.name for each in in_order([*unnamed, *ROWS[:1]], Order.BYTES)] == [
        "b",
        "10.96.0.9:80/tcp",
        "10.96.0.9:443/tcp",
        "10.96.0.10:80/tcp",
        "[fd00::1]:80/tcp",
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 3), ("WEB", 2), ("10.244.0.2", 1), ("drain", 1), ("serving", 2), ("no such", 0)],
)
def test_a_text_picks_rows_by_name_endpoint_and_state(text: str, count: int) -> None:
    found = rows(BEFORE, AFTER, Grouping.ENDPOINT).values()
    assert len(list(matching(found, text))) == count


def test_the_agents_report_names_virtual_servers_and_says_when_draining_ends() -> None:
    web = state(service("10.96.0.10"), endpoint_slice("10.244.0.1"))
    drains = {DrainKey(WEB, *SECOND): Drain(NOW - 40, NOW + 860)}
    names = names_of(report_of(web, view=view_of(web, drains=drains)), now=100.0)
    assert names == Names({WEB: "default/web"}, {(WEB, SECOND): 960.0})
