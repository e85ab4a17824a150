"""The command line: make the image's root file system and test the image, wherever that is possible.

Exit code 0 also where it is not possible: the last line says why then, and what is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ipvsproxy import __version__
from netns_tests.container import dockerd
from netns_tests.container.place import Place, find, missing_packages
from netns_tests.kernel import docker, host

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = f"ipvsproxy:{__version__}"

# In a test kernel what a client meets at each kind of address, and what a restart leaves alone: all that there is takes
# a user-mode kernel, which has a single processor, half an hour.
PACKET_TESTS = {
    Place.HERE: ["netns_tests", "--ignore=netns_tests/container"],
    Place.TEST_KERNEL: [f"netns_tests/test_{name}.py" for name in ("cluster_ip", "node_ports", "restart")],
}
# With it Debian's packages start no services, as in containers (invoke-rc.d(8)).
_POLICY = Path("/usr/sbin/policy-rc.d")
_MEMORY = "4G"
_PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")


def main() -> int:
    """Do what the arguments say; return the exit code."""
    usage = argparse.ArgumentParser(prog="python -m netns_tests.container", description=__doc__)
    usage.add_argument(
        "--missing-packages",
        action="store_true",
        help="print the Debian packages that are lacking; run nothing",
    )
    usage.add_argument(
        "--own-dockerd",
        type=Path,
        metavar="ROOTFS.tar",
        help="in the test kernel: with a dockerd started there",
    )
    usage.add_argument(
        "tests",
        nargs="*",
        metavar="ARGUMENT",
        help="for pytest in the container (default: all packet tests, in a test kernel a part of them)",
    )
    options = usage.parse_args()
    if options.own_dockerd:
        with dockerd.running():
            # Its network goes with it.
            return test(options.own_dockerd, options.tests, IPVSPROXY_NODE_NETWORK="host")
    kernel = Path(name) if (name := os.environ.get("IPVSPROXY_UML_KERNEL")) else None
    find_place = partial(find, docker.unreachable, host.why_not, kernel)
    if options.missing_packages:
        print(*missing_packages(find_place, shutil.which, starts_services=not _POLICY.exists()))
        return 0
    found = find_place(shutil.which("dockerd"))
    if found.place is Place.NOWHERE:
        print(f"container tests: skipped: {found.reason}")
        return 0
    rootfs = REPOSITORY / "build" / "image" / "rootfs.tar"
    subprocess.run([REPOSITORY / "image" / "rootfs.sh", sys.executable, rootfs], check=True)
    tests = options.tests or PACKET_TESTS[found.place]
    print(
        f"container tests: {found.place.value}, because {found.reason}; packets: {' '.join(tests)}",
        flush=True,
    )
    return test(rootfs, tests) if found.place is Place.HERE else in_test_kernel(rootfs, tests)


def test(rootfs: Path, tests: Sequence[str], **more: str) -> int:
    """Import the image, test it, and run packet tests with it; return the exit code of what failed first.

    `more` goes into the environment of the image's tests.
    """
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    script = REPOSITORY / "image" / "import.sh"
    subprocess.run([script, rootfs, IMAGE, __version__, revision.stdout.strip()], check=True)
    environment = os.environ | {"IPVSPROXY_IMAGE": IMAGE, **more}
    image = [*_PYTEST, "--durations=12", "--junitxml=build/container-image.xml", "netns_tests/container"]
    packets = [
        *(sys.executable, "-m", "netns_tests.kernel", "--runner", "docker"),
        *("--junit", "build/container-packets.xml", "--"),
        *(*_PYTEST, *tests),
    ]
    # Its own program in place of the working tree's.
    own = environment | {"IPVSPROXY_PROGRAM": "/opt/ipvsproxy/bin/ipvsproxy"}
    return (
        subprocess.run(image, cwd=REPOSITORY, check=False, env=environment).returncode
        or subprocess.run(packets, cwd=REPOSITORY, check=False, env=own).returncode
    )


def in_test_kernel(rootfs: Path, tests: Sequence[str]) -> int:
    """Do the same in user-mode Linux, with a Docker of its own; return the exit code."""
    kernel = [*(sys.executable, "-m", "netns_tests.kernel", "--runner", "uml"), "--memory", _MEMORY]
    inside = [sys.executable, "-m", "netns_tests.container", "--own-dockerd", str(rootfs), "--", *tests]
    return subprocess.run([*kernel, "--", *inside], cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
