"""Every metric that the agent has: its name, labels and meaning, and what to look at when it moves.

docs/metrics.md is made of this table, and `observe.metrics` makes the metrics of it. kube-proxy's names are used where
the meaning is kube-proxy's (pkg/proxy/metrics/metrics.go of Kubernetes), without its label `ip_family`: the agent
handles both families at once.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from ipvsproxy.kernel.timed import TIMED
from ipvsproxy.plan.host_firewall import HOOKS
from ipvsproxy.plan.view import DrainEnd


class Kind(enum.StrEnum):
    """The type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Label(NamedTuple):
    """A label: the values that it can have, or in words what they are."""

    name: str
    values: tuple[str, ...] = ()
    words: str = ""


class Metric(NamedTuple):
    """One metric. `meaning` and `advice` are sentences; the buckets of a histogram are upper bounds in seconds."""

    name: str
    kind: Kind
    meaning: str
    advice: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()


class Group(NamedTuple):
    """Metrics that are looked at together."""

    title: str
    metrics: tuple[Metric, ...]


# kube-proxy's bounds, from 1 ms to 16 s, and smaller ones: a change of one Service takes less than 1 ms.
_SYNC_BUCKETS = tuple(0.000125 * 2**power for power in range(18))
# kube-proxy's bounds, and smaller ones.
_PROGRAMMING_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *map(float, range(1, 60)),
    *map(float, range(60, 120, 5)),
    *map(float, range(120, 301, 30)),
)
_CALL_BUCKETS = tuple(0.00001 * 4**power for power in range(11))

OPERATIONS = (
    "virtual_servers_created",
    "virtual_servers_changed",
    "virtual_servers_deleted",
    "real_servers_added",
    "real_servers_changed",
    "real_servers_deleted",
    "addresses_added",
    "addresses_removed",
    "set_elements_added",
    "set_elements_removed",
    "firewall_tables_installed",
    "flows_moved_on",
)
_OPERATION = Label("kind", OPERATIONS)
_RESOURCE = Label("resource", ("services", "endpointslices", "nodes", "manifests"))
_CODE = Label("code", ("200", "503"))
_SERVICE_LABELS = (
    Label("namespace", words='the Service\'s namespace; "" for all Services without series of their own'),
    Label("service", words="the Service's name; likewise"),
    Label("port", words="the name of the Service's port, its number if it has none; likewise"),
)
_DIRECTION = Label("direction", ("in", "out"))

