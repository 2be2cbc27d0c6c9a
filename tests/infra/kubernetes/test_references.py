"""Names hang together: what one object calls another is there, and every selector finds what it means."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infra.kubernetes.manifests import (
    FOLDER,
    OVERLAYS,
    Manifest,
    build,
    build_folder,
    name_of,
    named,
    of_kind,
    pod_of,
    pools,
    workloads,
)

HPA_PREFIX = "keda-hpa-"
"""KEDA puts it before a ScaledObject's name, and uses the whole as a label's value: 63 characters."""
MADE_BY_HAND = {"rerankq-redis", "rerankq-keda"}
"""Secrets that README.md tells how to make. The hub's is optional."""


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return build(request.param)


def mentions(value: Any, key: str) -> Iterator[Any]:
    """Every value under that key, however deep."""
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from mentions(part, key)


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_every_object_has_its_own_name_and_lies_in_the_namespace(manifests: list[Manifest]) -> None:
    names = [(manifest["kind"], name_of(manifest)) for manifest in manifests]
    assert len(set(names)) == len(names)
    assert {manifest["metadata"].get("namespace") for manifest in manifests if manifest["kind"] != "Namespace"} == {
        "rerankq"
    }
    assert all(len(name) <= 63 for _, name in names)


def test_labels_are_the_recommended_ones(manifests: list[Manifest]) -> None:
    for manifest in workloads(manifests):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == labels["app.kubernetes.io/part-of"] == "rerankq"
        assert labels["app.kubernetes.io/component"] in ("api", "worker", "redis", "admin")
        assert manifest["spec"]["template"]["metadata"]["labels"] == labels


def test_each_workload_selects_its_own_pods_alone(manifests: list[Manifest]) -> None:
    """Two Deployments whose selectors overlap take each other's pods."""
    for manifest in workloads(manifests):
        selector = manifest["spec"]["selector"]["matchLabels"]
        found = [
            name_of(other)
            for other in workloads(manifests)
            if matches(selector, other["spec"]["template"]["metadata"]["labels"])
        ]
        assert found == [name_of(manifest)]


def test_services_and_disruption_budgets_find_one_workload_each(manifests: list[Manifest]) -> None:
    selectors = [manifest["spec"]["selector"] for manifest in of_kind(manifests, "Service")]
    selectors += [manifest["spec"]["selector"]["matchLabels"] for manifest in of_kind(manifests, "PodDisruptionBudget")]
    assert len(selectors) >= 4
    for selector in selectors:
        templates = [manifest["spec"]["template"]["metadata"]["labels"] for manifest in workloads(manifests)]
        assert [matches(selector, labels) for labels in templates].count(True) == 1


def test_every_port_of_a_service_is_one_of_its_pods(manifests: list[Manifest]) -> None:
    for service in of_kind(manifests, "Service"):
        workload = next(
            manifest
            for manifest in workloads(manifests)
            if matches(service["spec"]["selector"], manifest["spec"]["template"]["metadata"]["labels"])
        )
        ports = {port["name"]: port["containerPort"] for port in pod_of(workload)["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_what_is_mounted_and_read_is_there(manifests: list[Manifest]) -> None:
    config_maps = {name_of(manifest) for manifest in of_kind(manifests, "ConfigMap")}
    claims = {name_of(manifest) for manifest in of_kind(manifests, "PersistentVolumeClaim")}
    for workload in workloads(manifests):
        volumes = pod_of(workload)["volumes"]
        assert {volume["name"] for volume in volumes if "configMap" in volume} <= {"models", "config"}
        assert set(mentions([v.get("configMap", {}) for v in volumes], "name")) <= config_maps
        assert set(mentions(volumes, "claimName")) <= claims
        provided = {volume["name"] for volume in volumes}
        provided |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert {mount["name"] for mount in pod_of(workload)["containers"][0]["volumeMounts"]} == provided


def test_secrets_are_made_here_or_by_hand(manifests: list[Manifest]) -> None:
    made = {name_of(manifest): manifest.get("data", {}) for manifest in of_kind(manifests, "Secret")}
    wanted = [reference for manifest in manifests for reference in mentions(manifest, "secretKeyRef")]
    wanted += [
        reference for manifest in manifests for part in mentions(manifest, "secretTargetRef") for reference in part
    ]
    needed = {(ref["name"], ref["key"]) for ref in wanted if not ref.get("optional")}
    assert {name for name, _ in needed} == MADE_BY_HAND
    # KEDA takes an absent key for one that is not given; these belong to a managed Redis.
    needed -= {("rerankq-redis", key) for key in ("username", "tls", "ca")}
    if made:
        assert {(name, key) for name, keys in made.items() for key in keys} == needed


def test_every_scaler_scales_what_is_there(manifests: list[Manifest]) -> None:
    scaled = [name_of(deployment) for deployment, _ in pools(manifests)]
    for hpa in of_kind(manifests, "HorizontalPodAutoscaler"):
        scaled.append(
            name_of(named(manifests, hpa["spec"]["scaleTargetRef"]["kind"], hpa["spec"]["scaleTargetRef"]["name"]))
        )
    assert len(scaled) == len(set(scaled)) >= 2
    for name in scaled:
        # Whoever writes a number here takes it from the scaler whenever the manifests are applied again.
        assert "replicas" not in named(manifests, "Deployment", name)["spec"]


def test_keda_can_name_its_hpas(manifests: list[Manifest]) -> None:
    for scaled_object in of_kind(manifests, "ScaledObject"):
        assert len(HPA_PREFIX + name_of(scaled_object)) <= 63


def test_triggers_find_their_credentials(manifests: list[Manifest]) -> None:
    known = {name_of(manifest) for manifest in of_kind(manifests, "TriggerAuthentication")}
    used = {reference["name"] for manifest in manifests for reference in mentions(manifest, "authenticationRef")}
    assert used == known


def test_two_pools_may_stand_beside_each_other(tmp_path: Path) -> None:
    """A second model is a second folder: nothing of the two is shared but what is meant to be."""
    pools_folder = os.path.relpath(FOLDER / "pools", tmp_path)
    names = sorted(path.name for path in (FOLDER / "pools").iterdir())
    resources = "".join(f"  - {pools_folder}/{name}\n" for name in names)
    (tmp_path / "kustomization.yaml").write_text(f"resources:\n{resources}")
    manifests = build_folder(tmp_path)
    assert len(names) >= 2
    test_each_workload_selects_its_own_pods_alone(manifests)
    assert len(list(pools(manifests))) == len(names)
