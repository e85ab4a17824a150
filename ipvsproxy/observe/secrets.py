"""What no log line, Event or answer may show: credentials, wherever in a text they stand.

The agent itself names no credential. But it passes on what others say: the API client's exceptions with the headers of
a request, a proxy's URL with its password, a parser that quotes a kubeconfig.
"""

from __future__ import annotations

import re
from typing import Final

REDACTED: Final = "[redacted]"

_SECRETS: Final = re.compile(
    r"""
    # A header, as HTTP or as a repr() of it has it: Authorization: Bearer x, {'authorization': 'Basic y'}.
    (?P<header>\b(?:proxy-)?authorization\b["']?\s*[:=]\s*["']?)(?:(?:basic|bearer|digest|negotiate)\s+)?[^\s"',}]+
    | (?P<scheme>\bbearer\s+)[\w.~+/=-]{12,}
    # The part of a URL before its host (RFC 3986, section 3.2.1).
    | (?P<url>\b[a-z][a-z0-9+.-]*://)[^\s/?\#"'@]+@
    # The fields of a kubeconfig, and of a service account's Secret, that hold a credential.
    | (?P<field>\b(?:token|password|client-key-data|id-token|refresh-token|client-secret)\b["']?\s*[:=]\s*["']?)
      [\w.~+/=-]{12,}
    # A JSON web token, by its first letters: {" in base64.
    | \beyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)?
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


# A part of each of these, without which there is nothing to look for: most texts have none.
_SIGNS: Final = ("authorization", "bearer", "://", "token", "password", "client-", "eyj", "private key")


def redact(text: str) -> str:
    """Return the text without what is recognised as a credential."""
    lowered = text.lower()
    return _SECRETS.sub(_replacement, text) if any(sign in lowered for sign in _SIGNS) else text


def _replacement(found: re.Match[str]) -> str:
    if found["url"]:
        return f"{found['url']}{REDACTED}@"
    return f"{found['header'] or found['scheme'] or found['field'] or ''}{REDACTED}"
