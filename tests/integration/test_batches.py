"""Batches and jobs of many requests on the whole stack, with hostile inputs and killed processes."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local.stack import Options, Stack
from tests.cycles import ask
from tests.integration.test_scale_to_zero import two_models, wait_for_no_worker
from tests.stacks import PANDA, autoscaler_messages, client_of, running, workers_of, write_models
from tests.worker.support import wait_until

LONG_LINE_BYTES = 50 << 20


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running(environment={"RERANKQ_SHARD_TOKENS": "2000"}) as started:
        yield started


def payloads(stack: Stack) -> list[Path]:
    """The files in the stack's payload store, unfinished ones included."""
    return [path for path in (stack.log("api").parent / "payloads").rglob("*") if path.is_file()]


def line(number: int, **fields: Any) -> bytes:
    return json.dumps({"custom_id": f"r{number}", "body": PANDA} | fields).encode()


def lines(count: int, **fields: Any) -> bytes:
    return b"".join(line(number, **fields) + b"\n" for number in range(count))


def create(client: httpx.Client, content: bytes, **fields: Any) -> str:
    """Upload an input, and create a batch of it. Returns the batch's id."""
    form = {"file": ("in.jsonl", content)}
    file = client.post("/v1/files", files=form, data={"purpose": "batch"})
    assert file.status_code == 200, file.text
    body = {"input_file_id": file.json()["id"], "endpoint": "/v1/rerank", "completion_window": "24h"} | fields
    batch = client.post("/v1/batches", json=body)
    assert batch.status_code == 200, batch.text
    return str(batch.json()["id"])


