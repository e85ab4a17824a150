"""`ipvsproxy resync`: the agent compares everything with the kernel now."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from ipvsproxy.cli.answers import await_answer
from ipvsproxy.cli.privilege import require_operator
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.observe.agent_socket import RESYNC_COMMAND, AgentSilentError
from ipvsproxy.observe.schema import ResyncResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from ipvsproxy.cli.arguments.resync import ResyncArguments

# Longer than the agent waits for the end.
_PATIENCE = 75.0  # seconds


def resync(arguments: ResyncArguments) -> int:
    """Have it done, and show what came of it; return the exit code. Errors as `agent_socket.ask_report`."""
    require_operator()
    directory = arguments.run_directory
    question = partial(await_answer, directory, RESYNC_COMMAND, ResyncResult, sys.stderr, _PATIENCE)
    return show(question, sys.stdout)


def show(question: Callable[[], ResyncResult], output: TextIO) -> int:
    """Show what was repaired, and what fails. IpvsProxyError if anything is not as it should be."""
    try:
        result = question()
    except AgentSilentError as error:
        raise AgentSilentError(
            f"{error}; see the agent's log, and start it again if it stays silent"
        ) from error
    if result.error:
        raise IpvsProxyError(f"the comparison with the kernel failed: {result.error}")
    time = f"{result.seconds * 1000:.1f} ms"
    if result.repaired:
        output.write(f"everything was compared with the kernel in {time}, and this was repaired:\n")
        output.writelines(f"  {kind}: {count}\n" for kind, count in result.repaired.items())
    else:
        output.write(f"everything was compared with the kernel in {time}, nothing had to be repaired\n")
    output.writelines(f"failing: {each}\n" for each in result.failing)
    if result.failing:
        raise IpvsProxyError(f"{len(result.failing)} items are not as they should be, and are tried again")
    return 0
