"""docs/configuration.md against the program: every flag, every field, and an example that works."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.kube_proxy import WITHOUT_EFFECT
from ipvsproxy.cli.ending import ENDING, OTHERS
from ipvsproxy.config.kubeproxy import KubeProxyConfiguration, Section
from ipvsproxy.config.layers import combine
from ipvsproxy.config.reload import LIVE
from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.observe.configuration import Configuration, SettingInfo
from ipvsproxy.observe.node_events import LINES
from ipvsproxy.source.annotations import ANNOTATIONS, SCHEDULER_FLAGS, read_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.config.declaration import Setting
    from ipvsproxy.source.fields import UnusableError

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def paths(section: type[Section], prefix: str = "") -> Iterator[str]:
    types = typing.get_type_hints(section)
    for field in msgspec.structs.fields(section):
        path = prefix + field.encode_name
        sections = [kind for kind in typing.get_args(types[field.name]) if isinstance(kind, type)]
        below = next((kind for kind in sections if issubclass(kind, Section)), None)
        if below:
            yield from paths(below, f"{path}.")
        else:
            yield path


KUBE_PROXYS = PAGE.partition("### kube-proxy's flags\n")[2].partition("\n## ")[0]
FIELDS = list(paths(KubeProxyConfiguration))


def test_kube_proxys_flags_without_effect_are_documented_and_no_others_are() -> None:
    rows = re.findall(r"^\| (`-.*?) \|", KUBE_PROXYS, re.MULTILINE)

    assert {flag for row in rows for flag in re.findall(r"`(--[a-z-]+)`", row)} == {
        flag.name for flag in WITHOUT_EFFECT
    }


@pytest.mark.parametrize("command", ["run", "config"])
def test_every_flag_is_documented(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([command, "--help"])
    flags = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}

    assert len(flags) >= 3
    assert {flag for flag in flags if not re.search(rf"`{flag}[ `=]", PAGE)} == set()


def test_no_flag_is_documented_that_the_program_does_not_have() -> None:
    known = {flag for setting in SETTINGS.values() for flag in setting.flags}
    rows = "\n".join(re.findall(r"^\| `-.*", PAGE.replace(KUBE_PROXYS, ""), re.MULTILINE))
    others = {"--config", "--manifests", "--write-config-to", "--output"}

    assert set(re.findall(r"--[a-z-]+", rows)) == known | others


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_setting_is_documented_in_one_row_with_its_field_its_default_and_how_it_changes(
    setting: Setting,
) -> None:
    [row] = re.findall(
        rf"^\| `{setting.flags[0]}[ `].*\|.*\|.*\|.*\|.*\|$",
        PAGE.partition("## Flags of `ipvsproxy config show`")[0],
        re.MULTILINE,
    )
    _, flags, field, default, changed, _, _ = (cell.strip() for cell in row.split("|"))

    assert all(flag in flags for flag in setting.flags)
    assert field == (f"`{setting.path}`" if setting.path else "")
    if setting.default:
        assert default == f"`{setting.default}`"
    assert changed == ("at once" if setting.name in LIVE else "restart")


@pytest.mark.parametrize("field", [*SettingInfo.__struct_fields__, *Configuration.__struct_fields__])
def test_every_field_of_config_show_is_documented(field: str) -> None:
    first, *others = field.split("_")

    assert f"`{first}{''.join(map(str.capitalize, others))}`" in PAGE


def test_the_signals_and_the_events_on_the_node_are_documented() -> None:
    assert {number.name for number in (*ENDING, *OTHERS)} == set(re.findall(r"\bSIG[A-Z]+\d?\b", PAGE))
    [events] = re.findall(r"^## Events on the Node\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`([A-Z]\w+)`", events)) == {told.reason for told in LINES.values()}


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_of_the_file_is_documented(path: str) -> None:
    assert f"`{path}`" in PAGE


def test_every_setting_with_a_field_names_one_that_the_file_can_have() -> None:
    assert {setting.path for setting in SETTINGS.values() if setting.path} <= set(FIELDS)


def test_a_field_that_has_an_effect_is_not_documented_as_one_without() -> None:
    without = PAGE.partition("### Fields without effect")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", without, re.MULTILINE)
    documented = {path for row in rows for path in re.findall(r"`([\w.]+)`", row)}

    assert documented == set(FIELDS) - {setting.path for setting in SETTINGS.values()} - {
        "apiVersion",
        "kind",
    }


def test_the_example_is_read_and_all_of_it_has_an_effect(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "config.yaml"
    file.write_text(example)

    config, ignored, *_ = combine({}, file, "node-1")

    assert ignored == ()
    assert config.strict_arp
    assert len(config.cluster_cidrs) == 2


def test_the_annotations_are_documented_in_one_row_each_and_no_others_are() -> None:
    assert re.findall(r"^\| `([\w.-]+/[^`]*)` \|", PAGE, re.MULTILINE) == list(ANNOTATIONS)


def test_the_flags_of_schedulers_are_documented_and_no_others_are() -> None:
    [values] = re.findall(rf"^\| `{SCHEDULER_FLAGS}` \| ([^|]*) \|", PAGE, re.MULTILINE)
    left_out: list[UnusableError] = []
    read_options({SCHEDULER_FLAGS: "none-such"}, left_out)
    _, _, known = left_out[0].reason.partition("is not a scheduler flag: ")

    assert set(re.findall(r"`(\w+-\w+)`", values)) == set(known.split(", "))
