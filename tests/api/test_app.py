import asyncio
import logging
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import httpx
import pytest
import redis.asyncio
from fastapi import FastAPI

from api.app import create_app
from api.auth.key_store import KeyStore
from api.http.error_responses import headers_of, status_of
from api.jobs.completions import CompletionListener
from api.jobs.reconciler import Reconciler
from api.pool_monitor import PoolMonitor
from api.settings import ApiSettings
from shared.errors import (
    ConfigurationError,
    InvalidRequest,
    ModelUnavailable,
    RerankqError,
    StoreUnavailable,
    Unauthorized,
    WaitTimedOut,
)
from shared.ledger.job_record import JobFailure
from shared.models import ModelRegistry, ModelSpec
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from shared.score_cache import ScoreWriter
from tests.api.conftest import wait_until_subscribed
from tests.api.support import Worker, http
from tests.logs import LogLines
from tests.shared.support import MODEL, dead_redis_url, make_request, make_scores
from tests.shared.test_errors import LEAVES

BODY: dict[str, Any] = {"query": "q", "documents": ["one", "two"]}
STATUS = {
    "invalid_request": 400,
    "too_many_documents": 400,
    "text_too_long": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "model_not_found": 404,
    "job_not_found": 404,
    "method_not_allowed": 405,
    "job_not_finished": 409,
    "job_canceled": 409,
    "payload_too_large": 413,
    "batch_not_found": 404,
    "webhook_not_found": 404,
    "file_not_found": 404,
    "file_in_use": 409,
    "payloads_unavailable": 503,
    "payloads_full": 507,
    "payload_missing": 500,
    "request_timed_out": 408,
    "idempotency_conflict": 422,
    "overloaded": 503,
    "rate_limited": 429,
    "scoring_failed": 500,
    "internal_error": 500,
    "configuration": 500,
    "store_unavailable": 503,
    "store_damaged": 503,
    "model_unavailable": 503,
    "job_expired": 504,
    "wait_timed_out": 504,
}
STATUS_WITHOUT_KEY = {
    "/": 200,
    "/health": 200,
    "/ready": 200,
    "/metrics": 401,
    "/v1/models": 401,
    "/v1/pools": 401,
    f"/v1/pools/{MODEL}": 401,
}
SECRET = "a detail in the traceback"
Opener = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


def make_error(kind: type[RerankqError]) -> RerankqError:
    return WaitTimedOut("x", job_id="job-1", retry_after=1) if kind is WaitTimedOut else kind("one sentence")


def add_failing_routes(app: FastAPI) -> None:
    async def fail() -> None:
        raise ZeroDivisionError(SECRET)

    for path in ("/v1/failing", "/nebul/failing"):
        app.add_api_route(path, fail)


@pytest.fixture
def open_api(redis_url: str, async_client: redis.asyncio.Redis) -> Opener:
    """Starts an API on the test's Redis; keyword arguments override its settings."""

    @asynccontextmanager
    async def open_one(
        *, keys_required: bool = False, extend: Callable[[FastAPI], None] | None = None, **settings: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        registry = ModelRegistry([ModelSpec(name=MODEL, aliases=["org/alias"])])
        app = create_app(ApiSettings(**{"redis_url": redis_url} | settings), registry, keys_required=keys_required)
        if extend:
            extend(app)
        async with app.router.lifespan_context(app), http(app) as client:
            if "redis_url" not in settings:
                await wait_until_subscribed(async_client)
            yield client

    return open_one


@pytest.mark.parametrize(("settings", "status"), [({}, 200), ({"score_cache": False}, 504)])
async def test_score_cache_is_read_unless_it_is_disabled(
    open_api: Opener, redis_client: Any, settings: dict[str, Any], status: int
) -> None:
    cache = ScoreWriter(redis_client, ModelSpec(name=MODEL), dtype=None, seconds=60, entries=10)
    cache.write(make_request(*BODY["documents"], query="q"), make_scores())
    async with open_api(wait_seconds=0.1, **settings) as client:
        assert (await client.post("/v1/rerank", json=BODY)).status_code == status


class TestErrors:
    @pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.code)
    def test_status_of_every_error_code(self, kind: type[RerankqError]) -> None:
        assert status_of(make_error(kind)) == STATUS[kind.code]

    def test_headers_of_errors(self) -> None:
        assert headers_of(StoreUnavailable("unreachable", retry_after=2)) == {"Retry-After": "2"}
        assert headers_of(ModelUnavailable("down")) == {}
        assert headers_of(WaitTimedOut("x", job_id="job-1", retry_after=1)) == {
            "Retry-After": "1",
            "Location": "/v1/jobs/job-1",
        }
        assert headers_of(Unauthorized("no key")) == {"WWW-Authenticate": "Bearer"}
        assert headers_of(InvalidRequest("no")) == {}

    def test_errors_for_operators_are_500(self) -> None:
        assert status_of(ConfigurationError("the file does not exist")) == 500


