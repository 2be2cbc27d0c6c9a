"""Pods have the least privileges they need."""

import re
from typing import Any

import pytest

from tests.infra.kubernetes.manifests import (
    OVERLAYS,
    ROOT,
    Manifest,
    build,
    component_of,
    container_of,
    name_of,
    of_kind,
    pod_of,
    source_manifests,
    workloads,
)

DOCKERFILES = {"api": "api.Dockerfile", "admin": "api.Dockerfile", "worker": "worker.Dockerfile"}
REDIS_IMAGE_USER = 999


@pytest.fixture(params=workloads(source_manifests()), ids=name_of)
def workload(request: pytest.FixtureRequest) -> Manifest:
    """Each workload of the source files, without patches."""
    manifest: Manifest = request.param
    return manifest


def test_container_runs_as_the_non_root_user_of_its_image(workload: Manifest) -> None:
    context = pod_of(workload)["securityContext"]
    assert context["runAsNonRoot"] is True
    user = context["runAsUser"]
    # A number: Kubernetes cannot check whether a user name is root.
    assert isinstance(user, int)
    assert context["runAsGroup"] == user
    if component_of(workload) == "redis":
        assert user == REDIS_IMAGE_USER
    else:
        dockerfile = (ROOT / "infra/docker" / DOCKERFILES[component_of(workload)]).read_text()
        users = {int(number) for number in re.findall(r"useradd --uid (\d+)", dockerfile)}
        assert users == {user}


def test_container_cannot_gain_privileges(workload: Manifest) -> None:
    context = container_of(workload)["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod_of(workload)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_pod_has_no_access_to_the_cluster(workload: Manifest) -> None:
    pod = pod_of(workload)
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & set(pod)
    kinds = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}


def test_container_has_requests_and_limits(workload: Manifest) -> None:
    resources = container_of(workload)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert "memory" in resources["limits"]
    # Without a limit, a volume could fill the node's disk.
    for volume in pod_of(workload).get("volumes", []):
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": "no emptyDir"})


def test_services_do_not_set_environment_variables(workload: Manifest) -> None:
    """Kubernetes would set RERANKQ_PORT for a Service named `rerankq`, which rerankq reads as a setting."""
    assert pod_of(workload)["enableServiceLinks"] is False


def test_passwords_are_only_in_secrets() -> None:
    for manifest in source_manifests():
        assert manifest["kind"] != "Secret"
    for workload in workloads(source_manifests()):
        for entry in container_of(workload)["env"]:
            secret = entry["name"] in ("REDIS_URL", "REDISCLI_AUTH", "HF_TOKEN")
            assert ("valueFrom" in entry) == secret, entry


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_keeps_the_hardening(overlay: str) -> None:
    for manifest in workloads(build(overlay)):
        (source,) = [
            other
            for other in workloads(source_manifests())
            if component_of(other) == component_of(manifest) and other["kind"] == manifest["kind"]
        ]
        for part in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
            assert pod_of(manifest)[part] == pod_of(source)[part]
        assert container_of(manifest)["securityContext"] == container_of(source)["securityContext"]


def test_namespace_enforces_the_restricted_profile() -> None:
    (namespace,) = of_kind(source_manifests(), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_only_the_development_overlay_allows_anonymous_requests() -> None:
    def anonymous(overlay: str) -> list[Any]:
        entries = [entry for workload in workloads(build(overlay)) for entry in container_of(workload)["env"]]
        return [entry["value"] for entry in entries if entry["name"] == "RERANKQ_ALLOW_ANONYMOUS"]

    assert anonymous("cpu-dev") == ["true"]
    assert anonymous("gpu") == []
    assert of_kind(build("gpu"), "Secret") == []
