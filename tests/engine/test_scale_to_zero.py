"""Scaling from zero workers to one and back with real vLLM, with and without a standby."""

import time
from collections.abc import Iterator

import httpx
import pytest

from infra.local.stack import Stack
from tests.stacks import PANDA, autoscaler_messages, client_of, running, workers_of
from tests.worker.support import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

STANDBY_SECONDS = 120


@pytest.fixture(scope="module", params=["plain", "standby"])
def standby(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "standby")


@pytest.fixture(scope="module")
def stack(standby: bool) -> Iterator[Stack]:
    with running(engine="vllm", pool={"idle_seconds": 2, "standby": standby}) as started:
        if standby:
            wait_until(lambda: "a standby is ready" in "".join(autoscaler_messages(started)), seconds=STANDBY_SECONDS)
        yield started


def rank(client: httpx.Client) -> tuple[float, list[float]]:
    """Rerank the example. Returns the seconds that it took and the scores."""
    began = time.monotonic()
    response = client.post("/v1/rerank", json=PANDA)
    seconds = time.monotonic() - began
    assert response.status_code == 200, response.text
    rows = response.json()["results"]
    assert [row["index"] for row in rows] == [2, 1, 0]
    return seconds, [row["relevance_score"] for row in rows]


def test_a_request_starts_a_worker_that_stops_when_idle(stack: Stack, standby: bool) -> None:
    with client_of(stack) as client:
        wait_until(lambda: len(workers_of(stack)) == standby, seconds=20)
        cold, scores = rank(client)
        assert len(workers_of(stack)) == 1 + standby
        # The second call does not include a start, and the worker needs no further warm-up.
        warm, repeated = rank(client)
        assert warm < cold / 5
        assert repeated == pytest.approx(scores, abs=1e-6)
        # The known scores of the bundled model, with and without a standby.
        assert scores == pytest.approx([0.752, 0.426, 0.091], abs=0.005)
        wait_until(lambda: len(workers_of(stack)) == standby, seconds=30)
        # The message follows shortly after the end of the process.
        wait_until(lambda: autoscaler_messages(stack)[-1] == "the worker has stopped")


def test_a_standby_holds_no_model_and_has_one_thread(stack: Stack, standby: bool) -> None:
    if not standby:
        pytest.skip("this stack has no standby")
    wait_until(lambda: len(workers_of(stack)) == 1, seconds=30)
    (process,) = workers_of(stack)
    assert process.num_threads() == 1
    assert not [file for file in process.memory_maps() if file.path.endswith(".safetensors")]
