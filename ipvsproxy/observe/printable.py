"""Texts of objects, files and other programs, made safe where people read them.

A terminal acts on control characters, whoever wrote them: they move the cursor, change what stands on the screen, or
answer in the reader's name. Marks of direction and characters without width make a text look like another one. All
tables, sentences and log lines for people go through here, once, where they are rendered; their own colours come after
that. Machines get the same texts in JSON and YAML, with escapes that mean the characters themselves.
"""

from __future__ import annotations

import re
from typing import Final

_NOT_ASCII: Final = re.compile(r"[^\n -~]")


def printable(text: str) -> str:
    r"""Return the text with `\x1b` and the like in place of each character that no one can see; a newline is one."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def printable_lines(text: str) -> str:
    """Return the text as `printable` does, but for its newlines, which stay."""
    return "\n".join(map(printable, text.split("\n")))


def one_line(text: str) -> str:
    """Return the text on a line of its own, with a space in place of newlines and other white space."""
    return printable(" ".join(text.split()))


def printable_json(text: str) -> str:
    """Return the JSON with escapes for what no one can see: it means the same."""
    return text if text.isascii() and "\x7f" not in text else _NOT_ASCII.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    if found[0].isprintable():
        return found[0]
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