class TestUnhandledExceptions:
    @pytest.mark.parametrize("path", ["/v1/failing", "/nebul/failing"])
    async def test_response_is_json_with_the_request_id_and_without_the_traceback(
        self, open_api: Opener, path: str
    ) -> None:
        async with open_api(extend=add_failing_routes) as client:
            response = await client.get(path, headers={"X-Request-Id": "mine-1"})
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/json"
        assert response.json()["error"]["type"] == "internal_error"
        assert "mine-1" in response.json()["message"]
        for leak in (SECRET, "Traceback", "ZeroDivisionError", ".py"):
            assert leak not in response.text

    async def test_response_has_the_request_id_header(self, open_api: Opener) -> None:
        async with open_api(extend=add_failing_routes) as client:
            response = await client.get("/v1/failing", headers={"X-Request-Id": "mine-1"})
        assert response.headers["X-Request-Id"] == "mine-1"

    async def test_exception_is_logged_with_the_request_id(self, open_api: Opener, logged: LogLines) -> None:
        request_id = "0b9bd6f0-6d3c-4c2c-9d3e-2f0a5a0d7c11"
        async with open_api(extend=add_failing_routes) as client:
            await client.get("/v1/failing", headers={"X-Request-Id": request_id})
        (line,) = [line for line in logged.of() if "exception" in line]
        assert line["request"] == request_id


