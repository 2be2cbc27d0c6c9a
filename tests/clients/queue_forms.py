"""Clients that create a job and read it later: Replicate's SDK, blocking and with asyncio, and Bifrost's requests."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import replicate
from replicate.exceptions import ModelError, ReplicateError

from tests.clients.batch_case import wait_until
from tests.clients.case import DOCUMENTS, QUERY, Client, Target, check_ranking, evaluate_line, question

OWNER = "rerankq"
"""The service ignores who owns a model."""
PAIRS = {"input_list": json.dumps([[QUERY, text] for text in DOCUMENTS])}
TOO_LONG = {"query": QUERY, "documents": DOCUMENTS, "truncate": "NONE", "max_tokens_per_doc": 1}
MANY = {"query": QUERY, "documents": [f"{text} {number}" for number in range(300) for text in DOCUMENTS]}


def replicate_sdk(target: Target) -> str:
    """run with and without a version, wait and polling; predictions: create, wait, get, cancel; models; a refusal."""
    client = evaluate_line("replicate, Client", target, replicate=replicate)
    client.poll_interval = 0.05
    model = f"{OWNER}/{target.model}"
    shown = _check(client.run(model, input=question()))
    for reference, options in ((model, {"wait": 5}), (model, {"wait": False}), (f"{model}:{target.model}", {})):
        _check(client.run(reference, input=question(), **options))
    _check_pairs(client.run(model, input=PAIRS))

    version = client.models.get(model).latest_version
    created = client.predictions.create(version=version, input=question())
    assert created.status in ("starting", "succeeded"), created.status
    created.wait()
    _check(created.output)
    assert client.predictions.get(created.id).output == created.output
    canceled = client.models.predictions.create(model, input=MANY)
    canceled.cancel()
    assert canceled.status in ("canceled", "succeeded"), canceled.status
    _check_errors(_failure_of(lambda: client.run(model, input=TOO_LONG)), _failure_of(lambda: client.run(model)))
    return f"run: {shown}; versions, pairs, create, wait, get, cancel, errors"


def replicate_asyncio(target: Target) -> str:
    return asyncio.run(_replicate_asyncio(target))


async def _replicate_asyncio(target: Target) -> str:
    """async_run with and without waiting; predictions: create, wait, get, cancel; a failure."""
    client = evaluate_line("replicate, Client with asyncio", target, replicate=replicate)
    client.poll_interval = 0.05
    model = f"{OWNER}/{target.model}"
    shown = _check(await client.async_run(model, input=question()))
    for reference, options in ((model, {"wait": False}), (f"{model}:{target.model}", {})):
        _check(await client.async_run(reference, input=question(), **options))
    created = await client.predictions.async_create(version=target.model, input=PAIRS)
    await created.async_wait()
    _check_pairs(created.output)
    assert (await client.predictions.async_get(created.id)).output == created.output
    canceled = await client.models.predictions.async_create(model, input=MANY)
    await canceled.async_cancel()
    assert canceled.status in ("canceled", "succeeded"), canceled.status
    failed: Any = (await asyncio.gather(client.async_run(model, input=TOO_LONG), return_exceptions=True))[0]
    assert isinstance(failed, ModelError), f"{failed!r}"
    assert failed.prediction.status == "failed"
    return f"async_run: {shown}; create, wait, get, cancel, a failure"


def _check(output: dict[str, Any]) -> str:
    rows = output["results"]
    texts = [row["document"]["text"] for row in rows]
    return check_ranking([row["index"] for row in rows], [row["relevance_score"] for row in rows], texts)


def _check_pairs(output: list[float]) -> None:
    assert len(output) == len(DOCUMENTS), f"output {output}"
    assert output.index(max(output)) == DOCUMENTS.index(DOCUMENTS[-1]), f"output {output}"


def _failure_of(call: Callable[[], Any]) -> Exception:
    try:
        output = call()
    except Exception as error:
        return error
    raise AssertionError(f"no exception was raised; the output: {output}")


def _check_errors(failed: Exception, refused: Exception) -> None:
    assert isinstance(failed, ModelError), f"{failed!r}"
    assert "forbids truncation" in str(failed), f"{failed!r}"
    assert isinstance(refused, ReplicateError), f"{refused!r}"
    assert (refused.status, refused.title) == (422, "Input validation failed"), f"{refused!r}"
    assert "query is required" in str(refused.detail), f"{refused!r}"


def bifrost_async(target: Target) -> str:
    """Submit and poll, as Bifrost's documentation describes; it has no SDK for this."""
    client = evaluate_line("bifrost, asynchronous rerank", target, httpx=httpx)
    with client:
        body = {"model": f"vllm/{target.model}", **question()}
        accepted = client.post("/async/rerank", json=body, headers={"x-bf-async-job-result-ttl": "60"})
        accepted.raise_for_status()
        job = accepted.json()
        assert (accepted.status_code, job["status"]) == (202, "pending"), job
        path = f"/async/rerank/{job['id']}"
        ended = wait_until(lambda: _ended(client.get(path)), "the job did not end")
        assert (ended["status"], ended["status_code"], ended["created_at"]) == ("completed", 200, job["created_at"])
        assert ended["created_at"] <= ended["completed_at"] < ended["expires_at"]
        assert client.get(f"{path}-unknown").status_code == 404
    rows = ended["result"]["results"]
    return check_ranking([row["index"] for row in rows], [row["relevance_score"] for row in rows])


def _ended(response: httpx.Response) -> dict[str, Any] | None:
    """The job, once it has ended."""
    body: dict[str, Any] = response.raise_for_status().json()
    assert (response.status_code == 202) == (body["status"] in ("pending", "processing")), body
    return None if response.status_code == 202 else body


REPLICATE = dict.fromkeys((401, 404, 429, 503), ReplicateError)
BIFROST = dict.fromkeys((401, 404, 429, 503), httpx.HTTPStatusError)

CLIENTS = [
    Client("replicate, Client", "replicate", replicate_sdk, REPLICATE),
    Client("replicate, Client with asyncio", "replicate", replicate_asyncio, REPLICATE),
    # httpx shows only the status.
    Client("bifrost, asynchronous rerank", "httpx", bifrost_async, BIFROST, drops_message=set(BIFROST)),
]
