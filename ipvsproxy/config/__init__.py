"""What `ipvsproxy run` is told: defaults, below a KubeProxyConfiguration file, below flags.

* `declaration`: what a setting is.
* `settings`: `Config`, where each setting is declared once: field, flags, default, reader and help.
* `readers`: from text to a setting's value, the same for a flag and for a field of the file.
* `durations`: Go's duration syntax.
* `kubeproxy`: the file's format, all of it, with kube-proxy's defaults.
* `file`: the file as it is on disk, and what is wrong with it.
* `layers`: the three layers put together.

Only `kubeproxy` and `file` need libraries; they are imported when there is a file to read.
"""
