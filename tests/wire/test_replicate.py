"""Replicate's predictions, against the real stack: create, wait, read, and compare with the recorded answers."""

import time

import httpx
import pytest

from tests.wire.replicate_examples import FOLDER, mask_prediction, recorded

EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.json") if not path.stem.startswith("state-"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_gets_the_recorded_answer(client: httpx.Client, name: str) -> None:
    example = recorded(name)
    response = client.request(
        example["method"], example["path"], json=example.get("request"), headers={"Prefer": "wait"}
    )
    assert (response.status_code, mask_prediction(response.json())) == (example["status"], example["answer"])


def test_output_is_the_answer_of_the_waiting_path(client: httpx.Client) -> None:
    body = {"query": "panda", "documents": [{"text": "a panda", "id": "x"}, "hi"], "top_n": 1}
    waited = mask_prediction({"output": client.post("/superset/v1/rerank", json=body).json()})
    created = client.post("/replicate/v1/models/any/all-MiniLM-L6-v2/predictions", json={"input": body})
    assert created.status_code == 201
    assert created.json()["status"] in ("starting", "succeeded")
    for _ in range(200):
        prediction = client.get(created.json()["urls"]["get"]).json()
        if prediction["status"] == "succeeded":
            break
        time.sleep(0.05)
    assert mask_prediction({"output": prediction["output"]}) == waited


@pytest.mark.parametrize("prefer", ["wait", "wait=5", 'respond-async; x="wait", WAIT = "5"'])
def test_call_waits_as_it_prefers(client: httpx.Client, prefer: str) -> None:
    body = {"version": "all-MiniLM-L6-v2", "input": {"input_list": [["panda", "a panda"], ["bear", "hi"]]}}
    prediction = client.post("/replicate/v1/predictions", json=body, headers={"Prefer": prefer}).json()
    assert prediction["status"] == "succeeded"
    assert len(prediction["output"]) == 2
