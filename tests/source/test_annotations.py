from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipvsproxy.config.durations import format_duration
from ipvsproxy.config.readers import SCHEDULERS
from ipvsproxy.model.objects import ServiceOptions
from ipvsproxy.source.decode import read_service
from tests.source.documents import partly, service, wholly

SCHEDULER = "ipvsproxy.io/scheduler"
FLAGS = "ipvsproxy.io/scheduler-flags"
DRAIN = "ipvsproxy.io/drain-timeout"
MAXIMUM = "ipvsproxy.io/maximum-connections-per-endpoint"
NONE = ServiceOptions()


def options(annotations: object) -> ServiceOptions:
    return wholly(service(annotations=annotations)).options


def refused(annotations: object) -> tuple[ServiceOptions, list[tuple[str, str]]]:
    found, left_out = partly(service(annotations=annotations))
    return found.options, left_out


def test_a_service_without_annotations_leaves_all_to_the_configuration() -> None:
    assert options(None) == options({}) == options({"prometheus.io/port": "9090", "scheduler": "lc"}) == NONE


def test_every_option_has_its_annotation() -> None:
    given = {SCHEDULER: "sh", FLAGS: "sh-port, sh-fallback", DRAIN: "1m30s", MAXIMUM: "200", "other": "x"}
    assert options(given) == ServiceOptions("sh", 0x18, 90.0, 200)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_service_may_have_any_scheduler_of_ipvs(scheduler: str) -> None:
    assert options({SCHEDULER: scheduler}).scheduler == scheduler


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("flag-1", 0x8),
        ("flag-2", 0x10),
        ("flag-3", 0x20),
        ("sh-fallback", 0x8),
        ("sh-port", 0x10),
        ("mh-fallback", 0x8),
        ("mh-port", 0x10),
        ("flag-1,flag-2,flag-3", 0x38),
        (" mh-port , mh-port,mh-fallback", 0x18),
    ],
)
def test_flags_have_the_names_of_ipvsadm(text: str, flags: int) -> None:
    assert options({FLAGS: text}).scheduler_flags == flags


@pytest.mark.parametrize(
    ("scheduler", "flags", "expected"),
    [("sh", "sh-port", 0x10), ("mh", "mh-port,flag-1", 0x18), ("rr", "flag-2", 0x10)],
)
def test_flags_go_with_their_scheduler(scheduler: str, flags: str, expected: int) -> None:
    assert options({SCHEDULER: scheduler, FLAGS: flags}) == ServiceOptions(scheduler, expected)


@pytest.mark.parametrize(("scheduler", "flag"), [("mh", "sh-port"), ("sh", "mh-fallback"), ("rr", "sh-port")])
def test_a_flag_of_another_scheduler_is_wrong_and_the_scheduler_stays(scheduler: str, flag: str) -> None:
    reason = f"{flag!r} is a flag of scheduler {flag[:2]}, and {SCHEDULER} says {scheduler}"
    assert refused({SCHEDULER: scheduler, FLAGS: f"flag-1,{flag}"}) == (
        ServiceOptions(scheduler),
        [(f"metadata.annotations[{FLAGS}]", reason)],
    )


def test_flags_count_beside_a_scheduler_that_is_wrong() -> None:
    found, left_out = refused({SCHEDULER: "fastest", FLAGS: "sh-port"})
    assert found == ServiceOptions(None, 0x10)
    assert [field for field, _ in left_out] == [f"metadata.annotations[{SCHEDULER}]"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0.0), ("0", 0.0), ("90s", 90.0), ("2562047h", 9223369200.0)]
)
def test_a_drain_timeout_is_a_duration(text: str, seconds: float) -> None:
    assert options({DRAIN: text}).drain_timeout == seconds


