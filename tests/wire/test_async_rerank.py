"""Bifrost's asynchronous door, against the real stack: submit, poll, and compare with the recorded answers."""

import time
from typing import Any

import httpx
import pytest

from tests.wire.async_jobs import FOLDER, mask_job, recorded

EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.json") if "-state-" not in path.stem)


def poll(client: httpx.Client, path: str) -> httpx.Response:
    for _ in range(200):
        if (response := client.get(path)).status_code != 202:
            return response
        assert response.json()["status"] in ("pending", "processing")
        time.sleep(0.05)
    raise AssertionError(f"{path} does not end")


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_gets_the_recorded_answers(client: httpx.Client, name: str) -> None:
    example = recorded(name)
    response = client.post(example["path"], json=example["request"])
    if "accepted" in example:
        job_id = response.json()["id"]
        assert response.headers["location"] == f"{example['path']}/{job_id}"
        assert (response.status_code, mask_job(response.json())) == (202, example["accepted"])
        response = poll(client, response.headers["location"])
    assert (response.status_code, mask_job(response.json())) == (example["status"], example["answer"])


@pytest.mark.parametrize("prefix", ["", "/bifrost"])
def test_result_is_that_of_the_waiting_path(client: httpx.Client, prefix: str) -> None:
    body: dict[str, Any] = {"query": "panda", "documents": [{"text": "a panda", "id": "x"}, "hi"]}
    waited = mask_job({"result": client.post(f"{prefix}/v1/rerank", json=body).json()})
    accepted = client.post(f"{prefix}/v1/async/rerank", json=body)
    assert mask_job(poll(client, accepted.headers["location"]).json())["result"] == waited["result"]


def test_body_at_the_root_selects_the_format_as_on_the_waiting_path(client: httpx.Client) -> None:
    accepted = client.post("/v1/async/rerank", json={"query": "panda", "texts": ["hi", "a panda"]})
    assert [row["index"] for row in poll(client, accepted.headers["location"]).json()["result"]] == [1, 0]
