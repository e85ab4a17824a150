"""What a running agent takes over of a configuration that changed, and what waits for its restart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given

from ipvsproxy.config.layers import Layer, Origin, combine
from ipvsproxy.config.reload import LIVE, decide
from ipvsproxy.config.settings import SETTINGS
from tests.config.values import flags

if TYPE_CHECKING:
    from ipvsproxy.config.layers import Effective


def effective(**given: object) -> Effective:
    return combine(given, None, "node-1")


def test_what_can_be_taken_over_is_in_effect_and_named_with_both_values() -> None:
    result = decide(effective(), effective(scheduler="wlc", sync_period=60.0))

    assert [(change.setting.name, change.old, change.new) for change in result.live] == [
        ("scheduler", "rr", "wlc"),
        ("sync_period", "30s", "1m"),
    ]
    assert result.restart == ()
    assert result.effective == effective(scheduler="wlc", sync_period=60.0)


def test_what_needs_a_restart_keeps_its_value_and_where_that_came_from() -> None:
    result = decide(effective(), effective(kubeconfig=Path("/k"), strict_arp=True))

    assert [(change.setting.name, change.old, change.new) for change in result.restart] == [
        ("kubeconfig", "", "/k")
    ]
    assert result.effective.config == effective(strict_arp=True).config
    assert result.effective.origins["kubeconfig"] == Origin(Layer.DEFAULT)
    assert result.effective.origins["strict_arp"] == Origin(Layer.FLAG, "--ipvs-strict-arp")


def test_the_same_configuration_is_no_change() -> None:
    assert decide(effective(), effective()) == (effective(), (), ())


@given(flags, flags)
def test_every_difference_is_either_taken_over_or_waits(
    before: dict[str, object], after: dict[str, object]
) -> None:
    running, read = effective(**before), effective(**after)
    result = decide(running, read)

    live, restart = ({change.setting.name for change in changes} for changes in (result.live, result.restart))
    for name in SETTINGS:
        old, new, kept = (getattr(each.config, name) for each in (running, read, result.effective))
        assert (name in live | restart) is (old != new)
        assert kept == (old if name in restart else new)
    assert not live & restart


def test_only_settings_that_a_file_can_have_are_taken_over() -> None:
    assert all(SETTINGS[name].path for name in LIVE)
