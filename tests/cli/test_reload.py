"""A configuration file that is read again while the agent runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ipvsproxy.cli.reload import RunningConfiguration
from ipvsproxy.config.layers import Layers
from tests.observe.http_clients import Events

if TYPE_CHECKING:
    from ipvsproxy.config.settings import Config

HEADER = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


class Scene:
    """An agent that began with a file, and what it is told."""

    def __init__(self, file: Path, **flags: object) -> None:
        self.file = file
        self.write("")
        layers = Layers(flags, file, "node-1")
        self.events = Events()
        self.running = RunningConfiguration(layers, layers.read(), Path("/m"), self.events.log)
        self.applied: list[Config] = []

    def write(self, text: str) -> None:
        self.file.write_text(HEADER + text)

    def reload(self, text: str, *, asked: bool = False) -> list[dict[str, Any]]:
        """Change the file, and return what is logged, without the file's name."""
        self.write(text)
        del self.events.capture.entries[:]
        self.running.reload(self.applied.append, asked=asked)
        return [
            {name: value for name, value in entry.items() if name != "file"}
            for entry in self.events.capture.entries
        ]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "config.conf")


def test_a_change_that_can_be_taken_over_is_and_the_log_has_both_values(scene: Scene) -> None:
    logged = scene.reload("ipvs: {scheduler: wlc}\n")

    [config] = scene.applied
    assert config.scheduler == "wlc"
    assert logged == [
        {
            "event": "configuration changed",
            "log_level": "info",
            "setting": "--ipvs-scheduler (ipvs.scheduler)",
            "old": "rr",
            "new": "wlc",
        },
        {
            "event": "configuration read again",
            "log_level": "info",
            "changed": 1,
            "waiting_for_restart": 0,
        },
    ]
    origins = {each.flag: each.origin for each in scene.running.answer().settings}
    assert origins["--ipvs-scheduler"] == f"{scene.file}: ipvs.scheduler"
    assert scene.running.configz()["kubeproxy.config.k8s.io"]["ipvs"]["scheduler"] == "wlc"  # type: ignore[index]


def test_a_change_that_needs_a_restart_is_named_until_it_is_taken_back(scene: Scene) -> None:
    logged = scene.reload("hostnameOverride: other\n")

    assert scene.applied == []
    assert [(entry["event"], entry["log_level"]) for entry in logged] == [
        ("restart needed", "warning"),
        ("configuration read again", "info"),
    ]
    assert (logged[0]["old"], logged[0]["new"]) == ("node-1", "other")
    answer = {each.flag: each for each in scene.running.answer().settings}["--hostname-override"]
    assert (answer.value, answer.after_restart) == ("node-1", "other")

    scene.reload("")
    assert all(each.after_restart is None for each in scene.running.answer().settings)


def test_a_file_that_is_wrong_changes_nothing_and_is_one_line(scene: Scene) -> None:
    scene.reload("ipvs: {scheduler: wlc}\n")
    del scene.applied[:]
    logged = scene.reload("ipvs: {scheduler: best}\n")

    assert [(entry["event"], entry["log_level"]) for entry in logged] == [
        ("configuration refused, the one before stays in effect", "error")
    ]
    assert logged[0]["reason"].startswith(f"{scene.file}: ipvs.scheduler: 'best' is not an IPVS scheduler")
    assert scene.applied == []
    assert scene.running.answer().file_error == logged[0]["reason"]
    assert {each.flag: each.value for each in scene.running.answer().settings}["--ipvs-scheduler"] == "wlc"

    scene.reload("ipvs: {scheduler: wlc}\n")
    assert scene.running.answer().file_error == ""


def test_a_file_that_is_gone_changes_nothing(scene: Scene) -> None:
    scene.file.unlink()
    scene.running.reload(scene.applied.append)

    assert scene.applied == []
    assert scene.running.answer().file_error == f"{scene.file}: No such file or directory"


def test_a_flag_goes_before_the_file_then_too(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "config.conf", scheduler="sh")

    assert scene.reload("ipvs: {scheduler: wlc}\n") == []
    assert scene.applied == []


def test_fields_without_effect_are_named_when_the_file_is_another(scene: Scene) -> None:
    assert [entry["event"] for entry in scene.reload("mode: nftables\n")] == [
        "configuration fields without effect",
        "configuration read again",
    ]


def test_what_was_passed_over_is_named_when_the_file_is_another(scene: Scene) -> None:
    passed_over, read = scene.reload("ipvs: {bogus: 1}\n")

    assert (passed_over["log_level"], read["event"]) == ("warning", "configuration read again")
    assert [remark.partition(":")[0] for remark in passed_over["remarks"]] == ["ipvs.bogus"]
    assert scene.running.answer().file_remarks == passed_over["remarks"]


@pytest.mark.parametrize("text", ["", "ipvs: {scheduler: best}\n", "hostnameOverride: other\n"])
def test_what_was_said_of_a_file_is_said_again_only_to_who_asks(scene: Scene, text: str) -> None:
    first = scene.reload(text)
    assert scene.reload(text) == []
    assert scene.reload(text, asked=True) == (first or scene.reload("", asked=True))
    assert scene.applied == []


def test_what_could_not_be_taken_over_is_tried_again(scene: Scene) -> None:
    def fail(_: Config) -> None:
        raise LookupError

    scene.write("ipvs: {scheduler: wlc}\n")
    with pytest.raises(LookupError):
        scene.running.reload(fail)
    assert {each.flag: each.value for each in scene.running.answer().settings}["--ipvs-scheduler"] == "rr"
    scene.running.reload(scene.applied.append)
    assert [config.scheduler for config in scene.applied] == ["wlc"]
