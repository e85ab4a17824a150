"""A privileged container for one command: `python -m netns_tests.kernel.docker_container IMAGE TREE LOCK COMMAND…`.

TREE is mounted in it at the same place, writable. What the container prints goes to standard output until it ends.
The command must end once nobody holds the lock LOCK, so the container ends, and is removed, whatever ends this process.
"""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

_MODULES = "/lib/modules"

# Docker lets nothing be executed there unless told so.
_IN_MEMORY = {"/run": "exec,mode=755", "/tmp": "exec,mode=1777"}  # noqa: S108 - the container's own


def main(image: str, tree: str, lock: str, *command: str) -> int:
    """Follow the container to its end; whoever gave the command learns its exit code from the command."""
    # Testcontainers' own clean-up is one more image.
    testcontainers_config.ryuk_disabled = True
    container = DockerContainer(image, volumes=[(tree, tree, "rw")]).with_command(list(command[1:]))
    container.with_kwargs(entrypoint=[command[0]], privileged=True, network_mode="none", auto_remove=True)
    container.tmpfs.update(_IN_MEMORY)
    if Path(_MODULES).is_dir():
        container.with_volume_mapping(_MODULES, _MODULES, "ro")
    with Path(lock).open("wb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        try:
            container.start()
        except BaseException:
            container.stop()
            raise
        wrapped = container.get_wrapped_container()
        for chunk in wrapped.logs(stream=True, follow=True):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
