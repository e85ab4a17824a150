"""The table of cases: each sentence of what a Service means to clients, with who meets what.

On node-a, whose agent runs, are the pods web-1, web-2 and client; on node-b web-3 and web-4, and no agent: its pods can
use a Service of node-a only where the answers come back that way. The hosts outside and stranger are in two networks.
"""

from __future__ import annotations

from ipvsproxy.model.addresses import Family
from ipvsproxy.model.objects import Protocol, ServiceType, TrafficPolicy
from netns_tests.addressing import Via
from netns_tests.case_language import (
    SERVER_PORTS,
    SERVICE_PORT,
    Environment,
    Outcome,
    Source,
    by,
    cases,
    cluster_ip,
    hinted,
    load_balancer,
    node_port,
    row,
    section,
    service,
    terminating,
    unready,
)

CLUSTER_IP, EXTERNAL_IP, LOAD_BALANCER_IP = Via.CLUSTER_IP, Via.EXTERNAL_IP, Via.LOAD_BALANCER_IP
NODE_PORT, GATEWAY_NODE_PORT, LOOPBACK_NODE_PORT = (
    Via.NODE_PORT,
    Via.GATEWAY_NODE_PORT,
    Via.LOOPBACK_NODE_PORT,
)
NODE_ADDRESS = Via.NODE_ADDRESS
EXTERNAL_IPS = (EXTERNAL_IP, LOAD_BALANCER_IP)
FROM_OUTSIDE = (*EXTERNAL_IPS, NODE_PORT)
SERVICE_ADDRESSES = (CLUSTER_IP, *EXTERNAL_IPS)
EVERY_ADDRESS = (CLUSTER_IP, *FROM_OUTSIDE)

OWN, NODE = Source.OWN, Source.NODE
REFUSED, DROPPED, ECHOED = Outcome.REFUSED, Outcome.DROPPED, Outcome.ECHOED
NODE_ITSELF, NOT_SERVED = Outcome.NODE_ITSELF, Outcome.NOT_SERVED
LOCAL = TrafficPolicy.LOCAL
IPV4, IPV6 = Family.IPV4, Family.IPV6

NO_PODS_NETWORKS = "--cluster-cidr="
MASQUERADE_ALL = Environment("masqueradeAll", ("--masquerade-all=true",))
NO_CLUSTER_CIDR = Environment("without a clusterCIDR", (NO_PODS_NETWORKS,))
NODE_CIDR = Environment(
    "pods are told by the Node's podCIDRs",
    (NO_PODS_NETWORKS, "--detect-local-mode=NodeCIDR"),
    pod_cidrs=("10.244.1.0/24", "fd00:10:244:1::/64"),
)
BRIDGE = Environment(
    "pods are told by the interface client",
    (NO_PODS_NETWORKS, "--detect-local-mode=BridgeInterface", "--pod-bridge-interface=client"),
)
INTERFACE_PREFIX = Environment(
    "pods are told by interfaces that begin with web-",
    (
        NO_PODS_NETWORKS,
        "--detect-local-mode=InterfaceNamePrefix",
        "--pod-interface-name-prefix=web-",
    ),
)
WITHOUT_ZONE = Environment("on a node without a zone", zone="")
PRIMARY = Environment("nodePortAddresses primary", ("--nodeport-addresses=primary",))
GATEWAYS = Environment(
    "nodePortAddresses of the pods' gateway", ("--nodeport-addresses=10.244.0.0/16,fd00:10:244::/48",)
)

OUTSIDE_ONLY = ("192.0.2.0/26", "2001:db8:1::/64")
PODS_ONLY = ("10.244.0.0/16", "fd00:10:244::/56")
NODE_ONLY = ("198.51.100.1/32", "2001:db8:64::1/128")
ANYBODY = ("0.0.0.0/0", "::/0")

