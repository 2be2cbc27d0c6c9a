"""The bodies of run and runsync: forms of the input, policies, webhooks, endpoints and keys."""

from typing import Any

import httpx
import pytest

from shared.keys import job_keys
from tests.api.routes.runpod.conftest import ALIAS, DOCS, ENDPOINT, Api, error_of
from tests.shared.support import MODEL, StoreView

OURS = {"query": "q", "documents": ["a", "b"], "top_n": 1}
SUPERSET_KEYS = {"id", "object", "created", "model", "results", "data", "usage", "meta"}


async def output_of(api: Api, given: Any, path: str = f"{ENDPOINT}/run") -> dict[str, Any]:
    job_id = await api.run(given, path)
    await api.worker.process_one()
    job = await api.read(job_id)
    assert job["status"] == "COMPLETED"
    output: dict[str, Any] = job["output"]
    return output


class TestInputs:
    async def test_infinity_worker_returns_rows_in_the_order_of_the_input(self, api: Api) -> None:
        output = await output_of(api, DOCS | {"return_docs": True})
        assert output == {
            "model": MODEL,
            "results": [
                {"index": 0, "relevance_score": 0.25, "document": "a"},
                {"index": 1, "relevance_score": 0.75, "document": "b"},
            ],
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }

    async def test_our_own_input_returns_the_superset(self, api: Api) -> None:
        output = await output_of(api, OURS | {"raw_scores": True})
        assert set(output) == SUPERSET_KEYS
        assert [(row["index"], row["relevance_score"]) for row in output["results"]] == [(1, 0.75)]

    @pytest.mark.parametrize(
        "given",
        [
            {"route": "/v1/rerank", "method": "POST", "body": OURS},
            {"openai_route": "/v1/rerank", "openai_input": OURS},
            {"openai_route": "v1/rerank", "openai_input": OURS | {"model": ALIAS}},
        ],
    )
    async def test_worker_vllm_answers_as_vllm_does(self, api: Api, given: dict[str, Any]) -> None:
        output = await output_of(api, given)
        assert set(output) == {"id", "model", "usage", "results"}
        assert [row["index"] for row in output["results"]] == [1]

    async def test_route_selects_the_dialect(self, api: Api) -> None:
        score = {"route": "/score", "method": "post", "body": {"text_1": "q", "text_2": ["a", "b"]}}
        assert [row["score"] for row in (await output_of(api, score))["data"]] == [0.25, 0.75]
        tei = {"route": "/tei/rerank", "body": {"query": "q", "texts": ["c", "d"]}}
        rows: Any = await output_of(api, tei)
        assert [row["index"] for row in rows] == [1, 0]

    async def test_output_is_that_of_v1_jobs_byte_for_byte(self, api: Api) -> None:
        job_id = await api.run(OURS)
        await api.worker.process_one()
        status = (await api.mine.get(f"{ENDPOINT}/status/{job_id}")).content
        assert (await api.mine.get(f"/v1/jobs/{job_id}/results")).content in status
        assert (await api.mine.get(f"{ENDPOINT}/status/{job_id}")).content == status

    @pytest.mark.parametrize(
        ("given", "param"),
        [
            (None, "input"),
            ("text", "input"),
            ({}, "input.query"),
            ({"input": DOCS}, "input.documents"),
            (DOCS | {"query": " "}, "input.query"),
            (DOCS | {"docs": [1]}, "input.docs[0]"),
            (OURS | {"top_n": 0}, "input.top_n"),
            (OURS | {"model": "unknown"}, "input.model"),
            (OURS | {"model": "another-model"}, "input.model"),
            ({"route": "/v1/models", "body": OURS}, "input.route"),
            ({"route": 3, "body": OURS}, "input.route"),
            ({"route": "/v1/rerank", "method": "GET", "body": OURS}, "input.method"),
            ({"route": "/v1/rerank"}, "input.body"),
            ({"openai_route": "/v1/rerank", "openai_input": OURS | {"query": 1}}, "input.openai_input.query"),
            ([], "input"),
            ([DOCS, "text"], "input[1]"),
            ([DOCS, OURS | {"top_n": 0}], "input[1].top_n"),
            ({"inputs": DOCS}, "input.inputs"),
            ({"inputs": [DOCS, {}]}, "input.inputs[1].query"),
        ],
    )
    async def test_error_names_the_field(self, api: Api, given: Any, param: str) -> None:
        for operation in ("run", "runsync"):
            response = await api.mine.post(f"{ENDPOINT}/{operation}", json={"input": given})
            assert error_of(response) == (400, param)

    async def test_body_must_be_json(self, api: Api) -> None:
        assert error_of(await api.mine.post(f"{ENDPOINT}/run", content=b"{"))[0] == 400
        assert error_of(await api.mine.post(f"{ENDPOINT}/run", json=[DOCS]))[0] == 400


