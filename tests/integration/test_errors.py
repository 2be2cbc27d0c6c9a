"""Every error response is JSON with a one-sentence message and no traceback."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local.redis_server import start_redis
from infra.local.stack import Stack
from shared.processes import stop_all
from tests.stacks import PANDA, client_of, running, write_models


def assert_error(response: httpx.Response, status: int, message: str) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["message"]) == (status, message)
    assert body["detail"] == body["error"]["message"] == message
    assert "Traceback" not in response.text
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("change", "message", "param"),
    [
        ({"query": None}, "query is required for rerank", "query"),
        ({"query": " "}, "query is required for rerank", "query"),
        ({"documents": []}, "documents are required for rerank", "documents"),
        ({"documents": None}, "documents are required for rerank", "documents"),
        (
            {"documents": ["a", {"id": "b"}]},
            "document text is required for rerank at index 1",
            "documents[1].text",
        ),
        ({"documents": "text"}, "documents must be a list", "documents"),
        ({"documents": [1]}, "documents[0] must be a string or an object with text", "documents[0]"),
        ({"top_n": 0}, "top_n must be at least 1", "top_n"),
        (
            {"priority": 1000},
            "priority: input should be less than or equal to 999",
            "priority",
        ),
    ],
)
def test_invalid_field_is_named(client: httpx.Client, change: dict[str, Any], message: str, param: str) -> None:
    error = assert_error(client.post("/v1/rerank", json=PANDA | change), 400, message)
    assert (error["param"], error["type"]) == (param, "invalid_request")


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b'"text"', b"\xff\xfe", b'{"query": NaN}', b'{"query": "\\ud8"}'])
def test_body_that_is_not_a_json_object_is_rejected(client: httpx.Client, body: bytes) -> None:
    response = client.post("/v1/rerank", content=body)
    assert response.status_code == 400
    assert "JSON" in response.json()["message"]


def test_body_over_the_limit_is_413_with_and_without_content_length(slow_client: httpx.Client) -> None:
    large = json.dumps(PANDA | {"documents": ["x" * 5000]}).encode()
    message = "the body is over the limit of 4096 bytes"
    assert_error(slow_client.post("/v1/rerank", content=large), 413, message)
    chunks = (large[start : start + 1000] for start in range(0, len(large), 1000))
    assert_error(slow_client.post("/v1/rerank", content=chunks), 413, message)


def test_unknown_model_is_404(client: httpx.Client) -> None:
    message = "model 'nope' is not served here; served: all-MiniLM-L6-v2"
    assert_error(client.post("/v1/rerank", json=PANDA | {"model": "nope"}), 404, message)


def test_unknown_path_is_404_and_unknown_method_is_405(client: httpx.Client) -> None:
    assert_error(client.get("/nope"), 404, "there is nothing at /nope")
    response = client.get("/v1/rerank")
    assert_error(response, 405, "GET is not allowed here")
    assert response.headers["allow"] == "POST"


def test_unknown_job_is_404(client: httpx.Client) -> None:
    for response in (
        client.get("/v1/jobs/job-x"),
        client.get("/v1/jobs/job-x/results"),
        client.post("/v1/jobs/job-x/cancel"),
        client.delete("/v1/jobs/job-x"),
    ):
        assert_error(response, 404, "there is no job 'job-x'")


def test_wait_timeout_is_504_and_the_job_continues(slow_client: httpx.Client) -> None:
    response = slow_client.post("/v1/rerank", json=PANDA)
    assert response.status_code == 504
    assert int(response.headers["retry-after"]) >= 1
    location = response.headers["location"]
    assert_error(response, 504, f"no result within 0.4 s; the job continues at {location}")
    assert poll(slow_client, location)["status"] == "succeeded"


def test_prefer_wait_timeout_is_202(slow_client: httpx.Client) -> None:
    response = slow_client.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async, wait=1"})
    assert (response.status_code, response.headers["preference-applied"]) == (202, "wait=1")
    assert response.json()["status"] in ("queued", "running")


def test_result_of_an_unfinished_job_is_409(slow_client: httpx.Client) -> None:
    job_id = slow_client.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async"}).json()["id"]
    response = slow_client.get(f"/v1/jobs/{job_id}/results")
    assert response.status_code == 409
    assert response.json()["error"]["type"] == "job_not_finished"


def test_result_of_a_canceled_job_is_409(slow_client: httpx.Client) -> None:
    job_id = slow_client.post("/v1/rerank", json=PANDA, headers={"Prefer": "respond-async"}).json()["id"]
    assert slow_client.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "canceled"
    assert_error(slow_client.get(f"/v1/jobs/{job_id}/results"), 409, f"the job {job_id} was canceled")


def test_disconnected_client_cancels_its_job(slow_stack: Stack, slow_client: httpx.Client) -> None:
    before = set(jobs_in_store(slow_stack))
    body = json.dumps(PANDA).encode()
    head = f"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", slow_stack.port)) as caller:
        caller.sendall(head + body)
        job_id = wait_for_new_job(slow_stack, before)
    assert poll(slow_client, f"/v1/jobs/{job_id}")["status"] == "canceled"


def test_model_that_failed_to_start_is_503_with_the_reason(tmp_path: Path) -> None:
    models = write_models(tmp_path, engine_args={"delay_seconds": "soon"})
    with running(engine=None, ready=False, environment={"RERANKQ_MODELS_FILE": models}) as stack:
        deadline = time.monotonic() + 30
        response = None
        with client_of(stack) as client:
            while time.monotonic() < deadline and (response is None or response.status_code != 503):
                try:
                    response = client.post("/v1/rerank", json=PANDA)
                except httpx.TransportError:
                    time.sleep(0.1)
            assert response is not None
            reason = "engine_args.delay_seconds must be a number of seconds, 0 or more"
            message = f"model 'test-model' failed to start: {reason}"
            assert_error(response, 503, message)
            assert int(response.headers["retry-after"]) >= 1
            assert client.get("/ready").json()["models"]["test-model"]["failure"] == reason


def test_unreachable_redis_is_503_until_redis_returns(tmp_path: Path) -> None:
    with running() as stack, client_of(stack) as client:
        stop_all([stack.child("redis")], grace_seconds=5)
        response = client.post("/v1/rerank", json=PANDA)
        assert_error(response, 503, "the job store cannot be reached; try again")
        assert client.get("/health").status_code == 200
        port = int(stack.redis_url.rpartition(":")[2].split("/")[0])
        restarted, _ = start_redis(tmp_path, {}, port)
        try:
            deadline = time.monotonic() + 30
            while (response := client.post("/v1/rerank", json=PANDA)).status_code != 200:
                assert time.monotonic() < deadline, response.text
                time.sleep(0.2)
        finally:
            stop_all([restarted], grace_seconds=5)


def poll(client: httpx.Client, location: str, seconds: float = 15) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        job: dict[str, Any] = client.get(location).json()
        if job["status"] not in ("queued", "running") or time.monotonic() > deadline:
            return job
        time.sleep(0.1)


def jobs_in_store(stack: Stack) -> list[str]:
    import redis

    with redis.Redis.from_url(stack.redis_url) as store:
        names = [key.decode() for key in store.scan_iter("rerankq:job:job-*")]
    return [name.split(":")[2] for name in names if name.count(":") == 2]


def wait_for_new_job(stack: Stack, before: set[str]) -> str:
    deadline = time.monotonic() + 5
    while not (new := set(jobs_in_store(stack)) - before):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return new.pop()
