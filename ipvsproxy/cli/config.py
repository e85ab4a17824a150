"""`ipvsproxy config show`, and `ipvsproxy run --write-config-to`: the configuration in effect, for people and files."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from ipvsproxy.cli.answers import as_json, as_yaml, await_answer
from ipvsproxy.cli.arguments.parser import OutputFormat
from ipvsproxy.cli.layout import NOTHING, Column, Table, lay_out, look_of
from ipvsproxy.cli.notices import notify
from ipvsproxy.cli.privilege import require_operator
from ipvsproxy.config.document import unwritten, write_file
from ipvsproxy.observe.agent_socket import CONFIG_COMMAND, AgentNotRunningError
from ipvsproxy.observe.configuration import Configuration, configuration
from ipvsproxy.observe.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TextIO

    from ipvsproxy.cli.arguments.config import ConfigArguments
    from ipvsproxy.cli.layout import Look
    from ipvsproxy.config.layers import Effective

_COLUMNS = (Column("SETTING", is_name=True), Column("VALUE"), Column("FROM"), Column("FIELD OF THE FILE"))


def show_config(arguments: ConfigArguments) -> int:
    """Show it; return the exit code. The agent's socket is for root only, what flags give is for anybody."""
    if arguments.asks_agent:
        require_operator()
    run_directory = arguments.effective.config.run_directory
    question = partial(await_answer, run_directory, CONFIG_COMMAND, Configuration, sys.stderr)
    return show(arguments, question, sys.stdout, sys.stderr)


def show(
    arguments: ConfigArguments, question: Callable[[], Configuration], output: TextIO, errors: TextIO
) -> int:
    """Ask the agent if there are no flags; say on `errors` whose configuration it is."""
    found = configuration(arguments.effective, arguments.layers.file, arguments.manifests)
    if not arguments.asks_agent:
        notify(errors, "this is what these flags give, no agent was asked")
    else:
        try:
            found = question()
            notify(errors, "this is what the running agent goes by")
        except AgentNotRunningError as error:
            notify(errors, f"{error}: these are the defaults, what `run` without flags goes by")
    for phrase in arguments.layers.without_effect:
        notify(errors, f"without effect here: {phrase}")
    if arguments.output is OutputFormat.JSON:
        output.write(as_json(found))
    elif arguments.output is OutputFormat.YAML:
        output.write(as_yaml(found))
    else:
        output.write(table(found, look_of(output)))
    return 0


def table(found: Configuration, look: Look) -> str:
    """Return the settings one a line, and below them what is to be known of the file."""
    file = [("--config", found.file, "flag --config", NOTHING)] if found.file else []
    rows = [(each.flag, each.value or NOTHING, each.origin, each.field or NOTHING) for each in found.settings]
    settings = lay_out(Table(_COLUMNS, [*file, *rows]), look)
    notices = "".join(f"{printable(notice)}\n" for notice in _notices(found))
    return f"{settings}\n{notices}" if notices else settings


def _notices(found: Configuration) -> Iterator[str]:
    if found.ignored_fields:
        yield f"without effect here: {', '.join(found.ignored_fields)}"
    for remark in found.file_remarks:
        yield f"passed over: {found.file}: {remark}"
    for each in found.settings:
        if each.after_restart is not None:
            yield f"restart needed: {found.file}: {each.field} is {each.after_restart or NOTHING} by now"
    if found.file_error:
        yield f"the file as it is now was refused, what was read before it stays in effect: {found.file_error}"


def write_config(effective: Effective, file: Path, errors: TextIO) -> int:
    """Write the configuration as a KubeProxyConfiguration; name on `errors` what can't be written there."""
    write_file(effective, file)
    if flags := unwritten(effective):
        notify(errors, f"{file} has no fields for these, give them as flags: {' '.join(flags)}")
    return 0
