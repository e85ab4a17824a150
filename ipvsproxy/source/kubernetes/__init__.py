"""Services, EndpointSlices and the agent's own Node from the Kubernetes API, each followed by a thread of its own.

* `source`: what is watched, and where its objects go.
* `node_addresses`: the addresses of all nodes, listed now and then.
* `reach`: the addresses by which the API server itself is reached.
* `events`: what is wrong with an object, told on the object itself.
* `watch`: how one resource is followed: list, watch, resume, list again.
* `client`: requests, credentials and errors; it alone touches the official client.
* `messages`: what the API server sends around the objects.
"""

from ipvsproxy.source.kubernetes.source import KubernetesSource

__all__ = ["KubernetesSource"]
