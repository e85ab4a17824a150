"""What `ipvsproxy run` is told: defaults, below a KubeProxyConfiguration file, below flags.

* `declaration`: what a setting is.
* `settings`: `Config`, where each setting is declared once: field, flags, default, reader and help.
* `readers`: from text to a setting's value, the same for a flag and for a field of the file.
* `writers`: from a value back to the text.
* `durations`: Go's duration syntax.
* `kubeproxy`: the file's format, all of it, with kube-proxy's defaults.
* `file`: the file as it is on disk, and what is wrong with it.
* `layers`: the three layers put together, and which of them each value comes from.
* `document`: the other way, from the configuration in effect to such a file.
* `reload`: what a running agent takes over of a file that changed.

Only `kubeproxy`, `file` and `document` need libraries; they are imported when there is a file to read or to write.
"""
