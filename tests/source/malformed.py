"""Parts of objects that JSON decoders trip over, as they stand in the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from tests.api_server_state import Object

# What the API server lets a client write into metadata.managedFields[].fieldsV1.
DEEPEST: Final = 10_000

# Of fields that the agent has no use for: the object is as good as any.
HARMLESS: Final = {
    "objects nested 1,500 deep": b'{"f:a":' * 1_500 + b"{}" + b"}" * 1_500,
    "objects nested as deeply as the API allows": b'{"f:a":' * DEEPEST + b"{}" + b"}" * DEEPEST,
    "arrays nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "deep values in breadth": b"[%s]" % b",".join([b"[" * 2_000 + b"]" * 2_000] * 10),
    "brackets and quotes in a string": rb'["]}\\\"[{", %s]' % (b"[" * 2_000 + b"]" * 2_000),
    "half of a surrogate pair": rb'"\ud800 \\ud800 \ud83d\ude00"',
    "no UTF-8": b'"\xff\xfe"',
    "a number with 5,000 digits": b"9" * 5_000,
    "a number beyond all floats": b"1e999",
    "a name twice": b'{"a":1,"a":2}',
}
# Whatever field they stand in, the object is no JSON; each can be told from what follows.
BROKEN: Final = {
    "not a number": b"NaN",
    "an escape that is cut short": rb'"\u12"',
    "an escape that is none": rb'"\q"',
    "a bare control character": b'"a\x01b"',
    "a word that is none": b"nothing",
    "a number with a leading zero": b"01",
    "a comma too many": b"[1,]",
    "no value": b"",
}


def with_managed_fields(contents: Object, text: bytes) -> Object:
    """Return the object with that text as the managed fields of a client."""
    fields = msgspec.Raw(b'[{"manager":"kubectl","fieldsType":"FieldsV1","fieldsV1":%s}]' % text)
    return contents | {"metadata": contents["metadata"] | {"managedFields": fields}}
