"""Every object is valid under the published schemas of Kubernetes and KEDA, and has no unknown fields."""

import copy
from typing import Any

import kubernetes_validate
import pytest
from cloudcoil.models.keda import v1alpha1 as keda
from pydantic import ValidationError

from tests.infra.kubernetes.manifests import FOLDER, OVERLAYS, Manifest, build, kustomizations, read, resource_files

# The oldest supported version, and the newest with schemas in the package.
VERSIONS = ("1.30", kubernetes_validate.latest_version())


def validate(manifest: Manifest, version: str) -> None:
    """Raises when the object is invalid or has an unknown field."""
    if manifest["apiVersion"].startswith("keda.sh/"):
        validate_keda(manifest)
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def validate_keda(manifest: Manifest) -> None:
    model: Any = getattr(keda, manifest["kind"])
    parsed = model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)
    # The model drops unknown fields and converts values of the wrong type.
    assert parsed == manifest


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", resource_files(), ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_file_contains_valid_objects(path: Any, version: str) -> None:
    manifests = read(path)
    assert manifests
    for manifest in manifests:
        validate(manifest, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_builds_valid_objects(overlay: str, version: str) -> None:
    for manifest in build(overlay):
        validate(manifest, version)


@pytest.mark.parametrize("path", kustomizations(), ids=lambda path: str(path.parent.relative_to(FOLDER)))
def test_every_file_is_listed_in_a_kustomization(path: Any) -> None:
    """Kustomize ignores files that are not listed."""
    (kustomization,) = read(path)
    files = {name for name in kustomization.get("resources", []) if name.endswith(".yaml")}
    assert files == {other.name for other in resource_files() if other.parent == path.parent}


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "spec.template.spec.terminationGracePeriod", 60),
        ("Deployment", "spec.template.spec.containers.0.securityContext.readOnlyRootFileSystem", True),
        ("Deployment", "spec.template.spec.terminationGracePeriodSeconds", "60"),
        ("ScaledObject", "spec.cooldown", 30),
        ("ScaledObject", "spec.triggers.0.metadata.listLength", 5),
        ("ScaledObject", "spec.maxReplicaCount", "4"),
        ("ScaledObject", "spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.window", 60),
    ],
)
def test_invalid_object_is_rejected(kind: str, path: str, value: object) -> None:
    worker = read(FOLDER / "worker/deployment.yaml") + read(FOLDER / "worker/scaledobject.yaml")
    (manifest,) = [copy.deepcopy(manifest) for manifest in worker if manifest["kind"] == kind]
    validate(manifest, VERSIONS[-1])
    *parents, last = path.split(".")
    target: Any = manifest
    for key in parents:
        target = target[int(key)] if key.isdigit() else target[key]
    target[last] = value
    with pytest.raises((kubernetes_validate.ValidationError, ValidationError, AssertionError)):
        validate(manifest, VERSIONS[-1])
