"""Callers that follow jobs by their events, while Redis does not respond."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from client import Client, JobOutcome
from infra.local.stack import Stack
from tests.stacks import running, write_models

SCORING_SECONDS = 3.0
OUTAGE_SECONDS = 6.0
"""Longer than a command to Redis may take."""


@contextmanager
def silent_redis(stack: Stack) -> Iterator[None]:
    process = stack.child("redis").pid
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def read_stream(url: str, into: list[str]) -> None:
    with httpx.stream("GET", url, timeout=30) as response:
        into.extend(line for line in response.iter_lines() if line.startswith("event: "))


def test_followers_get_the_end_after_an_outage_of_redis(tmp_path: Path) -> None:
    models = write_models(tmp_path, engine_args={"delay_seconds": SCORING_SECONDS})
    with running(engine=None, environment={"RERANKQ_MODELS_FILE": models}) as stack, Client(stack.url) as client:
        one, many = client.submit("one", ["a"]), client.submit_many([{"query": "many", "documents": ["b"]}])
        events: list[str] = []
        outcomes: list[JobOutcome] = []
        followers = [
            threading.Thread(target=read_stream, args=(f"{stack.url}/v1/jobs/{one.id}/events", events)),
            threading.Thread(target=lambda: outcomes.extend(client.wait_many([one.id, many.id, one.id]))),
        ]
        for follower in followers:
            follower.start()
        time.sleep(1)
        with silent_redis(stack):
            time.sleep(OUTAGE_SECONDS)
        for follower in followers:
            follower.join(60)
        assert [outcome.job and outcome.job.status for outcome in outcomes] == ["succeeded"] * 3, outcomes
        assert events[-2:] == ["event: result", "event: end"]
