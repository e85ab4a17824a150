"""ipvsproxy: Kubernetes Services in the kernel's IPVS load balancer."""

__version__ = "0.1.0"
