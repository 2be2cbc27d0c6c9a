"""Every route with every kind of API key: none, wrong, revoked, expired, without the scope, another tenant's."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.app import create_app
from api.auth.key_store import KeyStore, Scope
from api.settings import ApiSettings
from shared.models import ModelRegistry, ModelSpec
from tests.shared.support import MODEL

PUBLIC = {"/", "/health", "/ready", "/v1/cluster/auth", "/docs", "/redoc", "/openapi.json", "/favicon.ico"}
"""Routes that need no key, beside every dialect's health checks and the files of /docs."""
RESPOND_ASYNC = {"Prefer": "respond-async"}
BODY = {"query": "q", "documents": ["a", "b"]}


def make_app(redis_url: str = "redis://127.0.0.1:1/0") -> FastAPI:
    settings = ApiSettings(redis_url=redis_url, batch_runner="separate")
    return create_app(settings, ModelRegistry([ModelSpec(name=MODEL)]), keys_required=True)


def is_public(path: str) -> bool:
    is_health_check = path.endswith(("/health", "/ready", "/live")) and not path.startswith("/runpod")
    return path in PUBLIC or path.startswith("/docs") or is_health_check


def scope_of(method: str, path: str) -> Scope | None:
    """The scope that a route must require; None where any key will do."""
    if (method, path) in (("POST", "/v1/jobs"), ("POST", "/v1/files"), ("POST", "/v1/batches")):
        return Scope.RERANK
    if path.startswith("/runpod"):
        return Scope.RERANK if path.endswith(("/run", "/runsync", "/batch", "/requests", "/finalize")) else Scope.JOBS
    if "/v1/async/" in path or "/v1/predictions/" in path:
        return Scope.RERANK if method == "POST" and not path.endswith("/cancel") else Scope.JOBS
    if path.startswith(("/v1/jobs", "/v1/files", "/v1/batches", "/v1/webhooks")):
        return Scope.JOBS
    if path.startswith(("/v1/pools", "/v1/admin")) or path == "/metrics":
        return Scope.ADMIN
    return Scope.RERANK if method == "POST" else None


def all_routes() -> list[tuple[str, str]]:
    routes = [route for route in make_app().routes if isinstance(route, APIRoute)]
    return sorted({(method, route.path) for route in routes for method in route.methods - {"HEAD"}})


PROTECTED = [(method, path) for method, path in all_routes() if not is_public(path)]


@dataclass(frozen=True, slots=True)
class Api:
    client: httpx.AsyncClient
    store: KeyStore

    async def status(self, method: str, path: str, key: str | None, job: str = "job-x") -> int:
        filled = path.replace("{job_id}", job).replace("{name:path}", MODEL).replace("{name}", MODEL)
        filled = filled.replace("{endpoint:path}", MODEL)
        filled = filled.replace("{model:path}", MODEL).replace("{model}", MODEL)
        filled = filled.replace("{file_id}", job).replace("{batch_id}", job)
        filled = filled.replace("{webhook_id}", job).replace("{delivery_id}", job)
        filled = filled.replace("{account}", "owner").replace("{version:path}", MODEL)
        assert "{" not in filled
        headers = RESPOND_ASYNC | ({} if key is None else {"Authorization": f"Bearer {key}"})
        body: Any = BODY if method == "POST" else None
        return (await self.client.request(method, filled, json=body, headers=headers)).status_code


@pytest.fixture
async def api(redis_url: str, async_client: Any) -> AsyncIterator[Api]:
    app = make_app(redis_url)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        yield Api(http, KeyStore(async_client))


def test_there_are_routes_of_every_scope() -> None:
    assert {scope_of(method, path) for method, path in PROTECTED} == {*Scope, None}
    assert len(PROTECTED) > 30


async def test_public_routes_need_no_key(api: Api) -> None:
    for method, path in all_routes():
        if is_public(path):
            assert await api.status(method, path, None) not in (401, 403), path


