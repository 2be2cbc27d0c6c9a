"""RunPod's API against the real stack: each call gets the recorded answer, with the status 200 or that of an error."""

import time
from typing import Any

import httpx
import pytest

from tests.wire.runpod_calls import FOLDER, mask_answer, recorded
from tests.wire.support import DOCUMENT

EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.json") if not path.stem.startswith("state-"))
MODEL = "all-MiniLM-L6-v2"
POLL_SECONDS = 10.0


def call(client: httpx.Client, step: dict[str, Any], job_id: str) -> httpx.Response:
    """The response of one recorded call, repeated if it says so."""
    method, path = step["call"].split(" ", 1)
    path = f"/runpod/v2/{path}".replace("{model}", MODEL).replace("<id>", job_id)
    ends_at = time.monotonic() + POLL_SECONDS
    while True:
        response = client.request(method, path, json=step.get("request"))
        if step.get("until") in (None, response.json().get("status")) or time.monotonic() > ends_at:
            return response
        assert response.status_code == 200, response.text
        time.sleep(0.05)


@pytest.mark.parametrize("name", EXAMPLES)
def test_calls_get_the_recorded_answers(client: httpx.Client, name: str) -> None:
    job_id = ""
    for step in recorded(name):
        response = call(client, step, job_id)
        job_id = job_id or response.json().get("id", "")
        assert (response.status_code, mask_answer(response.json())) == (step["status"], step["answer"]), step["call"]
        # RunPod's SDK for JavaScript takes every other status for a failure.
        assert step["status"] == 200 or step["status"] >= 400


def test_every_operation_is_recorded() -> None:
    calls = {
        (method.upper(), path) for path in DOCUMENT["paths"] if "/runpod/" in path for method in DOCUMENT["paths"][path]
    }
    made = {_operation(step["call"]) for name in EXAMPLES for step in recorded(name)}
    documented = {_operation(f"{method} {path.removeprefix('/runpod/v2/')}") for method, path in calls}
    assert made >= documented


def _operation(call_line: str) -> tuple[str, ...]:
    """The method, and the parts of the path that are neither the endpoint, nor an id, nor parameters."""
    method, path = call_line.split(" ", 1)
    parts = path.split("?")[0].split("/")[1:]
    return (method, *(part for part in parts if not part.startswith(("<", "{", "job-"))))


def test_list_of_inputs_has_its_outputs_in_order(client: httpx.Client) -> None:
    inputs = [{"query": f"panda {number}", "docs": ["hi", f"panda {number}"]} for number in range(20)]
    started = client.post(f"/runpod/v2/{MODEL}/runsync", json={"input": inputs}).json()
    assert started["status"] == "COMPLETED"
    best = [max(output["results"], key=lambda row: row["relevance_score"])["index"] for output in started["output"]]
    assert best == [1] * 20