class TestRoutes:
    async def test_request_waits_for_its_result(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client:
            response = await with_worker(client.post("/v1/rerank", json=BODY), redis_url)
        assert response.status_code == 200
        assert [row["index"] for row in response.json()["results"]] == [1, 0]
        assert re.match(r"queue;dur=\d+, inference;dur=0, total;dur=", response.headers["server-timing"])

    async def test_server_timing_has_the_worker_start(self, open_api: Opener, redis_url: str) -> None:
        worker = Worker(redis_url, make_scores().model_copy(update={"queue_ms": 9512.0, "start_ms": 9403.2}))
        async with open_api() as client:
            response = await with_worker(client.post("/v1/rerank", json=BODY), worker)
        timing = response.headers["server-timing"]
        assert timing.startswith("queue;dur=9512, start;dur=9403.2, inference;dur=0, total;dur=")

    async def test_prefix_selects_the_dialect(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client:
            body = BODY | {"return_documents": True}
            response = await with_worker(client.post("/nebul/v1/rerank", json=body), redis_url)
        assert [row["document"] for row in response.json()["results"]] == ["two", "one"]

    @pytest.mark.parametrize("path", ["/v1/v1/rerank", "/v1/v2/rerank", "/cohere/v1/v2/rerank", "/superset/rerank"])
    async def test_paths_from_wrong_base_urls_are_served(self, open_api: Opener, redis_url: str, path: str) -> None:
        async with open_api() as client:
            response = await with_worker(client.post(path, json=BODY), redis_url)
        assert (response.status_code, len(response.json()["results"])) == (200, 2)

    async def test_body_selects_the_dialect_at_the_root(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client:
            texts = {"query": "q", "texts": ["one", "two"]}
            response = await with_worker(client.post("/v1/rerank", json=texts), redis_url)
            wrong = await client.post("/v1/rerank", json=texts | {"query": ""})
        assert response.json() == [{"index": 1, "score": 0.75}, {"index": 0, "score": 0.25}]
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "query")

    async def test_root_dialect_can_be_configured(self, open_api: Opener, redis_url: str) -> None:
        async with open_api(root_dialect="tei") as client:
            texts = {"query": "q", "texts": ["one", "two"]}
            response = await with_worker(client.post("/rerank", json=texts), redis_url)
            wrong = await client.post("/rerank", json=BODY)
            elsewhere = await client.get("/v1/jobs/job-x")
            superset = await with_worker(client.post("/superset/v1/rerank", json=BODY), redis_url)
            unrouted = await client.post("/v1/rerank", json=BODY)
        assert response.json() == [{"index": 1, "score": 0.75}, {"index": 0, "score": 0.25}]
        assert (wrong.status_code, wrong.json()["error_type"]) == (400, "Empty")
        assert (elsewhere.status_code, elsewhere.json()["error_type"]) == (404, "Validation")
        assert superset.json()["object"] == "rerank"
        assert unrouted.status_code == 404

    async def test_rejection_has_the_dialects_status_and_format(self, open_api: Opener) -> None:
        async with open_api() as client:
            responses = [await client.post(path, json={}) for path in ("/jina/v1/rerank", "/voyage/v1/rerank")]
            cohere = await client.post("/cohere/v2/rerank", json={}, headers={"X-Request-Id": "mine-1"})
        assert [(response.status_code, list(response.json())) for response in responses] == [
            (422, ["detail"]),
            (400, ["detail"]),
        ]
        assert cohere.json() == {"id": "mine-1", "message": "query is required for rerank"}

    async def test_fallback_serves_an_unknown_model(self, open_api: Opener, redis_url: str) -> None:
        body = BODY | {"model": "cohere/nope", "fallbacks": ["neither", f"vllm/{MODEL}"]}
        async with open_api() as client:
            response = await with_worker(client.post("/bifrost/v1/rerank", json=body), redis_url)
            job = await client.post("/v1/rerank", json=body, headers={"Prefer": "respond-async"})
            no_fallback = await client.post("/v1/rerank", json=body | {"fallbacks": ["neither"]})
        assert (response.json()["model"], response.json()["extra_fields"]["provider"]) == (MODEL, "vllm")
        assert (job.status_code, job.json()["model"]) == (202, MODEL)
        assert (no_fallback.status_code, "cohere/nope" in no_fallback.json()["message"]) == (404, True)

    async def test_failed_job_falls_back_to_the_next_model(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client, asyncio.TaskGroup() as tasks:
            body = BODY | {"fallbacks": ["org/alias"]}
            pending = tasks.create_task(client.post("/v1/rerank", json=body))
            await Worker(redis_url, JobFailure("scoring_failed", "broken")).process_one()
            await Worker(redis_url).process_one()
            response = await pending
        assert (response.status_code, response.json()["model"]) == (200, "org/alias")

    async def test_respond_async_returns_a_job(self, open_api: Opener) -> None:
        async with open_api() as client:
            response = await client.post("/v1/rerank", json=BODY, headers={"Prefer": "respond-async"})
            job = await client.get(response.headers["location"])
        assert (response.status_code, response.headers["preference-applied"]) == (202, "respond-async")
        assert response.json() == job.json()
        assert job.json()["progress"] == {"pairs_total": 2, "pairs_done": 0, "shards_total": 1, "shards_done": 0}
        assert "results" not in job.json()

    async def test_idempotency_key_creates_one_job(self, open_api: Opener) -> None:
        headers = {"Prefer": "respond-async", "Idempotency-Key": "mine"}
        async with open_api() as client:
            first, again = [await client.post("/v1/rerank", json=BODY, headers=headers) for _ in range(2)]
            other = await client.post("/v1/rerank", json=BODY | {"top_n": 1}, headers=headers)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.headers["location"] == again.headers["location"]
        error = other.json()["error"]
        assert (other.status_code, error["type"], error["param"]) == (422, "idempotency_conflict", "Idempotency-Key")

    async def test_idempotency_key_works_for_waiting_requests(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client:
            headers = {"Idempotency-Key": "mine"}
            first = await with_worker(client.post("/v1/rerank", json=BODY, headers=headers), redis_url)
            again = await client.post("/v1/rerank", json=BODY, headers=headers)
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.content == again.content

    @pytest.mark.parametrize("prefer", ["respond-async", "wait=1"])
    async def test_empty_idempotency_key_is_rejected(self, open_api: Opener, prefer: str) -> None:
        async with open_api() as client:
            headers = {"Prefer": prefer, "Idempotency-Key": ""}
            response = await client.post("/v1/rerank", json=BODY, headers=headers)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "Idempotency-Key")

    async def test_several_prefer_headers_are_combined(self, open_api: Opener) -> None:
        async with open_api(wait_seconds=0.1) as client:
            lines = [("Prefer", "handling=lenient"), ("Prefer", "respond-async")]
            response = await client.post("/v1/rerank", json=BODY, headers=lines)
        assert response.status_code == 202

    async def test_server_wait_limit_returns_504_with_the_job(self, open_api: Opener) -> None:
        async with open_api(wait_seconds=0.05) as client:
            response = await client.post("/v1/rerank", json=BODY)
            assert response.status_code == 504
            assert (await client.get(response.headers["location"])).json()["status"] == "queued"

    @pytest.mark.parametrize(
        ("method", "path", "status", "kind"),
        [
            ("GET", "/nope", 404, "not_found"),
            ("GET", "/nebul/nope", 404, "not_found"),
            ("GET", "/v1/rerank", 405, "method_not_allowed"),
            ("GET", "/v1/models/nope", 404, "model_not_found"),
            ("GET", "/v1/jobs/job-x", 404, "job_not_found"),
            ("DELETE", "/v1/jobs/job-x", 404, "job_not_found"),
            ("POST", "/v1/rerank", 400, "invalid_request"),
        ],
    )
    async def test_every_rejection_is_json(
        self, open_api: Opener, method: str, path: str, status: int, kind: str
    ) -> None:
        async with open_api() as client:
            response = await client.request(method, path)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["type"]) == (status, status, kind)
        assert response.headers["x-request-id"]

    async def test_allow_header_names_all_methods_of_a_path(self, open_api: Opener) -> None:
        async with open_api() as client:
            responses = {path: await client.patch(path) for path in ("/v1/jobs/job-1", "/v1/rerank", "/v1/models/m")}
        allowed = {path: response.headers["allow"] for path, response in responses.items()}
        assert allowed == {"/v1/jobs/job-1": "DELETE, GET, HEAD", "/v1/rerank": "POST", "/v1/models/m": "GET, HEAD"}

    async def test_health_paths_of_the_root_dialect(self, open_api: Opener) -> None:
        paths = ("/.well-known/ready", "/meta", "/weaviate/meta", "/health")
        for root, statuses in (("weaviate", [200, 200, 200, 200]), ("superset", [404, 404, 200, 200])):
            async with open_api(root_dialect=root) as client:
                assert [(await client.get(path)).status_code for path in paths] == statuses

    async def test_model_names_may_contain_a_slash(self, open_api: Opener) -> None:
        async with open_api() as client:
            assert (await client.get("/v1/models/org/alias")).json()["id"] == MODEL

    async def test_a_models_precision_is_null_until_a_worker_has_loaded_it(
        self, open_api: Opener, redis_client: Any
    ) -> None:
        async with open_api() as client:
            assert (await client.get(f"/v1/models/{MODEL}")).json()["dtype"] is None
            assert (await client.get("/info")).json()["model_dtype"] == "auto"
        HeartbeatWriter(redis_client, MODEL, "w1").beat(WorkerState.READY, dtype="bfloat16")
        async with open_api() as client:
            assert (await client.get(f"/v1/models/{MODEL}")).json()["dtype"] == "bfloat16"
            assert (await client.get("/info")).json()["model_dtype"] == "bfloat16"


class TestOperations:
    async def test_ready_needs_redis_but_no_worker(self, open_api: Opener, redis_client: Any) -> None:
        async with open_api() as client:
            response = await client.get("/ready")
        assert response.status_code == 200
        assert response.json()["models"] == {MODEL: {"ready": 0, "starting": 0, "draining": 0}}
        for number, state in enumerate((WorkerState.READY, WorkerState.DRAINING)):
            HeartbeatWriter(redis_client, MODEL, f"w{number}").beat(state)
        async with open_api() as client:
            response = await client.get("/ready")
        assert response.json()["models"] == {MODEL: {"ready": 1, "starting": 0, "draining": 1}}

    async def test_ready_reports_why_a_pool_has_no_worker(self, open_api: Opener, redis_client: Any) -> None:
        HeartbeatWriter(redis_client, MODEL, "w1").fail("the weights do not exist")
        async with open_api() as client:
            response = await client.get("/ready")
        assert response.json()["models"][MODEL]["failure"] == "the weights do not exist"

    async def test_metrics_are_prometheus_text(self, open_api: Opener) -> None:
        async with open_api() as client:
            await client.get("/v1/models")
            response = await client.get("/metrics")
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert f'rerankq_pool_desired_workers{{model="{MODEL}"}} 0.0' in response.text
        assert 'rerankq_http_requests_total{route="/v1/models",status="200"} 1.0' in response.text

    @pytest.mark.parametrize("path", ["/metrics", "/v1/pools"])
    async def test_unreachable_redis_makes_pool_numbers_unavailable(self, open_api: Opener, path: str) -> None:
        async with open_api(redis_url=dead_redis_url()) as client:
            response = await client.get(path)
        assert (response.status_code, response.json()["error"]["type"]) == (503, "store_unavailable")

    async def test_unreachable_redis_is_healthy_but_not_ready(self, open_api: Opener) -> None:
        async with open_api(redis_url=dead_redis_url()) as client:
            assert (await client.get("/health")).status_code == 200
            response = await client.get("/ready")
            assert (response.status_code, response.json()["store"]) == (503, "unreachable")
            rejected = await client.post("/v1/rerank", json=BODY)
        assert (rejected.status_code, rejected.json()["error"]["type"]) == (503, "store_unavailable")
        assert int(rejected.headers["retry-after"]) >= 1

    async def test_cluster_auth_needs_no_key(self, open_api: Opener) -> None:
        for required in (True, False):
            async with open_api(keys_required=required) as client:
                response = await client.get("/v1/cluster/auth")
            assert (response.status_code, response.json()) == (200, {"auth": required})

    async def test_tei_info_is_served(self, open_api: Opener) -> None:
        async with open_api() as client:
            responses = [(await client.get(path)).json() for path in ("/info", "/tei/info")]
        assert responses[0] == responses[1]
        assert (responses[0]["served_model_name"], list(responses[0]["model_type"])) == (MODEL, ["reranker"])

    @pytest.mark.parametrize("path", ["/models", "/infinity/models", "/vllm/v1/models", "/gpustack/v1/models"])
    async def test_models_are_listed_at_every_dialects_path(self, open_api: Opener, path: str) -> None:
        async with open_api() as client:
            assert (await client.get(path)).json() == (await client.get("/v1/models")).json()

    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": "Bearer {key}"},
            {"Authorization": "BEARER {key}"},
            {"Api-Key": "{key}"},
            {"api-key": "{key}", "Authorization": "Basic abc"},
            {"Api-Key": "wrong", "Authorization": "bearer {key}"},
            {"X-Api-Key": "{key}"},
        ],
    )
    async def test_key_is_read_from_several_headers(
        self, open_api: Opener, async_client: redis.asyncio.Redis, headers: dict[str, str]
    ) -> None:
        key = await KeyStore(async_client).create("mine")
        async with open_api() as client:
            sent = {name: value.format(key=key) for name, value in headers.items()}
            assert (await client.get("/v1/models", headers=sent)).status_code == 200
            rejected = await client.get("/v1/models", headers={"Api-Key": key + "x"})
        assert rejected.status_code == 401

    async def test_only_health_and_ready_need_no_key(self, open_api: Opener) -> None:
        async with open_api(keys_required=True) as client:
            statuses = {path: (await client.get(path)).status_code for path in STATUS_WITHOUT_KEY}
            rejected = await client.post("/v1/rerank", content=b"not even JSON")
        assert statuses == STATUS_WITHOUT_KEY
        assert (rejected.status_code, rejected.headers["www-authenticate"]) == (401, "Bearer")