@pytest.mark.parametrize("text", ["1", "2147483647"])
def test_a_maximum_of_connections_is_a_number_that_ipvs_can_count_to(text: str) -> None:
    assert options({MAXIMUM: text}).maximum_connections == int(text)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (SCHEDULER, "fastest", f"'fastest' is not an IPVS scheduler: {', '.join(SCHEDULERS)}"),
        (SCHEDULER, "RR", f"'RR' is not an IPVS scheduler: {', '.join(SCHEDULERS)}"),
        (SCHEDULER, "", f"'' is not an IPVS scheduler: {', '.join(SCHEDULERS)}"),
        (
            FLAGS,
            "flag-1,flag-4",
            "'flag-4' is not a scheduler flag: flag-1, flag-2, flag-3, sh-fallback, sh-port, mh-fallback, mh-port",
        ),
        (DRAIN, "15", "'15' is not a duration such as 30s or 1m30s"),
        (DRAIN, "-1s", "'-1s' is not a duration such as 30s or 1m30s"),
        (DRAIN, "2562048h", "'2562048h' is longer than a duration can be, which is 292 years"),
        (DRAIN, "9" * 98 + "ns", f"'{'9' * 98}ns' is longer than a duration can be, which is 292 years"),
        (DRAIN, "9" * 101, "is longer than 100 characters"),
        (MAXIMUM, "0", "'0' is not a number from 1 to 2147483647"),
        (MAXIMUM, "2147483648", "'2147483648' is not a number from 1 to 2147483647"),
        (MAXIMUM, "-5", "'-5' is not a number from 1 to 2147483647"),
        (MAXIMUM, "1e3", "'1e3' is not a number from 1 to 2147483647"),
        (MAXIMUM, "٣", "'٣' is not a number from 1 to 2147483647"),
        (MAXIMUM, 100, "is not a string: put the value in quotes"),
        (MAXIMUM, None, "is not a string: put the value in quotes"),
        ("ipvsproxy.io/schedular", "rr", f"is not known: {SCHEDULER}, {FLAGS}, {DRAIN}, {MAXIMUM} are"),
    ],
)
def test_a_wrong_annotation_counts_as_not_given(name: str, value: object, reason: str) -> None:
    assert refused({name: value}) == (NONE, [(f"metadata.annotations[{name}]", reason)])


def test_a_wrong_annotation_leaves_the_others_as_they_are() -> None:
    found, left_out = refused({SCHEDULER: "wrr", DRAIN: "soon", MAXIMUM: "7", "ipvsproxy.io/": "x"})
    assert found == ServiceOptions("wrr", maximum_connections=7)
    assert [field for field, _ in left_out] == [
        f"metadata.annotations[{DRAIN}]",
        "metadata.annotations[ipvsproxy.io/]",
    ]


@pytest.mark.parametrize("annotations", [5, "x", [], [SCHEDULER], {"other": {"deep": [1]}}, {"other": None}])
def test_annotations_that_are_none_harm_nothing(annotations: Any) -> None:  # noqa: ANN401 - any JSON
    assert options(annotations) == NONE


def test_a_name_that_is_no_string_as_yaml_allows_is_no_annotation() -> None:
    decoded = read_service(service(annotations={5: "x", SCHEDULER: "lc"}))
    assert decoded.value is not None
    assert decoded.value.options == ServiceOptions("lc")


names = st.sampled_from([SCHEDULER, FLAGS, DRAIN, MAXIMUM, "ipvsproxy.io/", "ipvsproxy.io/else", "other"])
values = st.text() | st.integers() | st.none() | st.sampled_from(["lc", "mh-port", "0s", "5", "9" * 100_000])


@given(st.dictionaries(names, values))
def test_no_annotation_ever_rejects_a_service(annotations: dict[str, Any]) -> None:
    found, left_out = partly(service(annotations=annotations))
    assert found.cluster_ips
    own = {f"metadata.annotations[{name}]" for name in annotations if name != "other"}
    assert {field for field, _ in left_out} <= own


@given(st.sampled_from(SCHEDULERS), st.integers(0, 10**9), st.integers(1, 2**31 - 1))
def test_every_right_value_is_taken_as_it_is(scheduler: str, seconds: int, maximum: int) -> None:
    found = options({SCHEDULER: scheduler, DRAIN: format_duration(seconds), MAXIMUM: str(maximum)})
    assert found == ServiceOptions(scheduler, 0, float(seconds), maximum)
