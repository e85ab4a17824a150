"""Tests and a demonstration on a real kernel, with packets, in network namespaces."""