class TestOrigins:
    PREFLIGHT_HEADERS: ClassVar[dict[str, str]] = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,prefer",
    }

    @pytest.mark.parametrize("allowed", ["*", "https://b.example, https://a.example/"])
    async def test_allowed_origin_may_send_requests(self, open_api: Opener, allowed: str) -> None:
        async with open_api(allowed_origins=allowed, keys_required=True) as client:
            preflight = await client.options("/v1/rerank", headers=self.PREFLIGHT_HEADERS)
            rejected = await client.post("/cohere/v2/rerank", json={}, headers={"Origin": "https://a.example"})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-headers"] == "authorization,content-type,prefer"
        assert rejected.status_code == 401
        for response in (preflight, rejected):
            assert response.headers["access-control-allow-origin"] in ("*", "https://a.example")
        assert "Location" in rejected.headers["access-control-expose-headers"]

    @pytest.mark.parametrize("allowed", ["", "https://b.example"])
    async def test_other_origins_are_rejected(self, open_api: Opener, allowed: str) -> None:
        async with open_api(allowed_origins=allowed) as client:
            preflight = await client.options("/v1/rerank", headers=self.PREFLIGHT_HEADERS)
            got = await client.get("/v1/models", headers={"Origin": "https://a.example"})
        assert preflight.status_code in (400, 405)
        for response in (preflight, got):
            assert "access-control-allow-origin" not in response.headers


