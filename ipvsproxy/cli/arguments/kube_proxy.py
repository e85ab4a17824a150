"""kube-proxy's flags that ipvsproxy has no setting for: they are accepted, so that kube-proxy's command line can stay.

WITHOUT_EFFECT names each flag of kube-proxy 1.28 to 1.36, with the reason why it has no effect here. A few are refused
where accepting them would do the opposite of what they ask for. None of them shows in the help.
Source: cmd/kube-proxy/app/options.go, component-base's logging and version flags, cadvisor's and klog's Go flags.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from ipvsproxy import __version__
from ipvsproxy.cli.arguments.parser import readable
from ipvsproxy.config.readers import HEALTHZ_PORT, HIGHEST_PORT, METRICS_PORT, MODE, read_boolean, read_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ipvsproxy.model.addresses import Address


class KubeProxyFlag(NamedTuple):
    """A flag of kube-proxy's without effect here.

    `reason` says why, in one phrase. `reader` is called with the value and refuses it by a ValueError. A flag that is
    `boolean` may stand without a value, for true.
    """

    name: str
    reason: str
    boolean: bool = False
    reader: Callable[[str], object] = str


def _read_mode(text: str) -> str:
    if text not in {"", MODE}:
        raise ValueError(
            f"{text!r} is not what ipvsproxy does, its mode is {MODE}; docs/migration.md tells how a node changes over "
            "from kube-proxy's other modes"
        )
    return text


def _read_cleanup(text: str) -> str:
    if read_boolean(text):
        raise ValueError("is a command here: ipvsproxy cleanup --kube-proxy, or ipvsproxy cleanup")
    return text


def _read_init_only(text: str) -> str:
    if read_boolean(text):
        raise ValueError(
            "is not needed: the agent makes the kernel's settings itself; leave out that container"
        )
    return text


def _read_port(text: str) -> int:
    if (port := read_count(text)) > HIGHEST_PORT:
        raise ValueError(f"{text!r} is not a port: 0 to {HIGHEST_PORT}")
    return port


_INSIDE: Final = "it concerns the inside of kube-proxy"
_API_CLIENT: Final = "the agent only lists and watches, in JSON, and holds nothing back"
_LOG: Final = "the agent's log is set by --log-level and --log-format"
_IPTABLES: Final = "it is the iptables mode's"
_WINDOWS: Final = "it is for Windows"

WITHOUT_EFFECT: Final = (
    KubeProxyFlag("--proxy-mode", f"the mode is always {MODE}", reader=_read_mode),
    KubeProxyFlag("--cleanup", "ipvsproxy cleanup is a command", boolean=True, reader=_read_cleanup),
    KubeProxyFlag(
        "--init-only", "the agent makes the kernel's settings itself", boolean=True, reader=_read_init_only
    ),
    KubeProxyFlag("--bind-address", "the Node's own addresses are not overridden"),
    KubeProxyFlag(
        "--bind-address-hard-fail", "a port that can't be had is reported, and tried again", boolean=True
    ),
    KubeProxyFlag("--config-sync-period", "nothing is listed again by the clock"),
    KubeProxyFlag("--ipvs-exclude-cidrs", "virtual servers of others are never touched, wherever they are"),
    KubeProxyFlag("--oom-score-adj", "the pod's quality of service or the service manager sets it"),
    KubeProxyFlag("--kube-api-burst", _API_CLIENT),
    KubeProxyFlag("--kube-api-content-type", _API_CLIENT),
    KubeProxyFlag("--kube-api-qps", _API_CLIENT),
    KubeProxyFlag("--feature-gates", _INSIDE),
    KubeProxyFlag("--profiling", _INSIDE, boolean=True),
    KubeProxyFlag("--show-hidden-metrics-for-version", _INSIDE),
    KubeProxyFlag("--boot-id-file", _INSIDE),
    KubeProxyFlag("--machine-id-file", _INSIDE),
    KubeProxyFlag("--proxy-port-range", "it was the userspace mode's"),
    KubeProxyFlag("--iptables-localhost-nodeports", "IPVS has no node ports at 127.0.0.1", boolean=True),
    KubeProxyFlag("--iptables-min-sync-period", _IPTABLES),
    KubeProxyFlag("--iptables-sync-period", _IPTABLES),
    KubeProxyFlag("--v", _LOG),
    KubeProxyFlag("--vmodule", _LOG),
    KubeProxyFlag("--logging-format", _LOG),
    KubeProxyFlag("--log-flush-frequency", _LOG),
    KubeProxyFlag("--log-json-info-buffer-size", _LOG),
    KubeProxyFlag("--log-json-split-stream", _LOG, boolean=True),
    KubeProxyFlag("--log-text-info-buffer-size", _LOG),
    KubeProxyFlag("--log-text-split-stream", _LOG, boolean=True),
    KubeProxyFlag("--add-dir-header", _LOG, boolean=True),
    KubeProxyFlag("--alsologtostderr", _LOG, boolean=True),
    KubeProxyFlag("--log-backtrace-at", _LOG),
    KubeProxyFlag("--log-dir", _LOG),
    KubeProxyFlag("--log-file", _LOG),
    KubeProxyFlag("--log-file-max-size", _LOG),
    KubeProxyFlag("--logtostderr", _LOG, boolean=True),
    KubeProxyFlag("--one-output", _LOG, boolean=True),
    KubeProxyFlag("--skip-headers", _LOG, boolean=True),
    KubeProxyFlag("--skip-log-headers", _LOG, boolean=True),
    KubeProxyFlag("--stderrthreshold", _LOG),
    KubeProxyFlag("--enable-dsr", _WINDOWS, boolean=True),
    KubeProxyFlag("--forward-healthcheck-vip", _WINDOWS, boolean=True),
    KubeProxyFlag("--network-name", _WINDOWS),
    KubeProxyFlag("--root-hnsendpoint-name", _WINDOWS),
    KubeProxyFlag("--source-vip", _WINDOWS),
    KubeProxyFlag("--windows-service", _WINDOWS, boolean=True),
)
_SHORT: Final = {"--v": "-v"}
# Deprecated flags of a port, the setting that has the address, and the port that this has if nobody gives one.
_PORTS: Final = {
    "--healthz-port": ("healthz_bind_address", HEALTHZ_PORT),
    "--metrics-port": ("metrics_bind_address", METRICS_PORT),
}


def add_kube_proxy_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags, without a word in the help."""
    for flag in WITHOUT_EFFECT:
        parser.add_argument(
            *([_SHORT[flag.name]] if flag.name in _SHORT else []),
            flag.name,
            dest="without_effect",
            action="append",
            type=readable(_phrase_of(flag)),
            nargs="?" if flag.boolean else None,
            const="true" if flag.boolean else None,
            default=[],
            help=argparse.SUPPRESS,
        )
    for name in _PORTS:
        parser.add_argument(name, type=readable(_read_port), default=None, help=argparse.SUPPRESS)
    parser.add_argument("--version", nargs="?", const="true", action=_PrintVersion, help=argparse.SUPPRESS)


