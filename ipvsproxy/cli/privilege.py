"""What the commands for operators need before they look at anything."""

from __future__ import annotations

from ipvsproxy.errors import NotPermittedError
from ipvsproxy.kernel.interface import KernelUnavailableError
from ipvsproxy.kernel.preflight import require_net_admin


def require_operator() -> None:
    """Raise NotPermittedError unless the process may look at the kernel's tables, and change them."""
    try:
        require_net_admin()
    except KernelUnavailableError as error:
        raise NotPermittedError(str(error)) from error