def wait_for(client: httpx.Client, path: str, *statuses: str, seconds: float = 40.0) -> dict[str, Any]:
    """Wait until the batch or job at this path has one of these statuses."""
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = client.get(path).json()
        if found["status"] in statuses:
            return found
        assert found["status"] not in ("failed", "expired", "cancelled", "completed"), found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def rows(client: httpx.Client, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    return [json.loads(text) for text in client.get(f"/v1/files/{file_id}/content").content.splitlines()]


def run(client: httpx.Client, content: bytes, **fields: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run a batch to its end. Returns the rows of its output and of its error file."""
    batch = wait_for(client, f"/v1/batches/{create(client, content, **fields)}", "completed")
    return rows(client, batch["output_file_id"]), rows(client, batch["error_file_id"])


def test_line_has_the_answer_that_a_call_gets(client: httpx.Client) -> None:
    """In the dialect of its url; also with a BOM, CRLF, blank lines, and no line break at the end."""
    bodies: dict[str, Any] = {
        "/v1/rerank": PANDA,
        "/cohere/v2/rerank": {"model": "all-MiniLM-L6-v2"} | PANDA,
        "/tei/rerank": {"query": PANDA["query"], "texts": PANDA["documents"]},
        "/v1/score": {"text_1": PANDA["query"], "text_2": PANDA["documents"]},
        "/tei/rerank/": {"query": "", "texts": ["one"]},
    }
    lines = [json.dumps({"url": url, "body": body}).encode() for url, body in bodies.items()]
    output, errors = run(client, b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines))
    assert [row["line"] for row in (*output, *errors)] == [1, 3, 5, 7, 9]
    for row, (url, body) in zip((*output, *errors), bodies.items(), strict=True):
        answer = client.post(url, json=body)
        assert row["response"]["status_code"] == answer.status_code
        assert without_identity(row["response"]["body"]) == without_identity(answer.json())


def without_identity(body: Any) -> Any:
    """An answer without what differs between two calls."""
    changing = ("id", "created", "meta", "request_id")
    return {name: value for name, value in body.items() if name not in changing} if isinstance(body, dict) else body


def test_bad_lines_fail_alone(client: httpx.Client) -> None:
    bad = [b"\xff\xfe", b"[]", b"no JSON", b"{}", line(1, url="/v1/embeddings"), line(2, body=PANDA | {"model": "no"})]
    output, errors = run(client, b"\n".join([*bad, line(3)]))
    assert [row["custom_id"] for row in output] == ["r3"]
    assert [(row["line"], row["response"]["status_code"]) for row in errors] == [
        *((number, 400) for number in range(1, 6)),
        (6, 404),
    ]
    assert "UTF-8" in errors[0]["error"]["message"]


def test_line_of_50_megabytes_fails_alone(client: httpx.Client) -> None:
    long = line(1, body=PANDA | {"query": "x" * LONG_LINE_BYTES})
    output, errors = run(client, b"\n".join([line(0), long, line(2)]))
    assert [row["custom_id"] for row in output] == ["r0", "r2"]
    assert [(row["line"], row["response"]["status_code"]) for row in errors] == [(2, 413)]
    assert re.fullmatch(r"the line is over the limit of \d+ bytes", errors[0]["error"]["message"])


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "empty_file"), (b"\n\r\n", "empty_file"), (line(1) + b"\n" + line(1), "duplicate_custom_id")],
)
def test_unusable_input_fails_the_batch(client: httpx.Client, content: bytes, code: str) -> None:
    batch = wait_for(client, f"/v1/batches/{create(client, content)}", "failed")
    assert [error["code"] for error in batch["errors"]["data"]] == [code]
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)


def test_upload_that_breaks_off_leaves_nothing(stack: Stack, client: httpx.Client) -> None:
    before = set(payloads(stack)), client.get("/v1/files").json()
    head = (
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as connection:
        connection.sendall(head + b"{}\n" * 1_000_000)
        wait_until(lambda: set(payloads(stack)) != before[0])
    wait_until(lambda: set(payloads(stack)) == before[0])
    assert client.get("/v1/files").json() == before[1]


def test_job_of_many_requests_is_followed_and_read_in_pages(client: httpx.Client) -> None:
    requests = [{"custom_id": f"r{number}", **PANDA} for number in range(250)]
    requests[7] = {"custom_id": "bad"}
    job = client.post("/v1/jobs", json={"requests": requests}).json()
    seen: list[int] = []
    while len(seen) < 250:
        # The client disconnects after a hundred results, and continues behind the last one.
        seen += follow(client, job["id"], len(seen), 100)
    assert seen == list(range(250))
    assert wait_for(client, f"/v1/jobs/{job['id']}", "succeeded")["progress"]["requests_failed"] == 1
    pages, after = [], 0
    while True:
        page = client.get(f"/v1/jobs/{job['id']}/results", params={"after": after, "limit": 120}).json()
        pages.append([row["index"] for row in page["data"]])
        if not page["has_more"]:
            break
        after = page["next"]
    assert [len(page) for page in pages] == [120, 120, 10]
    assert list(chain(*pages)) == list(range(250))


def follow(client: httpx.Client, job_id: str, after: int, most: int) -> list[int]:
    """The positions of up to `most` results that the events after this one name."""
    found: list[int] = []
    headers = {"Last-Event-ID": str(after)} if after else {}
    with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
        name = ""
        for text in response.iter_lines():
            name = text.removeprefix("event: ") if text.startswith("event: ") else name
            if text.startswith("data: ") and name == "result":
                found.append(json.loads(text.removeprefix("data: "))["index"])
            if len(found) == most or (name == "end" and text.startswith("data: ")):
                break
    return found


def test_batch_of_a_killed_process_is_continued_by_another(stack: Stack, client: httpx.Client) -> None:
    """Two processes of the API share Redis and the payload store. One of them dies, and its runner with it."""
    environment = {"RERANKQ_PAYLOADS": str(stack.log("api").parent / "payloads"), "RERANKQ_SCORE_CACHE": "false"}
    options = Options(port=0, redis_url=stack.redis_url, engine="lexical", workers=0, environment=environment)
    with Stack(options) as second:
        second.start_service()
        second.wait_ready(60)
        with client_of(second) as other:
            count = 3000
            path = f"/v1/batches/{create(client, lines(count))}"
            wait_until(lambda: other.get(path).json()["progress"]["requests_done"] > 50, seconds=20)
            os.kill(stack.child("api").pid, signal.SIGKILL)
            batch = wait_for(other, path, "completed")
            output = rows(other, batch["output_file_id"])
            assert [row["custom_id"] for row in output] == [f"r{number}" for number in range(count)]
            assert batch["request_counts"] == {"total": count, "completed": count, "failed": 0}
    wait_until(lambda: not stack.restart_ended() and stack.child("api").exit_status is None, seconds=20)
    stack.wait_ready(60)


def test_job_that_waits_for_a_worker_starts_none() -> None:
    """It runs when a call has started one, and the pool scales to zero again."""
    # The runner looks at the pool once a second.
    with running(pool={"idle_seconds": 2.5}) as stack, client_of(stack) as client:
        requests = [PANDA] * 20
        job = client.post("/v1/jobs", json={"requests": requests, "wake": "when_warm"}).json()
        wait_for(client, f"/v1/jobs/{job['id']}", "running", seconds=20)
        time.sleep(1.0)
        assert workers_of(stack) == []
        assert ask(stack).status_code == 200
        assert wait_for(client, f"/v1/jobs/{job['id']}", "succeeded")["progress"]["requests_done"] == 20
        wait_for_no_worker(stack)


def test_pool_that_scales_to_zero_during_a_batch_loses_nothing(tmp_path: Path) -> None:
    with two_models(tmp_path, RERANKQ_DRAIN_SECONDS="0.1") as stack, client_of(stack) as client:
        path = f"/v1/batches/{create(client, lines(24, body=PANDA | {'model': 'slow'}))}"
        wait_until(lambda: client.get(path).json()["progress"]["requests_done"] > 0, seconds=30)
        # A call for the other model takes the only slot.
        assert ask(stack, model="quick").status_code == 200
        batch = wait_for(client, path, "completed")
        assert [row["custom_id"] for row in rows(client, batch["output_file_id"])] == [f"r{n}" for n in range(24)]
        assert "slow: another model needs the slot: stopping the worker" in autoscaler_messages(stack)


def test_small_jobs_end_before_a_tenth_of_a_huge_batch(tmp_path: Path) -> None:
    """All have the same owner: the window of the batch is what they wait for."""
    count, delay = 3000, {"delay_seconds": 0.05}
    documents = [f"it is bear {number}" for number in range(50)]
    models = write_models(tmp_path, name="slow", engine="lexical", engine_args=delay)
    environment = {"RERANKQ_MODELS_FILE": models, "RERANKQ_CONCURRENCY": "4"}
    with running(engine=None, environment=environment) as stack, client_of(stack) as client:
        huge = create(client, lines(count, body={"query": "What is a panda?", "documents": documents}))
        wait_until(lambda: client.get(f"/v1/batches/{huge}").json()["progress"]["requests_done"] > 50, seconds=20)
        before = client.get(f"/v1/batches/{huge}").json()["progress"]["requests_done"]
        small = [client.post("/v1/jobs", json={"requests": [PANDA] * 10}).json()["id"] for _ in range(10)]
        for job in small:
            wait_for(client, f"/v1/jobs/{job}", "succeeded")
        done = client.get(f"/v1/batches/{huge}").json()["progress"]["requests_done"] - before
        client.post(f"/v1/batches/{huge}/cancel")
        assert done < count / 10
