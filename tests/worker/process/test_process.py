"""`python -m worker` as a separate process with the lexical engine: how it works and how it stops."""

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
from tests.worker.support import WakeUpSender, wait_briefly, wait_until
from worker.dispatch.dispatcher import LINGER_SECONDS

DRAIN_SECONDS = 1.0


class WorkerProcess:
    """A worker process that is ready."""

    def __init__(self, folder: Path, redis_url: str, client: Any, delay_seconds: float) -> None:
        self._client = client
        environment = os.environ | {
            "RERANKQ_MODELS_FILE": write_models(folder, engine_args={"delay_seconds": delay_seconds}),
            "RERANKQ_DRAIN_SECONDS": str(DRAIN_SECONDS),
            "REDIS_URL": redis_url,
        }
        self.child = ChildProcess("worker", [sys.executable, "-m", "worker"], folder / "worker.log", environment)
        wait_until(self._is_ready, seconds=60)

    def _is_ready(self) -> bool:
        assert self.child.exit_status is None, self.child.last_lines()
        beats = read_heartbeats(self._client.hgetall(pool_keys.workers(MODEL)))
        return any(beat.state is WorkerState.READY for beat in beats)

    def stop(self) -> float:
        """Send SIGTERM. Returns the seconds until the process ended."""
        os.kill(self.child.pid, signal.SIGTERM)
        signaled_at = time.monotonic()
        wait_until(lambda: self.child.exit_status is not None, seconds=30)
        return time.monotonic() - signaled_at


@pytest.fixture
def delay_seconds(request: pytest.FixtureRequest) -> float:
    return float(getattr(request, "param", 0.0))


@pytest.fixture
def process(tmp_path: Path, redis_url: str, redis_client: Any, delay_seconds: float) -> Iterator[WorkerProcess]:
    started = WorkerProcess(tmp_path, redis_url, redis_client, delay_seconds)
    yield started
    started.child.kill()


async def submit(ledger: JobLedger, wake_ups: WakeUpSender, *, shards: int = 1, job_id: str = JOB) -> None:
    """Submit a job and enqueue one valid message for each shard."""
    await ledger.submit(make_submission(job_id, request=make_request(*["query"] * shards), shards=shards))
    wake_ups.clear()
    wake_ups.send(*range(shards), job_id=job_id)


def has_state(store: StoreView, state: str, job_id: str) -> bool:
    return store.shard(job_id=job_id).get("status") == state


def state_of(store: StoreView, shard: int = 0) -> str | None:
    return store.shard(shard).get("status")


async def test_an_idle_worker_stops_at_once_with_status_0(process: WorkerProcess) -> None:
    assert process.stop() < DRAIN_SECONDS + 2
    assert process.child.exit_status == 0


