"""Where Services and EndpointSlices come from: the Kubernetes API, or a directory of YAML files."""