TABLE = (
    # Which virtual servers
    section(
        "each protocol of a port number has its own endpoints, and a protocol without such a port is refused",
        cluster_ip("web-1").speaking(Protocol.TCP),
        row("client node-a outside", CLUSTER_IP, REFUSED).on(
            {Protocol.UDP: SERVICE_PORT, Protocol.SCTP: SERVICE_PORT}
        ),
    ),
    section(
        "a single-stack Service of IPv4 has nothing in IPv6",
        node_port("web-1").only(IPV4),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("client outside", NODE_PORT, by("web-1", seeing=NODE)),
        row("client outside", NODE_PORT, NODE_ITSELF).over(IPV6),
    ),
    section(
        "a single-stack Service of IPv6 has nothing in IPv4",
        node_port("web-1").only(IPV6),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("client outside", NODE_PORT, by("web-1", seeing=NODE)),
        row("client outside", NODE_PORT, NODE_ITSELF).over(IPV4),
    ),
    section(
        "a dual-stack Service has an address of each family, whichever is the first",
        load_balancer("web-1").only(IPV6, IPV4),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("outside", FROM_OUTSIDE, by("web-1", seeing=NODE)),
    ),
    section(
        "a load balancer's IP with ipMode VIP is served",
        load_balancer("web-1", ip_mode="VIP"),
        row("client outside", LOAD_BALANCER_IP, by("web-1", seeing=NODE)),
    ),
    section(
        "a load balancer's IP with ipMode Proxy is the load balancer's business",
        load_balancer("web-1", ip_mode="Proxy"),
        row("client outside", LOAD_BALANCER_IP, NOT_SERVED),
        row("client outside", (EXTERNAL_IP, NODE_PORT), by("web-1", seeing=NODE)),
    ),
    section(
        "an external IP that the agent does not allow is not served, the rest of the Service is",
        cluster_ip("web-1", external_ips=("198.19.255.1", "2001:db8:cb:2::ffff")),
        row("client node-a outside", EXTERNAL_IP, NOT_SERVED),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
    ),
    section(
        "an external IP or load balancer's IP that is the node's own is not taken over",
        load_balancer(
            "web-1",
            external_ips=("198.51.100.1", "2001:db8:64::1"),
            load_balancer_ips=("198.51.100.1", "2001:db8:64::1"),
        ),
        row("client outside node-a", NODE_ADDRESS, NODE_ITSELF),
        row("outside node-a", NODE_ADDRESS, NODE_ITSELF).on(SERVER_PORTS),
        row("client outside", NODE_PORT, by("web-1", seeing=NODE)),
    ),
    section(
        "of two Services that claim one external IP the older one has it",
        cluster_ip(
            "web-1",
            external_ips=("198.18.255.1", "2001:db8:cb:1::ffff"),
            created="2020-01-01T00:00:00Z",
        ),
        row("outside", EXTERNAL_IP, by("web-1", seeing=NODE)),
    ),
    section(
        "of two Services that claim one external IP the younger one keeps its other addresses",
        cluster_ip(
            "web-2",
            external_ips=("198.18.255.1", "2001:db8:cb:1::ffff"),
            created="2021-01-01T00:00:00Z",
        ),
        row("outside", EXTERNAL_IP, by("web-1", seeing=NODE)),
        row("client", CLUSTER_IP, by("web-2", seeing=OWN)),
    ),
    section(
        "a Service of type ExternalName has nothing, even with a clusterIP",
        service(ServiceType.EXTERNAL_NAME, "web-1"),
        row("client node-a outside", CLUSTER_IP, NOT_SERVED),
    ),
    section(
        "a headless Service has nothing, even with external IPs",
        cluster_ip("web-1", external_ips=("198.18.255.2", "2001:db8:cb:1::fffe")).headless(),
        row("client outside", EXTERNAL_IP, NOT_SERVED),
    ),
    section(
        "a Service of another proxy is left to it",
        load_balancer("web-1", labels=(("service.kubernetes.io/service-proxy-name", "another"),)),
        row("client outside", SERVICE_ADDRESSES, NOT_SERVED),
        row("client outside", NODE_PORT, NODE_ITSELF),
    ),
    section(
        "a Service of type NodePort has its clusterIP, and node ports at every address of the node but loopback ones",
        node_port("web-1", "web-3"),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
        row(
            "client web-4 outside node-a node-b",
            (NODE_PORT, GATEWAY_NODE_PORT),
            by("web-1 web-3", seeing=NODE),
        ),
        row("node-a", LOOPBACK_NODE_PORT, NODE_ITSELF),
    ),
    section(
        "nodePortAddresses primary: node ports at the Node's addresses",
        node_port("web-1"),
        row("client outside", NODE_PORT, by("web-1", seeing=NODE)),
        row("client outside", GATEWAY_NODE_PORT, NODE_ITSELF),
        environment=PRIMARY,
    ),
    section(
        "nodePortAddresses with CIDRs: node ports at the addresses of these networks",
        node_port("web-1"),
        row("client outside", GATEWAY_NODE_PORT, by("web-1", seeing=NODE)),
        row("client outside", NODE_PORT, NODE_ITSELF),
        environment=GATEWAYS,
    ),
    section(
        "with session affinity ClientIP a client stays with one endpoint, at every address",
        load_balancer("web-1", "web-2", "web-3", session_affinity_timeout=600),
        row("client", CLUSTER_IP, by("web-1 web-2 web-3", seeing=OWN, sticky=True)),
        row("node-a outside", CLUSTER_IP, by("web-1 web-2 web-3", seeing=NODE, sticky=True)),
        row("client node-a outside", FROM_OUTSIDE, by("web-1 web-2 web-3", seeing=NODE, sticky=True)),
    ),
    # Who gets the traffic: to a clusterIP
    section(
        "internalTrafficPolicy Cluster: all endpoints that are ready",
        cluster_ip("web-1", "web-3"),
        row("client web-2", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
        row("node-a node-b outside stranger", CLUSTER_IP, by("web-1 web-3", seeing=NODE)),
    ),
    section(
        "internalTrafficPolicy Cluster: neither those that are not ready nor those that terminate",
        cluster_ip("web-1", unready("web-2"), terminating("web-3")),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("node-a outside", CLUSTER_IP, by("web-1", seeing=NODE)),
    ),
    section(
        "internalTrafficPolicy Cluster: without a ready one, those that serve while they terminate",
        cluster_ip(unready("web-1"), terminating("web-2"), terminating("web-3")),
        row("client", CLUSTER_IP, by("web-2 web-3", seeing=OWN)),
        row("node-a outside", CLUSTER_IP, by("web-2 web-3", seeing=NODE)),
    ),
    section(
        "internalTrafficPolicy Cluster: nobody serves",
        cluster_ip(unready("web-1"), terminating("web-2", serving=False)),
        row("client node-a node-b outside", CLUSTER_IP, REFUSED),
    ),
    section(
        "internalTrafficPolicy Cluster: no endpoints at all",
        cluster_ip(),
        row("client node-a node-b outside", CLUSTER_IP, REFUSED),
    ),
    section(
        "endpoints that people wrote, with addresses outside the cluster, work the same",
        cluster_ip("stranger"),
        row("client", CLUSTER_IP, by("stranger", seeing=OWN)),
        row("node-a outside", CLUSTER_IP, by("stranger", seeing=NODE)),
    ),
    section(
        "internalTrafficPolicy Local: the endpoints of this node",
        cluster_ip("web-1", "web-2", "web-3", internal_traffic_policy=LOCAL),
        row("client web-4", CLUSTER_IP, by("web-1 web-2", seeing=OWN)),
        row("node-a outside", CLUSTER_IP, by("web-1 web-2", seeing=NODE)),
    ),
    section(
        "internalTrafficPolicy Local: those of this node that terminate rather than others that are ready",
        cluster_ip(terminating("web-1"), "web-3", internal_traffic_policy=LOCAL),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
    ),
    section(
        "internalTrafficPolicy Local: none here, refused",
        cluster_ip(unready("web-1"), "web-3", internal_traffic_policy=LOCAL),
        row("client node-a outside", CLUSTER_IP, REFUSED),
    ),
    section(
        "internalTrafficPolicy Local says nothing about addresses for clients outside",
        load_balancer("web-1", "web-3", internal_traffic_policy=LOCAL),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("client outside", FROM_OUTSIDE, by("web-1 web-3", seeing=NODE)),
    ),
    # Who gets the traffic: from outside
    section(
        "externalTrafficPolicy Cluster: all endpoints, masqueraded",
        load_balancer("web-1", "web-3"),
        row("outside stranger node-b", FROM_OUTSIDE, by("web-1 web-3", seeing=NODE)),
        row("client web-1 web-4 node-a", FROM_OUTSIDE, by("web-1 web-3", seeing=NODE)),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
        row("node-a outside", CLUSTER_IP, by("web-1 web-3", seeing=NODE)),
    ),
    section(
        "externalTrafficPolicy Cluster: external IPs of a Service of type ClusterIP, too",
        cluster_ip("web-1", "web-3", external_ips=("198.18.255.3", "2001:db8:cb:1::fffd")),
        row("outside client node-a", EXTERNAL_IP, by("web-1 web-3", seeing=NODE)),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
    ),
    section(
        "externalTrafficPolicy Cluster: without a ready endpoint, those that serve while they terminate",
        load_balancer(unready("web-1"), terminating("web-2"), terminating("web-3")),
        row("outside client node-a", FROM_OUTSIDE, by("web-2 web-3", seeing=NODE)),
    ),
    section(
        "externalTrafficPolicy Cluster: nobody serves",
        load_balancer(unready("web-1")),
        row("outside client node-a node-b", EVERY_ADDRESS, REFUSED),
    ),
    section(
        "externalTrafficPolicy Local: clients outside get the endpoints of this node, which see their address",
        load_balancer("web-1", "web-2", "web-3", external_traffic_policy=LOCAL),
        row("outside stranger node-b", FROM_OUTSIDE, by("web-1 web-2", seeing=OWN)),
    ),
    section(
        "externalTrafficPolicy Local: pods and the node get all endpoints, as by the clusterIP",
        load_balancer("web-1", "web-2", "web-3", external_traffic_policy=LOCAL),
        row("client", SERVICE_ADDRESSES, by("web-1 web-2 web-3", seeing=OWN)),
        row("web-1", SERVICE_ADDRESSES, by("web-2 web-3", seeing=OWN) & by("web-1", seeing=NODE)),
        row("node-a", SERVICE_ADDRESSES, by("web-1 web-2 web-3", seeing=NODE)),
        row("outside", CLUSTER_IP, by("web-1 web-2 web-3", seeing=NODE)),
    ),
    section(
        "externalTrafficPolicy Local: pods and the node get all endpoints at the node's own node ports, too",
        load_balancer("web-1", "web-2", "web-3", external_traffic_policy=LOCAL),
        row("client", (NODE_PORT, GATEWAY_NODE_PORT), by("web-1 web-2 web-3", seeing=OWN)),
        row("web-1", NODE_PORT, by("web-2 web-3", seeing=OWN) & by("web-1", seeing=NODE)),
        row("node-a", (NODE_PORT, GATEWAY_NODE_PORT), by("web-1 web-2 web-3", seeing=NODE)),
    ),
    section(
        "externalTrafficPolicy Local: pods of other nodes are inside the cluster, too",
        load_balancer("web-1", external_traffic_policy=LOCAL),
        row("web-3", (*SERVICE_ADDRESSES, NODE_PORT), by("web-1", seeing=OWN)),
    ),
    section(
        "externalTrafficPolicy Local: none here but some elsewhere, dropped",
        load_balancer("web-3", external_traffic_policy=LOCAL),
        row("outside stranger node-b", (*FROM_OUTSIDE, GATEWAY_NODE_PORT), DROPPED),
        row("client", (*EVERY_ADDRESS, GATEWAY_NODE_PORT), by("web-3", seeing=OWN)),
        row("node-a", (*EVERY_ADDRESS, GATEWAY_NODE_PORT), by("web-3", seeing=NODE)),
    ),
    section(
        "both policies Local: each kind of client has its own endpoints, and inside they are all, but by the clusterIP",
        load_balancer(
            "web-1", "web-2", "web-3", external_traffic_policy=LOCAL, internal_traffic_policy=LOCAL
        ),
        row("outside stranger node-b", FROM_OUTSIDE, by("web-1 web-2", seeing=OWN)),
        row("client", FROM_OUTSIDE, by("web-1 web-2 web-3", seeing=OWN)),
        row("web-1", FROM_OUTSIDE, by("web-2 web-3", seeing=OWN) & by("web-1", seeing=NODE)),
        row("node-a", FROM_OUTSIDE, by("web-1 web-2 web-3", seeing=NODE)),
        row("client", CLUSTER_IP, by("web-1 web-2", seeing=OWN)),
        row("node-a outside", CLUSTER_IP, by("web-1 web-2", seeing=NODE)),
    ),
    section(
        "both policies Local: none here but some elsewhere",
        load_balancer("web-3", external_traffic_policy=LOCAL, internal_traffic_policy=LOCAL),
        row("outside stranger node-b", FROM_OUTSIDE, DROPPED),
        row("client", FROM_OUTSIDE, by("web-3", seeing=OWN)),
        row("node-a", FROM_OUTSIDE, by("web-3", seeing=NODE)),
        row("client node-a outside", CLUSTER_IP, REFUSED),
    ),
    section(
        "both policies Local: those of this node that terminate, for clients outside and at the clusterIP",
        load_balancer(
            terminating("web-1"), "web-3", external_traffic_policy=LOCAL, internal_traffic_policy=LOCAL
        ),
        row("outside", FROM_OUTSIDE, by("web-1", seeing=OWN)),
        row("client", FROM_OUTSIDE, by("web-3", seeing=OWN)),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
    ),
    section(
        "both policies Local: hints choose among all endpoints, and say nothing about those of this node",
        load_balancer(
            hinted("web-1", zones=("zone-b",)),
            hinted("web-3", zones=("zone-a",)),
            internal_traffic_policy=LOCAL,
            external_traffic_policy=LOCAL,
        ),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("outside", FROM_OUTSIDE, by("web-1", seeing=OWN)),
        row("client", FROM_OUTSIDE, by("web-3", seeing=OWN)),
    ),
    section(
        "both policies Local: none anywhere, refused",
        load_balancer(unready("web-1"), external_traffic_policy=LOCAL, internal_traffic_policy=LOCAL),
        row("outside node-b client node-a", EVERY_ADDRESS, REFUSED),
    ),
    section(
        "both policies Local: the ranges hold for everybody",
        load_balancer(
            "web-1",
            "web-3",
            source_ranges=OUTSIDE_ONLY,
            external_traffic_policy=LOCAL,
            internal_traffic_policy=LOCAL,
        ),
        row("outside", LOAD_BALANCER_IP, by("web-1", seeing=OWN)),
        row("stranger client node-a", LOAD_BALANCER_IP, DROPPED),
        row("stranger", EXTERNAL_IP, by("web-1", seeing=OWN)),
    ),
    section(
        "externalTrafficPolicy Local: none anywhere, refused",
        load_balancer(unready("web-1"), unready("web-3"), external_traffic_policy=LOCAL),
        row("outside node-b client node-a", EVERY_ADDRESS, REFUSED),
    ),
    section(
        "externalTrafficPolicy Local: those of this node that terminate rather than others that are ready",
        load_balancer(terminating("web-1"), "web-3", external_traffic_policy=LOCAL),
        row("outside", FROM_OUTSIDE, by("web-1", seeing=OWN)),
        row("client", EVERY_ADDRESS, by("web-3", seeing=OWN)),
        row("node-a", EVERY_ADDRESS, by("web-3", seeing=NODE)),
    ),
    section(
        "externalTrafficPolicy Local: what serves elsewhere while it terminates is some elsewhere",
        load_balancer(terminating("web-3"), external_traffic_policy=LOCAL),
        row("outside", FROM_OUTSIDE, DROPPED),
        row("client", SERVICE_ADDRESSES, by("web-3", seeing=OWN)),
    ),
    section(
        "externalTrafficPolicy Local: an endpoint of no node is none of this node's",
        load_balancer("stranger", external_traffic_policy=LOCAL),
        row("outside", FROM_OUTSIDE, DROPPED),
        row("client", SERVICE_ADDRESSES, by("stranger", seeing=OWN)),
    ),
    section(
        "externalTrafficPolicy Local: of a Service of type NodePort",
        node_port("web-1", "web-3", external_traffic_policy=LOCAL),
        row("outside node-b", NODE_PORT, by("web-1", seeing=OWN)),
        row("client", (CLUSTER_IP, NODE_PORT), by("web-1 web-3", seeing=OWN)),
        row("node-a", NODE_PORT, by("web-1 web-3", seeing=NODE)),
    ),
    section(
        "externalTrafficPolicy Local: of external IPs of a Service of type ClusterIP",
        cluster_ip(
            "web-1",
            "web-3",
            external_ips=("198.18.255.4", "2001:db8:cb:1::fffc"),
            external_traffic_policy=LOCAL,
        ),
        row("outside", EXTERNAL_IP, by("web-1", seeing=OWN)),
        row("client", EXTERNAL_IP, by("web-1 web-3", seeing=OWN)),
    ),
    # Topology
    section(
        "node hints: every endpoint has some, and one is for this node",
        load_balancer(hinted("web-1", nodes=("node-a",)), hinted("web-3", nodes=("node-b",))),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("outside", EVERY_ADDRESS, by("web-1", seeing=NODE)),
    ),
    section(
        "node hints: none is for this node",
        cluster_ip(hinted("web-1", nodes=("node-b",)), hinted("web-3", nodes=("node-b",))),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
    ),
    section(
        "node hints: a ready endpoint has none",
        cluster_ip(hinted("web-1", nodes=("node-a",)), "web-3"),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
    ),
    section(
        "hints: an endpoint that is not ready needs none",
        cluster_ip(hinted("web-1", zones=("zone-a",)), hinted("web-3", zones=("zone-b",)), unready("web-2")),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
    ),
    section(
        "zone hints: every endpoint has some, and one is for the node's zone",
        load_balancer(
            hinted("web-1", zones=("zone-b",)),
            hinted("web-2", zones=("zone-b", "zone-a")),
            hinted("web-3", zones=("zone-a",)),
        ),
        row("client", CLUSTER_IP, by("web-2 web-3", seeing=OWN)),
        row("outside client", FROM_OUTSIDE, by("web-2 web-3", seeing=NODE)),
    ),
    section(
        "zone hints: none is for the node's zone",
        cluster_ip(hinted("web-1", zones=("zone-b",)), hinted("web-3", zones=("zone-c",))),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
    ),
    section(
        "zone hints: a ready endpoint has none",
        cluster_ip(hinted("web-1", zones=("zone-a",)), "web-3"),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
    ),
    section(
        "zone hints: the node has no zone",
        cluster_ip(hinted("web-1", zones=("zone-a",)), hinted("web-3", zones=("zone-b",))),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
        environment=WITHOUT_ZONE,
    ),
    section(
        "node hints go before zone hints",
        cluster_ip(
            hinted("web-1", zones=("zone-b",), nodes=("node-a",)),
            hinted("web-3", zones=("zone-a",), nodes=("node-b",)),
        ),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
    ),
    section(
        "zone hints count if no node hint is for this node",
        cluster_ip(
            hinted("web-1", zones=("zone-b",), nodes=("node-b",)),
            hinted("web-3", zones=("zone-a",), nodes=("node-b",)),
        ),
        row("client", CLUSTER_IP, by("web-3", seeing=OWN)),
    ),
    section(
        "hints say nothing about endpoints that serve while they terminate",
        cluster_ip(
            terminating("web-1", zones=("zone-b",)),
            terminating("web-3", zones=("zone-a",)),
        ),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
    ),
    # Masquerading
    section(
        "a pod that reaches itself is masqueraded, and another that it reaches sees its address",
        cluster_ip("web-1", "web-2"),
        row("web-1", CLUSTER_IP, by("web-2", seeing=OWN) & by("web-1", seeing=NODE)),
        row("web-2", CLUSTER_IP, by("web-1", seeing=OWN) & by("web-2", seeing=NODE)),
    ),
    section(
        "a pod that reaches itself is masqueraded, at every address",
        load_balancer("web-1"),
        row("web-1", EVERY_ADDRESS, by("web-1", seeing=NODE)),
    ),
    section(
        "a pod that reaches itself is masqueraded, under externalTrafficPolicy Local too",
        load_balancer("web-1", external_traffic_policy=LOCAL),
        row("web-1", EVERY_ADDRESS, by("web-1", seeing=NODE)),
    ),
    section(
        "masqueradeAll: all traffic to clusterIPs",
        load_balancer("web-1", "web-3"),
        row("client node-a outside web-4", CLUSTER_IP, by("web-1 web-3", seeing=NODE)),
        row("client outside", FROM_OUTSIDE, by("web-1 web-3", seeing=NODE)),
        environment=MASQUERADE_ALL,
    ),
    section(
        "masqueradeAll is about clusterIPs: externalTrafficPolicy Local keeps the client's address",
        load_balancer("web-1", "web-3", external_traffic_policy=LOCAL),
        row("outside", FROM_OUTSIDE, by("web-1", seeing=OWN)),
        row("client", FROM_OUTSIDE, by("web-1 web-3", seeing=OWN)),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=NODE)),
        row("node-a", FROM_OUTSIDE, by("web-1 web-3", seeing=NODE)),
        environment=MASQUERADE_ALL,
    ),
    section(
        "without a clusterCIDR where traffic to a clusterIP comes from does not matter",
        load_balancer("web-1"),
        row("client outside", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("node-a web-1", CLUSTER_IP, by("web-1", seeing=NODE)),
        row("client outside", FROM_OUTSIDE, by("web-1", seeing=NODE)),
        environment=NO_CLUSTER_CIDR,
    ),
    section(
        "without a clusterCIDR externalTrafficPolicy Local keeps addresses, and the node gets all endpoints",
        load_balancer("web-1", "web-3", external_traffic_policy=LOCAL),
        row("outside client", FROM_OUTSIDE, by("web-1", seeing=OWN)),
        row("node-a", FROM_OUTSIDE, by("web-1 web-3", seeing=NODE)),
        environment=NO_CLUSTER_CIDR,
    ),
    section(
        "without a clusterCIDR and with both policies Local, too",
        load_balancer("web-1", "web-3", external_traffic_policy=LOCAL, internal_traffic_policy=LOCAL),
        row("outside client", FROM_OUTSIDE, by("web-1", seeing=OWN)),
        row("node-a", FROM_OUTSIDE, by("web-1 web-3", seeing=NODE)),
        environment=NO_CLUSTER_CIDR,
    ),
    section(
        "without a clusterCIDR pods count as clients outside where only other nodes serve",
        load_balancer("web-3", external_traffic_policy=LOCAL),
        row("outside client", FROM_OUTSIDE, DROPPED),
        row("node-a", FROM_OUTSIDE, by("web-3", seeing=NODE)),
        environment=NO_CLUSTER_CIDR,
    ),
    section(
        "detect-local mode NodeCIDR: what is not of the node's own pods is masqueraded",
        cluster_ip("web-1"),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("web-3 outside node-a", CLUSTER_IP, by("web-1", seeing=NODE)),
        environment=NODE_CIDR,
    ),
    section(
        "detect-local mode BridgeInterface: what does not come by that interface is masqueraded",
        cluster_ip("web-1"),
        row("client", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("web-2 web-3 outside node-a", CLUSTER_IP, by("web-1", seeing=NODE)),
        environment=BRIDGE,
    ),
    section(
        "detect-local mode InterfaceNamePrefix: what does not come by such an interface is masqueraded",
        cluster_ip("web-1"),
        row("web-2", CLUSTER_IP, by("web-1", seeing=OWN)),
        row("client web-3 outside node-a", CLUSTER_IP, by("web-1", seeing=NODE)),
        environment=INTERFACE_PREFIX,
    ),
    section(
        "detect-local mode InterfaceNamePrefix: what comes by such an interface is inside the cluster",
        load_balancer("web-1", "web-3", external_traffic_policy=LOCAL),
        row("web-2", FROM_OUTSIDE, by("web-1 web-3", seeing=OWN)),
        row("client outside", FROM_OUTSIDE, by("web-1", seeing=OWN)),
        row("node-a", FROM_OUTSIDE, by("web-1 web-3", seeing=NODE)),
        environment=INTERFACE_PREFIX,
    ),
    section(
        "detect-local mode InterfaceNamePrefix: what comes by another interface is outside, with both policies Local",
        load_balancer("web-1", "web-3", external_traffic_policy=LOCAL, internal_traffic_policy=LOCAL),
        row("web-2", FROM_OUTSIDE, by("web-1 web-3", seeing=OWN)),
        row("client outside", FROM_OUTSIDE, by("web-1", seeing=OWN)),
        row("node-a", FROM_OUTSIDE, by("web-1 web-3", seeing=NODE)),
        environment=INTERFACE_PREFIX,
    ),
    section(
        "detect-local mode InterfaceNamePrefix: only what comes by such an interface is served by other nodes",
        load_balancer("web-3", external_traffic_policy=LOCAL),
        row("web-2", FROM_OUTSIDE, by("web-3", seeing=OWN)),
        row("client outside", FROM_OUTSIDE, DROPPED),
        environment=INTERFACE_PREFIX,
    ),
    # Firewall
    section(
        "loadBalancerSourceRanges: at the load balancer's IP other sources are dropped",
        load_balancer("web-1", "web-3", source_ranges=OUTSIDE_ONLY),
        row("outside", LOAD_BALANCER_IP, by("web-1 web-3", seeing=NODE)),
        row("stranger client web-1 node-a node-b", LOAD_BALANCER_IP, DROPPED),
        row("stranger", (CLUSTER_IP, EXTERNAL_IP, NODE_PORT), by("web-1 web-3", seeing=NODE)),
        row("client", CLUSTER_IP, by("web-1 web-3", seeing=OWN)),
    ),
    section(
        "loadBalancerSourceRanges under externalTrafficPolicy Local",
        load_balancer("web-1", "web-3", source_ranges=OUTSIDE_ONLY, external_traffic_policy=LOCAL),
        row("outside", LOAD_BALANCER_IP, by("web-1", seeing=OWN)),
        row("stranger client node-a", LOAD_BALANCER_IP, DROPPED),
        row("stranger", (EXTERNAL_IP, NODE_PORT), by("web-1", seeing=OWN)),
        row("client", (CLUSTER_IP, EXTERNAL_IP), by("web-1 web-3", seeing=OWN)),
    ),
    section(
        "loadBalancerSourceRanges with the pods' networks",
        load_balancer("web-1", "web-3", source_ranges=PODS_ONLY),
        row("client web-4", LOAD_BALANCER_IP, by("web-1 web-3", seeing=NODE)),
        row("outside node-b", LOAD_BALANCER_IP, DROPPED),
    ),
    section(
        "loadBalancerSourceRanges with the pods' networks under externalTrafficPolicy Local",
        load_balancer("web-1", "web-3", source_ranges=PODS_ONLY, external_traffic_policy=LOCAL),
        row("client", LOAD_BALANCER_IP, by("web-1 web-3", seeing=OWN)),
        row("outside", LOAD_BALANCER_IP, DROPPED),
    ),
    section(
        "loadBalancerSourceRanges 0.0.0.0/0 and ::/0",
        load_balancer("web-1", source_ranges=ANYBODY),
        row("outside stranger client node-a node-b", LOAD_BALANCER_IP, by("web-1", seeing=NODE)),
    ),
    section(
        "loadBalancerSourceRanges of one family let nobody of the other in",
        load_balancer("web-1", source_ranges=("192.0.2.0/26",)),
        row("outside", LOAD_BALANCER_IP, by("web-1", seeing=NODE)).over(IPV4),
        row("stranger client node-a", LOAD_BALANCER_IP, DROPPED).over(IPV4),
        row("outside stranger client node-a", LOAD_BALANCER_IP, DROPPED).over(IPV6),
    ),
    section(
        "loadBalancerSourceRanges that overlap",
        load_balancer(
            "web-1", source_ranges=("192.0.2.0/24", "192.0.2.0/26", "2001:db8:1::/64", "2001:db8::/47")
        ),
        row("outside", LOAD_BALANCER_IP, by("web-1", seeing=NODE)),
        row("client", LOAD_BALANCER_IP, DROPPED),
    ),
    section(
        "loadBalancerSourceRanges: the node may use the load balancer's IP if an address of its own is in a range",
        load_balancer("web-1", "web-3", source_ranges=NODE_ONLY),
        row("node-a", LOAD_BALANCER_IP, by("web-1 web-3", seeing=NODE)),
        row("outside client node-b", LOAD_BALANCER_IP, DROPPED),
    ),
    section(
        "loadBalancerSourceRanges: the node under externalTrafficPolicy Local",
        load_balancer("web-1", "web-3", source_ranges=NODE_ONLY, external_traffic_policy=LOCAL),
        row("node-a", LOAD_BALANCER_IP, by("web-1 web-3", seeing=NODE)),
        row("outside client node-b", LOAD_BALANCER_IP, DROPPED),
    ),
    section(
        "loadBalancerSourceRanges without endpoints",
        load_balancer(source_ranges=OUTSIDE_ONLY),
        row("outside", LOAD_BALANCER_IP, REFUSED),
        row("stranger client", LOAD_BALANCER_IP, DROPPED),
    ),
    section(
        "a service address answers on its service ports only",
        load_balancer("web-1"),
        row("client node-a outside", SERVICE_ADDRESSES, REFUSED).on(dict.fromkeys(Protocol, 7777)),
    ),
    section(
        "the node's own ports are not reachable through service addresses",
        load_balancer("web-1"),
        row("client node-a outside", SERVICE_ADDRESSES, REFUSED).on(SERVER_PORTS),
    ),
    section(
        "the node's own ports are not reachable through service addresses, under externalTrafficPolicy Local too",
        load_balancer("web-1", external_traffic_policy=LOCAL),
        row("client node-a outside", SERVICE_ADDRESSES, REFUSED).on(SERVER_PORTS),
    ),
    section(
        "the node's own addresses are unharmed",
        load_balancer("web-1"),
        row("node-a outside node-b", NODE_ADDRESS, NODE_ITSELF).on(SERVER_PORTS),
        # By TCP: a server of datagrams that listens on all addresses answers pods from their gateway's.
        row("client", NODE_ADDRESS, NODE_ITSELF).on({Protocol.TCP: SERVER_PORTS[Protocol.TCP]}),
        row("client node-a outside", NODE_ADDRESS, NODE_ITSELF),
    ),
    section(
        "a service address answers pings",
        load_balancer("web-1"),
        row("client node-a outside", (*SERVICE_ADDRESSES, NODE_ADDRESS), ECHOED),
    ),
    section(
        "a service address answers pings, without endpoints too",
        load_balancer("web-3", external_traffic_policy=LOCAL),
        row("client node-a outside", SERVICE_ADDRESSES, ECHOED),
    ),
)

CASES = cases(TABLE)
