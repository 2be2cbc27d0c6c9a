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
from api.http.error_responses import error_of, headers_of, status_of
from api.jobs.completions import CompletionListener
from api.jobs.reconciler import Reconciler
from api.metrics import CONTENT_TYPE
from api.pool_monitor import PoolMonitor
from api.settings import ApiSettings
from shared.errors import (
    ConfigurationError,
    InternalError,
    InvalidRequest,
    ModelUnavailable,
    RerankqError,
    ScoringFailed,
    StoreUnavailable,
    Unauthorized,
    WaitTimedOut,
)
from shared.ledger.job_record import JobFailure
from shared.models import ModelRegistry, ModelSpec
from shared.pools.heartbeats import HeartbeatWriter, WorkerState
from shared.score_cache import ScoreWriter
from tests.api.conftest import until_subscribed
from tests.api.support import Worker, http
from tests.shared.support import MODEL, dead_redis_url, make_request, make_scores
from tests.shared.test_errors import LEAVES

BODY: dict[str, Any] = {"query": "q", "documents": ["one", "two"]}
STATUS = {
    "invalid_request": 400,
    "unauthorized": 401,
    "not_found": 404,
    "model_not_found": 404,
    "job_not_found": 404,
    "method_not_allowed": 405,
    "job_not_finished": 409,
    "job_canceled": 409,
    "payload_too_large": 413,
    "request_timed_out": 408,
    "idempotency_conflict": 422,
    "overloaded": 429,
    "scoring_failed": 500,
    "internal_error": 500,
    "configuration": 500,
    "store_unavailable": 503,
    "store_damaged": 503,
    "model_unavailable": 503,
    "job_expired": 504,
    "wait_timed_out": 504,
}
OPEN_AND_CLOSED = {
    "/": 200,
    "/health": 200,
    "/ready": 200,
    "/metrics": 401,
    "/v1/models": 401,
    "/v1/pools": 401,
    f"/v1/pools/{MODEL}": 401,
}
SECRET = "what the traceback would show"
Opener = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


def make_error(kind: type[RerankqError]) -> RerankqError:
    return WaitTimedOut("x", job_id="job-1", retry_after=1) if kind is WaitTimedOut else kind("one sentence")


def faulty(app: FastAPI) -> None:
    async def fail() -> None:
        raise ZeroDivisionError(SECRET)

    for path in ("/v1/fault", "/nebul/fault"):
        app.add_api_route(path, fail)


@pytest.fixture
def open_api(redis_url: str, async_client: redis.asyncio.Redis) -> Opener:
    """Opens an API on the test's Redis, with other settings where they are given."""

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
                await until_subscribed(async_client)
            yield client

    return open_one


@pytest.mark.parametrize(("switched", "status"), [({}, 200), ({"score_cache": False}, 504)])
async def test_known_scores_are_read_unless_they_are_switched_off(
    open_api: Opener, redis_client: Any, switched: dict[str, Any], status: int
) -> None:
    cache = ScoreWriter(redis_client, ModelSpec(name=MODEL), seconds=60, entries=10)
    cache.write(make_request(*BODY["documents"], query="q"), make_scores())
    async with open_api(wait_seconds=0.1, **switched) as client:
        assert (await client.post("/v1/rerank", json=BODY)).status_code == status


class TestErrors:
    @pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.code)
    def test_every_code_has_its_status(self, kind: type[RerankqError]) -> None:
        assert status_of(make_error(kind)) == STATUS[kind.code]

    def test_when_to_come_back_and_where_to_is_in_the_headers(self) -> None:
        assert headers_of(StoreUnavailable("away", retry_after=2)) == {"Retry-After": "2"}
        assert headers_of(ModelUnavailable("down")) == {}
        assert headers_of(WaitTimedOut("x", job_id="job-1", retry_after=1)) == {
            "Retry-After": "1",
            "Location": "/v1/jobs/job-1",
        }
        assert headers_of(Unauthorized("who?")) == {"WWW-Authenticate": "Bearer"}
        assert headers_of(InvalidRequest("no")) == {}

    def test_a_failed_jobs_record_becomes_its_error(self) -> None:
        error = error_of(JobFailure("scoring_failed", "the engine gave up"))
        assert isinstance(error, ScoringFailed)
        assert error.message == "the engine gave up"
        assert isinstance(error_of(None), InternalError)

    def test_an_error_for_operators_never_has_a_status_of_its_own(self) -> None:
        assert status_of(ConfigurationError("the file is not there")) == 500


