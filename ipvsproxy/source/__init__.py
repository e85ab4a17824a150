"""Where Services and EndpointSlices come from: the Kubernetes API, or a directory of YAML files.

* `kubernetes`: objects from the API server, and Events to it.
* `manifests`, `manifest_file`, `directory`: objects from files, and which of them change.
* `schema`: the fields of the API's objects that are used.
* `decode`, `fields`, `annotations`: from these to the model's values, with a reason for what can't be used.
* `health`: whether what is followed is in reach.
* `store`: the latest objects, and which Services changed.
"""
