"""`python -m worker` as a process of its own, with the lexical engine: how it works and how it goes."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shared.contracts import WorkClass
from shared.keys import pool_keys, queue_keys
from shared.ledger.job_ledger import JobLedger
from shared.ledger.job_record import JobStatus
from shared.pools.heartbeats import WorkerState, read_heartbeats
from shared.processes import ChildProcess
from shared.queue.celery_app import make_celery
from shared.queue.messages import MessageBuilder
from tests.shared.support import JOB, MODEL, StoreView, make_request, make_submission, read_message, read_record
from tests.stacks import write_models
from tests.worker.support import WakeUpSender, a_while, wait_until
from worker.dispatch.dispatcher import LINGER_SECONDS

DRAIN_SECONDS = 1.0


class WorkerProcess:
    """One worker, ready."""

    def __init__(self, folder: Path, redis_url: str, client: Any, delay_seconds: float) -> None:
        self._client = client
        environment = os.environ | {
            "RERANKQ_MODELS_FILE": write_models(folder, engine_args={"delay_seconds": delay_seconds}),
            "RERANKQ_DRAIN_SECONDS": str(DRAIN_SECONDS),
            "REDIS_URL": redis_url,
        }
        self.child = ChildProcess("worker", [sys.executable, "-m", "worker"], folder / "worker.log", environment)
        wait_until(self._takes_work, seconds=60)

    def _takes_work(self) -> bool:
        assert self.child.exit_status is None, self.child.last_lines()
        beats = read_heartbeats(self._client.hgetall(pool_keys.workers(MODEL)))
        return any(beat.state is WorkerState.READY for beat in beats)

    def stop(self) -> float:
        """SIGTERM; answers the seconds that it took to go."""
        os.kill(self.child.pid, signal.SIGTERM)
        told_at = time.monotonic()
        wait_until(lambda: self.child.exit_status is not None, seconds=30)
        return time.monotonic() - told_at


@pytest.fixture
def delay_seconds(request: pytest.FixtureRequest) -> float:
    return float(getattr(request, "param", 0.0))


@pytest.fixture
def process(tmp_path: Path, redis_url: str, redis_client: Any, delay_seconds: float) -> Iterator[WorkerProcess]:
    started = WorkerProcess(tmp_path, redis_url, redis_client, delay_seconds)
    yield started
    started.child.kill()


async def submit(ledger: JobLedger, wake_ups: WakeUpSender, *, shards: int = 1) -> None:
    """A job, and a doorbell that can be read for each shard."""
    await ledger.submit(make_submission(request=make_request(*["query"] * shards), shards=shards, rung=0))
    wake_ups.send(*range(shards))


def has_state(store: StoreView, state: str, job_id: str) -> bool:
    return store.shard(job_id=job_id).get("status") == state


def state_of(store: StoreView, shard: int = 0) -> str | None:
    return store.shard(shard).get("status")


async def test_idle_it_goes_at_once_and_well(process: WorkerProcess) -> None:
    assert process.stop() < DRAIN_SECONDS + 2
    assert process.child.exit_status == 0


async def test_lingering_too(
    process: WorkerProcess, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    await submit(ledger, wake_ups, shards=20)
    wait_until(lambda: all(state_of(store, shard) == "done" for shard in range(20)))
    assert process.stop() < DRAIN_SECONDS + 2
    assert process.child.exit_status == 0
    assert (await read_record(ledger)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("delay_seconds", [0.7], indirect=True)
async def test_scoring_it_hands_in_what_it_can_within_its_time(
    process: WorkerProcess, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    await submit(ledger, wake_ups, shards=3)
    wait_until(lambda: all(state_of(store, shard) == "leased" for shard in range(3)))
    assert process.stop() < DRAIN_SECONDS + 2
    assert process.child.exit_status == 0
    assert (await read_record(ledger)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("delay_seconds", [60.0], indirect=True)
async def test_and_gives_back_what_it_cannot_free_of_charge(
    process: WorkerProcess, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    await submit(ledger, wake_ups, shards=3)
    wait_until(lambda: all(state_of(store, shard) == "leased" for shard in range(3)))
    assert DRAIN_SECONDS <= process.stop() < DRAIN_SECONDS + 3
    assert process.child.exit_status == 0
    assert [state_of(store, shard) for shard in range(3)] == ["queued"] * 3
    assert not {"crashes", "retries"} & {name for shard in range(3) for name in store.shard(shard)}
    rung = {read_message(message) for message in store.messages(WorkClass.INTERACTIVE)}
    assert rung == {(JOB, 0), (JOB, 1), (JOB, 2)}


@pytest.mark.parametrize("delay_seconds", [60.0], indirect=True)
async def test_a_second_signal_ends_it_now(
    process: WorkerProcess, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    await submit(ledger, wake_ups)
    wait_until(lambda: state_of(store) == "leased")
    os.kill(process.child.pid, signal.SIGTERM)
    a_while()
    assert process.child.exit_status is None
    assert process.stop() < DRAIN_SECONDS
    assert process.child.exit_status == 128 + signal.SIGTERM


def message(**changes: Any) -> bytes:
    """A doorbell of a job that there is not, spoiled."""
    good = json.loads(
        MessageBuilder(make_celery("")).build(queue_keys.queue_name(MODEL, WorkClass.INTERACTIVE), "job-0", 0)
    )
    return json.dumps(good | changes).encode()


GARBAGE = (
    b"",
    b"no JSON",
    b"\xff\x00",
    b"[" * 100_000,
    b"null",
    b"[1]",
    b"{}",
    message(properties=None),
    message(headers=None),
    message(headers={"id": "job-0/0", "task": ["not", "hashable"]}),
    message(headers={"id": "job-0/0", "task": "some.other"}),
    message(headers={"id": ["job-0", 0]}),
    message(body="%"),
)


async def test_what_is_no_doorbell_is_left_out_and_nothing_else(
    process: WorkerProcess, redis_client: Any, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    """In a quiet worker Celery hears it, in a busy one the dispatcher: there, any of these once ended the process."""
    for number, spoiled in enumerate(GARBAGE):
        wake_ups.put(spoiled)
        wait_until(lambda: not store.messages(WorkClass.INTERACTIVE))
        if number % 4 == 3:
            await ledger.submit(make_submission(f"job-{number}", rung=0))
            wake_ups.send(0, job_id=f"job-{number}")
            wake_ups.put(spoiled)
            wait_until(partial(has_state, store, "done", f"job-{number}"))
    assert process.child.exit_status is None
    wait_until(lambda: not redis_client.exists(queue_keys.UNACKED_INDEX))


async def test_something_else_in_the_place_of_kombus_own_keys_is_outlived(
    process: WorkerProcess, redis_client: Any, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    for key in queue_keys.KOMBU_KEYS:
        redis_client.delete(key)
        redis_client.set(key, "something else")
    redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    a_while(1.0)
    await ledger.repair(MODEL)
    await submit(ledger, wake_ups)
    wait_until(lambda: state_of(store) == "done", seconds=20)
    assert process.child.exit_status is None


@pytest.mark.parametrize("mode", ["full", "replica"])
async def test_a_redis_that_refuses_an_acknowledgement_does_not_end_the_listening(
    process: WorkerProcess, redis_client: Any, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender, mode: str
) -> None:
    await submit(ledger, wake_ups)
    wait_until(lambda: state_of(store) == "done")
    refuse, allow = {
        "full": (partial(redis_client.config_set, "maxmemory", 1), partial(redis_client.config_set, "maxmemory", 0)),
        "replica": (partial(redis_client.replicaof, "127.0.0.1", 1), partial(redis_client.replicaof, "NO", "ONE")),
    }[mode]
    refuse()
    try:
        # The worker stays at the queues for a moment, and acknowledges then.
        a_while(LINGER_SECONDS + 1.0)
    finally:
        allow()
    await ledger.submit(make_submission("job-2", rung=0))
    wake_ups.send(0, job_id="job-2")
    wait_until(partial(has_state, store, "done", "job-2"), seconds=20)


async def test_a_redis_that_refuses_to_write_is_waited_for(
    process: WorkerProcess, redis_client: Any, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    """A replica refuses even to hear: as kombu is, that is the end of the worker."""
    redis_client.replicaof("127.0.0.1", 1)
    try:
        a_while(1.0)
    finally:
        redis_client.replicaof("NO", "ONE")
    await submit(ledger, wake_ups)
    wait_until(lambda: state_of(store) == "done", seconds=20)
    assert process.child.exit_status is None
