"""Reads the manifests: the source files, and the overlays as built by kustomize."""

import functools
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "infra/kubernetes"
OVERLAYS = ("cpu-dev", "gpu")

Manifest = dict[str, Any]


def resource_files() -> list[Path]:
    """The files with whole objects, without kustomizations and models files."""
    others = ("kustomization.yaml", "models.yaml")
    return sorted(path for path in FOLDER.rglob("*.yaml") if path.name not in others)


def kustomizations() -> list[Path]:
    return sorted(FOLDER.rglob("kustomization.yaml"))


def read(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def source_manifests() -> list[Manifest]:
    """All objects of the source files, before patches."""
    return [manifest for path in resource_files() for manifest in read(path)]


def build(overlay: str) -> list[Manifest]:
    """An overlay's objects, as `kubectl apply -k` sends them. Skips the test if kubectl is not installed."""
    return build_folder(FOLDER / "overlays" / overlay)


@functools.cache
def build_folder(folder: Path) -> list[Manifest]:
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("needs kubectl, whose kustomize builds the overlays")
    command = [kubectl, "kustomize", str(folder)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stderr
    # kustomize warns on stderr, for example of deprecated fields.
    assert outcome.stderr == ""
    return [document for document in yaml.safe_load_all(outcome.stdout) if document]


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def name_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def named(manifests: Iterable[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [manifest for manifest in of_kind(manifests, kind) if name_of(manifest) == name]
    return found


def workloads(manifests: Iterable[Manifest]) -> list[Manifest]:
    """The objects that create pods."""
    return of_kind(manifests, "Deployment", "StatefulSet")


def pod_of(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def container_of(workload: Manifest) -> Manifest:
    """The only container of the workload's pods."""
    (container,) = pod_of(workload)["containers"]
    return dict(container)


def environment_of(workload: Manifest) -> dict[str, Any]:
    """Variable name -> its value, or its `valueFrom`."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container_of(workload)["env"]}


def component_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["labels"]["app.kubernetes.io/component"])


def trigger_of(scaled_object: Manifest, kind: str) -> Manifest:
    (trigger,) = [trigger for trigger in scaled_object["spec"]["triggers"] if trigger["type"] == kind]
    return dict(trigger)


def pools(manifests: Iterable[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """The pools: each Deployment with the ScaledObject that scales it."""
    manifests = list(manifests)
    for scaled_object in of_kind(manifests, "ScaledObject"):
        yield named(manifests, "Deployment", scaled_object["spec"]["scaleTargetRef"]["name"]), scaled_object
