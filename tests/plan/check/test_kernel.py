"""Whether the agent can run on a kernel."""

from __future__ import annotations

import pytest

from ipvsproxy.plan.check.finding import Severity
from ipvsproxy.plan.check.kernel import (
    ModuleState,
    NftProgram,
    Privileges,
    judge_modules,
    judge_nft,
    judge_privileges,
    judge_version,
    must_be_loaded_by_hand,
    scheduler_modules,
)

NEW, OLD = "6.1.0-18-amd64", "5.10.0-8-amd64"


@pytest.mark.parametrize(
    ("release", "severity"), [("5.6.0", Severity.OK), (NEW, Severity.OK), ("5.5.19-generic", Severity.ERROR)]
)
def test_a_kernel_must_be_new_enough_for_the_sets_of_the_rules(release: str, severity: Severity) -> None:
    found = judge_version(release)
    assert found.severity is severity
    assert found.meaning.startswith(f"Linux {release}")
    assert bool(found.mend) == (severity is Severity.ERROR)


def test_modules_that_are_there_are_one_finding() -> None:
    states = {"ip_vs": ModuleState.LOADED, "nf_tables": ModuleState.BUILT_IN}
    (found,) = judge_modules(states, NEW, loading_disabled=False)
    assert (found.severity, found.meaning) == (Severity.OK, "in the kernel: ip_vs, nf_tables")


@pytest.mark.parametrize(
    ("name", "state", "release", "disabled", "severity", "words"),
    [
        (
            "ip_vs",
            ModuleState.MISSING,
            NEW,
            False,
            Severity.ERROR,
            "this kernel has no ip_vs: without IPVS nothing",
        ),
        (
            "ip_vs_sed",
            ModuleState.MISSING,
            NEW,
            False,
            Severity.ERROR,
            "Services with this scheduler are not",
        ),
        (
            "ip_vs",
            ModuleState.LOADABLE,
            NEW,
            False,
            Severity.INFO,
            "the kernel loads it when the agent needs it",
        ),
        (
            "ip_vs",
            ModuleState.LOADABLE,
            OLD,
            False,
            Severity.ERROR,
            "Linux before 5.16 does not load it by itself",
        ),
        (
            "dummy",
            ModuleState.LOADABLE,
            OLD,
            False,
            Severity.INFO,
            "the kernel loads it when the agent needs it",
        ),
        ("dummy", ModuleState.LOADABLE, NEW, True, Severity.ERROR, "kernel.modules_disabled forbids to"),
        (
            "dummy",
            ModuleState.UNKNOWN,
            NEW,
            False,
            Severity.UNKNOWN,
            "whether the kernel has dummy can't be told",
        ),
    ],
)
def test_a_module_that_is_not_there_is_as_bad_as_it_is_hard_to_get(
    *, name: str, state: ModuleState, release: str, disabled: bool, severity: Severity, words: str
) -> None:
    (found,) = judge_modules({name: state}, release, loading_disabled=disabled)
    assert (found.severity, found.about) == (severity, name)
    assert words in found.meaning
    assert bool(found.mend) == (severity is not Severity.INFO)


def test_only_an_old_kernel_needs_ip_vs_to_be_loaded_by_hand() -> None:
    assert must_be_loaded_by_hand({"ip_vs": ModuleState.LOADABLE}, OLD)
    assert not must_be_loaded_by_hand({"ip_vs": ModuleState.LOADABLE}, NEW)
    assert not must_be_loaded_by_hand({"ip_vs": ModuleState.LOADED}, OLD)


def test_on_an_old_kernel_only_ip_vs_itself_is_loaded_by_hand() -> None:
    states = dict.fromkeys(("ip_vs", "ip_vs_rr"), ModuleState.LOADABLE)
    found = judge_modules(states, OLD, loading_disabled=False)
    assert [each.severity for each in found] == [Severity.ERROR, Severity.INFO]


def test_each_scheduler_is_a_module_and_counts_once() -> None:
    assert scheduler_modules(["wlc", "rr", "wlc"]) == ["ip_vs_rr", "ip_vs_wlc"]


def test_a_user_namespace_is_an_error_and_nothing_else_matters_then() -> None:
    (found,) = judge_privileges(
        Privileges(may_configure_network=True, may_load_modules=False, initial_user_namespace=False),
        must_load=True,
    )
    assert found.severity is Severity.ERROR


def test_without_the_right_to_configure_the_network_no_agent_can_run() -> None:
    (found,) = judge_privileges(
        Privileges(may_configure_network=False, may_load_modules=True, initial_user_namespace=True),
        must_load=True,
    )
    assert found.severity is Severity.ERROR
    assert found.mend == "run it as the host's root, or give the container the capability NET_ADMIN"


@pytest.mark.parametrize(
    ("may_load", "must_load", "said"), [(True, True, 1), (False, False, 1), (False, True, 2)]
)
def test_the_right_to_load_modules_is_missed_only_where_one_must_be_loaded(
    *, may_load: bool, must_load: bool, said: int
) -> None:
    found = judge_privileges(
        Privileges(may_configure_network=True, may_load_modules=may_load, initial_user_namespace=True),
        must_load=must_load,
    )
    assert [each.severity for each in found] == [Severity.OK, Severity.INFO][:said]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (None, "there is no program nft on the PATH"),
        (NftProgram((0, 9, 8), json=True), "nft 0.9.8 is older than 1.0"),
        (NftProgram((1, 0, 6), json=False), "nft 1.0.6 was built without JSON"),
    ],
)
def test_an_nft_that_will_not_do_is_an_error_unless_an_agent_runs_with_its_own(
    program: NftProgram | None, words: str
) -> None:
    before, beside = judge_nft(program, agent_runs=False), judge_nft(program, agent_runs=True)
    assert (before.severity, beside.severity) == (Severity.ERROR, Severity.WARNING)
    assert before.meaning == f"{words}: the agent can't write its rules"
    assert beside.meaning.startswith(f"{words}: the agent has its own")


@pytest.mark.parametrize("version", [(1, 0), (1, 0, 6), (1, 1, 3)])
def test_an_nft_with_json_is_good_from_its_first_version_on(version: tuple[int, ...]) -> None:
    assert judge_nft(NftProgram(version, json=True), agent_runs=False).severity is Severity.OK
