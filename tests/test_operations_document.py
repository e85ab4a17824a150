"""docs/operations.md against the program: every log event, its level and its fields, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ipvsproxy.plan.sysctls import KernelVersion, SysctlSettings, sysctl_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
LOG = PAGE.partition("\n## Log lines\n")[2].partition("\n## ")[0]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
# What structlog makes of an argument.
RENAMED = {"exc_info": "exception"}


class Row(NamedTuple):
    """A row of the page's tables of log lines."""

    level: str
    fields: str


class Event(NamedTuple):
    """A call that logs; `text` is only the beginning of the event if it is put together from several parts."""

    place: str
    text: str
    level: str
    fields: frozenset[str]


ROWS = {
    event: Row(level, fields)
    for event, level, fields in re.findall(r"^\| `([^`]+)` \| ([\w ]+) \| ([^|]*) \|", LOG, re.MULTILINE)
}


def is_log(expression: ast.expr) -> bool:
    """Say whether an expression is a logger, by its name: `log`, `self._log`."""
    return (isinstance(expression, ast.Name) and expression.id == "log") or (
        isinstance(expression, ast.Attribute) and expression.attr == "_log"
    )


def log_calls(tree: ast.AST) -> Iterator[tuple[str, ast.expr, frozenset[str]]]:
    """Yield level, event and fields of each call of a logger."""
    for call in ast.walk(tree):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr in LEVELS
            and is_log(call.func.value)
        ):
            event = call.args[1 if call.func.attr == "log" else 0]
            yield call.func.attr, event, frozenset(keyword.arg for keyword in call.keywords if keyword.arg)


def literal(expression: ast.expr) -> str | None:
    """Return a string that stands in the source."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return expression.value
    return None


def logging_functions(tree: ast.AST) -> dict[str, str]:
    """Return the functions that log what they are given as `event`, with the level."""
    return {
        function.name: level
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for level, event, _ in log_calls(function)
        if any(isinstance(name, ast.Name) and name.id == "event" for name in ast.walk(event))
    }


def events() -> Iterator[Event]:
    """Yield all events of the program's source."""
    for path in sorted((REPOSITORY / "ipvsproxy").rglob("*.py")):
        tree = ast.parse(path.read_text())
        name = str(path.relative_to(REPOSITORY))
        for level, expression, fields in log_calls(tree):
            text = literal(expression)
            if text is not None:
                yield Event(name, text, level, fields)
        functions = logging_functions(tree)
        for call in ast.walk(tree):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and call.func.attr in functions
            ):
                text = literal(call.args[0])
                assert text is not None, f"{name}:{call.lineno}: an event that nobody can look up"
                fields = frozenset(keyword.arg for keyword in call.keywords if keyword.arg)
                yield Event(name, text, functions[call.func.attr], fields)


EVENTS = sorted(set(events()))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: f"{event.place}: {event.text}")
def test_a_log_event_is_documented_with_its_level_and_fields(event: Event) -> None:
    rows = [row for text, row in ROWS.items() if text == event.text or text.startswith(f"{event.text}, ")]
    assert rows, f"docs/operations.md has no row for the event {event.text!r}"
    for row in rows:
        assert row.level == {"log": "as it was", "exception": "error"}.get(event.level, event.level)
        missing = {field for field in event.fields if f"`{RENAMED.get(field, field)}`" not in row.fields}
        assert missing == set()


def test_every_event_is_found_in_the_source() -> None:
    # 30 and some: if the walk misses most of them, the test above proves nothing.
    assert len({event.text for event in EVENTS}) > 30


@pytest.mark.parametrize("text", ROWS)
def test_no_event_is_documented_that_the_program_does_not_log(text: str) -> None:
    assert any(text == event.text or text.startswith(f"{event.text}, ") for event in EVENTS)


def test_every_count_is_documented() -> None:
    sources = "".join(path.read_text() for path in (REPOSITORY / "ipvsproxy" / "reconcile").glob("*.py"))
    counts = set(
        re.findall(
            r'"((?:virtual servers|real servers|addresses|set elements|firewall tables) \w+)"', sources
        )
    )
    assert len(counts) > 10
    assert {count for count in counts if f"`{count.replace(' ', '_')}`" not in LOG} == set()


def test_every_kernel_setting_is_documented_with_its_value() -> None:
    section = PAGE.partition("\n## Kernel settings\n")[2].partition("\n## ")[0]
    for setting in sysctl_plan(SysctlSettings(KernelVersion(5, 4), strict_arp=True)):
        [row] = re.findall(rf"^\|.*`{re.escape(setting.name)}`.*$", section, re.MULTILINE)
        assert setting.value in row.split("|")[2]


def test_every_link_leads_somewhere() -> None:
    for name in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (REPOSITORY / "docs" / name).exists()
