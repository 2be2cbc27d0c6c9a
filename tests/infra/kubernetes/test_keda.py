"""The values that KEDA's triggers read, from a real Redis and the real API.

KEDA's redis scaler reads the key's type, and then its length with the command for that type, in a script. Its
metrics-api scaler sends a GET, and reads a number from the JSON of a response with status 200.
"""

import math
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis
import yaml

from api.app import create_app
from api.auth.key_store import KeyStore, Scope
from api.settings import ApiSettings
from shared.keys import pool_keys
from shared.models import load_models
from shared.store.client import connect_async
from tests.infra.kubernetes.manifests import (
    FOLDER,
    OVERLAYS,
    Manifest,
    build,
    build_folder,
    environment_of,
    named,
    of_kind,
    pools,
    read,
    trigger_of,
)

LENGTH_COMMANDS = {"zset": "ZCARD", "set": "SCARD", "hash": "HLEN", "list": "LLEN", "none": "LLEN"}
REQUEST = {"query": "What is a panda?", "documents": ["hi", "it is a bear", "The giant panda lives in China."]}


class Keda:
    """Reads the triggers of a ScaledObject as KEDA does."""

    def __init__(self, scaled_object: Manifest, store: redis.Redis, api: httpx.AsyncClient) -> None:
        self._redis = trigger_of(scaled_object, "redis")["metadata"]
        self._api = trigger_of(scaled_object, "metrics-api")["metadata"]
        self._store = store
        self._http = api

    def outstanding(self) -> int:
        key = self._redis["listName"]
        kind: Any = self._store.eval("return redis.call('TYPE', KEYS[1]).ok", 1, key)
        command = LENGTH_COMMANDS[kind.decode()]
        length: Any = self._store.eval(f"return redis.call('{command}', KEYS[1])", 1, key)
        return int(length)

    async def request(self, token: str) -> httpx.Response:
        assert self._api["authMode"] == "bearer"
        path = urlsplit(self._api["url"]).path
        return await self._http.get(path, headers={"Authorization": f"Bearer {token}"})

    async def desired(self, token: str) -> float:
        """The number at `valueLocation`. Anything else is an error for KEDA, which then does not scale the pool."""
        answer = await self.request(token)
        assert answer.status_code == 200, answer.text
        value = answer.json()
        for key in self._api["valueLocation"].split("."):
            value = value[key]
        assert isinstance(value, int | float)
        assert not isinstance(value, bool)
        return float(value)


@pytest.fixture
async def token(redis_url: str) -> AsyncIterator[str]:
    """KEDA's API key."""
    client = connect_async(redis_url)
    yield await KeyStore(client).create("keda", scopes=list(Scope))
    await client.aclose()


@pytest.fixture(params=OVERLAYS)
async def api(
    request: pytest.FixtureRequest, redis_url: str, token: str
) -> AsyncIterator[tuple[Path, httpx.AsyncClient]]:
    """The folder of an overlay, and a client of the API with its models and settings."""
    folder = FOLDER / "overlays" / request.param
    app = create_app(ApiSettings(redis_url=redis_url), load_models(folder / "models.yaml"), keys_required=True)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api") as client,
    ):
        yield folder, client


@pytest.fixture
def keda(api: tuple[Path, httpx.AsyncClient], redis_client: redis.Redis) -> Keda:
    """KEDA with the template of worker/, filled in. Another test checks that pools/NAME fills it in the same way."""
    folder, client = api
    model = load_models(folder / "models.yaml").default.name
    (template,) = read(FOLDER / "worker/scaledobject.yaml")
    scaled_object: Manifest = yaml.safe_load(yaml.safe_dump(template).replace("MODEL", model))
    return Keda(scaled_object, redis_client, client)


async def test_queued_job_wakes_the_pool_with_one_worker(
    keda: Keda, api: tuple[Path, httpx.AsyncClient], token: str
) -> None:
    _, client = api
    assert (keda.outstanding(), await keda.desired(token)) == (0, 0)

    headers = {"Authorization": f"Bearer {token}", "Prefer": "respond-async"}
    accepted = await client.post("/v1/rerank", json=REQUEST, headers=headers)
    assert accepted.status_code == 202, accepted.text
    assert (keda.outstanding(), await keda.desired(token)) == (1, 1)

    location = accepted.headers["Location"]
    canceled = await client.post(f"{location}/cancel", headers=headers)
    assert canceled.status_code == 200, canceled.text
    assert (keda.outstanding(), await keda.desired(token)) == (0, 0)


