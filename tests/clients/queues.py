"""Clients that submit jobs to a queue and poll: RunPod's SDK, blocking and with asyncio.

The SDK reads its base URL from a global of its module when it creates an endpoint, so these clients run one at a time.
"""

import asyncio
from typing import Any

import aiohttp
import requests
import runpod

from tests.clients.case import DOCUMENTS, QUERY, Client, Target, check_ranking, execute_line, question

IN_ORDER = {"query": QUERY, "docs": DOCUMENTS, "return_docs": True}
"""The input of RunPod's infinity worker."""
POLL_SECONDS = 30


def runpod_endpoint(target: Target) -> str:
    """Run, status, output, run_sync, stream, cancel, health, purge_queue, and a refused input."""
    endpoint = execute_line("runpod, Endpoint", target, runpod=runpod)["endpoint"]
    job = endpoint.run(question())
    assert job.status() in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    output = job.output(timeout=POLL_SECONDS)
    assert job.status() == "COMPLETED"
    shown = _check_output(output)
    assert _scores(endpoint.run_sync({"input": question()})) == _scores(output)
    _check_order(endpoint.run_sync({"input": IN_ORDER, "policy": {"executionTimeout": 60_000}}))
    assert list(job.stream()) == [output]

    low = endpoint.run({"input": question(), "policy": {"lowPriority": True}})
    assert low.output(timeout=POLL_SECONDS)["results"], "the job of low priority has no output"
    canceled = endpoint.run({"input": [question()] * 50})
    assert canceled.cancel()["status"] in ("CANCELLED", "COMPLETED")
    assert canceled.status() in ("CANCELLED", "COMPLETED")
    _check_health(endpoint.health(), endpoint.purge_queue())
    assert _refuse(endpoint) == (400, "input.documents")
    return f"run: {shown}; run_sync, stream, cancel, health, purge"


def runpod_asyncio(target: Target) -> str:
    return asyncio.run(_asyncio(target))


async def _asyncio(target: Target) -> str:
    """Run, status, output, stream, cancel, health and purge_queue."""
    async with aiohttp.ClientSession() as session:
        names = execute_line("runpod, AsyncioEndpoint", target, runpod=runpod, session=session)
        endpoint = names["endpoint"]
        job = await endpoint.run(question())
        assert await job.status() in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
        output = await job.output(timeout=POLL_SECONDS)
        shown = _check_output(output)
        assert [chunk async for chunk in job.stream()] == [output]
        canceled = await endpoint.run([question()] * 50)
        assert (await canceled.cancel())["status"] in ("CANCELLED", "COMPLETED")
        assert await canceled.status() in ("CANCELLED", "COMPLETED")
        _check_health(await endpoint.health(), await endpoint.purge_queue())
        return f"run: {shown}; stream, cancel, health, purge"


def _refuse(endpoint: Any) -> tuple[int, str]:
    """The status and the field of the error for an input without documents."""
    try:
        endpoint.run({"query": QUERY})
    except requests.HTTPError as error:
        return error.response.status_code, error.response.json()["param"]
    return 200, ""


def _check_output(output: dict[str, Any]) -> str:
    rows = output["results"]
    return check_ranking([row["index"] for row in rows], [row["relevance_score"] for row in rows])


def _check_order(output: dict[str, Any]) -> None:
    rows = output["results"]
    assert [(row["index"], row["document"]) for row in rows] == list(enumerate(DOCUMENTS)), f"rows {rows}"


def _scores(output: dict[str, Any]) -> list[tuple[int, float]]:
    # vLLM's scores depend slightly on the other pairs in the same step.
    return [(row["index"], round(row["relevance_score"], 3)) for row in output["results"]]


def _check_health(health: dict[str, Any], purged: dict[str, Any]) -> None:
    jobs, workers = health["jobs"], health["workers"]
    assert set(jobs) == {"completed", "failed", "inProgress", "inQueue", "retried"}, f"jobs {jobs}"
    assert jobs["completed"] > 0, f"jobs {jobs}"
    assert set(workers) == {"idle", "initializing", "ready", "running", "throttled"}, f"workers {workers}"
    assert workers["ready"] > 0, f"workers {workers}"
    assert set(purged) == {"removed", "status"}, f"purged {purged}"
    assert purged["status"] == "completed"


# 401 has an exception of its own, which names the key and not the service's message.
ENDPOINT = {401: RuntimeError, 404: requests.HTTPError, 429: requests.HTTPError, 503: requests.HTTPError}
# The SDK reads the id of the job whatever the status is.
ASYNCIO = dict.fromkeys((401, 404, 429, 503), KeyError)

CLIENTS = [
    Client("runpod, Endpoint", "runpod", runpod_endpoint, ENDPOINT, drops_message=set(ENDPOINT), exclusive=True),
    Client("runpod, AsyncioEndpoint", "runpod", runpod_asyncio, ASYNCIO, drops_message=set(ASYNCIO), exclusive=True),
]
