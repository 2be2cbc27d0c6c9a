"""Files and batches through the SDK of OpenAI, in any version: the sets of clients and the proxy of LiteLLM use it."""

import asyncio
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import openai
from openai.types import Batch, FileObject

from tests.clients.batch_case import (
    ENDED,
    ENDPOINT,
    METADATA,
    WINDOW,
    check_counts,
    check_output,
    jsonl,
    request,
    requests,
    rows,
    wait_for_end,
    wait_until,
)
from tests.clients.case import Client, Target, evaluate_line, with_unknown_path

LIFETIME = 3600
MANY = 20_000
POLLS = 300


def batches(target: Target) -> str:
    """The usual sequence: upload, create, poll, download. The scores are those of single calls."""
    client = _client(target)
    lines = requests(target.model)
    file = parsed(client.files.create(file=("requests.jsonl", jsonl(lines)), purpose="batch"))
    created = _create(client, file.id)
    assert created.status in ("validating", "in_progress")
    assert (created.input_file_id, created.endpoint, created.metadata) == (file.id, ENDPOINT, METADATA)
    batch = _wait(client, created)
    check_counts(batch, completed=len(lines), failed=0)
    assert batch.errors is None
    assert batch.error_file_id is None
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at < batch.expires_at
    output = parsed(client.files.retrieve(batch.output_file_id))
    content = client.files.content(output.id).read()
    assert (output.purpose, output.bytes) == ("batch_output", len(content))
    return check_output(rows(content), lines, [rerank(client, line["body"]) for line in lines])


def batch_list(target: Target) -> str:
    """The SDK follows `has_more` over the pages. Newest batches come first."""
    client = _client(target)
    file = client.files.create(file=("requests.jsonl", jsonl(requests(target.model))), purpose="batch")
    created = [_create(client, file.id).id for _ in range(3)]
    first_page = client.batches.list(limit=1)
    assert len(first_page.data) == 1
    assert first_page.has_next_page()
    listed = [parsed(batch).id for batch in client.batches.list(limit=1)]
    assert len(listed) == len(set(listed))
    assert [batch_id for batch_id in listed if batch_id in created] == created[::-1]
    for batch_id in created:
        wait_for_end(partial(client.batches.retrieve, batch_id))
    return f"{len(created)} batches listed page by page, newest first"


