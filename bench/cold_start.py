"""From the start of the process to the last real server, against an API server of the tests, and the memory it takes.

Run it in a kernel with IPVS, as root: `python -m bench.cold_start`. For each size the API server, the agent and the
kernel's tables are new; the phases come from the times in the agent's own log.
"""

from __future__ import annotations

import argparse
import compileall
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ipvsproxy
from bench.common import in_new_network_namespace, machine

ENDPOINTS = 10
DEADLINE_SECONDS = 300
PORT = 6443
# kube-proxy 1.34 --proxy-mode=ipvs on the user-mode test kernel: seconds, and MB of resident memory.
KUBE_PROXY = {1000: (4.6, 76), 5000: (17.2, 147)}
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: bench
contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]
clusters: [{{name: bench, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: bench, user: {{token: bench}}}}]
"""


class Figures(NamedTuple):
    """Seconds of each phase, and resident memory in MB after the first sync."""

    imports: float
    lists: float
    sync: float
    resident: float


def measure(service_count: int) -> Figures:
    """Start the API server and the agent, and wait for the first sync."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(KUBECONFIG.format(port=PORT))
        server = [sys.executable, "-m", "tests.api_server", f"--services={service_count}"]
        server += [f"--endpoints={service_count * ENDPOINTS}", f"--port={PORT}"]
        with (
            subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as api,
            (directory / "log").open("wb") as log,
        ):
            try:
                assert api.stdout is not None
                api.stdout.readline()  # it serves
                agent = [sys.executable, "-m", "ipvsproxy", "run", f"--kubeconfig={kubeconfig}"]
                agent += ["--hostname-override=node-a", "--log-format=json", f"--run-directory={directory}"]
                began = time.time()
                with subprocess.Popen(agent, stderr=log) as process:
                    try:
                        return _watch(process.pid, directory / "log", began, service_count)
                    finally:
                        process.send_signal(signal.SIGTERM)
            finally:
                api.terminate()


def _watch(pid: int, log: Path, began: float, service_count: int) -> Figures:
    events: dict[str, dict[str, str]] = {}
    while "first sync" not in events:
        if time.time() > began + DEADLINE_SECONDS:
            raise TimeoutError(f"no first sync within {DEADLINE_SECONDS} s:\n{log.read_text()}")
        time.sleep(0.01)
        events = {line["event"]: line for line in map(json.loads, log.read_text().splitlines())}
    tables = Path("/proc/thread-self/net/ip_vs").read_text(encoding="ascii").splitlines()
    real_servers = sum(line.startswith("  ->") for line in tables) - 1  # the heading
    if real_servers != service_count * ENDPOINTS:
        raise RuntimeError(f"{real_servers} real servers instead of {service_count * ENDPOINTS}")
    started, ended = _seconds(events["starting"]), _seconds(events["first sync"])
    sync = float(events["first sync"]["milliseconds"]) / 1e3
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    assert resident
    return Figures(started - began, ended - started - sync, sync, int(resident[1]) / 1024)


def _seconds(event: dict[str, str]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def main() -> None:
    """Measure each size and print its phases beside kube-proxy's figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("services", type=int, nargs="*", default=[1000, 5000])
    arguments = parser.parse_args()
    # As an installed package is; the working tree may have no byte code.
    compileall.compile_dir(str(Path(ipvsproxy.__file__).parent), quiet=1)
    print(machine())
    for count in arguments.services:
        figures = in_new_network_namespace(partial(measure, count))
        total = figures.imports + figures.lists + figures.sync
        print(f"{count} services of {ENDPOINTS} endpoints: {total:.2f} s, {figures.resident:.0f} MB resident")
        print(f"  imports and configuration {figures.imports:6.2f} s")
        print(f"  lists, decoded            {figures.lists:6.2f} s")
        print(f"  first sync                {figures.sync:6.2f} s")
        if count in KUBE_PROXY:
            seconds, memory = KUBE_PROXY[count]
            print(
                f"  kube-proxy's ipvs mode took {seconds} s and {memory} MB: "
                f"{total / seconds:.2f} of its time, {figures.resident / memory:.2f} of its memory"
            )


if __name__ == "__main__":
    main()
