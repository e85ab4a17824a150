"""The live screen of `ipvsproxy top` with ready-made frames, as a program: `python -m tests.cli.top_program`.

With the word `broken` the kernel can't be read after the first frames.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments import parse
from ipvsproxy.cli.arguments.top import TopArguments
from ipvsproxy.cli.main import exit_code
from ipvsproxy.cli.top_live import live
from ipvsproxy.errors import IpvsProxyError
from tests.cli.top_frames import FIRST, FRAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ipvsproxy.cli.top_source import Frame


def frames() -> Iterator[Frame]:
    yield FIRST
    yield FRAME
    if sys.argv[1:] == ["broken"]:
        raise IpvsProxyError("the kernel can't be read: it is gone")
    threading.Event().wait()


if __name__ == "__main__":
    arguments = parse(["top"])
    assert isinstance(arguments, TopArguments)
    sys.exit(exit_code(partial(live, arguments, frames(), sys.stdin, sys.stdout)))
