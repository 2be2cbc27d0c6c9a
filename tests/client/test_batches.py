"""Batches and jobs of many requests, with both clients and a real service."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from client import Request, errors
from infra.local.stack import Stack
from tests.client.conftest import ClientClass

LINES = [
    {"custom_id": "a", "query": "panda", "documents": ["hi", "a panda"]},
    {"custom_id": "b", "query": "panda", "documents": ["hi"], "model": "nope"},
    {"custom_id": "c", "query": "hi", "documents": ["hi", "a panda"]},
]


@pytest.fixture
def client(client_class: ClientClass, service: Stack) -> Iterator[Any]:
    with client_class(service.url) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_batch_is_created_from_a_path_and_its_results_are_in_order(client: Any, source: Path) -> None:
    batch = client.create_batch(source, metadata={"team": "search"}, top_n=1)
    assert (batch.final, batch.metadata) == (False, {"team": "search"})
    seen: list[str] = []
    ended = client.wait_batch(batch.id, on_progress=lambda each: seen.append(each.status))
    assert (ended.status, ended.requests_total, ended.requests_done, ended.requests_failed) == ("completed", 3, 3, 1)
    assert set(seen) <= {"validating", "in_progress", "finalizing"}

    first, second, third = client.batch_results(batch.id)
    assert [(each.index, each.custom_id) for each in (first, second, third)] == [(0, "a"), (1, "b"), (2, "c")]
    assert [row.text for row in first.ranking.rows + third.ranking.rows] == ["a panda", "hi"]
    with pytest.raises(errors.ModelNotFound, match="model 'nope' is not served here"):
        _ = second.ranking
    assert client.batches(limit=1)[0].id == batch.id
    assert client.cancel_batch(batch.id).status == "completed"


def test_batch_of_an_open_file_has_the_format_of_its_endpoint(client: Any, source: Path) -> None:
    with source.open("rb") as opened:
        opened.read(10)
        batch = client.create_batch(opened, endpoint="/cohere/v2/rerank", completion_window="1h")
    assert client.wait_batch(batch.id).endpoint == "/cohere/v2/rerank"
    first, *_ = client.batch_results(batch.id)
    assert [row["index"] for row in first.response["results"]] == [1, 0]


def test_same_file_and_idempotency_key_create_one_batch(client: Any, client_class: ClientClass, source: Path) -> None:
    file = client.upload_file(source)
    key = f"{client_class.__name__}-batch"
    first, again = [client.create_batch(file, idempotency_key=key) for _ in range(2)]
    assert first.id == again.id
    client.wait_batch(first.id)
    client.delete_file(file.id)
    with pytest.raises(errors.StoredFileNotFound):
        client.delete_file(file.id)


def test_files_are_uploaded_and_downloaded(client: Any) -> None:
    content = b"".join(b'{"line": %d}\n' % number for number in range(100_000))
    sent: list[int] = []
    file = client.upload_file(BytesIO(content), on_progress=sent.append)
    assert (file.size, sent[-1], len(sent) > 2) == (len(content), len(content), True)
    target = BytesIO(b"earlier content " * 100_000)
    client.download_file(file.id, target)
    assert target.getvalue() == content
    client.delete_file(file.id)
    target = BytesIO(b"kept")
    with pytest.raises(errors.StoredFileNotFound):
        client.download_file(file.id, target)
    assert target.getvalue() == b"kept"


def test_errors_of_batches_have_a_class(client: Any, source: Path) -> None:
    with pytest.raises(errors.BatchNotFound):
        client.batch("batch_1")
    with pytest.raises(errors.InvalidRequest, match="endpoint must be the path of a rerank route"):
        client.create_batch(source, endpoint="/v1/chat/completions")
    source.write_text(json.dumps(LINES[0]) + "\n" + json.dumps(LINES[0]))
    batch = client.create_batch(source)
    assert [(error.line, error.code) for error in client.wait_batch(batch.id).errors] == [(2, "duplicate_custom_id")]
    with pytest.raises(errors.BatchFailed, match="the custom_id of line 2"):
        list(client.batch_results(batch.id))


def test_many_requests_are_one_job_whose_results_are_read_in_pages(client: Any) -> None:
    requests = [Request("panda", ["hi", "a panda"], custom_id="first"), *LINES[1:]]
    job = client.submit_many(requests, deadline=600, metadata={"team": "search"}, top_n=1)
    ended = client.wait(job.id)
    assert (ended.status, ended.requests_total, ended.requests_done, ended.requests_failed) == ("succeeded", 3, 3, 1)
    page = client.results_page(job.id, after=1, limit=1)
    assert ([each.custom_id for each in page.results], page.next) == (["b"], 2)
    results = list(client.iter_results(job.id, limit=2))
    assert [(each.index, each.custom_id) for each in results] == [(0, "first"), (1, "b"), (2, "c")]
    assert isinstance(results[1].error, errors.ModelNotFound)
    assert [row.text for row in results[0].ranking.rows] == ["a panda"]
    client.delete(job.id)


def test_results_of_many_requests_are_yielded_while_the_job_runs(
    client_class: ClientClass, slow_service: Stack
) -> None:
    with client_class(slow_service.url) as client:
        job = client.submit_many([{"query": f"q{number}", "documents": ["a"]} for number in range(3)])
        assert [each.index for each in client.iter_results(job.id)] == [0, 1, 2]
        assert client.job(job.id).final
