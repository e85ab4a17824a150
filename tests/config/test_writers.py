"""Values and texts: what is written is read as the same value again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.config.writers import write
from tests.config.values import VALUES


def test_there_are_values_for_every_setting() -> None:
    assert VALUES.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=30)
@given(st.data())
def test_what_is_written_is_read_as_the_same_value(name: str, data: st.DataObject) -> None:
    value: Any = data.draw(VALUES[name])

    assert SETTINGS[name].read(write(SETTINGS[name], value)) == value


@pytest.mark.parametrize("name", SETTINGS)
def test_defaults_are_written_as_they_are_declared(name: str) -> None:
    setting = SETTINGS[name]

    assert write(setting, setting.read("")) == setting.default
