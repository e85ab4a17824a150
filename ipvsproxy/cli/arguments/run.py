"""The command line of `ipvsproxy run`: its flags are the settings of `config.settings`, and where objects come from."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ipvsproxy.cli.arguments.kube_proxy import add_kube_proxy_flags, take_ports
from ipvsproxy.cli.arguments.parser import EXIT_CODES, Command, add_setting
from ipvsproxy.config.declaration import Group
from ipvsproxy.config.layers import Layers
from ipvsproxy.config.settings import SETTINGS

if TYPE_CHECKING:
    import argparse

    from ipvsproxy.cli.arguments.parser import Parser
    from ipvsproxy.config.layers import Effective
    from ipvsproxy.config.settings import Config

_EPILOG = """\
The name in brackets is the field of KubeProxyConfiguration (--config). A flag goes before the file, the file before
the default. Fields of the file that have no effect here are named in one warning, unknown ones in another. All of
kube-proxy's flags are accepted; one warning says why some of them have no effect.
A file that changes, or SIGHUP, has the file read again: what a running agent can take over of it, it does, and the log
names the restart that the rest needs. SIGUSR1 makes the agent log more, SIGUSR2 less, by one level each.
DURATION is written as 30s, 1m30s or 0s. BOOL is true or false; the flag alone is true.

examples:
  ipvsproxy run --config /var/lib/kube-proxy/config.conf
  ipvsproxy run --kubeconfig /etc/kubernetes/kube-proxy.conf --cluster-cidr 10.244.0.0/16,fd00:10:244::/56
  ipvsproxy run --config /var/lib/kube-proxy/config.conf --ipvs-scheduler wlc --write-config-to /tmp/config.conf
  ipvsproxy run --manifests ./manifests --hostname-override node-1 --ipvs-scheduler wlc --log-format console
"""


@dataclasses.dataclass(frozen=True, slots=True)
class RunArguments:
    """What `ipvsproxy run` is asked to do.

    The objects come from the directory `manifests`, or if that is None from the API server that `config.kubeconfig`
    says. `layers` is what the configuration was read from, for when the file changes. With `write_config_to` it is
    written to that file, and nothing else is done.
    """

    layers: Layers
    effective: Effective
    manifests: Path | None = None
    write_config_to: Path | None = None

    @property
    def config(self) -> Config:
        """The configuration to begin with."""
        return self.effective.config

    def execute(self) -> int:
        """Run the agent."""
        if self.write_config_to:
            from ipvsproxy.cli.config import write_config  # noqa: PLC0415 - imported late, as Arguments says

            return write_config(self.effective, self.write_config_to, sys.stderr)
        from ipvsproxy.cli.run import run  # noqa: PLC0415 - imported late, as Arguments says

        return run(self)


def read_layers(namespace: argparse.Namespace, hostname: str) -> Layers:
    """Return what the flags of `add_run_flags` say of the configuration."""
    flags = {name: getattr(namespace, name) for name in SETTINGS if hasattr(namespace, name)}
    take_ports(namespace, flags)
    return Layers(flags, namespace.config, hostname, tuple(dict.fromkeys(namespace.without_effect)))


def _read(namespace: argparse.Namespace, hostname: str) -> RunArguments:
    layers = read_layers(namespace, hostname)
    return RunArguments(layers, layers.read(), namespace.manifests, namespace.write_config_to)


def _add_flags(parser: Parser) -> None:
    add_run_flags(parser)
    parser.add_argument(
        "--write-config-to",
        metavar="FILE",
        type=Path,
        help="write the configuration in effect to this file, as a KubeProxyConfiguration, and exit",
    )


def add_run_flags(parser: Parser) -> None:
    """Add the flag of every setting, and what only the command line can say: how `run` begins."""
    groups = {group: parser.add_argument_group(group) for group in Group}
    source = groups[Group.SOURCE].add_mutually_exclusive_group()
    for setting in SETTINGS.values():
        add_setting(source if setting.name == "kubeconfig" else groups[setting.group], setting)
    source.add_argument(
        "--manifests",
        metavar="DIR",
        type=Path,
        help="take Services, EndpointSlices and the Node from the YAML files of this directory, as they change",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), read as it is",
    )
    add_kube_proxy_flags(parser)


COMMAND = Command(
    name="run",
    summary="run the agent on this node",
    usage="[--kubeconfig FILE | --manifests DIR] [--config FILE] [FLAG ...]",
    description="Program Services into this node's kernel, and keep them so, until a signal stops the agent."
    "\nEvery rule stays in place when it stops.",
    epilog=f"{_EPILOG}\n{EXIT_CODES}",
    add_flags=_add_flags,
    read=_read,
)
