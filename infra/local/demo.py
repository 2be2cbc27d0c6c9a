"""Ranks the panda example over HTTP, as a waiting call and as a job, and prints the results."""

import json
import os
import shlex
import time
import urllib.error
import urllib.request
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from api.openapi.examples import PANDA_DOCUMENTS, PANDA_QUERY

EXPECTED_ORDER = [2, 1, 0]
_JOB_SECONDS = 60
_WAIT_TIMED_OUT = 504


class DemoError(Exception):
    """The service returned something other than a ranking."""


class WaitExpired(DemoError):
    """The wait ended before the job."""


def run_demo(url: str, console: Console, patience_seconds: float = 120.0) -> bool:
    """Rank the example both ways and print tables and curl lines. Returns whether both orders are right.

    The first request may have to wait for a worker to start, up to `patience_seconds`. Raises DemoError.
    """
    body = json.dumps({"query": PANDA_QUERY, "documents": PANDA_DOCUMENTS})
    curl = f"curl -s {url}/v1/rerank -H 'Content-Type: application/json' -d {shlex.quote(body)}"

    waited, seconds = _timed(lambda: _post_until_done(f"{url}/v1/rerank", body, patience_seconds))
    _print_ranking(console, f"waiting for the result: {_format_seconds(seconds)}", waited)
    _print_commands(console, [curl])

    as_job, job_id = _as_job(url, body)
    _print_ranking(console, "as a job: submitted, polled, read", as_job)
    job = f"{url}/v1/jobs/{job_id}"
    _print_commands(console, [f"{curl} -H 'Prefer: respond-async'", f"curl -s {job}", f"curl -s {job}/results"])
    return _order(waited) == _order(as_job) == EXPECTED_ORDER


def _as_job(url: str, body: str) -> tuple[dict[str, Any], str]:
    job = _post(f"{url}/v1/rerank", body, {"Prefer": "respond-async"})
    deadline = time.monotonic() + _JOB_SECONDS
    while job["status"] in ("queued", "running") and time.monotonic() < deadline:
        job = _request(f"{url}/v1/jobs/{job['id']}", headers={"Prefer": "wait=5"})
    if job["status"] != "succeeded":
        raise DemoError(f"the job is {job['status']}: {job.get('error', {}).get('message', 'no reason reported')}")
    return _request(f"{url}{job['results']}"), job["id"]


def _order(answer: dict[str, Any]) -> list[int]:
    return [row["index"] for row in answer["results"]]


def _post_until_done(url: str, body: str, seconds: float) -> dict[str, Any]:
    """Repeat the call with one Idempotency-Key, to wait longer than the server's limit."""
    deadline = time.monotonic() + seconds
    headers = {"Idempotency-Key": f"demo-{uuid4().hex}"}
    while True:
        try:
            return _post(url, body, headers)
        except WaitExpired:
            if time.monotonic() >= deadline:
                raise


def _format_seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _timed(call: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    return call(), time.perf_counter() - started


def _post(url: str, body: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    return _request(url, body.encode(), {"Content-Type": "application/json"} | (headers or {}))


def _request(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, body, headers or {})
    # Needed when the user's own Redis has API keys.
    if key := os.environ.get("RERANKQ_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        kind = WaitExpired if error.code == _WAIT_TIMED_OUT else DemoError
        hint = "; set RERANKQ_API_KEY" if error.code == 401 else ""
        raise kind(f"{error.code}: {json.load(error).get('message')}{hint}") from error


def _print_ranking(console: Console, title: str, answer: dict[str, Any]) -> None:
    table = Table(title=f"“{PANDA_QUERY}”, {title}", title_justify="left", title_style="bold")
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("document")
    for rank, row in enumerate(answer["results"], start=1):
        text = row["document"]["text"]
        table.add_row(str(rank), f"{row['relevance_score']:.4f}", text if len(text) <= 60 else text[:59] + "…")
    console.print(table)


def _print_commands(console: Console, commands: list[str]) -> None:
    for command in commands:
        console.print(f"  {command}", style="dim", markup=False, highlight=False, soft_wrap=True)
    console.print()