GROUPS = (
    Group(
        "Syncs",
        (
            Metric(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                Kind.HISTOGRAM,
                "How long the agent was busy with a round: changes of Services brought to the kernel, "
                "or a comparison of everything.",
                "The two histograms below say which of both it was; `ipvsproxy_kernel_call_duration_seconds` "
                "says whether the kernel was slow.",
                buckets=_SYNC_BUCKETS,
            ),
            Metric(
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                Kind.HISTOGRAM,
                "How long the agent was busy with changes of Services.",
                "It goes with the number of endpoints and addresses of the Services that changed, "
                "not with the size of the cluster. The log's `synced` lines have the counts.",
                buckets=_SYNC_BUCKETS,
            ),
            Metric(
                "kubeproxy_sync_full_proxy_rules_duration_seconds",
                Kind.HISTOGRAM,
                "How long the agent was busy with the first sync, and with each comparison of everything "
                "with the kernel, every --sync-period.",
                "It grows with the number of virtual servers and real servers. It is no time that changes wait: "
                "they go between its slices of a few milliseconds.",
                buckets=_SYNC_BUCKETS,
            ),
            Metric(
                "kubeproxy_network_programming_duration_seconds",
                Kind.HISTOGRAM,
                "From a change of a pod or Service, by the annotation "
                "`endpoints.kubernetes.io/last-change-trigger-time` of the EndpointSlice, to the kernel. "
                "What the first list brought does not count.",
                "Includes the control plane, and clocks that differ. If the syncs are short, look at the "
                "API server, at `ipvsproxy_watch_seconds_since_contact` and at --min-sync-period.",
                buckets=_PROGRAMMING_BUCKETS,
            ),
            Metric(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                Kind.GAUGE,
                "When a round ended last, in seconds since the epoch.",
                "Older than twice --sync-period: the agent hangs, or comparisons fail; "
                "look for `resync failed` in the log.",
            ),
            Metric(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                Kind.GAUGE,
                "When a change of a Service or its endpoints came last, in seconds since the epoch.",
                "Newer than the last round for more than --min-sync-period: the agent is behind.",
            ),
            Metric(
                "kubeproxy_sync_proxy_rules_service_changes_total",
                Kind.COUNTER,
                "Changes of Services that were received.",
                "A high rate keeps the agent busy: some controller rewrites Services again and again.",
            ),
            Metric(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                Kind.GAUGE,
                "Changes of Services that were received and wait for the next round.",
                "Above zero for long: as with `ipvsproxy_dirty_services`.",
            ),
            Metric(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                Kind.COUNTER,
                "Changes of EndpointSlices that were received.",
                "A high rate keeps the agent busy: pods whose readiness flaps are the usual cause.",
            ),
            Metric(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                Kind.GAUGE,
                "Changes of EndpointSlices that were received and wait for the next round.",
                "Above zero for long: as with `ipvsproxy_dirty_services`.",
            ),
            Metric(
                "ipvsproxy_dirty_services",
                Kind.GAUGE,
                "Services with changes that wait for the next round.",
                "Above zero for longer than --min-sync-period: the agent is behind, or hangs.",
            ),
            Metric(
                "ipvsproxy_seconds_since_resync",
                Kind.GAUGE,
                "How long ago everything was compared with the kernel; -1 before the first time.",
                "More than twice --sync-period: the node turns unhealthy. Look for `resync failed` in the log.",
            ),
        ),
    ),
    Group(
        "The kernel",
        (
            Metric(
                "ipvsproxy_operations_total",
                Kind.COUNTER,
                "Changes of the kernel, by kind and by whether the kernel carried them out.",
                '`result="refused"`: `ipvsproxy dump` has the kernel\'s words for each, and the next try.',
                (_OPERATION, Label("result", ("done", "refused"))),
            ),
            Metric(
                "ipvsproxy_resync_repairs_total",
                Kind.COUNTER,
                "What others changed and the agent put back, by kind of operation: service addresses at once, "
                "all else at the next comparison of everything.",
                "Somebody else changes what is the agent's: another proxy, a script with ipvsadm or nft. "
                "Run `ipvsproxy check`; the log has `repaired what others changed`.",
                (_OPERATION,),
            ),
            Metric(
                "ipvsproxy_waiting_failures",
                Kind.GAUGE,
                "Items that are not as they should be, and wait for their next try.",
                "`ipvsproxy dump` shows each with its reason.",
                (Label("item", ("virtual server", "address", "set element")),),
            ),
            Metric(
                "ipvsproxy_host_firewall_drops",
                Kind.GAUGE,
                "Chains of the host's own firewall that drop traffic of Services, by the hook that they are at.",
                "`ipvsproxy check` names each with the rule that drops and what to do.",
                (Label("hook", HOOKS),),
            ),
            Metric(
                "ipvsproxy_host_firewall_chains",
                Kind.GAUGE,
                "The agent's own chains in tables of the host's firewall that drop what they forward: those that "
                "accept answers of endpoints there (`in_place`), and those that could not be made or removed "
                "(`failed`).",
                "`ipvsproxy dump` names the chains, and why one could not be made.",
                (Label("state", ("in_place", "failed")),),
            ),
            Metric(
                "ipvsproxy_virtual_servers",
                Kind.GAUGE,
                "Virtual servers in the kernel that are the agent's.",
                "A drop to near zero: Services are gone from the API, or their source answers wrongly.",
            ),
            Metric(
                "ipvsproxy_real_servers",
                Kind.GAUGE,
                "Real servers of these virtual servers, by what they do.",
                "Many that drain for long hold connections to pods that are gone; `ipvsproxy top` shows them.",
                (Label("state", ("serving", "draining")),),
            ),
            Metric(
                "ipvsproxy_drains_ended_total",
                Kind.COUNTER,
                "Drains that ended, by how: without a connection left, cut off by the drain timeout, "
                "with the endpoint's return, or with its virtual server.",
                '`how="timed out"`: clients keep connections for longer than the drain timeout, '
                "and lost them. Set ipvsproxy.io/drain-timeout, or let the program end its connections.",
                (Label("how", tuple(DrainEnd)),),
            ),
            Metric(
                "ipvsproxy_kernel_setting_wrong",
                Kind.GAUGE,
                "1 for each kernel setting that is not as it should be and that the agent can't make; "
                "without any there is no series.",
                "The log has `kernel setting not made` with the reason and what it means. `ipvsproxy check` has the "
                "command that sets it. What the agent can make, it makes again at each resync.",
                (Label("setting", words="the setting's name, as for sysctl"),),
            ),
            Metric(
                "ipvsproxy_conntrack_entries",
                Kind.GAUGE,
                "Connections that the node tracks, those of others than Services among them.",
                "Near the limit: the node drops new connections as soon as it is reached.",
            ),
            Metric(
                "ipvsproxy_conntrack_limit",
                Kind.GAUGE,
                "How many connections the node may track; 0 for no limit.",
                "Raise it with --conntrack-max-per-core or --conntrack-min.",
            ),
            Metric(
                "ipvsproxy_kernel_call_duration_seconds",
                Kind.HISTOGRAM,
                "How long calls to the kernel took: netlink for IPVS, addresses and connection tracking, "
                "the program nft for nftables. One call may hold many operations.",
                "Slow nftables changes: large sets of other tables, or a busy node. "
                "Slow IPVS changes: many real servers were deleted within the last two minutes.",
                (Label("adapter", tuple(TIMED)), Label("access", ("read", "change"))),
                _CALL_BUCKETS,
            ),
        ),
    ),
    Group(
        "Services",
        (
            Metric(
                "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                Kind.GAUGE,
                "Services whose traffic policy is Local and whose endpoints are all on other nodes.",
                "Clients of these get no answer from this node. Expected where a load balancer asks the "
                "health check node port; else see `ipvsproxy dump --service NAMESPACE/NAME`.",
                (Label("traffic_policy", ("internal", "external")),),
            ),
            Metric(
                "ipvsproxy_refused_parts",
                Kind.GAUGE,
                "Parts of objects that are not programmed: what is said of them can't be used "
                "(`unusable`), or what they ask for can't be had (`unavailable`): an address or port that is "
                "somebody else's, reserved or not allowed, a scheduler that the kernel has not.",
                "`ipvsproxy dump` has the reason of each, and there is an Event on the object.",
                (
                    Label("object", ("Service", "EndpointSlice", "Endpoints", "Node")),
                    Label("reason", ("unusable", "unavailable")),
                ),
            ),
        ),
    ),
    Group(
        "Sources",
        (
            Metric(
                "ipvsproxy_watch_connected",
                Kind.GAUGE,
                "1 while what is watched is in reach, else 0.",
                "0: the agent goes on with what it knows. Look for `watch interrupted` in the log, "
                "and run `ipvsproxy check`.",
                (_RESOURCE,),
            ),
            Metric(
                "ipvsproxy_watch_seconds_since_contact",
                Kind.GAUGE,
                "How long nothing came from the API server, not even a bookmark, which come every minute or so. "
                "Not for manifests.",
                "Minutes: a dead connection; after 330 s the agent gives it up by itself.",
                (_RESOURCE,),
            ),
            Metric(
                "ipvsproxy_watch_connections_total",
                Kind.COUNTER,
                "Lists and watches that were answered.",
                "A watch lasts 2.5 to 5 minutes. More than one a minute: they break off.",
                (_RESOURCE,),
            ),
            Metric(
                "ipvsproxy_watch_failures_total",
                Kind.COUNTER,
                "Lists and watches that failed or broke off.",
                "The log has the reason.",
                (_RESOURCE,),
            ),
        ),
    ),
    Group(
        "Health and build",
        (
            Metric(
                "kubeproxy_proxy_healthz_total",
                Kind.COUNTER,
                "Answers to /healthz.",
                "503: the agent is unhealthy, the node is about to go, or the API server has no such Node.",
                (_CODE,),
            ),
            Metric(
                "kubeproxy_proxy_livez_total",
                Kind.COUNTER,
                "Answers to /livez.",
                "503: no comparison with the kernel has succeeded in time.",
                (_CODE,),
            ),
            Metric(
                "ipvsproxy_node_unknown",
                Kind.GAUGE,
                "1 while the API server has no Node of the agent's name, else 0. Always 0 with --manifests.",
                "1: the agent takes no endpoint for one of its own node and /healthz answers 503. Give the name of "
                "the Node with --hostname-override, or see why the node is not registered.",
            ),
            Metric(
                "ipvsproxy_build_info",
                Kind.GAUGE,
                "Always 1; its labels say what runs.",
                "More than one version in a cluster: a rollout is under way, or stuck.",
                (Label("version", words="of ipvsproxy"), Label("python", words="of Python")),
            ),
        ),
    ),
    Group(
        "Traffic by Service, with --service-traffic-metrics",
        (
            Metric(
                "ipvsproxy_service_connections_total",
                Kind.COUNTER,
                "Connections that IPVS has handed to endpoints, of all virtual servers of a Service's port.",
                "The kernel counts; it brings its counters up to date every 2 s, and never while "
                "net.ipv4.vs.run_estimation is 0.",
                _SERVICE_LABELS,
            ),
            Metric(
                "ipvsproxy_service_packets_total",
                Kind.COUNTER,
                "Packets, `in` from clients and `out` to them.",
                "As above.",
                (*_SERVICE_LABELS, _DIRECTION),
            ),
            Metric(
                "ipvsproxy_service_bytes_total",
                Kind.COUNTER,
                "Bytes of these packets, with their IP headers.",
                "As above.",
                (*_SERVICE_LABELS, _DIRECTION),
            ),
        ),
    ),
)
METRICS = {metric.name: metric for group in GROUPS for metric in group.metrics}
