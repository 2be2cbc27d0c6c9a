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


def pool(client: Any) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = client.hgetall(pool_keys.workers(MODEL))
    return fields


def beats(*states: tuple[str, float, str]) -> dict[bytes, bytes]:
    """What a pool's hash holds: one worker for each (state, age in seconds, reason)."""
    return {
        f"w{number}".encode(): json.dumps(
            {"worker": f"w{number}", "state": state, "at": NOW - age, "reason": reason}
        ).encode()
        for number, (state, age, reason) in enumerate(states)
    }


def test_nobody_has_said_anything_yet() -> None:
    health = summarize({}, NOW)
    assert health == PoolHealth(ready=0, starting=0, failure=None)
    assert not health.down


def test_workers_are_counted_by_where_they_stand() -> None:
    health = summarize(beats(("ready", 0, ""), ("ready", 1, ""), ("starting", 2, "")), NOW)
    assert health == PoolHealth(ready=2, starting=1, failure=None)


def test_a_silent_worker_counts_no_more() -> None:
    assert summarize(beats(("ready", STALE_SECONDS - 0.1, "")), NOW).ready == 1
    assert summarize(beats(("ready", STALE_SECONDS, "")), NOW).ready == 0


def test_the_last_failure_is_the_reason() -> None:
    health = summarize(beats(("failed", 5, "recent"), ("failed", 50, "older")), NOW)
    assert (health.failure, health.down) == ("recent", True)


@pytest.mark.parametrize("other", ["ready", "starting"])
def test_a_pool_with_a_worker_up_or_coming_is_not_down(other: str) -> None:
    assert not summarize(beats(("failed", 1, "no weights"), (other, 1, "")), NOW).down


def test_a_failure_is_forgotten_in_time() -> None:
    assert summarize(beats(("failed", FAILURE_SECONDS - 1, "no weights")), NOW).down
    assert not summarize(beats(("failed", FAILURE_SECONDS, "no weights")), NOW).down


def test_a_heartbeat_that_cannot_be_read_hides_no_other() -> None:
    assert summarize(beats(("ready", 0, ""), ("dreaming", 0, "")), NOW).ready == 1


@pytest.mark.parametrize(
    "spoiled", [b"no JSON", b"[]", b'{"worker": "w", "state": "ready", "at": "soon"}', b'{"worker": "w", "at": NaN}']
)
def test_nor_does_one_that_is_none(spoiled: bytes) -> None:
    assert summarize(beats(("ready", 0, "")) | {b"spoiled": spoiled}, NOW).ready == 1


class TestWriter:
    def test_a_beat_says_where_the_worker_stands(self, client: Any) -> None:
        writer = HeartbeatWriter(client, MODEL, "w1")
        writer.beat(WorkerState.STARTING)
        writer.beat(WorkerState.FAILED, "no weights")
        (beat,) = read_heartbeats(pool(client))
        assert (beat.worker, beat.state, beat.reason) == ("w1", WorkerState.FAILED, "no weights")
        assert abs(beat.at - time.time()) < 5

    def test_a_later_beat_has_no_old_reason(self, client: Any) -> None:
        writer = HeartbeatWriter(client, MODEL, "w1")
        writer.beat(WorkerState.FAILED, "no weights")
        writer.beat(WorkerState.READY)
        assert [beat.reason for beat in read_heartbeats(pool(client))] == [""]

    def test_a_pool_without_beats_disappears_in_time(self, client: Any) -> None:
        HeartbeatWriter(client, MODEL, "w1").beat(WorkerState.READY)
        assert 0 < client.ttl(pool_keys.workers(MODEL)) <= 3600

    def test_whoever_leaves_takes_along_only_its_own_beat(self, client: Any) -> None:
        first, second = (HeartbeatWriter(client, MODEL, name) for name in ("w1", "w2"))
        first.beat(WorkerState.READY)
        second.beat(WorkerState.READY)
        first.leave()
        assert list(pool(client)) == [b"w2"]

    def test_only_those_long_gone_and_failed_are_cleared_away(self, client: Any) -> None:
        now = time.time()
        for worker, state, age in [
            ("silent", WorkerState.READY, STALE_SECONDS),
            ("failed", WorkerState.FAILED, 0),
            ("busy", WorkerState.READY, 1),
        ]:
            beat = {"worker": worker, "state": state, "at": now - age, "reason": ""}
            client.hset(pool_keys.workers(MODEL), worker, json.dumps(beat))
        writer = HeartbeatWriter(client, MODEL, "me")
        writer.beat(WorkerState.READY)
        writer.forget_others()
        assert set(pool(client)) == {b"busy", b"me"}


def test_a_failed_worker_is_never_alive() -> None:
    failed = Heartbeat(worker="w1", state=WorkerState.FAILED, at=NOW)
    assert not failed.alive(NOW)
    assert failed.recent_failure(NOW)