async def test_wrong_token_is_an_error(keda: Keda) -> None:
    """A wrong token must not look like an empty pool."""
    assert (await keda.request("for-development-only")).status_code == 401


def test_triggers_read_the_state_of_their_own_model() -> None:
    (template,) = read(FOLDER / "worker/scaledobject.yaml")
    for overlay in OVERLAYS:
        for deployment, scaled_object in pools(build(overlay)):
            model = environment_of(deployment)["RERANKQ_MODEL"]
            filled_in = yaml.safe_dump(template["spec"]["triggers"]).replace("MODEL", model)
            assert scaled_object["spec"]["triggers"] == yaml.safe_load(filled_in)
            assert trigger_of(scaled_object, "redis")["metadata"]["listName"] == pool_keys.outstanding(model)
            url = trigger_of(scaled_object, "metrics-api")["metadata"]["url"]
            assert urlsplit(url).path == f"/v1/pools/{model}"


def test_trigger_urls_are_those_of_the_services() -> None:
    for overlay in OVERLAYS:
        manifests = build(overlay)
        for _, scaled_object in pools(manifests):
            url = urlsplit(trigger_of(scaled_object, "metrics-api")["metadata"]["url"])
            assert url.hostname is not None
            service, namespace, _ = url.hostname.split(".")
            found = named(manifests, "Service", service)
            assert found["metadata"]["namespace"] == namespace
            assert [port["port"] for port in found["spec"]["ports"]] == [url.port]


@pytest.mark.parametrize(
    ("shards", "desired", "replicas"),
    [
        (0, 0, 1),  # The minimum of an HPA. KEDA scales to zero when neither trigger is active.
        (1, 1, 1),
        (1, 0, 1),  # The API reports 0 after failed starts; the kubelet delays restarts itself.
        (900_000, 3, 3),
        (12, 4, 4),
        (0, 2, 2),  # No work is left, but the pool's idle time has not passed.
    ],
)
def test_api_decides_the_number_of_workers(shards: int, desired: int, replicas: int) -> None:
    """The HPA uses the larger of its metrics. The redis trigger never requests a second worker."""
    (scaled_object,) = of_kind(build("gpu"), "ScaledObject")
    first, second = (trigger_of(scaled_object, kind) for kind in ("redis", "metrics-api"))
    assert {trigger["metricType"] for trigger in (first, second)} == {"AverageValue"}
    by_shards = math.ceil(shards / int(first["metadata"]["listLength"]))
    by_desired = math.ceil(desired / float(second["metadata"]["targetValue"]))
    assert max(by_shards, by_desired, 1) == replicas


def test_failing_trigger_does_not_scale() -> None:
    """A `fallback` would start workers while Redis is unreachable, or stop busy ones while the API is."""
    for overlay in OVERLAYS:
        for scaled_object in of_kind(build(overlay), "ScaledObject"):
            assert "fallback" not in scaled_object["spec"]


def test_redis_trigger_is_present_if_batch_work_wakes_the_pool() -> None:
    """The redis trigger counts the shards of both classes: without `batch_wakes`, only the API may wake the pool."""
    for overlay in OVERLAYS:
        registry = load_models(FOLDER / "overlays" / overlay / "models.yaml")
        for deployment, scaled_object in pools(build(overlay)):
            wakes = registry.resolve(environment_of(deployment)["RERANKQ_MODEL"]).pool.batch_wakes
            kinds = [trigger["type"] for trigger in scaled_object["spec"]["triggers"]]
            assert ("redis" in kinds) == wakes


def test_readme_patch_removes_the_redis_trigger(tmp_path: Path) -> None:
    (patch,) = re.findall(
        r"```yaml\n(patches:\n[^`]*ScaledObject.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL
    )
    overlay = os.path.relpath(FOLDER / "overlays/gpu", tmp_path)
    text = f"resources: [{overlay}]\n" + patch.replace("NAME", "bge-reranker-v2-m3")
    (tmp_path / "kustomization.yaml").write_text(text)
    (scaled_object,) = of_kind(build_folder(tmp_path), "ScaledObject")
    assert [trigger["type"] for trigger in scaled_object["spec"]["triggers"]] == ["metrics-api"]
