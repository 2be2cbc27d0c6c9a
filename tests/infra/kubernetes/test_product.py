"""The settings, ports, paths, times and models in the manifests match the product."""

import importlib.util
import re
from typing import Any

import pytest
import yaml

from api.__main__ import DRAIN_SECONDS, parse_arguments
from api.app import create_app
from api.settings import ApiSettings
from shared.models import ModelRegistry, load_models
from shared.settings import Settings
from tests.infra.kubernetes.manifests import (
    FOLDER,
    OVERLAYS,
    ROOT,
    Manifest,
    build,
    component_of,
    container_of,
    environment_of,
    named,
    of_kind,
    pod_of,
    pools,
    source_manifests,
    workloads,
)
from worker.settings import WorkerSettings

SETTINGS: dict[str, type[Settings]] = {"api": ApiSettings, "admin": ApiSettings, "worker": WorkerSettings}
SPARE_SECONDS = 30
API_IMAGE = (ROOT / "infra/docker/api.Dockerfile").read_text()
WORKER_IMAGE = (ROOT / "infra/docker/worker.Dockerfile").read_text()


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return build(request.param)


def rerankq_workloads(manifests: list[Manifest]) -> list[Manifest]:
    """The workloads that run rerankq's code."""
    return [manifest for manifest in workloads(manifests) if component_of(manifest) in SETTINGS]


def registry_of(manifests: list[Manifest]) -> ModelRegistry:
    """The models that an overlay serves."""
    (overlay,) = [name for name in OVERLAYS if build(name) is manifests]
    return load_models(FOLDER / "overlays" / overlay / "models.yaml")


def settings_of(workload: Manifest) -> Any:
    """The settings that the workload's processes read from its environment."""
    plain = {name: value for name, value in environment_of(workload).items() if isinstance(value, str)}
    return SETTINGS[component_of(workload)].from_environment(plain)


def api_paths(registry: ModelRegistry) -> set[str]:
    return set(create_app(ApiSettings(), registry).openapi()["paths"])


def test_every_environment_variable_is_a_setting(manifests: list[Manifest]) -> None:
    """A misspelled variable would be ignored silently."""
    for workload in rerankq_workloads(manifests):
        known = {f"RERANKQ_{name.upper()}" for name in SETTINGS[component_of(workload)].model_fields}
        for name in environment_of(workload):
            assert name in known | {"REDIS_URL", "HF_TOKEN"}
        settings_of(workload)


def test_models_file_is_mounted_where_the_processes_read_it(manifests: list[Manifest]) -> None:
    for workload in rerankq_workloads(manifests):
        (mount,) = [mount for mount in container_of(workload)["volumeMounts"] if mount["name"] == "models"]
        assert str(settings_of(workload).models_file) == f"{mount['mountPath']}/models.yaml"
    generated = [manifest["data"] for manifest in of_kind(manifests, "ConfigMap") if "models.yaml" in manifest["data"]]
    assert len(generated) == 1


def test_workers_grace_period_covers_its_drain() -> None:
    (worker,) = [manifest for manifest in rerankq_workloads(source_manifests()) if component_of(manifest) == "worker"]
    drain = float(environment_of(worker)["RERANKQ_DRAIN_SECONDS"])
    assert pod_of(worker)["terminationGracePeriodSeconds"] >= drain + SPARE_SECONDS


def test_apis_grace_period_covers_its_drain() -> None:
    api = named(source_manifests(), "Deployment", "rerankq-api")
    pre_stop = container_of(api)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod_of(api)["terminationGracePeriodSeconds"] >= pre_stop + DRAIN_SECONDS + 5


def test_port_is_that_of_the_image() -> None:
    command = re.findall(r'"([^"]+)"', re.findall(r"^CMD (\[.*\])$", API_IMAGE, re.MULTILINE)[0])
    port = parse_arguments(command).port
    api = named(source_manifests(), "Deployment", "rerankq-api")
    assert not {"args", "command"} & set(container_of(api))
    assert [entry["containerPort"] for entry in container_of(api)["ports"]] == [port]
    assert re.findall(r"^EXPOSE (\d+)$", API_IMAGE, re.MULTILINE) == [str(port)]


def test_probes_use_existing_paths_and_modules() -> None:
    api = container_of(named(source_manifests(), "Deployment", "rerankq-api"))
    probes = {name: api[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    assert set(probes.values()) <= api_paths(load_models(FOLDER / "overlays/gpu/models.yaml"))

    worker = container_of(named(source_manifests(), "Deployment", "rerankq-worker"))
    python, flag, module = worker["readinessProbe"]["exec"]["command"]
    assert (python, flag) == ("python3", "-m")
    assert importlib.util.find_spec(module) is not None
    # The check reads Redis: as a liveness probe it would restart every worker while Redis is unreachable.
    assert "livenessProbe" not in worker


def test_home_is_the_cache_volume(manifests: list[Manifest]) -> None:
    homes = set(re.findall(r"\bHOME=(\S+)", WORKER_IMAGE))
    for deployment, _ in pools(manifests):
        mounts = {mount["name"]: mount["mountPath"] for mount in container_of(deployment)["volumeMounts"]}
        assert homes == {mounts["cache"]}
        # The engine also writes to these; the rest of the file system is read-only.
        assert {"/tmp", "/dev/shm"} <= set(mounts.values())


def test_every_model_has_one_pool(manifests: list[Manifest]) -> None:
    served = [spec.name for spec in registry_of(manifests).specs]
    assert sorted(settings_of(deployment).model for deployment, _ in pools(manifests)) == sorted(served)


def test_bounds_of_a_pool_are_those_of_the_models_file(manifests: list[Manifest]) -> None:
    for deployment, scaled_object in pools(manifests):
        pool = registry_of(manifests).resolve(settings_of(deployment).model).pool
        spec = scaled_object["spec"]
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (pool.min, pool.max)
        scale_down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        assert scale_down["stabilizationWindowSeconds"] == pool.cooldown_seconds


def test_gpu_overlay_gives_one_gpu_to_each_worker() -> None:
    manifests = build("gpu")
    gpus = {
        component_of(workload): container_of(workload)["resources"]["limits"].get("nvidia.com/gpu")
        for workload in workloads(manifests)
    }
    assert gpus == {"worker": "1", "api": None, "admin": None, "redis": None}
    (claim,) = of_kind(manifests, "PersistentVolumeClaim")
    # The workers of a pool run on several nodes.
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_commands_of_the_readme_are_valid() -> None:
    commands = re.findall(r"python -m api (keys create \w+)", (FOLDER / "README.md").read_text())
    assert [parse_arguments(command.split()).command for command in commands] == ["create", "create"]


def test_readme_patch_for_a_bucket_changes_the_payload_store() -> None:
    """kustomize merges the patch into the Deployment of this name, and its variables by their names."""
    (text,) = re.findall(
        r"```yaml\n(patches:\n[^`]*rerankq-bucket.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL
    )
    patch = yaml.safe_load(yaml.safe_load(text)["patches"][0]["patch"])
    for overlay in OVERLAYS:
        api = named(build(overlay), patch["kind"], patch["metadata"]["name"])
        assert api["metadata"]["namespace"] == patch["metadata"]["namespace"]
        (changed,) = patch["spec"]["template"]["spec"]["containers"]
        container = container_of(api)
        assert container["name"] == changed["name"]
        assert {"name": changed["env"][0]["name"], "value": "redis"} in container["env"]
