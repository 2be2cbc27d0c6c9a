"""The engine in a process of its own: an operator's choice, which must change no score and leave nothing behind."""

import psutil
import pytest

from infra.local.stack import Stack
from tests.engine.test_cancel import MANY
from tests.stacks import PANDA, client_of, running

pytestmark = [pytest.mark.long, pytest.mark.engine, pytest.mark.timeout(300)]


def scores(stack: Stack) -> list[float]:
    with client_of(stack) as client:
        return [row["relevance_score"] for row in client.post("/v1/rerank", json=PANDA).json()["results"]]


def test_it_scores_the_same_drops_what_nobody_wants_and_ends_with_its_worker(bi_encoder: Stack) -> None:
    with running(engine="vllm", environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}) as stack:
        processes = psutil.Process(stack.child("worker-1").pid).children(recursive=True)
        assert processes, "the engine is in no process of its own"
        assert scores(stack) == pytest.approx(scores(bi_encoder), abs=1e-5)
        with client_of(stack) as client:
            job = client.post("/v1/rerank", json=MANY, headers={"Prefer": "wait=1"}).json()
            assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["status"] == "canceled"
            # Nothing is left in the engine by then: it must not wait for an output that never comes.
            assert client.post("/v1/rerank", json=PANDA | {"query": "bears"}).status_code == 200
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
