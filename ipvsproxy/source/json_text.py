"""JSON that the decoders refuse although most of it is good: mended as Go reads it, or taken apart.

msgspec and Python's json call themselves for each level of nesting, skipped fields included, and give up where the
interpreter's recursion limit is: at some 1,000 levels, while the API server accepts 10,000. Nothing here recurses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

Parsed = TypeVar("Parsed")

MAXIMUM_DEPTH: Final = 100
"""How many levels of a text are read when it is nested too deeply: the fields that are used are at most 10 deep."""

_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{},]', re.DOTALL)
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_QUOTE, _COMMA, _OPENING, _CLOSING = b'"'[0], b","[0], b"[{", b"]}"
_CLOSED_BY: Final = {b"["[0]: b"]"[0], b"{"[0]: b"}"[0]}


def decode(decoder: msgspec.json.Decoder[Parsed], text: bytes | msgspec.Raw) -> Parsed:
    """Return what the text says, once more from the mended text if need be; msgspec.DecodeError for anything else."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decoder.decode(mended(bytes(text)))


def mended(text: bytes) -> bytes:
    """Return the text without what Go's encoding/json reads and other decoders do not.

    Bytes that are no UTF-8 and halves of surrogate pairs become U+FFFD, and what is nested deeper than MAXIMUM_DEPTH
    becomes null.
    """
    return _without_depths(without_halves(text.decode(errors="replace")).encode())


def without_halves(text: str) -> str:
    """Return the JSON with U+FFFD in place of each half of a surrogate pair: such a text can't be written anywhere."""
    return _ESCAPE.sub(lambda found: r"\ufffd" if found["half"] else found[0], text)


def members(text: bytes) -> dict[str, bytes]:
    """Return the values of a JSON object, each as it stands in the text; msgspec.DecodeError if it is no object.

    Only brackets and strings are looked at: what is wrong with a value is left to whoever reads that value.
    """
    found = {}
    for part in _parts(text, b"{"):
        name = _TOKEN.match(part)
        colon = re.compile(rb"\s*:\s*").match(part, name.end()) if name else None
        if name is None or colon is None or part[0] != _QUOTE:
            raise msgspec.DecodeError("JSON is malformed: a member of an object has no name")
        found[msgspec.json.decode(mended(name[0]), type=str)] = part[colon.end() :]
    return found


def elements(text: bytes) -> list[bytes]:
    """Return the elements of a JSON array, each as it stands in the text; errors as for `members`."""
    return list(_parts(text, b"["))


def member(text: bytes, *path: str) -> object:
    """Return the value at that path of names, None if there is none that can be read."""
    try:
        for name in path:
            text = members(text)[name]
        return msgspec.json.decode(mended(text))
    except (KeyError, msgspec.DecodeError):
        return None


def _parts(text: bytes, bracket: bytes) -> Iterator[bytes]:
    """Yield what stands between the commas of the outermost array or object, which begins with that bracket."""
    text = text.strip()
    open_brackets: list[int] = []
    start = 1
    for token in _TOKEN.finditer(text) if text.startswith(bracket) else ():
        byte = text[token.start()]
        if byte in _OPENING:
            open_brackets.append(_CLOSED_BY[byte])
        elif byte in _CLOSING:
            if not open_brackets or open_brackets.pop() != byte:
                break
            if not open_brackets:
                if part := text[start : token.start()].strip():
                    yield part
                if token.end() == len(text):
                    return
                break
        elif byte == _COMMA and len(open_brackets) == 1:
            yield text[start : token.start()].strip()
            start = token.end()
    raise msgspec.DecodeError("JSON is malformed: an object or an array is not complete")


def _without_depths(text: bytes) -> bytes:
    kept: list[bytes] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        byte = text[token.start()]
        if byte in _OPENING:
            depth += 1
            if depth == MAXIMUM_DEPTH + 1:
                kept.append(text[start : token.start()])
                start = len(text)
        elif byte in _CLOSING:
            if depth == MAXIMUM_DEPTH + 1:
                kept.append(b"null")
                start = token.end()
            depth -= 1
    return b"".join((*kept, text[start:]))