class TestPolicies:
    async def test_ttl_counts_from_the_submission_and_deletes_the_job(self, api: Api, store: StoreView) -> None:
        job_id = await api.run(policy={"ttl": 30_000})
        await api.worker.process_one()
        assert (await api.read(job_id))["status"] == "COMPLETED"
        assert 20 < store.remaining_seconds(job_keys.job(job_id)) <= 30

    async def test_execution_timeout_counts_from_the_start(self, api: Api, store: StoreView) -> None:
        job_id = await api.run(policy={"executionTimeout": 45_000})
        assert store.remaining_seconds(job_keys.job(job_id)) > 60
        redis = store._client
        assert int(redis.hget(job_keys.job(job_id), "execution_ms")) == 45_000

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"policy": "fast"}, "policy"),
            ({"policy": {"ttl": 0}}, "policy.ttl"),
            ({"policy": {"ttl": "1000"}}, "policy.ttl"),
            ({"policy": {"ttl": True}}, "policy.ttl"),
            ({"policy": {"executionTimeout": 604_800_001}}, "policy.executionTimeout"),
            ({"policy": {"lowPriority": 1}}, "policy.lowPriority"),
            ({"webhook": {"url": "https://example.com"}}, "webhook"),
            ({"webhook": "http://example.com"}, "webhook"),
            ({"policy": {"lowPriority": True}, "webhook": "https://169.254.169.254/latest"}, "webhook"),
            ({"policy": {"lowPriority": True, "executionTimeout": 9000}}, "policy.executionTimeout"),
        ],
    )
    async def test_error_names_the_field(self, api: Api, fields: dict[str, Any], param: str) -> None:
        assert error_of(await api.mine.post(f"{ENDPOINT}/run", json={"input": DOCS} | fields)) == (400, param)

    async def test_nulls_and_unknown_fields_are_ignored(self, api: Api) -> None:
        fields: dict[str, Any] = {
            "policy": {"ttl": None, "unknown": 1},
            "webhook": None,
            "s3Config": {"bucketName": "b"},
        }
        assert (await api.run(**fields)).startswith("job-")
        assert (await api.run(policy=None, webhook="")).startswith("job-")

    async def test_job_of_low_priority_waits_for_a_running_worker(self, api: Api) -> None:
        job_id = await api.run(policy={"lowPriority": True, "ttl": 60_000})
        job = (await api.mine.get(f"/v1/jobs/{job_id}")).json()
        assert (job["wake"], job["expires"] - job["created"]) == ("when_warm", 60)
        assert (await api.read(job_id))["status"] == "IN_QUEUE"
        assert (await api.post(f"cancel/{job_id}"))["status"] == "CANCELLED"


class TestEndpoints:
    @pytest.mark.parametrize("name", [MODEL, ALIAS, ALIAS.replace("/", "%2F"), ALIAS.lower(), "default"])
    async def test_endpoint_is_a_model(self, api: Api, name: str) -> None:
        output = await output_of(api, DOCS, f"/runpod/v2/{name}/run")
        assert output["model"] == (MODEL if name == "default" else name.replace("%2F", "/"))

    @pytest.mark.parametrize(
        ("method", "operation"),
        [
            *(("POST", name) for name in ("run", "runsync", "purge-queue", "cancel/job-x", "retry/job-x")),
            *(("GET", name) for name in ("health", "status/job-x", "status-sync/job-x", "stream/job-x")),
        ],
    )
    async def test_unknown_endpoint_is_not_found(self, api: Api, method: str, operation: str) -> None:
        response = await api.mine.request(method, f"/runpod/v2/unknown/{operation}", json={"input": DOCS})
        assert error_of(response) == (404, "endpoint")

    async def test_other_paths_and_methods_have_errors_of_this_api(self, api: Api) -> None:
        assert error_of(await api.mine.get("/runpod/v2/nowhere")) == (404, None)
        assert error_of(await api.mine.get(f"{ENDPOINT}/run")) == (405, None)


class TestKeys:
    async def test_bare_key_is_accepted_here_only(self, api: Api) -> None:
        bare = {"Authorization": api.key}
        assert (await api.mine.get(f"{ENDPOINT}/health", headers=bare)).status_code == 200
        assert (await api.mine.get("/v1/jobs", headers=bare)).status_code == 401

    @pytest.mark.parametrize("authorization", ["", "nonsense", "Bearer nonsense", "Basic bWU6eW91", "Bearer"])
    async def test_wrong_key_is_unauthorized(self, api: Api, authorization: str) -> None:
        headers = {"Authorization": authorization}
        response: httpx.Response = await api.mine.post(f"{ENDPOINT}/run", json={"input": DOCS}, headers=headers)
        assert error_of(response) == (401, None)
        assert response.headers["www-authenticate"] == "Bearer"
