"""The lines by which a command speaks to a person on standard error, beside its output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.observe.printable import one_line

if TYPE_CHECKING:
    from typing import TextIO


def notify(stream: TextIO, sentence: str) -> None:
    """Write a sentence, without a full stop, as one line behind the program's name."""
    stream.write(f"ipvsproxy: {one_line(sentence)}\n")
