"""No credential gets into a log line, whoever says it."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from ipvsproxy.config.settings import LogFormat, LogLevel
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.observe.log import Threshold, configure
from ipvsproxy.observe.recent import RecentEvents
from ipvsproxy.observe.secrets import redact
from ipvsproxy.source.kubernetes.client import ApiError, ApiServer
from tests.observe.test_log import Recorder
from tests.source.following import BRISK

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "abcdef.0123456789abcdef"  # noqa: S105 - nobody's
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Authorization: Bearer {TOKEN}", "Authorization: [redacted]"),
        (
            f"{{'authorization': 'Bearer {TOKEN}', 'Accept': '*/*'}}",
            "{'authorization': '[redacted]', 'Accept': '*/*'}",
        ),
        (f'"Proxy-Authorization": "Basic {TOKEN}"', '"Proxy-Authorization": "[redacted]"'),
        (f"sent bearer {TOKEN} to it", "sent bearer [redacted] to it"),
        ("https://me:pa55word@proxy:3128/x?a@b", "https://[redacted]@proxy:3128/x?a@b"),
        (f"token: {TOKEN}", "token: [redacted]"),
        (f'{{"client-key-data": "{TOKEN}"}}', '{"client-key-data": "[redacted]"}'),
        (f"read {JWT}.", "read [redacted]."),
        (f"the key {KEY} is", "the key [redacted] is"),
        ("the key -----BEGIN PRIVATE KEY-----\nMIIEow", "the key [redacted]"),
    ],
)
def test_a_credential_is_replaced_and_what_is_around_it_stays(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "renew the token or client certificate: it is read again at each attempt",
        "https://10.0.0.1:6443/api/v1/services?watch=1",
        "/var/run/secrets/kubernetes.io/serviceaccount/token: Permission denied",
        "token: Permission denied",
        "reachable as user@host, port 80",
        "spec.ports[0].port: 70000 is not from 1 to 65535",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("log_format", [LogFormat.JSON, LogFormat.CONSOLE])
def test_no_line_has_one_whether_in_a_field_in_an_exception_or_from_a_library(log_format: LogFormat) -> None:
    recorder, recent = Recorder(), RecentEvents()
    log = configure(log_format, Threshold(LogLevel.INFO), recorder.stream, recent.hear)
    log.warning(
        "watch interrupted", reason=f"401: Bearer {TOKEN}", headers={"Authorization": f"Bearer {JWT}"}
    )
    log.warning("event with https://me:%s@api", TOKEN)
    log.warning("list", urls=[f"https://me:{TOKEN}@api"], error=ValueError(f"token={TOKEN}"))
    try:
        raise IpvsProxyError(f"Authorization: Basic {TOKEN}")  # noqa: TRY301 - it is logged here
    except IpvsProxyError:
        log.exception("sync failed")
    logging.getLogger("urllib3").warning("Retrying https://me:%s@proxy/", TOKEN)

    written = recorder.text + "".join(bytes(line).decode() for line in recent.answer().events)
    assert written.count("[redacted]") >= 14
    assert TOKEN not in written
    assert JWT not in written


def test_what_the_api_client_fails_with_shows_none_of_its_credentials(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [{"name": "x", "cluster": {"server": f"http://me:{TOKEN}@127.0.0.1:1"}}],
                "users": [{"name": "x", "user": {"token": JWT}}],
            }
        )
    )
    recorder = Recorder()
    log = configure(LogFormat.JSON, Threshold(LogLevel.INFO), recorder.stream)
    api = ApiServer(kubeconfig, BRISK)
    try:
        api.post("/api", {})
    except ApiError as error:
        log.exception("request failed", reason=str(error), url=api.url)

    assert "request failed" in recorder.text
    assert TOKEN not in recorder.text
    assert JWT not in recorder.text
