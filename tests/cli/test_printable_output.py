"""Control characters of objects and files reach no terminal, whichever command shows them."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, NoReturn

import msgspec
import pytest
import yaml

from ipvsproxy.cli import bundle, check_text, explain_text, tables
from ipvsproxy.cli.answers import as_json, as_yaml
from ipvsproxy.cli.dialog import Dialog
from ipvsproxy.cli.layout import Column, Look, Table, lay_out
from ipvsproxy.cli.main import exit_code
from ipvsproxy.cli.notices import notify
from ipvsproxy.cli.top_screen import View, content_of, page_of
from ipvsproxy.cli.top_table import plain
from ipvsproxy.config.settings import LogFormat, LogLevel
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.model.objects import ObjectKey
from ipvsproxy.model.reasons import Rejection
from ipvsproxy.observe.log import Threshold, configure
from ipvsproxy.observe.traffic import Grouping, Order, rows_of, total_of
from ipvsproxy.plan.check.finding import Check, Finding, Severity
from tests.builders import NODE, endpoint, endpoint_slice, key, service
from tests.cli.test_dump import dumped, the_kernel
from tests.cli.top_frames import FRAME
from tests.observe.explaining import kernel_state, told
from tests.observe.node import report_of, state
from tests.observe.test_log import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "web\x1b[2J\x9b31m\u202elive\u2066\r\n\tshop\x00\x7f\u2028\ufeff"
ESCAPED = r"web\x1b[2J\x9b31m\u202elive\u2066"
_COLOUR = re.compile(r"\x1b\[\d*m")
LOOKS = pytest.mark.parametrize(
    "look", [Look(), Look(width=40), Look(width=90), Look(width=90, colours=True)], ids=str
)


def assert_safe(output: str) -> None:
    """Have what was hostile in it, and nothing but it, escaped."""
    # Narrow columns may part it.
    assert "\\x1b" in output
    assert all(line.isprintable() for line in _COLOUR.sub("", output).split("\n"))


@LOOKS
def test_tables_of_dump(look: Look) -> None:
    rejection = Rejection("Service", ObjectKey(HOSTILE, HOSTILE), HOSTILE, HOSTILE)
    found = dumped(report_of(rejections=[rejection], warnings=[HOSTILE]), the_kernel())
    for wide in (False, True):
        assert_safe(tables.render(found, tables.Detail(wide=wide), look))
    table = Table((Column("SERVICE", is_name=True), Column("STATE")), [(HOSTILE, "serving")])
    assert_safe(lay_out(table, look))


@LOOKS
def test_findings_of_check(look: Look) -> None:
    assert_safe(check_text.render([Finding(Check.REJECTIONS, Severity.ERROR, HOSTILE, HOSTILE)], look))


@pytest.mark.parametrize("width", [None, 40])
def test_sentences_of_explain(width: int | None) -> None:
    web = state(service("10.96.0.10"), endpoint_slice(endpoint("10.244.1.7", node=NODE)))
    explanation = told(key("10.96.0.10"), kernel_state(web), report_of(web))
    for field in ("about", "assumptions", "unless", "next"):
        assert_safe(explain_text.render(msgspec.structs.replace(explanation, **{field: [HOSTILE]}), width))
    assert_safe(explain_text.render(msgspec.structs.replace(explanation, result=HOSTILE), width))
    endpoints = [msgspec.structs.replace(explanation.endpoints[0], reason=HOSTILE)]
    assert_safe(explain_text.render(msgspec.structs.replace(explanation, endpoints=endpoints), width))


def test_rows_and_titles_of_top() -> None:
    rows = rows_of(FRAME.before, FRAME.after, FRAME.names, FRAME.ours, Grouping.SERVICE)
    hostile = [row._replace(service=HOSTILE) for row in rows]
    assert_safe(plain(hostile, total_of(hostile), Grouping.SERVICE))
    by_server = rows_of(FRAME.before, FRAME.after, FRAME.names, FRAME.ours, Grouping.VIRTUAL_SERVER)
    hostile = [row._replace(service=HOSTILE) for row in by_server]
    assert_safe(plain(hostile, total_of(hostile), Grouping.VIRTUAL_SERVER))
    assert FRAME.agent is not None
    frame = FRAME._replace(silence=HOSTILE, agent=msgspec.structs.replace(FRAME.agent, node_name=HOSTILE))
    view = View(Order.BYTES)
    page = page_of(content_of(frame, hostile, Grouping.VIRTUAL_SERVER, view), view, "15:49:07", 200, 24)
    assert_safe("\n".join(line.plain for line in page.lines))


def test_the_dialog_of_cleanup() -> None:
    output, errors = io.StringIO(), io.StringIO()
    dialog = Dialog(io.StringIO(), output, errors, dry_run=True, assume_yes=False)
    dialog.show("These go", [HOSTILE])
    dialog.say(HOSTILE)
    dialog.warn(HOSTILE)
    assert_safe(output.getvalue())
    assert_safe(errors.getvalue())
    assert errors.getvalue().count("\n") == 1


def test_the_last_line_of_a_command_that_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise IpvsProxyError(HOSTILE)

    assert exit_code(fail) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"ipvsproxy: {ESCAPED}")
    assert_safe(line)
    assert line.count("\n") == 1


def test_notices_and_the_progress_of_a_bundle() -> None:
    stream = io.StringIO()
    notify(stream, HOSTILE)
    assert_safe(stream.getvalue())
    sources = bundle.Sources(fail, fail, fail, fail, fail)
    progress = io.StringIO()
    bundle.collect(sources, progress)
    assert_safe(progress.getvalue())


def fail(*_: object) -> NoReturn:
    raise IpvsProxyError(HOSTILE)


def test_json_and_yaml_are_safe_and_mean_what_they_meant() -> None:
    rejection = Rejection("Service", ObjectKey(HOSTILE, HOSTILE), HOSTILE, HOSTILE)
    found = dumped(report_of(rejections=[rejection]), the_kernel())
    for text, loaded in (
        (as_json(found), json.loads(as_json(found))),
        (as_yaml(found), yaml.safe_load(as_yaml(found))),
    ):
        assert all(line.isprintable() for line in text.split("\n"))
        assert loaded == msgspec.to_builtins(found)
        assert loaded["rejections"][0]["reason"] == HOSTILE


def log_lines(log_format: LogFormat, *, terminal: bool) -> Iterator[str]:
    """Log hostile texts in every place that a line has for them."""
    for fields in ({"reason": HOSTILE}, {"fields": [HOSTILE]}, {"map": {HOSTILE: HOSTILE}}):
        recorder = Recorder(terminal=terminal)
        configure(log_format, Threshold(LogLevel.INFO), recorder.stream).warning("rejected", **fields)
        yield recorder.text
    recorder = Recorder(terminal=terminal)
    log = configure(log_format, Threshold(LogLevel.INFO), recorder.stream)
    try:
        fail()
    except IpvsProxyError:
        log.exception(HOSTILE)
    yield recorder.text


@pytest.mark.parametrize("terminal", [True, False])
def test_the_log_of_a_console(*, terminal: bool) -> None:
    for text in log_lines(LogFormat.CONSOLE, terminal=terminal):
        assert_safe(text)


def test_the_log_in_json() -> None:
    for text in log_lines(LogFormat.JSON, terminal=False):
        assert text.removesuffix("\n").isprintable()
        assert HOSTILE in str(json.loads(text).values()) or repr(HOSTILE)[1:-1] in str(json.loads(text))


def test_a_text_that_no_line_can_be_written_with_is_logged_all_the_same() -> None:
    """As a file's name is whose bytes are no characters."""
    for log_format in (LogFormat.JSON, LogFormat.CONSOLE):
        recorder = Recorder()
        log = configure(log_format, Threshold(LogLevel.INFO), recorder.stream)
        log.error("manifest does not parse", file="web\udcff.yaml")
        assert r"web\udcff.yaml" in recorder.text.replace("\\\\", "\\")
