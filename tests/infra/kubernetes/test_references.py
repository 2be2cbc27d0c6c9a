"""References between objects resolve, and every selector matches the intended objects."""

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
"""KEDA prefixes a ScaledObject's name with it, and uses the result as a label: at most 63 characters."""
MANUAL_SECRETS = {"rerankq-redis", "rerankq-keda"}
"""The Secrets that the operator creates, see README.md. The hub's is optional."""


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return build(request.param)


def values_of(value: Any, key: str) -> Iterator[Any]:
    """The values of a key at any depth."""
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from values_of(part, key)


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_names_are_unique_and_in_the_namespace(manifests: list[Manifest]) -> None:
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


def test_each_workload_selects_only_its_own_pods(manifests: list[Manifest]) -> None:
    """Deployments with overlapping selectors would adopt each other's pods."""
    for manifest in workloads(manifests):
        selector = manifest["spec"]["selector"]["matchLabels"]
        found = [
            name_of(other)
            for other in workloads(manifests)
            if matches(selector, other["spec"]["template"]["metadata"]["labels"])
        ]
        assert found == [name_of(manifest)]


def test_services_and_disruption_budgets_select_one_workload_each(manifests: list[Manifest]) -> None:
    selectors = [manifest["spec"]["selector"] for manifest in of_kind(manifests, "Service")]
    selectors += [manifest["spec"]["selector"]["matchLabels"] for manifest in of_kind(manifests, "PodDisruptionBudget")]
    assert len(selectors) >= 4
    for selector in selectors:
        templates = [manifest["spec"]["template"]["metadata"]["labels"] for manifest in workloads(manifests)]
        assert [matches(selector, labels) for labels in templates].count(True) == 1


def test_ports_of_services_are_ports_of_their_pods(manifests: list[Manifest]) -> None:
    for service in of_kind(manifests, "Service"):
        workload = next(
            manifest
            for manifest in workloads(manifests)
            if matches(service["spec"]["selector"], manifest["spec"]["template"]["metadata"]["labels"])
        )
        ports = {port["name"]: port["containerPort"] for port in pod_of(workload)["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_mounted_volumes_exist(manifests: list[Manifest]) -> None:
    config_maps = {name_of(manifest) for manifest in of_kind(manifests, "ConfigMap")}
    claims = {name_of(manifest) for manifest in of_kind(manifests, "PersistentVolumeClaim")}
    for workload in workloads(manifests):
        volumes = pod_of(workload)["volumes"]
        assert {volume["name"] for volume in volumes if "configMap" in volume} <= {"models", "config"}
        assert set(values_of([v.get("configMap", {}) for v in volumes], "name")) <= config_maps
        assert set(values_of(volumes, "claimName")) <= claims
        provided = {volume["name"] for volume in volumes}
        provided |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert {mount["name"] for mount in pod_of(workload)["containers"][0]["volumeMounts"]} == provided


def test_secrets_are_generated_or_created_by_the_operator(manifests: list[Manifest]) -> None:
    generated = {name_of(manifest): manifest.get("data", {}) for manifest in of_kind(manifests, "Secret")}
    references = [reference for manifest in manifests for reference in values_of(manifest, "secretKeyRef")]
    references += [
        reference for manifest in manifests for part in values_of(manifest, "secretTargetRef") for reference in part
    ]
    needed = {(ref["name"], ref["key"]) for ref in references if not ref.get("optional")}
    assert {name for name, _ in needed} == MANUAL_SECRETS
    # KEDA ignores missing keys; these are for a managed Redis.
    needed -= {("rerankq-redis", key) for key in ("username", "tls", "ca")}
    if generated:
        assert {(name, key) for name, keys in generated.items() for key in keys} == needed


def test_every_scaler_scales_an_existing_deployment(manifests: list[Manifest]) -> None:
    scaled = [name_of(deployment) for deployment, _ in pools(manifests)]
    for hpa in of_kind(manifests, "HorizontalPodAutoscaler"):
        scaled.append(
            name_of(named(manifests, hpa["spec"]["scaleTargetRef"]["kind"], hpa["spec"]["scaleTargetRef"]["name"]))
        )
    assert len(scaled) == len(set(scaled)) >= 2
    for name in scaled:
        # With a number, applying the manifests again would undo the scaling.
        assert "replicas" not in named(manifests, "Deployment", name)["spec"]


def test_names_of_kedas_hpas_fit_into_a_label(manifests: list[Manifest]) -> None:
    for scaled_object in of_kind(manifests, "ScaledObject"):
        assert len(HPA_PREFIX + name_of(scaled_object)) <= 63


def test_credentials_of_triggers_exist(manifests: list[Manifest]) -> None:
    known = {name_of(manifest) for manifest in of_kind(manifests, "TriggerAuthentication")}
    used = {reference["name"] for manifest in manifests for reference in values_of(manifest, "authenticationRef")}
    assert used == known


def test_pools_can_be_combined(tmp_path: Path) -> None:
    """An overlay can include several pools: their names and selectors do not overlap."""
    pools_folder = os.path.relpath(FOLDER / "pools", tmp_path)
    names = sorted(path.name for path in (FOLDER / "pools").iterdir())
    resources = "".join(f"  - {pools_folder}/{name}\n" for name in names)
    (tmp_path / "kustomization.yaml").write_text(f"resources:\n{resources}")
    manifests = build_folder(tmp_path)
    assert len(names) >= 2
    test_each_workload_selects_only_its_own_pods(manifests)
    assert len(list(pools(manifests))) == len(names)