class TestFaults:
    @pytest.mark.parametrize("path", ["/v1/fault", "/nebul/fault"])
    async def test_a_fault_is_json_with_the_requests_id_and_nothing_of_the_traceback(
        self, open_api: Opener, path: str
    ) -> None:
        async with open_api(extend=faulty) as client:
            answer = await client.get(path, headers={"X-Request-Id": "mine-1"})
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"]["type"] == "internal_error"
        assert "mine-1" in answer.json()["message"]
        for leak in (SECRET, "Traceback", "ZeroDivisionError", ".py"):
            assert leak not in answer.text

    async def test_a_fault_has_the_requests_id_in_its_header_too(self, open_api: Opener) -> None:
        async with open_api(extend=faulty) as client:
            answer = await client.get("/v1/fault", headers={"X-Request-Id": "mine-1"})
        assert answer.headers["X-Request-Id"] == "mine-1"

    async def test_the_log_has_the_fault_under_the_requests_id(
        self, open_api: Opener, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            async with open_api(extend=faulty) as client:
                await client.get("/v1/fault", headers={"X-Request-Id": "mine-1"})
        assert any("mine-1" in record.getMessage() for record in caplog.records)


class TestRoutes:
    async def test_a_call_waits_for_its_result(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client:
            answer = await with_worker(client.post("/v1/rerank", json=BODY), redis_url)
        assert answer.status_code == 200
        assert [row["index"] for row in answer.json()["results"]] == [1, 0]
        assert re.match(r"queue;dur=\d+, inference;dur=0, total;dur=", answer.headers["server-timing"])

    async def test_a_call_that_a_worker_was_started_for_says_how_much_of_the_wait_that_was(
        self, open_api: Opener, redis_url: str
    ) -> None:
        worker = Worker(redis_url, make_scores().model_copy(update={"queue_ms": 9512.0, "start_ms": 9403.2}))
        async with open_api() as client:
            answer = await with_worker(client.post("/v1/rerank", json=BODY), worker)
        timing = answer.headers["server-timing"]
        assert timing.startswith("queue;dur=9512, start;dur=9403.2, inference;dur=0, total;dur=")

    async def test_a_call_under_a_dialects_prefix_speaks_it(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client:
            body = BODY | {"return_documents": True}
            answer = await with_worker(client.post("/nebul/v1/rerank", json=body), redis_url)
        assert [row["document"] for row in answer.json()["results"]] == ["two", "one"]

    @pytest.mark.parametrize("path", ["/v1/v1/rerank", "/v1/v2/rerank", "/cohere/v1/v2/rerank", "/superset/rerank"])
    async def test_paths_that_clients_make_by_mistake_are_served(
        self, open_api: Opener, redis_url: str, path: str
    ) -> None:
        async with open_api() as client:
            answer = await with_worker(client.post(path, json=BODY), redis_url)
        assert (answer.status_code, len(answer.json()["results"])) == (200, 2)

    async def test_the_body_decides_what_the_root_speaks(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client:
            texts = {"query": "q", "texts": ["one", "two"]}
            answer = await with_worker(client.post("/v1/rerank", json=texts), redis_url)
            wrong = await client.post("/v1/rerank", json=texts | {"query": ""})
        assert answer.json() == [{"index": 1, "score": 0.75}, {"index": 0, "score": 0.25}]
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "query")

    async def test_another_dialect_may_be_chosen_for_the_root(self, open_api: Opener, redis_url: str) -> None:
        async with open_api(root_dialect="tei") as client:
            texts = {"query": "q", "texts": ["one", "two"]}
            answer = await with_worker(client.post("/rerank", json=texts), redis_url)
            wrong = await client.post("/rerank", json=BODY)
            elsewhere = await client.get("/v1/jobs/job-x")
            superset = await with_worker(client.post("/superset/v1/rerank", json=BODY), redis_url)
            gone = await client.post("/v1/rerank", json=BODY)
        assert answer.json() == [{"index": 1, "score": 0.75}, {"index": 0, "score": 0.25}]
        assert (wrong.status_code, wrong.json()["error_type"]) == (400, "Empty")
        assert (elsewhere.status_code, elsewhere.json()["error_type"]) == (404, "Validation")
        assert superset.json()["object"] == "rerank"
        assert gone.status_code == 404

    async def test_a_dialects_refusal_has_its_status_and_shape(self, open_api: Opener) -> None:
        async with open_api() as client:
            answers = [await client.post(path, json={}) for path in ("/jina/v1/rerank", "/voyage/v1/rerank")]
            cohere = await client.post("/cohere/v2/rerank", json={}, headers={"X-Request-Id": "mine-1"})
        assert [(answer.status_code, list(answer.json())) for answer in answers] == [
            (422, ["detail"]),
            (400, ["detail"]),
        ]
        assert cohere.json() == {"id": "mine-1", "message": "query is required for rerank"}

    async def test_a_fallback_answers_for_a_model_that_is_not_served(self, open_api: Opener, redis_url: str) -> None:
        body = BODY | {"model": "cohere/nope", "fallbacks": ["neither", f"vllm/{MODEL}"]}
        async with open_api() as client:
            answer = await with_worker(client.post("/bifrost/v1/rerank", json=body), redis_url)
            job = await client.post("/v1/rerank", json=body, headers={"Prefer": "respond-async"})
            nobody = await client.post("/v1/rerank", json=body | {"fallbacks": ["neither"]})
        assert (answer.json()["model"], answer.json()["extra_fields"]["provider"]) == (MODEL, "vllm")
        assert (job.status_code, job.json()["model"]) == (202, MODEL)
        assert (nobody.status_code, "cohere/nope" in nobody.json()["message"]) == (404, True)

    async def test_a_job_that_failed_is_asked_of_the_next_model(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client, asyncio.TaskGroup() as tasks:
            body = BODY | {"fallbacks": ["org/alias"]}
            answering = tasks.create_task(client.post("/v1/rerank", json=body))
            await Worker(redis_url, JobFailure("scoring_failed", "broken")).answer_one()
            await Worker(redis_url).answer_one()
            answer = await answering
        assert (answer.status_code, answer.json()["model"]) == (200, "org/alias")

    async def test_respond_async_gives_a_job(self, open_api: Opener) -> None:
        async with open_api() as client:
            answer = await client.post("/v1/rerank", json=BODY, headers={"Prefer": "respond-async"})
            job = await client.get(answer.headers["location"])
        assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
        assert answer.json() == job.json()
        assert job.json()["progress"] == {"pairs_total": 2, "pairs_done": 0, "shards_total": 1, "shards_done": 0}
        assert "results" not in job.json()

    async def test_under_an_idempotency_key_a_job_is_accepted_once(self, open_api: Opener) -> None:
        headers = {"Prefer": "respond-async", "Idempotency-Key": "mine"}
        async with open_api() as client:
            first, again = [await client.post("/v1/rerank", json=BODY, headers=headers) for _ in range(2)]
            other = await client.post("/v1/rerank", json=BODY | {"top_n": 1}, headers=headers)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.headers["location"] == again.headers["location"]
        error = other.json()["error"]
        assert (other.status_code, error["type"], error["param"]) == (422, "idempotency_conflict", "Idempotency-Key")

    async def test_a_call_that_waits_may_have_an_idempotency_key_too(self, open_api: Opener, redis_url: str) -> None:
        async with open_api() as client:
            headers = {"Idempotency-Key": "mine"}
            first = await with_worker(client.post("/v1/rerank", json=BODY, headers=headers), redis_url)
            again = await client.post("/v1/rerank", json=BODY, headers=headers)
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.content == again.content

    @pytest.mark.parametrize("prefer", ["respond-async", "wait=1"])
    async def test_an_idempotency_key_that_is_none_is_refused(self, open_api: Opener, prefer: str) -> None:
        async with open_api() as client:
            headers = {"Prefer": prefer, "Idempotency-Key": ""}
            answer = await client.post("/v1/rerank", json=BODY, headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")

    async def test_preferences_may_come_in_several_lines(self, open_api: Opener) -> None:
        async with open_api(wait_seconds=0.1) as client:
            lines = [("Prefer", "handling=lenient"), ("Prefer", "respond-async")]
            answer = await client.post("/v1/rerank", json=BODY, headers=lines)
        assert answer.status_code == 202

    async def test_past_the_servers_wait_it_is_504_with_the_job(self, open_api: Opener) -> None:
        async with open_api(wait_seconds=0.05) as client:
            answer = await client.post("/v1/rerank", json=BODY)
            assert answer.status_code == 504
            assert (await client.get(answer.headers["location"])).json()["status"] == "queued"

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
    async def test_every_refusal_is_json(
        self, open_api: Opener, method: str, path: str, status: int, kind: str
    ) -> None:
        async with open_api() as client:
            answer = await client.request(method, path)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (status, status, kind)
        assert answer.headers["x-request-id"]

    async def test_all_that_is_allowed_on_a_path_is_named(self, open_api: Opener) -> None:
        async with open_api() as client:
            answers = {path: await client.patch(path) for path in ("/v1/jobs/job-1", "/v1/rerank", "/v1/models/m")}
        allowed = {path: answer.headers["allow"] for path, answer in answers.items()}
        assert allowed == {"/v1/jobs/job-1": "DELETE, GET, HEAD", "/v1/rerank": "POST", "/v1/models/m": "GET, HEAD"}

    async def test_the_roots_dialect_has_its_signs_of_life_there(self, open_api: Opener) -> None:
        paths = ("/.well-known/ready", "/meta", "/weaviate/meta", "/health")
        for root, statuses in (("weaviate", [200, 200, 200, 200]), ("superset", [404, 404, 200, 200])):
            async with open_api(root_dialect=root) as client:
                assert [(await client.get(path)).status_code for path in paths] == statuses

    async def test_a_model_is_found_by_a_name_with_a_slash(self, open_api: Opener) -> None:
        async with open_api() as client:
            assert (await client.get("/v1/models/org/alias")).json()["id"] == MODEL


class TestOperations:
    async def test_ready_is_redis_also_without_a_worker_since_a_request_wakes_one(
        self, open_api: Opener, redis_client: Any
    ) -> None:
        async with open_api() as client:
            answer = await client.get("/ready")
        assert answer.status_code == 200
        assert answer.json()["models"] == {MODEL: {"ready": 0, "starting": 0, "draining": 0}}
        for number, state in enumerate((WorkerState.READY, WorkerState.DRAINING)):
            HeartbeatWriter(redis_client, MODEL, f"w{number}").beat(state)
        async with open_api() as client:
            answer = await client.get("/ready")
        assert answer.json()["models"] == {MODEL: {"ready": 1, "starting": 0, "draining": 1}}

    async def test_ready_says_why_a_pool_has_no_worker(self, open_api: Opener, redis_client: Any) -> None:
        HeartbeatWriter(redis_client, MODEL, "w1").fail("the weights are not there")
        async with open_api() as client:
            answer = await client.get("/ready")
        assert answer.json()["models"][MODEL]["failure"] == "the weights are not there"

    async def test_metrics_are_prometheus_text(self, open_api: Opener) -> None:
        async with open_api() as client:
            await client.get("/v1/models")
            answer = await client.get("/metrics")
        assert answer.headers["content-type"] == CONTENT_TYPE
        assert f'rerankq_pool_desired_workers{{model="{MODEL}"}} 0.0' in answer.text
        assert 'rerankq_http_requests_total{path="/v1/models",status="200"} 1.0' in answer.text

    @pytest.mark.parametrize("path", ["/metrics", "/v1/pools"])
    async def test_without_redis_no_number_is_made_up(self, open_api: Opener, path: str) -> None:
        async with open_api(redis_url=dead_redis_url()) as client:
            answer = await client.get(path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "store_unavailable")

    async def test_without_redis_it_is_alive_but_not_ready(self, open_api: Opener) -> None:
        async with open_api(redis_url=dead_redis_url()) as client:
            assert (await client.get("/health")).status_code == 200
            answer = await client.get("/ready")
            assert (answer.status_code, answer.json()["store"]) == (503, "unreachable")
            refused = await client.post("/v1/rerank", json=BODY)
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after"]) >= 1

    async def test_whether_a_key_is_required_is_told_without_one(self, open_api: Opener) -> None:
        for required in (True, False):
            async with open_api(keys_required=required) as client:
                answer = await client.get("/v1/cluster/auth")
            assert (answer.status_code, answer.json()) == (200, {"auth": required})

    async def test_clients_of_tei_are_told_what_is_served(self, open_api: Opener) -> None:
        async with open_api() as client:
            answers = [(await client.get(path)).json() for path in ("/info", "/tei/info")]
        assert answers[0] == answers[1]
        assert (answers[0]["served_model_name"], list(answers[0]["model_type"])) == (MODEL, ["reranker"])

    @pytest.mark.parametrize("path", ["/models", "/infinity/models", "/vllm/v1/models", "/gpustack/v1/models"])
    async def test_models_are_listed_where_clients_look(self, open_api: Opener, path: str) -> None:
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
    async def test_a_key_may_come_in_any_of_the_headers(
        self, open_api: Opener, async_client: redis.asyncio.Redis, headers: dict[str, str]
    ) -> None:
        key = await KeyStore(async_client).create("mine")
        async with open_api() as client:
            sent = {name: value.format(key=key) for name, value in headers.items()}
            assert (await client.get("/v1/models", headers=sent)).status_code == 200
            refused = await client.get("/v1/models", headers={"Api-Key": key + "x"})
        assert refused.status_code == 401

    async def test_where_keys_are_required_only_health_and_ready_go_without(self, open_api: Opener) -> None:
        async with open_api(keys_required=True) as client:
            statuses = {path: (await client.get(path)).status_code for path in OPEN_AND_CLOSED}
            refused = await client.post("/v1/rerank", content=b"not even JSON")
        assert statuses == OPEN_AND_CLOSED
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


class TestOrigins:
    ASKED: ClassVar[dict[str, str]] = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,prefer",
    }

    @pytest.mark.parametrize("allowed", ["*", "https://b.example, https://a.example/"])
    async def test_a_page_of_an_allowed_origin_may_call_and_read(self, open_api: Opener, allowed: str) -> None:
        async with open_api(allowed_origins=allowed, keys_required=True) as client:
            asked = await client.options("/v1/rerank", headers=self.ASKED)
            refused = await client.post("/cohere/v2/rerank", json={}, headers={"Origin": "https://a.example"})
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-headers"] == "authorization,content-type,prefer"
        assert refused.status_code == 401
        for answer in (asked, refused):
            assert answer.headers["access-control-allow-origin"] in ("*", "https://a.example")
        assert "Location" in refused.headers["access-control-expose-headers"]

    @pytest.mark.parametrize("allowed", ["", "https://b.example"])
    async def test_others_may_not(self, open_api: Opener, allowed: str) -> None:
        async with open_api(allowed_origins=allowed) as client:
            asked = await client.options("/v1/rerank", headers=self.ASKED)
            got = await client.get("/v1/models", headers={"Origin": "https://a.example"})
        assert asked.status_code in (400, 405)
        for answer in (asked, got):
            assert "access-control-allow-origin" not in answer.headers


async def test_the_address_itself_says_who_answers(open_api: Opener) -> None:
    async with open_api() as client:
        said = (await client.get("/")).json()
        assert said["name"] == "rerankq"
        for path in (said["docs"], said["models"]):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_pages_about_it_fetch_nothing_from_elsewhere(open_api: Opener, page: str) -> None:
    async with open_api() as client:
        text = (await client.get(page)).text
        parts = re.findall(r"""(?:src|href|url)(?:=|: ?)["']([^"']+)""", text)
        assert len(parts) >= 2
        for part in parts:
            assert part.startswith("/"), part
            assert (await client.get(part)).status_code == 200


class TestBackground:
    @pytest.mark.parametrize("part", [CompletionListener, PoolMonitor, Reconciler])
    async def test_without_a_part_that_failed_the_process_ends(
        self, open_api: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: type
    ) -> None:
        raised: list[int] = []
        monkeypatch.setattr("api.app.signal.raise_signal", raised.append)

        async def fail(_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(part, "run", fail)
        # Not every part listens: nobody waits for it here.
        async with open_api(redis_url=dead_redis_url()):
            for _ in range(500):
                if raised:
                    break
                await asyncio.sleep(0.01)
        assert raised == [signal.SIGTERM]
        assert any(record.levelno == logging.CRITICAL for record in caplog.records)

    async def test_a_part_that_was_told_to_end_is_no_fault(
        self, open_api: Opener, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raised: list[int] = []
        monkeypatch.setattr("api.app.signal.raise_signal", raised.append)
        async with open_api():
            pass
        assert raised == []


async def with_worker(call: Any, worker: str | Worker) -> httpx.Response:
    """The answer to a call that a worker, or a new one on that Redis, answers."""
    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(call)
        tasks.create_task((Worker(worker) if isinstance(worker, str) else worker).answer_one())
    answer: httpx.Response = answering.result()
    return answer
