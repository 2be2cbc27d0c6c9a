"""The calls and pauses of the operations on batches, with prepared answers and a fake clock."""

import json
from io import BytesIO
from typing import Any

import pytest

from client import errors
from client.batch_protocol import BatchTerms, many_requests
from client.batch_records import StoredFile
from client.calls import Answer, Body
from client.records import Options
from client.uploads import Upload
from tests.client.fake_client import FakeClient, answer, error_answer

FILE = {"id": "file-1", "filename": "in.jsonl", "bytes": 3}
STORED = StoredFile("file-1", "in.jsonl", 3, {})
UPLOAD = Upload("in.jsonl", Body(lambda: iter([b"a\n", b"b"]), 3))
LOST = errors.ConnectionFailed("closed")


def batch(status: str, **fields: Any) -> dict[str, Any]:
    counts = {"total": 2, "completed": 1, "failed": 1}
    created = {"id": "batch_1", "status": status, "endpoint": "/v1/rerank", "input_file_id": "file-1", "created_at": 1}
    return created | {"request_counts": counts} | fields


def test_upload_is_one_form_with_a_known_length() -> None:
    client = FakeClient(answer(200, FILE))
    sent: list[int] = []
    assert client.execute(client.batches.upload(UPLOAD, 60, sent.append)).id == "file-1"
    (call,), (body,) = client.calls, client.sent
    assert isinstance(call.body, Body)
    assert (call.body.size, sent) == (len(body), [2, 3])
    boundary = call.headers["Content-Type"].removeprefix("multipart/form-data; boundary=")
    purpose, file, end = (part.decode() for part in body.split(f"--{boundary}".encode())[1:])
    assert purpose.endswith('name="purpose"\r\n\r\nbatch\r\n')
    assert 'name="file"; filename="in.jsonl"' in file
    assert file.endswith("\r\n\r\na\nb\r\n")
    assert end == "--\r\n"


def test_upload_that_breaks_off_starts_again_from_the_beginning() -> None:
    client = FakeClient(LOST, error_answer(503, "payloads_unavailable"), answer(200, FILE))
    client.execute(client.batches.upload(UPLOAD, 60))
    assert len(set(client.sent)) == 1
    assert len(client.sent) == 3


def test_lost_answer_does_not_create_a_second_batch() -> None:
    client = FakeClient(LOST, answer(200, batch("validating")))
    terms = BatchTerms(metadata={"team": "search"}, request_params={"top_n": 1})
    assert client.execute(client.batches.create(STORED, terms, None, 60)).id == "batch_1"
    first, second = client.calls
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert isinstance(first.body, bytes)
    assert json.loads(first.body) == {
        "input_file_id": "file-1",
        "endpoint": "/superset/v1/rerank",
        "completion_window": "24h",
        "metadata": {"team": "search"},
        "request_params": {"top_n": 1},
    }


def test_webhook_is_one_of_the_batch_or_job_itself() -> None:
    options: Options = {"webhook": {"url": "https://example.com/hook"}, "top_n": 1}
    body = many_requests([], deadline=60, wake="now", metadata={}, defaults=options)
    assert (body["webhook"], body["defaults"]) == ({"url": "https://example.com/hook"}, {"top_n": 1})
    created = BatchTerms(request_params=options).body(STORED)
    assert (created["webhook"], created["request_params"]) == ({"url": "https://example.com/hook"}, {"top_n": 1})


def test_file_of_a_rejected_batch_is_deleted() -> None:
    client = FakeClient(answer(200, FILE), error_answer(404, "model_not_found"), answer(200, {}))
    with pytest.raises(errors.ModelNotFound):
        client.execute(client.batches.create(UPLOAD, BatchTerms(), None, 60))
    assert client.requests == ["POST /v1/files", "POST /v1/batches", "DELETE /v1/files/file-1"]