async def test_a_lingering_worker_stops_at_once_with_status_0(
    process: WorkerProcess, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    await submit(ledger, wake_ups, shards=20)
    wait_until(lambda: all(state_of(store, shard) == "done" for shard in range(20)))
    assert process.stop() < DRAIN_SECONDS + 2
    assert process.child.exit_status == 0
    assert (await read_record(ledger)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("delay_seconds", [0.7], indirect=True)
async def test_a_busy_worker_reports_shards_that_finish_before_the_deadline(
    process: WorkerProcess, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    await submit(ledger, wake_ups, shards=3)
    wait_until(lambda: all(state_of(store, shard) == "leased" for shard in range(3)))
    assert process.stop() < DRAIN_SECONDS + 2
    assert process.child.exit_status == 0
    assert (await read_record(ledger)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("delay_seconds", [60.0], indirect=True)
async def test_a_busy_worker_releases_unfinished_shards_without_counting_a_retry(
    process: WorkerProcess, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    await submit(ledger, wake_ups, shards=3)
    wait_until(lambda: all(state_of(store, shard) == "leased" for shard in range(3)))
    assert DRAIN_SECONDS <= process.stop() < DRAIN_SECONDS + 3
    assert process.child.exit_status == 0
    assert [state_of(store, shard) for shard in range(3)] == ["queued"] * 3
    assert not {"crashes", "retries"} & {name for shard in range(3) for name in store.shard(shard)}
    enqueued = {read_message(message) for message in store.messages(WorkClass.INTERACTIVE)}
    assert enqueued == {(JOB, 0), (JOB, 1), (JOB, 2)}


@pytest.mark.parametrize("delay_seconds", [60.0], indirect=True)
async def test_a_second_signal_ends_the_process_at_once(
    process: WorkerProcess, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    await submit(ledger, wake_ups)
    wait_until(lambda: state_of(store) == "leased")
    os.kill(process.child.pid, signal.SIGTERM)
    wait_briefly()
    assert process.child.exit_status is None
    assert process.stop() < DRAIN_SECONDS
    assert process.child.exit_status == 128 + signal.SIGTERM


def malformed_message(**changes: Any) -> bytes:
    """A message for a job that does not exist, with these fields replaced."""
    valid = json.loads(
        MessageBuilder(make_celery("")).build(queue_keys.queue_name(MODEL, WorkClass.INTERACTIVE), "job-0", 0)
    )
    return json.dumps(valid | changes).encode()


MALFORMED = (
    b"",
    b"no JSON",
    b"\xff\x00",
    b"[" * 100_000,
    b"null",
    b"[1]",
    b"{}",
    malformed_message(properties=None),
    malformed_message(headers=None),
    malformed_message(headers={"id": "job-0/0", "task": ["not", "hashable"]}),
    malformed_message(headers={"id": "job-0/0", "task": "some.other"}),
    malformed_message(headers={"id": ["job-0", 0]}),
    malformed_message(body="%"),
)


async def test_malformed_messages_are_skipped_and_valid_ones_are_processed(
    process: WorkerProcess, redis_client: Any, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    """Celery receives the messages in an idle worker, and the dispatcher in a busy one."""
    for number, malformed in enumerate(MALFORMED):
        wake_ups.put(malformed)
        wait_until(lambda: not store.messages(WorkClass.INTERACTIVE))
        if number % 4 == 3:
            await submit(ledger, wake_ups, job_id=f"job-{number}")
            wake_ups.put(malformed)
            wait_until(partial(has_state, store, "done", f"job-{number}"))
    assert process.child.exit_status is None
    wait_until(lambda: not redis_client.exists(queue_keys.UNACKED_INDEX))


async def test_the_worker_survives_kombu_keys_of_the_wrong_type(
    process: WorkerProcess, redis_client: Any, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    for key in queue_keys.KOMBU_KEYS:
        redis_client.delete(key)
        redis_client.set(key, "something else")
    redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_briefly(1.0)
    await ledger.repair(MODEL)
    await submit(ledger, wake_ups)
    wait_until(lambda: state_of(store) == "done", seconds=20)
    assert process.child.exit_status is None


@pytest.mark.parametrize("mode", ["full", "replica"])
async def test_the_worker_still_receives_messages_after_a_refused_acknowledgement(
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
        # The worker acknowledges the message after its linger time.
        wait_briefly(LINGER_SECONDS + 1.0)
    finally:
        allow()
    await submit(ledger, wake_ups, job_id="job-2")
    wait_until(partial(has_state, store, "done", "job-2"), seconds=20)


async def test_the_worker_survives_a_redis_that_refuses_reads_of_the_queue(
    process: WorkerProcess, redis_client: Any, ledger: JobLedger, store: StoreView, wake_ups: WakeUpSender
) -> None:
    """A replica refuses BRPOP. Without the patch of kombu the worker ends."""
    redis_client.replicaof("127.0.0.1", 1)
    try:
        wait_briefly(1.0)
    finally:
        redis_client.replicaof("NO", "ONE")
    await submit(ledger, wake_ups)
    wait_until(lambda: state_of(store) == "done", seconds=20)
    assert process.child.exit_status is None
