"""Who may talk to whom, worked out from the policies as a network plugin does it."""

from typing import Any

import pytest

from tests.infra.kubernetes.manifests import Manifest, component_of, of_kind, unbuilt, workloads

Labels = dict[str, str]
INSIDE = {component_of(workload): dict(workload["metadata"]["labels"]) for workload in workloads(unbuilt())}
API, REDIS = 8000, 6379


def selects(selector: dict[str, Any], labels: Labels) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", []))


def policies(direction: str, labels: Labels) -> list[Manifest]:
    """Those that say something about such a pod's traffic in that direction."""
    found = of_kind(unbuilt(), "NetworkPolicy")
    specs = [policy["spec"] for policy in found]
    return [spec for spec in specs if direction in spec["policyTypes"] and selects(spec["podSelector"], labels)]


def is_peer(peer: dict[str, Any], labels: Labels, namespace: str) -> bool:
    """A peer without a namespaceSelector is one of this namespace."""
    if "ipBlock" in peer:
        return namespace == "internet"
    there = {"kubernetes.io/metadata.name": namespace}
    in_namespace = selects(peer["namespaceSelector"], there) if "namespaceSelector" in peer else namespace == "rerankq"
    return in_namespace and selects(peer.get("podSelector", {}), labels)


def allowed(direction: str, labels: Labels, other: Labels, namespace: str, port: int) -> bool:
    side = "from" if direction == "Ingress" else "to"
    for spec in policies(direction, labels):
        for rule in spec.get(direction.lower(), []):
            reaches = any(is_peer(peer, other, namespace) for peer in rule[side])
            if reaches and port in [entry["port"] for entry in rule["ports"]]:
                return True
    return False


def test_everything_is_forbidden_first() -> None:
    for labels in INSIDE.values():
        assert policies("Ingress", labels)
        assert policies("Egress", labels)
    stranger = {"app.kubernetes.io/name": "something-else"}
    assert all("ingress" not in spec for spec in policies("Ingress", stranger))


def test_inside_only_redis_is_talked_to_by_those_who_work_with_it() -> None:
    open_ways = {
        (one, other, port)
        for one in INSIDE
        for other in INSIDE
        for port in (API, REDIS)
        if allowed("Egress", INSIDE[one], INSIDE[other], "rerankq", port)
        and allowed("Ingress", INSIDE[other], INSIDE[one], "rerankq", port)
    }
    assert open_ways == {("api", "redis", REDIS), ("worker", "redis", REDIS), ("admin", "redis", REDIS)}


@pytest.mark.parametrize(
    ("namespace", "reached"),
    [
        ("ingress-nginx", {("api", API)}),
        ("monitoring", {("api", API)}),
        # It asks both: Redis whether to wake a pool, the API how large it should be.
        ("keda", {("api", API), ("redis", REDIS)}),
        ("default", set()),
        ("kube-system", set()),
    ],
)
def test_what_comes_in_from_outside(namespace: str, reached: set[tuple[str, int]]) -> None:
    assert {
        (component, port)
        for component, labels in INSIDE.items()
        for port in (API, REDIS)
        if allowed("Ingress", labels, {}, namespace, port)
    } == reached


def test_only_workers_reach_the_internet_and_only_by_https() -> None:
    ports = (53, 80, 443, API, REDIS)
    assert {
        (component, port)
        for component, labels in INSIDE.items()
        for port in ports
        if allowed("Egress", labels, {}, "internet", port)
    } == {("worker", 443)}


def test_the_internet_does_not_mean_the_inside() -> None:
    """Neither the cluster's own addresses nor a cloud's metadata service, which hands out credentials."""
    rules = [rule for spec in policies("Egress", INSIDE["worker"]) for rule in spec.get("egress", [])]
    blocks = [peer["ipBlock"] for rule in rules for peer in rule["to"] if "ipBlock" in peer]
    (block,) = blocks
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(block["except"])


def test_names_can_be_looked_up() -> None:
    dns = {"k8s-app": "kube-dns"}
    assert all(allowed("Egress", labels, dns, "kube-system", 53) for labels in INSIDE.values())
