"""The image as a container: `python -m netns_tests.container`, which `make container-test` runs.

The image is made, imported into a Docker, tested by the tests of this folder, and runs packet tests of netns_tests in
a privileged container, with its own program. Where Docker and a kernel with IPVS come from is decided in `place`.
"""
