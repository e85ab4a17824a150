"""The configuration in effect as a file, and what can't be in it."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given

from ipvsproxy.config.document import configz, document, unwritten, write_file
from ipvsproxy.config.layers import combine
from ipvsproxy.config.settings import SETTINGS
from ipvsproxy.errors import IpvsProxyError
from ipvsproxy.model.addresses import parse_network
from tests.config.values import flags

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST = "node-1"
WITHOUT_FIELD = [name for name, setting in SETTINGS.items() if not setting.path]


@given(flags)
def test_a_written_file_reads_back_to_the_same_configuration(given: Mapping[str, Any]) -> None:
    effective = combine(given, None, HOST)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "config.conf")
        write_file(effective, file)
        again = combine({name: given[name] for name in WITHOUT_FIELD if name in given}, file, HOST)

    assert again.config == effective.config


def test_the_file_of_the_defaults_has_kube_proxys_fields_and_asks_for_nothing_without_effect(
    tmp_path: Path,
) -> None:
    file = tmp_path / "config.conf"
    write_file(combine({}, None, HOST), file)

    again = combine({}, file, "node-2")
    assert again.ignored == ()
    assert again.config.node_name == "node-2"
    written = yaml.safe_load(file.read_text())
    assert written["apiVersion"] == "kubeproxy.config.k8s.io/v1alpha1"
    assert written["kind"] == "KubeProxyConfiguration"
    assert (written["mode"], written["ipvs"]["scheduler"]) == ("ipvs", "rr")
    assert written["nodePortAddresses"] == []


def test_a_name_that_was_given_is_written() -> None:
    effective = combine({"node_name": "worker"}, None, HOST)

    assert document(effective)["hostnameOverride"] == "worker"


def test_settings_without_a_field_are_named_as_flags_if_they_are_not_the_defaults() -> None:
    assert unwritten(combine({}, None, HOST)) == []
    given = {"drain_timeout": 120.0, "allowed_external_ips": (parse_network("192.0.2.0/24"),)}
    assert unwritten(combine(given, None, HOST)) == [
        "--drain-timeout=2m",
        "--allowed-external-ips=192.0.2.0/24",
    ]


def test_configz_has_the_document_by_the_name_of_its_group() -> None:
    effective = combine({}, None, HOST)

    assert configz(effective) == {"kubeproxy.config.k8s.io": document(effective)}


def test_no_content_of_a_kubeconfig_is_in_it_but_its_path(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("users: [{user: {token: s3cr3t-t0k3n}}]")
    effective = combine({"kubeconfig": kubeconfig}, None, HOST)

    assert document(effective)["clientConnection"] == {"kubeconfig": str(kubeconfig)}
    assert "s3cr3t" not in str(configz(effective)) + str(dataclasses.asdict(effective.config))


def test_a_file_that_cant_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(IpvsProxyError, match=r"--write-config-to .*: Is a directory$"):
        write_file(combine({}, None, HOST), tmp_path)
