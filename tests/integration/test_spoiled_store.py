"""Another program empties Redis or overwrites keys while callers wait: the affected calls fail soon, others succeed."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis

from infra.local.stack import Stack
from shared.contracts import WorkClass
from shared.keys import job_keys, pool_keys, queue_keys
from tests.integration.conftest import SLOW_SECONDS
from tests.stacks import PANDA, client_of, running, write_models
from tests.worker.support import wait_until

MODEL = "test-model"
CALLS = 4


@pytest.fixture(scope="module")
def patient_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack where scoring takes SLOW_SECONDS and callers wait for it."""
    models = write_models(tmp_path_factory.mktemp("models"), engine_args={"delay_seconds": SLOW_SECONDS})
    with running(engine=None, environment={"RERANKQ_MODELS_FILE": models}) as started:
        yield started


@pytest.fixture
def store(patient_stack: Stack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(patient_stack.redis_url) as client:
        yield client


def call(stack: Stack, number: int = 0) -> tuple[httpx.Response, float]:
    """The response, and the time when it arrived."""
    with client_of(stack) as client:
        response = client.post("/v1/rerank", json=PANDA | {"query": f"{number} pandas"})
        return response, time.monotonic()


def test_waiting_calls_fail_soon_when_redis_is_emptied(patient_stack: Stack, store: redis.Redis) -> None:
    with ThreadPoolExecutor(CALLS) as threads:
        waiting = [threads.submit(call, patient_stack, number) for number in range(CALLS)]
        wait_until(lambda: store.zcard(pool_keys.outstanding(MODEL)) == CALLS)
        store.flushall()
        emptied_at = time.monotonic()
        responses = [future.result() for future in waiting]
    for response, at in responses:
        assert (response.status_code, response.json()["error"]["type"]) == (503, "store_damaged")
        assert response.headers["Retry-After"]
        assert at - emptied_at < 4
    assert call(patient_stack)[0].status_code == 200


def test_damaged_job_fails_and_the_others_succeed(patient_stack: Stack, store: redis.Redis) -> None:
    with ThreadPoolExecutor(CALLS) as threads:
        waiting = [threads.submit(call, patient_stack, number) for number in range(CALLS)]
        wait_until(lambda: store.zcard(pool_keys.outstanding(MODEL)) == CALLS)
        member: bytes = store.zrange(pool_keys.outstanding(MODEL), 0, 0)[0]  # type: ignore[assignment]
        damaged_key = job_keys.job(member.decode().partition("/")[0])
        store.delete(damaged_key)
        store.set(damaged_key, "something else")
        store.lpush(queue_keys.queue(MODEL, WorkClass.INTERACTIVE), "not a message")
        statuses = sorted(future.result()[0].status_code for future in waiting)
    assert statuses == [200] * (CALLS - 1) + [503]
    assert call(patient_stack)[0].status_code == 200
