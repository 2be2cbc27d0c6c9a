"""The component that replaces the Redis of base/ by a managed one."""

import os
from pathlib import Path

import pytest

from tests.infra.kubernetes.manifests import (
    FOLDER,
    Manifest,
    build_folder,
    component_of,
    container_of,
    environment_of,
    name_of,
    named,
    of_kind,
    pod_of,
    workloads,
)
from tests.infra.kubernetes.test_schemas import VERSIONS, validate


@pytest.fixture
def manifests(tmp_path: Path) -> list[Manifest]:
    """The GPU overlay with the component, as in README.md."""
    folder = os.path.relpath(FOLDER, tmp_path)
    text = f"resources: [{folder}/overlays/gpu]\ncomponents: [{folder}/components/managed-redis]\n"
    (tmp_path / "kustomization.yaml").write_text(text)
    return build_folder(tmp_path)


def test_own_redis_is_removed(manifests: list[Manifest]) -> None:
    assert of_kind(manifests, "StatefulSet") == []
    assert sorted({component_of(workload) for workload in workloads(manifests)}) == ["admin", "api", "worker"]
    assert "rerankq-redis" not in [name_of(manifest) for manifest in of_kind(manifests, "Service", "NetworkPolicy")]
    for manifest in manifests:
        validate(manifest, VERSIONS[-1])


def test_url_is_read_from_the_secret(manifests: list[Manifest]) -> None:
    for workload in workloads(manifests):
        url = environment_of(workload)["REDIS_URL"]
        assert url == {"secretKeyRef": {"name": "rerankq-redis", "key": "url"}}


def test_private_authority_is_mounted_where_the_url_expects_it(manifests: list[Manifest]) -> None:
    readme = (FOLDER / "README.md").read_text()
    for workload in workloads(manifests):
        (mount,) = [mount for mount in container_of(workload)["volumeMounts"] if mount["name"] == "redis-ca"]
        (volume,) = [volume for volume in pod_of(workload)["volumes"] if volume["name"] == "redis-ca"]
        secret = volume["secret"]
        # Certificates of most providers do not need it.
        assert secret["optional"] is True
        assert f"ssl_ca_certs={mount['mountPath']}/{secret['items'][0]['path']}" in readme


def test_egress_to_redis_is_allowed(manifests: list[Manifest]) -> None:
    policy = named(manifests, "NetworkPolicy", "rerankq-to-redis")["spec"]
    assert [port["port"] for port in policy["egress"][0]["ports"]] == [6379, 6380]