def take_ports(namespace: argparse.Namespace, flags: dict[str, object]) -> None:
    """Let the deprecated flags of a port have their effect on the `flags` of settings, as far as kube-proxy does.

    0 means nowhere. Any other port is that of an address that was given without one.
    """
    for name, (setting, default) in _PORTS.items():
        port: int | None = getattr(namespace, name.removeprefix("--").replace("-", "_"))
        place: tuple[Address, int] | None = flags.get(setting)  # type: ignore[assignment] # as its reader has it
        if port == 0:
            flags[setting] = None
        elif port and place and place[1] == default:
            flags[setting] = place[0], port
        elif port:
            phrase = f"{name}: the port is that of --{setting.replace('_', '-')}"
            namespace.without_effect = [*namespace.without_effect, phrase]


def _phrase_of(flag: KubeProxyFlag) -> Callable[[str], str]:
    def read(text: str) -> str:
        flag.reader(text)
        return f"{flag.name}: {flag.reason}"

    if flag.boolean and flag.reader is str:
        return _phrase_of(flag._replace(reader=read_boolean))
    return read


class _PrintVersion(argparse.Action):
    """Prints the version and ends, as `--version` and `--version=raw` do; `=false` and `=v1.2.3` do not."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        _namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        _option: str | None = None,
    ) -> None:
        if values in {"true", "raw"}:
            sys.stdout.write(f"ipvsproxy {__version__}\n")
            parser.exit()
