"""The runner of the packet tests, netns_tests.kernel, without a kernel."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ipvsproxy import __version__
from netns_tests.container.place import Found, Place, find, missing_packages
from netns_tests.emulation import each_seventh
from netns_tests.kernel import docker, uml, virtme
from netns_tests.kernel.__main__ import command_environment, parser
from netns_tests.kernel.choose import choose
from netns_tests.kernel.exchange import Exchange, Seen, command_script
from netns_tests.kernel.machine import NOT_RUN, TIMED_OUT, Guest, KernelRunError, Machine
from netns_tests.kernel.supervise import contained, judge, supervise

if TYPE_CHECKING:
    from collections.abc import Callable

UML_KERNEL = Path("/opt/linux")
GUEST = Guest(repository=Path("/src/ipvsproxy"), exchange=Path("/src/ipvsproxy/build/kernel-1"))
BOOTING = Seen(started=False, exit_code=None, panicked=False)
RUNNING = Seen(started=True, exit_code=None, panicked=False)


HERE = "this machine's kernel has no IPVS"


def works() -> str | None:
    return None


def host_has_no_ipvs() -> str | None:
    return HERE


def no_docker() -> str | None:
    return "no Docker answers at its usual socket"


def never() -> str | None:
    pytest.fail("looked for what does not matter")


class TestChoice:
    def test_this_machines_kernel_is_taken_where_it_has_ipvs(self) -> None:
        assert choose("auto", works, never, UML_KERNEL) == ("host", "it has IPVS")

    def test_dockers_is_next_when_it_has_the_image_and_ipvs(self) -> None:
        assert choose("auto", host_has_no_ipvs, works, UML_KERNEL) == (
            "docker",
            f"{HERE}, and Docker's has it",
        )

    def test_user_mode_linux_is_next_when_one_is_named(self) -> None:
        assert choose("auto", host_has_no_ipvs, no_docker, UML_KERNEL) == ("uml", HERE)

    def test_virtme_is_the_last_resort(self) -> None:
        assert choose("auto", host_has_no_ipvs, no_docker, None) == ("virtme", HERE)

    @pytest.mark.parametrize("wanted", ["uml", "virtme"])
    def test_a_test_kernel_asked_for_is_taken_without_a_look_at_others(self, wanted: str) -> None:
        options = parser().parse_args(["--runner", wanted, "--", "true"])
        assert choose(options.runner, never, never, UML_KERNEL) == (wanted, "it was asked for")

    def test_docker_asked_for_is_taken_without_a_look_at_this_machines_kernel(self) -> None:
        assert choose("docker", never, works, None) == ("docker", "it was asked for")

    def test_the_host_asked_for_is_refused_with_the_reason(self) -> None:
        with pytest.raises(KernelRunError, match="the runner host can't be used: this machine's kernel"):
            choose("host", host_has_no_ipvs, never, UML_KERNEL)

    def test_docker_asked_for_is_refused_with_the_reason(self) -> None:
        with pytest.raises(KernelRunError, match="the runner docker can't be used: no Docker answers"):
            choose("docker", never, no_docker, UML_KERNEL)

    def test_user_mode_linux_asked_for_without_a_kernel_is_refused_with_what_to_do(self) -> None:
        with pytest.raises(KernelRunError, match="--uml-kernel"):
            choose("uml", never, never, None)


class TestPlaceOfTheContainerTests:
    """Where the image is tested: `netns_tests.container.place`."""

    def test_here_where_docker_and_the_kernel_will_do(self) -> None:
        assert find(works, works, None, None) == Found(Place.HERE, "Docker answers, and the kernel has IPVS")

    @pytest.mark.parametrize(
        ("docker", "kernel", "reason"),
        [(no_docker, never, no_docker()), (works, host_has_no_ipvs, HERE)],
    )
    def test_in_user_mode_linux_where_one_or_the_other_is_missing(
        self, docker: Callable[[], str | None], kernel: Callable[[], str | None], reason: str
    ) -> None:
        assert find(docker, kernel, UML_KERNEL, "/usr/sbin/dockerd") == Found(Place.TEST_KERNEL, reason)

    def test_nowhere_without_a_kernel_which_is_said(self) -> None:
        found = find(no_docker, never, None, "/usr/sbin/dockerd")
        assert found.place is Place.NOWHERE
        assert found.reason.startswith(f"{no_docker()}, and no user-mode kernel is named")

    def test_nowhere_without_a_dockerd_for_the_kernel_which_is_said(self) -> None:
        found = find(no_docker, never, UML_KERNEL, None)
        assert found.place is Place.NOWHERE
        assert "dockerd is not installed for the test kernel: apt-get install docker.io" in found.reason

    @pytest.mark.parametrize(
        ("place", "packages"),
        [
            (Place.HERE, ["mmdebstrap"]),
            (Place.TEST_KERNEL, ["mmdebstrap", "docker.io"]),
            (Place.NOWHERE, []),
        ],
    )
    def test_only_packages_that_help_are_missed(self, place: Place, packages: list[str]) -> None:
        def find_place(_: str | None) -> Found:
            return Found(place, "a reason")

        assert missing_packages(find_place, lambda _: None, starts_services=False) == packages
        assert missing_packages(find_place, lambda program: f"/bin/{program}", starts_services=False) == []

    def test_no_docker_is_installed_where_it_would_be_started(self) -> None:
        def find_place(dockerd: str | None) -> Found:
            return find(no_docker, never, UML_KERNEL, dockerd)

        assert missing_packages(find_place, lambda _: None, starts_services=True) == []
        assert missing_packages(find_place, {"dockerd": "/bin/dockerd"}.get, starts_services=True) == [
            "mmdebstrap"
        ]


def test_an_emulated_processor_gets_something_of_each_test() -> None:
    tests = ["a::one", *(f"a::two[{number}]" for number in range(8)), "b::two[0]"]
    assert list(compress(tests, each_seventh(tests))) == ["a::one", "a::two[0]", "a::two[7]", "b::two[0]"]


class TestCommandLine:
    def test_a_commands_own_flags_stay_its_own(self) -> None:
        options = parser().parse_args(["--runner", "uml", "--", "pytest", "--timeout", "3", "--", "-x"])
        assert options.command == ["pytest", "--timeout", "3", "--", "-x"]

    def test_the_environment_names_the_user_mode_kernel(self) -> None:
        assert parser({"IPVSPROXY_UML_KERNEL": "/opt/linux"}).parse_args([]).uml_kernel == UML_KERNEL

    def test_an_empty_variable_names_none(self) -> None:
        assert parser({"IPVSPROXY_UML_KERNEL": ""}).parse_args([]).uml_kernel is None

    def test_a_machine_and_all_it_starts_die_with_the_runner(self) -> None:
        argv = contained(["linux", "root=none"])
        assert argv[:2] == ["setpriv", "--pdeathsig=KILL"]
        assert {"--pid", "--kill-child", "--net"} < set(argv)
        assert argv[-3:] == ["--", "linux", "root=none"]

    def test_user_mode_linux_gets_a_root_that_it_cannot_write_to(self) -> None:
        argv = uml.machine(UML_KERNEL, GUEST, "1G").argv
        kernel = argv.index("/opt/linux")
        assert argv[:2] == ["taskset", "--cpu-list"]
        assert {"rootfstype=hostfs", "ro", "mem=1G", "init=/bin/sh"} < set(
            argv[kernel + 1 : argv.index("--")]
        )
        assert argv[argv.index("--") + 2 :] == ["uml", "/src/ipvsproxy", "/src/ipvsproxy/build/kernel-1"]

    def test_a_container_runs_the_same_script_with_the_python_of_the_tests(self) -> None:
        argv = docker.machine("ipvsproxy:1", GUEST).argv
        started = argv.index("netns_tests.kernel.docker_container")
        assert argv[started + 1 : started + 4] == [
            "ipvsproxy:1",
            str(GUEST.repository),
            f"{GUEST.exchange}/alive",
        ]
        assert argv[-5:-2] == ["docker", str(GUEST.repository), str(GUEST.exchange)]
        assert argv[-2:] == [f"{sys.version_info.major}.{sys.version_info.minor}", sys.base_prefix]

    def test_the_environment_names_the_image(self) -> None:
        assert (
            parser({"IPVSPROXY_IMAGE": "registry/ipvsproxy:2"}).parse_args([]).image == "registry/ipvsproxy:2"
        )
        assert parser({}).parse_args([]).image == f"ipvsproxy:{__version__}"

    def test_virtme_boots_debians_kernel_and_writes_to_the_working_tree_only(self) -> None:
        kernel = virtme.DebianKernel("6.1.0-40-amd64", Path("/cache/6.1.0-40-amd64"))
        argv = virtme.machine(kernel, GUEST, "1G").argv
        assert argv[argv.index("--run") + 1] == "/cache/6.1.0-40-amd64/boot/vmlinuz-6.1.0-40-amd64"
        assert [argument for argument in argv if argument.startswith("--rw")] == ["--rwdir=/src/ipvsproxy"]
        assert {"--disable-kvm", "--force-9p"} < set(argv)
        assert (
            "guest.sh virtme /src/ipvsproxy /src/ipvsproxy/build/kernel-1" in argv[argv.index("--exec") + 1]
        )

    def test_the_kernel_is_the_package_that_debians_meta_package_names(self) -> None:
        printed = "linux-image-amd64\n  Depends: linux-image-6.1.0-40-amd64\n  Replaces: linux-image-6.1\n"
        assert virtme.parse_depends(printed) == "6.1.0-40-amd64"

    def test_an_unknown_meta_package_names_no_kernel(self) -> None:
        assert virtme.parse_depends("") is None


class TestCommandScript:
    def run(self, tmp_path: Path, *command: str, **environment: str) -> str:
        script = command_script(command, environment, tmp_path)
        bare = ["env", "-i", "/bin/sh", "-c", script]
        return subprocess.run(bare, check=True, capture_output=True, text=True).stdout

    def test_words_and_values_arrive_unchanged(self, tmp_path: Path) -> None:
        awkward = 'it\'s $HOME `x` "y"\nnext'
        assert self.run(
            tmp_path, "sh", "-c", 'printf "%s|%s" "$1" "$VALUE"', "sh", awkward, VALUE=awkward
        ) == (f"{awkward}|{awkward}")

    def test_it_runs_in_the_directory(self, tmp_path: Path) -> None:
        folder = tmp_path / "a b"
        folder.mkdir()
        assert self.run(folder, "pwd") == f"{folder}\n"

    def test_system_programs_are_found_whatever_path_was(self, tmp_path: Path) -> None:
        path = self.run(tmp_path, "sh", "-c", "echo $PATH", PATH="/opt/bin").strip().split(":")
        assert path[0] == "/opt/bin"
        assert {"/usr/sbin", "/usr/bin"} < set(path)

    def test_a_variable_that_no_shell_takes_is_left_out(self, tmp_path: Path) -> None:
        assert "BASH_FUNC" not in self.run(tmp_path, "env", **{"BASH_FUNC_f%%": "() { :; }", "KEPT": "1"})


class TestEnvironment:
    def test_a_report_is_asked_for_beside_the_callers_options(self, tmp_path: Path) -> None:
        exchange = Exchange(tmp_path)
        environment = command_environment({"PYTEST_ADDOPTS": "-k hairpin"}, exchange, junit=True)
        assert environment["PYTEST_ADDOPTS"] == f"-k hairpin --junitxml={exchange.junit}"

    def test_no_report_is_asked_for_unless_wanted(self, tmp_path: Path) -> None:
        assert "PYTEST_ADDOPTS" not in command_environment({}, Exchange(tmp_path), junit=False)

    def test_the_callers_variables_win(self, tmp_path: Path) -> None:
        environment = command_environment({"LANG": "de_DE.UTF-8", "X": "1"}, Exchange(tmp_path), junit=False)
        assert environment["LANG"] == "de_DE.UTF-8"
        assert environment["X"] == "1"


class TestJudgement:
    machine = Machine("a kernel", [])

    def judge(self, seen: Seen, *, ended: bool = False, seconds: float = 1) -> int | None:
        return judge(self.machine, seen, ended=ended, seconds=seconds, limit=100)

    @pytest.mark.parametrize("ended", [False, True])
    @pytest.mark.parametrize("exit_code", [0, 5])
    def test_the_commands_exit_code_counts_before_anything_else(self, exit_code: int, *, ended: bool) -> None:
        seen = Seen(started=True, exit_code=exit_code, panicked=True)
        assert self.judge(seen, ended=ended, seconds=1000) == exit_code

    @pytest.mark.parametrize("seen", [BOOTING, RUNNING])
    def test_there_is_reason_to_wait_within_the_limits(self, seen: Seen) -> None:
        assert self.judge(seen, seconds=60) is None

    @pytest.mark.parametrize(
        ("seen", "ended", "seconds", "message", "exit_code"),
        [
            (BOOTING, True, 1, "ended before the command could start: a kernel", NOT_RUN),
            (RUNNING, True, 1, "ended while the command ran: a kernel", NOT_RUN),
            (RUNNING._replace(panicked=True), False, 1, "panicked: a kernel", NOT_RUN),
            (BOOTING, False, 601, "did not boot within 600 s: a kernel", NOT_RUN),
            (RUNNING, False, 101, "wrote nothing for 100 s", TIMED_OUT),
        ],
    )
    def test_what_brings_no_exit_code_is_named(
        self, seen: Seen, seconds: float, message: str, exit_code: int, *, ended: bool
    ) -> None:
        with pytest.raises(KernelRunError, match=message) as caught:
            self.judge(seen, ended=ended, seconds=seconds)
        assert caught.value.exit_code == exit_code


class TestSupervision:
    """Shell scripts stand in for machines; they write what guest.sh writes."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Callable[..., tuple[int, str]]:
        def run(script: str, limit: float = 60) -> tuple[int, str]:
            sink = io.BytesIO()
            machine = Machine("a script", ["sh", "-c", f"cd {tmp_path}; {script}"])
            exit_code = supervise(machine, Exchange(tmp_path), limit, sink, self.announced.append)
            return exit_code, sink.getvalue().decode()

        return run

    @pytest.fixture(autouse=True)
    def _listen(self) -> None:
        self.announced: list[str] = []

    def test_output_and_exit_code_come_back(self, run: Callable[..., tuple[int, str]]) -> None:
        assert run(": >started; echo packets >output; echo 7 >code; mv code exit-code") == (7, "packets\n")

    def test_nothing_is_waited_for_once_the_exit_code_is_there(
        self, run: Callable[..., tuple[int, str]]
    ) -> None:
        assert run(": >started; echo 0 >code; mv code exit-code; exec sleep 1000") == (0, "")

    def test_a_machine_that_ends_too_early_shows_its_console(
        self, run: Callable[..., tuple[int, str]]
    ) -> None:
        with pytest.raises(KernelRunError, match="before the command could start"):
            run("echo no such file system >&2")
        assert self.announced == ["the end of its console:\nno such file system"]

    def test_a_panic_is_not_waited_out(self, run: Callable[..., tuple[int, str]]) -> None:
        with pytest.raises(KernelRunError, match="panicked"):
            run("echo '[  1.0] Kernel panic - not syncing: VFS'; exec sleep 1000")

    def test_a_command_that_goes_on_writing_may_take_as_long_as_it_likes(self, tmp_path: Path) -> None:
        sink = io.BytesIO()
        writes = "for n in 1 2 3 4; do echo $n >>output; done"
        script = f"cd {tmp_path}; : >started; {writes}; echo 0 >code; mv code exit-code"
        exit_code = supervise(
            Machine("a script", ["sh", "-c", script]),
            Exchange(tmp_path),
            100,
            sink,
            self.announced.append,
            clock=lambda: 1000 * len(sink.getvalue()),
        )
        assert (exit_code, sink.getvalue()) == (0, b"1\n2\n3\n4\n")

    def test_a_command_that_stalls_is_stopped_with_all_it_started(
        self, run: Callable[..., tuple[int, str]], tmp_path: Path
    ) -> None:
        with pytest.raises(KernelRunError, match="wrote nothing for 0 s"):
            run("sleep 1000 & echo $! >child; : >started; wait", limit=0)
        child = int((tmp_path / "child").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_test_kernels_have_a_cpu_each_as_long_as_there_are_some() -> None:
    claimant = f"test of process {os.getpid()}"
    assert [uml.claim_cpu({5, 7}, claimant) for _ in range(2)] == [5, 7]
    assert uml.claim_cpu({5, 7}, claimant) in {5, 7}
    assert uml.claim_cpu({5, 7}, f"another {claimant}") == 5