def test_waiting_polls_ever_more_rarely() -> None:
    client = FakeClient(*[answer(200, batch("in_progress"))] * 60, answer(200, batch("completed")))
    seen: list[str] = []
    ended = client.execute(client.batches.wait("batch_1", None, 60, lambda each: seen.append(each.status)))
    assert (ended.status, len(seen)) == ("completed", 60)
    assert client.pauses[0] == 0.2
    assert client.pauses == sorted(client.pauses)
    assert client.pauses[-1] <= 5


def test_waiting_survives_an_outage_that_is_shorter_than_the_patience() -> None:
    client = FakeClient(*[LOST] * 12, answer(200, batch("completed")), seconds=2)
    assert client.execute(client.batches.wait("batch_1", None, 200)).status == "completed"

    client = FakeClient(*[LOST] * 100, seconds=2)
    with pytest.raises(errors.ConnectionFailed):
        client.execute(client.batches.wait("batch_1", None, 60))
    assert 60 <= client.now < 90


def test_each_outage_has_the_whole_patience() -> None:
    outage: list[Answer | BaseException] = [*[LOST] * 5, answer(200, batch("in_progress"))]
    client = FakeClient(*outage, *outage, *outage, answer(200, batch("completed")), seconds=2)
    client.execute(client.batches.wait("batch_1", None, 40))
    assert client.now > 40


def test_waiting_ends_at_the_timeout() -> None:
    client = FakeClient(*[answer(200, batch("in_progress"))] * 100)
    with pytest.raises(errors.WaitTimedOut, match="the batch batch_1 is in_progress; it continues"):
        client.execute(client.batches.wait("batch_1", 3, 60))
    assert 3 <= client.now < 4


def test_both_result_files_are_downloaded() -> None:
    ended = batch("completed", output_file_id="file-2", error_file_id="file-3")
    client = FakeClient(answer(200, ended), answer(200, "ok"), LOST, answer(200, "failed"))
    output, failed = BytesIO(), BytesIO()
    client.execute(client.batches.results("batch_1", output, failed, 60))
    assert (output.getvalue(), failed.getvalue()) == (b'"ok"', b'"failed"')
    assert client.requests[1:] == ["GET /v1/files/file-2/content", *["GET /v1/files/file-3/content"] * 2]


def test_batch_without_results_raises_its_first_error() -> None:
    reasons = [{"code": "duplicate_custom_id", "message": "the custom_id of line 2 is ...", "line": 2, "param": None}]
    failed = batch("failed", errors={"object": "list", "data": reasons})
    client = FakeClient(answer(200, failed), answer(200, batch("in_progress")))
    with pytest.raises(errors.BatchFailed, match=r"the batch batch_1 failed: the custom_id of line 2 is \.\.\."):
        client.execute(client.batches.results("batch_1", BytesIO(), BytesIO(), 60))
    with pytest.raises(errors.JobNotFinished, match="the batch batch_1 is in_progress"):
        client.execute(client.batches.results("batch_1", BytesIO(), BytesIO(), 60))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (answer(200, {"data": []}), True),
        (error_answer(404, "not_found"), False),
        (answer(405, {"detail": "Method Not Allowed"}), False),
    ],
)
def test_service_without_the_routes_has_no_batches(reply: Any, expected: bool) -> None:
    client = FakeClient(reply)
    assert client.execute(client.batches.has_batches(60)) is expected


def test_next_results_waits_for_results_or_the_end() -> None:
    row = {"index": 0, "custom_id": "a", "result": {"id": "job-1"}}
    pages = [{"data": [], "next": 0}, {"data": [row], "next": 1}, {"data": [], "next": None}]
    client = FakeClient(*[answer(200, page) for page in pages])
    page = client.execute(client.batches.next_results("bulk-1", 0, 10, 60))
    assert ([each.custom_id for each in page.results], page.next, client.pauses) == (["a"], 1, [1.0])
    assert client.execute(client.batches.next_results("bulk-1", 1, 10, 60)).next is None


@pytest.mark.parametrize("data", [[], {"id": "batch_1"}, None])
def test_unexpected_json_raises_unexpected_answer(data: Any) -> None:
    client = FakeClient(answer(200, data))
    with pytest.raises(errors.UnexpectedAnswer):
        client.execute(client.batches.batch("batch_1", 60))
