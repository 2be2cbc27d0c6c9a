import json
import time
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest

from shared.keys import pool_keys
from shared.pools.heartbeats import (
    FAILURE_SECONDS,
    STALE_SECONDS,
    Heartbeat,
    HeartbeatWriter,
    PoolHealth,
    WorkerState,
    read_heartbeats,
    summarize,
)
from tests.shared.support import MODEL

NOW = 1_700_000_000.0


@pytest.fixture
def client() -> Iterator[Any]:
    with fakeredis.FakeRedis() as client:
        yield client


def stored_heartbeats(client: Any) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = client.hgetall(pool_keys.workers(MODEL))
    return fields


def beats(*states: tuple[str, float, str]) -> dict[bytes, bytes]:
    """The hash of a pool with one worker for each (state, age in seconds, reason)."""
    return {
        f"w{number}".encode(): json.dumps(
            {"worker": f"w{number}", "state": state, "at": NOW - age, "reason": reason}
        ).encode()
        for number, (state, age, reason) in enumerate(states)
    }


def test_pool_without_heartbeats_has_no_workers() -> None:
    health = summarize({}, NOW)
    assert health == PoolHealth(ready=0, starting=0, failure=None)
    assert not health.down


def test_workers_are_counted_by_state() -> None:
    health = summarize(beats(("ready", 0, ""), ("ready", 1, ""), ("starting", 2, "")), NOW)
    assert health == PoolHealth(ready=2, starting=1, failure=None)


def test_stale_heartbeat_does_not_count() -> None:
    assert summarize(beats(("ready", STALE_SECONDS - 0.1, "")), NOW).ready == 1
    assert summarize(beats(("ready", STALE_SECONDS, "")), NOW).ready == 0


def test_last_failure_is_reported() -> None:
    health = summarize(beats(("failed", 5, "recent"), ("failed", 50, "older")), NOW)
    assert (health.failure, health.down) == ("recent", True)


@pytest.mark.parametrize("other", ["ready", "starting"])
def test_pool_with_a_ready_or_starting_worker_is_not_down(other: str) -> None:
    assert not summarize(beats(("failed", 1, "no weights"), (other, 1, "")), NOW).down


def test_failure_expires() -> None:
    assert summarize(beats(("failed", FAILURE_SECONDS - 1, "no weights")), NOW).down
    assert not summarize(beats(("failed", FAILURE_SECONDS, "no weights")), NOW).down


def test_heartbeat_with_an_unknown_state_is_skipped() -> None:
    assert summarize(beats(("ready", 0, ""), ("dreaming", 0, "")), NOW).ready == 1


@pytest.mark.parametrize(
    "damaged", [b"no JSON", b"[]", b'{"worker": "w", "state": "ready", "at": "soon"}', b'{"worker": "w", "at": NaN}']
)
def test_damaged_heartbeat_is_skipped(damaged: bytes) -> None:
    assert summarize(beats(("ready", 0, "")) | {b"w9": damaged}, NOW).ready == 1


class TestWriter:
    def test_heartbeat_has_the_state_and_reason(self, client: Any) -> None:
        writer = HeartbeatWriter(client, MODEL, "w1")
        writer.beat(WorkerState.STARTING)
        writer.beat(WorkerState.FAILED, "no weights")
        (beat,) = read_heartbeats(stored_heartbeats(client))
        assert (beat.worker, beat.state, beat.reason) == ("w1", WorkerState.FAILED, "no weights")
        assert abs(beat.at - time.time()) < 5

    def test_later_heartbeat_clears_the_reason(self, client: Any) -> None:
        writer = HeartbeatWriter(client, MODEL, "w1")
        writer.beat(WorkerState.FAILED, "no weights")
        writer.beat(WorkerState.READY)
        assert [beat.reason for beat in read_heartbeats(stored_heartbeats(client))] == [""]

    def test_hash_expires_without_heartbeats(self, client: Any) -> None:
        HeartbeatWriter(client, MODEL, "w1").beat(WorkerState.READY)
        assert 0 < client.ttl(pool_keys.workers(MODEL)) <= 3600

    def test_leave_removes_only_the_own_heartbeat(self, client: Any) -> None:
        first, second = (HeartbeatWriter(client, MODEL, name) for name in ("w1", "w2"))
        first.beat(WorkerState.READY)
        second.beat(WorkerState.READY)
        first.leave()
        assert list(stored_heartbeats(client)) == [b"w2"]

    def test_remove_stale_removes_dead_and_failed_workers(self, client: Any) -> None:
        now = time.time()
        for worker, state, age in [
            ("dead", WorkerState.READY, STALE_SECONDS),
            ("failed", WorkerState.FAILED, 0),
            ("busy", WorkerState.READY, 1),
        ]:
            beat = {"worker": worker, "state": state, "at": now - age, "reason": ""}
            client.hset(pool_keys.workers(MODEL), worker, json.dumps(beat))
        writer = HeartbeatWriter(client, MODEL, "own")
        writer.beat(WorkerState.READY)
        writer.remove_stale()
        assert set(stored_heartbeats(client)) == {b"busy", b"own"}


def test_failed_worker_is_not_alive() -> None:
    failed = Heartbeat(worker="w1", state=WorkerState.FAILED, at=NOW)
    assert not failed.alive(NOW)
    assert failed.recent_failure(NOW)
