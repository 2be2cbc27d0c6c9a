"""Nothing that a caller sends is in a log or a metric, whatever field it is in, also at the level DEBUG."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local.stack import Stack
from tests.stacks import PANDA, running, write_models
from tests.worker.support import wait_until

SECRET = "Zx9-planted-Qw7"
IN_HEADERS = {
    "X-Request-Id": SECRET,
    "Idempotency-Key": SECRET,
    "User-Agent": SECRET,
    "Referer": f"https://example.com/{SECRET}",
    "Cookie": f"session={SECRET}",
    "X-Forwarded-For": SECRET,
    "traceparent": f"00-{SECRET}-{SECRET}-01",
    "tracestate": f"vendor={SECRET}",
    "Prefer": f"wait={SECRET}",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service that logs all it can."""
    folder: Path = tmp_path_factory.mktemp("models")
    environment = {
        "RERANKQ_MODELS_FILE": write_models(folder),
        "RERANKQ_LOG_LEVEL": "DEBUG",
        "RERANKQ_MAX_BODY_BYTES": "100000",
        "RERANKQ_SCORE_CACHE": "true",
    }
    with running(environment=environment) as started:
        yield started


def bodies() -> list[Any]:
    """Bodies with the secret in each field, valid and invalid ones."""
    secret_documents = [SECRET, {"text": SECRET, "id": SECRET}]
    return [
        {"query": SECRET, "documents": secret_documents, "return_documents": True, "user": SECRET},
        PANDA | {"model": SECRET},
        PANDA | {"top_n": SECRET},
        PANDA | {SECRET: 1},
        PANDA | {"instruction": SECRET},
        PANDA | {"truncation_side": SECRET},
        PANDA | {"documents": [SECRET] * 20_000},
        PANDA | {"documents": {"text": SECRET}},
        {"query": [SECRET], "documents": [SECRET]},
        {"query": "\ud800" + SECRET, "documents": [SECRET + "\x00"]},
        PANDA | {"fallbacks": [SECRET]},
        PANDA | {"webhook": {"url": f"https://127.0.0.1/{SECRET}", "secret": SECRET}},
        [SECRET],
    ]


def send_everything(url: str) -> None:
    """Send the secret in every field and to every kind of route. Most of it is refused."""
    with httpx.Client(base_url=url, timeout=30) as client:
        for headers in (IN_HEADERS, {"Authorization": f"Bearer {SECRET}"}, {"X-Api-Key": SECRET}, {"Api-Key": SECRET}):
            for path in ("/v1/rerank", "/v2/rerank", "/tei/rerank", "/v1/jobs", "/v1/score", "/nim/v1/ranking"):
                for body in bodies():
                    client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"} | headers)
            client.post("/v1/rerank", content=f'{{"query": "{SECRET}', headers=headers)
            client.post("/v1/rerank", content=SECRET.encode() + b"\xff", headers={"Content-Type": SECRET} | headers)
        for path in (
            f"/{SECRET}",
            f"/v1/jobs/{SECRET}",
            f"/v1/files/{SECRET}",
            f"/v1/batches/{SECRET}/cancel",
            "/health",
        ):
            for method in ("GET", "POST", "DELETE", "PUT", SECRET.upper().replace("-", "")):
                client.request(method, path, params={"after": SECRET, SECRET: "1"})
        line = {
            "custom_id": SECRET,
            "method": "POST",
            "url": "/v1/rerank",
            "body": {"query": SECRET, "documents": [SECRET]},
        }
        lines = "\n".join(json.dumps(each) for each in (line, line | {"url": SECRET}, SECRET)) + f"\n{SECRET}\n"
        for name in ("file", SECRET):
            client.post("/v1/files", files={name: (SECRET, lines, SECRET)}, data={"purpose": SECRET})
        uploaded = client.post("/v1/files", files={"file": (SECRET, lines)}, data={"purpose": "batch"}).json()["id"]
        batch = client.post(
            "/v1/batches",
            json={
                "input_file_id": uploaded,
                "endpoint": "/v1/rerank",
                "completion_window": "24h",
                "metadata": {SECRET: SECRET},
            },
        ).json()["id"]
        wait_until(lambda: client.get(f"/v1/batches/{batch}").json()["status"] in ("completed", "failed"), 60)


def test_no_log_and_no_metric_has_what_a_caller_sent(stack: Stack) -> None:
    send_everything(stack.url)
    metrics = (
        httpx.get(f"{stack.url}/metrics").text
        + httpx.get(f"{stack.url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).text
    )
    assert "rerankq_http_requests_total" in metrics
    assert SECRET not in metrics
    logs = {part: stack.log(part).read_text(errors="replace") for part in ("api", "worker-1", "redis")}
    # The requests did reach the logs.
    assert logs["api"].count('"event": "request"') > 100
    assert "ready" in logs["worker-1"]
    for part, text in logs.items():
        found = [line for line in text.splitlines() if SECRET.lower() in line.lower()]
        assert not found, (part, len(found), found[:3])
        for line in text.splitlines():
            if part != "redis" and line.startswith("{"):
                json.loads(line)
