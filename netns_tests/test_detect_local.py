"""How pods' packets are told from others, where what that depends on comes late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvsproxy.model.addresses import Family
from netns_tests import manifests
from netns_tests.api_cluster import ApiCluster
from netns_tests.bad_objects import service, slice_of
from netns_tests.deadline import await_that
from netns_tests.traffic import Connection, Target, request

if TYPE_CHECKING:
    from pathlib import Path


def test_a_node_that_gets_its_pod_network_late_masquerades_what_is_outside_of_it_from_then_on(
    tmp_path: Path,
) -> None:
    with ApiCluster.built(tmp_path) as cluster:
        cluster.put(service(10), slice_of(10))
        target = Target("10.96.0.10", 80)
        outside = cluster["outside"].addresses[Family.IPV4]
        with cluster.agent("--detect-local-mode=NodeCIDR") as agent:
            agent.await_line("first sync")
            # Nobody is known to be outside: what is not masqueraded is answered by way of the node all the same.
            cluster.await_answer("outside", target, "web-2")
            with Connection(cluster["outside"], target) as connection:
                assert connection.ask().source == outside
                pod_networks = ("10.244.1.0/24", "fd00:10:244:1::/64")
                cluster.put(manifests.node("node-a", "", pod_networks, cluster.host.addresses.values()))
                await_that(
                    lambda: request(cluster["outside"], target).source in cluster.host.own(Family.IPV4),
                    "a client outside the pod network is masqueraded",
                )
                # The table was replaced, and the connection goes on.
                assert connection.ask().source == outside
            pod = cluster["client"].addresses[Family.IPV4]
            assert request(cluster["client"], target).source == pod
            assert "DIFFERENCE" not in cluster.dump()