async def test_root_path_identifies_the_service(open_api: Opener) -> None:
    async with open_api() as client:
        welcome = (await client.get("/")).json()
        assert welcome["name"] == "rerankq"
        for path in (welcome["docs"], welcome["models"]):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_documentation_pages_load_only_local_assets(open_api: Opener, page: str) -> None:
    async with open_api() as client:
        text = (await client.get(page)).text
        assets = re.findall(r"""(?:src|href|url)(?:=|: ?)["']([^"']+)""", text)
        assert len(assets) >= 2
        for asset in assets:
            assert asset.startswith("/"), asset
            assert (await client.get(asset)).status_code == 200


class TestBackground:
    @pytest.mark.parametrize("part", [CompletionListener, PoolMonitor, Reconciler])
    async def test_failed_background_task_stops_the_process(
        self, open_api: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: type
    ) -> None:
        raised: list[int] = []
        monkeypatch.setattr("api.app.signal.raise_signal", raised.append)

        async def fail(_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(part, "run", fail)
        # With dead_redis_url, open_api does not wait for a subscription: the listener may be the failed task.
        async with open_api(redis_url=dead_redis_url()):
            for _ in range(500):
                if raised:
                    break
                await asyncio.sleep(0.01)
        assert raised == [signal.SIGTERM]
        assert any(record.levelno == logging.CRITICAL for record in caplog.records)

    async def test_regular_shutdown_sends_no_signal(self, open_api: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
        raised: list[int] = []
        monkeypatch.setattr("api.app.signal.raise_signal", raised.append)
        async with open_api():
            pass
        assert raised == []


async def with_worker(call: Any, worker: str | Worker) -> httpx.Response:
    """Run the call while the worker, or a new one for that Redis URL, processes one shard."""
    async with asyncio.TaskGroup() as tasks:
        pending = tasks.create_task(call)
        tasks.create_task((Worker(worker) if isinstance(worker, str) else worker).process_one())
    response: httpx.Response = pending.result()
    return response