async def test_no_wrong_revoked_or_expired_key_opens_any_route(api: Api) -> None:
    good, revoked = await api.store.create("good", scopes=list(Scope)), await api.store.create("revoked")
    expired = await api.store.create("expired", scopes=list(Scope), lifetime_seconds=0)
    await api.store.revoke("revoked")
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    for method, path in PROTECTED:
        for key in (None, "", "nonsense", wrong, revoked, expired):
            assert await api.status(method, path, key) == 401, (method, path, key)


@pytest.mark.parametrize("scope", Scope)
async def test_a_key_opens_only_the_routes_of_its_scopes(api: Api, scope: Scope) -> None:
    only = await api.store.create("only", scopes=[scope])
    for method, path in PROTECTED:
        required = scope_of(method, path)
        status = await api.status(method, path, only)
        if required in (None, scope):
            assert status not in (401, 403), (method, path)
        else:
            assert status == 403, (method, path)


async def test_another_tenants_job_does_not_exist(api: Api) -> None:
    mine, other = await api.store.create("mine"), await api.store.create("other", scopes=list(Scope))
    headers = RESPOND_ASYNC | {"Authorization": f"Bearer {mine}"}
    job = (await api.client.post("/v1/rerank", json=BODY, headers=headers)).json()["id"]
    of_jobs = [(method, path) for method, path in PROTECTED if "{job_id}" in path]
    assert len(of_jobs) == 14
    for method, path in of_jobs:
        assert await api.status(method, path, other, job) == 404, (method, path)
    assert await api.status("GET", "/v1/jobs/{job_id}", mine, job) == 200


async def test_another_tenants_files_and_batches_do_not_exist(api: Api) -> None:
    mine, other = await api.store.create("mine"), await api.store.create("other", scopes=list(Scope))
    headers = {"Authorization": f"Bearer {mine}"}
    form: dict[str, Any] = {
        "files": {"file": ("in.jsonl", b'{"query": "q", "documents": ["a"]}')},
        "data": {"purpose": "batch"},
    }
    file = (await api.client.post("/v1/files", headers=headers, **form)).json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/rerank"}
    batch = (await api.client.post("/v1/batches", headers=headers, json=body)).json()["id"]
    bulk = (await api.client.post("/v1/jobs", headers=headers, json={"requests": [BODY]})).json()["id"]
    for parameter, item in (("{file_id}", file), ("{batch_id}", batch), ("{job_id}", bulk)):
        paths = [(method, path) for method, path in PROTECTED if parameter in path]
        assert paths
        for method, path in paths:
            assert await api.status(method, path, other, item) == 404, (method, path)
    with_other = {"Authorization": f"Bearer {other}"}
    assert (await api.client.post("/v1/batches", headers=with_other, json=body)).status_code == 404
    for path in ("/v1/files", "/v1/batches"):
        assert (await api.client.get(path, headers=with_other)).json()["data"] == []
        assert len((await api.client.get(path, headers=headers)).json()["data"]) == 1


async def test_an_operator_sees_the_jobs_of_all_keys(api: Api) -> None:
    keys = {name: await api.store.create(name) for name in ("one", "two")}
    admin = {"Authorization": f"Bearer {await api.store.create('admin', scopes=[Scope.ADMIN])}"}
    for key in keys.values():
        await api.client.post("/v1/rerank", json=BODY, headers=RESPOND_ASYNC | {"Authorization": f"Bearer {key}"})
    listed = (await api.client.get("/v1/admin/jobs?status=queued", headers=admin)).json()
    assert {job["key"] for job in listed["data"]} == {key.split("-")[1] for key in keys.values()}
    assert (listed["has_more"], listed["next"]) == (False, None)
    invalid = await api.client.get("/v1/admin/dead-letters?limit=0", headers=admin)
    assert (invalid.status_code, invalid.json()["error"]["param"]) == (400, "limit")
    assert (await api.client.get("/v1/admin/dead-letters", headers=admin)).json() == {"object": "list", "data": []}


async def test_a_change_takes_effect_within_seconds(api: Api) -> None:
    key = await api.store.create("mine")
    assert await api.status("GET", "/v1/models", key) == 200
    rotated = await api.store.rotate("mine")
    deadline = time.monotonic() + 3
    while await api.status("GET", "/v1/models", key) == 200:
        assert time.monotonic() < deadline
    assert await api.status("GET", "/v1/models", rotated) == 200
