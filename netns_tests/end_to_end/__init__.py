"""The agent as its ServiceAccount, with the chart's rights, in front of an API server that restarts and forgets.

* `control_plane`: what a test does to an API server, and learns from it.
* `own_server`: the API server for tests, with TLS and the role enforced; it is there on each run.
* `assets`: kube-apiserver and etcd, from the folder that KUBEBUILDER_ASSETS names.
* `k3s`: k3s in a container, where Docker can pull its image.
* `kubernetes_api`: what the last two have in common, over the API itself; `audit` reads what the server saw.
* `pod`: the agent with the files and variables that the kubelet gives its pod.
"""