def files(target: Target) -> str:
    """Uploads of bytes and of a path, with a lifetime, then list, read, stream and delete."""
    client = _client(target)
    content = jsonl(requests(target.model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "from a path.jsonl"
        path.write_bytes(content)
        expiry: Any = {"anchor": "created_at", "seconds": LIFETIME}
        uploaded = [
            parsed(client.files.create(file=path, purpose="batch", expires_after=expiry)),
            parsed(client.files.create(file=content, purpose="batch")),
            parsed(client.files.create(file=("third.jsonl", content), purpose="batch")),
        ]
    assert uploaded[0].filename == path.name
    assert uploaded[0].expires_at == uploaded[0].created_at + LIFETIME
    assert uploaded[2].filename == "third.jsonl"
    ids = [file.id for file in uploaded]
    newest_first = [parsed(file).id for file in client.files.list(purpose="batch", limit=1)]
    assert [file_id for file_id in newest_first if file_id in ids] == ids[::-1]
    oldest_first = [file.id for file in client.files.list(purpose="batch", limit=2, order="asc")]
    assert [file_id for file_id in oldest_first if file_id in ids] == ids
    assert parsed(client.files.retrieve(ids[0])) == uploaded[0]
    assert client.files.wait_for_processing(ids[0]).status == "processed"
    assert client.files.content(ids[1]).text.encode() == content
    with client.files.with_streaming_response.content(ids[2]) as response:
        assert b"".join(response.iter_bytes(100)) == content
    for file_id in ids:
        deleted = client.files.delete(file_id)
        assert (deleted.id, deleted.deleted) == (file_id, True)
        _assert_no_file(client, file_id)
    return f"{len(ids)} files uploaded, listed, downloaded and deleted"


def bad_lines(target: Target) -> str:
    """A bad line fails alone: its row is in the error file."""
    client = _client(target)
    lines = [
        request("good", target.model),
        request("no documents", target.model, documents=[]),
        request("no such model", "no-such-model"),
    ]
    batch = run(client, jsonl(lines) + b"this is no JSON\n")
    check_counts(batch, completed=1, failed=3)
    output = rows(client.files.content(batch.output_file_id).text)
    check_output(output, lines[:1], [rerank(client, lines[0]["body"])])
    errors = rows(client.files.content(batch.error_file_id).text)
    assert [row["custom_id"] for row in errors] == ["no documents", "no such model", None]
    assert [row["response"]["status_code"] for row in errors] == [400, 404, 400]
    assert all(row["error"]["code"] and row["error"]["message"] for row in errors), errors
    return "1 row in the output, 3 in the error file"


def only_bad_lines(target: Target) -> str:
    """A batch whose requests all fail is completed, and has no output file."""
    client = _client(target)
    batch = run(client, jsonl([request(f"bad-{number}", target.model, documents=[]) for number in range(2)]))
    check_counts(batch, completed=0, failed=2)
    assert batch.output_file_id is None
    assert len(rows(client.files.content(batch.error_file_id).text)) == 2
    return "no output file, 2 rows in the error file"


def duplicate_ids(target: Target) -> str:
    """A custom_id that comes twice fails the batch; the error names the line."""
    client = _client(target)
    batch = run(client, jsonl([request(custom_id, target.model) for custom_id in ("same", "other", "same")]))
    assert batch.status == "failed"
    assert batch.failed_at >= batch.created_at
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    error = batch.errors.data[0]
    assert (error.line, error.code, error.param) == (3, "duplicate_custom_id", "custom_id")
    return f"failed: {error.message}"


def cancelled(target: Target) -> str:
    """Each request of a cancelled batch is in one of its two files."""
    client = _client(target)
    lines = [request(f"query-{number}", target.model, f"panda {number}") for number in range(MANY)]
    file = client.files.create(file=("requests.jsonl", jsonl(lines)), purpose="batch")
    created = _create(client, file.id)
    # `progress` is the service's own field: the SDK keeps fields that it does not know.
    wait_until(lambda: client.batches.retrieve(created.id).progress["requests_done"], "the batch does not begin")
    assert parsed(client.batches.cancel(created.id)).status in ("cancelling", "cancelled")
    batch = _wait(client, created)
    assert batch.status == "cancelled"
    assert created.created_at <= batch.cancelling_at <= batch.cancelled_at
    output = rows(client.files.content(batch.output_file_id).text)
    errors = rows(client.files.content(batch.error_file_id).text)
    assert {row["error"]["code"] for row in errors} == {"batch_cancelled"}
    assert output
    ids = [row["custom_id"] for row in output + errors]
    assert sorted(ids) == sorted(line["custom_id"] for line in lines)
    return f"{len(output)} requests completed, {len(errors)} cancelled"


def asynchronous(target: Target) -> str:
    return asyncio.run(_asynchronous(target))


async def _asynchronous(target: Target) -> str:
    async with evaluate_line("openai, AsyncOpenAI", target, openai=openai) as client:
        lines = requests(target.model)
        file = await client.files.create(file=("requests.jsonl", jsonl(lines)), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window=WINDOW)
        for _ in range(POLLS):
            batch = await client.batches.retrieve(batch.id)
            if batch.status in ENDED:
                break
            await asyncio.sleep(0.2)
        check_counts(parsed(batch), completed=len(lines), failed=0)
        output = rows((await client.files.content(batch.output_file_id)).text)
        answers = [await client.post("/rerank", cast_to=object, body=line["body"]) for line in lines]
        return check_output(output, lines, answers)


def _client(target: Target) -> Any:
    return evaluate_line("openai, files and batches", target, openai=openai)


def run(client: Any, content: bytes) -> Any:
    """Upload a file, run it as a batch, and return the ended batch."""
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return _wait(client, _create(client, file.id))


def _create(client: Any, file_id: str) -> Any:
    created = client.batches.create(
        input_file_id=file_id, endpoint=ENDPOINT, completion_window=WINDOW, metadata=METADATA
    )
    return parsed(created)


def _wait(client: Any, created: Any) -> Any:
    return parsed(wait_for_end(lambda: client.batches.retrieve(created.id)))


def parsed(thing: Any) -> Any:
    """The object, checked against the SDK's own type: the SDK itself does not check what it receives."""
    kind = Batch if isinstance(thing, Batch) else FileObject
    kind.model_validate(thing.to_dict())
    return thing


def rerank(client: Any, body: dict[str, Any]) -> Any:
    """The answer to a single request, which the SDK has no method for."""
    return client.post("/rerank", cast_to=object, body=body)


def _assert_no_file(client: Any, file_id: str) -> None:
    try:
        client.files.retrieve(file_id)
    except openai.NotFoundError:
        return
    raise AssertionError(f"{file_id} was deleted, and can still be read")


RAISES = {
    401: openai.AuthenticationError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    503: openai.InternalServerError,
}

CLIENTS = [
    Client("openai, batches", "openai", batches, RAISES, not_found=with_unknown_path, retries=True),
    Client("openai, list of batches", "openai", batch_list),
    Client("openai, files", "openai", files, RAISES, not_found=with_unknown_path, retries=True),
    Client("openai, batch with bad lines", "openai", bad_lines),
    Client("openai, batch of bad lines", "openai", only_bad_lines),
    Client("openai, duplicate custom_id", "openai", duplicate_ids),
    Client("openai, cancelled batch", "openai", cancelled),
    Client("openai, AsyncOpenAI", "openai", asynchronous, RAISES, not_found=with_unknown_path),
]
