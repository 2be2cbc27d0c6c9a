"""A batch on every kind of payload store, from the upload to the results."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.s3 import s3_location, s3_server
from tests.stacks import PANDA, client_of, running

__all__ = ["s3_location", "s3_server"]

LINES = 300


@pytest.fixture(params=["s3", "redis"])
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of a stack with this store. Every other test has a folder."""
    location = str(request.getfixturevalue("s3_location")) if request.param == "s3" else "redis"
    with running(environment={"RERANKQ_PAYLOADS": location}) as stack, client_of(stack) as opened:
        yield opened


def test_batch_is_run_from_upload_to_results(client: httpx.Client) -> None:
    lines = [{"custom_id": f"line-{number}", "body": PANDA} for number in range(LINES)]
    lines[7] = {"custom_id": "bad", "body": {"query": "q"}}
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    form = {"file": ("in.jsonl", text)}
    file = client.post("/v1/files", files=form, data={"purpose": "batch"}).json()
    assert file["bytes"] == len(text)
    assert client.get(f"/v1/files/{file['id']}/content").content == text
    body = {"input_file_id": file["id"], "endpoint": "/v1/rerank"}
    batch = client.post("/v1/batches", json=body).json()
    deadline = time.monotonic() + 60
    while batch["status"] != "completed":
        assert time.monotonic() < deadline, batch
        time.sleep(0.2)
        batch = client.get(f"/v1/batches/{batch['id']}").json()
    assert batch["request_counts"] == {"total": LINES, "completed": LINES - 1, "failed": 1}
    output = client.get(f"/v1/files/{batch['output_file_id']}/content").text.splitlines()
    expected = [f"line-{number}" for number in range(LINES) if number != 7]
    assert [json.loads(row)["custom_id"] for row in output] == expected
    errors = client.get(f"/v1/files/{batch['error_file_id']}/content").text.splitlines()
    assert [(json.loads(row)["custom_id"], json.loads(row)["line"]) for row in errors] == [("bad", 8)]
    assert client.delete(f"/v1/files/{file['id']}").status_code == 200
    assert client.get(f"/v1/files/{file['id']}/content").status_code == 404
