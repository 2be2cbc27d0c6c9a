"""The connections that the network policies allow, evaluated as a network plugin does."""

from typing import Any

import pytest

from tests.infra.kubernetes.manifests import Manifest, component_of, of_kind, source_manifests, workloads

Labels = dict[str, str]
PODS = {component_of(workload): dict(workload["metadata"]["labels"]) for workload in workloads(source_manifests())}
API, REDIS = 8000, 6379


def selects(selector: dict[str, Any], labels: Labels) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", []))


def policies(direction: str, labels: Labels) -> list[Manifest]:
    """The policies for pods with these labels in this direction."""
    found = of_kind(source_manifests(), "NetworkPolicy")
    specs = [policy["spec"] for policy in found]
    return [spec for spec in specs if direction in spec["policyTypes"] and selects(spec["podSelector"], labels)]


def is_peer(peer: dict[str, Any], labels: Labels, namespace: str) -> bool:
    """Whether a peer matches. Without a namespaceSelector it matches only pods of the policy's namespace."""
    if "ipBlock" in peer:
        return namespace == "internet"
    namespace_labels = {"kubernetes.io/metadata.name": namespace}
    in_namespace = (
        selects(peer["namespaceSelector"], namespace_labels) if "namespaceSelector" in peer else namespace == "rerankq"
    )
    return in_namespace and selects(peer.get("podSelector", {}), labels)


def allowed(direction: str, labels: Labels, other: Labels, namespace: str, port: int) -> bool:
    side = "from" if direction == "Ingress" else "to"
    for spec in policies(direction, labels):
        for rule in spec.get(direction.lower(), []):
            reaches = any(is_peer(peer, other, namespace) for peer in rule[side])
            if reaches and port in [entry["port"] for entry in rule["ports"]]:
                return True
    return False


def test_all_traffic_is_denied_by_default() -> None:
    for labels in PODS.values():
        assert policies("Ingress", labels)
        assert policies("Egress", labels)
    other = {"app.kubernetes.io/name": "something-else"}
    assert all("ingress" not in spec for spec in policies("Ingress", other))


def test_pods_may_connect_only_to_redis() -> None:
    connections = {
        (one, other, port)
        for one in PODS
        for other in PODS
        for port in (API, REDIS)
        if allowed("Egress", PODS[one], PODS[other], "rerankq", port)
        and allowed("Ingress", PODS[other], PODS[one], "rerankq", port)
    }
    assert connections == {("api", "redis", REDIS), ("worker", "redis", REDIS), ("admin", "redis", REDIS)}


@pytest.mark.parametrize(
    ("namespace", "reachable"),
    [
        ("ingress-nginx", {("api", API)}),
        ("monitoring", {("api", API)}),
        # KEDA reads the outstanding shards from Redis, and the desired size from the API.
        ("keda", {("api", API), ("redis", REDIS)}),
        ("default", set()),
        ("kube-system", set()),
    ],
)
def test_ingress_from_other_namespaces(namespace: str, reachable: set[tuple[str, int]]) -> None:
    assert {
        (component, port)
        for component, labels in PODS.items()
        for port in (API, REDIS)
        if allowed("Ingress", labels, {}, namespace, port)
    } == reachable


def test_only_workers_reach_the_internet_and_only_over_https() -> None:
    ports = (53, 80, 443, API, REDIS)
    assert {
        (component, port)
        for component, labels in PODS.items()
        for port in ports
        if allowed("Egress", labels, {}, "internet", port)
    } == {("worker", 443)}


def test_internet_excludes_private_addresses() -> None:
    """Workers reach neither the cluster's addresses nor a cloud's metadata service, which serves credentials."""
    rules = [rule for spec in policies("Egress", PODS["worker"]) for rule in spec.get("egress", [])]
    blocks = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]
    (block,) = blocks
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(block["except"])


def test_all_pods_can_resolve_names() -> None:
    dns = {"k8s-app": "kube-dns"}
    assert all(allowed("Egress", labels, dns, "kube-system", 53) for labels in PODS.values())
