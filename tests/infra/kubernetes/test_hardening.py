"""What a pod may do: as little as it can do with."""

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
    unbuilt,
    workloads,
)

DOCKERFILES = {"api": "api.Dockerfile", "admin": "api.Dockerfile", "worker": "worker.Dockerfile"}
REDIS_IMAGE_USER = 999


@pytest.fixture(params=workloads(unbuilt()), ids=name_of)
def workload(request: pytest.FixtureRequest) -> Manifest:
    """Each as its file has it: no patch is needed to make it safe."""
    manifest: Manifest = request.param
    return manifest


def test_it_runs_as_a_user_of_its_image_who_is_not_root(workload: Manifest) -> None:
    context = pod_of(workload)["securityContext"]
    assert context["runAsNonRoot"] is True
    user = context["runAsUser"]
    # By number: whether a name means root cannot be told from outside the image.
    assert isinstance(user, int)
    assert context["runAsGroup"] == user
    if component_of(workload) == "redis":
        assert user == REDIS_IMAGE_USER
    else:
        dockerfile = (ROOT / "infra/docker" / DOCKERFILES[component_of(workload)]).read_text()
        made = {int(number) for number in re.findall(r"useradd --uid (\d+)", dockerfile)}
        assert made == {user}


def test_it_can_raise_itself_to_nothing(workload: Manifest) -> None:
    context = container_of(workload)["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod_of(workload)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_it_has_no_way_into_the_cluster(workload: Manifest) -> None:
    pod = pod_of(workload)
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & set(pod)
    kinds = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}


def test_it_says_what_it_needs_and_where_its_memory_ends(workload: Manifest) -> None:
    resources = container_of(workload)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert "memory" in resources["limits"]
    # A full disk would be the node's.
    for volume in pod_of(workload).get("volumes", []):
        assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": "not one"})


def test_no_services_become_settings(workload: Manifest) -> None:
    """A Service named `rerankq` would be announced to its neighbours as RERANKQ_PORT."""
    assert pod_of(workload)["enableServiceLinks"] is False


def test_passwords_stand_in_secrets_alone() -> None:
    for manifest in unbuilt():
        assert manifest["kind"] != "Secret"
    for workload in workloads(unbuilt()):
        for entry in container_of(workload)["env"]:
            secret = entry["name"] in ("REDIS_URL", "REDISCLI_AUTH", "HF_TOKEN")
            assert ("valueFrom" in entry) == secret, entry


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_takes_nothing_of_it_back(overlay: str) -> None:
    for manifest in workloads(build(overlay)):
        (before,) = [
            other
            for other in workloads(unbuilt())
            if component_of(other) == component_of(manifest) and other["kind"] == manifest["kind"]
        ]
        for part in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
            assert pod_of(manifest)[part] == pod_of(before)[part]
        assert container_of(manifest)["securityContext"] == container_of(before)["securityContext"]


def test_the_namespace_refuses_pods_that_are_less_careful() -> None:
    (namespace,) = of_kind(unbuilt(), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_only_the_development_overlay_lets_anybody_in() -> None:
    def anonymous(overlay: str) -> list[Any]:
        entries = [entry for workload in workloads(build(overlay)) for entry in container_of(workload)["env"]]
        return [entry["value"] for entry in entries if entry["name"] == "RERANKQ_ALLOW_ANONYMOUS"]

    assert anonymous("cpu-dev") == ["true"]
    assert anonymous("gpu") == []
    assert of_kind(build("gpu"), "Secret") == []
