"""A certificate for 127.0.0.1 that is its own authority, and keys, made by openssl for one test."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from pathlib import Path


class Certificate(NamedTuple):
    """The files of a certificate and of its key, both PEM."""

    path: Path
    key: Path

    @classmethod
    def made(cls, directory: Path) -> Self:
        """Make one that is good for a day."""
        found = cls(directory / "server.crt", directory / "server.key")
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", "/CN=api-server", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-out", str(found.path), "-keyout", str(found.key)),
        )
        return found


def rsa_key(path: Path) -> Path:
    """Make a key that a server can sign tokens with, and return its path."""
    _openssl("genrsa", "-out", str(path), "2048")
    return path


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
