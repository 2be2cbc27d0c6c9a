"""The engine in a separate process, which an operator can choose."""

import psutil
import pytest

from infra.local.stack import Stack
from tests.engine.test_cancel import MANY
from tests.stacks import PANDA, client_of, running

pytestmark = [pytest.mark.long, pytest.mark.engine, pytest.mark.timeout(300)]


def scores(stack: Stack) -> list[float]:
    with client_of(stack) as client:
        return [row["relevance_score"] for row in client.post("/v1/rerank", json=PANDA).json()["results"]]


def test_a_separate_engine_scores_the_same_aborts_canceled_work_and_ends_with_its_worker(
    bi_encoder: Stack, exact_bi_encoder: dict[str, str]
) -> None:
    with running(engine="vllm", environment=exact_bi_encoder | {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}) as stack:
        processes = psutil.Process(stack.child("worker-1").pid).children(recursive=True)
        assert processes, "the engine has no separate process"
        assert scores(stack) == pytest.approx(scores(bi_encoder), abs=1e-5)
        with client_of(stack) as client:
            job = client.post("/v1/rerank", json=MANY, headers={"Prefer": "wait=1"}).json()
            assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["status"] == "canceled"
            # The engine is idle by then, and the worker must not wait for its next output.
            assert client.post("/v1/rerank", json=PANDA | {"query": "bears"}).status_code == 200
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
