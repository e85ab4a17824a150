"""The tests with k3s, on this machine's own kernel: `python -m netns_tests.end_to_end`, as root.

In a kernel of the tests Docker is out of reach, so they are skipped there. Where they can't be run here either, a line
says why, and the exit code is 0.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from netns_tests.end_to_end import k3s
from netns_tests.kernel import host

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run them, with more arguments of pytest's; return its exit code."""
    if reason := host.why_not() or k3s.why_not():
        print(f"end to end with k3s: skipped, {reason}")
        return 0
    return pytest.main([str(Path(__file__).parent), "-p", "no:cacheprovider", "-k", "k3s", *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
